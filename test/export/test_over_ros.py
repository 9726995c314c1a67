# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of LeRobot commanding over ROS: what a node publishes for what it subscribes to is LeRobot's own chunk."""

from __future__ import annotations

import json
import shutil
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ros_world
from agreement import LEAST, LIMIT
from checkpoints import JOINTS
from domains import free_domain
from lerobot_answers import LeRobot
from raw_observations import RawObservation, noise, observation
from rclpy.node import Node
from reflex_ros.msg import ActionChunk
from ros_world import Spinner, rows, wait_for
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from reflex_ros.graph.qos import LATCHED, SENSOR
from reflex_ros.node.node import ReflexNode

PERIOD_S = 0.1
SLOW_HZ = 0.5
FAMILIES = ["act", "diffusion", "diffusion_ddpm", "smolvla", "pi0", "pi0_relative", "pi05"]


@pytest.fixture(autouse=True)
def time_to_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """These policies run once before the node is active, on pictures of 640x480, beside another test process."""
    monkeypatch.setattr(ros_world, "PATIENCE_S", 300.0)


class StillRobot:
    """A robot that stands still before two cameras, and receives chunks."""

    def __init__(self, domain: int, seen: RawObservation) -> None:
        self.spinner, self._seen = Spinner(domain), seen
        self.node = node = Node("robot", context=self.spinner.context)
        self._cameras = {
            name: node.create_publisher(Image, f"{name}/image_raw", SENSOR) for name in seen.pictures
        }
        self._joints = node.create_publisher(JointState, "joint_states", SENSOR)
        self._instruction = node.create_publisher(String, "instruction", LATCHED)
        self.chunks: list[ActionChunk] = []
        node.create_subscription(ActionChunk, "reflex/action_chunk", self.chunks.append, 10)
        node.create_timer(PERIOD_S, self._tick)
        self._instruction.publish(String(data=seen.task))
        self.spinner.start(node)

    def _tick(self) -> None:
        stamp = self.node.get_clock().now().to_msg()
        for name, picture in self._seen.pictures.items():
            height, width, _ = picture.shape
            image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
            image.header.stamp, image.data = stamp, array("B", picture.tobytes())
            self._cameras[name].publish(image)
        joints = JointState(name=list(JOINTS), position=self._seen.state.astype(float).tolist())
        joints.header.stamp = stamp
        self._joints.publish(joints)


@contextmanager
def commanded(folder: Path, seen: RawObservation) -> Iterator[StillRobot]:
    """A node that serves an export, active, and a robot that it commands."""
    domain = free_domain()
    robot, spinner = StillRobot(domain, seen), Spinner(domain)
    settings: dict[str, Any] = {
        "export_dir": str(folder),
        "http": False,
        "device": "cpu",
        "intra_op_threads": 1,
    }
    server = ReflexNode(settings, context=spinner.context)
    spinner.start(server.node)
    try:
        assert spinner.do(server.start), server.node.refusal
        yield robot
    finally:
        spinner.do(server.finish)
        spinner.close()
        server.destroy()
        robot.spinner.close()
        robot.node.destroy_node()


def slowed(folder: Path, out: Path) -> Path:
    """Return a copy whose rows are seconds apart: no machine is so slow that a chunk is over before it is there."""
    shutil.copytree(folder, out)
    for name, keys in (("reflex_config.json", ()), ("embodiment.json", ("control",))):
        document = block = json.loads((out / name).read_text(encoding="utf-8"))
        for key in keys:
            block = block[key]
        block["frequency_hz"] = SLOW_HZ
        (out / name).write_text(json.dumps(document), encoding="utf-8")
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_a_node_publishes_lerobots_own_chunk(
    exported: Callable[..., Path], lerobot: Callable[[str], LeRobot], tmp_path: Path, family: str
) -> None:
    seen, policy = observation(3), lerobot(family)
    with commanded(slowed(exported(family), tmp_path / family), seen) as robot:
        chunk = wait_for(
            lambda: next((one for one in robot.chunks if one.source == ActionChunk.SOURCE_POLICY), None),
            "a chunk of the policy",
        )
    shape = policy.noise_shape
    wanted = policy.chunk([seen], None if shape is None else noise(chunk.seed, shape)).physical
    assert np.ptp(wanted, axis=0).max() > LEAST
    assert not chunk.guard_clamped, chunk.guard_violations
    assert np.abs(rows(chunk) - wanted[: chunk.horizon]).max() <= LIMIT
