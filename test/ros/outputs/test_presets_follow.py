# SPDX-License-Identifier: Apache-2.0
"""Every preset with an arm, in the simulated controllers that its groups name: arms and grippers follow, none is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import control_msgs_substitute
import leading_robots as robots
import pytest
from controller_bench import Bench
from rclpy.qos import qos_profile_sensor_data
from ros_world import wait_for, world
from sensor_msgs.msg import Image

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import GRIPPER, Group
from reflex_core.robot.presets import load_preset, preset_names

ARMS = [name for name in preset_names() if load_preset(name).groups]
STEP = 0.004  # from row to row: slower than any of their joints may be
NODE_TOPIC = "/reflex/joint_trajectory"


def export_of(path: Path, robot: Embodiment) -> Path:
    """Write an export that leads every joint steadily away and closes every gripper, in numbers of its own: 0 open, 1 closed."""
    hands = [group.names[0] for group in robot.groups if group.space == GRIPPER]
    columns: dict[str, Any] = {
        name: [1.0] * robots.ROWS if name in hands else robots.steadily(STEP) for name in robot.joint_names
    }
    arms = [name for name in robot.joint_names if name not in hands]
    sense = {"columns": hands, "space": "gripper", "gripper": {"open": 0.0, "closed": 1.0}}
    export = robots.leading(path, columns, [robots.RELATIVE | {"columns": arms}, sense])
    file = export / "reflex_config.json"
    config = json.loads(file.read_text()) | {"frequency_hz": robot.frequency_hz}
    file.write_text(json.dumps(config))
    return export


def controller(bench: Bench, group: Group, number: int) -> Any:
    """Add the controller that a group names, where it names it."""
    options, name = group.options, f"controller_{number}"
    if group.output == "joint_trajectory":
        return bench.trajectory_controller(name, group.names, topic=options.get("topic", NODE_TOPIC))
    if group.output == "gripper_topic":
        return bench.forward_controller(name, group.names, topic=str(options["topic"]))
    from control_msgs.action import GripperCommand, ParallelGripperCommand

    assert group.gripper is not None
    ends = (group.gripper.open, group.gripper.closed)
    kind = GripperCommand if group.output == "gripper_command" else ParallelGripperCommand
    return bench.gripper(
        name, group.names[0], kind, action=options["action"], low=min(ends), high=max(ends), speed=1.0
    )


def film(bench: Bench, camera: str) -> None:
    """Publish a picture of a camera at 50 Hz, beside that of the robot's camera `camera`."""
    images = bench.node.create_publisher(Image, f"{camera}/image_raw", qos_profile_sensor_data)

    def publish() -> None:
        image = Image(height=48, width=64, encoding="rgb8", step=192, data=bytes(64 * 48 * 3))
        image.header.stamp = bench.node.get_clock().now().to_msg()
        images.publish(image)

    bench.node.create_timer(0.02, publish)


@pytest.mark.parametrize("name", ARMS)
def test_a_preset_follows_in_its_simulated_controllers(tmp_path: Path, name: str) -> None:
    control_msgs_substitute.use()
    robot = load_preset(name)
    start = dict(zip(robot.joint_names, robot.action_statistics.mean.tolist(), strict=True))
    hands = {group.names[0]: group.gripper for group in robot.groups if group.gripper is not None}
    start |= {joint: ends.open for joint, ends in hands.items()}
    export = export_of(tmp_path / "export", robot)
    with world(export_dir=str(export), embodiment=name) as found:
        found.robot.joints_on = False
        with Bench(found.domain, start) as bench:
            controllers = [controller(bench, group, number) for number, group in enumerate(robot.groups)]
            if robot.cameras[0].name != "camera":
                bench.spinner.do(lambda: film(bench, robot.cameras[0].name))
            found.activate()

            def arms_moved() -> bool:
                arms = [joint for joint in robot.joint_names if joint not in hands]
                return all(bench.joints[joint] > start[joint] + 5 * STEP for joint in arms)

            def hands_closed() -> bool:
                return all(
                    abs(bench.joints[joint] - ends.closed) < 0.05 * abs(ends.open - ends.closed)
                    for joint, ends in hands.items()
                )

            wait_for(arms_moved, "the arms follow")
            wait_for(hands_closed, "the grippers close")
            assert not [why for one in controllers for why in getattr(one, "refused", ())]
            assert found.robot.call("stop").success
