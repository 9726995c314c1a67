# SPDX-License-Identifier: Apache-2.0
"""Logic of launch/demo.launch.py: the parameters of robot and policy node, and their remappings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reflex_core.errors import SettingError
from reflex_core.settings.row import Value
from reflex_ros import launch_args
from reflex_ros.demo.goals import GOALS, PICK_UP

# name, default, description
ARGUMENTS = (
    (
        "task",
        PICK_UP.name,
        "What the arm does: pick (it picks up the named cube) or reach (it moves above the named block).",
    ),
    ("scene_seed", str(PICK_UP.first_seed), "Which cubes lie where on the table."),
    ("instruction", "", "The instruction for the arm; empty: that of the scene."),
    ("pictures_dir", "", "Folder that the service /robot/save_picture writes to; empty: it refuses."),
    ("port", "8000", "Port of the HTTP sidecar."),
)


@dataclass(frozen=True)
class Plan:
    """Parameters of the two nodes, and the remappings of the policy node's topics."""

    robot: dict[str, int | str]
    robot_arguments: tuple[str, ...]
    policy: dict[str, Value]
    policy_remappings: tuple[tuple[str, str], ...] = (("~/joint_trajectory", "joint_trajectory"),)


def plan(texts: Mapping[str, str]) -> Plan:
    """Return the plan for launch arguments as text. Raises SettingError naming the invalid argument."""
    try:
        seed = int(texts["scene_seed"])
    except ValueError as error:
        raise SettingError(
            f"launch argument 'scene_seed' takes a whole number, got {texts['scene_seed']!r:.100}"
        ) from error
    if texts["task"] not in GOALS:
        raise SettingError(
            f"launch argument 'task' takes one of {', '.join(GOALS)}, got {texts['task']!r:.100}"
        )
    goal = GOALS[texts["task"]]
    instruction = texts["instruction"] or goal.instruction(seed)
    # One thread: the policy is small, and the simulator draws on the same cores.
    settings = {
        "export_dir": goal.export,
        "robot_id": "demo",
        "intra_op_threads": "1",
        "port": texts["port"],
        "instruction": instruction,
    }
    return Plan(
        robot={"scene_seed": seed, "pictures_dir": texts["pictures_dir"]},
        robot_arguments=("--task", goal.name),
        policy=launch_args.parameters(settings),
    )
