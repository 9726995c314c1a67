# SPDX-License-Identifier: Apache-2.0
"""The ROS processes of benchmarks/camera_to_chunk.py: a camera that also hears the chunks, and a bare listener.

Each prints one line of JSON when it ends. Not meant to be started by hand.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import rclpy
import simplejpeg
from rclpy.executors import SingleThreadedExecutor
from reflex_ros.msg import ActionChunk
from sensor_msgs.msg import CompressedImage, Image, JointState

from benchmarks.measure import milliseconds
from benchmarks.server import picture
from reflex_ros.messages.stamps import stamp_ns, time_msg
from reflex_ros.node.subscriptions import SENSOR

JOINTS = [f"panda_joint{number}" for number in range(1, 8)]
HOME_RAD = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]
CAMERA_HZ, JOINTS_HZ = 30.0, 100.0
PATIENCE_S = 40.0
SETTLE_S = 0.5  # what was sent before a size change may still be on its way

Size = tuple[int, int]


def topic(transport: str) -> str:
    """The camera topic that the node subscribes to."""
    return "camera/image_raw" + ("/compressed" if transport == "compressed" else "")


class Camera:
    """Publishes one size after the other at 30 Hz, joints at 100 Hz, and notes when chunks come back."""

    def __init__(self, transport: str) -> None:
        self._node = rclpy.create_node("benchmark_camera")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._compressed = transport == "compressed"
        kind = CompressedImage if self._compressed else Image
        self._images = self._node.create_publisher(kind, topic(transport), SENSOR)
        self._joints = self._node.create_publisher(JointState, "joint_states", SENSOR)
        self._node.create_subscription(ActionChunk, "reflex/action_chunk", self._heard, 10)
        self._node.create_timer(1 / CAMERA_HZ, self._shoot)
        self._node.create_timer(1 / JOINTS_HZ, self._measure_joints)
        self._pixels = self._jpeg = None
        self._size: Size = (0, 0)
        self._sent = 0
        self._publish_ms: list[float] = []
        self._chunks: list[tuple[float, float, float]] = []

    def _shoot(self) -> None:
        if self._pixels is None:
            return
        now_ns = time.time_ns()
        self._publish_ms.append(milliseconds(lambda: self._images.publish(self._message(now_ns))))
        self._sent += 1

    def _message(self, now_ns: int) -> Any:
        if self._compressed:
            message = CompressedImage(format="jpeg", data=self._jpeg)
        else:
            height, width = self._size
            message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
            message.data.frombytes(memoryview(self._pixels).cast("B"))
        message.header.stamp = time_msg(now_ns)
        return message

    def _measure_joints(self) -> None:
        message = JointState(name=JOINTS, position=HOME_RAD)
        message.header.stamp = time_msg(time.time_ns())
        self._joints.publish(message)

    def _heard(self, chunk: ActionChunk) -> None:
        since_stamp_ms = (time.time_ns() - stamp_ns(chunk.header.stamp)) * 1e-6
        self._chunks.append((since_stamp_ms, chunk.observation_age_ms, chunk.latency_ms))

    def run(self, sizes: Sequence[Size], seconds: float, expects_chunks: bool) -> list[dict[str, object]]:
        """One entry per size. Raises RuntimeError when nobody listens, or no chunk comes."""
        self._until(lambda: self._images.get_subscription_count() > 0, "a subscriber of the camera")
        found = []
        for size in sizes:
            self._size = size
            self._pixels = picture(*size)
            self._jpeg = array("B", jpeg(self._pixels))
            if expects_chunks:
                self._chunks.clear()
                self._until(lambda: len(self._chunks) > 2, "chunks")
            self._sent = 0
            self._publish_ms.clear(), self._chunks.clear()
            self._spin(seconds)
            self._pixels = None
            found.append(
                {
                    "size": size,
                    "sent": self._sent,
                    "publish_ms": list(self._publish_ms),
                    "chunks": list(self._chunks),
                }
            )
            self._spin(SETTLE_S)
        return found

    def _spin(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.05)

    def _until(self, condition: Any, what: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end_s:
                raise RuntimeError(f"waited {PATIENCE_S:.0f} s for {what} in vain")
            self._executor.spin_once(timeout_sec=0.05)


def listen(transport: str, sizes: Sequence[Size]) -> list[dict[str, object]]:
    """Transport times of the images until the camera has gone; one entry per size."""
    node = rclpy.create_node("benchmark_listener")
    by_length: dict[int, list[float]] = {}  # two sizes never have messages of the same length

    def heard(message: Any) -> None:
        took_ms = (time.time_ns() - stamp_ns(message.header.stamp)) * 1e-6
        by_length.setdefault(len(message.data), []).append(took_ms)

    kind = CompressedImage if transport == "compressed" else Image
    subscription = node.create_subscription(kind, topic(transport), heard, SENSOR)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end_s = time.monotonic() + PATIENCE_S
    seen = False
    while time.monotonic() < end_s:
        executor.spin_once(timeout_sec=0.05)
        present = subscription.get_publisher_count() > 0
        if seen and not present:
            break
        seen = seen or present
    return [
        {"size": size, "arrivals_ms": by_length.get(message_bytes(transport, size), [])} for size in sizes
    ]


def message_bytes(transport: str, size: Size) -> int:
    """Length of the data of the camera's message."""
    return len(jpeg(picture(*size))) if transport == "compressed" else 3 * size[0] * size[1]


def jpeg(pixels: np.ndarray) -> bytes:
    """Quality 85, as camera drivers send it."""
    return bytes(simplejpeg.encode_jpeg(pixels, quality=85, colorspace="RGB"))


def main(argv: Sequence[str] | None = None) -> int:
    """`camera|listener` and a JSON object of options."""
    role, text = list(sys.argv[1:] if argv is None else argv)
    options = json.loads(text)
    sizes = [(int(height), int(width)) for height, width in options["sizes"]]
    rclpy.init(args=[])
    if role == "listener":
        found = listen(options["transport"], sizes)
    else:
        found = Camera(options["transport"]).run(sizes, options["seconds"], options["expects_chunks"])
    print(json.dumps(found), flush=True)
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
