# SPDX-License-Identifier: Apache-2.0
"""Stages of an export: what runs, for how long, with how much memory. A line each, and a moving one on a terminal."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reflex_core.concurrency.progress import reported_to

TICK_S = 1.0
_STATM = Path("/proc/self/statm")

Say = Callable[[str], None]  # a line that stays
Draw = Callable[[float, str], None]  # share that is done, 0 to 1, and what runs: replaced by the next one


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage took. peak_bytes: the most memory that this process has had until its end."""

    name: str
    seconds: float
    peak_bytes: int


class Stages:
    """Runs the stages of one export in order, and says what each of them takes."""

    def __init__(self, names: tuple[str, ...], say: Say, draw: Draw) -> None:
        self._names, self._say, self._draw = names, say, draw
        self._lock = threading.Lock()
        self._fraction, self._detail = 0.0, ""
        self.costs: list[StageCost] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run one of the named stages. What it reports meanwhile (reflex_core/concurrency/progress.py) is shown with it."""
        index, began_s, over = self._names.index(name), time.monotonic(), threading.Event()
        self._fraction, self._detail = index / len(self._names), ""

        def detail(fraction: float, text: str) -> None:
            with self._lock:
                self._fraction = (index + min(max(fraction, 0.0), 1.0)) / len(self._names)
                self._detail = text

        def show() -> None:
            with self._lock:
                words = (
                    f"{name}: {self._detail + ', ' if self._detail else ''}{time.monotonic() - began_s:.0f} s"
                )
                self._draw(self._fraction, f"{words}, {used_bytes() // 1_000_000} MB")

        def tick() -> None:
            while not over.wait(TICK_S):
                show()

        show()
        ticker = threading.Thread(target=tick, name="export-progress", daemon=True)
        ticker.start()
        try:
            with reported_to(detail):
                yield
        finally:
            over.set()
            ticker.join()
        cost = StageCost(name, time.monotonic() - began_s, peak_bytes())
        self.costs.append(cost)
        self._say(
            f"{index + 1}/{len(self._names)} {name}: {cost.seconds:.1f} s, at most {cost.peak_bytes // 1_000_000} MB of memory"
        )


def used_bytes() -> int:
    """Return how much memory this process has now; its peak where the system does not say."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return peak_bytes()


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
