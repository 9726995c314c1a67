# SPDX-License-Identifier: Apache-2.0
"""Another server with the same HTTP interface: requests to it, checks of its answers, and the breaker for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reflex_core.concurrency.circuit_breaker import HALF_OPEN, OPEN, CircuitBreaker
from reflex_core.errors import ReflexError
from reflex_core.values import CLOUD, POLICY, Floats, Inference, Request

TIMEOUT, REFUSED, STATUS, INVALID = "timeout", "refused", "status", "invalid"
BREAKER_OPEN, INTERNAL = "breaker_open", "internal"
REASONS = (TIMEOUT, REFUSED, STATUS, INVALID, BREAKER_OPEN, INTERNAL)

CONSECUTIVE_FAILURES = 3
PROBE_EVERY_S = 5.0
DT_TOLERANCE_S = 1e-6
STEPS_LIMIT = 1000

UNKNOWN = Inference(CLOUD, denoise_steps_configured=0)

log = logging.getLogger(__name__)


class CloudError(ReflexError):
    """The other server gave nothing that can be used; `reason` is one of REASONS.

    Never leaves the cloud wedge and the remote policy. status: of its HTTP reply, 0 where that is not the reason.
    """

    slug = "cloud-failed"

    def __init__(self, reason: str, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.reason, self.status = reason, status


@dataclass(frozen=True, slots=True)
class CloudAnswer:
    """An answer of the other server, parsed but not yet checked.

    actions: (n, action_dim) float32. names: empty when it gave none. dt_s: None where its wire has none. seed: -1 when it gave
    none. inference: how it made the chunk, as far as it reports that. rtc_mode, rtc_delay: how the previous chunk guided this
    one; empty where it did not.
    """

    actions: Floats
    names: tuple[str, ...]
    dt_s: float | None
    source: str
    model_version: str
    seed: int = -1
    inference: Inference = UNKNOWN
    model_hash: str = ""
    config_hash: str = ""
    rtc_mode: str = ""
    rtc_delay: int = 0


@dataclass(frozen=True, slots=True)
class Expected:
    """What a chunk must be to replace the local policy's."""

    names: tuple[str, ...]
    dt_s: float
    horizon: int


class CloudServer(Protocol):
    """The other server. Called from several threads at once."""

    def ask(self, request: Request, left_s: float) -> CloudAnswer:
        """Return its answer within `left_s`. Raises CloudError, CancelledError, or ObservationError for a damaged frame."""
        ...

    def ready(self) -> bool:
        """Return whether it reports that it serves."""
        ...

    def close(self) -> None:
        """Drop the connections; waiting callers get a CloudError."""
        ...


def believed(answer: CloudAnswer, expected: Expected) -> Floats:
    """Return (n, action_dim) float32 with 1 <= n <= horizon, if the answer fits this robot. Raises CloudError."""
    actions, width = answer.actions, len(expected.names)
    if actions.ndim != 2 or not len(actions) or actions.shape[1] != width:
        raise _doubt(f"actions of shape {actions.shape}, expected (n, {width})")
    if not np.isfinite(actions).all():
        raise _doubt("NaN or Inf among the actions")
    if answer.names and answer.names != expected.names:
        raise _doubt(f"actions for {_shown(answer.names)}, expected {_shown(expected.names)}")
    if answer.dt_s is not None and not abs(answer.dt_s - expected.dt_s) <= DT_TOLERANCE_S:
        raise _doubt(f"dt_s {answer.dt_s!r}, expected {expected.dt_s!r}")
    if answer.source != POLICY:  # its hold or its last chunk is no better than ours, and older
        raise _doubt(f"a chunk of source {answer.source[:40]!r}, expected {POLICY!r}")
    steps = answer.inference.denoise_steps
    if not 0 <= steps <= STEPS_LIMIT:
        raise _doubt(f"{steps} denoising steps")
    return np.ascontiguousarray(actions[: expected.horizon], dtype=np.float32)


def _doubt(got: str) -> CloudError:
    return CloudError(INVALID, f"it answered with {got}")


def _shown(names: tuple[str, ...]) -> str:
    return ", ".join(names)[:200].__repr__()


class CloudBreaker:
    """Closed while the other server works. N failures in a row open it; only its /health lets requests pass again."""

    def __init__(
        self,
        ready: Callable[[], bool],
        failures: int = CONSECUTIVE_FAILURES,
        every_s: float = PROBE_EVERY_S,
        name: str = "cloud",
        first_s: float | None = None,
    ) -> None:
        """Start closed.

        Args:
            ready: Asks whether it serves, on a thread of its own while the breaker is open.
            failures: In a row that open it.
            every_s: The longest pause between two such questions.
            name: Of the server in log lines.
            first_s: The first pause, doubled after each question; None: `every_s`.
        """
        self._ready, self._name = ready, name
        self._every_s, self._first_s = every_s, every_s if first_s is None else first_s
        self._circuit = CircuitBreaker(failures, on_change=self._changed)
        self._stopped = threading.Event()

    @property
    def closed(self) -> bool:
        """True while requests may be sent."""
        return self._circuit.state != OPEN

    def succeeded(self) -> None:
        """Count a usable chunk of the other server."""
        self._circuit.succeeded()

    def failed(self) -> None:
        """Count a failure."""
        if not self._stopped.is_set():
            self._circuit.failed("no chunk that can be used")

    def stop(self) -> None:
        """End the probing."""
        self._stopped.set()

    def _changed(self, state: str, _: str) -> None:
        if state == OPEN:
            failures = self._circuit.threshold
            text = "%s: %d consecutive failures: no requests until it is ready"
            log.warning(text, self._name, failures)
            threading.Thread(target=self._probe, name=f"reflex-{self._name}-probe", daemon=True).start()
        elif state == HALF_OPEN:
            log.info("%s: it is ready: requests resumed", self._name)

    def _probe(self) -> None:
        pause_s = self._first_s
        while not self._stopped.wait(pause_s):
            if self._is_ready():
                self._circuit.half_open("it is ready")  # healthy is not yet helpful
                return
            pause_s = min(2 * pause_s, self._every_s)

    def _is_ready(self) -> bool:
        try:
            return self._ready()
        except Exception:
            log.exception("%s: the health probe failed", self._name)
            return False
