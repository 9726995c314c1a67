# SPDX-License-Identifier: Apache-2.0
"""A recorder's background writer: what fails is lost and counted, and the end of a failure is noticed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from reflex_core.records.background_writer import BackgroundWriter

PATIENCE_S = 20.0


class Disk:
    """Takes records one by one; `room` of them, then it is full. Notes what the writer says."""

    def __init__(self, retry_s: float) -> None:
        self.room = 0
        self.attempts = 0
        self.logged: list[str] = []
        self.writer: BackgroundWriter[str] = BackgroundWriter(
            "disk", self.write, slug="disk-full", failed=self.failed, recovered=self.recovered, retry_s=retry_s,
            flush_interval_s=3600.0,
        )  # fmt: skip

    def write(self, batch: Sequence[str]) -> None:
        for word in batch:
            self.writer.attempt(len(word), partial(self.append, word))

    def append(self, word: str) -> None:
        self.attempts += 1
        for letter in word:
            if letter == "?":
                self.writer.lose(1)
            elif self.room:
                self.room -= 1
                self.writer.wrote(1)
            else:
                raise OSError(28, "No space left on device")

    def failed(self, error: Exception) -> None:
        self.logged.append(f"failed after {self.writer.problem or 'all was well'}")

    def recovered(self) -> None:
        self.logged.append(f"over: {self.writer.problem}")

    def put(self, *words: str) -> None:
        for word in words:
            self.writer.put(word)
        self.writer.close(PATIENCE_S)


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk(retry_s=0.0)
    yield made
    made.writer.close(PATIENCE_S)


def test_every_record_is_written_or_counted_as_lost(disk: Disk) -> None:
    disk.room = 4
    disk.put("ab", "c?d?e", "f")
    assert (disk.writer.written, disk.writer.dropped) == (4, 4)
    assert disk.writer.problem == "disk-full: No space left on device"
    assert disk.logged == ["failed after all was well", "failed after disk-full: No space left on device"]


def test_what_comes_soon_after_a_failure_is_lost_without_an_attempt() -> None:
    disk = Disk(retry_s=3600.0)
    disk.put("ab", "cde")
    assert (disk.attempts, disk.writer.written, disk.writer.dropped) == (1, 0, 5)
    assert len(disk.logged) == 1


def test_the_first_attempt_that_succeeds_ends_the_problem(disk: Disk) -> None:
    disk.writer.fail(OSError("the file could not be closed"))
    assert disk.writer.problem == "disk-full: the file could not be closed"
    disk.room = 9
    disk.put("ab", "c")
    assert disk.logged == ["failed after all was well", "over: disk-full: the file could not be closed"]
    assert (disk.writer.problem, disk.writer.written, disk.writer.dropped) == ("", 3, 0)


def test_items_refused_by_the_queue_are_lost_too(disk: Disk) -> None:
    disk.put("ab")
    assert not disk.writer.put("late")
    assert disk.writer.dropped == 3


def test_an_error_of_another_kind_is_no_failure_to_write(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(word: str) -> None:
        raise KeyError(word)

    disk.append = broken  # type: ignore[method-assign]
    disk.put("ab")
    assert (disk.writer.problem, disk.logged) == ("", [])
    assert "batch queue disk: 1 items lost" in caplog.text
