# SPDX-License-Identifier: Apache-2.0
"""Publishers and subscribers of a topic by full node names; the one place that reads them from the graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.topic_endpoint_info import TopicEndpointInfo

UNKNOWN = "_NODE_NAME_UNKNOWN_"  # of a node that was found, and has not said its name yet
POLL_S = 0.02
STATUS = (
    "/_action/status"  # the topic of an action that every server publishes and every client subscribes to
)


def publishers(node: Node, topic: str) -> list[str]:
    """Return the full names of the nodes that publish on a topic, sorted, one for each publisher."""
    return _names(node.get_publishers_info_by_topic(topic))


def subscribers(node: Node, topic: str) -> list[str]:
    """Return the full names of the nodes that subscribe to a topic, sorted, one for each subscription."""
    return _names(node.get_subscriptions_info_by_topic(topic))


def action_clients(node: Node, action: str) -> list[str]:
    """Return the full names of the nodes with a client of an action, sorted, one for each client."""
    return subscribers(node, action + STATUS)


def action_servers(node: Node, action: str) -> list[str]:
    """Return the full names of the nodes with a server of an action, sorted, one for each server."""
    return publishers(node, action + STATUS)


def full_name(name: str, namespace: str) -> str:
    """Return /namespace/name; UNKNOWN alone where discovery has not delivered the node's name yet."""
    known = namespace.startswith("/") and name != UNKNOWN
    return f"{namespace.rstrip('/')}/{name}" if known else UNKNOWN


def parts(name: str) -> tuple[str, str]:
    """Return (name, namespace) of a full name, as rclpy takes them."""
    namespace, _, own = name.rpartition("/")
    return own, namespace or "/"


def wait_for_names(names: Callable[[], Collection[str]], longest_s: float) -> Collection[str]:
    """Return what `names` gives once no entry is UNKNOWN, or its entries after `longest_s` seconds."""
    end_s = time.monotonic() + longest_s
    while UNKNOWN in (found := names()) and time.monotonic() < end_s:
        time.sleep(POLL_S)
    return found


def _names(found: Iterable[TopicEndpointInfo]) -> list[str]:
    return sorted(full_name(str(each.node_name), str(each.node_namespace)) for each in found)
