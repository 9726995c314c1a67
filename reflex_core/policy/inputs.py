# SPDX-License-Identifier: Apache-2.0
"""Pixels and joint values become the arrays that the graphs take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError, ObservationError
from reflex_core.export.contract import StateSlot
from reflex_core.export.export import Affine
from reflex_core.export.image_slots import ImageSlot
from reflex_core.images.opencv import opencv_if_imported
from reflex_core.images.raw_encodings import rgb
from reflex_core.images.resize import placed, resized
from reflex_core.text.untrusted import escaped
from reflex_core.values import Floats, Frame, Pixels

Arrays = dict[str, NDArray[Any]]


def image_array(frame: Frame, slot: ImageSlot) -> Floats:
    """Return (1, 3, height, width) float32, or (1, height, width, 3) where the graph takes channels last.

    Rounded to integers where the graph takes integers. Raises ObservationError where only one size is taken and it has another.
    """
    pixels = rgb(frame)
    rows, columns = pixels.shape[:2]
    height, width = slot.height or rows, slot.width or columns
    if slot.exact and (rows, columns) != (height, width):
        raise ObservationError(
            f"camera '{slot.camera}' must give images of {width}x{height}, as the policy was trained without a resize,"
            f" got {columns}x{rows}",
            "image-size",
        )
    box = placed(rows, columns, height, width, slot.resize)
    picture = resized(pixels, box.height, box.width, slot.filter)
    shape = (height, width, 3) if slot.channels_last else (3, height, width)
    filled = np.empty((1, *shape), dtype=np.float32)
    scale, offset, bars = slot.scale, slot.offset, slot.bars
    covered = filled[0, box.rows, box.columns] if slot.channels_last else filled[0, :, box.rows, box.columns]
    if not slot.channels_last:
        picture = picture.transpose(2, 0, 1)
        scale, offset, bars = (values[:, None, None] for values in (scale, offset, bars))
    if (box.height, box.width) != (height, width):
        filled[0] = bars
    cv2 = opencv_if_imported()
    if cv2 is not None and picture.dtype == np.uint8 and not slot.channels_last:
        _look_up(cv2, picture, slot, covered)
    else:
        np.multiply(picture, scale, out=covered)
        covered += offset
    return np.rint(filled, out=filled) if slot.whole_numbers else filled


def _look_up(cv2: Any, planes: Pixels, slot: ImageSlot, covered: Floats) -> None:
    """Scale (3, height, width) bytes by a table of what each of the 256 becomes: the same numbers, a third of the time less.

    In few calls: each one gives up the interpreter's lock, and waits for it again where other requests are served.
    """
    tables, same = _tables(slot.scale.tobytes(), slot.offset.tobytes(), slot.scale.dtype.str)
    bands = np.empty(planes.shape, dtype=np.uint8)
    cv2.split(planes.transpose(1, 2, 0), list(bands))
    if same and covered.flags.c_contiguous:
        height, width = planes.shape[1:]
        cv2.LUT(bands.reshape(3 * height, width), tables[0], covered.reshape(3 * height, width))
        return
    for band, table, out in zip(bands, tables, covered, strict=True):
        if out.flags.c_contiguous:
            cv2.LUT(band, table, out)
        else:  # bars at the sides: OpenCV writes only to memory without gaps
            out[...] = cv2.LUT(band, table)


@lru_cache(maxsize=64)
def _tables(scale: bytes, offset: bytes, dtype: str) -> tuple[Floats, bool]:
    """Return what each value of a byte becomes in each channel, (3, 256) float32, by the arithmetic of image_array.

    And whether the three are the same.
    """
    made = np.empty((3, 256), dtype=np.float32)
    values = np.broadcast_to(np.arange(256, dtype=np.uint8), made.shape)
    np.multiply(values, np.frombuffer(scale, dtype)[:, None], out=made)
    made += np.frombuffer(offset, dtype)[:, None]
    return made, bool((made[0] == made).all())


def missing_image(slot: ImageSlot) -> Floats:
    """Return the model family's input for a missing camera, whose mask is False; shared and read-only."""
    height, width = slot.height or 1, slot.width or 1
    return _filled((1, height, width, 3) if slot.channels_last else (1, 3, height, width), slot.fill)


@lru_cache(maxsize=16)
def _filled(shape: tuple[int, ...], value: float) -> Floats:
    filled = np.full(shape, value, dtype=np.float32)
    filled.flags.writeable = False
    return filled


def _mask(seen: bool) -> NDArray[np.bool_]:
    made = np.array([seen])
    made.flags.writeable = False
    return made


_MASKS = (_mask(False), _mask(True))


def image_arrays(
    slots: tuple[ImageSlot, ...],
    frames: Mapping[str, Frame],
    cameras: Mapping[str, str],
    earlier: Sequence[Mapping[str, Frame]] = (),
) -> Arrays:
    """Return every image input and mask.

    Args:
        slots: Of the contract.
        frames: Of the newest observation.
        cameras: The robot's name for a slot's camera.
        earlier: Frames of the observations before it, oldest first: one less than an input with such an axis holds.

    Raises:
        ObservationError: A required camera has no frame, or none of several optional ones has one.
    """
    arrays: Arrays = {}
    for slot in slots:
        seen = [frames] if slot.steps is None else [*earlier, frames]
        taken, pictures = _pictures(seen, slot, cameras)
        _put(arrays, slot.input, slot, pictures)
        if slot.mask is not None:
            _put(arrays, slot.mask, slot, [_MASKS[frame is not None] for frame in taken])
    wanted = {cameras.get(slot.camera, slot.camera) for slot in slots if slot.camera is not None}
    if wanted and not wanted & set(frames):
        raise ObservationError(
            f"no image from any of cameras {', '.join(map(repr, sorted(wanted)))}"
            f" (got {', '.join(sorted(frames)) or 'none'}); the policy needs one",
            "missing-image",
        )
    return arrays


def _frame_of(slot: ImageSlot, frames: Mapping[str, Frame], cameras: Mapping[str, str]) -> Frame | None:
    if slot.camera is None:
        return None
    name = cameras.get(slot.camera, slot.camera)
    frame = frames.get(name)
    if frame is None and slot.required:
        raise ObservationError(
            f"no image from camera '{name}' (got {', '.join(sorted(frames)) or 'none'}); the policy needs it",
            "missing-image",
        )
    return frame


def _pictures(
    seen: Sequence[Mapping[str, Frame]], slot: ImageSlot, cameras: Mapping[str, str]
) -> tuple[list[Frame | None], list[Floats]]:
    """Return a camera's frame in every observation, oldest first, and its array."""
    if len(seen) == 1:
        frame = _frame_of(slot, seen[0], cameras)
        return [frame], [missing_image(slot) if frame is None else _taken(frame, slot)]
    taken: list[Frame | None] = []
    made: list[Floats] = []
    for number, frames in enumerate(seen, start=1):
        # one that stands for earlier ones is no earlier one
        with blamed_on_earlier(0 if frames is seen[-1] else len(seen) - number):
            frame = _frame_of(slot, frames, cameras)
            # at an episode's start the first frame stands for earlier ones, and is decoded once
            again = bool(taken) and frame is taken[-1]
            made.append(made[-1] if again else missing_image(slot) if frame is None else _taken(frame, slot))
        taken.append(frame)
    return taken, made


@contextmanager
def blamed_on_earlier(periods: int) -> Iterator[None]:
    """Name the observation that a refusal is about, where it is not the newest: so many control periods before it."""
    try:
        yield
    except ObservationError as error:
        if not periods:
            raise
        what = f"{periods} control period(s) before the newest observation"
        raise ObservationError(f"{what}: {error}", error.slug) from error


def _put(arrays: Arrays, name: str, slot: ImageSlot, values: Sequence[NDArray[Any]]) -> None:
    """Put a camera's values, one (1, ...) for each observation, into the input that it may share with other cameras."""
    if slot.lead == (1,):
        arrays[name] = values[0]
        return
    if name not in arrays:
        arrays[name] = np.empty((*slot.lead, *values[0].shape[1:]), dtype=values[0].dtype)
    camera = () if slot.stack is None else (slot.stack,)
    for step, value in enumerate(values):
        at = () if slot.steps is None else (step,)
        arrays[name][(0, *at, *camera)] = value[0]


def _taken(frame: Frame, slot: ImageSlot) -> Floats:
    """Return the array of a frame. A failing decoder is the image's fault, never the model's."""
    try:
        return image_array(frame, slot)
    except (
        ObservationError,
        ConfigurationError,
    ):  # the latter: what reads images is not as it should be on this machine
        raise
    except Exception as error:
        raise ObservationError(
            f"the image from camera '{slot.camera}' cannot be read: {type(error).__name__}: {escaped(str(error))}",
            "bad-image",
        ) from error


def masked_cameras(
    slots: tuple[ImageSlot, ...], frames: Mapping[str, Frame], cameras: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the cameras that the policy reads and that gave no image, by the robot's names where it has them."""
    wanted = (cameras.get(slot.camera, slot.camera) for slot in slots if slot.camera is not None)
    return tuple(name for name in dict.fromkeys(wanted) if name not in frames)


def state_array(
    state: Floats, slot: StateSlot, statistics: Affine | None, earlier: Sequence[Floats] = ()
) -> Floats:
    """Return the state input: normalised, then zero-padded to the network's width as in training.

    Args:
        state: (n,) of the newest observation.
        slot: Of the contract; its `lead` are the axes before the width: none, (1,), (1, 1), or (1, observations).
        statistics: None leaves the numbers as they are.
        earlier: States of the observations before it, oldest first, where the input has an axis of them.
    """
    rows = [*earlier, state] if slot.steps is not None else [state]
    made = np.zeros((len(rows), slot.width), dtype=np.float32)
    for row, values in zip(made, rows, strict=True):
        row[: len(values)] = statistics.normalise(values) if statistics is not None else values
    return made.reshape(*slot.lead, slot.width)


def state_words(state: Floats, slot: StateSlot, statistics: Affine | None) -> str:
    """Return the state as text of bin numbers, as pi0.5 reads it: [-1, 1] in `bins` equal steps (openpi, LeRobot).

    Values below the range become -1, values above it the last number. A padding policy appends the zeros' bins.
    """
    edges = np.linspace(-1, 1, slot.bins + 1)[:-1]
    normalised = statistics.normalise(state) if statistics is not None else state
    padded = np.concatenate([normalised, np.zeros(max(0, slot.pad - len(state)), np.float32)])
    return " ".join(map(str, np.digitize(padded, edges) - 1))
