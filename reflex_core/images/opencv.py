# SPDX-License-Identifier: Apache-2.0
"""OpenCV, or None: a ROS install has it, the wheel of pure Python only with the extra `opencv`.

It is imported when the first picture needs it, as it takes 17 MB; `engine.warm_up` does so before a robot's first request.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

from reflex_core.errors import ConfigurationError, ObservationError

# in the middle of its import sys.modules has two modules of this name, one after the other
_importing = threading.Lock()
_imported: list[Any] = []  # cv2, or None where there is none; nothing before the first call


def opencv() -> Any:
    """Import `cv2` the first time and return it; None where it is not installed. Raises ConfigurationError for a damaged one."""
    if _imported:
        return _imported[0]
    with _importing:
        if not _imported:
            _imported.append(_import())
    return _imported[0]


def opencv_if_imported() -> Any:
    """Return `cv2` where `opencv` was called before and found it, else None; for work that is as quick without it."""
    return _imported[0] if _imported else None


def _import() -> Any:
    try:
        cv2 = importlib.import_module("cv2")
        # a request has a worker thread of its own: OpenCV's threads on top would only wake each other for the rows of a small image
        cv2.setNumThreads(1)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
            return None
        # it is there, and a part of it or a library that it needs is not
        raise ConfigurationError(
            f"OpenCV is installed and cannot be imported ({error}): pip install --force-reinstall opencv-python-headless,"
            " or uninstall it"
        ) from error
    return cv2


def lacking(image: str) -> ObservationError:
    """Make the error for an image that OpenCV alone can read; image: `a bayer_rggb8 image`."""
    return ObservationError(
        f"{image} needs OpenCV, which is not installed here: send rgb8, or pip install opencv-python-headless",
        "bad-image",
    )
