# SPDX-License-Identifier: Apache-2.0
"""The watchdog by itself: what it does about a loop that says it is late or gone."""

from __future__ import annotations

import logging
import threading

import pytest

from reflex_ros.node.holds import GONE, LATE
from reflex_ros.node.watchdog import TEXTS, Watchdog


class Loop:
    """A loop that is as overdue as the test says; `holds` is what a rescue comes to."""

    def __init__(self) -> None:
        self.reason = ""
        self.holds = True
        self.rescues: list[tuple[str, str]] = []
        self.error: BaseException | None = None
        self.raised = threading.Event()

    def overdue(self) -> str:
        error, self.error = self.error, None
        if error is not None:
            self.raised.set()
            raise error
        return self.reason

    def rescue(self, reason: str, text: str) -> bool:
        self.rescues.append((reason, text))
        return self.holds


def watched() -> tuple[Loop, Watchdog, list[str]]:
    loop, counted = Loop(), list[str]()
    return loop, Watchdog(loop, counted.append), counted


def test_a_loop_that_is_in_time_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    loop, dog, counted = watched()
    with caplog.at_level(logging.INFO):
        dog.check()
    assert (loop.rescues, counted, dog.barking, caplog.records) == ([], [], "", [])


def test_a_late_loop_is_held_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    loop, dog, counted = watched()
    loop.reason = LATE
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            dog.check()
        assert (loop.rescues, counted, dog.barking) == ([(LATE, TEXTS[LATE])], [LATE], LATE)
        loop.reason = ""
        for _ in range(2):
            dog.check()
    assert dog.barking == ""
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "chunk_loop_late ended" in caplog.text


def test_every_time_it_is_late_counts() -> None:
    loop, dog, counted = watched()
    for _ in range(2):
        loop.reason = LATE
        dog.check()
        loop.reason = ""
        dog.check()
    assert counted == [LATE, LATE]
    assert len(loop.rescues) == 2


def test_a_hold_that_was_not_possible_is_tried_again_until_it_is() -> None:
    loop, dog, counted = watched()
    loop.reason, loop.holds = LATE, False
    for _ in range(3):
        dog.check()
    assert len(loop.rescues) == 3
    loop.holds = True
    for _ in range(3):
        dog.check()
    assert len(loop.rescues) == 4
    assert counted == [LATE]


def test_a_late_loop_that_then_ends_is_another_reason() -> None:
    loop, dog, counted = watched()
    for reason in (LATE, GONE):
        loop.reason = reason
        dog.check()
    assert counted == [LATE, GONE]
    assert [reason for reason, _ in loop.rescues] == [LATE, GONE]
    assert loop.rescues[1][1] == TEXTS[GONE]
    assert dog.barking == GONE


def test_its_thread_looks_again_whatever_happened_and_ends_when_it_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop, rescued = Loop(), threading.Event()
    loop.error = KeyboardInterrupt()
    dog = Watchdog(loop, lambda _: rescued.set(), period_s=0.001)
    dog.close()  # never started: nothing to wait for
    dog = Watchdog(loop, lambda _: rescued.set(), period_s=0.001)
    dog.start()
    assert loop.raised.wait(10.0)
    loop.reason = LATE
    assert rescued.wait(10.0)
    dog.close()
    assert not dog._thread.is_alive()
    assert "the watchdog could not check the chunk loop" in caplog.text


def test_it_looks_many_times_before_a_chunk_of_the_longest_age_is_late_and_keeps_no_process_alive() -> None:
    _, dog, _ = watched()
    assert dog._period_s <= 0.1
    assert dog._thread.daemon


def test_another_reason_is_another_rescue() -> None:
    loop, dog, counted = watched()
    for reason in (LATE, GONE):
        loop.reason = reason
        dog.check()
    assert [reason for reason, _ in loop.rescues] == counted == [LATE, GONE]
