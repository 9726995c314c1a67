# SPDX-License-Identifier: Apache-2.0
"""Check DDS: messages pass from one participant to another, and shared memory holds an image."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import ConfigurationError
from reflex_ros.graph.dds_profile import (
    PROFILE_VARIABLES,
    TRANSPORTS_VARIABLE,
    chosen_by_user,
    missing_profile,
    shipped_profile,
    uses_fast_dds,
)

SEGMENT_BYTES = 16 << 20
BOUND_S = 5.0


def loopback(bound_s: float = BOUND_S) -> Finding:
    """Check that two participants of this process discover each other and exchange a message within `bound_s` seconds."""
    try:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from std_msgs.msg import String
    except ImportError as error:
        return Finding("loopback", FAIL, f"import: {error}", "install ROS 2 again: a part of it is missing")
    word, received = uuid.uuid4().hex, list[str]()
    contexts = [Context(), Context()]
    began = time.monotonic()
    try:
        for context in contexts:
            rclpy.init(args=[], context=context)  # else it reads what this process was called with
        # two contexts are two participants: within one, a message would not leave the process's memory
        speaker, listener = (
            Node(f"reflex_doctor_{role}", context=context, start_parameter_services=False)
            for role, context in zip(("speaker", "listener"), contexts, strict=True)
        )
        topic = f"reflex_doctor_{word}"
        publisher = speaker.create_publisher(String, topic, 1)
        listener.create_subscription(String, topic, lambda message: received.append(message.data), 1)
        executor = SingleThreadedExecutor(context=contexts[1])
        executor.add_node(listener)
        while word not in received and time.monotonic() - began < bound_s:
            publisher.publish(String(data=word))
            executor.spin_once(timeout_sec=0.05)
        executor.shutdown()
        for node in (speaker, listener):
            node.destroy_node()
    except Exception as error:  # rcl raises whatever the middleware gives
        return Finding("loopback", FAIL, f"no DDS participant can be made: {_first_line(error)}", _WAY_OUT)
    finally:
        for context in contexts:
            rclpy.try_shutdown(context=context)
    if word in received:
        took_ms = (time.monotonic() - began) * 1e3
        return Finding(
            "loopback", OK, f"a message went from one participant to another within {took_ms:.0f} ms"
        )
    return Finding(
        "loopback", FAIL, f"no message arrived within {bound_s:g} s on this very machine", _WAY_OUT
    )


_WAY_OUT = (
    "let UDP and multicast through on the loopback interface (ip link set lo up multicast on; the firewall), and look at"
    " ROS_AUTOMATIC_DISCOVERY_RANGE, ROS_STATIC_PEERS and the profile file of the middleware"
)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def image_transport(environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> Finding:
    """Check that Fast DDS's shared-memory segment, by default smaller than a camera image, holds one.

    folder: the working directory, which may hold a profile.
    """
    name = "image transport"
    if not uses_fast_dds(environment):
        return Finding(name, OK, f"{environment['RMW_IMPLEMENTATION']} is used, Fast DDS is not")
    try:
        added = missing_profile(environment, folder)
        remedy = f"export {PROFILE_VARIABLES[0]}={shipped_profile()}"
    except ConfigurationError as error:
        return Finding(name, WARN, f"raw camera images may get lost: {error}", "install the package again")
    for variable, path in added.items():
        return Finding(
            name, OK, f"`reflex serve` sets {variable}={path} itself; publishers of raw images need it too"
        )
    chosen = chosen_by_user(environment, folder)
    path = environment.get(chosen, chosen) if chosen != TRANSPORTS_VARIABLE else ""
    if not path:
        value = environment[chosen]
        message = f"{chosen}={value}" if value else f"{chosen} is set to nothing"
        return Finding(
            name, WARN, f"{message}: raw camera images may get lost", f"unset {chosen}, or {remedy}"
        )
    try:
        segment = largest_segment(Path(path))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        return Finding(name, WARN, f"{path}: {error}", remedy)
    if segment < SEGMENT_BYTES:
        message = f"{path}: shared-memory segment of {segment} bytes, {SEGMENT_BYTES} are needed"
        return Finding(name, WARN, message, remedy)
    return Finding(name, OK, f"{path}: shared-memory segment of {segment / 2**20:.0f} MB")


def largest_segment(profile: Path) -> int:
    """Return segment_size in bytes of the largest SHM transport of a Fast DDS profile; 0 when there is none."""
    sizes = [0]
    for transport in ElementTree.parse(profile).iter():  # noqa: S314 - as Fast DDS reads it
        children = {child.tag.rsplit("}", 1)[-1]: (child.text or "").strip() for child in transport}
        if transport.tag.endswith("transport_descriptor") and children.get("type") == "SHM":
            sizes.append(int(children.get("segment_size", 0)))
    return max(sizes)
