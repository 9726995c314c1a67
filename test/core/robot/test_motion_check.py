# SPDX-License-Identifier: Apache-2.0
"""What the joints' readings show while a person moves them."""

from __future__ import annotations

import numpy as np
import pytest
from guarded import FRANKA
from rolling import ROLLING

from reflex_core.robot.motion_check import motion_check

JOINT = FRANKA.joint_names[0]
LOW, HIGH = float(FRANKA.action_min[0]), float(FRANKA.action_max[0])


def verdict(*readings: float) -> str:
    check = motion_check(FRANKA)
    for reading in readings:
        check.put([JOINT, "of another robot"], [reading, 9e9])
    return check.verdicts()[JOINT]


def test_a_joint_that_was_moved_says_from_where_to_where() -> None:
    assert verdict(*np.linspace(0.0, 0.5, 20)).startswith("0 to 0.5 of ")
    assert verdict(*np.linspace(0.0, 0.5, 20)).endswith(": moved")


@pytest.mark.parametrize(
    ("readings", "end"),
    [
        ((), "not in the joint states"),
        ((np.nan,), "not in the joint states"),
        ((0.1, 0.11, 0.1), "not moved yet"),
        ((0.0, 0.0, HIGH, LOW), "leapt 1 times"),
        (tuple(np.linspace(0.0, 90.0, 90)), "counts in degrees"),
        (tuple(np.linspace(0.0, 2048.0, 900)), "counts in another unit"),
    ],
)
def test_what_cannot_be_right_is_named(readings: tuple[float, ...], end: str) -> None:
    assert verdict(*readings).endswith(end)


def test_what_is_left_to_move_and_velocities_are_no_joints() -> None:
    check = motion_check(ROLLING)
    for share in np.linspace(0.0, 0.2, 30):
        check.put([JOINT], [share * (HIGH - LOW)])
    assert check.unmoved == FRANKA.joint_names[1:]
    assert set(check.verdicts()) == set(FRANKA.joint_names)
    assert motion_check(None).verdicts() == {}
