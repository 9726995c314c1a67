# SPDX-License-Identifier: Apache-2.0
"""Chunks that are compared all at once get the verdict of the comparison joint by joint, to the bit, also at the very limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reflex_core.robot.limits.check import Check, Checked
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.reachable import Motion, Start
from reflex_core.robot.presets import load_preset
from reflex_core.values import Floats

DT_S = 0.05
HISTORIES = 250


class Slow(Check):
    """The same check without the comparison of everything at once."""

    def _clean(self, actions: Floats, start: Start | None) -> bool:
        return False


def limits_of(kind: str) -> Limits:
    robot = load_preset("franka").without_gripper()
    found = effective_limits(robot.joint_names, robot, None)
    assert found is not None
    bends = {"speed": None, "bends": robot.acceleration_max}[kind.replace(",", "").split()[0]]
    if bends is not None:
        found = replace(found, acceleration_max=bends)
    if kind.endswith("a rate"):
        found = replace(found, rates=np.arange(found.dim) == 2)
    if kind.endswith("unlimited"):
        free = np.full(found.dim, np.inf)
        free[0] = found.velocity_max[0]
        found = replace(found, position_min=-free * 10, position_max=free * 10, velocity_max=free)
    return found


def near_the_limits(random: np.random.Generator, limits: Limits, horizon: int) -> tuple[Floats, Motion]:
    """A motion whose steps and bends are far inside, just inside, at, or just beyond what is allowed."""
    size = float(random.choice([0.1, 0.3, 0.9, 0.9999999, 1.0, 1.0000001, 1.05]))
    most = np.where(np.isfinite(limits.velocity_max), limits.velocity_max, 1.0) * DT_S
    bend = np.where(np.isfinite(limits.acceleration_max), limits.acceleration_max, 1e3) * DT_S**2
    low = np.where(np.isfinite(limits.position_min), limits.position_min, -3.0)
    high = np.where(np.isfinite(limits.position_max), limits.position_max, 3.0)
    step = random.uniform(-1, 1, limits.dim) * most * size
    at = low + (high - low) * random.choice([0.5, 0.001, 0.999], p=[0.8, 0.1, 0.1])
    first, rows = step.copy(), []
    for _ in range(horizon + 1):
        at = at + step
        rows.append(at)
        step = np.clip(step + random.choice([-1, 0, 1], limits.dim) * bend * size, -most * size, most * size)
    chunk = np.array(rows[1:], np.float32)
    edge = random.choice(["as it is", "at a bound", "far away", "still"], p=[0.6, 0.2, 0.1, 0.1])
    if edge == "at a bound":
        chunk = np.clip(chunk, low, high).astype(np.float32)
    if edge == "far away":
        chunk[random.integers(horizon)] *= 1e6
    if edge == "still":
        chunk[:] = chunk[0]
    where = rows[0] + random.choice([0.0, 1e-7, 0.01, 3.0], p=[0.6, 0.2, 0.15, 0.05])
    start = Start(
        np.minimum(rows[0], where), np.maximum(rows[0], where), first if random.random() < 0.7 else None
    )
    return chunk, Motion(start if random.random() < 0.8 else None)


def shown(checked: Checked) -> tuple[object, ...]:
    made = None if checked.actions is None else (checked.actions.dtype, checked.actions.tobytes())
    return made, checked.violations, checked.kinds, checked.changed, checked.counts, checked.held_for


@pytest.mark.parametrize("mode", ["clip", "scale", "reject"])
@pytest.mark.parametrize(
    "kind", ["speed", "bends", "bends and a rate", "bends, unlimited", "speed, unlimited"]
)
def test_every_verdict_is_that_of_the_slow_way(kind: str, mode: str) -> None:
    limits = limits_of(kind)
    fast, slow = Check(limits, DT_S, mode), Slow(limits, DT_S, mode)
    random = np.random.default_rng(len(kind) + len(mode))
    clean = broken = 0
    for _ in range(HISTORIES):
        chunk, motion = near_the_limits(random, limits, int(random.choice([1, 2, 3, 7, 50])))
        expected = slow(chunk.copy(), motion)
        found = fast(chunk, motion)
        assert shown(found) == shown(expected)
        if expected.clean:
            assert found.actions is chunk
            clean += 1
        else:
            broken += 1
        held = fast(chunk, motion, is_hold=True), slow(chunk.copy(), motion, is_hold=True)
        assert shown(held[0]) == shown(held[1])
    assert min(clean, broken) > HISTORIES // 20


def test_most_clean_chunks_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = limits_of("bends")
    check, random = Check(limits, DT_S, "clip"), np.random.default_rng(0)
    chunks = [near_the_limits(random, limits, 50) for _ in range(HISTORIES)]
    clean = [one for one in chunks if Slow(limits, DT_S, "clip")(*one).clean]
    monkeypatch.setattr(Check, "_in_range", lambda *_: pytest.fail("the long way"))
    for chunk, motion in clean:
        assert check(chunk, motion).actions is chunk
