# SPDX-License-Identifier: Apache-2.0
"""How a replayed answer differs from the recorded one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reflex_core.records.trace.parse import Recorded
from reflex_core.replay.comparison import (
    ACTIONS,
    CACHE,
    LATENCY,
    ActionsDiff,
    CacheDiff,
    JointDiff,
    LatencyDiff,
    Replayed,
    RequestDiff,
    Tolerances,
)
from reflex_core.values import Floats


def diff(record: Recorded, replayed: Replayed, modes: Sequence[str], tolerances: Tolerances) -> RequestDiff:
    """Compare in the given modes. Actions are those before the guard, which is no part of a replay."""
    steps = record.denoise_steps, replayed.denoise_steps
    made = RequestDiff(record.seq, record.slot, steps=steps, batch_size=record.batch_size)
    if ACTIONS in modes:
        names = record.names or replayed.names
        made = replace(made, actions=actions_diff(record.raw_actions, replayed.actions, names, tolerances))
    if LATENCY in modes:
        made = replace(made, latency=latency_diff(record, replayed, tolerances))
    if CACHE in modes:
        made = replace(made, cache=CacheDiff(record.cache_status, replayed.cache_status))
    return made


def actions_diff(
    recorded: Floats, replayed: Floats, names: Sequence[str], tolerances: Tolerances
) -> ActionsDiff:
    """Compare two (horizon, action_dim) chunks in physical units.

    The same NaN or infinity in the same place is no difference; anywhere else it is an infinite one. The cosine alone
    is blind: it is 1 for a chunk that is 30 per cent too large, and 0.9999996 for a small joint of the wrong sign.
    """
    shapes = recorded.shape, replayed.shape
    if recorded.shape != replayed.shape or recorded.size == 0:
        return ActionsDiff(*shapes, None, None, (), passed=False)
    before, after = recorded.astype(np.float64), replayed.astype(np.float64)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    finite = np.isfinite(before) & np.isfinite(after)
    apart = np.where(same, 0.0, np.inf)
    np.subtract(before, after, out=apart, where=finite)
    apart = np.abs(apart)
    joints = _joints(np.where(finite, before, 0.0), apart, names, tolerances)
    angle, furthest = cosine(before[finite], after[finite]), float(apart.max())
    passed = (
        angle >= tolerances.min_cosine
        and furthest < tolerances.max_abs
        and all(joint.passed for joint in joints)
    )
    return ActionsDiff(*shapes, angle, furthest, joints, passed)


def _joints(
    before: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    apart: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    names: Sequence[str],
    tolerances: Tolerances,
) -> tuple[JointDiff, ...]:
    travel = np.abs(before).max(axis=0)
    allowed = np.clip(tolerances.joint_share * travel, tolerances.joint_floor, None)
    allowed = np.minimum(allowed, tolerances.max_abs)
    count = len(travel)
    labels = list(names) if len(names) == count else [f"action {number}" for number in range(count)]
    furthest = apart.max(axis=0)
    return tuple(map(JointDiff, labels, furthest.tolist(), allowed.tolist()))


def cosine(
    before: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    after: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> float:
    """Return the cosine of the angle between two vectors; 1 for two that are all zero, 0 where only one is."""
    lengths = float(np.linalg.norm(before)), float(np.linalg.norm(after))
    if lengths == (0.0, 0.0):
        return 1.0
    if 0.0 in lengths:
        return 0.0
    return float(np.clip(np.dot(before / lengths[0], after / lengths[1]), -1.0, 1.0))


def latency_diff(record: Recorded, replayed: Replayed, tolerances: Tolerances) -> LatencyDiff:
    """Compare the whole request as recorded with the policy's time now; where nothing was recorded it passes."""
    injected = record.document.get("injected_latency_ms")
    before_ms = record.total_ms - (injected if isinstance(injected, (int, float)) else 0.0)
    stages = {
        name: (record.stages_ms.get(name), after_ms)
        for name, after_ms in replayed.stages_ms.items()
        if name in record.stages_ms
    }
    if before_ms <= 0.0:
        return LatencyDiff(before_ms, replayed.total_ms, None, passed=True, stages_ms=stages)
    pct = (replayed.total_ms - before_ms) / before_ms * 100.0
    return LatencyDiff(before_ms, replayed.total_ms, pct, abs(pct) <= tolerances.latency_pct, stages)
