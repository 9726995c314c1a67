# SPDX-License-Identifier: Apache-2.0
"""The subscriptions that fill the observation buffer, made while the node is active."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image, Imu, JointState
from std_msgs.msg import String

from reflex_core.settings import Settings
from reflex_ros.arrivals import Arrival, header_stamp_ns, kind_of
from reflex_ros.conversions import imu_state, odometry_state
from reflex_ros.observations import ObservationBuffer

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.subscription import Subscription

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


class Inputs:
    """Camera, state, instruction and episode subscriptions. Callbacks only store; nothing is decoded in them."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        cameras: tuple[str, ...],
        buffer: ObservationBuffer,
        news: Callable[[], None],
        on_instruction: Callable[[str], None],
        on_episode: Callable[[str], None],
        heard: Callable[[Arrival], None] = lambda _: None,
    ) -> None:
        """heard: gets every instruction and episode message as it came, before anything is done with it."""
        self._node, self._buffer, self._news, self._heard = node, buffer, news, heard
        self._unstamped: set[str] = set()
        compressed = settings.image_transport == "compressed"
        self._subscriptions: list[Subscription] = []
        for camera in cameras:
            topic = f"{camera}/image_raw" + ("/compressed" if compressed else "")
            self._subscribe(
                CompressedImage if compressed else Image, topic, partial(self._image, camera), SENSOR
            )
        state: dict[str, tuple[type, str, Callable[[Any], None]]] = {
            "joint_states": (JointState, "joint_states", self._joints),
            "imu": (Imu, "imu/data", partial(self._vector, Imu, imu_state)),
            "odometry": (Odometry, "odom", partial(self._vector, Odometry, odometry_state)),
        }
        kind, topic, callback = state[settings.state_source]
        self._subscribe(kind, topic, callback, SENSOR)
        self._subscribe(String, "instruction", partial(self._said, on_instruction), LATCHED)
        self._subscribe(String, "episode", partial(self._said, on_episode), LATCHED)

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        options = QoSOverridingOptions.with_default_policies()
        # rclpy inspects the callback's signature: a plain function with one parameter passes everywhere
        subscription = self._node.create_subscription(
            kind, topic, lambda raw: callback(arrived(raw)), qos, qos_overriding_options=options, raw=True
        )
        name, kind_name = subscription.topic_name, kind_of(kind)
        stamped = kind is not String

        def arrived(raw: bytes) -> Arrival:
            received_ns = int(self._node.get_clock().now().nanoseconds)
            stamp_ns = self._stamp(name, raw, received_ns) if stamped else received_ns
            return Arrival(name, kind_name, raw, stamp_ns, received_ns)

        self._subscriptions.append(subscription)

    def _stamp(self, topic: str, raw: bytes, received_ns: int) -> int:
        """The sensor's stamp; the time of arrival for a driver that leaves it empty, said once."""
        stamp = header_stamp_ns(raw)
        if stamp:
            return stamp
        if topic not in self._unstamped:
            self._unstamped.add(topic)
            self._node.get_logger().warning(f"{topic} has no header stamp: its time of arrival is used")
        return received_ns

    def _image(self, camera: str, arrival: Arrival) -> None:
        self._buffer.put_image(camera, arrival)
        self._news()

    def _joints(self, arrival: Arrival) -> None:
        message = deserialize_message(arrival.raw, JointState)
        self._buffer.put_joints(arrival, message.name, message.position)
        self._news()

    def _vector(self, kind: type, convert: Callable[[Any], Any], arrival: Arrival) -> None:
        self._buffer.put_vector(arrival, convert(deserialize_message(arrival.raw, kind)))
        self._news()

    def _said(self, act: Callable[[str], None], arrival: Arrival) -> None:
        self._heard(arrival)
        act(deserialize_message(arrival.raw, String).data)

    def destroy(self) -> None:
        """Take all subscriptions away."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
