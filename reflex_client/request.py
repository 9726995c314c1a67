# SPDX-License-Identifier: Apache-2.0
"""Observations as the fields of a request: checked before anything is sent."""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Callable, Mapping, Union

import numpy as np

from reflex_client.errors import InvalidObservationError

Image = Union["np.ndarray[Any, Any]", bytes, str]
Images = Union[Image, Mapping[str, Image], None]
JPEG_QUALITY = 95
FILES = ((b"\xff\xd8", "JPEG"), (b"\x89PNG", "PNG"))
_CHANNELS = {1: "mono8", 3: "rgb8", 4: "rgba8"}


def fields_of(
    images: Images, state: Any, instruction: str, jpeg_quality: int | None = JPEG_QUALITY, **others: Any
) -> dict[str, Any]:
    """Return the fields of a request; those of `others` that are None are left out.

    images: one image of the robot's first camera, or by camera name; each uint8 (height, width, 3) RGB, (height, width) or
    (height, width, 4), the bytes of a JPEG or PNG file, or such bytes in base64. jpeg_quality: of pixels that are encoded,
    where cv2 or Pillow is installed; None: they are sent as they are. state: numbers in rad and m, as the server's
    `/config` orders them, or None. Raises InvalidObservationError.
    """
    if not isinstance(instruction, str):
        raise InvalidObservationError(f"instruction must be a string, got {type(instruction).__name__}")
    fields: dict[str, Any] = {"instruction": instruction}
    if isinstance(images, Mapping):
        fields["images"] = {
            _name(camera): image_of(image, str(camera), jpeg_quality) for camera, image in images.items()
        }
    elif images is not None:
        fields["image"] = image_of(images, "image", jpeg_quality)
    if state is not None:
        fields["state"] = state_of(state)
    fields.update({name: value for name, value in others.items() if value is not None})
    return fields


def encoded(fields: Mapping[str, Any]) -> bytes:
    """Return the body. Raises InvalidObservationError for what JSON does not have, NaN among it."""
    try:
        return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidObservationError(f"the request cannot be written as JSON: {error}") from error


def state_of(state: Any) -> Any:
    """Return the state as a list of finite numbers. Raises InvalidObservationError naming the first that is not."""
    try:
        numbers = np.asarray(state, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidObservationError(f"state must hold only numbers: {error}", "bad-state") from error
    if numbers.ndim != 1:
        raise InvalidObservationError(
            f"state must be one row of numbers, got the shape {numbers.shape}", "bad-state"
        )
    for index, number in enumerate(numbers.tolist()):
        if not math.isfinite(number):
            raise InvalidObservationError(
                f"state must be finite, got {number} at index {index}", "state-not-finite"
            )
    return numbers.tolist()


def image_of(image: Image, camera: str, jpeg_quality: int | None) -> Any:
    """Return the value of an image's field. Raises InvalidObservationError."""
    if isinstance(image, str):
        return image
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        if not data.startswith(tuple(start for start, _ in FILES)):
            raise InvalidObservationError(
                f"'{camera}': bytes must be those of a JPEG or PNG file", "bad-image"
            )
        return base64.b64encode(data).decode("ascii")
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        raise InvalidObservationError(
            f"'{camera}': pixels must be uint8 from 0 to 255, got {pixels.dtype}", "bad-image"
        )
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1] if pixels.ndim == 3 else 0
    if channels not in _CHANNELS or pixels.size == 0:
        raise InvalidObservationError(
            f"'{camera}': pixels must have the shape (height, width, 3), got {pixels.shape}", "bad-image"
        )
    encode = None if jpeg_quality is None or channels != 3 else jpeg_encoder()
    if encode is not None:
        return base64.b64encode(encode(pixels, int(jpeg_quality or JPEG_QUALITY))).decode("ascii")
    return {
        "data": base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode("ascii"),
        "encoding": _CHANNELS[channels],
        "height": int(pixels.shape[0]),
        "width": int(pixels.shape[1]),
    }


def jpeg_encoder() -> Callable[[Any, int], bytes] | None:
    """Return what encodes RGB pixels at a quality: cv2's or Pillow's; None where neither is installed."""
    try:
        import cv2
    except ImportError:
        pass
    else:
        return lambda pixels, quality: _with_cv2(cv2, pixels, quality)
    try:
        import PIL.Image
    except ImportError:
        return None
    return lambda pixels, quality: _with_pillow(PIL.Image, pixels, quality)


def _with_cv2(cv2: Any, pixels: Any, quality: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR"):
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return bytes(cv2.imencode(".jpg", pixels[:, :, ::-1], options)[1].tobytes())


def _with_pillow(pillow: Any, pixels: Any, quality: int) -> bytes:
    import io

    written = io.BytesIO()
    pillow.fromarray(np.ascontiguousarray(pixels)).save(written, "JPEG", quality=quality, subsampling=0)
    return written.getvalue()


def _name(camera: Any) -> str:
    if not isinstance(camera, str):
        raise InvalidObservationError(f"a camera's name must be a string, got {camera!r:.60}", "bad-image")
    return camera
