# SPDX-License-Identifier: Apache-2.0
"""A thread that ticks at a rate: while there is something to do, without bursts, and known from outside to be late or gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from ros_world import wait_for

from reflex_ros.outputs import ticks as ticks_module
from reflex_ros.outputs.ticks import LATE_S, Ticks

RATE_HZ = 100.0


@pytest.fixture
def make() -> Iterator[Callable[[Callable[[], bool]], Ticks]]:
    made: list[Ticks] = []

    def of(tick: Callable[[], bool]) -> Ticks:
        made.append(Ticks("output arm", RATE_HZ, tick))
        return made[-1]

    yield of
    for each in made:
        each.close()
        assert not each._thread.is_alive()


def test_it_ticks_until_there_is_nothing_more_to_do_and_again_when_there_is(
    make: Callable[[Callable[[], bool]], Ticks],
) -> None:
    times_s: list[float] = []

    def tick() -> bool:
        times_s.append(time.monotonic())
        return len(times_s) % 20 != 0

    ticks = make(tick)
    for begun in (1, 2):
        ticks.begin()
        wait_for(lambda until=20 * begun: len(times_s) == until, "twenty ticks")  # type: ignore[misc]
        wait_for(lambda: ticks.late_s == 0.0, "none is due")
    for run_s in (times_s[:20], times_s[20:]):
        assert np.diff(run_s).min() > 0.4 / RATE_HZ
    figures = ticks.cadence.figures("arm")
    assert figures.ticks == 38  # the last of each is followed by none
    assert 0.0 <= figures.late_p50_s < figures.late_max_s


def test_ticks_that_come_too_late_are_left_out_and_counted(
    make: Callable[[Callable[[], bool]], Ticks],
) -> None:
    times_s: list[float] = []

    def tick() -> bool:
        times_s.append(time.monotonic())
        if len(times_s) == 5:
            time.sleep(0.2)
        return len(times_s) < 10

    ticks = make(tick)
    ticks.begin()
    wait_for(lambda: len(times_s) == 10, "ten ticks")
    assert np.diff(times_s).min() > 0.4 / RATE_HZ  # no burst
    assert ticks.cadence.figures("arm").skipped >= 18


def test_a_tick_that_does_not_end_is_late_until_it_does(make: Callable[[Callable[[], bool]], Ticks]) -> None:
    inside, ends = threading.Event(), threading.Event()

    def tick() -> bool:
        inside.set()
        ends.wait(30)
        return False

    ticks = make(tick)
    assert ticks.late_s == 0.0
    ticks.begin()
    assert inside.wait(30)
    wait_for(lambda: ticks.late_s > LATE_S, "it is late")
    ticks.begin()  # does not make it begin anew
    assert ticks.late_s > LATE_S
    assert not ticks.gone
    ends.set()
    wait_for(lambda: ticks.late_s == 0.0, "none is due")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_by_itself_is_gone_and_one_that_is_closed_is_not(
    make: Callable[[Callable[[], bool]], Ticks],
) -> None:
    def tick() -> bool:
        raise SystemExit

    ticks = make(tick)
    assert not ticks.gone
    ticks.begin()
    wait_for(lambda: ticks.gone, "it has ended")
    closed = make(lambda: False)
    closed.close()
    assert not closed.gone


def test_a_tick_that_does_not_end_is_said_and_abandoned(
    make: Callable[[Callable[[], bool]], Ticks],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ticks_module, "JOIN_S", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def tick() -> bool:
        begun.set()
        return go_on.wait()

    ticks = make(tick)
    ticks.begin()
    assert begun.wait(10.0)
    ticks.close()
    assert "output arm: a tick does not end" in caplog.text
    go_on.set()
    wait_for(lambda: not ticks._thread.is_alive(), "its thread ends")
