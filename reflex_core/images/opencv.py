# SPDX-License-Identifier: Apache-2.0
"""OpenCV as `cv2`, or None: a ROS install has it, the wheel of pure Python only with the extra `opencv`."""

from __future__ import annotations

from typing import Any

from reflex_core.errors import ObservationError

cv2: Any
try:
    import cv2
except ModuleNotFoundError:  # a damaged OpenCV raises another ImportError, which says what it lacks
    cv2 = None
else:
    # a request has a worker thread of its own: OpenCV's threads on top would only wake each other for the rows of a small image
    cv2.setNumThreads(1)


def lacking(image: str) -> ObservationError:
    """Make the error for an image that OpenCV alone can read; image: `a bayer_rggb8 image`."""
    return ObservationError(
        f"{image} needs OpenCV, which is not installed here: send rgb8, or pip install opencv-python-headless",
        "bad-image",
    )
