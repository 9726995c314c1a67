# SPDX-License-Identifier: Apache-2.0
"""Pixels are read in place from the bytes that DDS delivers."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from bags import CAMERA, COMPRESSED, arrival, compressed, header, image, joints
from recordings import jpeg, picture
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image

from reflex_core.errors import ObservationError
from reflex_core.images.raw_encodings import rgb
from reflex_ros.messages.images import frame
from reflex_ros.messages.raw import RawMessage, header_stamp_ns, image_frame, string_data
from reflex_ros.messages.stamps import stamp_ns


@pytest.mark.parametrize("frame_id", ["", "a", "cam", "camera_optical_frame"])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_an_image_is_read_wherever_its_fields_lie(frame_id: str, encoding: str) -> None:
    channels = 1 if encoding == "mono8" else 3
    message = Image(header=header(3), height=5, width=7, encoding=encoding, step=7 * channels + 2)
    message.header.frame_id = frame_id
    message.data.frombytes(bytes(range(5 * message.step)))
    arrived = arrival(CAMERA, message, 3)
    found = image_frame(arrived)
    assert (found.height, found.width, found.step, found.encoding) == (5, 7, message.step, encoding)
    assert bytes(found.data) == message.data.tobytes()
    assert found.data.obj is arrived.raw, "not a byte was copied"
    assert header_stamp_ns(arrived.raw) == stamp_ns(message.header.stamp)


def test_a_compressed_image_is_the_file_that_was_sent() -> None:
    found = image_frame(arrival(COMPRESSED, compressed(1, jpeg(48)), 1))
    assert (bytes(found.data), found.encoding, found.height, found.width) == (jpeg(48), "jpeg", 48, 48)


def test_a_bayer_image_is_read_as_opencv_reads_it() -> None:
    message = Image(header=header(1), height=8, width=8, encoding="bayer_rggb8", step=8)
    message.data.frombytes(picture(8)[:, :, 0].tobytes())
    assert rgb(frame(arrival(CAMERA, message, 1))).shape == (8, 8, 3)


def test_a_big_endian_sender_is_understood() -> None:
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](12, 34)
    data = np.arange(24, dtype=np.uint8)
    message = types["sensor_msgs/msg/Image"](
        types["std_msgs/msg/Header"](stamp, "abc"), 2, 4, "rgb8", 0, 12, data
    )
    raw = bytes(store.serialize_cdr(message, "sensor_msgs/msg/Image", little_endian=False))
    assert raw[1] == 0
    found = image_frame(RawMessage(CAMERA, "sensor_msgs/msg/Image", raw, 0, 0))
    assert (found.height, found.width, found.step, bytes(found.data)) == (2, 4, 12, data.tobytes())
    assert header_stamp_ns(raw) == 12_000_000_034


@pytest.mark.parametrize("kind", ["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"])
def test_a_damaged_message_is_refused_in_one_sentence(kind: str) -> None:
    whole = {
        "sensor_msgs/msg/Image": arrival(CAMERA, image(1), 1).raw,
        "sensor_msgs/msg/CompressedImage": arrival(CAMERA, compressed(1, jpeg()), 1).raw,
    }[kind]
    for length in range(4, len(whole), max(1, len(whole) // 60)):
        with pytest.raises(ObservationError):
            image_frame(RawMessage(CAMERA, kind, whole[:length], 0, 0))
    with pytest.raises(ObservationError, match="no sensor_msgs/msg/"):
        image_frame(RawMessage(CAMERA, kind, arrival(CAMERA, joints(1), 1).raw[:40], 0, 0))
    with pytest.raises(ValueError, match="no std_msgs/msg/String"):
        string_data(whole[:4] + struct.pack("<I", 1 << 30))
