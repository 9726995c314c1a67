# SPDX-License-Identifier: Apache-2.0
"""Find other nodes on the topics of a recording: a live robot must neither be mixed with it nor be driven by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reflex_core.errors import ConfigurationError
from reflex_ros.graph.endpoints import (
    STATUS,
    UNKNOWN,
    action_clients,
    action_servers,
    publishers,
    subscribers,
    wait_for_names,
)

if TYPE_CHECKING:
    from rclpy.node import Node

COMMANDS = {
    "trajectory_msgs/msg/JointTrajectory",
    "reflex_ros/msg/ActionChunk",
    "std_msgs/msg/Float64MultiArray",
    "geometry_msgs/msg/Twist",
    "geometry_msgs/msg/TwistStamped",
    "geometry_msgs/msg/PoseStamped",
    "control_msgs/msg/JointJog",
}
ONLY_LOOK = ("_ros2cli", "rosbag2", "rqt", "rviz", "foxglove_bridge", "plotjuggler")
NAMING_S = 1.0  # until it has, as a rule


def require_alone(node: Node, topics: Iterable[str]) -> None:
    """Raise ConfigurationError when another node publishes on one of the topics.

    Recorded images between those of a live robot would make a policy drive it by what is not there.
    """
    own = node.get_fully_qualified_name()
    for topic in topics:
        found = publishers(node, topic)
        others = [name for name in found if name != own]
        if len(found) > 1:
            raise ConfigurationError(
                f"{topic} is published by {', '.join(others) or 'another replay'} too: stop it, or play on another"
                " ROS_DOMAIN_ID; a recording and a live robot must not be mixed"
            )


def require_nothing_driven(node: Node, topics: Sequence[str]) -> None:
    """Raise ConfigurationError when a subscriber of these topics commands something that may move.

    Viewers (ONLY_LOOK) may subscribe to its commands; a node without a known name counts as a robot.
    """
    strangers: dict[str, tuple[list[str], list[str]]] = {}

    def look() -> set[str]:
        strangers.clear()
        strangers.update(_driven(node, topics))
        return {name for listeners, _ in strangers.values() for name in listeners}

    wait_for_names(look, NAMING_S)
    for topic, (listeners, makers) in strangers.items():
        raise ConfigurationError(
            f"{', '.join(listeners)} listens to {topic}, the commands of {', '.join(makers)}: an arm behind it would move by"
            " recorded pictures; stop it, play on another ROS_DOMAIN_ID, or take --with-controller if it may move"
        )


def _driven(node: Node, topics: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Return, by topic or action, who takes its commands, and the subscribers of the recording that command there."""
    own = node.get_fully_qualified_name()
    driven = {name for topic in topics for name in subscribers(node, topic) if name != own}
    found = {}
    for topic, types in node.get_topic_names_and_types() if driven else ():
        action = topic.removesuffix(STATUS)
        if action == topic and not COMMANDS & set(types):
            continue
        if action == topic:
            makers, receivers = publishers(node, topic), subscribers(node, topic)
        else:
            makers, receivers = action_clients(node, action), action_servers(node, action)
        makers = sorted(set(makers) & driven)
        listeners = set(receivers) - (driven - {UNKNOWN})
        strangers = sorted(name for name in listeners if not _only_looks(name))
        if makers and strangers:
            found[action] = (strangers, makers)
    return found


def _only_looks(name: str) -> bool:
    return name.rpartition("/")[2].startswith(ONLY_LOOK)
