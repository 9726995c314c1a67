# SPDX-License-Identifier: Apache-2.0
"""Some dozens of random chunks through the guard of tool and bodies, and that their judge sees what is broken.

The long run: python -m benchmarks.tool_fuzz --chunks 20000
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks import tool_fuzz
from benchmarks.tool_fuzz import History
from benchmarks.tool_robots import MACHINES, Machine, overlaps
from reflex_core.robot.limits.check import Check
from reflex_core.wedges import guard


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_no_executed_motion_is_beyond_a_limit_of_tool_or_bodies() -> None:
    found = tool_fuzz.run(0, 120)
    assert found.problems == []
    assert found.chunks == 120
    assert found.counts["clamped"] > 50


def test_without_the_guard_of_the_tool_the_judge_sees_every_limit_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "check_of", Check)
    monkeypatch.setattr(tool_fuzz, "ToolMotion", lambda *_: None)
    found = tool_fuzz.run(100, 180, most_problems=100)
    limits = ("box", "distance", "plane")
    assert {what for what, far in found.worst.items() if far > 1e-3} == {
        *limits, *(f"{what} of one outside" for what in limits), "speed", "turning",
    }  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.urdf)
def test_the_judge_agrees_with_the_product_about_places(machine: Machine) -> None:
    known = machine.kinematics()
    q = np.random.default_rng(0).uniform(*machine.range, (50, len(machine.names)))
    frames, poses = machine.frames(q), known.tree.poses(q)
    np.testing.assert_allclose(frames[machine.tool][0], poses[0][:, :3, 3], atol=1e-12)
    apart = -overlaps(machine, frames, 0.0, every=True)
    np.testing.assert_allclose(apart, known.gaps(poses), atol=1e-7)
    least = -overlaps(machine, frames, 0.0, every=False)[:, 0]
    assert (least >= apart.min(axis=1) - 1e-12).all()
    near = apart.min(axis=1) < 0.0
    np.testing.assert_allclose(least[near], apart.min(axis=1)[near], atol=1e-12)


def test_histories_begin_inside_at_a_limit_and_outside() -> None:
    begun = [History(seed) for seed in range(60)]
    far = [np.concatenate([one.least, one.least_apart]).max(initial=-1.0) for one in begun]
    assert sum(one > 0.001 for one in far) > 3
    assert sum(-1e-9 <= one < 1e-9 for one in far) > 1
    assert sum(one <= -0.002 + 1e-9 for one in far) > 20
    assert {one.machine.urdf for one in begun} == {"arm7.urdf", "skew5.urdf", "follower4.urdf"}
