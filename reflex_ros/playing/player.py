# SPDX-License-Identifier: Apache-2.0
"""Publish a recording's moments on time. It creates publishers of sensor messages and texts only."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage

from reflex_core.errors import ConfigurationError
from reflex_core.records.trace.parse import TraceError
from reflex_ros.graph.dds_profile import take_profile
from reflex_ros.graph.neighbours import require_alone, require_nothing_driven
from reflex_ros.graph.qos import LATCHED
from reflex_ros.graph.topics import COMPRESSED, compressed_topic
from reflex_ros.messages.raw import header_stamp_ns
from reflex_ros.messages.stamps import stamp_ns, time_msg
from reflex_ros.playing.pace import Pace
from reflex_ros.playing.recording import Moment, Offer

if TYPE_CHECKING:
    from rclpy.publisher import Publisher

NODE_NAME = "reflex_replay"
SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)  # fits listeners of either reliability
CLOCK = Offer("/clock", Clock, "/clock")
TICK_S = 0.01
POLL_S = 0.02
DISCOVERY_S = 2.0  # until other programs on the same topics are known, also on a busy machine
WATCH_S = 1.0  # how often they are looked for while it plays
SETTLE_S = 0.3  # until they know of us too: what comes before is lost to a listener that is best effort
FAREWELL_S = 1.0


@dataclass(slots=True)
class Played:
    """What has been published. late_ms: at worst, against the recorded pace."""

    observations: int = 0
    messages: int = 0
    seconds: float = 0.0
    recorded_s: float = 0.0
    late_ms: float = 0.0


@contextmanager
def playing_node(ros_args: Sequence[str]) -> Iterator[Node]:
    """Create a node for the played topics alone; Ctrl-C is left to the program."""
    context = rclpy.Context()
    take_profile()
    rclpy.init(args=list(ros_args), context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Node(NODE_NAME, context=context, start_parameter_services=False, enable_rosout=False)
        try:
            yield node
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)


class Player:
    """A player on the topics of `offers`.

    clock: the recorded stamps stay, and /clock shows the recorded time. with_controller: what the recording drives may
    move something.
    """

    def __init__(
        self,
        node: Node,
        offers: Sequence[Offer],
        *,
        rate: float = 1.0,
        clock: bool = False,
        with_controller: bool = False,
    ) -> None:
        self._node, self._clock, self._with_controller = node, clock, with_controller
        self._pace = Pace(rate)
        self._watch_at_s = 0.0
        self._publishers: dict[Offer, Publisher] = {}
        sensors = [offer for offer in offers if not offer.words]
        self._required = [*sensors, CLOCK] if clock else sensors
        self._streams = {offer.stream for offer in sensors}
        for offer in (*offers, *self._required):
            self._publisher(offer)
        self.played = Played()

    def wait(self, patience_s: float) -> list[str]:
        """Wait until every stream has a subscriber. Return those without one, where another stream has one.

        Raises ConfigurationError if no stream has a subscriber, if another program publishes the same sensors, or if a
        subscriber commands something that may move.
        """
        began_s = time.monotonic()
        while (waited_s := time.monotonic() - began_s) < max(patience_s, DISCOVERY_S):
            if waited_s >= DISCOVERY_S and not self.unheard():
                break
            time.sleep(POLL_S)
        self._require_no_conflict()
        unheard = self.unheard()
        if len([stream for stream in unheard if stream != CLOCK.stream]) == len(self._streams):
            topics = ", ".join(self._publishers[offer].topic_name for offer in self._required)
            raise ConfigurationError(
                f"no node subscribed to {topics} within {patience_s:g} s: start the node (`reflex serve EXPORT`) with"
                " the same ROS_DOMAIN_ID and namespace"
            )
        if CLOCK.stream in unheard:
            raise ConfigurationError(
                f"no node subscribed to /clock within {patience_s:g} s: start the node with"
                " `--ros-args -p use_sim_time:=true`, or leave --clock out"
            )
        time.sleep(SETTLE_S)
        return unheard

    def unheard(self) -> list[str]:
        """Return the streams without a subscriber on any of their topics."""
        heard = {offer.stream for offer in self._required if self._listeners(offer)}
        return list(dict.fromkeys(offer.stream for offer in self._required if offer.stream not in heard))

    def play(self, moments: Iterator[Moment], progress: Callable[[Played], None]) -> None:
        """Publish every moment when it is due. `progress` is called after each.

        Raises ConfigurationError once a node joins for which `wait` would have refused to begin.
        """
        began_s: float | None = None
        for moment in moments:
            # pictures are decoded before they are due, and only for topics with subscribers
            ready = [
                (self._publisher(each.offer), each.offer, each.make())
                for each in moment.messages
                if each.offer.words or self._listeners(each.offer)
            ]
            began_s = time.monotonic() if began_s is None else began_s
            due_s = began_s + self._pace.due_s(moment.time_ns)
            self._sleep_until(due_s)
            shift_ns = 0 if self._clock else time.time_ns() - moment.time_ns
            for publisher, offer, message in ready:
                publisher.publish(message if offer.words else shifted(message, shift_ns))
            self._count(moment, len(ready), began_s, due_s)
            progress(self.played)
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=FAREWELL_S))

    def _count(self, moment: Moment, messages: int, began_s: float, due_s: float) -> None:
        played, now_s = self.played, time.monotonic()
        played.observations += moment.observations
        played.messages += messages
        played.seconds, played.recorded_s = now_s - began_s, self._pace.elapsed_s
        played.late_ms = max(played.late_ms, (now_s - due_s) * 1e3)

    def _sleep_until(self, due_s: float) -> None:
        if self._clock:
            self._tick_until(due_s)
            return
        while True:
            self._watch()
            left_s = due_s - time.monotonic()
            if left_s <= 0.0:
                return
            time.sleep(min(left_s, WATCH_S))

    def _tick_until(self, due_s: float) -> None:
        publisher = self._publisher(CLOCK)
        while True:
            self._watch()
            left_s = due_s - time.monotonic()
            publisher.publish(Clock(clock=time_msg(self._pace.clock_ns(left_s))))
            if left_s <= 0.0:
                return
            time.sleep(min(left_s, TICK_S))

    def _listeners(self, offer: Offer) -> int:
        return int(self._publisher(offer).get_subscription_count())

    def _publisher(self, offer: Offer) -> Publisher:
        found = self._publishers.get(offer)
        if found is None:
            try:
                found = self._node.create_publisher(
                    offer.kind, self._topic(offer), LATCHED if offer.words else SENSOR
                )
            except InvalidTopicNameException as error:
                message = " ".join(str(error).split())
                raise TraceError(f"{offer.stream}: its topic cannot be published: {message[:200]}") from error
            self._publishers[offer] = found
        return found

    def _topic(self, offer: Offer) -> str:
        """Return the topic that the node subscribes to under the same remappings."""
        if offer.kind is CompressedImage and offer.topic.endswith(COMPRESSED):
            return compressed_topic(self._node, offer.topic.removesuffix(COMPRESSED))
        return offer.topic

    def _watch(self) -> None:
        """Check the graph once a second."""
        now_s = time.monotonic()
        if now_s >= self._watch_at_s:
            self._watch_at_s = now_s + WATCH_S
            self._require_no_conflict()

    def _require_no_conflict(self) -> None:
        require_alone(self._node, [self._publishers[offer].topic_name for offer in self._required])
        if not self._with_controller:
            sensors = [
                publisher.topic_name for offer, publisher in self._publishers.items() if not offer.words
            ]
            require_nothing_driven(self._node, sensors)


def shifted(message: Any, shift_ns: int) -> Any:
    """Return a sensor message, or its CDR bytes, with its header stamp moved. A stamp of 0 stays: the sensor gave none."""
    if shift_ns == 0:
        return message
    if isinstance(message, bytes):
        return _shifted_bytes(message, shift_ns)
    before_ns = stamp_ns(message.header.stamp)
    if before_ns:
        message.header.stamp = time_msg(before_ns + shift_ns)
    return message


def _shifted_bytes(raw: bytes, shift_ns: int) -> bytes:
    before_ns = header_stamp_ns(raw)
    if before_ns == 0:
        return raw
    changed = bytearray(raw)
    struct.pack_into("<iI" if raw[1] & 1 else ">iI", changed, 4, *divmod(before_ns + shift_ns, 1_000_000_000))
    return bytes(changed)
