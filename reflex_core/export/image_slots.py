# SPDX-License-Identifier: Apache-2.0
"""Read `images` of reflex_config.json: one slot per camera of the graphs' image inputs, checked against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.export.families import Config
from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import Refuse, is_number, is_whole
from reflex_core.images.resize import BILINEAR, FILTERS, LETTERBOX, RESIZES

MOST_SIDE = 8192  # pixels
ANY, EXACT = "any", "exact"


@dataclass(frozen=True, slots=True)
class ImageSlot:
    """One image input, or one camera of an input that several share. height and width are None where the graph takes any size.

    camera: None where no camera was in training either, so that the input is always masked.
    resize, filter: how an image of another size is scaled (reflex_core/images/resize.py).
    scale, offset: (3,) float32, per RGB channel: network value = pixel * scale + offset.
    bars: (3,) float32, network values around a letterboxed image. fill: network value of a camera that is missing.
    whole_numbers: the graph takes integers.
    exact: pictures of another size are refused, because the policy was trained without a resize.
    steps: length of the input's axis of observations, None where it has no such axis and takes the newest one.
    stack, stacked: this camera's place on the input's axis of cameras, and its length; None where it has no such axis.
    """

    camera: str | None
    input: str
    mask: str | None
    height: int | None
    width: int | None
    channels_last: bool
    resize: str
    filter: str
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    bars: NDArray[np.float32]
    fill: float
    required: bool
    whole_numbers: bool = False
    exact: bool = False
    steps: int | None = None
    stack: int | None = None
    stacked: int | None = None

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes of the input before the picture: one robot, observations (oldest first), cameras."""
        return (1, *(size for size in (self.steps, self.stacked) if size is not None))


def read_images(
    entries: object, inputs: Mapping[str, TensorInfo], fail: Refuse, observations: int = 1
) -> tuple[ImageSlot, ...]:
    """Return the slots in the order of the configuration.

    fail: makes the ExportError of (key, expected, got). observations: how many of them an input with such an axis holds.
    """
    if not isinstance(entries, list):
        raise fail("images", "a list", entries)
    slots = tuple(_slots(entries, inputs, observations, fail))
    _check_stacks(slots, fail)
    return slots


def _slots(
    entries: Sequence[object], inputs: Mapping[str, TensorInfo], observations: int, fail: Refuse
) -> Iterator[ImageSlot]:
    known = ", ".join(sorted(inputs))[:300]
    shared = Counter(str(entry.get("input")) for entry in entries if isinstance(entry, dict))
    for entry in entries:
        if not isinstance(entry, dict) or not {"camera", "input"} <= set(entry):
            raise fail("images", "objects with 'camera' and 'input'", entry)
        info = inputs.get(str(entry["input"]))
        if info is None:
            raise fail("images", f"naming inputs of the graphs ({known})", entry["input"])
        mask = entry.get("mask")
        if mask is not None and not (isinstance(mask, str) and mask in inputs):
            raise fail(f"images ({info.name}).mask", f"an input of the graphs ({known})", mask)
        slot = _slot(entry, info, observations, shared[info.name], fail)
        if mask is not None and slot.lead != (1,) and not inputs[mask].takes(slot.lead):
            expected = f"an input of shape {slot.lead}, as its images"
            raise fail(f"images ({info.name}).mask", expected, inputs[mask].shape)
        yield slot


def _check_stacks(slots: Sequence[ImageSlot], fail: Refuse) -> None:
    """Raise where the cameras of one input do not fill it, each its own place, or differ in their pictures."""
    for name in dict.fromkeys(slot.input for slot in slots):
        cameras = [slot for slot in slots if slot.input == name]
        places = [slot.stack for slot in cameras]
        if len(cameras) > 1 and set(places) != set(range(len(cameras))):
            expected = f"0 to {len(cameras) - 1}, one for each camera of this input"
            raise fail(f"images ({name}).stack", expected, places)
        shapes = {(slot.channels_last, slot.height, slot.width) for slot in cameras}
        if len(shapes) > 1:
            raise fail(
                f"images ({name})", "of one layout, height and width for all its cameras", sorted(shapes)
            )


def _slot(entry: Config, info: TensorInfo, observations: int, cameras: int, fail: Refuse) -> ImageSlot:
    key = f"images ({info.name})"
    camera = entry["camera"]
    if not (isinstance(camera, str) and camera) and not (camera is None and entry.get("mask")):
        raise fail(f"{key}.camera", "a name, or null where the slot has a mask and never a camera", camera)
    last = _channels_last(entry, info, fail)
    steps, stack, stacked = _lead(entry, info, observations, cameras, fail)
    height, width = _size(entry, info, last=last, fail=fail)
    exact = _is_exact(entry, info, fail)
    if (exact or steps or stacked) and None in (height, width):
        expected = "a number, as the graph takes any and all images must have one size"
        raise fail(f"{key}.height", expected, height)
    resize = entry.get("resize", LETTERBOX)
    if resize == "letterbox_center":  # what it is called where the other one is letterbox_top_left
        resize = LETTERBOX
    if resize not in RESIZES:
        raise fail(f"{key}.resize", " or ".join(RESIZES), resize)
    how = entry.get("filter", BILINEAR)
    if how not in FILTERS:
        raise fail(f"{key}.filter", " or ".join(FILTERS), how)
    scale, offset = _pixel_scale(entry, fail)
    fill = entry.get("fill", float(offset.min()))
    if not is_number(fill):
        raise fail(f"{key}.fill", "a number", fill)
    bars = _bars(entry, _colour(entry.get("bars", 0.0), f"{key}.bars", fail))
    whole_numbers = not issubclass(info.dtype, np.floating)
    if whole_numbers:
        _check_whole_numbers(entry, info, np.concatenate([scale * 255 + offset, offset, bars, [fill]]), fail)
    return ImageSlot(
        camera=camera,
        input=info.name,
        mask=entry.get("mask"),
        height=height,
        width=width,
        channels_last=last,
        resize=resize,
        filter=how,
        scale=scale,
        offset=offset,
        bars=bars,
        fill=float(fill),
        # without a mask the network cannot know that a camera is missing
        required=camera is not None and (bool(entry.get("required", True)) or entry.get("mask") is None),
        whole_numbers=whole_numbers,
        exact=exact,
        steps=steps,
        stack=stack,
        stacked=stacked,
    )


def _channels_last(entry: Config, info: TensorInfo, fail: Refuse) -> bool:
    layout = entry.get("layout", "nchw")
    if layout not in ("nchw", "nhwc") or len(info.shape) < 4:
        raise fail(f"images ({info.name})", "a nchw or nhwc input with four dimensions", layout)
    last: bool = layout == "nhwc"
    if info.shape[-1 if last else -3] not in (3, None):
        raise fail(f"images ({info.name})", f"three channels in layout {layout}", info.shape)
    return last


def _lead(
    entry: Config, info: TensorInfo, observations: int, cameras: int, fail: Refuse
) -> tuple[int | None, int | None, int | None]:
    """Return steps, stack and stacked of the slot. cameras: how many slots share the input."""
    key, stack = f"images ({info.name})", entry.get("stack")
    if stack is not None and not is_whole(stack, 0, cameras - 1):
        raise fail(
            f"{key}.stack", f"a number from 0 to {cameras - 1}, as {cameras} cameras name the input", stack
        )
    stacked = None if stack is None else cameras
    between = info.shape[1:-3]
    steps = observations if len(between) == (stacked is not None) + 1 else None
    wanted = (1, *(size for size in (steps, stacked) if size is not None))
    if not replace(info, shape=info.shape[:-3]).takes(wanted):
        axes = "".join(f", {size}" for size in wanted[1:])
        expected = f"an input of shape (1{axes}, and an image), as observation_steps and stack say"
        raise fail(key, expected, info.shape)
    return steps, stack, stacked


def _size(entry: Config, info: TensorInfo, *, last: bool, fail: Refuse) -> tuple[int | None, int | None]:
    """Return height and width, by the graph or by the configuration."""
    sizes = info.shape[-3:-1] if last else info.shape[-2:]
    height, width = (size or entry.get(side) for size, side in zip(sizes, ("height", "width"), strict=True))
    for side, size in (("height", height), ("width", width)):
        if size is not None and not (is_whole(size) and 1 <= size <= MOST_SIDE):
            raise fail(side, f"a positive integer up to {MOST_SIDE}", size)
        if entry.get(side) not in (None, size):
            raise fail(f"images ({info.name}).{side}", f"{size}, as the graph has", entry[side])
    return height, width


def _is_exact(entry: Config, info: TensorInfo, fail: Refuse) -> bool:
    """Return whether only pictures of the graph's own size are taken; a `resize` that is written says otherwise."""
    if entry.get("size", ANY) not in (ANY, EXACT):
        raise fail(f"images ({info.name}).size", f"{ANY} or {EXACT}", entry["size"])
    exact: bool = entry.get("size") == EXACT
    return exact and "resize" not in entry


def _pixel_scale(entry: Config, fail: Refuse) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scale and offset for pixels of 0..255: to `range` [low, high], or to (pixel / 255 - mean) / std."""
    try:
        if "mean" in entry or "std" in entry:
            if not all(map(is_number, [*entry["mean"], *entry["std"]])):
                raise ValueError
            mean, std = np.asarray(entry["mean"], float), np.asarray(entry["std"], float)
            with np.errstate(divide="ignore", invalid="ignore"):  # a zero is refused below
                scale, offset = 1 / (255 * std), -mean / std
        else:
            low, high = entry.get("range", (-1.0, 1.0))
            if not (is_number(low) and is_number(high)):
                raise ValueError
            scale, offset = np.full(3, (high - low) / 255), np.full(3, low)
        whole = scale.shape == offset.shape == (3,) and bool(np.isfinite([scale, offset]).all())
        if not whole or (scale == 0).any():
            raise ValueError
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise fail(
            f"images ({entry['input']})", "'range' [low, high], or 'mean' and 'std' of 3", entry
        ) from None
    return scale.astype(np.float32), offset.astype(np.float32)


def _bars(entry: Config, colour: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the network values of a colour, of which 0 is black and 1 white.

    Not by `scale` and `offset`: X-VLA's bars must be zeros and not nearly so, as a network may divide by how far they are apart.
    """
    if "mean" in entry:
        mean, std = (np.asarray(entry[key], dtype=np.float64) for key in ("mean", "std"))
        return np.asarray((colour - mean) / std, dtype=np.float32)
    low, high = entry.get("range", (-1.0, 1.0))
    return np.asarray(colour * (high - low) + low, dtype=np.float32)


def _check_whole_numbers(entry: Config, info: TensorInfo, values: NDArray[Any], fail: Refuse) -> None:
    """Raise where integers cannot represent 256 brightnesses, or one of the values."""
    apart = abs(values[:3] - values[3:6]).min() >= 254.5
    limits = np.iinfo(info.dtype) if issubclass(info.dtype, np.integer) else None
    if limits is None or not apart or values.min() < limits.min or values.max() > limits.max:
        written = entry.get("range", "mean and std" if "mean" in entry else None)
        raise fail(f"images ({info.name}).range", "[0, 255], as the graph takes whole numbers", written)


def _colour(value: object, key: str, fail: Refuse) -> NDArray[np.float64]:
    """Return (3,) from one number or three, where 0 is a black pixel and 1 a white one."""
    numbers = value if isinstance(value, list | tuple) else [value] * 3
    if len(numbers) != 3 or not all(map(is_number, numbers)):
        raise fail(key, "a number or three, 0 for black and 1 for white", value)
    return np.asarray(numbers, dtype=np.float64)
