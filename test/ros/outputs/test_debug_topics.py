# SPDX-License-Identifier: Apache-2.0
"""~/debug/*_ms: true numbers for each subscriber, and no message without one."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import pytest
from ros_world import Robot, wait_for, world
from servers import ExportDir
from std_msgs.msg import Float64

from reflex_ros.outputs.debug import NAMES, DebugTopics


class Noted:
    """A publisher that notes what leaves, in front of the real one."""

    def __init__(self, publisher: Any, sent: list[float]) -> None:
        self._publisher, self._sent = publisher, sent

    def get_subscription_count(self) -> int:
        return int(self._publisher.get_subscription_count())

    def publish(self, message: Float64) -> None:
        self._sent.append(message.data)
        self._publisher.publish(message)


@pytest.fixture
def robot() -> Any:
    found = Robot(domain=83)
    yield found
    found.spinner.close()
    found.node.destroy_node()


def noted(robot: Robot) -> tuple[DebugTopics, dict[str, list[float]]]:
    topics, sent = DebugTopics(robot.node), defaultdict[str, list[float]](list)
    for name, publisher in topics._publishers.items():
        topics._publishers[name] = Noted(publisher, sent[name])
    return topics, sent


def test_nothing_is_published_without_a_subscriber(robot: Robot) -> None:
    topics, sent = noted(robot)
    for _ in range(3):
        topics.chunk(12.0, robot.node.get_clock().now().nanoseconds)
    assert {name: sent[name] for name in NAMES} == {name: [] for name in NAMES}


def test_only_what_is_listened_to_is_published(robot: Robot) -> None:
    topics, sent = noted(robot)
    heard: list[float] = []
    robot.node.create_subscription(
        Float64, "robot/debug/processing_time_ms", lambda message: heard.append(message.data), 1
    )
    publisher = topics._publishers["processing_time_ms"]
    wait_for(publisher.get_subscription_count, "the subscription is known")
    topics.chunk(12.5, robot.node.get_clock().now().nanoseconds)
    wait_for(lambda: heard == [12.5], "it is heard")
    assert (sent["cyclic_time_ms"], sent["pipeline_latency_ms"]) == ([], [])


def test_the_first_chunk_after_a_pause_ends_no_cycle(robot: Robot) -> None:
    topics, sent = noted(robot)
    robot.node.create_subscription(Float64, "robot/debug/cyclic_time_ms", lambda _: None, 1)
    wait_for(topics._publishers["cyclic_time_ms"].get_subscription_count, "the subscription is known")
    now_ns = robot.node.get_clock().now().nanoseconds
    topics.chunk(1.0, now_ns)
    assert sent["cyclic_time_ms"] == []
    topics.chunk(1.0, now_ns)
    assert len(sent["cyclic_time_ms"]) == 1
    topics.pause()
    topics.chunk(1.0, now_ns)
    assert len(sent["cyclic_time_ms"]) == 1


def test_a_served_chunk_is_timed_from_the_sensor_stamp(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka", execution_horizon=1) as scene:
        heard = defaultdict[str, list[float]](list)

        def hear(name: str, message: Float64) -> None:
            heard[name].append(message.data)

        for name in NAMES:
            # rclpy inspects callbacks: a plain function of one parameter
            take = partial(hear, name)
            scene.robot.node.create_subscription(
                Float64, f"reflex/debug/{name}", lambda m, take=take: take(m), 10
            )
        scene.activate()
        wait_for(lambda: all(len(heard[name]) > 1 for name in NAMES), "all three are heard")
        assert min(heard["cyclic_time_ms"]) > 0.0
        assert min(heard["processing_time_ms"]) > 0.0
        # the sensors were read before inference began
        assert min(heard["pipeline_latency_ms"]) >= min(heard["processing_time_ms"])
