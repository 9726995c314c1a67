# SPDX-License-Identifier: Apache-2.0
"""Judge the health of the slots, and return one that was taken out of traffic by probing it."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.concurrency.circuit_breaker import CLOSED
from reflex_core.values import Observation, Request, Served

HEALTHY, DRAIN_A, DRAIN_B, DEGRADED = "healthy", "drain-a", "drain-b", "degraded"
INTERVAL_S = 0.5
TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


class SlotBreaker(Protocol):
    """The part of a slot's circuit breaker that health checks use."""

    @property
    def state(self) -> str:
        """closed, open or half-open."""
        ...

    @property
    def probe_due(self) -> bool:
        """True when it is not closed and would let the next request through."""
        ...


def is_out(breaker: SlotBreaker | None) -> bool:
    """Return True while a slot gets no traffic: its breaker is open, or half-open until its probe has succeeded."""
    return breaker is not None and breaker.state != CLOSED


def verdict(a_out: bool, b_out: bool) -> str:
    """Return healthy; drain-a: all goes to b; drain-b: all goes to a; or degraded: both are out."""
    if a_out and b_out:
        return DEGRADED
    if a_out:
        return DRAIN_A
    return DRAIN_B if b_out else HEALTHY


class Prober:
    """Heals one slot off the request path: when its cooldown is over it runs the canary through its breaker.

    act: the slot's breaker and what is inside it. canary: the observation of warm-up. A probe that takes longer than
    `timeout_s` is cancelled. One thread, which sleeps while the breaker is closed; `close` ends it.
    """

    def __init__(
        self,
        slot: str,
        breaker: SlotBreaker,
        act: Callable[[Request], Served],
        canary: Observation,
        *,
        interval_s: float = INTERVAL_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._slot, self._breaker, self._act, self._canary = slot, breaker, act, canary
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._numbers = itertools.count()
        self._probes = 0
        self._closing = threading.Event()
        self._running: Cancellation | None = None
        self._thread = threading.Thread(target=self._run, name=f"prober-{slot}", daemon=True)

    @property
    def probes(self) -> int:
        """How many probes it has made."""
        return self._probes

    def start(self) -> None:
        """Begin to watch the breaker."""
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop watching; a probe under way is cancelled. May be called again, and before `start`."""
        self._closing.set()
        running = self._running
        if running is not None:
            running.cancel()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def check(self) -> bool:
        """Probe if it is due; return True when the slot answered and is closed again."""
        if not self._breaker.probe_due:
            return False
        self._probes += 1
        cancellation = Cancellation()
        self._running = cancellation
        timer = threading.Timer(self._timeout_s, cancellation.cancel)
        timer.daemon = True
        timer.start()
        try:
            self._act(self._request(cancellation))
        except Exception as error:  # the breaker has counted it; the next probe follows a cooldown later
            log.info("slot '%s' does not answer its canary yet: %s", self._slot, error)
        finally:
            timer.cancel()
            self._running = None
        return self._breaker.state == CLOSED

    def _request(self, cancellation: Cancellation) -> Request:
        return Request(
            self._canary,
            time.monotonic_ns(),
            f"canary-{self._slot}-{next(self._numbers)}",
            seed=0,
            cancellation=cancellation,
        )

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self.check()
