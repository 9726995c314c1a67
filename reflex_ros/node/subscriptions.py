# SPDX-License-Identifier: Apache-2.0
"""The subscriptions that fill the observation buffer, made while the node is active."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from nav_msgs.msg import Odometry
from rclpy.exceptions import ParameterException
from rclpy.qos import DurabilityPolicy, InvalidQoSProfileException, QoSProfile
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image, Imu, JointState
from std_msgs.msg import String

from reflex_core.errors import ConfigurationError
from reflex_core.settings.table import Settings
from reflex_ros.bag.recorder_hook import OFF, RecorderHook
from reflex_ros.graph.qos import (
    LATCHED,
    SENSOR,
    STREAM_DEPTH,
    copied,
    newest,
    overridable,
    require_known_overrides,
    unheard,
)
from reflex_ros.graph.topics import compressed_topic
from reflex_ros.messages.raw import RawMessage, header_stamp_ns, kind_of
from reflex_ros.messages.state import imu_state, odometry_state
from reflex_ros.node.compat import SubscriptionEventCallbacks, with_info
from reflex_ros.node.diagnostics import Finding, connection_finding
from reflex_ros.node.instruction import Deduplicator
from reflex_ros.node.observation_buffer import ObservationBuffer

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.subscription import Subscription

# of instruction and episode: none may get lost between their two subscriptions
WORDS_DEPTH = 100
WORDS = QoSProfile(depth=WORDS_DEPTH, reliability=LATCHED.reliability, durability=LATCHED.durability)
OnText = Callable[
    [str, int], None
]  # the text, and when it was published (ns since 1970), 0 where that is not known
MOST_UNHEARD = 5  # publishers that are named at a time
OVERRIDE_ERRORS = (
    ParameterException, InvalidQosOverridesError, InvalidQoSProfileException, AssertionError, RuntimeError, ValueError,
)  # fmt: skip


class Inputs:
    """Camera, state, instruction and episode subscriptions. Callbacks only store; nothing is decoded in them."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        cameras: tuple[str, ...],
        buffer: ObservationBuffer,
        news: Callable[[], None],
        on_instruction: OnText,
        on_episode: OnText,
        recorder_hook: RecorderHook = OFF,
    ) -> None:
        """Create the subscriptions. recorder_hook: gets every message before it is handled.

        Raises ConfigurationError for an override of a quality of service that cannot be honoured.
        """
        self._node, self._buffer, self._news, self._recorder_hook = node, buffer, news, recorder_hook
        self._unstamped: set[str] = set()
        # a sentence for each publisher with incompatible QoS, as of the newest check
        self.unheard: list[str] = []
        self._compressed = settings.image_transport == "compressed"
        self._subscriptions: dict[str, list[Subscription]] = {}  # by real topic
        try:
            self._listen(settings.state_source, cameras, on_instruction, on_episode)
            others = [self._image_topic(camera, not self._compressed) for camera in cameras]
            require_known_overrides(node, map(node.resolve_topic_name, others))
        except ConfigurationError:
            self.destroy()
            raise

    def _listen(
        self,
        state_source: str,
        cameras: tuple[str, ...],
        on_instruction: OnText,
        on_episode: OnText,
    ) -> None:
        topics = self._buffer.topics
        image = CompressedImage if self._compressed else Image
        for camera in cameras:
            topic = self._image_topic(camera, self._compressed)
            topics[camera] = self._subscribe(image, topic, partial(self._image, camera), SENSOR)
        state: dict[str, tuple[type, str, Callable[[Any], None]]] = {
            "joint_states": (JointState, "joint_states", self._joints),
            "imu": (Imu, "imu/data", partial(self._vector, Imu, imu_state)),
            "odometry": (Odometry, "odom", partial(self._vector, Odometry, odometry_state)),
        }
        kind, topic, callback = state[state_source]
        topics["state"] = self._subscribe(kind, topic, callback, SENSOR)
        for topic, act in (("instruction", on_instruction), ("episode", on_episode)):
            topics[topic] = self._subscribe_latched_too(topic, partial(self._text_message, act))

    def _image_topic(self, camera: str, compressed: bool) -> str:
        base = f"{camera}/image_raw"
        return compressed_topic(self._node, base) if compressed else base

    def connections(self) -> Finding:
        """Find publishers on our topics with incompatible QoS; a new one is logged."""
        before, self.unheard = (
            self.unheard,
            list(islice(unheard(self._node, self._subscriptions), MOST_UNHEARD)),
        )
        for sentence in self.unheard:
            if sentence not in before:
                self._node.get_logger().warning(f"incompatible publisher: {sentence}")
        return connection_finding(self._buffer.topics, self.unheard)

    def _subscribe(
        self, kind: type, topic: str, callback: Callable[[RawMessage], None], qos: QoSProfile
    ) -> str:
        """Subscribe to a sensor. Return the resolved topic name."""

        # rclpy inspects the callback's signature: a plain function with one parameter passes everywhere
        def on_message(raw: bytes) -> None:
            callback(self._arrival(name, kind, raw))

        def on_stream(raw: bytes) -> None:
            arrivals = list[RawMessage]()
            newest(found, raw, lambda each: arrivals.append(self._arrival(name, kind, each)))
            for arrival in arrivals:
                self._recorder_hook.heard(arrival)
            callback(arrivals[-1])  # last: an answer to it must find it recorded

        if self._recorder_hook.full_rate:
            found = self._create(kind, topic, on_stream, copied(qos, depth=STREAM_DEPTH))
        else:
            found = self._create(kind, topic, on_message, copied(qos))
        name = str(found.topic_name)
        return name

    def _subscribe_latched_too(self, topic: str, act: Callable[[RawMessage, int], None]) -> str:
        """Subscribe to latched and to volatile publishers of a topic.

        A transient-local subscription does not match a volatile publisher, a volatile one does not get earlier messages:
        there are both, and each message counts once. Return the resolved topic name.
        """
        deduplicator = Deduplicator()
        latched = copied(WORDS)

        def on_message(raw: bytes, info: Mapping[str, Any], live: bool) -> None:
            stamp_ns, number = info["source_timestamp"], info["publication_sequence_number"]
            if deduplicator.is_new(stamp_ns, number, raw, time.monotonic_ns(), live=live):
                act(self._arrival(name, String, raw), stamp_ns)

        def from_latched(raw: bytes, info: Mapping[str, Any]) -> None:
            on_message(raw, info, live=latched.durability != DurabilityPolicy.TRANSIENT_LOCAL)

        # volatile publishers do not match the first one, which needs no warning: the second one receives them
        silent = SubscriptionEventCallbacks(use_default_callbacks=False)
        latching = self._create(String, topic, with_info(from_latched), latched, event_callbacks=silent)
        name = str(latching.topic_name)
        if latched.durability == DurabilityPolicy.TRANSIENT_LOCAL:  # an override may want it otherwise
            volatile = copied(WORDS, durability=DurabilityPolicy.VOLATILE)
            options = overridable(durability=False)
            from_now_on = with_info(partial(on_message, live=True))
            self._create(String, topic, from_now_on, volatile, qos_overriding_options=options)
        return name

    def _create(
        self, kind: type, topic: str, callback: Callable[..., None], qos: QoSProfile, **options: Any
    ) -> Subscription:
        """Make one subscription; rclpy writes overrides into `qos`. Raises ConfigurationError for one that is wrong."""
        options = {"qos_overriding_options": overridable()} | options
        try:
            found = self._node.create_subscription(kind, topic, callback, qos, raw=True, **options)
        except OVERRIDE_ERRORS as error:
            name = self._node.resolve_topic_name(topic)
            raise ConfigurationError(
                f"qos_overrides.{name}.subscription: {error}", "bad-qos-override"
            ) from error
        self._subscriptions.setdefault(found.topic_name, []).insert(0, found)
        return found

    def _arrival(self, topic: str, kind: type, raw: bytes) -> RawMessage:
        received_ns = int(self._node.get_clock().now().nanoseconds)
        stamp_ns = received_ns if kind is String else self._stamp(topic, raw, received_ns)
        return RawMessage(topic, kind_of(kind), raw, stamp_ns, received_ns)

    def _stamp(self, topic: str, raw: bytes, received_ns: int) -> int:
        """Return the sensor's stamp; the time of arrival for a driver that leaves it empty, logged once."""
        stamp = header_stamp_ns(raw)
        if stamp:
            return stamp
        if topic not in self._unstamped:
            self._unstamped.add(topic)
            self._node.get_logger().warning(f"{topic} has no header stamp: its time of arrival is used")
        return received_ns

    def _image(self, camera: str, arrival: RawMessage) -> None:
        self._buffer.put_image(camera, arrival)
        self._news()

    def _joints(self, arrival: RawMessage) -> None:
        message = deserialize_message(arrival.raw, JointState)
        self._buffer.put_joints(arrival, message.name, message.position)
        self._news()

    def _vector(self, kind: type, convert: Callable[[Any], Any], arrival: RawMessage) -> None:
        self._buffer.put_vector(arrival, convert(deserialize_message(arrival.raw, kind)))
        self._news()

    def _text_message(self, act: OnText, arrival: RawMessage, published_ns: int) -> None:
        self._recorder_hook.received(arrival)
        act(deserialize_message(arrival.raw, String).data, published_ns)

    def destroy(self) -> None:
        """Destroy all subscriptions."""
        for subscription in (each for there in self._subscriptions.values() for each in there):
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
