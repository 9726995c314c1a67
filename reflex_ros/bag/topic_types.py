# SPDX-License-Identifier: Apache-2.0
"""Types with their definitions, and quality of service, of a bag's topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile

STRING = "std_msgs/msg/String"
TRACE = "trace"  # last part of the topic, in the bag only, with the trace record of every request as JSON
CONSUMED = "consumed"  # in such a record: where the image of each camera is
FULL_RATE = "full"  # of the setting record_bag_streams: every sensor message is in the bag
CONSUMED_BEFORE = "consumed_before"  # the same of each observation before it, oldest first

_ENCAPSULATION = 4  # bytes before the data

OfferedQos = Callable[[str], Sequence[Qos]]


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way into the bag. data: its CDR bytes, or the message, serialised when it is written.

    time_ns: when it was received or published, on the robot's clock.
    """

    topic: str
    kind: str
    time_ns: int
    data: Any


def definitions() -> Typestore:
    """Return the standard messages and ours, as they were built."""
    from ament_index_python.packages import get_package_share_directory

    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted((Path(get_package_share_directory("reflex_ros")) / "msg").glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(encoding="utf-8"), f"reflex_ros/msg/{path.stem}"))
    return store


def serialised(message: Any, kind: str, store: Typestore) -> bytes:
    """Return the CDR bytes of a message, of the length that DDS sends.

    rclpy hands out its whole buffer: up to a fifth more than the message, whatever the memory held, and strict readers
    refuse that.
    """
    from rclpy.serialization import serialize_message

    raw: bytes = serialize_message(message)
    # the size is on the way to another format, which is not made
    length, _ = store.get_msgdef(kind).getsize_cdr_to_ros1(raw[_ENCAPSULATION:], 0, None, 0, store)
    return raw[: _ENCAPSULATION + length]


def offered_qos(node: Node) -> OfferedQos:
    """Return a function that reads the publishers' QoS of a topic from the graph: `ros2 bag play` offers the same.

    Where the only publisher has gone, as after `ros2 topic pub --once`, this node's requested QoS is taken.
    """

    def offered(topic: str) -> list[Qos]:
        found = node.get_publishers_info_by_topic(topic)
        found = found or [
            e for e in node.get_subscriptions_info_by_topic(topic) if e.node_name == node.get_name()
        ]
        return [qos(endpoint.qos_profile) for endpoint in found]

    return offered


def qos(profile: QoSProfile) -> Qos:
    """Return a profile of rclpy as rosbags writes it."""
    return Qos(
        QosHistory(int(profile.history)),
        int(profile.depth),
        QosReliability(int(profile.reliability)),
        QosDurability(int(profile.durability)),
        _time(profile.deadline),
        _time(profile.lifespan),
        QosLiveliness(int(profile.liveliness)),
        _time(profile.liveliness_lease_duration),
        bool(profile.avoid_ros_namespace_conventions),
    )


def _time(duration: Any) -> QosTime:
    return QosTime(*divmod(int(duration.nanoseconds), 1_000_000_000))
