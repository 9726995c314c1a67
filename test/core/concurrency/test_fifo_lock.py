# SPDX-License-Identifier: Apache-2.0
"""The lock that is given in the order in which it was asked for."""

from __future__ import annotations

import threading
import time

import pytest

from reflex_core.concurrency.fifo_lock import FifoLock


def wait_until_waiting(turns: FifoLock, count: int) -> None:
    """Blocks until `count` callers stand in the queue; the queue is the only place that knows."""
    limit = time.monotonic() + 10
    while len(turns._waiting) < count:
        assert time.monotonic() < limit, "no thread joined the queue"
        time.sleep(0.001)


def test_callers_are_served_in_the_order_in_which_they_came() -> None:
    turns, order = FifoLock(), []

    def caller(number: int) -> None:
        with turns.turn():
            order.append(number)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(16)]
    with turns.turn():
        for count, thread in enumerate(threads, start=1):
            thread.start()
            wait_until_waiting(turns, count)
    for thread in threads:
        thread.join(10)
    assert order == list(range(16))


def test_who_comes_back_at_once_stands_behind_those_who_wait() -> None:
    turns, order = FifoLock(), []

    def other() -> None:
        with turns.turn():
            order.append("other")

    thread = threading.Thread(target=other)
    with turns.turn():
        thread.start()
        wait_until_waiting(turns, 1)
    with turns.turn():
        order.append("again")
    thread.join(10)
    assert order == ["other", "again"]


def test_only_one_is_inside_at_a_time_under_contention() -> None:
    turns, inside, seen, served = FifoLock(), [], [], []

    def caller(number: int) -> None:
        for _ in range(50):
            with turns.turn():
                inside.append(number)
                seen.append(len(inside))
                inside.pop()
                served.append(number)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(seen) == {1}
    assert len(served) == 8 * 50


def test_an_exception_inside_passes_the_turn_on() -> None:
    turns = FifoLock()
    with pytest.raises(RuntimeError, match="inside"), turns.turn():
        raise RuntimeError("inside")
    entered = threading.Event()

    def caller() -> None:
        with turns.turn():
            entered.set()

    thread = threading.Thread(target=caller)
    thread.start()
    thread.join(10)
    assert entered.is_set()


def test_one_who_is_interrupted_while_waiting_does_not_block_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = FifoLock()

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    with turns.turn():
        with monkeypatch.context() as patched:
            patched.setattr("reflex_core.concurrency.fifo_lock.threading.Event", Interrupted)
            with pytest.raises(KeyboardInterrupt), turns.turn():
                pass
        assert not turns._waiting
    with turns.turn():
        pass
