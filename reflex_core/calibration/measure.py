# SPDX-License-Identifier: Apache-2.0
"""How long an inference takes on this machine, and how far that figure can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WARM_UP_RUNS, RUNS, BUDGET_S = 10, 100, 5.0
FEWEST_RUNS = 3
TRIMMED = 0.05  # of the runs, at either end
STEADY, USELESS = 0.10, 0.30  # coefficients of variation: quality 1 and quality 0


@dataclass(frozen=True, slots=True)
class Run:
    """One inference: all of it, and the part of it that grows with the denoise steps."""

    total_ms: float
    denoise_ms: float


@dataclass(frozen=True, slots=True)
class Quality:
    """What a measurement was made of. quality_score: 1 steady, 0 useless."""

    warmup_iters: int
    measurement_iters: int
    median_ms: float
    p99_ms: float
    n_outliers_dropped: int
    quality_score: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """Medians of the trimmed runs; p95 and p99 are of all of them, because the slow ones are what a robot waits for."""

    total_ms: float
    denoise_ms: float
    p95_ms: float
    quality: Quality


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: at most `runs` after at most `warm_up_runs`, each of the two within its half of the budget."""

    warm_up_runs: int = WARM_UP_RUNS
    runs: int = RUNS
    budget_s: float = BUDGET_S


USUAL = Effort()


def measure(run: Callable[[], Run], effort: Effort = USUAL) -> Measurement:
    """Warm up, run, trim. A slow policy gets fewer runs, but never fewer than three."""
    warm = len(_repeat(run, effort.warm_up_runs, effort.budget_s / 2, fewest=1))
    runs = _repeat(run, effort.runs, effort.budget_s / 2, fewest=FEWEST_RUNS)
    every_ms = np.array([one.total_ms for one in runs])
    order = np.argsort(every_ms, kind="stable")
    tail = int(len(runs) * TRIMMED)
    kept = order[tail : len(runs) - tail]
    kept_ms = every_ms[kept]
    denoise_ms = np.array([one.denoise_ms for one in runs])[kept]
    quality = Quality(
        warmup_iters=warm,
        measurement_iters=len(runs),
        median_ms=float(np.median(kept_ms)),
        p99_ms=float(np.percentile(every_ms, 99)),
        n_outliers_dropped=2 * tail,
        quality_score=quality_score(kept_ms.std() / kept_ms.mean() if kept_ms.mean() > 0 else 0.0),
    )
    p95_ms = float(np.percentile(every_ms, 95))
    return Measurement(quality.median_ms, float(np.median(denoise_ms)), p95_ms, quality)


def quality_score(variation: float) -> float:
    """Return 1.0 at a coefficient of variation of 0.10 or less, falling linearly to 0.0 at 0.30."""
    return float(np.clip((USELESS - variation) / (USELESS - STEADY), 0.0, 1.0))


def _repeat(run: Callable[[], Run], most: int, budget_s: float, fewest: int) -> list[Run]:
    runs: list[Run] = []
    until = time.monotonic() + budget_s
    while len(runs) < fewest or (len(runs) < most and time.monotonic() < until):
        runs.append(run())
    return runs
