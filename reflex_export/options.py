# SPDX-License-Identifier: Apache-2.0
"""What a user may say about an export, in one frozen value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reflex_core.errors import ConfigurationError
from reflex_core.text.untrusted import shown

FP32, FP16 = "fp32", "fp16"
DTYPES = (FP32, FP16)
OBSERVATIONS, LEAST_OBSERVATIONS = 6, 2
MOST_RUNS = 200  # of the network on one side of the comparison, as far as OBSERVATIONS go
# largest difference from LeRobot's own answer, in the robot's units
TOLERANCES = {FP32: 1e-4, FP16: 1e-2}
UNITS = ("radians", "metres", "degrees", "percent", "norm100")
CONTRADICTION = "option-contradiction"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of one export.

    Attributes:
        dtype: Of the weights in the graphs: `fp32` or `fp16`; inputs and outputs are float32 in both.
        fused: One graph with the whole denoise loop inside, for the families that have a loop of equal steps.
        observations: How many observations are compared with LeRobot's own answers; None: as many as `observations_of` says.
        seed: Of these observations and their start noise.
        bars: Value that LeRobot 0.4 left around letterboxed pictures of pi0 and pi0.5 (-3); None: as the installed one.
        tokenizer: Folder with tokenizer.json. vlm: folder with the config.json of SmolVLA's vision-language model.
        dataset: LeRobot data set (its folder or meta/info.json) that the policy was trained on.
        names: Of the actions, in their order. fps: control rate in Hz. units: of state and actions, one for all or one for
            each action.
        tolerance: Largest difference that counts as verified, in the robot's units; None: as TOLERANCES says.
        resize_cameras: Let the server scale pictures for policies that were trained without a resize.
        force: Replace an export that is there.
    """

    dtype: str = FP32
    fused: bool = False
    observations: int | None = None
    seed: int = 0
    bars: float | None = None
    tokenizer: Path | None = None
    vlm: Path | None = None
    dataset: Path | None = None
    names: tuple[str, ...] = ()
    fps: float | None = None
    units: tuple[str, ...] = ()
    tolerance: float | None = None
    resize_cameras: bool = False
    force: bool = False

    @property
    def largest_difference(self) -> float:
        """Return the tolerance in force, in the robot's units."""
        return TOLERANCES[self.dtype] if self.tolerance is None else self.tolerance

    def observations_of(self, steps: int) -> int:
        """Return how many observations are compared of a policy whose network runs `steps` times for an answer.

        Fewer of one that runs often: a Diffusion Policy of 263 million parameters and 100 steps answers in half a minute.
        """
        if self.observations is not None:
            return self.observations
        return max(LEAST_OBSERVATIONS, min(OBSERVATIONS, MOST_RUNS // steps))


def check_units(units: Sequence[str], actions: int) -> None:
    """Raise ConfigurationError unless these are units, none, one for all actions, or one for each."""
    if wrong := next((unit for unit in units if unit not in UNITS), None):
        raise ConfigurationError(f"--units must be of {', '.join(UNITS)}, got {shown(wrong)}", CONTRADICTION)
    if len(units) not in (0, 1, actions):
        raise ConfigurationError(
            f"--units must be one unit, or {actions} of them, one for each action, got {len(units)}",
            CONTRADICTION,
        )
