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
from benchmarks.tool_fuzz import HIGH, LOW, PAIRS, TOOL, Judge
from benchmarks.tool_judge import least_gap
from reflex_core.robot.limits.check import Check
from reflex_core.wedges import guard


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_no_executed_motion_is_beyond_a_limit_of_tool_or_bodies() -> None:
    found = tool_fuzz.run(0, 60)
    assert found.problems == []
    assert found.chunks == 60
    assert found.counts["clamped"] > 30


def test_without_the_guard_of_the_tool_the_judge_sees_every_limit_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "check_of", Check)
    monkeypatch.setattr(tool_fuzz, "ToolMotion", lambda *_: None)
    found = tool_fuzz.run(100, 180, most_problems=100)
    assert {what for what, far in found.worst.items() if far > 0.0} == {
        "box",
        "distance",
        "plane",
        "speed",
        "turning",
    }


def test_the_judge_agrees_with_the_product_about_places() -> None:
    known, judge = tool_fuzz.kinematics(), Judge()
    q = np.random.default_rng(0).uniform(LOW, HIGH, (50, 7))
    frames, poses = judge.robot.frames(q, judge.links), known.tree.poses(q)
    np.testing.assert_allclose(frames[TOOL][0], poses[0][:, :3, 3], atol=1e-12)
    apart = [least_gap(tool_fuzz.BODIES[one], tool_fuzz.BODIES[other], frames) for one, other in PAIRS]
    np.testing.assert_allclose(apart, known.gaps(poses).min(axis=1), atol=1e-7)
