# SPDX-License-Identifier: Apache-2.0
"""Draw one episode as a strip: its images side by side, the instruction above, time and distance below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reflex_ros.demo.episode import Episode, Moment
from reflex_ros.demo.goals import Goal
from reflex_ros.demo.scene import COLOURS

FRAME_COUNT = 6
FRAME_WIDTH, GAP, MARGIN, TITLE_HEIGHT, CAPTION_HEIGHT = 320, 8, 24, 84, 46
Pixels = NDArray[np.uint8]
SCALE = 2  # drawn larger and reduced: OpenCV's line fonts are ragged otherwise
BACKGROUND, INK, FAINT, DONE = (36, 28, 24), (245, 240, 236), (165, 150, 140), (120, 200, 110)
FONT = cv2.FONT_HERSHEY_DUPLEX


@dataclass(frozen=True)
class Picture:
    """A saved view of the arm at a moment of the episode."""

    moment: Moment
    path: Path


def choose(pictures: Sequence[Picture], count: int = FRAME_COUNT) -> list[Picture]:
    """Return `count` of the images: evenly in time until success, then the last one; evenly where success is the end."""
    if len(pictures) <= count:
        return list(pictures)
    arrivals = [index for index, picture in enumerate(pictures) if picture.moment.succeeded]
    if arrivals and arrivals[0] >= len(pictures) - 2:
        return [pictures[index] for index in np.linspace(0, len(pictures) - 1, count).round().astype(int)]
    arrival = max(arrivals[0] if arrivals else len(pictures) - 1, count - 2)
    indices = np.linspace(0, arrival, count - 1).round().astype(int)
    return [pictures[index] for index in indices] + [pictures[-1]]


def draw(episode: Episode, pictures: Sequence[Picture], goal: Goal) -> Pixels:
    """Return the strip, uint8 [height, width, 3] BGR."""
    frames = [cropped(picture, goal) for picture in pictures]
    frame_height, count = frames[0].shape[0], len(frames)
    width = 2 * MARGIN + count * FRAME_WIDTH + (count - 1) * GAP
    height = TITLE_HEIGHT + frame_height + CAPTION_HEIGHT
    large = np.full((height * SCALE, width * SCALE, 3), BACKGROUND, dtype=np.uint8)
    _title(large, episode, goal)
    for index, picture in enumerate(pictures):
        x = MARGIN + index * (FRAME_WIDTH + GAP)
        _caption(large, picture.moment, goal, x, TITLE_HEIGHT + frame_height + 30)
    strip: Pixels = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    for index, frame in enumerate(frames):
        x = MARGIN + index * (FRAME_WIDTH + GAP)
        strip[TITLE_HEIGHT : TITLE_HEIGHT + frame_height, x : x + FRAME_WIDTH] = frame
    return strip


def write(path: Path, episode: Episode, pictures: Sequence[Picture], goal: Goal) -> None:
    """Write the strip as PNG. Raises OSError when that fails."""
    if not cv2.imwrite(str(path), draw(episode, choose(pictures), goal)):
        raise OSError(f"The picture strip cannot be written to {path}.")


def cropped(picture: Picture, goal: Goal) -> Pixels:
    """Return the arm and the table of a picture, uint8 [height, FRAME_WIDTH, 3] BGR. Raises OSError."""
    pixels = cv2.imread(str(picture.path))
    if pixels is None:
        raise OSError(f"The picture {picture.path} cannot be read.")
    view = pixels[goal.crop]
    height = round(FRAME_WIDTH * view.shape[0] / view.shape[1])
    frame: Pixels = cv2.resize(view, (FRAME_WIDTH, height), interpolation=cv2.INTER_AREA)
    return frame


def swatch_colour(episode: Episode) -> tuple[int, int, int]:
    """Return the colour of the block that the instruction names, BGR."""
    red, green, blue = (round(255 * part) for part in COLOURS[episode.target])
    return blue, green, red


def _title(image: Pixels, episode: Episode, goal: Goal) -> None:
    corner, far = (MARGIN, 30), (MARGIN + 26, 56)
    cv2.rectangle(image, _scaled(corner), _scaled(far), swatch_colour(episode), cv2.FILLED)
    _text(image, f'"{episode.instruction}"', MARGIN + 42, 53, 0.95, INK)
    verdict = f"{goal.verdict(episode.succeeded)}, {goal.of(episode.measure_m * 100)}"
    facts = f"{verdict}   |   {episode.chunks} action chunks   |   seed {episode.seed}"
    (facts_width, _), _ = cv2.getTextSize(facts, FONT, 0.6 * SCALE, SCALE)
    _text(image, facts, (image.shape[1] - facts_width) // SCALE - MARGIN, 53, 0.6, FAINT)


def _caption(image: Pixels, moment: Moment, goal: Goal, x: int, y: int) -> None:
    _text(image, f"{moment.time_s:.1f} s", x + 2, y, 0.6, INK)
    measured = goal.of(moment.measure_m * 100)
    (width, _), _ = cv2.getTextSize(measured, FONT, 0.55 * SCALE, SCALE)
    _text(image, measured, x + FRAME_WIDTH - 2 - width // SCALE, y, 0.55, DONE if moment.succeeded else FAINT)


def _text(image: Pixels, text: str, x: int, y: int, size: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, _scaled((x, y)), FONT, size * SCALE, colour, SCALE, cv2.LINE_AA)


def _scaled(point: tuple[int, int]) -> tuple[int, int]:
    return point[0] * SCALE, point[1] * SCALE
