# SPDX-License-Identifier: Apache-2.0
"""Frames as files, and their hashes: the trace's short ones and the audit log's hash of a whole observation."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.images.file_kinds import KINDS, kind_of
from reflex_core.images.raw_encodings import rgb
from reflex_core.text import base64_bytes
from reflex_core.values import Frame, Observation

HASH_LENGTH = 16
_PPM = re.compile(rb"P6\n(\d{1,6}) (\d{1,6})\n255\n")


def encoded(frame: Frame) -> bytes:
    """Return the frame as a file: image files as they arrived, raw frames as a binary PPM of the RGB pixels the policy saw.

    A PPM needs no encoder, so every machine and library version gives the same bytes and the same hash. A raw frame
    that cannot be read as pixels stays as its bytes.
    """
    if frame.encoding in KINDS:
        return bytes(frame.data)
    try:
        pixels = rgb(frame)
    except ObservationError:
        return bytes(frame.data)
    height, width = pixels.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + np.ascontiguousarray(pixels).tobytes()


def frame_from(data: bytes) -> Frame:
    """Return the frame that `encoded` made a file of. Raises ObservationError when it is no image file and no PPM."""
    if (kind := kind_of(data)) is not None:
        return Frame(data, kind.name)
    head = _PPM.match(data[:32])
    if head is None:
        raise ObservationError(
            f"the recorded image is neither {', '.join(kind.title for kind in KINDS.values())} nor binary PPM",
            "bad-image",
        )
    width, height = int(head[1]), int(head[2])
    return Frame(memoryview(data)[head.end() :], "rgb8", height, width, 3 * width)


def base64_text(data: bytes) -> str:
    """Return base64 without line breaks, as in a request."""
    return base64_bytes.encoded(data)


def text_hash(text: str) -> str:
    """Return the first 16 hex digits of SHA-256 over the base64 TEXT of an image: the schema's `image_sha256`."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:HASH_LENGTH]


def bytes_hash(data: bytes) -> str:
    """Return the first 16 hex digits of SHA-256 over the bytes of an image file: what `sha256sum FILE` begins with."""
    return hashlib.sha256(data).hexdigest()[:HASH_LENGTH]


def file_hash(data: bytes) -> str:
    """Return the `image_sha256` of an image file, to find a recorded frame among files."""
    return text_hash(base64_text(data))


def observation_hash(observation: Observation) -> str:
    """Return SHA-256 (64 hex digits) over everything the policy was given.

    Fed in this order, each part preceded by its length as 8 bytes little-endian: for every camera in alphabetical
    order its name, `<encoding> <height> <width> <step>` and its bytes as they arrived; the state as float32
    little-endian (empty when there is none); the instruction as UTF-8; then cameras and state of every earlier
    observation, oldest first.
    """
    digest = hashlib.sha256()

    def feed(part: Any) -> None:
        view = memoryview(part).cast("B") if len(part) else b""
        digest.update(len(view).to_bytes(8, "little"))
        digest.update(view)

    def feed_sensors(one: Observation) -> None:
        for camera in sorted(one.frames):
            frame = one.frames[camera]
            feed(camera.encode("utf-8", "surrogatepass"))
            feed(f"{frame.encoding} {frame.height} {frame.width} {frame.step}".encode())
            data = frame.data
            feed(np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data)
        feed(b"" if one.state is None else np.ascontiguousarray(one.state, dtype="<f4"))

    feed_sensors(observation)
    feed(observation.instruction.encode("utf-8", "surrogatepass"))
    for one in observation.history:
        feed_sensors(one)
    return digest.hexdigest()
