# SPDX-License-Identifier: Apache-2.0
"""Make thumbnails of the frames that inference consumed."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from typing import Any

from reflex_core.errors import ObservationError
from reflex_core.images.thumbnail import thumbnail
from reflex_core.values import Frame

LONGEST_SIDE = 480

log = logging.getLogger(__name__)


def thumbnails(frames: Mapping[str, Frame]) -> list[dict[str, Any]]:
    """Return `camera`, `width`, `height` and base64 `jpeg` of each frame; `problem` instead where it cannot be shown."""
    return [_document(camera, frame) for camera, frame in frames.items()]


def _document(camera: str, frame: Frame) -> dict[str, Any]:
    try:
        jpeg = thumbnail(frame, LONGEST_SIDE)
    except ObservationError as error:
        return {"camera": camera, "problem": str(error)}
    except Exception:
        log.exception("no thumbnail of camera '%.60s'", camera)
        return {"camera": camera, "problem": "no thumbnail; the log has the reason"}
    return {"camera": camera, "jpeg": base64.b64encode(jpeg).decode("ascii"), "bytes": len(jpeg)}
