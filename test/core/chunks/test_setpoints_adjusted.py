# SPDX-License-Identifier: Apache-2.0
"""Setpoints that are adjusted at every tick: what is sent, what a new chunk begins with, how the stream ends."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.chunks.course import Row
from reflex_core.chunks.setpoints import REPEATS, SetpointStream
from reflex_core.values import ActionChunk

MS = 1_000_000
PERIOD_NS = 10 * MS
ADDED = 0.05


def still(rows: int = 20) -> ActionChunk:
    return ActionChunk(np.zeros((rows, 1), np.float32), ("j",), 0.05)


def ticked(stream: SetpointStream, from_ms: int, until_ms: int, added: float = ADDED) -> list[float]:
    """What is sent, every tick adjusted by so much."""
    sent = []
    for now_ns in range(from_ms * MS, until_ms * MS, PERIOD_NS):
        due = stream.due(now_ns)
        row = None if due is None else stream.advance([due[0] + added] if stream.adjusted else due, now_ns)
        sent += [] if row is None else [float(row[0])]
    return sent


def adjusted() -> SetpointStream:
    """A stream that stands at 0 and is sent at ADDED."""
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.follow(still(), 0, 0, 0, np.zeros(1, np.float32), adjusted=True)
    assert ticked(stream, 0, 400)[-1] == pytest.approx(ADDED)
    return stream


def test_an_adjustment_is_not_counted_twice_where_a_new_chunk_begins() -> None:
    stream = adjusted()
    stream.follow(still(), 400 * MS, 0, 400 * MS, None, adjusted=True)
    np.testing.assert_allclose(ticked(stream, 400, 600), ADDED, atol=1e-9)


def test_a_hold_begins_where_the_adjusted_setpoint_was_and_is_not_adjusted() -> None:
    stream = adjusted()
    stream.follow(still(), 400 * MS, 0, 400 * MS, None)
    sent = ticked(stream, 400, 600)
    assert sent[0] == pytest.approx(ADDED)
    assert sent[-1] == 0.0
    assert np.abs(np.diff(sent)).max() <= ADDED / 5 + 1e-9  # on the way to the first row, not at once


def test_adjusted_setpoints_keep_to_the_limit_of_speed() -> None:
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.limit(np.array([0.3]))
    stream.follow(still(), 0, 0, 0, np.zeros(1, np.float32), adjusted=True)
    sent = ticked(stream, 0, 400)
    assert np.diff(sent, prepend=0.0).max() <= 0.003 + 1e-9
    assert sent[-1] == pytest.approx(ADDED)


def test_the_last_setpoint_is_repeated_as_it_was_adjusted_whatever_comes_of_it_then() -> None:
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.follow(still(4), 0, 0, 0, np.zeros(1, np.float32), adjusted=True)
    sent, tick_ms = ticked(stream, 0, 200), 200
    while not stream.silent:
        sent += ticked(stream, tick_ms, tick_ms + 10, added=tick_ms * 1e-4)
        tick_ms += 10
    assert sent[-REPEATS:] == [pytest.approx(0.02)] * REPEATS


def test_speeds_end_in_zeros_however_they_are_adjusted() -> None:
    stream = SetpointStream(1, velocities=True, period_ns=PERIOD_NS)
    stream.follow(still(4), 0, 0, 0, None, adjusted=True)
    sent = ticked(stream, 0, 500)
    assert sent[:20] == [pytest.approx(ADDED)] * 20
    assert sent[-REPEATS:] == [0.0] * REPEATS


def test_what_is_followed_or_ended_meanwhile_is_known_by_its_revision() -> None:
    stream, seen = adjusted(), set[int]()

    def noted() -> None:
        assert stream.revision not in seen
        seen.add(stream.revision)

    noted()
    stream.due(400 * MS)
    assert stream.revision in seen
    stream.follow(still(), 400 * MS, 0, 400 * MS, None)
    noted()
    stream.stop()
    noted()
    stream.forget()
    noted()
    row: Row | None = stream.advance([0.0], 410 * MS)
    assert row is None
