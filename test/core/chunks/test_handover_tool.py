# SPDX-License-Identifier: Apache-2.0
"""A chunk is taken over no faster than the tool may move, at the very times at which its rows are due."""

from __future__ import annotations

import numpy as np
from planar_arm import DT_S, NAMES, planar, towards

from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Bounds, Doubles, Spline
from reflex_core.chunks.tool_motion import ToolMotion
from reflex_core.values import ActionChunk, Floats

NOW_NS, STEP_NS, MS = 10**15, round(DT_S * 1e9), 10**6
BEGIN, ACROSS = (0.5, -1.0), (1.5, -1.0)
MOST = 1.0


def handover(place: tuple[float, float] = BEGIN) -> Handover:
    limits = planar(speed_max=MOST)
    far = np.full(2, 3.0)
    bounds = Bounds(-far, far, np.full(2, 4.0), np.ones(2, np.bool_), np.full(2, np.nan))
    assert limits.tool is not None
    tool = ToolMotion(limits, limits.tool, bounds, DT_S)
    return Handover(bounds, lambda _: np.array(place), lambda: 0.3, tool=tool)


def hand(q: Doubles) -> Doubles:
    elbow = np.stack([np.cos(q[:, 0]), np.sin(q[:, 0])], axis=1)
    return elbow + np.stack([np.cos(q.sum(axis=1)), np.sin(q.sum(axis=1))], axis=1)


def fastest(motion: Spline, from_ns: int) -> float:
    q = motion.sampled(np.arange(from_ns, motion.end_ns, MS))
    return float(np.linalg.norm(np.diff(hand(q), axis=0), axis=1).max()) * 1e3


def taken(over: Handover, rows: Floats, now_ns: int, stamp_ns: int, start: int) -> Spline:
    chunk = over.led(ActionChunk(rows, NAMES, DT_S), stamp_ns, start, now_ns)
    assert over.keeps_tool(chunk, stamp_ns, start, now_ns)
    return over.take_over(chunk, stamp_ns, start, now_ns)


def test_a_chunk_that_is_joined_in_the_midst_of_a_period_is_slowed_down_at_its_own_times() -> None:
    over = handover()
    first = taken(over, towards(BEGIN, (0.9, -1.0)), NOW_NS, NOW_NS, 0)
    assert fastest(first, NOW_NS) <= MOST
    for part in (0.1, 0.5, 0.9):
        now_ns = NOW_NS + 12 * STEP_NS + int(part * STEP_NS)
        second = taken(over, towards((0.8, -1.0), ACROSS, 20), now_ns, now_ns - 2 * STEP_NS, 2)
        assert fastest(second, now_ns) <= MOST


def test_a_motion_that_is_too_fast_is_seen() -> None:
    over = handover()
    fast = ActionChunk(towards(BEGIN, ACROSS), NAMES, DT_S)
    assert not over.keeps_tool(fast, NOW_NS, 0, NOW_NS)
    assert over.keeps_tool(over.led(fast, NOW_NS, 0, NOW_NS), NOW_NS, 0, NOW_NS)


def test_a_chunk_that_keeps_the_limits_is_taken_as_it_is() -> None:
    over = handover()
    taken(over, towards(BEGIN, BEGIN), NOW_NS - STEP_NS * 29, NOW_NS - STEP_NS * 29, 0)
    rows = np.tile(np.array(BEGIN, np.float32), (30, 1))
    chunk = ActionChunk(rows, NAMES, DT_S)
    assert over.led(chunk, NOW_NS, 0, NOW_NS) is chunk
