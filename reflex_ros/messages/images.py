# SPDX-License-Identifier: Apache-2.0
"""Convert image messages to frames without copying; pixels are decoded later and only where needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from reflex_core.errors import ObservationError
from reflex_core.images.file_kind import MAX_PIXELS
from reflex_core.images.raw_encodings import needs_conversion
from reflex_core.text.untrusted import escaped
from reflex_core.values import Frame, Pixels
from reflex_ros.messages.raw import RawMessage, image_frame


def frame(arrival: RawMessage, max_pixels: int = MAX_PIXELS) -> Frame:
    """Return the message's pixels, not decoded and not copied. Raises ObservationError for an unknown compressed format."""
    found = image_frame(arrival, max_pixels)
    if found.decoder is not None or not needs_conversion(found.encoding):
        return found
    return replace(found, decoder=_cv_bridge_decoder(arrival, found.encoding))


def _cv_bridge_decoder(arrival: RawMessage, encoding: str) -> Callable[[Frame], Pixels] | None:
    """Return cv_bridge's decoder for Bayer and YUV where ROS brings the real one; None leaves it to OpenCV."""
    bridge = _cv_bridge()
    if bridge is None:
        return None

    def decode(_: Frame) -> Pixels:
        try:
            message = deserialize_message(arrival.raw, Image)
            return np.asarray(bridge.imgmsg_to_cv2(message, "rgb8"), dtype=np.uint8)
        except Exception as error:
            raise ObservationError(
                f"cv_bridge cannot read a {escaped(encoding, 40)} image: {escaped(str(error), 200)}",
                "bad-image",
            ) from error

    return decode


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    """Import cv_bridge of a ROS install. The PyPI package of that name gives wrong pixels and is not used."""
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix
    except ImportError:
        return None
    try:
        get_package_prefix("cv_bridge")
        from cv_bridge import CvBridge
    except (ImportError, PackageNotFoundError, LookupError):
        return None
    return CvBridge()
