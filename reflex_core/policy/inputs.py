# SPDX-License-Identifier: Apache-2.0
"""Pixels, words and joint values become the arrays that the graphs take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reflex_core.errors import ExportError, ObservationError
from reflex_core.export import Affine
from reflex_core.frames import rgb
from reflex_core.policy.contract import ImageSlot, LanguageSlot, StateSlot
from reflex_core.values import Floats, Frame, Pixels

Arrays = dict[str, NDArray[Any]]

LONGEST_PROMPT = 10_000  # characters: far beyond any token window, and what the cache may hold stays small


def image_array(frame: Frame, slot: ImageSlot) -> Floats:
    """(1, 3, height, width) float32, or (1, height, width, 3) where the graph wants channels last."""
    pixels = fitted(rgb(frame), slot.height, slot.width, letterbox=slot.letterbox)
    if slot.channels_last:
        return np.asarray(pixels * slot.scale + slot.offset, dtype=np.float32)[None]
    planes = np.empty((1, 3, *pixels.shape[:2]), dtype=np.float32)
    np.multiply(pixels.transpose(2, 0, 1), slot.scale[:, None, None], out=planes[0])
    planes[0] += slot.offset[:, None, None]
    return planes


def fitted(pixels: Pixels, height: int | None, width: int | None, *, letterbox: bool) -> Pixels:
    """The picture at (height, width): stretched, or scaled to fit, centred, with black bars (openpi)."""
    rows, columns = pixels.shape[:2]
    height, width = height or rows, width or columns
    if (rows, columns) == (height, width):
        return pixels
    if not letterbox:
        return _resized(pixels, height, width)
    ratio = max(rows / height, columns / width)
    inner_height, inner_width = max(1, int(rows / ratio)), max(1, int(columns / ratio))
    boxed = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    boxed[top : top + inner_height, left : left + inner_width] = _resized(pixels, inner_height, inner_width)
    return boxed


def _resized(pixels: Pixels, height: int, width: int) -> Pixels:
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    # area averaging keeps small objects when a picture shrinks; bilinear is what training code uses to enlarge
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), dtype=np.uint8)


def missing_image(slot: ImageSlot) -> Floats:
    """What the model families feed for a camera the robot lacks, while its mask says so; shared and read-only."""
    height, width = slot.height or 1, slot.width or 1
    return _filled((1, height, width, 3) if slot.channels_last else (1, 3, height, width), slot.fill)


@lru_cache(maxsize=16)
def _filled(shape: tuple[int, ...], value: float) -> Floats:
    filled = np.full(shape, value, dtype=np.float32)
    filled.flags.writeable = False
    return filled


def image_arrays(
    slots: tuple[ImageSlot, ...], frames: Mapping[str, Frame], cameras: Mapping[str, str]
) -> Arrays:
    """Every image input and mask. `cameras` maps a slot's camera to the robot's name for it.

    Raises ObservationError when a required camera has no frame.
    """
    arrays: Arrays = {}
    for slot in slots:
        frame = frames.get(cameras.get(slot.camera, slot.camera))
        if frame is None and slot.required:
            raise ObservationError(
                f"no image from camera '{cameras.get(slot.camera, slot.camera)}'"
                f" (got {', '.join(sorted(frames)) or 'none'}); the policy needs it",
                "missing-image",
            )
        arrays[slot.input] = missing_image(slot) if frame is None else image_array(frame, slot)
        if slot.mask is not None:
            arrays[slot.mask] = np.array([frame is not None])
    return arrays


@dataclass(frozen=True, slots=True)
class Tokens:
    """ids, mask: (1, length). cut: how many tokens of the text did not fit."""

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    cut: int


class Language:
    """Turns an instruction into tokens with the export's own tokenizer."""

    def __init__(self, slot: LanguageSlot, path: Path) -> None:
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ExportError(f"{path}: not a tokenizer file: {str(error)[:200]}", "bad-tokenizer") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._slot = slot
        pads = (tokenizer.token_to_id(token) for token in ("<pad>", "[PAD]", "<|endoftext|>"))
        pad = next((identifier for identifier in pads if identifier is not None), 0)
        # a robot hears few different sentences; the cache holds no reference to self, which would be a cycle
        self._tokens = lru_cache(maxsize=64)(partial(_tokens, tokenizer, slot.length, pad))

    def prompt(self, instruction: str, state: str = "") -> str:
        """The text the policy was trained on, made from what the robot was told."""
        if self._slot.clean:
            instruction = instruction.strip().replace("_", " ").replace("\n", " ")
        return self._slot.template.replace("{state}", state).replace("{instruction}", instruction)

    def tokens(self, prompt: str) -> Tokens:
        """The tokens of a prompt. Raises ObservationError for a text that is no Unicode or unreasonably long."""
        if len(prompt) > LONGEST_PROMPT:
            raise ObservationError(
                f"the instruction has {len(prompt)} characters, at most {LONGEST_PROMPT} are read",
                "bad-instruction",
            )
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ObservationError(
                f"the instruction is not valid Unicode: {error.reason}", "bad-instruction"
            ) from error
        return self._tokens(prompt)


def _tokens(tokenizer: Tokenizer, length: int, pad: int, prompt: str) -> Tokens:
    found = tokenizer.encode(prompt).ids
    kept = found[:length]
    ids = np.full((1, length), pad, dtype=np.int64)
    ids[0, : len(kept)] = kept
    mask = np.arange(length)[None] < len(kept)
    return Tokens(ids, mask, len(found) - len(kept))


def state_array(state: Floats, slot: StateSlot, statistics: Affine | None) -> Floats:
    """(1, width) float32: normalised, then zero-padded to the network's width as in training."""
    row = np.zeros((1, slot.width), dtype=np.float32)
    row[0, : len(state)] = statistics.normalise(state) if statistics is not None else state
    return row


def state_words(state: Floats, slot: StateSlot, statistics: Affine) -> str:
    """The state as bin numbers, the way pi0.5 reads it: [-1, 1] in `bins` equal steps (openpi, tokenizer)."""
    edges = np.linspace(-1, 1, slot.bins + 1)[:-1]
    numbers = np.digitize(statistics.normalise(state), edges) - 1
    return " ".join(str(number) for number in np.clip(numbers, 0, slot.bins - 1))
