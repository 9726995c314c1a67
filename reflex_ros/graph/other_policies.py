# SPDX-License-Identifier: Apache-2.0
"""Detect another policy that commands the same robot: then neither may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from rclpy.node import NodeNameNonExistentError

from reflex_core.errors import ConfigurationError
from reflex_ros.graph.endpoints import UNKNOWN, parts, publishers, wait_for_names

if TYPE_CHECKING:
    from rclpy.node import Node

CHUNK_TYPE = "reflex_ros/msg/ActionChunk"
NAMES_S = 2.0  # how long a publisher may take to say who it is


def other_policies(node: Node, command_topics: Iterable[str]) -> list[str]:
    """Return the full names of the other nodes that publish on these topics and publish action chunks too.

    Bag players do so as well. A second node of our own name counts. Tools such as a teach panel may publish there: they
    do not publish chunks.
    """
    own = node.get_fully_qualified_name()
    others = set[str]()
    for topic in command_topics:
        writers = Counter(publishers(node, topic))
        writers[own] -= 1
        others |= {
            name
            for name, count in writers.items()
            if count > 0 and (name == own or _makes_chunks(node, name))
        }
    return sorted(others)


def require_alone(node: Node, command_topics: Collection[str]) -> None:
    """Raise ConfigurationError when another policy commands this robot already."""
    if others := other_policies(node, command_topics):
        raise ConfigurationError(
            f"{', '.join(others)} commands this robot already, on {', '.join(command_topics)}: end it, or remap one of the two",
            "not-alone",
        )


def await_names(node: Node, command_topics: Iterable[str]) -> None:
    """Wait, for NAMES_S seconds at most, while a publisher there has been discovered, but not yet its node's name."""
    wait_for_names(lambda: {name for topic in command_topics for name in publishers(node, topic)}, NAMES_S)


def _makes_chunks(node: Node, name: str) -> bool:
    if name == UNKNOWN:  # it has just come
        return False
    try:
        topics = node.get_publisher_names_and_types_by_node(*parts(name))
    except NodeNameNonExistentError:  # it has just gone
        return False
    return any(CHUNK_TYPE in types for _, types in topics)
