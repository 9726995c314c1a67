# SPDX-License-Identifier: Apache-2.0
"""Play a trace as sensor messages: images and state of every request."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CompressedImage, Image, Imu, JointState

from reflex_core.errors import ObservationError
from reflex_core.images.raw_encodings import rgb
from reflex_core.records.trace.fields import image_mode, timestamp_ns
from reflex_core.records.trace.parse import Recorded, TraceError
from reflex_core.records.trace.schema import NONE
from reflex_core.replay.comparison import Source
from reflex_core.replay.recorded_images import ImageFiles, frames_of
from reflex_core.replay.runner import limited, require_images
from reflex_core.robot.presets import load_preset, preset_names
from reflex_core.values import Floats, Frame
from reflex_ros.messages.stamps import time_msg
from reflex_ros.playing.recording import WORDS_LAG_NS, WORDS_LEAD_NS, Moment, Offer, Outgoing, PublishedWords

BuildState = Callable[[Floats], Any]
FASTEST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


class TraceRecording:
    """The requests of a trace as moments, each at the stamp of its observation.

    joint_names: whose positions the states are; empty for those that the trace names. images: where the pictures of a
    hash_only trace are. Raises TraceError for a trace that has nothing to play.
    """

    def __init__(
        self,
        source: Source,
        path: Path,
        *,
        images: ImageFiles | None = None,
        joint_names: tuple[str, ...] = (),
        limit: int = 0,
    ) -> None:
        self._source, self._images = source, images
        self.left_out: list[str] = []
        records = limited(source, limit)
        first = next((record for record in records if self._has_something(record)), None)
        if first is None:
            raise TraceError(
                f"{path}: holds no request with a picture or a state, so there is nothing to publish"
            )
        self.first = first
        if first.images or image_mode(source.header) == NONE:
            require_images(source.header, path, has_files=images is not None)
        self._records = itertools.chain([first], records)
        self._published_words = PublishedWords()
        self._by_stamp = first.stamp_ns > 0
        self._state = state_builder(source.header, first, joint_names, path)

    @property
    def fraction(self) -> float:
        """The fraction of the trace that has been read, 0 to 1."""
        return self._source.fraction

    @property
    def offers(self) -> Sequence[Offer]:
        """The topics of the first request; a camera that comes later is offered when it comes."""
        offers = [offer for camera in self.first.images for offer in camera_offers(camera)]
        if self.first.state is not None:
            offers.append(self._state[0])
        return [*offers, *self._published_words.offers]

    def moments(self) -> Iterator[Moment]:
        """Yield every request, its state before its images, and instruction and episode where they change."""
        before_ns = 0
        for record in self._records:
            if not self._has_something(record):
                continue
            time_ns = self._time_ns(record, before_ns)
            try:
                messages = self._observation(record, time_ns)
            except (TraceError, ObservationError) as error:
                self.left_out.append(f"seq {record.seq}: {error}")
                continue
            words = self._published_words.missing(record)
            if words and not before_ns:
                yield Moment(time_ns - WORDS_LEAD_NS, words)
            yield Moment(time_ns, messages, observations=1)
            if words and before_ns:
                yield Moment(time_ns + WORDS_LAG_NS, words)
            before_ns = time_ns

    def _has_something(self, record: Recorded) -> bool:
        if record.images or record.state is not None:
            return True
        self.left_out.append(f"seq {record.seq}: has neither a picture nor a state")
        return False

    def _time_ns(self, record: Recorded, before_ns: int) -> int:
        """Return the observation's stamp; in a trace whose observations have none, when the request was written."""
        if self._by_stamp:
            return record.stamp_ns or before_ns
        return timestamp_ns(record.timestamp) or before_ns

    def _observation(self, record: Recorded, time_ns: int) -> tuple[Outgoing, ...]:
        frames = frames_of(record, self._images, "")
        messages = []
        if record.state is not None:
            offer, build = self._state
            state = build(record.state)
            state.header.stamp = time_msg(time_ns)
            messages.append(Outgoing(offer, lambda: state))
        for camera, frame in frames.items():
            raw, compressed = camera_offers(camera)
            messages.append(Outgoing(raw, partial(raw_image, frame, camera, time_ns)))
            messages.append(Outgoing(compressed, partial(compressed_image, frame, camera, time_ns)))
        return tuple(messages)


def camera_offers(camera: str) -> tuple[Offer, Offer]:
    """Return both topics of a camera: `image_raw` and its compressed twin."""
    topic, stream = f"{camera}/image_raw", f"camera '{camera}'"
    return Offer(topic, Image, stream), Offer(f"{topic}/compressed", CompressedImage, stream)


def raw_image(frame: Frame, camera: str, time_ns: int) -> Image:
    """Return the RGB pixels that the policy received. Raises ObservationError for a damaged image."""
    pixels = np.ascontiguousarray(rgb(frame))
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = array("B", pixels.tobytes())
    return _headed(message, camera, time_ns)


def compressed_image(frame: Frame, camera: str, time_ns: int) -> CompressedImage:
    """Return the recorded file; pixels that were recorded raw as a PNG, which is lossless."""
    data, kind = bytes(frame.data), frame.encoding
    if kind not in ("jpeg", "png"):
        bgr = cv2.cvtColor(np.ascontiguousarray(rgb(frame)), cv2.COLOR_RGB2BGR)
        data, kind = cv2.imencode(".png", bgr, FASTEST_PNG)[1].tobytes(), "png"
    return _headed(CompressedImage(format=kind, data=array("B", data)), camera, time_ns)


def _headed(message: Any, camera: str, time_ns: int) -> Any:
    message.header.stamp, message.header.frame_id = time_msg(time_ns), camera
    return message


def state_builder(
    header: Mapping[str, Any], first: Recorded, joint_names: tuple[str, ...], path: Path
) -> tuple[Offer, BuildState]:
    """Return the topic of the recorded node's state, and a function from a state to its message.

    Raises TraceError where nothing says which joints the states are of.
    """
    settings = header.get("settings")
    source = settings.get("state_source") if isinstance(settings, dict) else None
    if source == "imu":
        return Offer("imu/data", Imu, "the IMU"), _imu
    if source == "odometry":
        return Offer("odom", Odometry, "the odometry"), _odometry
    names = joint_names or _recorded_names(header, first)
    if first.state is not None and not names:
        raise TraceError(
            f"{path}: does not say which joints its {len(first.state)} states are of: name the robot with --embodiment"
            " or --custom-embodiment-config"
        )
    return Offer("joint_states", JointState, "the joints"), partial(_joints, names)


def _recorded_names(header: Mapping[str, Any], first: Recorded) -> tuple[str, ...]:
    """Return the first list of names in the header that is as long as the states are."""
    preset = header.get("embodiment")
    known = load_preset(str(preset)).joint_names if preset in preset_names() else ()
    length = 0 if first.state is None else len(first.state)
    for names in (header.get("state_names"), header.get("action_names"), known):
        if isinstance(names, (list, tuple)) and len(names) == length:
            return tuple(map(str, names))
    return ()


def _joints(names: tuple[str, ...], state: Floats) -> JointState:
    if len(state) != len(names):
        raise TraceError(f"its state has {len(state)} numbers, and the robot {len(names)} joints")
    return JointState(name=list(names), position=array("d", state.astype(np.float64).tobytes()))


def _imu(state: Floats) -> Imu:
    message, q = Imu(), _of_length(state, 4, "an orientation")
    message.orientation.x, message.orientation.y, message.orientation.z, message.orientation.w = q
    return message


def _odometry(state: Floats) -> Odometry:
    message, values = Odometry(), _of_length(state, 10, "an odometry")
    position, q, v = message.pose.pose.position, message.pose.pose.orientation, message.twist.twist.linear
    position.x, position.y, position.z = values[:3]
    q.x, q.y, q.z, q.w = values[3:7]
    v.x, v.y, v.z = values[7:]
    return message


def _of_length(state: Floats, length: int, what: str) -> list[float]:
    if len(state) != length:
        raise TraceError(f"its state has {len(state)} numbers, and {what} has {length}")
    return [float(value) for value in state]
