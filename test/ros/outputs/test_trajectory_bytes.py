# SPDX-License-Identifier: Apache-2.0
"""Trajectories written as bytes are the messages that the middleware itself would make, or these are sent."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.typesys import Stores, get_typestore
from trajectory_msgs.msg import JointTrajectory

from reflex_core.chunks.interpolation import Spline
from reflex_core.robot.groups import Group
from reflex_ros.bag.topic_types import serialised
from reflex_ros.messages import trajectory_bytes
from reflex_ros.messages.trajectory_bytes import LayoutError, TrajectoryBytes, message_of
from reflex_ros.outputs.base import Command
from reflex_ros.outputs.joint_trajectory import JointTrajectoryOutput

TYPES = get_typestore(Stores.ROS2_JAZZY)


@pytest.mark.parametrize("velocities", [True, False])
@pytest.mark.parametrize("points", [1, 2, 3, 50])
@pytest.mark.parametrize(
    "names", [("a",), ("ab", "c"), ("joint_1", "joint_22", "j"), tuple("abcdefg"), ("é", "much longer name")]
)
def test_every_message_is_the_middlewares_own(names: tuple[str, ...], points: int, velocities: bool) -> None:
    random = np.random.default_rng(points)
    writer = TrajectoryBytes(names, points, velocities=velocities)
    shape = (points, len(names))
    for scale in (1e-9, 1.0, 1e9):
        positions = random.normal(size=shape) * scale
        moving = random.normal(size=shape) * scale if velocities else None
        since_ns = np.cumsum(random.integers(0, 3 * 10**9, points))
        stamp_ns = int(random.integers(0, 2**31) * 10**9 + random.integers(0, 10**9))
        expected = message_of(names, stamp_ns, since_ns, positions, moving)
        made = writer(stamp_ns, since_ns, positions, moving)
        assert deserialize_message(made, JointTrajectory) == expected
        assert len(made) == len(serialised(expected, "trajectory_msgs/msg/JointTrajectory", TYPES))
    for stamp_ns in (0, -1, -(10**9), 2**31 * 10**9 - 1):
        made = writer(stamp_ns, since_ns, positions, moving)
        assert deserialize_message(made, JointTrajectory) == message_of(
            names, stamp_ns, since_ns, positions, moving
        )


def output_of(sent: list[Any]) -> JointTrajectoryOutput:
    publisher = SimpleNamespace(topic_name="/reflex/joint_trajectory")
    node: Any = SimpleNamespace(create_lifecycle_publisher=lambda *_, **__: publisher)
    return JointTrajectoryOutput(
        node, lambda _, message: sent.append(message), Group("arm", (0, 1), ("a", "b"), options={})
    )


def command() -> Command:
    times = 10**18 + np.array([0, 50_000_000, 100_000_000])
    spline = Spline(times, np.arange(6.0).reshape(3, 2), np.zeros((3, 2)), True)
    chunk: Any = SimpleNamespace(names=("a", "b"))
    return Command(chunk, 10**18, 0, spline)


def odd_layout(message: Any) -> bytes:
    """Numbers in the other byte order."""
    return bytes(serialize_message(message))[::-1]


def test_another_layout_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory_bytes, "serialize_message", odd_layout)
    with pytest.raises(LayoutError):
        TrajectoryBytes(("a", "b"), 3, velocities=True)


def test_with_another_layout_messages_are_sent_and_counted_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Any] = []
    usual = output_of(sent)
    usual.send(command())
    assert usual.report() == {}
    monkeypatch.setattr(trajectory_bytes, "serialize_message", odd_layout)
    output = output_of(sent)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            output.send(command())
    expected = deserialize_message(sent[0], JointTrajectory)
    assert sent[1:] == [expected] * 3
    assert output.report() == {"trajectories converted slowly": 3}
    assert len(caplog.records) == 1
