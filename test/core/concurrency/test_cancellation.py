# SPDX-License-Identifier: Apache-2.0
"""Cancelling: what waits or computes for no caller stops."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from http_client import wait_for
from servers import ExportDir
from wedge_requests import Arm

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.concurrency.fifo_lock import FifoLock
from reflex_core.concurrency.worker_pool import WorkerPool
from reflex_core.errors import CancelledError


def test_it_calls_back_once_it_is_cancelled() -> None:
    cancellation, called = Cancellation(), []
    with cancellation.calling(lambda: called.append(1)):
        assert (called, cancellation.cancelled) == ([], False)
        cancellation.check()
        cancellation.cancel()
    assert (called, cancellation.cancelled) == ([1], True)
    with pytest.raises(CancelledError):
        cancellation.check()


def test_it_calls_back_at_once_when_it_was_cancelled_before() -> None:
    cancellation, called = Cancellation(), []
    cancellation.cancel()
    with cancellation.calling(lambda: called.append(1)):
        assert called == [1]


def test_it_does_not_call_back_what_is_over() -> None:
    cancellation, called = Cancellation(), []
    with cancellation.calling(lambda: called.append(1)):
        pass
    cancellation.cancel()
    assert called == []


def test_one_who_is_cancelled_in_the_queue_leaves_it_and_the_rest_keep_their_order() -> None:
    turns, order, cancellation = FifoLock(), [], Cancellation()

    def caller(name: str, own: Cancellation | None) -> None:
        try:
            with turns.turn(own):
                order.append(name)
        except CancelledError:
            order.append(f"{name} left")

    threads = []
    with turns.turn():
        for name, own in (("first", None), ("second", cancellation), ("third", None)):
            threads.append(threading.Thread(target=caller, args=(name, own)))
            threads[-1].start()
            waiting = len(threads)
            wait_for(lambda waiting=waiting: len(turns._waiting) == waiting)
        cancellation.cancel()
        threads[1].join(30)
        assert order == ["second left"]
    for thread in threads:
        thread.join(30)
    assert order == ["second left", "first", "third"]


def test_a_computation_inside_onnxruntime_stops_and_the_session_goes_on(export_dir: ExportDir) -> None:
    arm = Arm(export_dir("burning"))
    policy, cancellation = arm.policy, Cancellation()
    before = policy.predict(arm.request().observation, 1).actions
    ended: list[BaseException] = []

    def compute() -> None:
        try:
            policy.predict(arm.request(joint1=1.5).observation, 1, cancellation=cancellation)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=compute)
    thread.start()
    wait_for(lambda: cancellation._callbacks)  # inside the queue or the graph
    cancellation.cancel()
    thread.join(30)
    assert [type(error) for error in ended] == [CancelledError]
    np.testing.assert_array_equal(policy.predict(arm.request().observation, 1).actions, before)


def test_what_is_cancelled_before_it_begins_does_not_begin(export_dir: ExportDir) -> None:
    arm = Arm(export_dir("burning"))
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        arm.policy.predict(arm.request(joint1=1.5).observation, 1, cancellation=cancellation)


def test_workers_are_reused_and_end_when_they_are_idle() -> None:
    workers = WorkerPool(4, "test", idle_s=0.2)
    for number in range(20):
        task = workers.start(lambda number=number: number)
        assert task is not None
        assert task.wait(30)
        assert task.outcome() == number
    assert workers.threads == 1
    wait_for(lambda: workers.threads == 0)
    task = workers.start(threading.get_ident)
    assert task is not None
    assert task.wait(30)
    assert task.outcome() != threading.get_ident()


def test_a_worker_hands_its_error_to_the_caller_and_works_on() -> None:
    workers = WorkerPool(1, "test")

    def fail() -> int:
        raise ValueError("odd")

    for _ in range(3):
        task = workers.start(fail)
        assert task is not None
        assert task.wait(30)
        with pytest.raises(ValueError, match="odd"):
            task.outcome()


def test_more_work_than_workers_is_refused() -> None:
    workers, release = WorkerPool(2, "test"), threading.Event()
    tasks = [workers.start(lambda: release.wait(30)) for _ in range(3)]
    assert [task is None for task in tasks] == [False, False, True]
    assert workers.busy == 2
    assert tasks[0] is not None
    assert not tasks[0].wait(0.001)
    release.set()
    wait_for(lambda: workers.busy == 0)
    assert workers.start(lambda: None) is not None
