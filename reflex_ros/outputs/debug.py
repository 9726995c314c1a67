# SPDX-License-Identifier: Apache-2.0
"""~/debug/*_ms: three times per chunk as plain numbers, for rqt_plot and pipeline monitors; only while subscribed to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from std_msgs.msg import Float64

if TYPE_CHECKING:
    from rclpy.node import Node

NAMES = ("cyclic_time_ms", "processing_time_ms", "pipeline_latency_ms")


class DebugTopics:
    """One publisher per name. The names are those of Autoware's nodes, so that its monitors read them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publishers = {name: node.create_publisher(Float64, f"~/debug/{name}", 1) for name in NAMES}
        self._last_s: float | None = None

    def chunk(self, processing_ms: float, stamp_ns: int) -> None:
        """Publish the times of a chunk. processing_ms: receipt to finished chunk; stamp_ns: the oldest sensor stamp in it."""
        now_s = time.monotonic()
        last_s, self._last_s = self._last_s, now_s
        if last_s is not None:
            self._publish("cyclic_time_ms", (now_s - last_s) * 1e3)
        self._publish("processing_time_ms", processing_ms)
        now_ns = self._node.get_clock().now().nanoseconds
        self._publish("pipeline_latency_ms", (now_ns - stamp_ns) * 1e-6)

    def _publish(self, name: str, value: float) -> None:
        publisher = self._publishers[name]
        if publisher.get_subscription_count():
            publisher.publish(Float64(data=value))

    def pause(self) -> None:
        """End the cycle, as the node goes inactive: the time until the next chunk is not measured."""
        self._last_s = None

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
