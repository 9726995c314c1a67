# SPDX-License-Identifier: Apache-2.0
"""The simulated joint_trajectory_controller refuses what the real one refuses, by the same rule, and keeps following."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reflex_ros.demo.controllers.options import ControllerOptions
from reflex_ros.demo.controllers.points import Point, Trajectory, rows
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.demo.controllers.validate import TrajectoryNotFinite, TrajectoryRefused, check

JOINTS = ("shoulder", "elbow", "wrist")
S = 1_000_000_000
NOW = 1000 * S
DEFAULTS = ControllerOptions()


def point(time_s: float, positions: Any = (0, 0, 0), velocities: Any = None, **fields: Any) -> Point:
    arrays = {"positions": positions, "velocities": velocities, **fields}
    given = {name: np.array(value, float) for name, value in arrays.items() if value is not None}
    return Point(round(time_s * S), **given)


GOOD = Trajectory(0, JOINTS, (point(0.1), point(0.2, (1, 1, 1))))
NAN, MOVING = float("nan"), (0, 0.1, 0)

REFUSED: dict[str, tuple[int, Trajectory, dict[str, Any]]] = {
    "too few joints": (1, replace(GOOD, names=JOINTS[:1]), {}),
    "too many joints": (1, replace(GOOD, names=(*JOINTS, "hand")), {}),
    "no names": (1, replace(GOOD, names=()), {}),
    "no names, partial goals allowed": (2, replace(GOOD, names=()), {"allow_partial_joints_goal": True}),
    "no points: no hold in ROS 2": (3, replace(GOOD, points=()), {}),
    "an unknown joint": (4, replace(GOOD, names=("shoulder", "elbow", "finger")), {}),
    "a velocity at the end": (5, replace(GOOD, points=(point(0.1, velocities=MOVING),)), {}),
    "a velocity at the end, just above": (5, replace(GOOD, points=(point(0.1, velocities=(0, 2e-7, 0)),)), {}),
    "ended a second ago": (6, replace(GOOD, stamp_ns=NOW - S), {}),
    "ended a nanosecond ago": (6, replace(GOOD, stamp_ns=NOW - S // 5 - 1), {}),
    "a time twice": (7, replace(GOOD, points=(point(0.1), point(0.1))), {}),
    "times that go back": (7, replace(GOOD, points=(point(0.2), point(0.1))), {}),
    "a position too few": (8, replace(GOOD, points=(point(0.1, (0, 0)),)), {}),
    "positions missing": (8, replace(GOOD, points=(point(0.1, None, (0, 0, 0)),)), {}),
    "velocities of another length": (8, replace(GOOD, points=(point(0.1, velocities=(0, 0)),)), {}),
    "accelerations of another length": (8, replace(GOOD, points=(point(0.1, accelerations=(0,)),)), {}),
    "no field at all, integration allowed": (
        8, replace(GOOD, points=(point(0.1, None),)), {"allow_integration_in_goal_trajectories": True},
    ),
    "effort": (9, replace(GOOD, points=(point(0.1, effort=(1, 1, 1)),)), {}),
    "the count before the unknown name": (1, replace(GOOD, names=("finger",)), {}),
    "the end before the past": (5, Trajectory(NOW - S, JOINTS, (point(0.1, velocities=MOVING),)), {}),
    "the past before the times": (6, Trajectory(NOW - S, JOINTS, (point(0.1), point(0.1))), {}),
}  # fmt: skip

ACCEPTED: dict[str, tuple[Trajectory, dict[str, Any]]] = {
    "positions": (GOOD, {}),
    "another order": (replace(GOOD, names=JOINTS[::-1]), {}),
    "a joint twice": (replace(GOOD, names=("shoulder", "shoulder", "wrist")), {}),
    "a velocity at the end where allowed": (
        replace(GOOD, points=(point(0.1, velocities=MOVING),)), {"allow_nonzero_velocity_at_trajectory_end": True},
    ),
    "a velocity on the way": (
        replace(GOOD, points=(point(0.1, velocities=(9, 9, 9)), point(0.2, velocities=(0, 1e-8, 0)))), {},
    ),
    "ends exactly now": (replace(GOOD, stamp_ns=NOW - S // 5), {}),
    "stamp 0, whatever the time": (replace(GOOD, points=(point(-5.0),)), {}),
    "begins in the future": (replace(GOOD, stamp_ns=NOW + S), {}),
    "first time 0": (replace(GOOD, points=(point(0.0),)), {}),
    "first time negative": (replace(GOOD, points=(point(-0.1), point(0.1))), {}),
    "one joint where allowed": (
        Trajectory(0, JOINTS[:1], (point(0.1, (0,)),)), {"allow_partial_joints_goal": True},
    ),
    "velocities alone where allowed": (
        replace(GOOD, points=(point(0.1, None, (0, 0, 0)),)), {"allow_integration_in_goal_trajectories": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_trajectory_is_refused_by_the_rule_of_the_controller(case: str) -> None:
    rule, trajectory, options = REFUSED[case]
    with pytest.raises(TrajectoryRefused) as refused:
        check(trajectory, JOINTS, NOW, ControllerOptions(**options))
    assert refused.value.rule == rule
    assert str(refused.value).startswith("Expected ")


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_trajectory_is_accepted_as_by_the_controller(case: str) -> None:
    trajectory, options = ACCEPTED[case]
    check(trajectory, JOINTS, NOW, ControllerOptions(**options))


@pytest.mark.parametrize("field", ["positions", "velocities", "accelerations"])
@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_what_is_not_finite_is_refused_as_a_fault_of_the_sender_though_the_real_one_takes_it(
    field: str, value: float
) -> None:
    fields = {"positions": (0, 0, 0), field: (0, value, 0)}
    trajectory = replace(GOOD, points=(point(0.1, **fields), point(0.2)))
    with pytest.raises(
        TrajectoryNotFinite, match=rf"^Expected finite {field} at point 0, .* for elbow\.$"
    ) as refused:
        check(trajectory, JOINTS, NOW, DEFAULTS)
    assert refused.value.rule == 0


# A hold of one row, due 50 ms after its stamp: too late by its time, never with stamp 0.
@pytest.mark.parametrize(("stamp_ns", "refused"), [(NOW - 51_000_000, True), (NOW - 50_000_000, False), (0, False)])  # fmt: skip
def test_a_hold_is_refused_for_its_time_unless_its_stamp_is_0(stamp_ns: int, refused: bool) -> None:
    hold = rows(stamp_ns, JOINTS, [[0, 0, 0]], 0.05)
    if not refused:
        check(hold, JOINTS, NOW, DEFAULTS)
        return
    with pytest.raises(TrajectoryRefused, match="ended 0.001 s ago"):
        check(hold, JOINTS, NOW, DEFAULTS)


def test_a_refused_trajectory_leaves_the_one_before_in_force() -> None:
    controller, other = (JointTrajectoryController(JOINTS, [0, 0, 0], S // 100) for _ in range(2))
    for one in (controller, other):
        one.set(NOW, rows(NOW, JOINTS, [[1, 1, 1], [2, 2, 2]], 0.05))
        one.sample(NOW, [0, 0, 0])
    with pytest.raises(TrajectoryRefused):
        controller.set(NOW, replace(GOOD, points=()))
    later = NOW + S // 100
    np.testing.assert_array_equal(controller.sample(later, [0, 0, 0]), other.sample(later, [0, 0, 0]))
