# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker of one policy slot: a model that keeps failing is left alone for a while, then probed."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

import numpy as np

from reflex_core.errors import CancelledError, NotReadyError, ObservationError
from reflex_core.values import Request, Served
from reflex_core.wedges.wedge import Proceed

CLOSED, HALF_OPEN, OPEN = "closed", "half-open", "open"
STATE_NUMBERS = {CLOSED: 0, HALF_OPEN: 1, OPEN: 2}  # what the gauge shows

log = logging.getLogger(__name__)


def _ignore(_: str) -> None:
    pass


class Breaker:
    """Opens after `threshold` failures in a row; after `cooldown_s` one request at a time may probe the model.

    A failure is an exception of the model or an answer with NaN or Inf, which goes on to the guard. What the caller did
    wrong, and what was cancelled, is neither failure nor success. threshold 0: no breaker.
    on_change is told the new state under the breaker's lock: it must be short and not call back.
    """

    def __init__(
        self,
        threshold: int,
        cooldown_s: float,
        slot: str,
        on_change: Callable[[str], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold, self._cooldown_s = threshold, cooldown_s
        self._slot, self._on_change, self._clock = slot, on_change, clock
        self._lock = threading.Lock()
        self._state = CLOSED
        self._failures = 0
        self._refuse_until = 0.0
        self._term = 0  # what a request of an earlier term brings back says nothing about this one

    @property
    def state(self) -> str:
        """closed, open (until a request comes after the cooldown), or half-open (until its probe has succeeded)."""
        return self._state

    @property
    def consecutive_failures(self) -> int:
        """Failures since the last success."""
        return self._failures

    @property
    def threshold(self) -> int:
        """How many failures in a row open it."""
        return self._threshold

    @property
    def probe_due(self) -> bool:
        """True when it is not closed and would let the next request through."""
        return self._state != CLOSED and self._clock() >= self._refuse_until

    def reset(self) -> None:
        """Close it by hand."""
        with self._lock:
            self._close("reset by hand")

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        if self._threshold <= 0:
            return proceed(request)
        term = self._enter()
        try:
            served = proceed(request)
        except (ObservationError, NotReadyError, CancelledError):
            self._undecided(term)
            raise
        except Exception as error:
            self._failed(term, f"{type(error).__name__}: {error}")
            raise
        except BaseException:
            self._undecided(term)
            raise
        if np.isfinite(served.chunk.actions).all():
            self._succeeded(term)
        else:
            self._failed(term, "NaN or Inf in the actions")
        return served

    def _enter(self) -> int:
        """The term in which the request runs. Raises NotReadyError."""
        with self._lock:
            if self._state == CLOSED:
                return self._term
            left_s = self._refuse_until - self._clock()
            if left_s > 0:
                raise self._refusal(left_s)
            # a probe that hangs for ever must not keep the model away for ever: the next follows a cooldown later
            self._refuse_until = self._clock() + self._cooldown_s
            self._change(HALF_OPEN, "the cooldown is over, one request probes the model")
            return self._term

    def _refusal(self, left_s: float) -> NotReadyError:
        probed = self._state == HALF_OPEN
        then = "another request is trying it now" if probed else f"it is tried again in {math.ceil(left_s)} s"
        failed = f"the policy in slot '{self._slot}' failed {self._failures} times in a row"
        return NotReadyError(
            "degraded", f"{failed}; {then}", "server-degraded", float(math.ceil(self._cooldown_s))
        )

    def _succeeded(self, term: int) -> None:
        with self._lock:
            if term != self._term:
                return
            if self._state == CLOSED:
                self._failures = 0
            else:
                self._close("the probe succeeded")

    def _failed(self, term: int, reason: str) -> None:
        with self._lock:
            if term != self._term:
                return
            self._failures += 1
            if self._state == CLOSED and self._failures < self._threshold:
                return
            self._refuse_until = self._clock() + self._cooldown_s
            self._change(OPEN, f"{self._failures} failures in a row, the last: {reason}")

    def _undecided(self, term: int) -> None:
        """The next request may probe in place of one that has shown nothing."""
        with self._lock:
            if term == self._term and self._state == HALF_OPEN:
                self._refuse_until = self._clock()

    def _close(self, reason: str) -> None:
        self._failures = 0
        if self._state != CLOSED:
            self._change(CLOSED, reason)

    def _change(self, state: str, reason: str) -> None:
        self._term += 1
        if state == self._state:
            return
        self._state = state
        level = logging.INFO if state == CLOSED else logging.WARNING
        log.log(level, "breaker of slot '%s' is %s: %s", self._slot, state, reason)
        self._on_change(state)
