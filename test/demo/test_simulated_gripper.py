# SPDX-License-Identifier: Apache-2.0
"""The simulated gripper ends its goals as the action controllers do: reached, stalled, replaced or cancelled."""

from __future__ import annotations

import pytest

from reflex_ros.demo.controllers.gripper_controller import (
    CANCELLED,
    REACHED,
    REPLACED,
    STALLED,
    Finger,
    GripperController,
    GripperOptions,
    Outcome,
)

MS = 1_000_000
OPEN, CLOSED = 0.04, 0.0


def gripper(**options: float | bool) -> GripperController:
    return GripperController(Finger(OPEN, CLOSED, OPEN), GripperOptions(**options))


def run(controller: GripperController, seconds: float, start_ms: int = 0) -> list[tuple[int, Outcome]]:
    """What ended at which millisecond, at 100 updates a second."""
    found = []
    for at_ms in range(start_ms, start_ms + round(seconds * 1000) + 1, 10):
        found += [(at_ms, outcome) for outcome in controller.update(at_ms * MS)]
    return found


def test_a_goal_is_reached_within_the_tolerance() -> None:
    controller = gripper()
    assert controller.goal(0, CLOSED) == 1
    ended = run(controller, 1.0)
    assert [(outcome.goal, outcome.how) for _, outcome in ended] == [(1, REACHED)]
    # 0.1 m/s: a quarter of the finger's travel before it is closed, as the default tolerance has it
    assert ended[0][0] == pytest.approx(300, abs=20)
    assert controller.finger.position == pytest.approx(CLOSED)


@pytest.mark.parametrize("allowed", [False, True])
def test_an_object_stalls_the_finger_and_the_goal_ends_a_timeout_later(allowed: bool) -> None:
    controller = gripper(goal_tolerance=0.001, allow_stalling=allowed)
    controller.finger = Finger(OPEN, 0.02, OPEN)
    controller.goal(0, CLOSED)
    ((at_ms, outcome),) = run(controller, 3.0)
    assert (outcome.how, outcome.position) == (STALLED, 0.02)
    assert at_ms == pytest.approx(1210, abs=20)
    assert controller.succeeds(outcome) is allowed


def test_a_new_goal_replaces_the_running_one() -> None:
    controller = gripper()
    controller.goal(0, CLOSED)
    run(controller, 0.1)
    assert controller.goal(100 * MS, OPEN) == 2
    ended = [outcome for _, outcome in run(controller, 1.0, 110)]
    assert [(outcome.goal, outcome.how) for outcome in ended] == [(1, REPLACED), (2, REACHED)]
    assert not controller.succeeds(ended[0])


def test_a_cancelled_goal_holds_the_finger_where_it_is() -> None:
    controller = gripper()
    controller.goal(0, CLOSED)
    run(controller, 0.2)
    held = controller.finger.position
    controller.cancel()
    ((_, outcome),) = run(controller, 2.0, 210)
    assert (outcome.how, outcome.position) == (CANCELLED, held)
    assert controller.finger.position == held


def test_without_a_goal_nothing_ends_and_the_last_target_is_held() -> None:
    controller = gripper()
    controller.goal(0, CLOSED)
    run(controller, 1.0)
    assert run(controller, 5.0, 1010) == []
    assert controller.finger.position == pytest.approx(CLOSED)


def test_its_ros_parameters_are_the_controllers() -> None:
    assert GripperOptions().parameters("finger") == {
        "joint": "finger",
        "goal_tolerance": 0.01,
        "stall_velocity_threshold": 0.001,
        "stall_timeout": 1.0,
        "allow_stalling": False,
    }
