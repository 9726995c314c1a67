# SPDX-License-Identifier: Apache-2.0
"""A gripper in shares of its way and in rad or m of its joint, both ways, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from grouped_robots import ARM, HAND, grouped

from reflex_core.errors import ObservationError
from reflex_core.robot.gripper_shares import (
    CLOSED,
    OPEN,
    GripperJoint,
    GripperShare,
    gripper_joints,
    in_shares,
)
from reflex_core.robot.groups import GripperEnds
from reflex_core.robot.presets import load_preset

NARROWING = GripperEnds(open=0.04, closed=0.0)
TURNING = GripperEnds(open=-0.2, closed=0.8)  # a Robotiq's knuckle closes upwards


def share_of(ends: GripperEnds, one: str, column: int = 0) -> GripperShare:
    return GripperShare(GripperJoint("finger", column, column, ends), one)


@pytest.mark.parametrize(
    ("ends", "one", "share", "position"),
    [
        (NARROWING, CLOSED, 0.0, 0.04),
        (NARROWING, CLOSED, 0.25, 0.03),
        (NARROWING, CLOSED, 1.0, 0.0),
        (NARROWING, OPEN, 0.0, 0.0),
        (NARROWING, OPEN, 0.25, 0.01),
        (NARROWING, OPEN, 1.0, 0.04),
        (TURNING, CLOSED, 0.0, -0.2),
        (TURNING, CLOSED, 0.75, 0.55),
        (TURNING, OPEN, 0.75, 0.05),
        (TURNING, OPEN, 1.0, -0.2),
    ],
)
def test_a_share_is_a_position_and_back(ends: GripperEnds, one: str, share: float, position: float) -> None:
    counted = share_of(ends, one)
    assert counted.to_joint(share, "gripper") == pytest.approx(position, abs=1e-12)
    assert counted.to_share(np.array([position], np.float32)) == pytest.approx([share], abs=1e-6)


def test_rounding_is_clipped_and_what_is_no_share_is_refused_by_its_key() -> None:
    counted = share_of(NARROWING, CLOSED)
    assert counted.to_joint(1.0000001, "g") == 0.0
    assert counted.to_joint(-0.01, "g") == 0.04
    for reading in (1.05, -0.05, 100.0):
        with pytest.raises(
            ObservationError,
            match=f"'g' reads {reading:g}: it is the share of the way to the closed end of 'finger'",
        ) as refused:
            counted.to_joint(reading, "g")
        assert refused.value.slug == "implausible-state"
    for reading in (math.nan, math.inf):  # refused as every state that is not finite
        assert not math.isfinite(counted.to_joint(reading, "g"))


def test_a_row_beyond_an_end_is_at_that_end() -> None:
    shares = share_of(GripperEnds(open=0.039, closed=0.0), CLOSED).to_share(
        np.array([0.04, -0.001], np.float32)
    )
    assert shares.tolist() == [0.0, 1.0]


def test_columns_of_two_fingers_are_converted_each_by_its_own_ends_and_the_others_left() -> None:
    rows = np.array([[0.3, 0.03, -0.5, 0.55]], np.float32)
    made = in_shares(rows, (share_of(NARROWING, CLOSED, 1), share_of(TURNING, OPEN, 3)))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, [[0.3, 0.25, -0.5, 0.25]], atol=1e-6)
    assert rows[0, 1] == np.float32(0.03)
    assert in_shares(rows, ()) is rows


def test_each_gripper_of_a_robot_is_found_where_it_is_measured() -> None:
    robot = load_preset("aloha", "")
    names = robot.joint_names
    found = gripper_joints(robot, names, names, np.arange(len(names)))
    assert [(joint.name, joint.action, joint.state) for joint in found] == [
        ("left_finger", 6, 6),
        ("right_finger", 13, 13),
    ]
    assert found[0].ends == GripperEnds(0.057, 0.021)


def test_a_finger_that_the_state_lacks_is_measured_by_none(tmp_path: Path) -> None:
    robot = grouped(tmp_path, groups=[ARM, HAND])
    names = robot.joint_names
    of_names = gripper_joints(robot, names, ("finger", "elbow"), None)
    assert [joint.state for joint in of_names] == [0]
    assert [joint.state for joint in gripper_joints(robot, names, names[:2], None)] == [None]


def test_a_description_that_names_no_ends_has_none() -> None:
    assert gripper_joints(None, ("a",), (), None) == ()
    quadcopter = load_preset("quadcopter", "")
    assert gripper_joints(quadcopter, quadcopter.joint_names, (), None) == ()
