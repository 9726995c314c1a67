# SPDX-License-Identifier: Apache-2.0
"""Write episodes as an animated WebP or GIF: the arm, the instruction above it, time and progress below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from reflex_ros.demo.episode import Episode
from reflex_ros.demo.goals import Goal
from reflex_ros.demo.strip import (
    BACKGROUND,
    DONE,
    FAINT,
    FONT,
    FRAME_WIDTH,
    INK,
    Picture,
    Pixels,
    cropped,
    swatch_colour,
)

MARGIN, TITLE_HEIGHT, CAPTION_HEIGHT = 12, 36, 32
LAST_FRAME_MS = 900
SIZE = 0.45  # of the text, in OpenCV's unit
QUALITY = 60  # of WebP, 1 to 100


@dataclass(frozen=True)
class Take:
    """One episode and its images in the order of time."""

    episode: Episode
    pictures: Sequence[Picture]


def write(path: Path, takes: Sequence[Take], goal: Goal) -> None:
    """Write the takes one after the other, at the speed at which they happened.

    Raises OSError when a picture cannot be read or the file cannot be written.
    """
    if not hasattr(cv2, "imwriteanimation"):
        raise OSError(f"A film needs OpenCV 4.11 or newer, this is {cv2.__version__}.")
    film = cv2.Animation()
    film.frames = [draw(take.episode, picture, goal) for take in takes for picture in take.pictures]
    film.durations = [ms for take in takes for ms in durations_ms(take.pictures)]
    if not cv2.imwriteanimation(str(path), film, [cv2.IMWRITE_WEBP_QUALITY, QUALITY]):
        raise OSError(f"The film cannot be written to {path}.")


def durations_ms(pictures: Sequence[Picture]) -> list[int]:
    """Return how long each image of an episode is shown, in ms: until the next one was taken."""
    times_s = [picture.moment.time_s for picture in pictures]
    steps = [round(1000 * (later - earlier)) for earlier, later in pairwise(times_s)]
    return [max(step, 1) for step in steps] + [LAST_FRAME_MS] * bool(pictures)


def draw(episode: Episode, picture: Picture, goal: Goal) -> Pixels:
    """Return one frame, uint8 [height, width, 3] BGR."""
    view = cropped(picture, goal)
    height = TITLE_HEIGHT + view.shape[0] + CAPTION_HEIGHT
    frame = np.full((height, FRAME_WIDTH, 3), BACKGROUND, dtype=np.uint8)
    frame[TITLE_HEIGHT : TITLE_HEIGHT + view.shape[0]] = view
    cv2.rectangle(frame, (MARGIN, 11), (MARGIN + 14, 25), swatch_colour(episode), cv2.FILLED)
    _text(frame, _shortened(episode.instruction, FRAME_WIDTH - 2 * MARGIN - 24), MARGIN + 24, 24, SIZE, INK)
    moment, bottom = picture.moment, height - 11
    _text(frame, f"{moment.time_s:.1f} s", MARGIN, bottom, SIZE, INK)
    measured = goal.done if moment.succeeded else goal.of(moment.measure_m * 100)
    (width, _), _ = cv2.getTextSize(measured, FONT, SIZE, 1)
    _text(frame, measured, FRAME_WIDTH - MARGIN - width, bottom, SIZE, DONE if moment.succeeded else FAINT)
    return frame


def _shortened(text: str, width: int) -> str:
    """Return the text, or as much of its beginning as fits into `width` pixels."""
    if cv2.getTextSize(text, FONT, SIZE, 1)[0][0] <= width:
        return text
    while cv2.getTextSize(f"{text} ...", FONT, SIZE, 1)[0][0] > width:
        text = text[:-1]
    return f"{text.rstrip()} ..."


def _text(image: Pixels, text: str, x: int, y: int, size: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, (x, y), FONT, size, colour, 1, cv2.LINE_AA)
