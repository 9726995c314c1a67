# SPDX-License-Identifier: Apache-2.0
"""When the next chunk is asked for: by made-up stamps, without a clock."""

from __future__ import annotations

import pytest

from reflex_core.chunks.scheduling import LATENCIES_KEPT, ChunkScheduler, ExecutingChunk

SECOND_NS = 10**9
CHUNK = ExecutingChunk(100 * SECOND_NS, 0.05, 50)  # 2.5 s
END_NS = CHUNK.stamp_ns + 2_500_000_000


def after(seconds: float) -> int:
    return CHUNK.stamp_ns + round(seconds * SECOND_NS)


def running(latency_s: float = 0.2) -> ChunkScheduler:
    scheduler = ChunkScheduler()
    scheduler.started(CHUNK, latency_s)
    return scheduler


@pytest.mark.parametrize(
    ("seconds", "rows"), [(-1.0, 0), (0.0, 0), (0.049, 0), (0.051, 1), (1.26, 25), (2.51, 50), (99.0, 50)]
)
def test_a_row_is_over_when_the_next_one_begins(seconds: float, rows: int) -> None:
    assert CHUNK.elapsed(after(seconds)) == rows


def test_what_remains_is_counted_to_the_last_row() -> None:
    assert CHUNK.remaining_s(after(0.0)) == pytest.approx(2.5)
    assert CHUNK.remaining_s(after(2.0)) == pytest.approx(0.5)
    assert CHUNK.remaining_s(after(3.0)) == 0.0
    assert CHUNK.end_ns == END_NS


def test_without_a_running_chunk_the_next_one_is_due_at_once() -> None:
    scheduler = ChunkScheduler()
    assert scheduler.due_ns(25, 0.03) is None
    scheduler.started(CHUNK, 0.2)
    assert scheduler.running is CHUNK
    scheduler.reset()
    assert scheduler.due_ns(25, 0.03) is None
    assert scheduler.keeps_up(0.03)


def test_the_next_chunk_is_due_after_the_execution_horizon() -> None:
    assert running().due_ns(25, 0.03) == after(1.25)


@pytest.mark.parametrize("execution_horizon", [50, 80])
def test_it_is_due_earlier_where_the_answer_would_come_too_late(execution_horizon: int) -> None:
    assert running(latency_s=0.2).due_ns(execution_horizon, 0.03) == after(2.5 - 0.2 - 0.03)


def test_an_answer_slower_than_the_chunk_is_asked_for_when_that_begins() -> None:
    assert running(latency_s=3.0).due_ns(25, 0.03) == CHUNK.stamp_ns


def test_a_horizon_of_more_rows_than_the_chunk_has_ends_with_it() -> None:
    assert running(latency_s=0.0).due_ns(80, 0.0) == END_NS


@pytest.mark.parametrize(("latency_s", "margin_s", "keeps_up"), [(2.4, 0.05, True), (2.4, 0.11, False)])
def test_inference_keeps_up_while_the_answer_comes_before_the_chunk_ends(
    latency_s: float, margin_s: float, keeps_up: bool
) -> None:
    assert running(latency_s).keeps_up(margin_s) == keeps_up


def test_no_room_at_all_is_not_enough() -> None:
    scheduler = ChunkScheduler()
    scheduler.started(ExecutingChunk(0, 0.5, 4), 1.5)
    assert not scheduler.keeps_up(0.5)
    assert scheduler.keeps_up(0.25)


def test_the_slowest_of_the_newest_answers_counts() -> None:
    scheduler = ChunkScheduler(first_latency_s=0.7)
    assert scheduler.latency_s == 0.7
    scheduler.started(CHUNK, 0.4)
    assert scheduler.latency_s == 0.4
    for _ in range(LATENCIES_KEPT - 1):
        scheduler.started(CHUNK, 0.1)
    assert scheduler.latency_s == 0.4
    scheduler.started(CHUNK, 0.1)
    assert scheduler.latency_s == 0.1


def test_no_latency_is_expected_of_the_first_answer_by_default() -> None:
    assert ChunkScheduler().latency_s == 0.0


def test_an_answer_that_is_thrown_away_teaches_its_latency_and_runs_nothing() -> None:
    scheduler = running(0.2)
    scheduler.learn(0.9)
    assert scheduler.latency_s == 0.9
    assert scheduler.running is CHUNK
