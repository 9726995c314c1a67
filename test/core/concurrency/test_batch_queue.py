# SPDX-License-Identifier: Apache-2.0
"""The batch queue: order, bounds, a handler that fails, and a close that drains."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest

from reflex_core.concurrency.batch_queue import BATCH_ITEMS, BatchQueue

PATIENCE_S = 20.0


class Gate:
    """A handler that holds the queue's thread until it is opened, and keeps what it was given."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.seen: list[int] = []

    def __call__(self, batch: Sequence[int]) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE_S)
        self.seen.extend(batch)


def held(**bounds: int) -> tuple[Gate, BatchQueue[int]]:
    """A queue whose thread is busy with item -1, so that everything put now has to wait."""
    gate = Gate()
    queue: BatchQueue[int] = BatchQueue("test", gate, flush_interval_s=0.005, **bounds)
    assert queue.put(-1)
    assert gate.entered.wait(PATIENCE_S)
    return gate, queue


def test_items_reach_the_handler_in_order_and_on_another_thread() -> None:
    seen: list[int] = []
    threads: set[str] = set()

    def handler(batch: Sequence[int]) -> None:
        seen.extend(batch)
        threads.add(threading.current_thread().name)

    queue: BatchQueue[int] = BatchQueue("order", handler)
    assert all(queue.put(number) for number in range(1000))
    assert queue.close(PATIENCE_S)
    assert seen == list(range(1000))
    assert threads == {"batch-queue-order"}


def test_an_item_is_handled_within_the_interval_without_a_close() -> None:
    handled = threading.Event()
    queue: BatchQueue[int] = BatchQueue("interval", lambda _: handled.set(), flush_interval_s=0.05)
    queue.put(1)
    assert handled.wait(PATIENCE_S)
    queue.close(PATIENCE_S)


def test_many_items_do_not_wait_for_the_interval() -> None:
    handled = threading.Event()
    queue: BatchQueue[int] = BatchQueue("early", lambda _: handled.set(), flush_interval_s=3600)
    for number in range(BATCH_ITEMS):
        queue.put(number)
    assert handled.wait(PATIENCE_S)
    queue.close(PATIENCE_S)


def test_large_items_do_not_wait_for_the_interval() -> None:
    handled = threading.Event()
    queue: BatchQueue[int] = BatchQueue(
        "large", lambda _: handled.set(), flush_interval_s=3600, max_bytes=100
    )
    queue.put(1, 60)
    assert handled.wait(PATIENCE_S)
    queue.close(PATIENCE_S)


def test_a_full_queue_drops_the_new_item_and_counts_it() -> None:
    gate, queue = held(max_items=3)
    assert [queue.put(number) for number in range(5)] == [True, True, True, False, False]
    assert (queue.dropped, queue.waiting) == (2, 3)
    gate.opened.set()
    assert queue.close(PATIENCE_S)
    assert gate.seen == [-1, 0, 1, 2]


def test_bytes_are_bounded_too() -> None:
    gate, queue = held(max_bytes=100)
    assert [queue.put(number, 40) for number in range(4)] == [True, True, False, False]
    assert queue.put(9)  # nothing large about it
    gate.opened.set()
    assert queue.close(PATIENCE_S)
    assert gate.seen == [-1, 0, 1, 9]


def test_an_item_above_the_whole_bound_is_taken_when_nothing_else_waits() -> None:
    gate, queue = held(max_bytes=100)
    assert queue.put(1, 1000)
    assert not queue.put(2, 1)
    gate.opened.set()
    assert queue.close(PATIENCE_S)


def test_a_failing_handler_is_logged_once_counted_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[list[int]] = []

    def handler(batch: Sequence[int]) -> None:
        calls.append(list(batch))
        if len(calls) < 3:
            raise OSError("no")

    queue: BatchQueue[int] = BatchQueue("fails", handler, flush_interval_s=3600)
    with caplog.at_level(logging.ERROR):
        for number in range(3 * BATCH_ITEMS):
            queue.put(number)
        assert queue.close(PATIENCE_S)
    assert [number for batch in calls for number in batch] == list(range(3 * BATCH_ITEMS))
    assert queue.failures == 2
    assert len([record for record in caplog.records if "batch queue fails" in record.message]) == 1


def test_a_closed_queue_refuses_and_closes_again_quietly() -> None:
    queue: BatchQueue[int] = BatchQueue("closed", lambda _: None)
    assert queue.close(PATIENCE_S)
    assert not queue.put(1)
    assert queue.dropped == 1
    assert queue.close(PATIENCE_S)


def test_close_says_when_the_handler_hangs() -> None:
    gate, queue = held()
    assert not queue.close(timeout_s=0.05)
    gate.opened.set()
    assert queue.close(PATIENCE_S)


def test_nothing_is_lost_when_many_threads_put_at_once() -> None:
    seen: list[int] = []
    queue: BatchQueue[int] = BatchQueue("threads", seen.extend, flush_interval_s=0.005)
    start = threading.Barrier(4)

    def put(first: int) -> None:
        start.wait(PATIENCE_S)
        for number in range(first, first + 500):
            assert queue.put(number)

    threads = [threading.Thread(target=put, args=(first,)) for first in (0, 1000, 2000, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert queue.close(PATIENCE_S)
    assert len(seen) == 2000
    for first in (0, 1000, 2000, 3000):  # each thread's own items keep their order
        assert [number for number in seen if first <= number < first + 500] == list(range(first, first + 500))
