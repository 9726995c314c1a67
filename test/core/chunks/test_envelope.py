# SPDX-License-Identifier: Apache-2.0
"""The velocities of every motion lie inside the envelope that was known without it."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.chunks.envelope import envelope
from reflex_core.chunks.interpolation import Bounds, through

MOST, DT_S = 2.0, 0.05


@pytest.mark.parametrize("seed", range(40))
def test_what_is_executed_lies_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, dim = int(rng.integers(1, 51)), 7
    step = MOST * DT_S
    steps = (
        rng.uniform(-step, step, (count, dim)),
        np.clip(rng.normal(0.0, 2.0 * step, (count, dim)), -step, step),
        step * np.sin(np.arange(count)[:, None] / rng.uniform(1.0, 10.0, dim)),
        np.repeat(rng.uniform(-step, step, (count // 5 + 1, dim)), 5, axis=0)[:count],
    )[seed % 4]
    q = np.concatenate([np.zeros((1, dim)), np.cumsum(steps, axis=0)])
    room = float(rng.choice([0.0, 0.01, 1.0]))
    smooth = np.arange(dim) < rng.integers(5, 8)
    bounds = Bounds(
        q.min(axis=0) - room, q.max(axis=0) + room, np.full(dim, MOST), smooth, np.full(dim, np.nan)
    )
    velocity = rng.uniform(-MOST, MOST, dim)
    h = np.full(count, DT_S)
    if seed % 3 == 0:  # joined in the midst of a period, or after a pause
        h[0] = rng.uniform(0.2, 5.0) * DT_S
    times = np.concatenate([[0], np.cumsum(np.round(h * 1e9))]).astype(np.int64)
    motion = through(times, q, velocity, bounds)
    low, high = envelope(q, np.diff(times) * 1e-9, velocity, bounds)
    assert (low <= high).all()
    assert (motion.velocities >= low - 1e-6).all()
    assert (motion.velocities <= high + 1e-6).all()


def test_it_is_the_motion_itself_where_no_limit_is_near() -> None:
    q = np.sin(np.arange(30)[:, None] / 10.0) * np.ones(3)
    low, high = envelope(q, np.full(29, DT_S), np.zeros(3), Bounds.unlimited(3))
    motion = through(np.arange(30) * 50_000_000, q, np.zeros(3), Bounds.unlimited(3))
    np.testing.assert_array_equal(low, high)
    np.testing.assert_allclose(low, motion.velocities, atol=1e-9)
