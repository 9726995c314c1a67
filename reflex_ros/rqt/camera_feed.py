# SPDX-License-Identifier: Apache-2.0
"""The pictures of the node's cameras, decoded in a thread of their own at a bounded rate, and received only while shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_full_topic_name import validate_full_topic_name
from sensor_msgs.msg import CompressedImage, Image

from reflex_core.errors import ObservationError
from reflex_core.images.raw_encodings import rgb
from reflex_core.images.scaling import area_averaged
from reflex_core.text.untrusted import escaped
from reflex_core.values import Pixels
from reflex_ros.graph.qos import SENSOR
from reflex_ros.graph.topics import COMPRESSED
from reflex_ros.messages.images import frame
from reflex_ros.messages.raw import COMPRESSED_IMAGE, RawMessage, kind_of
from reflex_ros.rqt.board import Board
from reflex_ros.rqt.panel_view import Picture

PERIOD_S = 0.1  # between two pictures of a camera that are decoded
LONGEST_SIDE = 640
MOST_CAMERAS = 4


class CameraFeed:
    """Subscriptions to cameras and the thread that decodes. `follow` and `update` are for the ROS thread, `show` for any."""

    def __init__(self, node: Any, board: Board) -> None:
        self._node, self._board = node, board
        self._topics: dict[str, str] = {}
        self._shown = False
        self._subscriptions: dict[str, Any] = {}
        self._newest: dict[str, RawMessage] = {}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, shown: bool) -> None:
        """Receive pictures from now on, or none. Takes effect at the next `update`."""
        self._shown = shown

    def follow(self, topics: Mapping[str, str]) -> None:
        """Take the topics of the cameras, by name."""
        self._topics = dict(sorted(topics.items())[:MOST_CAMERAS])
        self.update()

    def update(self) -> None:
        """Subscribe to what is to be shown, with the type that is published, and to nothing else."""
        wanted = self._topics if self._shown and not self._closing.is_set() else {}
        for camera, subscription in list(self._subscriptions.items()):
            topic = wanted.get(camera, "")
            if topic != subscription.topic_name or self._kind(topic) is not subscription.msg_type:
                self._node.destroy_subscription(self._subscriptions.pop(camera))
                with self._changed:
                    self._newest.pop(camera, None)
        for camera, topic in wanted.items():
            if camera not in self._subscriptions:
                self._subscribe(camera, topic)

    @property
    def receiving(self) -> tuple[str, ...]:
        """Return the cameras that are subscribed to now."""
        return tuple(self._subscriptions)

    def close(self) -> None:
        """End the thread; the node destroys the subscriptions with itself."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(2.0)

    def _kind(self, topic: str) -> Any:
        """Return the message type that is published on a topic; by its name where nothing is."""
        published = {info.topic_type for info in self._node.get_publishers_info_by_topic(topic)}
        if kind_of(Image) in published:
            return Image
        if COMPRESSED_IMAGE in published or topic.endswith(COMPRESSED):
            return CompressedImage
        return Image

    def _subscribe(self, camera: str, topic: str) -> None:
        try:
            validate_full_topic_name(topic)
        except InvalidTopicNameException:
            problem = f"{escaped(topic)} is no name of a topic"
            self._board.picture(Picture(camera, None, time.monotonic(), problem))
            return
        kind = self._kind(topic)
        self._subscriptions[camera] = self._node.create_subscription(
            kind,
            topic,
            lambda raw: self._received(camera, RawMessage(topic, kind_of(kind), raw, 0, 0)),
            SENSOR,
            raw=True,
        )
        if self._thread is None:
            self._thread = threading.Thread(target=self._decode, name="reflex panel cameras", daemon=True)
            self._thread.start()

    def _received(self, camera: str, arrival: RawMessage) -> None:
        with self._changed:
            self._newest[camera] = arrival
            self._changed.notify()

    def _decode(self) -> None:
        while not self._closing.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._closing.is_set())
                newest, self._newest = self._newest, {}
            for camera, arrival in newest.items():
                self._board.picture(picture_of(camera, arrival, time.monotonic()))
            self._closing.wait(PERIOD_S)


def picture_of(camera: str, arrival: RawMessage, now_s: float) -> Picture:
    """Return the picture of a message, at most LONGEST_SIDE on a side; with the problem where it has none."""
    try:
        return Picture(camera, _reduced(rgb(frame(arrival))), now_s)
    except ObservationError as error:
        return Picture(camera, None, now_s, escaped(str(error), 200))
    except Exception as error:  # a decoder's own, of bytes that a stranger sent: the panel goes on
        return Picture(camera, None, now_s, escaped(f"{type(error).__name__}: {error}", 200))


def _reduced(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1.0:
        pixels = area_averaged(
            np.ascontiguousarray(pixels), max(round(height * scale), 1), max(round(width * scale), 1)
        )
    return np.ascontiguousarray(pixels)
