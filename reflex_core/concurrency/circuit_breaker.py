# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker: what fails again and again is left alone, and probed before it is used as before."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

CLOSED, HALF_OPEN, OPEN = "closed", "half-open", "open"


def _ignore(_: str, __: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing may pass now. left_s: until the next probe may; probing: one is under way; failures: in a row."""

    left_s: float
    probing: bool
    failures: int


class CircuitBreaker:
    """Three states that the outcomes of calls change. Thread-safe.

    closed: every call may pass; `threshold` failures in a row open it. open: none may, until the cooldown is over or
    `half_open` is called. half-open: a success closes it, a failure opens it again.

    Each change of state begins a new term. The outcome of a call that names an earlier term is ignored; that of a call
    that names none always counts. on_change receives the new state and the reason, under the lock: it must be short and
    not call back.
    """

    def __init__(
        self,
        threshold: int,
        cooldown_s: float = math.inf,
        on_change: Callable[[str, str], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start closed. cooldown_s: after it one call at a time may probe; inf: only `half_open` lets calls pass again."""
        self.threshold, self.cooldown_s = threshold, cooldown_s
        self._on_change, self._clock = on_change, clock
        self._lock = threading.Lock()
        self._state = CLOSED
        self._failures = 0
        self._refuse_until = 0.0
        self._term = 0

    @property
    def state(self) -> str:
        """closed, open (until a call comes after the cooldown), or half-open (until a call has succeeded)."""
        return self._state

    @property
    def failures(self) -> int:
        """Failures since the last success."""
        return self._failures

    @property
    def probe_due(self) -> bool:
        """True when it is not closed and would let the next call pass."""
        return self._state != CLOSED and self._clock() >= self._refuse_until

    def enter(self) -> int | Refused:
        """Return the term in which a call begins, or why it must not; a call that passes while it is not closed probes."""
        with self._lock:
            if self._state == CLOSED:
                return self._term
            left_s = self._refuse_until - self._clock()
            if left_s > 0:
                return Refused(left_s, self._state == HALF_OPEN, self._failures)
            # a probe that hangs for ever must not keep everybody away for ever: the next follows a cooldown later
            self._refuse_until = self._clock() + self.cooldown_s
            self._change(HALF_OPEN, "the cooldown is over, one request probes the model")
            return self._term

    def succeeded(self, term: int | None = None) -> None:
        """Count a success: it closes a half-open breaker, and ends the row of failures of a closed one."""
        with self._lock:
            if not self._counts(term) or self._state == OPEN:
                return
            self._failures = 0
            if self._state == HALF_OPEN:
                self._change(CLOSED, "the probe succeeded")

    def failed(self, reason: str, term: int | None = None) -> None:
        """Count a failure: it opens a half-open breaker, and a closed one if it is the last of a row."""
        with self._lock:
            if not self._counts(term):
                return
            self._failures += 1
            if self._state == CLOSED and self._failures < self.threshold:
                return
            self._refuse_until = self._clock() + self.cooldown_s
            self._change(OPEN, f"{self._failures} failures in a row, the last: {reason}")

    def undecided(self, term: int | None = None) -> None:
        """Count a call that showed nothing: the next one may probe in its place."""
        with self._lock:
            if self._counts(term) and self._state == HALF_OPEN:
                self._refuse_until = self._clock()

    def half_open(self, reason: str) -> None:
        """Let calls pass again from now on, before the cooldown is over; they decide. Nothing if it is not open."""
        with self._lock:
            if self._state == OPEN:
                self._refuse_until = self._clock()
                self._change(HALF_OPEN, reason)

    def close(self, reason: str) -> None:
        """Close it whatever the outcomes of calls."""
        with self._lock:
            self._failures = 0
            if self._state != CLOSED:
                self._change(CLOSED, reason)

    def _counts(self, term: int | None) -> bool:
        return term is None or term == self._term

    def _change(self, state: str, reason: str) -> None:
        self._term += 1
        if state != self._state:
            self._state = state
            self._on_change(state, reason)
