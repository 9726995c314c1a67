# SPDX-License-Identifier: Apache-2.0
"""The latency that robots wait for is learnt from real answers and kept for the next start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from reflex_core.calibration.latency_tracker import NEEDED, LatencyTracker
from reflex_core.engine.engine import Engine
from reflex_core.values import Request, Served

Answer = tuple[Request, Served]


@pytest.fixture
def answer(make_engine: Callable[..., Engine]) -> Answer:
    engine = make_engine("gr00t")
    assert engine.loaded is not None
    request = engine.request(engine.loaded.policy.canary())
    return request, engine.act(request)


@pytest.fixture
def kept() -> list[float]:
    return []


@pytest.fixture
def tracker(kept: list[float]) -> Iterator[LatencyTracker]:
    made = LatencyTracker(40.0, kept.append)
    yield made
    made.close()


def feed(tracker: LatencyTracker, answer: Answer, latencies_ms: Any, **chunk: Any) -> None:
    request, served = answer
    for latency_ms in latencies_ms:
        tracker(request, replace(served, latency_ms=latency_ms, chunk=replace(served.chunk, **chunk)))


def test_until_enough_is_known_the_first_guess_stands(tracker: LatencyTracker, answer: Answer) -> None:
    feed(tracker, answer, [90.0] * (NEEDED - 1))
    assert (tracker.compensation_ms, tracker.learnt) == (40.0, False)
    feed(tracker, answer, [90.0])
    assert (tracker.compensation_ms, tracker.learnt) == (90.0, True)


def test_it_is_the_95th_percentile_of_the_newest_hundred(tracker: LatencyTracker, answer: Answer) -> None:
    feed(tracker, answer, [5000.0] * 50)
    feed(tracker, answer, range(100))
    assert tracker.compensation_ms == pytest.approx(94.05)


def test_what_stood_in_at_a_deadline_teaches_nothing(tracker: LatencyTracker, answer: Answer) -> None:
    feed(tracker, answer, [33.0] * 100, source="last_known_good")
    assert not tracker.learnt


def test_what_was_learnt_is_kept_at_the_end(
    kept: list[float], tracker: LatencyTracker, answer: Answer
) -> None:
    feed(tracker, answer, [70.0] * 50)
    assert kept == []
    tracker.close()
    tracker.close()
    assert kept == [70.0]


def test_nothing_is_kept_where_nothing_was_learnt(kept: list[float], tracker: LatencyTracker) -> None:
    tracker.close()
    assert kept == []


def test_a_disk_that_is_full_does_not_end_learning(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    tried = threading.Semaphore(0)

    def full(_: float) -> None:
        tried.release()
        raise OSError(28, "No space left on device")

    tracker = LatencyTracker(40.0, full, keep_every_s=0.01)
    for _ in range(2):
        feed(tracker, answer, [70.0] * NEEDED)
        assert tried.acquire(timeout=10)
    tracker.close()
    assert tracker.compensation_ms == 70.0
    assert "No space left on device" in caplog.text
