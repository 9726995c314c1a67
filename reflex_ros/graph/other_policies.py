# SPDX-License-Identifier: Apache-2.0
"""Detect another policy that commands the same robot: then neither may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Protocol

from rclpy.node import NodeNameNonExistentError

from reflex_core.errors import ConfigurationError
from reflex_ros.graph.endpoints import UNKNOWN, parts, wait_for_names

if TYPE_CHECKING:
    from rclpy.node import Node

CHUNK_TYPE = "reflex_ros/msg/ActionChunk"
NAMES_S = 2.0  # how long a publisher may take to say who it is


class Channel(Protocol):
    """A topic or an action by which a robot is commanded."""

    @property
    def name(self) -> str:
        """Its full name."""
        ...

    def commanders(self, node: Node) -> list[str]:
        """Return the full names of the nodes that can command there, one for each publisher or client."""
        ...


def other_policies(node: Node, channels: Iterable[Channel]) -> list[str]:
    """Return the full names of the other nodes that can command by these channels and publish action chunks too, sorted.

    Bag players do so as well. A second node of our own name counts. Tools such as a teach panel may publish there: they
    do not publish chunks.
    """
    return sorted({name for names in contested(node, channels).values() for name in names})


def contested(node: Node, channels: Iterable[Channel]) -> dict[str, set[str]]:
    """Return the names of the channels by which another policy can command, and the full names of those policies."""
    found = {channel.name: _others_of(node, channel) for channel in channels}
    return {name: others for name, others in found.items() if others}


def _others_of(node: Node, channel: Channel) -> set[str]:
    own = node.get_fully_qualified_name()
    writers = Counter(channel.commanders(node))
    writers[own] -= 1
    return {
        name for name, count in writers.items() if count > 0 and (name == own or _makes_chunks(node, name))
    }


def require_alone(node: Node, channels: Collection[Channel]) -> None:
    """Raise ConfigurationError when another policy commands this robot already."""
    if found := contested(node, channels):
        others = sorted(set[str]().union(*found.values()))
        raise ConfigurationError(
            f"{', '.join(others)} commands this robot already, on {', '.join(found)}: end it, or remap one of the two",
            "not-alone",
        )


def await_names(node: Node, channels: Collection[Channel]) -> None:
    """Wait, for NAMES_S seconds at most, while a commander there has been discovered, but not yet its node's name."""
    wait_for_names(lambda: {name for channel in channels for name in channel.commanders(node)}, NAMES_S)


def _makes_chunks(node: Node, name: str) -> bool:
    if name == UNKNOWN:  # it has just come
        return False
    try:
        topics = node.get_publisher_names_and_types_by_node(*parts(name))
    except NodeNameNonExistentError:  # it has just gone
        return False
    return any(CHUNK_TYPE in types for _, types in topics)
