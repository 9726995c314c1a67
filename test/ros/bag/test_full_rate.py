# SPDX-License-Identifier: Apache-2.0
"""The whole node recording streams at their full rate: every message of the sensors and every command sent is in the bag, once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bags import bags, messages
from pyarrow import parquet
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from reflex_ros.msg import EpisodeOutcome
from ros_world import JOINTS, REACH_HOME, World, wait_for, world
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from reflex_ros.bag.source import BagSource
from reflex_ros.cli.main import main

CAMERA_HZ, JOINTS_HZ = 30, 100
RECORDED = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
REPLANNED = {"execution_horizon": 10, "fade_s": 0.1}  # 10 rows of 20 Hz: every half second
CAMERA, STATE = "/camera/image_raw", "/joint_states"
COMMANDS: dict[str, tuple[type, str, dict[str, Any]]] = {
    "joint_trajectory": (JointTrajectory, "reflex/joint_trajectory", {}),
    "forward_command": (
        Float64MultiArray, "reflex/commands", {"output": "forward_command", "control_rate_hz": 100.0},
    ),
}  # fmt: skip


class Sensors:
    """A camera at 30 Hz and joints at 100 Hz in place of the robot's own; stamps: what was published, by topic."""

    def __init__(self, scene: World) -> None:
        self._robot = robot = scene.robot
        robot.camera_on = robot.joints_on = False
        self.stamps: dict[str, list[int]] = {CAMERA: [], STATE: []}
        self.on = True
        node = robot.node
        self._images = node.create_publisher(Image, "camera/image_raw", RECORDED)
        self._joints = node.create_publisher(JointState, "joint_states", RECORDED)
        node.create_timer(1.0 / CAMERA_HZ, self._see)
        node.create_timer(1.0 / JOINTS_HZ, self._feel)

    def _see(self) -> None:
        if self.on:
            self._sent(CAMERA, self._images, self._robot.image())

    def _feel(self) -> None:
        if self.on:
            state = JointState(name=JOINTS, position=self._robot.positions)
            state.header.stamp = self._robot.stamp()
            self._sent(STATE, self._joints, state)

    def _sent(self, topic: str, publisher: Any, message: Any) -> None:
        publisher.publish(message)
        self.stamps[topic].append(stamp_of(message))


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


@contextmanager
def recorded_world(folder: Path, **settings: Any) -> Iterator[tuple[World, Sensors]]:
    """The embedded policy on a robot with these sensors, recorded."""
    with world(record_bag=str(folder), path_tolerance_rad=0.0, **REPLANNED, **settings) as scene:
        scene.robot.positions = list(REACH_HOME)
        sensors = Sensors(scene)
        scene.activate()
        yield scene, sensors


@pytest.mark.parametrize("output", COMMANDS)
def test_a_camera_of_30_hz_joints_of_100_hz_and_every_command_are_in_the_bag_while_the_policy_replans_at_2_hz(
    tmp_path: Path, output: str
) -> None:
    kind, topic, settings = COMMANDS[output]
    heard: list[bytes] = []
    with recorded_world(tmp_path, **settings) as (scene, sensors):
        scene.robot.node.create_subscription(kind, topic, heard.append, RECORDED, raw=True)
        scene.robot.begin("ep-1")
        wait_for(lambda: scene.robot.status.chunks_total >= 7, "seven chunks were sent")
        hook = scene.server._recorder_hook
        wait_for(lambda: len(heard) > 6, "commands are heard")
        sensors.on = False
        (recorder,) = hook.recorders
    (path,) = bags(tmp_path)
    assert recorder.dropped == 0
    found: dict[str, list[Any]] = {}
    for name, _, message in messages(path):
        found.setdefault(name, []).append(message)
    for name, stamps in sensors.stamps.items():
        in_bag = [stamp_of(message) for message in found[name]]
        assert in_bag == sorted(set(in_bag))
        since = stamps.index(in_bag[0])  # the first ones come before the node listens
        assert in_bag == stamps[since:]
    with BagSource(path) as source:
        inferences = sum(1 for _ in source)
        assert source.damage == []
    assert inferences < len(found[CAMERA]) / 5 < len(found[STATE]) / 5
    raw = raw_messages(path, f"/{topic}")
    in_bag = [shown(each, kind) for each in raw]
    in_order = [shown(each, kind) for each in heard]
    begins = in_bag.index(in_order[0])  # the first ones come before the test listens
    assert in_bag[begins : begins + len(heard)] == in_order


def raw_messages(path: Path, topic: str) -> list[bytes]:
    with Reader(path) as reader:
        connections = [each for each in reader.connections if each.topic == topic]
        return [bytes(raw) for _, _, raw in reader.messages(connections)]


def shown(raw: bytes, kind: type) -> str:
    """Return every field of a message; its bytes have padding, which is whatever the memory held."""
    return str(deserialize_message(raw, kind))


def test_a_takeover_and_the_outcome_are_in_the_bag_and_in_the_frames(tmp_path: Path) -> None:
    with recorded_world(tmp_path / "bags", takeover_release_s=0.3, blend_s=0.2) as (scene, _):
        scene.robot.begin("ep-1")
        node, chunks = scene.robot.node, scene.robot.chunks
        wait_for(lambda: chunks and chunks[-1].episode_id == "ep-1", "the episode began")
        person = node.create_publisher(JointState, "reflex/takeover", RECORDED)
        wanted = (np.array(REACH_HOME) + 0.05).tolist()
        for _ in range(40):
            person.publish(JointState(name=JOINTS, position=wanted))
            threading.Event().wait(0.02)
        wait_for(lambda: any(chunk.control == "teleop" for chunk in chunks), "the person commands")
        seen = len(chunks)
        wait_for(
            lambda: any(chunk.control == "policy" for chunk in chunks[seen:]), "the policy commands again"
        )
        ended = node.create_publisher(EpisodeOutcome, "reflex/outcome", RECORDED)
        wait_for(ended.get_subscription_count, "the node listens to outcomes")
        ended.publish(EpisodeOutcome(success=True))
        engine = scene.server.engine
        wait_for(lambda: engine.loaded and engine.loaded.outcomes.find("ep-1"), "the outcome arrived")
        seen = len(chunks)
        wait_for(lambda: len(chunks) > seen + 1, "the policy goes on")
    (bag,) = bags(tmp_path / "bags")
    counts = Counter(topic for topic, _, _ in messages(bag))
    assert counts["/reflex/takeover"] >= 30
    output = tmp_path / "set"
    assert main(["trace", "export", str(bag), "--format", "lerobot", "--output", str(output)]) == 0
    frames = [
        row
        for file in sorted(output.glob("data/*/*.parquet"))
        for row in parquet.read_table(file).to_pylist()
    ]
    of_episode = [frame for frame in frames if frame["record.outcome"] == "success"]
    assert [frame["record.takeover"] for frame in of_episode].count(True) > 5
    assert {frame["record.control"] for frame in of_episode} >= {"policy", "teleop"}
    sent = np.concatenate([
        np.array(message.data, np.float32).reshape(message.horizon, message.action_dim)
        for topic, _, message in messages(bag)
        if topic == "/reflex/action_chunk"
    ])  # fmt: skip
    for frame in of_episode:  # nothing but what was sent, or between two rows of it
        assert np.abs(sent - np.array(frame["action"])).max(1).min() < 0.05
