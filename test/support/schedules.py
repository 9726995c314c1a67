# SPDX-License-Identifier: Apache-2.0
"""Diffusers' schedules twice: as rows of a sampler table, and as the formulas themselves, step by step in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import cos, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON, SAMPLE = "epsilon", "sample"
TRAINED = 100  # num_train_timesteps
COLUMNS = [
    "time",
    "x0_from_x",
    "x0_from_network",
    "next_from_x0",
    "next_from_x",
    "next_from_network",
    "next_from_noise",
]

Array = NDArray[np.float64]
Network = Callable[[Array, int], Array]


@dataclass(frozen=True)
class Step:
    """A time of the schedule, abar there and after the step."""

    time: int
    here: float
    after: float


def times(steps: int) -> list[Step]:
    """squaredcos_cap_v2 betas, `leading` spacing, abar 1 after the last step (set_alpha_to_one)."""

    def level(at: float) -> float:
        return cos((at + 0.008) / 1.008 * pi / 2) ** 2

    betas = [min(1 - level((t + 1) / TRAINED) / level(t / TRAINED), 0.999) for t in range(TRAINED)]
    alphas = np.cumprod(1 - np.array(betas))
    stride = TRAINED // steps
    return [
        Step(t, float(alphas[t]), float(alphas[t - stride]) if t >= stride else 1.0)
        for t in range((steps - 1) * stride, -1, -stride)
    ]


def ddim_table(steps: int, prediction: str = EPSILON, clip: float | None = 1.0) -> dict[str, Any]:
    """DDIM with eta 0."""
    rows = []
    for step in times(steps):
        x0 = _estimate(step, prediction)
        if prediction == EPSILON:
            rest = [sqrt(step.after), 0.0, sqrt(1 - step.after), 0.0]
        else:  # eps = (x - sqrt(abar) sample) / sqrt(1 - abar), of what is not clipped
            share = sqrt((1 - step.after) / (1 - step.here))
            rest = [sqrt(step.after), share, -share * sqrt(step.here), 0.0]
        rows.append([step.time, *x0, *rest])
    return {"columns": COLUMNS, "rows": rows, "clip": clip}


def ddpm_table(steps: int, prediction: str = EPSILON, clip: float | None = 1.0) -> dict[str, Any]:
    """DDPM with `fixed_small` variance."""
    rows = []
    for step in times(steps):
        from_x0, from_x, sigma = _posterior(step)
        rows.append([step.time, *_estimate(step, prediction), from_x0, from_x, 0.0, sigma])
    return {"columns": COLUMNS, "rows": rows, "clip": clip}


def ddim(network: Network, noise: Array, steps: int, prediction: str = EPSILON, clip: float = 1.0) -> Array:
    """Song et al., 2010.02502, equation 12 with sigma 0, as diffusers writes it."""
    x = noise[:1]
    for step in times(steps):
        made = network(x, step.time)
        x0 = (x - sqrt(1 - step.here) * made) / sqrt(step.here) if prediction == EPSILON else made
        eps = made if prediction == EPSILON else (x - sqrt(step.here) * made) / sqrt(1 - step.here)
        x = sqrt(step.after) * np.clip(x0, -clip, clip) + sqrt(1 - step.after) * eps
    return x


def ddpm(network: Network, noise: Array, steps: int, clip: float = 1.0) -> Array:
    """Ho et al., 2006.11239, equation 7: the posterior's mean, and noise in every step but the last."""
    x, fresh = noise[:1], _one_by_one(noise[1:])
    for step in times(steps):
        made = network(x, step.time)
        x0 = np.clip((x - sqrt(1 - step.here) * made) / sqrt(step.here), -clip, clip)
        alpha = step.here / step.after
        mean = sqrt(step.after) * (1 - alpha) / (1 - step.here) * x0
        mean = mean + sqrt(alpha) * (1 - step.after) / (1 - step.here) * x
        variance = max((1 - step.after) / (1 - step.here) * (1 - alpha), 1e-20)
        x = mean + sqrt(variance) * next(fresh) if step.time > 0 else mean
    return x


def _one_by_one(noise: Array) -> Iterator[Array]:
    for index in range(len(noise)):
        yield noise[index : index + 1]


def _estimate(step: Step, prediction: str) -> tuple[float, float]:
    if prediction == SAMPLE:
        return 0.0, 1.0
    return 1 / sqrt(step.here), -sqrt(1 - step.here) / sqrt(step.here)


def _posterior(step: Step) -> tuple[float, float, float]:
    alpha = step.here / step.after
    sigma = sqrt(max((1 - step.after) / (1 - step.here) * (1 - alpha), 1e-20)) if step.time > 0 else 0.0
    from_x0 = sqrt(step.after) * (1 - alpha) / (1 - step.here)
    return from_x0, sqrt(alpha) * (1 - step.after) / (1 - step.here), sigma
