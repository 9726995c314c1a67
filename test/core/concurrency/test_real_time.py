# SPDX-License-Identifier: Apache-2.0
"""Real-time priority of one thread: taken where the system permits it, restored, and said why not where it does not."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from reflex_core.concurrency.real_time import PRIORITY, hurry, refusal


@pytest.fixture
def thread() -> Iterator[int]:
    """The native id of a thread that waits."""
    ends = threading.Event()
    waiting = threading.Thread(target=ends.wait)
    waiting.start()
    assert waiting.native_id is not None
    yield waiting.native_id
    ends.set()
    waiting.join()


def denied(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_thread_gets_it_alone_and_is_scheduled_as_before_afterwards(thread: int) -> None:
    if refusal():  # as in most containers
        with pytest.raises(PermissionError):
            hurry(thread)
        return
    before = hurry(thread)
    assert (os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority) == (
        os.SCHED_FIFO,
        PRIORITY,
    )
    assert os.sched_getscheduler(threading.get_native_id()) == os.SCHED_OTHER
    before.restore()
    assert os.sched_getscheduler(thread) == os.SCHED_OTHER


def test_a_thread_that_has_one_already_keeps_it(thread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_RR)
    monkeypatch.setattr(os, "sched_getparam", lambda _: os.sched_param(40))
    monkeypatch.setattr(os, "sched_setscheduler", denied)
    before = hurry(thread)
    assert (before.policy, before.priority) == (os.SCHED_RR, 40)


def test_what_is_not_permitted_is_said(thread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", denied)
    assert refusal() == "Operation not permitted"
    with pytest.raises(PermissionError):
        hurry(thread)


def test_a_system_without_priorities_has_none(thread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setscheduler")
    assert refusal() == "this system has no real-time priorities"


def test_a_thread_that_has_ended_needs_nothing(monkeypatch: pytest.MonkeyPatch, thread: int) -> None:
    def gone(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_FIFO)
    before = hurry(thread)
    monkeypatch.setattr(os, "sched_setscheduler", gone)
    before.restore()
