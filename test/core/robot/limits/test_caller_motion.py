# SPDX-License-Identifier: Apache-2.0
"""What is known of the robot that a request is for: what it was commanded, where it is measured, how it would be held."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from guarded import COLUMNS, FRANKA, FREE, MIDDLE

from reflex_core.robot.limits.caller_motion import UNKNOWN, CallerMotion
from reflex_core.robot.limits.history import Moment
from reflex_core.robot.limits.hold import COMMAND, MEASURED, STREAM
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.reachable import Motion, Splice, Start
from reflex_core.robot.plausibility import ANYTHING
from reflex_core.values import ActionChunk, Columns, Floats, Observation, Request

LIMITS = effective_limits(FRANKA.joint_names, FRANKA, None)
DT_S = 0.05
BEGAN_NS, STAMP_NS = 10**12, 10**18
RAMP: Floats = np.tile(MIDDLE, (10, 1))
RAMP[:, 0] += np.arange(1, 11, dtype=np.float32) * np.float32(0.05)


class Robot:
    """A robot that may have stamps, on a clock that the test moves."""

    def __init__(
        self, *, stamped: bool = False, columns: Columns | None = COLUMNS, limits: Limits | None = LIMITS
    ) -> None:
        self.now_s = 0.0
        self.stamped = stamped
        self.known = CallerMotion(limits, columns, ANYTHING, 0.2, lambda: BEGAN_NS + round(self.now_s * 1e9))

    def request(
        self, state: Floats | None = MIDDLE, at_s: float = 0.0, episode: str = "pick",
        newest: Callable[[], Observation | None] | None = None,
    ) -> Request:  # fmt: skip
        after_ns = round(at_s * 1e9)
        observation = Observation({}, state, "reach", STAMP_NS + after_ns if self.stamped else 0)
        caller = "" if self.stamped else "arm-1"
        return Request(observation, BEGAN_NS + after_ns, "request-1", episode, newest=newest, caller=caller)

    def issued(self, known: Motion = UNKNOWN, rows: Floats = RAMP) -> Floats:
        """Remember a chunk; what is remembered."""
        self.known.remember(self.request(), ActionChunk(rows, FRANKA.joint_names, DT_S), known)
        commanded = self.known._issued(self.request())
        assert commanded is not None
        return commanded.rows


def test_a_state_must_reach_as_far_as_the_farthest_joint_that_is_measured() -> None:
    assert Robot(columns=None).known.state_dim == 0
    robot = Robot(columns=np.array([2, 0]))
    assert robot.known.state_dim == 3
    assert robot.known.measured(robot.request(np.zeros(2, np.float32))) is None
    measured = robot.known.measured(robot.request(np.array([1.0, 2.0, 3.0], np.float32)))
    np.testing.assert_array_equal(measured, [3.0, 1.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, 2e6])
def test_one_joint_that_is_no_number_makes_nothing_known(value: float) -> None:
    state = MIDDLE.copy()
    state[3] = value
    robot = Robot()
    assert robot.known.measured(robot.request(state)) is None


def test_only_the_stamped_robot_is_looked_at_again() -> None:
    newer = Observation({}, (MIDDLE + 0.1).astype(np.float32), "", 1)
    robot = Robot(stamped=True)
    np.testing.assert_array_equal(robot.known._newest(robot.request(newest=lambda: newer)), newer.state)
    assert robot.known._newest(robot.request(newest=lambda: None)) is None
    assert robot.known._newest(robot.request()) is None
    other = Robot()
    assert other.known._newest(other.request(newest=lambda: newer)) is None


@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize(("low", "high", "at"), [(0.2, 0.3, 0.2), (-0.3, -0.2, -0.2), (-0.1, 0.1, 0.05)])
def test_commands_begin_where_the_robot_can_be(stamped: bool, low: float, high: float, at: float) -> None:
    middle = MIDDLE.astype(np.float64)
    rows = Robot(stamped=stamped).issued(Motion(Start(middle + low, middle + high)))
    assert rows[0, 0] == pytest.approx(MIDDLE[0] + at, abs=1e-6)
    np.testing.assert_array_equal(rows[1:], RAMP)


def test_where_the_row_is_unknown_it_begins_with_its_first_row() -> None:
    np.testing.assert_array_equal(Robot().issued()[0], RAMP[0])


@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize("requested_s", [0.21, 0.11])
def test_a_hold_is_of_the_row_that_is_due_now_however_old_the_request(
    stamped: bool, requested_s: float
) -> None:
    robot = Robot(stamped=stamped)
    robot.issued()
    robot.now_s = 0.21
    held = robot.known.hold(robot.request(None, requested_s), DT_S)
    assert held is not None
    assert held.rule == COMMAND
    assert held.position[0] == pytest.approx(MIDDLE[0] + 0.25)


@pytest.mark.parametrize(
    ("stamped", "state", "rule"),
    [(False, MIDDLE, MEASURED), (False, None, COMMAND), (True, MIDDLE, STREAM), (True, None, COMMAND)],
)
def test_a_request_from_before_the_command_is_held_where_it_was_measured_unless_its_stamp_says_more(
    stamped: bool, state: Floats | None, rule: str
) -> None:
    robot = Robot(stamped=stamped)
    robot.issued(rows=np.tile(MIDDLE, (10, 1)))
    held = robot.known.hold(robot.request(state, -0.02), DT_S)
    assert held is not None
    assert held.rule == rule


@pytest.mark.parametrize(("stamped", "rule"), [(False, COMMAND), (True, STREAM)])
def test_who_plays_its_chunk_by_itself_is_led_on_to_where_it_was_commanded(stamped: bool, rule: str) -> None:
    robot = Robot(stamped=stamped)
    robot.issued(rows=np.tile(MIDDLE, (10, 1)))
    robot.now_s = 0.2
    held = robot.known.hold(robot.request((MIDDLE + 0.01).astype(np.float32), 0.2), DT_S)
    assert held is not None
    assert held.rule == rule
    np.testing.assert_allclose(held.position, MIDDLE, atol=1e-6)


def test_a_request_of_the_moment_of_the_command_is_no_older() -> None:
    robot = Robot()
    robot.issued(rows=np.tile(MIDDLE, (10, 1)))
    held = robot.known.hold(robot.request(), DT_S)
    assert held is not None
    assert held.rule == COMMAND


@pytest.mark.parametrize(("episode", "lag"), [("pick", 0.0), ("place", 0.3)])
def test_without_speed_limits_a_command_of_another_episode_is_not_followed(episode: str, lag: float) -> None:
    robot = Robot(limits=effective_limits(FREE.joint_names, FREE, None))
    robot.issued(rows=np.tile(MIDDLE, (10, 1)))
    held = robot.known.hold(robot.request((MIDDLE + 0.3).astype(np.float32), 0.2, episode), DT_S)
    assert held is not None
    np.testing.assert_allclose(held.position, MIDDLE + lag, atol=1e-6)
    unseen = robot.known.hold(robot.request(None, 0.2, episode), DT_S)
    assert unseen is not None
    np.testing.assert_allclose(unseen.position, MIDDLE, atol=1e-6)


@pytest.mark.parametrize("stamped", [False, True])
def test_one_joint_that_does_not_follow_is_held_where_it_is_measured(stamped: bool) -> None:
    robot = Robot(stamped=stamped)
    robot.issued(rows=np.tile(MIDDLE, (10, 1)))
    elsewhere = MIDDLE.copy()
    elsewhere[0] += 0.9
    held = robot.known.hold(robot.request(elsewhere, 0.2), DT_S)
    assert held is not None
    assert held.rule == STREAM
    np.testing.assert_allclose(held.position, elsewhere, atol=1e-6)


@pytest.mark.parametrize(
    ("periods", "share"), [(2.9, 0.0), (3.0, 0.0), (3.25, 0.25), (3.5, 0.5), (3.95, 0.9), (7.0, 0.9)]
)
@pytest.mark.parametrize("commanded", [None, 0.03])
def test_a_chunk_that_is_joined_is_remembered_as_the_way_there_and_the_line_that_is_under_way(
    periods: float, share: float, commanded: float | None
) -> None:
    """The line to the row that is joined is at the command now, so that what is read between the rows is true."""
    robot = Robot(stamped=True)
    robot.now_s = periods * DT_S
    end, path = MIDDLE.astype(np.float64) + 0.1, np.tile(MIDDLE + 0.02, (3, 1)).astype(np.float64)
    commanded_rows = None if commanded is None else MIDDLE.astype(np.float64) + commanded
    rows = robot.issued(Motion(splice=Splice(3, end, np.zeros(7), lambda: path, commanded_rows)))
    now = end if commanded_rows is None else commanded_rows
    np.testing.assert_allclose(rows[1:3], path[:2], atol=1e-6)
    np.testing.assert_array_equal(rows[4:], RAMP[3:])
    np.testing.assert_allclose(rows[3] + (rows[4] - rows[3]) * share, now, atol=1e-5)
    assert robot.known.robot.joined == 3


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8])
def test_the_first_chunk_of_a_robot_at_rest_is_remembered_as_leaving_when_it_is_published(
    share: float,
) -> None:
    """Not when its observation was stamped: a next chunk soon after it is limited from where the command is by then."""
    robot, at = Robot(stamped=True), MIDDLE.astype(np.float64)
    robot.now_s = share * DT_S
    rows = robot.issued(Motion(Start(at, at, np.zeros(7))))
    np.testing.assert_allclose(rows[0] + (rows[1] - rows[0]) * share, at, atol=1e-6)
    np.testing.assert_array_equal(rows[1:], RAMP)


@pytest.mark.parametrize("rests", [False, True])
def test_a_chunk_with_a_stamp_from_the_future_is_commanded_from_now_on(rests: bool) -> None:
    """The robot sets out for its first row at once, and so a hold soon after stops on that way and no further."""
    robot, ahead_s, at = Robot(stamped=True), 0.15, MIDDLE.astype(np.float64)
    robot.now_s = -ahead_s
    joined = Splice(0, at + 0.1, np.zeros(7), lambda: np.empty((0, 7)), at)
    robot.issued(Motion(Start(at, at)) if rests else Motion(splice=joined))
    commanded = robot.known.robot.recall()
    assert commanded is not None
    assert robot.known.robot.joined == 0
    robot.now_s = -ahead_s + 0.1
    now = Moment(BEGAN_NS + round(robot.now_s * 1e9), STAMP_NS + round(robot.now_s * 1e9))
    under_way = at + (RAMP[0] - at) * 0.5
    np.testing.assert_allclose(
        commanded.at(np.array([now.seconds_since(commanded.moment)]))[0], under_way, atol=1e-6
    )
    held = robot.known.robot.hold(None, None, now, DT_S)
    assert held is not None
    assert under_way[0] <= held.position[0] <= under_way[0] + (RAMP[0, 0] - at[0]) * 0.25 + 1e-6


def test_rows_without_a_rate_and_with_a_stamp_from_the_future_are_what_they_are() -> None:
    robot = Robot(stamped=True)
    robot.now_s = -0.15
    robot.known.remember(robot.request(), ActionChunk(RAMP, FRANKA.joint_names, 0.0), UNKNOWN)
    commanded = robot.known.robot.recall()
    assert commanded is not None
    np.testing.assert_array_equal(commanded.rows[1:], RAMP)


def test_without_a_rate_a_chunk_is_joined_at_the_command() -> None:
    robot = Robot(stamped=True)
    robot.now_s = 1.0
    end = MIDDLE.astype(np.float64) + 0.1
    splice = Splice(1, end, np.zeros(7), lambda: end[None])
    robot.known.remember(robot.request(), ActionChunk(RAMP, FRANKA.joint_names, 0.0), Motion(splice=splice))
    commanded = robot.known.robot.recall()
    assert commanded is not None
    np.testing.assert_allclose(commanded.rows[1], end, atol=1e-6)


@pytest.mark.parametrize(
    ("stamped", "lag", "follows"),
    [(True, 0.15, True), (True, 0.19, True), (True, 0.21, False), (False, 0.1, True), (False, 0.15, False)],
)
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_only_the_robot_whose_commands_are_known_may_trail_them_by_the_tracking_margin(
    stamped: bool, lag: float, follows: bool, side: float
) -> None:
    """Its new chunk is joined to the command; a program's, beyond one step, to where it is measured."""
    robot = Robot(stamped=stamped)
    robot.issued(rows=np.tile(MIDDLE, (10, 1)))
    robot.now_s = 0.5
    trailing = MIDDLE.copy()
    trailing[0] += np.float32(side * lag)
    known = robot.known.motion(robot.request(trailing, 0.5), 10, DT_S)
    assert known.trusted is not None
    np.testing.assert_array_equal(known.trusted, [follows, *[True] * 6])
    assert (known.splice is not None) is stamped
    if known.splice is not None:
        np.testing.assert_allclose(known.splice.end, MIDDLE if follows else trailing, atol=1e-6)


@pytest.mark.parametrize("moved_on", [True, False])
def test_the_stamped_robot_is_held_from_where_it_is_by_now_and_not_from_when_it_was_asked_for(
    moved_on: bool,
) -> None:
    """An inference took 0.5 s: an arm that did what was commanded goes on, one that was stopped stays where it is seen now."""
    quick: Floats = np.tile(MIDDLE, (30, 1))
    quick[:, 0] += np.arange(1, 31, dtype=np.float32) * np.float32(0.1)
    robot = Robot(stamped=True)
    robot.issued(rows=quick)
    robot.now_s = 1.0
    measured_then, now_at = quick[9].copy(), quick[19 if moved_on else 11].copy()
    held = robot.known.hold(
        robot.request(measured_then, 0.5, newest=lambda: Observation({}, now_at, "", 1)), DT_S
    )
    assert held is not None
    assert held.position[0] == pytest.approx(quick[20 if moved_on else 11, 0], abs=1e-5)


def test_of_programs_that_name_no_robot_each_episode_has_its_own_commands() -> None:
    robot = Robot()
    pick, place = (dataclasses.replace(robot.request(episode=name), caller="") for name in ("pick", "place"))
    robot.known.remember(pick, ActionChunk(RAMP, FRANKA.joint_names, DT_S), UNKNOWN)
    assert robot.known._issued(pick) is not None
    assert robot.known._issued(place) is None
    named = dataclasses.replace(pick, caller="arm-1")
    assert robot.known._issued(named) is None
