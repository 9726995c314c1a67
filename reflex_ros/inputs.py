# SPDX-License-Identifier: Apache-2.0
"""The subscriptions that fill the observation buffer, made while the node is active."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, Imu, JointState
from std_msgs.msg import String

from reflex_core.settings import Settings
from reflex_ros.conversions import imu_state, odometry_state, stamp_ns
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
    ) -> None:
        self._node, self._buffer, self._news = node, buffer, news
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
            "imu": (Imu, "imu/data", partial(self._vector, imu_state)),
            "odometry": (Odometry, "odom", partial(self._vector, odometry_state)),
        }
        kind, topic, callback = state[settings.state_source]
        self._subscribe(kind, topic, callback, SENSOR)
        self._subscribe(String, "instruction", lambda message: on_instruction(message.data), LATCHED)
        self._subscribe(String, "episode", lambda message: on_episode(message.data), LATCHED)

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        options = QoSOverridingOptions.with_default_policies()
        # rclpy inspects the callback's signature: a plain function with one parameter passes everywhere
        subscription = self._node.create_subscription(
            kind, topic, lambda message: callback(message), qos, qos_overriding_options=options
        )
        self._subscriptions.append(subscription)

    def _stamp(self, stream: str, message: Any) -> int:
        """The sensor's stamp; the time of arrival for a driver that leaves it empty, said once."""
        stamp = stamp_ns(message.header.stamp)
        if stamp:
            return stamp
        if stream not in self._unstamped:
            self._unstamped.add(stream)
            self._node.get_logger().warning(f"{stream} has no header stamp: its time of arrival is used")
        return int(self._node.get_clock().now().nanoseconds)

    def _image(self, camera: str, message: Any) -> None:
        self._buffer.put_image(camera, self._stamp(f"camera '{camera}'", message), message)
        self._news()

    def _joints(self, message: JointState) -> None:
        self._buffer.put_joints(self._stamp("joint_states", message), message.name, message.position)
        self._news()

    def _vector(self, convert: Callable[[Any], Any], message: Any) -> None:
        self._buffer.put_vector(self._stamp("state", message), convert(message))
        self._news()

    def destroy(self) -> None:
        """Take all subscriptions away."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
