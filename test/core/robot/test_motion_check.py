# SPDX-License-Identifier: Apache-2.0
"""What the joints' readings show while a person moves them."""

from __future__ import annotations

import numpy as np
import pytest
from guarded import FRANKA
from rolling import ROLLING

from reflex_core.normalization.affine import Affine
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


def seen_by_policy(mean: float, std: float) -> Affine:
    return Affine(np.array([mean]), np.array([std]))


@pytest.mark.parametrize(
    ("statistics", "remark"),
    [
        (seen_by_policy(0.9, 0.05), ""),
        (seen_by_policy(2.0, 0.1), "; the policy has seen 1.6 to 2.4"),
        (Affine(np.array([2.0]), np.array([0.1]), constant=np.array([True])), ""),
        (None, ""),
    ],
)
def test_a_joint_that_is_never_where_the_policy_has_seen_it_is_named(
    statistics: Affine | None, remark: str
) -> None:
    check = motion_check(FRANKA, (JOINT,), statistics)
    for reading in np.linspace(0.0, 0.8, 30):
        check.put([JOINT], [reading])
    assert check.verdicts()[JOINT].endswith(f": moved{remark}")
    assert JOINT not in check.unmoved


def test_joints_that_always_move_together_are_named_until_one_moves_alone() -> None:
    check = motion_check(FRANKA)
    names = list(FRANKA.joint_names)
    rest = (FRANKA.action_min + FRANKA.action_max) / 2.0

    def move(joints: list[int], ways: list[float]) -> None:
        for share in [*np.linspace(0.0, 1.0, 30), *np.linspace(1.0, 0.0, 30)]:
            at = rest.copy()
            at[joints] += share * np.array(ways)
            check.put(names, at)

    move([0, 2], [0.5, -0.4])
    for one, other in ((0, 2), (2, 0)):
        phrase = (
            f"; always moved with {names[other]}: move it alone, they are coupled or one joint by two names"
        )
        assert check.verdicts()[names[one]].endswith(f": moved{phrase}")
    assert check.verdicts()[names[1]].endswith(": not moved yet")
    assert names[0] not in check.unmoved
    move([2], [0.4])
    assert check.verdicts()[names[0]].endswith(": moved")
