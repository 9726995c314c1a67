# SPDX-License-Identifier: Apache-2.0
"""The stages of an export: a line each with seconds and megabytes, and what runs meanwhile."""

from __future__ import annotations

import re
import threading

import pytest

from reflex_core.concurrency.progress import report
from reflex_export import progress
from reflex_export.progress import Stages


class Screen:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.drawn: list[tuple[float, str]] = []
        self.drew = threading.Condition()

    def draw(self, fraction: float, text: str) -> None:
        with self.drew:
            self.drawn.append((fraction, text))
            self.drew.notify_all()

    def shows(self, pattern: str) -> bool:
        """Wait until a text that was drawn matches."""
        with self.drew:
            return self.drew.wait_for(
                lambda: any(re.search(pattern, text) for _, text in self.drawn), timeout=10
            )


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr(progress, "TICK_S", 0.01)
    return Screen()


def test_each_stage_says_what_it_took(screen: Screen) -> None:
    stages = Stages(("one", "two"), screen.lines.append, screen.draw)
    for name in ("one", "two"):
        with stages.stage(name):
            pass
    assert [re.sub(r"\d+", "N", line) for line in screen.lines] == [
        "N/N one: N.N s, at most N MB of memory", "N/N two: N.N s, at most N MB of memory"
    ]  # fmt: skip
    assert [cost.name for cost in stages.costs] == ["one", "two"]
    assert all(cost.peak_bytes > 1_000_000 for cost in stages.costs)


def test_what_runs_is_shown_with_its_share_seconds_and_memory(screen: Screen) -> None:
    stages = Stages(("one", "two"), screen.lines.append, screen.draw)
    with stages.stage("two"):
        assert screen.shows(r"^two: 0 s, \d+ MB$")
        report(0.5, "writing", "12 of 24 MB")
        assert screen.shows(r"^two: writing: 12 of 24 MB, \d+ s, \d+ MB$")
    assert screen.drawn[0][0] == 0.5
    assert screen.drawn[-1][0] == 0.75


def test_a_stage_that_fails_says_nothing_and_stops_drawing(screen: Screen) -> None:
    stages = Stages(("one",), screen.lines.append, screen.draw)
    with pytest.raises(RuntimeError), stages.stage("one"):
        raise RuntimeError
    assert screen.lines == []
    assert not [thread for thread in threading.enumerate() if thread.name == "export-progress"]
