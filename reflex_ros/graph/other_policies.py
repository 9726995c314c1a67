# SPDX-License-Identifier: Apache-2.0
"""Whether another policy commands the same robot: then neither may."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from rclpy.node import NodeNameNonExistentError

from reflex_core.errors import ConfigurationError

if TYPE_CHECKING:
    from rclpy.node import Node

CHUNK_TYPE = "reflex_ros/msg/ActionChunk"
NAMES_S = 2.0  # how long a publisher may take to say who it is


def other_policies(node: Node, trajectory_topic: str) -> list[str]:
    """Full names of the other nodes that publish on this topic and publish action chunks too, as players of bags do.

    A second node of our own name counts. People's tools may publish there: they do not make chunks.
    """
    own = (node.get_name(), node.get_namespace())
    writers = Counter(
        (info.node_name, info.node_namespace) for info in node.get_publishers_info_by_topic(trajectory_topic)
    )
    writers[own] -= 1
    return sorted(
        f"{namespace.rstrip('/')}/{name}"
        for (name, namespace), count in writers.items()
        if count > 0 and ((name, namespace) == own or _makes_chunks(node, name, namespace))
    )


def publishers(node: Node, topic: str) -> list[str]:
    """Full names of the nodes that publish on a topic, one for each publisher."""
    infos = node.get_publishers_info_by_topic(topic)
    return sorted(f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in infos)


def require_alone(node: Node, trajectory_topic: str) -> None:
    """Raise ConfigurationError when another policy commands this robot already."""
    if others := other_policies(node, trajectory_topic):
        raise ConfigurationError(
            f"{', '.join(others)} commands this robot already, on {trajectory_topic}: end it, or remap one of the two",
            "not-alone",
        )


def await_names(node: Node, trajectory_topic: str) -> None:
    """Wait, for NAMES_S at most, while somebody who publishes there has been found, but not yet who it is."""
    end_s = time.monotonic() + NAMES_S
    while not _all_known(node, trajectory_topic) and time.monotonic() < end_s:
        time.sleep(0.02)


def _all_known(node: Node, trajectory_topic: str) -> bool:
    writers = node.get_publishers_info_by_topic(trajectory_topic)
    return all(info.node_namespace.startswith("/") for info in writers)


def _makes_chunks(node: Node, name: str, namespace: str) -> bool:
    if not namespace.startswith("/"):  # it has just come, and its name is not known yet
        return False
    try:
        topics = node.get_publisher_names_and_types_by_node(name, namespace)
    except NodeNameNonExistentError:  # it has just gone
        return False
    return any(CHUNK_TYPE in types for _, types in topics)
