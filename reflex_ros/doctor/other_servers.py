# SPDX-License-Identifier: Apache-2.0
"""Check whether another node commands this robot already: two policies must not command one arm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_ros.graph.endpoints import UNKNOWN, full_name, publishers

if TYPE_CHECKING:
    from rclpy.node import Node

CHECK = "other servers"
OURS, ASKING = "reflex", "reflex_doctor"
LOOK_S = 2.0  # until other programs are known
POLL_S = 0.05


def other_servers(ros_args: Sequence[str] = (), look_s: float = LOOK_S) -> Finding:
    """Check whether our node, or any publisher on its joint_trajectory, is in this ROS domain.

    ros_args: remappings, as `reflex serve` would get them.
    """
    import rclpy
    from rclpy.context import Context
    from rclpy.node import Node

    context = Context()
    try:
        rclpy.init(args=list(ros_args), context=context)
        node = Node(ASKING, context=context, start_parameter_services=False, enable_rosout=False)
    except Exception as error:  # rcl raises whatever the middleware gives
        rclpy.try_shutdown(context=context)
        message = (str(error).splitlines() or [type(error).__name__])[0][:300]
        return Finding(
            CHECK, FAIL, f"other servers could not be checked: {message}", "look at what follows --ros-args"
        )
    try:
        return _looked(node, look_s)
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _looked(node: Node, look_s: float) -> Finding:
    asking = node.get_name()
    name = OURS if asking == ASKING else asking  # --ros-args -r __node:=NAME renames the caller
    topics = {node.resolve_topic_name(f"{start}/joint_trajectory") for start in (name, "~")}
    found = list[str]()
    until_s = time.monotonic() + look_s
    while time.monotonic() < until_s:
        found = _found(node, name, topics)
        if found and UNKNOWN not in str(found):
            break
        time.sleep(POLL_S)
    if not found:
        where = full_name(name, node.get_namespace())
        return Finding(CHECK, OK, f"no other node is {where} or commands this robot in this ROS domain")
    return Finding(
        CHECK, WARN, f"{' and '.join(found)}: this robot may be driven already",
        "end it before you serve, or take another ROS_DOMAIN_ID or namespace (--ros-args -r __ns:=/NAME)",
    )  # fmt: skip


def _found(node: Node, name: str, topics: set[str]) -> list[str]:
    """Return a sentence for the node of our name, and for each topic with publishers."""
    here = node.get_namespace()
    names = node.get_node_names_and_namespaces()
    own = (node.get_name(), here) == (name, here)
    found = [f"a node {full_name(name, here)} runs"] if names.count((name, here)) > own else []
    for topic in sorted(topics):
        makers = sorted(set(publishers(node, topic)))
        if makers:
            found.append(f"{', '.join(makers)} publishes on {topic}")
    return found
