# SPDX-License-Identifier: Apache-2.0
"""Who publishes on a topic and who listens to it, by full names; the one reader of that part of the graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.topic_endpoint_info import TopicEndpointInfo

UNKNOWN = "_NODE_NAME_UNKNOWN_"  # of a node that was found, and has not said its name yet
POLL_S = 0.02


def publishers(node: Node, topic: str) -> list[str]:
    """Return the full names of the nodes that publish on a topic, sorted, one for each publisher."""
    return _names(node.get_publishers_info_by_topic(topic))


def subscribers(node: Node, topic: str) -> list[str]:
    """Return the full names of the nodes that listen to a topic, sorted, one for each subscription."""
    return _names(node.get_subscriptions_info_by_topic(topic))


def full_name(name: str, namespace: str) -> str:
    """Return /namespace/name; UNKNOWN alone where the node has not said who it is."""
    known = namespace.startswith("/") and name != UNKNOWN
    return f"{namespace.rstrip('/')}/{name}" if known else UNKNOWN


def parts(name: str) -> tuple[str, str]:
    """Return name and namespace of a full name, as rclpy takes them."""
    namespace, _, own = name.rpartition("/")
    return own, namespace or "/"


def wait_for_names(names: Callable[[], Collection[str]], longest_s: float) -> Collection[str]:
    """Return what `names` gives once nobody in it is UNKNOWN, or after `longest_s` as it is then."""
    end_s = time.monotonic() + longest_s
    while UNKNOWN in (found := names()) and time.monotonic() < end_s:
        time.sleep(POLL_S)
    return found


def _names(found: Iterable[TopicEndpointInfo]) -> list[str]:
    return sorted(full_name(str(each.node_name), str(each.node_namespace)) for each in found)
