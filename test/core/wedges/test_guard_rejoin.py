# SPDX-License-Identifier: Apache-2.0
"""A chunk that waited after it was judged is joined anew, to what the robot does by then; the clock is the test's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from guarded import COLUMNS, FRANKA, HORIZON, MIDDLE, answering, rows

from reflex_core.errors import InferenceError
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.limits.history import Commanded, Moment
from reflex_core.robot.limits.limits import effective_limits
from reflex_core.robot.limits.safety_config import CLIP, REJECT
from reflex_core.values import HOLD, POLICY, ROS, ActionChunk, Floats, Observation, Request, Served
from reflex_core.wedges.guard import Guard

DT_S = 0.05
BEGAN_NS = 10**12
STAMP_NS = 1_700_000_000 * 10**9
# 0.08 rad a row, a little less than the slowest joint may
RAMP: Floats = (MIDDLE + np.arange(1, HORIZON + 1, dtype=np.float32)[:, None] * 0.08).astype(np.float32)
ROUNDING = 1e-5


class Robot:
    """The guard of the robot whose observations are stamped, on a clock that stands still unless the test moves it."""

    def __init__(
        self,
        mode: str = CLIP,
        *,
        limited: bool = True,
        acceleration_max: float = np.inf,
        clamps: int = 0,
    ) -> None:
        self.now_ns = BEGAN_NS
        limits = effective_limits(FRANKA.joint_names, FRANKA, None)
        assert limits is not None
        bends = np.full(7, acceleration_max)
        limits = dataclasses.replace(limits, acceleration_max=bends) if limited else None
        self.metrics = Metrics()
        self.guard = Guard(
            limits, COLUMNS, self.metrics, "franka", mode, clamps, tracking_rad=0.2, monotonic_ns=lambda: self.now_ns
        )  # fmt: skip

    def request(self, state: Floats | None = MIDDLE) -> Request:
        observation = Observation({}, state, "reach", STAMP_NS + self.now_ns - BEGAN_NS)
        return Request(observation, self.now_ns, "request-1", "pick", caller=ROS)

    def judged(self, request: Request, actions: Floats) -> Served:
        return self.guard(request, answering(actions, DT_S))

    def late(self, actions: Floats, row: int = 6) -> tuple[Served, Served]:
        """A chunk as it was judged, and as it may be executed from `row` on, with the robot at rest meanwhile."""
        self.guard.commands.end()
        self.judged(self.request(), rows(MIDDLE))
        return self.late_again(actions, row)

    def late_again(self, actions: Floats, row: int = 6) -> tuple[Served, Served]:
        """The same without a chunk before, which ends every row of clamped ones."""
        self.guard.commands.executed()
        request = self.request()
        served = self.judged(request, actions)
        self.wait(row * DT_S)
        return served, self.guard.rejoined(request, served, row)

    def counted(self, kind: str) -> float | None:
        labels = {"embodiment": "franka", "violation_kind": kind}
        return self.metrics.registry.get_sample_value("reflex_safety_violations_total", labels)

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def test_a_chunk_that_did_not_wait_stays_as_it_is() -> None:
    robot = Robot()
    request = robot.request()
    served = robot.judged(request, RAMP)
    assert robot.guard.commands.joined == 0
    assert robot.guard.rejoined(request, served, 0) is served


def test_a_chunk_that_waited_begins_one_step_from_where_the_robot_was_led_meanwhile() -> None:
    robot = Robot()
    robot.judged(robot.request(), rows(MIDDLE))
    robot.guard.commands.executed()
    request = robot.request()
    served = robot.judged(request, RAMP)
    assert not served.guard.clamped
    robot.wait(0.3)
    late = robot.guard.rejoined(request, served, 6)
    assert late.guard.clamped
    first = late.chunk.actions[6].astype(np.float64) - MIDDLE
    assert (first > 0.05).all()
    assert (first <= FRANKA.velocity_max * DT_S + ROUNDING).all()
    np.testing.assert_allclose(late.chunk.actions[:6], rows(MIDDLE, 6), atol=1e-6)
    assert robot.guard.commands.joined == 6
    commanded = robot.guard.commands.recall()
    assert commanded is not None
    np.testing.assert_array_equal(commanded.rows[7:], late.chunk.actions[6:])


def test_a_chunk_that_waited_and_still_fits_goes_out_as_it_was_judged() -> None:
    robot = Robot()
    robot.judged(robot.request(), rows(MIDDLE))
    robot.guard.commands.executed()
    request = robot.request()
    served = robot.judged(request, rows(MIDDLE))
    robot.wait(0.1)
    assert robot.guard.rejoined(request, served, 2) is served
    assert robot.guard.commands.joined == 2


def test_it_is_joined_to_what_was_published_and_not_to_itself() -> None:
    """The robot executes the chunk before; the one that waited was never sent."""
    robot = Robot()
    down: Floats = (2 * MIDDLE - RAMP).astype(np.float32)
    robot.judged(robot.request(), down)
    robot.guard.commands.executed()
    request = robot.request()
    served = robot.judged(request, RAMP)
    robot.wait(0.25)
    late = robot.guard.rejoined(request, served, 5)
    assert (np.abs(late.chunk.actions[5] - down[4]) <= FRANKA.velocity_max * DT_S + ROUNDING).all()


def test_what_cannot_be_joined_any_more_is_a_hold() -> None:
    robot = Robot(REJECT)
    robot.judged(robot.request(), rows(MIDDLE))
    robot.guard.commands.executed()
    request = robot.request()
    served = robot.judged(request, RAMP)
    robot.wait(0.3)
    late = robot.guard.rejoined(request, served, 6)
    assert (late.chunk.source, late.hold_reason) == (HOLD, "rejected")
    np.testing.assert_allclose(late.chunk.actions[-1], MIDDLE, atol=1e-6)


def test_a_hold_and_a_robot_without_limits_are_not_joined() -> None:
    robot = Robot()
    request = robot.request()
    served = robot.judged(request, RAMP)
    held = dataclasses.replace(served, chunk=dataclasses.replace(served.chunk, source=HOLD))
    assert robot.guard.rejoined(request, held, 6) is held
    free = Robot(limited=False)
    request = free.request()
    served = free.judged(request, RAMP)
    commanded = free.guard.commands.recall()
    assert free.guard.rejoined(request, served, 6) is served
    assert free.guard.commands.recall() is commanded


def test_where_it_cannot_even_be_held_it_is_an_error() -> None:
    robot = Robot(REJECT)
    request = robot.request(state=None)
    served = robot.judged(request, rows(MIDDLE))
    leaping = rows(MIDDLE)
    leaping[5:] += 1.0
    spoiled = dataclasses.replace(served, chunk=dataclasses.replace(served.chunk, actions=leaping))
    with pytest.raises(InferenceError, match="no known position to hold"):
        robot.guard.rejoined(request, spoiled, 3)


@pytest.mark.parametrize(("source", "clamped"), [(HOLD, False), (POLICY, True)])
def test_a_hold_from_further_in_may_stop_as_hard_as_it_likes_and_a_chunk_may_not(
    source: str, clamped: bool
) -> None:
    robot = Robot(acceleration_max=10.0)
    run_up = np.minimum(np.arange(1, HORIZON + 1), 4) * 0.02  # as hard as it may, then steadily
    moving: Floats = (MIDDLE + np.cumsum(run_up)[:, None]).astype(np.float32)
    assert not robot.judged(robot.request(), moving).guard.clamped
    robot.guard.commands.executed()
    robot.wait(0.3)

    def stopping(request: Request) -> Served:
        served = answering(rows(moving[5]), DT_S)(request)
        return dataclasses.replace(served, chunk=dataclasses.replace(served.chunk, source=source))

    assert robot.guard(robot.request(moving[5]), stopping).guard.clamped is clamped


def test_the_position_of_a_hold_is_the_row_that_the_robot_approaches() -> None:
    robot = Robot(acceleration_max=10.0)
    run_up = np.minimum(np.arange(1, HORIZON + 1), 4) * 0.02
    moving: Floats = (MIDDLE + np.cumsum(run_up)[:, None]).astype(np.float32)
    robot.judged(robot.request(), moving)
    robot.guard.commands.executed()
    robot.wait(0.32)
    position = robot.guard.hold_position(robot.request(state=None))
    assert position is not None
    np.testing.assert_allclose(position, moving[6], atol=1e-5)
    assert Robot().guard.hold_position(robot.request(state=None)) is None


OVER: Floats = RAMP.copy()
OVER[0, 0] = 50.0  # one number outside the range, which has elapsed when the chunk is joined again


def test_what_both_looks_changed_is_said_and_counted() -> None:
    robot = Robot(clamps=9)
    served, late = robot.late(OVER)
    first, second = served.guard.violations, late.guard.violations[len(served.guard.violations) :]
    assert late.guard.violations[: len(first)] == first
    assert any("above max" in line for line in first)
    assert second
    assert all("velocity" in line for line in second)
    assert robot.guard.status().violations_total == len(first) + len(second)
    assert robot.counted("joint_clamp") == 1
    assert robot.counted("velocity_clamp") == 2
    assert late.guard.clamp_count == (late.chunk.actions != OVER).sum()
    assert robot.guard.status().inference_count == 2


def test_what_the_first_look_changed_and_the_second_left_alone_is_counted_as_well() -> None:
    robot = Robot()
    actions: Floats = rows(MIDDLE)
    actions[:, 0] = RAMP[:, 0]  # begins too far away at the second look
    actions[-1, 1] = 50.0  # outside the range at the first
    served, late = robot.late(actions)
    assert served.guard.clamp_count == 1
    assert late.guard.clamp_count == (late.chunk.actions != actions).sum() > HORIZON


def test_a_chunk_that_another_one_overtook_counts_as_it_did_at_the_first_look() -> None:
    """How many clamped ones came before it is not known any more."""
    robot = Robot(clamps=9)
    robot.judged(robot.request(), rows(MIDDLE))
    robot.guard.commands.executed()
    request = robot.request()
    served = robot.judged(request, RAMP)
    robot.judged(dataclasses.replace(request, request_id="request-2"), rows(MIDDLE))
    robot.wait(0.3)
    late = robot.guard.rejoined(request, served, 6)
    assert late.guard.clamp_count == (late.chunk.actions != RAMP).sum() > 0
    assert robot.guard.status(ROS).consecutive_clamps == 0


def test_a_program_that_asks_between_the_two_looks_changes_nothing_for_the_robot() -> None:
    robot = Robot(clamps=9)
    robot.judged(robot.request(), rows(MIDDLE))
    robot.guard.commands.executed()
    request = robot.request()
    served = robot.judged(request, RAMP)
    seen = dataclasses.replace(request.observation, stamp_ns=0)
    robot.judged(Request(seen, robot.now_ns, "request-2", "place", caller="arm-1"), rows(MIDDLE))
    robot.wait(0.3)
    assert robot.guard.rejoined(request, served, 6).guard.clamped
    assert robot.guard.status(ROS).consecutive_clamps == 1


@pytest.mark.parametrize("actions", [RAMP, OVER], ids=["clean at first", "changed twice"])
def test_a_chunk_counts_once_towards_the_trip_whichever_look_changed_it(actions: Floats) -> None:
    robot = Robot(clamps=3)
    robot.late(actions)
    assert robot.guard.status(ROS).consecutive_clamps == 1
    for clamps in (2, 3):
        robot.guard.commands.end()
        robot.guard.commands.remember(commanded_to_rest(robot), 0)
        _, late = robot.late_again(actions)
        assert robot.guard.status(ROS).consecutive_clamps == clamps
    assert (late.chunk.source, late.hold_reason) == (HOLD, "guard_tripped")
    assert robot.guard.status(ROS).tripped
    assert any("velocity" in line for line in late.guard.violations)


def commanded_to_rest(robot: Robot) -> Commanded:
    return Commanded(
        rows(MIDDLE, HORIZON + 1), DT_S, Moment(robot.now_ns, STAMP_NS + robot.now_ns - BEGAN_NS), "pick"
    )


def test_a_second_look_that_changes_nothing_counts_nothing() -> None:
    robot = Robot(clamps=3)
    served, late = robot.late(rows(MIDDLE), 2)
    assert late is served
    status = robot.guard.status(ROS)
    assert (status.consecutive_clamps, status.violations_total) == (0, 0)


def test_a_hold_after_the_second_look_says_what_both_found() -> None:
    robot = Robot(REJECT, clamps=9)
    served, late = robot.late(RAMP)
    assert not served.guard.clamped
    assert late.hold_reason == "rejected"
    assert late.guard.clamp_count == RAMP.size
    assert robot.counted("rejected") == 1
    assert robot.guard.status(ROS).consecutive_clamps == 1


@pytest.mark.parametrize(
    ("lag", "joined_to_command"), [(0.0, True), (0.15, True), (0.19, True), (0.3, False)]
)
def test_an_arm_that_trails_goes_on_from_its_command_and_not_from_where_it_is(
    lag: float, joined_to_command: bool
) -> None:
    """A chunk joined to the measurement of an arm that lags would take the command back by the lag, every time."""
    robot = Robot()
    robot.judged(robot.request(), rows(MIDDLE))
    robot.guard.commands.executed()
    robot.wait(1.0)
    behind: Floats = (MIDDLE - np.float32(lag)).astype(np.float32)
    request = dataclasses.replace(robot.request(behind), newest=lambda: Observation({}, behind, "", 0))
    served = robot.judged(request, rows(MIDDLE))
    robot.wait(0.3)
    late = robot.guard.rejoined(request, served, 6)
    step = FRANKA.velocity_max * DT_S
    if joined_to_command:
        assert late is served
        assert not served.guard.clamped
    else:
        assert late.guard.clamped
        assert (np.abs(late.chunk.actions[6] - behind) <= step + ROUNDING).all()


def test_a_chunk_of_no_numbers_is_a_hold_from_where_the_robot_is_when_it_comes() -> None:
    robot = Robot()
    robot.judged(robot.request(), RAMP)
    robot.guard.commands.executed()
    robot.wait(0.1)
    now: Floats = RAMP[7].copy()
    waiting = dataclasses.replace(robot.request(RAMP[1].copy()), newest=lambda: Observation({}, now, "", 0))

    def slow(request: Request) -> Served:
        robot.wait(0.3)
        return answering(rows(np.full(7, np.nan, np.float32)), DT_S)(request)

    served = robot.guard(waiting, slow)
    assert (served.chunk.source, served.hold_reason) == (HOLD, "non_finite")
    np.testing.assert_allclose(served.chunk.actions[-1], RAMP[8], atol=1e-5)


def led(served: Served, actions: Floats) -> ActionChunk:
    return dataclasses.replace(served.chunk, actions=actions)


def test_a_chunk_that_is_led_over_from_the_command_is_executed_as_it_was_led() -> None:
    robot = Robot()
    request = robot.request()
    served = robot.judged(request, RAMP)
    slower = (MIDDLE + (RAMP - MIDDLE) * np.float32(0.5)).astype(np.float32)
    taken = robot.guard.rejoined(request, served, 0, led(served, slower))
    assert taken.chunk.actions is slower
    assert not taken.guard.clamped
    robot.guard.commands.executed()
    place = robot.guard.commands.place(Moment(robot.now_ns + round(3 * DT_S * 1e9), 0))
    np.testing.assert_allclose(place, slower[2], atol=1e-6, err_msg="it is remembered")


def test_a_chunk_that_is_led_over_as_it_is_stays_what_was_judged() -> None:
    robot = Robot()
    request = robot.request()
    served = robot.judged(request, RAMP)
    assert robot.guard.rejoined(request, served, 0, served.chunk) is served


def test_what_is_too_fast_in_the_leading_over_is_kept_inside_the_limits_and_not_held_against_the_policy() -> (
    None
):
    robot = Robot(clamps=1)
    request = robot.request()
    served = robot.judged(request, RAMP)
    leaping = RAMP.copy()
    leaping[3:6] += np.float32(0.3)
    taken = robot.guard.rejoined(request, served, 0, led(served, leaping))
    assert not taken.guard.clamped
    assert not robot.guard.status(ROS).tripped
    assert robot.counted("velocity_clamp") == 0
    assert np.abs(np.diff(taken.chunk.actions, axis=0)).max() <= 2.61 * DT_S + ROUNDING
    assert (taken.chunk.actions[4] > RAMP[4] + 0.01).any(), "as near to it as may be"


def test_where_only_the_chunk_itself_is_inside_the_limits_in_reject_mode_it_is_executed() -> None:
    robot = Robot(REJECT)
    request = robot.request()
    served = robot.judged(request, RAMP)
    leaping = RAMP.copy()
    leaping[3:6] += np.float32(0.3)
    assert robot.guard.rejoined(request, served, 0, led(served, leaping)).chunk.actions is RAMP


def test_a_chunk_that_breaks_a_limit_when_it_is_joined_anew_is_reported_and_led_over_all_the_same() -> None:
    robot = Robot()
    robot.guard.commands.end()
    robot.judged(robot.request(), rows(MIDDLE))
    robot.guard.commands.executed()
    request = robot.request()
    served = robot.judged(request, RAMP)
    robot.wait(6 * DT_S)
    slower = (MIDDLE + (RAMP - MIDDLE) * np.float32(0.2)).astype(np.float32)
    slower[:6] = served.chunk.actions[:6]
    taken = robot.guard.rejoined(request, served, 6, led(served, slower))
    assert taken.guard.clamped
    assert (taken.chunk.actions[6:] <= RAMP[6:]).all()
    assert np.abs(taken.chunk.actions[6] - MIDDLE).max() <= 2.61 * DT_S + ROUNDING


def test_a_robot_without_limits_is_led_over_too() -> None:
    robot = Robot(limited=False)
    request = robot.request()
    served = robot.judged(request, RAMP)
    slower = (RAMP - np.float32(0.01)).astype(np.float32)
    assert robot.guard.rejoined(request, served, 0, led(served, slower)).chunk.actions is slower
