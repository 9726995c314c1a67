# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker of one policy slot: a model that keeps failing is left alone for a while, then probed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import numpy as np

from reflex_core.concurrency.circuit_breaker import CLOSED, HALF_OPEN, OPEN, CircuitBreaker, Refused
from reflex_core.errors import CancelledError, NotReadyError, ObservationError
from reflex_core.values import Request, Served
from reflex_core.wedges.wedge import Proceed

STATE_NUMBERS = {CLOSED: 0, HALF_OPEN: 1, OPEN: 2}  # what the gauge shows

log = logging.getLogger(__name__)


def _ignore(_: str) -> None:
    pass


class Breaker:
    """Opens after `threshold` failures in a row; after `cooldown_s` one request at a time may probe the model.

    A failure is an exception of the model or an answer with NaN or Inf, which the guard receives. A fault of the
    caller and a cancelled request are neither failure nor success. threshold 0: no breaker.
    on_change receives the new state under the breaker's lock: it must be short and not call back.
    """

    def __init__(
        self,
        threshold: int,
        cooldown_s: float,
        slot: str,
        on_change: Callable[[str], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slot, self._on_change = slot, on_change
        self._circuit = CircuitBreaker(threshold, cooldown_s, self._changed, clock)

    @property
    def state(self) -> str:
        """closed, open (until a request comes after the cooldown), or half-open (until its probe has succeeded)."""
        return self._circuit.state

    @property
    def consecutive_failures(self) -> int:
        """Failures since the last success."""
        return self._circuit.failures

    @property
    def threshold(self) -> int:
        """How many failures in a row open it."""
        return self._circuit.threshold

    @property
    def probe_due(self) -> bool:
        """True when it is not closed and would let the next request through."""
        return self._circuit.probe_due

    def reset(self) -> None:
        """Close it by hand."""
        self._circuit.close("reset by hand")

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        if self.threshold <= 0:
            return proceed(request)
        term = self._circuit.enter()
        if isinstance(term, Refused):
            raise self._refusal(term)
        try:
            served = proceed(request)
        except (ObservationError, NotReadyError, CancelledError):
            self._circuit.undecided(term)
            raise
        except Exception as error:
            self._circuit.failed(f"{type(error).__name__}: {error}", term)
            raise
        except BaseException:
            self._circuit.undecided(term)
            raise
        if np.isfinite(served.chunk.actions).all():
            self._circuit.succeeded(term)
        else:
            self._circuit.failed("NaN or Inf in the actions", term)
        return served

    def _refusal(self, refused: Refused) -> NotReadyError:
        left = f"it is tried again in {math.ceil(refused.left_s)} s"
        then = "another request is trying it now" if refused.probing else left
        failed = f"the policy in slot '{self._slot}' failed {refused.failures} times in a row"
        retry_after_s = float(math.ceil(self._circuit.cooldown_s))
        return NotReadyError("degraded", f"{failed}; {then}", "server-degraded", retry_after_s)

    def _changed(self, state: str, reason: str) -> None:
        level = logging.INFO if state == CLOSED else logging.WARNING
        log.log(level, "breaker of slot '%s' is %s: %s", self._slot, state, reason)
        self._on_change(state)
