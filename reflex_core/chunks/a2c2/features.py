# SPDX-License-Identifier: Apache-2.0
"""The observation vector of the correction head, made from what the runtime has. A recipe names its parts in order.

A checkpoint carries the recipe as `features`, parts joined by "+", for example "state+previous+hues12+words32":

| part | numbers | what |
|---|---|---|
| state | state_dim | the robot state now, normalised like the policy's input |
| state_change | state_dim | that state less the one the policy saw |
| previous | action_dim | the action the robot is being commanded, normalised like the policy's output |
| thumbnail8 | 192 | the image now, 8x8x3, 0..1 |
| hues12 | 36 | per 30 degrees of hue: share of the image that has this colour, and where its centre is |
| hues12_change | 36 | hues12 now less hues12 of what the policy saw |
| named_hue | 3 | of hues12 what the instruction names by the first of its words that is a colour: share, and where its centre is; zeros for none |
| named_hue_change | 3 | named_hue now less that of what the policy saw |
| words32 | 32 | how often the instruction has a word whose CRC-32 modulo 32 is this |
| runtime256 | 256 | state in 32 numbers, previous in 32, thumbnail8; zeros behind a shorter state or action |
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from reflex_core.errors import ConfigurationError, ObservationError
from reflex_core.export.binding import Binding
from reflex_core.export.export import Affine
from reflex_core.images.colours import hue_saturation_value
from reflex_core.images.raw_encodings import rgb
from reflex_core.images.scaling import area_averaged
from reflex_core.values import Floats, Frame, Observation, Pixels

DEFAULT_RECIPE = "runtime256"  # for checkpoints that name none; obs_dim 256 is the format's own default
HUES = 12
WORDS = 32
THUMBNAIL = 8
SLOT = 32
HUE_SIDE = 96
MIN_SATURATION, MIN_VALUE = 100, 40
SEEING = (  # parts that look at the image
    "thumbnail8", "hues12", "hues12_change", "named_hue", "named_hue_change", DEFAULT_RECIPE,
)  # fmt: skip
# the bin of each word for a colour that has a hue
HUE_OF: Mapping[str, int] = {
    "red": 0, "orange": 1, "yellow": 2, "green": 4, "cyan": 6, "blue": 8, "violet": 9, "purple": 9, "magenta": 10, "pink": 11,
}  # fmt: skip
FEW_PIXELS = 4.0  # below some pixels a centre says nothing and is drawn to the middle of the image


@dataclass(frozen=True, slots=True)
class Moment:
    """Inputs of one correction.

    now: the newest observation. seen: the one the policy's chunk was made from. previous: (action_dim,) what the robot
    is being commanded, physical units, None when unknown.
    """

    now: Observation
    seen: Observation
    previous: Floats | None = None


@dataclass(frozen=True, slots=True)
class Robot:
    """The sizes and scales that a recipe depends on. camera: the one that is looked at, "" for the only one."""

    state_dim: int
    action_dim: int
    state_statistics: Affine | None = None
    action_statistics: Affine | None = None
    camera: str = ""


def robot_of(binding: Binding) -> Robot:
    """Return the robot of a bound policy; images are those of the policy's first camera."""
    camera = next(iter(binding.cameras.values()), "")
    return Robot(
        binding.state_dim or len(binding.state_names), len(binding.action_names),
        binding.state_statistics, binding.action_statistics, camera,
    )  # fmt: skip


class Features:
    """Makes the observation vector of one recipe. Thread-safe."""

    def __init__(self, recipe: str, robot: Robot) -> None:
        """Parse a recipe. Raises ConfigurationError for a part that is unknown or does not fit the robot."""
        self.recipe = recipe
        self._robot = robot
        parts = recipe.split("+")
        unknown = [part for part in parts if part not in _PARTS]
        if unknown:
            raise ConfigurationError(
                f"the features '{recipe}' have an unknown part '{unknown[0][:40]}'; known: {', '.join(_PARTS)}"
            )
        self._parts = [_PARTS[part] for part in parts]
        self._sees = any(part in SEEING for part in parts)
        if DEFAULT_RECIPE in parts and max(robot.state_dim, robot.action_dim) > SLOT:
            raise ConfigurationError(
                f"the features '{DEFAULT_RECIPE}' have room for {SLOT} numbers of state and of action,"
                f" the robot has {robot.state_dim} and {robot.action_dim}"
            )
        self.dim = sum(part.size(robot) for part in self._parts)

    def decoded(self, observation: Observation) -> Observation:
        """Return the observation with its image as pixels, for who asks for vectors of it again and again."""
        robot, frames = self._robot, observation.frames
        camera = robot.camera if robot.camera in frames else next(iter(frames), None)
        if camera is None or not self._sees:
            return observation
        pixels = _pixels(robot, observation)
        frame = Frame(pixels, "rgb8", pixels.shape[0], pixels.shape[1])
        return replace(observation, frames={camera: frame}, history=())

    def vector(self, moment: Moment) -> Floats:
        """Return (dim,) float32. Raises ObservationError where an image or the state that the recipe needs is missing."""
        view = _View(self._robot, moment)
        return np.concatenate([part.make(view) for part in self._parts]).astype(np.float32)


@dataclass(frozen=True)
class _View:
    """A moment as the parts look at it; what several of them need is made once."""

    robot: Robot
    moment: Moment

    @cached_property
    def pixels(self) -> Pixels:
        return _pixels(self.robot, self.moment.now)

    @cached_property
    def state(self) -> Floats:
        return _state(self.robot, self.moment.now)

    @cached_property
    def hues(self) -> Floats:
        return hues(self.pixels)

    def state_change(self) -> Floats:
        return self.state - _state(self.robot, self.moment.seen)

    def previous(self) -> Floats:
        last, statistics = self.moment.previous, self.robot.action_statistics
        if last is None:  # normalised zero is the mean action
            return np.zeros(self.robot.action_dim, dtype=np.float32)
        return statistics.normalise(last) if statistics else last

    def hues_change(self) -> Floats:
        if self.moment.now is self.moment.seen:
            return np.zeros(3 * HUES, dtype=np.float32)
        return self.hues - hues(_pixels(self.robot, self.moment.seen))

    def named_hue(self) -> Floats:
        return named_hue(self.hues, self.moment.now.instruction)

    def named_hue_change(self) -> Floats:
        return named_hue(self.hues_change(), self.moment.now.instruction)

    def runtime(self) -> Floats:
        vector = np.zeros(2 * SLOT + 3 * THUMBNAIL**2, dtype=np.float32)
        vector[: self.robot.state_dim] = self.state
        vector[SLOT : SLOT + self.robot.action_dim] = self.previous()
        vector[2 * SLOT :] = thumbnail(self.pixels)
        return vector


@dataclass(frozen=True, slots=True)
class _Part:
    size: Callable[[Robot], int]
    make: Callable[[_View], Floats]


def thumbnail(pixels: Pixels) -> Floats:
    """Return (192,) float32 in 0..1: HxWx3 uint8 averaged to 8x8, row by row."""
    small = area_averaged(pixels, THUMBNAIL, THUMBNAIL)
    return (np.asarray(small, dtype=np.float32) / np.float32(255)).ravel()


def hues(pixels: Pixels) -> Floats:
    """Return (36,) float32 of HxWx3 uint8 RGB: 12 shares of the image (0..1), 12 columns, 12 rows (-1..1).

    Bin b holds the saturated colours whose hue is within 15 degrees of 30 b: red, orange, yellow, ...
    """
    hue, saturation, value = hue_saturation_value(area_averaged(pixels, HUE_SIDE, HUE_SIDE))
    clear = np.flatnonzero((saturation > MIN_SATURATION) & (value > MIN_VALUE))
    bins = (hue.ravel()[clear].astype(np.intp) + 7) // 15 % HUES  # OpenCV's hue is in units of 2 degrees
    count = np.bincount(bins, minlength=HUES)
    rows, columns = np.divmod(clear, HUE_SIDE)
    middle = (HUE_SIDE - 1) / 2
    across = np.bincount(bins, (columns - middle) / middle, HUES) / (count + FEW_PIXELS)
    down = np.bincount(bins, (rows - middle) / middle, HUES) / (count + FEW_PIXELS)
    return np.concatenate([count / HUE_SIDE**2, across, down]).astype(np.float32)


def named_hue(found: Floats, instruction: str) -> Floats:
    """Return (3,) float32 of what `hues` found: share, column and row of the colour that the instruction names first; zeros: none."""
    bin_ = hue_of(instruction)
    return np.zeros(3, dtype=np.float32) if bin_ is None else found[bin_::HUES]


@lru_cache(maxsize=64)
def hue_of(instruction: str) -> int | None:
    """Return the bin of the first word that is a colour, in any case; None where no word is."""
    found = (HUE_OF.get(word) for word in re.findall(r"[a-z]+", instruction.lower()))
    return next((bin_ for bin_ in found if bin_ is not None), None)


@lru_cache(maxsize=64)
def words(instruction: str) -> Floats:
    """Return (32,) float32: how often each CRC-32 modulo 32 occurs among the lower-case words. Read-only."""
    counts = np.zeros(WORDS, dtype=np.float32)
    for word in instruction.lower().split():
        counts[zlib.crc32(word.encode()) % WORDS] += 1
    counts.flags.writeable = False
    return counts


def _pixels(robot: Robot, observation: Observation) -> Pixels:
    frames = observation.frames
    frame = frames.get(robot.camera) if robot.camera in frames else next(iter(frames.values()), None)
    if frame is None:
        raise ObservationError("no image for the features of the correction head", "missing-image")
    return np.ascontiguousarray(rgb(frame))


def _state(robot: Robot, observation: Observation) -> Floats:
    state = observation.state
    if state is None or state.shape != (robot.state_dim,):
        got = "none" if state is None else f"shape {state.shape}"
        raise ObservationError(
            f"the correction head needs a state of {robot.state_dim} numbers, got {got}", "state-length"
        )
    statistics = robot.state_statistics
    fits = statistics is not None and statistics.dim == robot.state_dim
    return statistics.normalise(state) if statistics is not None and fits else state


_PARTS: Mapping[str, _Part] = {
    "state": _Part(lambda robot: robot.state_dim, lambda view: view.state),
    "state_change": _Part(lambda robot: robot.state_dim, _View.state_change),
    "previous": _Part(lambda robot: robot.action_dim, _View.previous),
    "thumbnail8": _Part(lambda _: 3 * THUMBNAIL**2, lambda view: thumbnail(view.pixels)),
    "hues12": _Part(lambda _: 3 * HUES, lambda view: view.hues),
    "hues12_change": _Part(lambda _: 3 * HUES, _View.hues_change),
    "named_hue": _Part(lambda _: 3, _View.named_hue),
    "named_hue_change": _Part(lambda _: 3, _View.named_hue_change),
    "words32": _Part(lambda _: WORDS, lambda view: words(view.moment.now.instruction)),
    "runtime256": _Part(lambda _: 2 * SLOT + 3 * THUMBNAIL**2, _View.runtime),
}
