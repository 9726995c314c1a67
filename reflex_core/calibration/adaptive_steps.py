# SPDX-License-Identifier: Apache-2.0
"""Calibrate the threshold of an export: how early its denoise loop may stop before the actions change too much.

Stopping does not change the steps before it, so one full run shows the result of every threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from reflex_core.export.flow import Adaptive
from reflex_core.policy.base import Policy
from reflex_core.policy.sampler import Sampling, is_straight, relative_change
from reflex_core.values import Floats, Observation

THRESHOLDS = (0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
MIN_STEPS = (3, 4, 5, 6)  # after two steps a single coincidence would decide
PATIENCES = (1, 2)
QUANTILE = 0.95
EQUAL_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Course:
    """One chunk, step by step.

    stopped: (steps, horizon, action_dim) float32, the actions had the loop stopped after step 1, 2, ...; the last is
    the chunk of all steps; physical units. changes: the steps - 1 relative velocity changes.
    """

    stopped: Floats
    changes: tuple[float, ...]

    def stops_after(self, adaptive: Adaptive) -> int:
        """Return after how many steps the loop stops."""
        steps = len(self.stopped)
        taken = range(1, steps)
        return next((step for step in taken if is_straight(self.changes[: step - 1], adaptive)), steps)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one choice does. steps: mean per chunk.

    difference: of the largest difference in any action of a chunk, in shares of the joint's range, the 95th percentile
    over the observations.
    """

    adaptive: Adaptive
    steps: float
    difference: float


def course(policy: Policy, observation: Observation, seed: int) -> Course:
    """Denoise all steps and remember each. Raises what Policy.predict raises."""
    seen: list[tuple[Floats, Floats]] = []
    policy.predict(observation, seed, Sampling(watch=lambda left, judged: seen.append((left, judged))))
    stopped = [policy.physical(left, observation.state) for left, _ in seen]
    pairs, width = pairwise(judged for _, judged in seen), policy.contract.action_dim
    return Course(np.stack(stopped), tuple(relative_change(before, after, width) for before, after in pairs))


def candidates(courses: Sequence[Course], ranges: NDArray[np.float64]) -> list[Candidate]:
    """Return every choice applied to every course. ranges: (action_dim,) the joints' ranges, in the actions' units."""
    steps = len(courses[0].stopped)
    differences = np.array(
        [np.abs((one.stopped - one.stopped[-1]) / ranges).max(axis=(1, 2)) for one in courses]
    )
    return [_candidate(courses, differences, adaptive) for adaptive in _choices(steps)]


def _choices(steps: int) -> Iterable[Adaptive]:
    for threshold, least, patience in product(THRESHOLDS, MIN_STEPS, PATIENCES):
        if patience < least < steps:
            yield Adaptive(threshold, least, patience)


def _candidate(courses: Sequence[Course], differences: NDArray[np.float64], adaptive: Adaptive) -> Candidate:
    taken = np.array([one.stops_after(adaptive) for one in courses])
    found = differences[np.arange(len(courses)), taken - 1]
    return Candidate(adaptive, float(taken.mean()), float(np.quantile(found, QUANTILE)))


def choose(found: Sequence[Candidate], max_difference: float, steps: int) -> Candidate | None:
    """Return the choice that saves most steps while its difference stays within `max_difference`; None when none saves any.

    Of those within a twentieth of all steps of the best, the lowest threshold and the most steps before it counts: saving
    next to nothing more is no reason to be bolder on observations that were not measured.
    """
    allowed = [one for one in found if one.difference <= max_difference and one.steps < steps]
    if not allowed:
        return None
    fewest = min(one.steps for one in allowed)
    near = [one for one in allowed if one.steps <= fewest + EQUAL_SHARE * steps]
    return min(
        near, key=lambda one: (one.adaptive.threshold, -one.adaptive.min_steps, -one.adaptive.patience)
    )
