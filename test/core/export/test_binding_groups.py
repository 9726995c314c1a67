# SPDX-License-Identifier: Apache-2.0
"""Which robot interface commands which columns of an export's actions."""

from __future__ import annotations

from pathlib import Path

from grouped_robots import grouped
from odd_exports import probe

from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.embodiment import Embodiment

IDENTITY = {
    "normalization": {"state": {"mode": "identity"}, "action": {"mode": "identity"}},
    "frequency_hz": 20,
}
ARM = ["shoulder", "elbow"]


def policy_of(
    tmp_path: Path, names: list[str], robot: Embodiment, joint_names: tuple[str, ...] = ()
) -> Policy:
    config = IDENTITY | {"action_dim": len(names), "action_names": names}
    return load_policy(
        open_export(probe(tmp_path / "export", state=3, config=config)), robot, "cpu", 1, joint_names
    )


def test_an_export_without_the_gripper_commands_the_arms_group_alone(tmp_path: Path) -> None:
    groups = policy_of(tmp_path, ["elbow", "shoulder"], grouped(tmp_path)).binding.groups
    assert [(group.name, group.columns, group.names) for group in groups] == [
        ("arm", (0, 1), ("shoulder", "elbow"))
    ]


def test_the_groups_name_joints_as_the_robot_itself_does(tmp_path: Path) -> None:
    (arm,) = policy_of(tmp_path, ARM, grouped(tmp_path), ("left_1", "left_2")).binding.groups
    assert arm.names == ("left_1", "left_2")
    assert arm.options == {"topic": "/arm_controller/joint_trajectory"}
