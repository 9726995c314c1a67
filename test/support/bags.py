# SPDX-License-Identifier: Apache-2.0
"""Bags to write and to read in tests: real messages as they would arrive, and whatever a bag says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from recordings import picture, served
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header

from reflex_core.records.trace.schema import Session
from reflex_core.values import Observation, Request
from reflex_ros.bag.topic_types import definitions, qos, serialised
from reflex_ros.bag.writer import BagRecorder
from reflex_ros.messages.raw import Consumed, RawMessage, image_frame, kind_of

CAMERA, COMPRESSED, JOINTS, TRACE = "/camera/image_raw", "/wrist/compressed", "/joint_states", "/reflex/trace"
SESSION = Session(model_hash="0123456789abcdef", config_hash="fedc", export_dir="/exports/pi0")
STORE = definitions()
START_NS = 1_700_000_000_000_000_000


def offered(topic: str) -> Sequence[Qos]:
    reliability = ReliabilityPolicy.BEST_EFFORT if topic == CAMERA else ReliabilityPolicy.RELIABLE
    return [qos(QoSProfile(depth=1, reliability=reliability))]


def arrival(topic: str, message: Any, number: int) -> RawMessage:
    """A message as a subscription hands it over, received `number` periods of 20 ms after the start."""
    time_ns = START_NS + number * 20_000_000
    return RawMessage(
        topic,
        kind_of(type(message)),
        serialised(message, kind_of(type(message)), STORE),
        time_ns - 1_000_000,
        time_ns,
    )


def header(number: int) -> Header:
    seconds, nanoseconds = divmod(START_NS + number * 20_000_000 - 1_000_000, 1_000_000_000)
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id="optical")


def image(number: int, size: int = 32) -> Image:
    message = Image(header=header(number), height=size, width=size, encoding="bgr8", step=3 * size)
    message.data.frombytes(picture(size, number).tobytes())
    return message


def compressed(number: int, data: bytes) -> CompressedImage:
    message = CompressedImage(header=header(number), format="jpeg")
    message.data.frombytes(data)
    return message


def joints(number: int) -> JointState:
    return JointState(header=header(number), name=["a", "b"], position=[number * 0.5, 1.0])


@lru_cache(maxsize=64)
def arrivals(number: int, size: int = 32) -> tuple[RawMessage, RawMessage]:
    """Camera and joints. Kept: what pads CDR is whatever the memory held, so no second call gives the same bytes."""
    return arrival(CAMERA, image(number, size), number), arrival(JOINTS, joints(number), number)


def inference(recorder: BagRecorder, number: int, size: int = 32) -> Request:
    """One inference of a camera and the joints, recorded."""
    camera, state = arrivals(number, size)
    vector = np.array([number * 0.5, 1.0], dtype=np.float32)
    observation = Observation({"base": image_frame(camera)}, vector, "pick up the red cup", camera.stamp_ns)
    request = Request(observation, 0, f"r-{number}", "ep-1")
    recorder.answered(request, served(request), Consumed({"base": camera}, [state]))
    return request


def recorder(directory: Path, storage: str, **options: Any) -> BagRecorder:
    numbers = iter(range(1 << 30))
    clock = lambda: START_NS + next(numbers) * 20_000_000 + 10_000_000  # noqa: E731
    return BagRecorder(
        directory, SESSION, TRACE, clock, offered, **{"storage": storage, "flush_interval_s": 0.01} | options
    )


def messages(path: Path) -> list[tuple[str, int, Any]]:
    """Every message of a bag (topic, log time, message), decoded by the definitions inside the bag alone."""
    with AnyReader([path], default_typestore=None) as reader:
        assert all(connection.msgdef.data for connection in reader.connections)
        found = [(c.topic, time, reader.deserialize(raw, c.msgtype)) for c, time, raw in reader.messages()]
        assert len(found) == reader.message_count
        assert len(found) == sum(connection.msgcount for connection in reader.connections)
        return found


def bags(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir())
