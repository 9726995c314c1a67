# SPDX-License-Identifier: Apache-2.0
"""Which rows a robot gets: elapsed ones are skipped, those of a robot that waits are not, and requests state how far it is."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_client import Playback, Reply
from reflex_client.play.pacing import Pace


def chunk(request_id: str, rows: int = 10, start: int = 0) -> Reply:
    actions = np.arange(rows, dtype=np.float32)[:, None]
    return Reply(actions, ("a",), 0.05, request_id, start)


def indices(playback: Playback, count: int) -> list[int | None]:
    rows = [playback.next() for _ in range(count)]
    return [None if row is None else row.index for row in rows]


def test_a_robot_that_stood_still_begins_at_the_first_row_and_states_nothing() -> None:
    playback = Playback()
    mark = playback.mark()
    assert (mark.elapsed_rows, mark.previous_request_id) == (None, None)
    assert playback.next() is None
    assert playback.join(chunk("one"), mark)
    assert indices(playback, 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("share", "elapsed", "first"), [(1.0, 4.0, 3), (0.0, 3.0, 4), (0.25, 3.25, 4), (0.75, 3.75, 3)]
)
def test_rows_that_are_over_when_a_chunk_comes_are_skipped(share: float, elapsed: float, first: int) -> None:
    """Three rows were handed out while it was made; the newest at the observation was executed in part."""
    playback = Playback()
    playback.join(chunk("one"), playback.mark())
    indices(playback, 4)
    mark = playback.mark(share)
    assert (mark.elapsed_rows, mark.previous_request_id) == (elapsed, "one")
    assert indices(playback, 3) == [4, 5, 6]
    assert playback.join(chunk("two"), mark)
    assert playback.skipped_rows == first
    assert indices(playback, 2) == [first, first + 1]
    assert (playback.mark().elapsed_rows, playback.mark().previous_request_id) == (first + 2.0, "two")


def test_a_robot_that_used_up_its_rows_and_waits_misses_none_of_the_next_chunk() -> None:
    playback = Playback()
    playback.join(chunk("one", rows=2), playback.mark())
    assert indices(playback, 4) == [0, 1, None, None]
    mark = playback.mark()
    assert (mark.elapsed_rows, playback.rows_left) == (2.0, 0)
    indices(playback, 5)
    playback.join(chunk("two"), mark)
    assert indices(playback, 2) == [0, 1]


def test_a_chunk_whose_rows_are_all_over_changes_nothing() -> None:
    playback = Playback()
    playback.join(chunk("one"), playback.mark())
    mark = playback.mark()
    indices(playback, 5)
    assert not playback.join(chunk("two", rows=5), mark)
    assert indices(playback, 1) == [5]


def test_a_fallback_begins_at_its_start_index() -> None:
    playback = Playback()
    playback.join(chunk("one", start=4), playback.mark())
    assert playback.mark(0.0).elapsed_rows == 4.0
    assert indices(playback, 2) == [4, 5]


def test_the_next_chunk_is_asked_for_after_the_horizon_or_when_latency_needs_the_rest() -> None:
    playback = Playback()
    assert playback.due(None, 0.0, 0.0)
    playback.join(chunk("one"), playback.mark())
    assert not playback.due(None, 0.1, 0.05)
    assert playback.due(None, 0.46, 0.05), "the ten rows that are left take 0.5 s"
    indices(playback, 4)
    assert not playback.due(None, 0.0, 0.0)
    indices(playback, 1)
    assert playback.due(None, 0.0, 0.0)
    assert not playback.due(8, 0.0, 0.0)


def test_rows_are_paced_on_the_time_they_are_due_and_not_made_up_for_after_a_stall() -> None:
    pace = Pace()
    assert pace.wait_s(100.0) == 0.0
    pace.handed(100.0, 0.05)
    assert pace.wait_s(100.02) == pytest.approx(0.03)
    pace.handed(100.06, 0.05)
    assert pace.wait_s(100.06) == pytest.approx(0.04), "10 ms late once, not for ever"
    assert pace.share(100.06) == pytest.approx(0.2)
    pace.handed(101.0, 0.05)
    assert pace.wait_s(101.0) == pytest.approx(0.05), "after a stall rows come one by one"
    assert pace.share(105.0) == 1.0
