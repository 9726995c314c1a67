# SPDX-License-Identifier: Apache-2.0
"""Bars and tables: drawn on a real terminal, plain lines anywhere else, with and without rich."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

import pytest

from reflex_core.concurrency.progress import report
from reflex_ros.console.terminal import Bar, drawn, plain_table, watched

ROWS = [("ok", "port", "free"), ("FAIL", "a [bold] name", "taken")]


@dataclass
class Terminal:
    """A pseudo-terminal: `stream` to write to, `seen()` what a person's terminal got so far."""

    stream: TextIO
    reader: int
    got: bytearray = field(default_factory=bytearray)

    def seen(self) -> str:
        self.stream.flush()
        os.set_blocking(self.reader, False)
        try:
            while block := os.read(self.reader, 65536):
                self.got += block
        except BlockingIOError:
            pass
        return self.got.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    reader, writer = os.openpty()
    with os.fdopen(writer, "w") as stream:
        yield Terminal(stream, reader)
    os.close(reader)


def test_a_bar_shows_share_count_and_rate(terminal: Terminal) -> None:
    Bar(terminal.stream).draw(0.5, 10)
    assert re.search(r"\[############\.{12}\]  50%  10 requests  \d+/s\r$", terminal.seen())


def test_a_bar_is_not_drawn_more_often_than_people_can_read_but_the_end_always_is(terminal: Terminal) -> None:
    bar = Bar(terminal.stream, unit="episodes")
    for number in range(1, 101):
        bar.draw(number / 100, number)
    bar.clear()
    output = terminal.seen()
    assert output.count("episodes") < 10
    assert "[########################] 100%  100 episodes" in output
    assert output.endswith("\r\x1b[K")


def test_what_comes_next_is_shown_at_once(terminal: Terminal) -> None:
    bar = Bar(terminal.stream)
    for text in ("loading: the files", "calibrating: on the CPU", "calibrating: on the CPU"):
        bar.draw(0.0, text)
    assert terminal.seen().count("calibrating: on the CPU") == 1


def test_another_log_line_starts_where_the_bar_starts(terminal: Terminal) -> None:
    Bar(terminal.stream).draw(0.3, "loading: the graphs")
    assert terminal.seen().endswith("loading: the graphs\r")


def test_without_a_terminal_there_is_nothing_unless_lines_are_asked_for() -> None:
    stream, lines = io.StringIO(), list[str]()
    Bar(stream).draw(0.5, 10)
    Bar(stream, lines.append).draw(0.5, "warming up")
    assert (stream.getvalue(), lines) == ("", [" 50%  warming up"])


def test_plain_lines_come_every_tenth_and_for_every_new_task() -> None:
    lines: list[str] = []
    bar = Bar(io.StringIO(), lines.append, unit="images")
    for number in range(101):
        bar.draw(number / 100, number)
    assert [line[:4].strip() for line in lines] == ["0%", *(f"{tenth}0%" for tenth in range(1, 11))]
    lines.clear()
    for text in ("loading: a", "loading: a", "calibrating: x", "calibrating: y", "loading: b"):
        bar.draw(0.0, text)
    assert lines == ["  0%  loading: a", "  0%  calibrating: x", "  0%  loading: b"]


def test_watched_work_is_drawn_and_the_line_is_free_afterwards(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal.stream)

    def work() -> int:
        report(0.25, "loading", "the files")
        return 7

    assert watched(work) == 7
    output = terminal.seen()
    assert " 25%  loading: the files" in output
    assert output.endswith("\r\x1b[K")


def test_work_that_fails_leaves_a_free_line_too(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with pytest.raises(ZeroDivisionError):
        watched(lambda: 1 // 0)
    assert terminal.seen().endswith("\r\x1b[K")


def test_rich_draws_a_table_on_a_terminal_and_takes_no_text_for_markup(terminal: Terminal) -> None:
    assert drawn(ROWS, "doctor [red]", terminal.stream, ["green", "red"])
    output = terminal.seen()
    assert "doctor [red]" in output
    assert "a [bold] name" in output
    assert "\x1b[32m" in output  # green


def test_without_rich_or_without_a_terminal_nothing_is_drawn(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    assert not drawn(ROWS, "doctor", stream)
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert not drawn(ROWS, "doctor", terminal.stream)
    assert (stream.getvalue(), terminal.seen()) == ("", "")


def test_a_plain_table_is_as_wide_as_its_cells() -> None:
    assert plain_table(ROWS) == ["ok    port           free", "FAIL  a [bold] name  taken"]
    assert plain_table([]) == []
