# SPDX-License-Identifier: Apache-2.0
"""Embodiment schema v2: every joint has one group with an output, and whatever contradicts that is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grouped_robots import ARM, HAND, grouped

from reflex_core.errors import EmbodimentError
from reflex_core.robot.embodiment import TwoEnded
from reflex_core.robot.groups import GripperEnds, Group, renamed
from reflex_core.robot.output_options import KINDS

BASE: dict[str, Any] = {
    "name": "base",
    "space": "base",
    "joints": ["shoulder", "elbow"],
    "axes": ["linear.x", "angular.z"],
    "output": {"kind": "twist", "topic": "/cmd_vel"},
}
TRAJECTORY = {"kind": "joint_trajectory"}


def test_a_robot_of_schema_v2_has_a_group_per_interface(tmp_path: Path) -> None:
    robot = grouped(tmp_path)
    arm, hand = robot.groups
    assert arm == Group(
        "arm", (0, 1), ("shoulder", "elbow"), output="joint_trajectory",
        options={"topic": "/arm_controller/joint_trajectory"},
    )  # fmt: skip
    assert (hand.space, hand.columns, hand.names) == ("gripper", (2,), ("finger",))
    assert (hand.commands, hand.output) == ("position", "parallel_gripper")
    assert hand.options == {"action": "/hand/gripper_cmd", "max_effort": 20.0}
    assert hand.gripper == GripperEnds(open=0.04, closed=0.0)
    assert robot.gripper == TwoEnded(2, None)
    assert (robot.name, robot.max_gripper_velocity) == ("two_joints", None)


def test_columns_of_groups_keep_the_robots_order_by_name(tmp_path: Path) -> None:
    mixed = [
        ARM | {"joints": ["elbow"]},
        HAND,
        ARM | {"name": "base", "joints": ["shoulder"], "output": TRAJECTORY},
    ]
    assert [group.columns for group in grouped(tmp_path, groups=mixed).groups] == [(1,), (2,), (0,)]


def test_a_base_is_commanded_velocities_by_axis(tmp_path: Path) -> None:
    base, _ = grouped(tmp_path, groups=[BASE, HAND]).groups
    assert (base.commands, base.names) == ("velocity", ("linear.x", "angular.z"))
    assert renamed((base,), ("x", "yaw", "finger"))[0].names == ("linear.x", "angular.z")


def test_the_robots_own_names_reach_the_groups(tmp_path: Path) -> None:
    arm, hand = renamed(grouped(tmp_path).groups, ("left_shoulder", "left_elbow", "left_finger"))
    assert (arm.names, hand.names) == (("left_shoulder", "left_elbow"), ("left_finger",))


def test_a_robot_served_without_its_gripper_has_no_group_for_it(tmp_path: Path) -> None:
    assert [group.name for group in grouped(tmp_path).without_gripper().groups] == ["arm"]


def test_two_grippers_are_two_ended_dimensions_both(tmp_path: Path) -> None:
    other = HAND | {
        "name": "other", "joints": ["elbow"], "gripper": {"open": -2, "closed": 2, "close_threshold": 0.25},
        "output": {"kind": "gripper_topic", "topic": "/other/commands"},
    }  # fmt: skip
    robot = grouped(tmp_path, groups=[ARM | {"joints": ["shoulder"]}, other, HAND])
    assert robot.two_ended == (TwoEnded(1, 0.25), TwoEnded(2, None))
    assert not robot.gripper_is_last  # to drop one of two by its place would be a guess


def test_a_threshold_counts_from_open_to_closed(tmp_path: Path) -> None:
    hand = HAND | {
        "gripper": {"open": 0.04, "closed": 0.0, "close_threshold": 0.75, "saturation_tolerance": 0.1}
    }
    assert grouped(tmp_path, groups=[ARM, hand]).gripper == TwoEnded(2, 0.25, saturation_tolerance=0.1)


def test_a_joint_may_be_unused_with_a_reason(tmp_path: Path) -> None:
    robot = grouped(
        tmp_path, groups=[ARM], unused=[{"joints": ["finger"], "reason": "the hand was taken off"}]
    )
    assert [group.columns for group in robot.groups] == [(0, 1)]
    assert robot.gripper is None


def test_the_cap_of_the_grippers_velocity_may_replace_its_limit(tmp_path: Path) -> None:
    limits = {"max_ee_velocity": 1.0, "max_gripper_velocity": 0.05, "collision_check": False}
    robot = grouped(tmp_path, velocity_max=[1.0, 2.0, None], constraints=limits)
    assert robot.velocity_max is not None
    assert robot.velocity_max.tolist() == [1.0, 2.0, 0.05]
    assert np.isfinite(robot.velocity_max).all()


def _hand(**changes: Any) -> list[dict[str, Any]]:
    return [ARM, HAND | changes]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a joint in no group": ({"groups": [ARM]}, "'unused' with a reason, for finger"),
    "a joint in two groups": (
        {"groups": [ARM, HAND, ARM | {"name": "again", "joints": ["elbow"], "output": TRAJECTORY}]},
        "only one names 'elbow', got \\[\"arm\", \"again\"\\]",
    ),
    "a joint in a group and unused": (
        {"unused": [{"joints": ["finger"], "reason": "gone"}]}, "only one names 'finger', got \\[\"hand\", \"unused\"\\]",
    ),
    "unused without a reason": (
        {"groups": [ARM], "unused": [{"joints": ["finger"], "reason": " "}]}, r"unused\[0\]\.reason' must be why",
    ),
    "a joint that the robot lacks": ({"groups": _hand(joints=["thumb"])}, r"groups\[1\]\.joints.*thumb"),
    "no groups": ({"groups": []}, "'groups' must be a list of 1 to 16 groups"),
    "no joint names": ({"joint_names": []}, "'joint_names' must be 3 different names"),
    "a gripper block beside groups": ({"gripper": {"component_idx": 2}}, "'gripper' must be a group of space gripper"),
    "two groups of one name": ({"groups": _hand(name="arm")}, "different names"),
    "an unknown space": ({"groups": _hand(space="hand")}, r"groups\[1\]\.space' must be one of joints, gripper"),
    "a tool": ({"groups": _hand(space="tool")}, "kinematics, which are not there yet"),
    "an unknown kind": (
        {"groups": _hand(output={"kind": "paralel_gripper"})}, "did you mean parallel_gripper",
    ),
    "an unknown option": (
        {"groups": _hand(output={"kind": "parallel_gripper", "action": "/a", "maxeffort": 1})}, "did you mean max_effort",
    ),
    "an option of another type": (
        {"groups": _hand(output={"kind": "parallel_gripper", "action": "/a", "max_effort": "20"})},
        r"groups\[1\]\.output\.max_effort' must be a number from 0 to 10000",
    ),
    "a missing option": ({"groups": _hand(output={"kind": "parallel_gripper"})}, r"output\.action' must be a ROS name"),
    "no ROS name": (
        {"groups": _hand(output={"kind": "parallel_gripper", "action": "/hand//cmd"})}, r"output\.action' must be a ROS name",
    ),
    "a kind of another space": (
        {"groups": _hand(output={"kind": "twist", "topic": "/cmd_vel"})}, "one that commands the position of a group of space gripper",
    ),
    "one address for two groups": (
        {"groups": _hand(output={"kind": "joint_trajectory", "topic": "/arm_controller/joint_trajectory"})},
        "a topic or action each",
    ),
    "a gripper without its sense": ({"groups": _hand(gripper={"open": 0.04})}, r"gripper\.closed' must be a position"),
    "a gripper in percent": ({"groups": _hand(gripper={"open": 100, "closed": 0})}, r"from 0 to 0\.04 \(rad or m\), got 100"),
    "a gripper that does not move": ({"groups": _hand(gripper={"open": 0.0, "closed": 0.0})}, "another position than 'open'"),
    "a threshold between no ends": (
        {"groups": _hand(gripper={"open": 0.03, "closed": 0.0, "close_threshold": 0.5})}, "ends of the range",
    ),
    "a gripper of two joints": (
        {"groups": [ARM | {"joints": ["shoulder"]}, HAND | {"joints": ["elbow", "finger"]}]}, "one that commands 2 columns",
    ),
    "an axis that Twist lacks": ({"groups": [BASE | {"axes": ["linear.x", "yaw"]}, HAND]}, "one of linear.x"),
    "a sense of what is no gripper": ({"groups": [ARM | {"gripper": {"open": 1, "closed": 0}}, HAND]}, "left out, as its space is joints"),
    "a gripper that hardly moves": ({"groups": _hand(gripper={"open": 1e-9, "closed": 0.0})}, "another position than 'open'"),
    "a gripper that commands speeds": (
        {"groups": _hand(commands="velocity", output={"kind": "forward_command", "topic": "/hand/commands"})},
        r"groups\[1\]\.commands' must be position",
    ),
    "a dead band beyond the gripper's way": (
        {"groups": _hand(output={"kind": "gripper_command", "action": "/a", "dead_band": 0.04})}, "less than the 0.04 from open",
    ),
    "one value at both ends": (
        {"groups": _hand(output={"kind": "gripper_topic", "topic": "/a", "open_value": 1, "closed_value": 1})}, "another number than",
    ),
    "a value at one end": (
        {"groups": _hand(output={"kind": "gripper_topic", "topic": "/a", "open_value": 1})}, r"closed_value' must be there too",
    ),
    "a name that DDS refuses": ({"groups": _hand(output={"kind": "gripper_topic", "topic": "/" + "a" * 300})}, "at most 200 characters"),
    "axes of what is no base": ({"groups": [ARM | {"axes": ["linear.x", "linear.y"]}, HAND]}, "left out, as its space is joints"),
    "a gripper of unlimited speed": ({"velocity_max": [1, 2, None]}, "max_gripper_velocity"),
    "groups of schema v1": ({"schema_version": 1, "embodiment": "custom"}, "'schema_version' must be 2, as the file has groups"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_groups_that_contradict_the_robot_are_refused_by_name(tmp_path: Path, name: str) -> None:
    changes, sentence = REFUSED[name]
    with pytest.raises(EmbodimentError, match=sentence) as caught:
        grouped(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_every_kind_says_where_commands_go() -> None:
    for name, kind in KINDS.items():
        assert set(kind.addresses) <= set(kind.options), name
        assert set(kind.required) <= set(kind.options), name
