# SPDX-License-Identifier: Apache-2.0
"""ROS messages of the simulated robot, with the faults that a real driver can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header

SENSOR_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
CAMERA_FRAME = "camera"
JPEG_QUALITY = 90
CHANNELS = {"rgb8": 3, "bgr8": 3, "mono8": 1, "rgba8": 4}
CONVERSIONS = {"bgr8": cv2.COLOR_RGB2BGR, "mono8": cv2.COLOR_RGB2GRAY, "rgba8": cv2.COLOR_RGB2RGBA}


@dataclass(frozen=True)
class Frame:
    """One camera image: uint8 [height, width, 3] RGB and the time of the state that it shows."""

    pixels: NDArray[np.uint8]
    stamp: Time


def image_message(frame: Frame, encoding: str = "rgb8", row_padding: int = 0) -> Image:
    """Return a raw image in one of CHANNELS' encodings; each row is followed by `row_padding` bytes of 0xff."""
    height, width = frame.pixels.shape[:2]
    step = width * CHANNELS[encoding] + row_padding
    message = Image(
        header=Header(stamp=frame.stamp, frame_id=CAMERA_FRAME),
        height=height,
        width=width,
        encoding=encoding,
        step=step,
    )
    pixels: NDArray[np.uint8] = (
        frame.pixels if encoding == "rgb8" else cv2.cvtColor(frame.pixels, CONVERSIONS[encoding])
    )
    if row_padding:
        padded = np.full((height, step), 0xFF, dtype=np.uint8)
        padded[:, : step - row_padding] = pixels.reshape(height, -1)
        pixels = padded
    # In place: the setter of `data` looks at every byte, which costs up to 79 ms per VGA image.
    message.data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))
    return message


def compressed_message(frame: Frame) -> CompressedImage:
    """Return the image as JPEG, with the format string of image_transport's compressed plugin."""
    message = CompressedImage(
        header=Header(stamp=frame.stamp, frame_id=CAMERA_FRAME), format="rgb8; jpeg compressed bgr8"
    )
    message.data.frombytes(simplejpeg.encode_jpeg(frame.pixels, quality=JPEG_QUALITY, colorspace="RGB"))
    return message


def joint_state_message(
    stamp: Time,
    names: Sequence[str],
    positions_rad: NDArray[np.float64],
    velocities_rad_s: NDArray[np.float64],
    *,
    order_reversed: bool = False,
    names_wrong: bool = False,
) -> JointState:
    """Return positions in rad and velocities in rad/s; reversed order is allowed by ROS, wrong names are a fault."""
    order = slice(None, None, -1) if order_reversed else slice(None)
    shown = [f"wrong_{name}" for name in names] if names_wrong else list(names)
    message = JointState(header=Header(stamp=stamp), name=shown[order])
    message.position.frombytes(positions_rad[order].astype(np.float64).tobytes())
    message.velocity.frombytes(velocities_rad_s[order].astype(np.float64).tobytes())
    return message
