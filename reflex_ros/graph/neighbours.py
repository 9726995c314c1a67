# SPDX-License-Identifier: Apache-2.0
"""Who else is on the topics of a recording: a live robot must neither be mixed with it nor be driven by it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reflex_core.errors import ConfigurationError

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.topic_endpoint_info import TopicEndpointInfo

COMMANDS = {"trajectory_msgs/msg/JointTrajectory", "reflex_ros/msg/ActionChunk"}
ONLY_LOOK = ("_ros2cli", "rosbag2", "rqt", "rviz", "foxglove_bridge", "plotjuggler")
UNKNOWN = "_NODE_NAME_UNKNOWN_"  # of a node that was found, and has not said its name yet
NAMING_S = 1.0  # until it has, as a rule
POLL_S = 0.02


def require_alone(node: Node, topics: Iterable[str]) -> None:
    """Raise ConfigurationError when somebody else publishes on one of them.

    Recorded pictures between those of a live robot would make a policy drive it by what is not there.
    """
    for topic in topics:
        found = node.get_publishers_info_by_topic(topic)
        others = sorted(each.node_name for each in found if each.node_name != node.get_name())
        if len(found) > 1:
            raise ConfigurationError(
                f"{topic} is published by {', '.join(others) or 'another replay'} too: stop it, or play on another"
                " ROS_DOMAIN_ID; a recording and a live robot must not be mixed"
            )


def require_nothing_driven(node: Node, topics: Sequence[str]) -> None:
    """Raise ConfigurationError when what listens to these topics commands something that may move.

    People's tools that only look (ONLY_LOOK) may listen to its commands; who does not say a name is a stranger.
    """
    until_s = time.monotonic() + NAMING_S
    while (said := _driven(node, topics)) and UNKNOWN in said and time.monotonic() < until_s:
        time.sleep(POLL_S)
    if said:
        raise ConfigurationError(said)


def _driven(node: Node, topics: Sequence[str]) -> str:
    """A sentence about who would be driven; empty where nobody would."""
    driven = {
        _name(each)
        for topic in topics
        for each in node.get_subscriptions_info_by_topic(topic)
        if each.node_name != node.get_name()
    }
    for topic, types in node.get_topic_names_and_types() if driven else ():
        if not COMMANDS & set(types):
            continue
        makers = {_name(each) for each in node.get_publishers_info_by_topic(topic)} & driven
        listeners = {_name(each) for each in node.get_subscriptions_info_by_topic(topic)} - (
            driven - {UNKNOWN}
        )
        strangers = sorted(name for name in listeners if not _only_looks(name))
        if makers and strangers:
            return (
                f"{', '.join(strangers)} listens to {topic}, the commands of {', '.join(sorted(makers))}: an arm behind it"
                " would move by recorded pictures; stop it, play on another ROS_DOMAIN_ID, or take --with-controller if it"
                " may move"
            )
    return ""


def _name(endpoint: TopicEndpointInfo) -> str:
    name = str(endpoint.node_name)
    return name if name == UNKNOWN else f"{str(endpoint.node_namespace).rstrip('/')}/{name}"


def _only_looks(name: str) -> bool:
    return name.rpartition("/")[2].startswith(ONLY_LOOK)
