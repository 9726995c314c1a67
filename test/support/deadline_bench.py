# SPDX-License-Identifier: Apache-2.0
"""A deadline around an inference that a test makes slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from http_client import wait_for
from wedge_requests import MIDDLE, answer, count, counters, request

from reflex_core.values import HOLD, LAST_KNOWN_GOOD, POLICY, Floats, Request, Served
from reflex_core.wedges.deadline import FAILED, GIVEN_UP, KEPT, Deadline

SHORT_MS, LONG_MS = 20.0, 60_000.0
ENOUGH_MS = 300.0  # for an inference to begin on a busy machine
MEASURED: Floats = (MIDDLE + 0.2).astype(np.float32)


@dataclass
class Bench:
    """A deadline whose budget a test may change, and the counters it counts with."""

    budget_ms: float = LONG_MS
    max_age_ms: float = LONG_MS
    position: Floats | None = field(default_factory=lambda: MEASURED)
    most_workers: int = 32

    def __post_init__(self) -> None:
        self.counts = counters("misses", LAST_KNOWN_GOOD, HOLD, "holds", KEPT, FAILED, GIVEN_UP)
        self.deadline = Deadline(
            lambda: self.budget_ms,
            lambda: self.max_age_ms,
            lambda _: self.position,
            lambda _: answer(request()),
            self.counts["misses"],
            self.counts,
            self.counts["holds"],
            self.most_workers,
            self.counts,
        )

    def good(self, request: Request, actions: Floats | None = None, source: str = POLICY) -> Served:
        self.budget_ms = LONG_MS
        return self.deadline(request, lambda bounded: answer(bounded, actions, source=source))

    def missed(self, request: Request) -> Served:
        """The answer to a request whose inference goes on until it is cancelled, which it is by now."""
        self.budget_ms = SHORT_MS
        try:
            return self.deadline(replace(request, received_ns=time.monotonic_ns()), until_cancelled)
        finally:
            self.give_up()

    def give_up(self) -> None:
        """End what is left to finish."""
        self.deadline.close()
        wait_for(lambda: self.deadline.busy == 0)
        self.deadline._closed = False

    def counted(self, name: str) -> float:
        return count(self.counts[name])


def until_cancelled(request: Request) -> Served:
    assert request.cancellation is not None
    stopped = threading.Event()
    with request.cancellation.calling(stopped.set):
        stopped.wait(30)
    request.cancellation.check()
    raise AssertionError("the inference was not cancelled")


class Stubborn:
    """An inference that no cancellation reaches; it ends when the test says so."""

    def __init__(self, ending: Callable[[Request], Served] = answer) -> None:
        self.ending = ending
        self.calls = 0
        self.release = threading.Event()

    def __call__(self, request: Request) -> Served:
        self.calls += 1
        self.release.wait(30)
        return self.ending(request)
