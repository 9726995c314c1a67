# SPDX-License-Identifier: Apache-2.0
"""The path tolerance by itself, on a clock that the test moves: which joints follow their commands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from guarded import FRANKA

from reflex_core.robot.joint_gate import RECOVERY_S, Path
from reflex_core.robot.limits.reachable import TRACKING_S
from reflex_core.robot.path_tolerance import (
    PATH_TOLERANCE_VIOLATED,
    PathTolerance,
    Reference,
    path_tolerance,
)
from reflex_core.robot.presets import load_preset

TICK_S, DT_S, TOLERANCE = 0.01, 0.05, 0.4
FASTEST = 2.61  # rad/s, of the arm's last joints
SECOND = 10**9


class Arm:
    """One joint `a` that is commanded and reads what the test says; another one, `b`, rests."""

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.errors: list[str] = []
        self.path = PathTolerance(["a", "b"], tolerance, lambda joint, _: self.errors.append(joint))
        self.now_ns = 10**12
        self.reads(0.0)

    def reads(self, value: float, after_s: float = TICK_S) -> Arm:
        self.now_ns += round(after_s * SECOND)
        self.path.put(["b", "stranger", "a"], [0.0, 99.0, value], self.now_ns)
        return self

    def rests(self, value: float, seconds: float) -> Arm:
        for _ in range(round(seconds / TICK_S)):
            self.reads(value)
        return self

    def commanded(self, speed: float, seconds: float = 10.0, begin: float = 0.0) -> Arm:
        """Go from `begin` at `speed` (rad/s) from now on."""
        rows = [begin + speed * DT_S * (row + 1) for row in range(round(seconds / DT_S))]
        first_ns = self.now_ns + round(DT_S * SECOND)
        self.path.commanded({"a": Path(rows, first_ns, DT_S), "b": Path([0.0], first_ns, 0.0)}, self.now_ns)
        return self

    def follows(self, seconds: float, reading: Callable[[float], float]) -> Arm:
        """Read what `reading` makes of the seconds since now."""
        for tick in range(1, round(seconds / TICK_S) + 1):
            self.reads(reading(tick * TICK_S))
        return self

    @property
    def held(self) -> bool:
        return self.path.fault() is not None


def test_what_is_commanded_is_linear_between_rows_and_goes_on_from_where_it_was_when_a_chunk_is_joined() -> (
    None
):
    reference = Reference(0, 1.0)
    reference.splice(Path([2.0, 3.0], SECOND, 1.0), 0)
    assert [reference.at(at) for at in (-5, 0, SECOND // 2, SECOND, 3 * SECOND)] == [1.0, 1.0, 1.5, 2.0, 3.0]
    reference.splice(Path([9.0, 0.0], SECOND, 1.0), SECOND // 2 * 3)  # its first row is over
    assert reference.at(SECOND // 2 * 3) == 2.5
    assert reference.at(SECOND // 4 * 7) == 1.25
    assert reference.at(5 * SECOND) == 0.0
    assert reference.envelope(SECOND, 5 * SECOND) == (0.0, 2.5)
    assert reference.envelope(SECOND // 4 * 7, SECOND // 4 * 7) == (1.25, 1.25)


def test_rows_that_are_all_over_count_as_their_last_one() -> None:
    reference = Reference(0, 1.0)
    reference.splice(Path([2.0, 3.0], SECOND, 1.0), 9 * SECOND)
    assert reference.at(10 * SECOND) == 3.0


def test_a_reference_keeps_no_needless_history() -> None:
    reference = Reference(0, 0.0)
    for chunk in range(1000):
        reference.splice(Path([1.0] * 50, chunk * SECOND // 10, 0.02), chunk * SECOND // 10)
    assert len(reference._times_ns) < 200


@pytest.mark.parametrize("lag_s", [0.0, 0.1, 0.2, TRACKING_S + 0.9 * TOLERANCE / FASTEST])
def test_an_arm_that_lags_by_tenths_of_a_second_at_full_speed_follows(lag_s: float) -> None:
    arm = Arm().commanded(FASTEST, 1.0)
    arm.follows(2.0, lambda seconds: FASTEST * min(max(seconds - lag_s, 0.0), 1.0))
    assert not arm.held


def test_an_arm_that_lags_a_little_is_not_reported() -> None:
    arm = (
        Arm()
        .commanded(FASTEST, 1.0)
        .follows(2.0, lambda seconds: FASTEST * min(max(seconds - 0.2, 0.0), 1.0))
    )
    assert arm.errors == []
    assert arm.path.warning() == ""


def test_a_joint_that_trails_by_more_than_half_the_tolerance_is_named_and_counted_once_and_not_held() -> None:
    arm = Arm().commanded(1.0, 0.5).rests(0.2, 2.0)
    assert arm.errors == ["a"]
    assert not arm.held
    assert "joint 'a' is 0.30 rad from its command" in arm.path.warning()
    assert "path_tolerance_rad" in arm.path.warning()
    assert arm.rests(0.5, 0.1).path.warning() == ""
    assert arm.rests(0.2, 0.1).errors == ["a", "a"]


@pytest.mark.parametrize("sense", [1.0, -1.0])
@pytest.mark.parametrize("speed", [0.1, 1.0, FASTEST])
def test_a_reading_that_is_frozen_is_held_once_the_command_is_beyond_the_tolerance(
    speed: float, sense: float
) -> None:
    arm = Arm().commanded(sense * speed)
    seconds = 0.0
    while not arm.held:
        arm.reads(0.0)
        seconds += TICK_S
    assert seconds * speed == pytest.approx(TOLERANCE + TRACKING_S * speed, abs=2 * TICK_S * speed)
    fault = arm.path.fault()
    assert fault is not None
    assert (fault.joint, fault.reading, fault.reason) == ("a", 0.0, PATH_TOLERANCE_VIOLATED)
    assert fault.expected == pytest.approx(sense * speed * seconds)
    assert f"joint 'a' is {abs(fault.expected):.2f} rad from its command" in fault.text
    assert "~/reset_guard" in fault.text


def test_a_steady_lie_is_held_and_a_small_one_is_named() -> None:
    assert Arm().commanded(0.0).rests(0.5, 0.3).held
    small = Arm().commanded(0.0).rests(0.3, 0.3)
    assert not small.held
    assert small.path.warning()


def test_it_is_followed_again_when_the_reading_has_been_near_the_command_for_a_while() -> None:
    arm = Arm().commanded(1.0, 1.0).rests(0.0, 1.5)
    assert arm.held
    assert arm.rests(0.75, 2.0).held, "within the tolerance is not near: it would come and go"
    assert arm.rests(0.95, RECOVERY_S - 0.05).held
    assert arm.reads(0.2).rests(0.95, RECOVERY_S - 0.05).held, "one that is not near begins it anew"
    assert not arm.rests(0.95, 0.1).held
    assert arm.path.warning() == ""


def test_a_slow_sensor_does_not_end_the_wait_with_its_first_message() -> None:
    arm = Arm().commanded(1.0, 1.0).rests(0.0, 1.5)
    assert arm.reads(1.0, 1.0).held
    assert arm.reads(1.0, 1.0).held
    assert not arm.reads(1.0, 1.0).held


def test_no_joint_is_judged_while_nothing_is_commanded() -> None:
    assert not Arm().rests(2.0, 1.0).held
    arm = Arm().commanded(1.0)
    arm.path.released()
    assert not arm.rests(2.0, 1.0).held
    assert not arm.commanded(0.0, begin=2.0).rests(2.0, 1.0).held, (
        "what was commanded before counts for nothing"
    )


def test_a_joint_that_did_not_follow_is_not_believed_because_of_a_stop() -> None:
    arm = Arm().commanded(1.0, 1.0).rests(0.0, 1.5)
    arm.path.released()
    assert arm.rests(0.0, 1.0).held
    assert arm.commanded(0.0, begin=1.0).rests(0.0, 1.0).held
    arm.path.released()
    assert not arm.rests(1.0, 0.5).held


def test_a_person_says_that_the_joint_is_there() -> None:
    arm = Arm().commanded(1.0, 1.0).rests(0.0, 1.5)
    arm.path.anchor()
    assert not arm.held
    assert not arm.rests(0.0, 1.0).held, "what was commanded before counts for nothing"
    assert not arm.commanded(0.0).rests(0.0, 1.0).held
    assert arm.commanded(1.0).rests(0.0, 1.0).held, "and it is judged again"


def test_a_reset_forgets_everything() -> None:
    arm = Arm().commanded(1.0).rests(0.0, 1.5)
    arm.path.reset()
    assert not arm.rests(0.0, 1.0).held


def test_a_joint_that_is_not_measured_is_not_judged() -> None:
    arm = Arm().commanded(1.0)
    for _ in range(200):
        arm.now_ns += SECOND // 100
        arm.path.put(["b"], [0.0], arm.now_ns)
    assert not arm.held


def test_a_joint_that_is_measured_first_after_its_command_counts_from_there() -> None:
    tolerance, now_ns = PathTolerance(["a"], TOLERANCE), 10**12
    tolerance.commanded({"a": Path([3.0], now_ns + SECOND, 0.05)}, now_ns)
    tolerance.put(["a"], [3.0], now_ns + SECOND // 100)
    assert tolerance.fault() is None


def test_a_thousand_readings_a_second_cost_a_hundred_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    arm, checks = Arm().commanded(0.0), list[object]()
    monkeypatch.setattr(PathTolerance, "_check", lambda *known: checks.append(known))
    for _ in range(1000):
        arm.reads(0.0, 0.001)
    assert len(checks) == pytest.approx(2 * 100, abs=2)


def test_with_0_no_joint_is_judged() -> None:
    arm = Arm(tolerance=0.0).commanded(FASTEST).rests(0.0, 3.0)
    assert not arm.held
    assert arm.path.warning() == ""
    assert arm.errors == []


def test_every_joint_of_the_embodiment_is_judged_but_no_gripper_and_no_stranger() -> None:
    """A gripper stalls on what it holds, and never gets to where it is commanded to be."""
    robot = load_preset("franka")
    assert robot.gripper is not None
    names = [*robot.joint_names, "stranger"]
    tolerance = path_tolerance(robot, names, TOLERANCE)
    gripper = robot.joint_names[robot.gripper.component_idx]
    judged = set()
    for name in names:
        tolerance.reset()
        tolerance.put([name], [0.0], SECOND)
        tolerance.commanded({name: Path([5.0], SECOND, 0.0)}, SECOND)
        for tick in range(100):
            tolerance.put([name], [0.0], 2 * SECOND + tick * SECOND // 100)
        judged |= {name} if tolerance.fault() is not None else set()
    assert judged == set(robot.joint_names) - {gripper}
    assert len(judged) == len(FRANKA.joint_names) - (gripper in FRANKA.joint_names)


def test_without_an_embodiment_no_joint_is_judged() -> None:
    tolerance = path_tolerance(None, ["a"], TOLERANCE)
    tolerance.commanded({"a": Path([5.0], 1, 0.0)}, 1)
    tolerance.put(["a"], [0.0], SECOND)
    assert tolerance.fault() is None


def test_a_clock_that_a_simulator_sets_back_leaves_it_working() -> None:
    arm = Arm().commanded(0.0).rests(0.0, 0.5)
    arm.now_ns = 10**9
    arm.path.reset()
    assert arm.commanded(1.0).rests(0.0, 1.0).held
    assert np.isfinite(arm.path.fault().reading)  # type: ignore[union-attr]
