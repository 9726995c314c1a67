# SPDX-License-Identifier: Apache-2.0
"""The guard and motion: speed, where a chunk begins, and what it refuses to judge."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from guarded import (
    COLUMNS,
    FRANKA,
    FREE,
    HIGH,
    HORIZON,
    LOW,
    MEASURED,
    MIDDLE,
    answering,
    count,
    guard_of,
    request,
    rows,
    spoiled,
)

from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.safety_config import CLIP, REJECT, SCALE
from reflex_core.robot.presets import load_preset
from reflex_core.values import (
    CLOUD,
    HOLD,
    LAST_KNOWN_GOOD,
    POLICY,
    ActionChunk,
    Observation,
    Request,
    Served,
)
from reflex_core.wedges.guard import Guard, guard_for


def test_a_step_that_is_too_fast_is_slowed_down(fast: Guard, metrics: Metrics) -> None:
    actions = rows(MEASURED)
    actions[5:, 2] += 0.5
    served = fast(request(), answering(actions))
    moved = np.diff(served.chunk.actions[:, 2].astype(np.float64))
    assert moved.max() <= 2.175 * 0.05
    assert served.guard.violations == ("panda_joint3 velocity: 10 > 2.175 rad/s",)
    assert served.chunk.actions[4, 2] == actions[4, 2]
    np.testing.assert_array_equal(served.chunk.actions[:, :2], actions[:, :2])
    name = "reflex_safety_violations_total"
    assert count(metrics, name, embodiment="franka", violation_kind="velocity_clamp") == 1


def test_the_first_row_is_one_step_from_where_the_robot_is(fast: Guard) -> None:
    served = fast(request(), answering(rows((MEASURED + 0.4).astype(np.float32))))
    first = served.chunk.actions[0].astype(np.float64) - MEASURED
    assert (first <= FRANKA.velocity_max * 0.05).all()
    assert len(served.guard.violations) == 7


def test_the_first_row_is_compared_with_the_command_before(fast: Guard) -> None:
    """An arm trails its command: row 0 may be further from where it measures itself than one step."""
    received_ns = time.monotonic_ns()
    moving = (MIDDLE + np.arange(1, HORIZON + 1, dtype=np.float32)[:, None] * 0.08).astype(np.float32)
    assert not fast(request(state=MIDDLE, received_ns=received_ns), answering(moving)).guard.clamped
    # four periods later the command is 0.32 rad on, the arm trails two periods behind it
    trailing = request(state=moving[1], received_ns=received_ns + 200_000_000)
    assert not fast(trailing, answering((moving + np.float32(0.32)).astype(np.float32))).guard.clamped


def test_a_robot_that_is_nowhere_near_its_command_starts_from_where_it_is(fast: Guard) -> None:
    """Stopped by hand, moved by hand: a step towards the old command would be a jump."""
    fast(request(state=MIDDLE), answering(rows(MIDDLE)))
    elsewhere = (MIDDLE + 0.5).astype(np.float32)
    assert not fast(request(state=elsewhere), answering(rows(elsewhere))).guard.clamped
    jumped = fast(request(state=elsewhere), answering(rows(MIDDLE))).chunk.actions
    assert (np.abs(jumped[0] - elsewhere) <= FRANKA.velocity_max * 0.05).all()


def test_a_stamped_chunk_is_joined_at_the_row_that_is_due(fast: Guard) -> None:
    """The rows before have elapsed: the robot never sees them, so it is the jump to the next one that counts."""
    received_ns = time.monotonic_ns() - 310_000_000
    observation = Observation({}, MIDDLE, "reach", stamp_ns=10**18)
    ramp_rows = (MIDDLE + np.arange(1, HORIZON + 1, dtype=np.float32)[:, None] * 0.1).astype(np.float32)
    late = Request(observation, received_ns, "late", "pick")
    served = fast(late, answering(ramp_rows))
    assert served.guard.clamped
    np.testing.assert_array_equal(served.chunk.actions[:6], rows(MIDDLE, 6))
    assert (np.abs(served.chunk.actions[6] - MIDDLE) <= FRANKA.velocity_max * 0.05).all()


def test_an_unstamped_chunk_is_played_from_its_first_row(fast: Guard) -> None:
    ramp_rows = (MIDDLE + np.arange(1, HORIZON + 1, dtype=np.float32)[:, None] * 0.1).astype(np.float32)
    late = request(state=MIDDLE, received_ns=time.monotonic_ns() - 310_000_000)
    assert not fast(late, answering(ramp_rows)).guard.clamped


def test_a_robot_that_is_out_of_its_range_is_held_at_the_edge(fast: Guard, metrics: Metrics) -> None:
    """No row is both inside and one step away."""
    state = MEASURED.copy()
    state[1] = 2.05
    served = fast(request(state=state), answering(rows(MEASURED)))
    np.testing.assert_array_equal(served.chunk.actions, rows(np.clip(state, LOW, HIGH)))
    assert (served.chunk.source, served.hold_reason) == (HOLD, "out_of_reach")
    assert served.guard.violations[0].startswith("panda_joint2 range left already: 2.05 > 1.76")
    assert count(metrics, "reflex_holds_total", reason="out_of_reach") == 1


def test_a_stamped_robot_is_the_same_one_in_every_episode(fast: Guard) -> None:
    """Its arm goes on moving when the next episode begins: the first chunk is joined to the last of the one before."""
    received_ns = time.monotonic_ns()
    ramp_rows = (MIDDLE + np.arange(1, HORIZON + 1, dtype=np.float32)[:, None] * 0.08).astype(np.float32)
    first = Observation({}, MIDDLE, "reach", stamp_ns=10**18)
    fast(Request(first, received_ns + 10**9, "one", "pick"), answering(ramp_rows))
    later = Observation({}, ramp_rows[1], "reach", stamp_ns=10**18 + 200_000_000)
    incoming = Request(later, received_ns + 10**9 + 200_000_000, "two", "place")
    assert not fast(incoming, answering((ramp_rows + np.float32(0.32)).astype(np.float32))).guard.clamped


@pytest.mark.parametrize("robot", [FREE, None])
def test_without_speed_limits_another_episode_holds_where_the_robot_is(robot: Embodiment | None) -> None:
    guard = guard_of(robot)
    elsewhere = (MIDDLE + 0.5).astype(np.float32)
    observation = Observation({}, elsewhere, "reach", stamp_ns=10**18)
    guard(Request(observation, time.monotonic_ns(), "one", "pick"), answering(rows(MIDDLE)))
    later = Observation({}, elsewhere, "reach", stamp_ns=10**18 + 10**10)
    held = guard(Request(later, time.monotonic_ns(), "two", "place"), answering(spoiled()))
    np.testing.assert_array_equal(held.chunk.actions, rows(elsewhere))


def test_reject_mode_holds_instead_of_changing(metrics: Metrics) -> None:
    limits = effective_limits(FRANKA.joint_names, FRANKA, None)
    guard = Guard(limits, COLUMNS, metrics, "franka", REJECT)
    served = guard(request(), answering(rows(np.full(7, 50.0, np.float32))))
    np.testing.assert_array_equal(served.chunk.actions, rows(MEASURED))
    assert (served.chunk.source, served.hold_reason) == (HOLD, "rejected")
    name = "reflex_safety_violations_total"
    assert count(metrics, name, embodiment="franka", violation_kind="rejected") == 1
    assert not guard(request(), answering(rows(MEASURED))).guard.clamped


@pytest.mark.parametrize("mode", [CLIP, SCALE])
def test_numbers_too_large_to_be_repaired_are_a_hold(metrics: Metrics, mode: str) -> None:
    """Finite, but their differences are not: brought inside limits of acceleration they became NaN."""
    count_of, free = len(FRANKA.joint_names), np.full(len(FRANKA.joint_names), np.inf)
    none = np.zeros(count_of, np.bool_)
    limits = Limits(FRANKA.joint_names, -free, free, free, np.full(count_of, 20.0), none, none)
    actions = rows(MEASURED)
    actions[0] = -3e38
    served = Guard(limits, COLUMNS, metrics, "franka", mode)(request(), answering(actions))
    assert np.isfinite(served.chunk.actions).all()
    assert (served.chunk.source, served.hold_reason) == (HOLD, "non_finite")


@pytest.mark.parametrize("source", [POLICY, CLOUD, LAST_KNOWN_GOOD, HOLD])
def test_every_source_is_checked(guard: Guard, source: str) -> None:
    def proceed(request: Request) -> Served:
        served = answering(rows(np.full(7, 50.0, np.float32)))(request)
        return dataclasses.replace(served, chunk=dataclasses.replace(served.chunk, source=source))

    served = guard(request(), proceed)
    assert served.chunk.source == source
    assert (served.chunk.actions <= HIGH).all()


WRONG: dict[str, ActionChunk] = {
    "a column too many": ActionChunk(np.zeros((5, 8), np.float32), (*FRANKA.joint_names, "more"), 0.05),
    "other names": ActionChunk(np.zeros((5, 7), np.float32), FRANKA.joint_names[::-1], 0.05),
    "fewer columns than names": ActionChunk(np.zeros((5, 6), np.float32), FRANKA.joint_names, 0.05),
    "no rows": ActionChunk(np.zeros((0, 7), np.float32), FRANKA.joint_names, 0.05),
    "one row only, without its axis": ActionChunk(np.zeros(7, np.float32), FRANKA.joint_names, 0.05),
    "no period, so that speed means nothing": ActionChunk(
        np.zeros((5, 7), np.float32), FRANKA.joint_names, 0.0
    ),
    "a period that is no number": ActionChunk(np.zeros((5, 7), np.float32), FRANKA.joint_names, float("nan")),
}


@pytest.mark.parametrize("chunk", list(WRONG.values()), ids=list(WRONG))
def test_what_cannot_be_checked_becomes_a_hold(fast: Guard, metrics: Metrics, chunk: ActionChunk) -> None:
    def proceed(request: Request) -> Served:
        return dataclasses.replace(answering(rows(MIDDLE))(request), chunk=chunk)

    served = fast(request(), proceed)
    assert (served.chunk.source, served.hold_reason) == (HOLD, "guard_error")
    assert served.chunk.names == FRANKA.joint_names
    np.testing.assert_array_equal(served.chunk.actions[0], MEASURED)
    assert served.guard.clamped
    assert count(metrics, "reflex_holds_total", reason="guard_error") == 1


def test_a_robot_that_was_stopped_counts_from_where_it_is(fast: Guard) -> None:
    """Its last chunk would have led it on; the interface says that it is not executed any more."""

    def stamped(seconds: float) -> Request:
        stamp_ns = 100_000_000_000 + int(seconds * 1e9)
        observation = Observation({}, MEASURED, "reach the red cube", stamp_ns)
        return Request(observation, time.monotonic_ns(), "request-1", "pick")

    leading = (MEASURED + np.arange(1, HORIZON + 1, dtype=np.float32)[:, None] * 0.05).astype(np.float32)
    assert not fast(stamped(0.0), answering(leading)).guard.clamped
    led = fast.hold_position(stamped(0.05))
    fast.commands.forget()
    stopped = fast.hold_position(stamped(0.05))
    assert led is not None
    assert (led > MEASURED).all()
    np.testing.assert_array_equal(stopped, MEASURED)


GRIPPING = load_preset("franka")


@pytest.mark.parametrize(
    ("robot", "tolerance_rad", "follows_within"),
    [(FRANKA, 0.4, [np.inf] * 7), (FRANKA, 0.0, [0.2] * 7), (GRIPPING, 0.4, [*[np.inf] * 7, 0.2])],
    ids=["judged", "switched off", "no gripper"],
)
def test_where_a_path_tolerance_judges_a_joint_it_alone_says_whether_it_follows(
    robot: Embodiment, tolerance_rad: float, follows_within: list[float]
) -> None:
    guard = guard_for(
        robot,
        None,
        Metrics(),
        None,
        robot.joint_names,
        0.05,
        margin_rad=0.2,
        path_tolerance_rad=tolerance_rad,
    )
    assert guard.commands.tracking is not None
    assert guard.commands.tracking.tolist() == follows_within
