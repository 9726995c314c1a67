# SPDX-License-Identifier: Apache-2.0
"""Admission: refuse unusable requests before any work, and enforce the latency objective.

While the objective is missed it is logged, requests are refused, or fewer denoise steps are taken.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from reflex_core.errors import NotReadyError, SettingError
from reflex_core.metrics.counters import Counts
from reflex_core.metrics.slo import WINDOW_S, SloWindow, parse_slo
from reflex_core.values import Observation, Request, Served
from reflex_core.wedges.wedge import Proceed

AUTO, LOG_ONLY, REFUSE, DEGRADE = "auto", "log_only", "503", "degrade"
LEAST_STEPS = 2

log = logging.getLogger(__name__)


def degraded_steps_of(configured: int) -> int:
    """Return half of the configured denoise steps, not below 2."""
    return min(max(configured // 2, LEAST_STEPS), configured)


def mode_of(requested: str, steps_are_fixed: bool) -> str:
    """Return what is done while the objective is missed: `auto` takes fewer steps where there are steps to save."""
    if requested != AUTO:
        return requested
    return LOG_ONLY if steps_are_fixed else DEGRADE


class Admission:
    """Refuses what `check` refuses, and acts by `mode` while `slo` is missed.

    Measures receipt to answer of every request that got one.

    slo: the objective's text, empty for none; mode: log_only, 503 or degrade. Both may change between requests.
    violations: the counter of a kind such as p99_exceeded; it counts every request that arrives while the objective is missed.
    Raises SettingError for a text that is no objective; one that turns up later is logged and the old one stays.
    """

    def __init__(
        self,
        slo: Callable[[], str],
        mode: Callable[[], str],
        degraded_steps: int,
        violations: Callable[[str], Counts],
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
        check: Callable[[Observation], None] | None = None,
    ) -> None:
        """check: raises ObservationError for an observation that no policy can act on."""
        self._check = check
        self._slo, self._mode, self._degraded_steps = slo, mode, degraded_steps
        self._violations_of, self._window_s, self._clock = violations, window_s, clock
        self._lock = threading.Lock()
        self._violated = False
        self._text = slo()
        self._begin(self._text)

    @property
    def mode(self) -> str:
        """What is done while the objective is missed: log_only, 503 or degrade."""
        return self._mode()

    @property
    def violated(self) -> bool:
        """True while the objective is missed."""
        return self._window is not None and self._window.violated

    @property
    def window(self) -> SloWindow | None:
        """The latencies and the objective they are held against; None without one."""
        return self._window

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        if self._check is not None:
            self._check(request.observation)
        window = self._current()
        if window is None:
            return proceed(request)
        if self._noted(window):
            if self._violations is not None:
                self._violations.inc()
            request = self._affected(request, window)
        served = proceed(request)
        window.add((time.monotonic_ns() - request.received_ns) * 1e-6)
        return served

    def _affected(self, request: Request, window: SloWindow) -> Request:
        mode = self._mode()
        if mode == REFUSE:
            raise NotReadyError("ready", _shortfall(window), "slo_violation", 1.0)
        if mode != DEGRADE:
            return request
        steps = self._degraded_steps
        return replace(
            request, max_steps=steps if request.max_steps is None else min(steps, request.max_steps)
        )

    def _noted(self, window: SloWindow) -> bool:
        """Return whether the objective is missed now; a change is logged once."""
        violated = window.violated
        if violated == self._violated:
            return violated
        with self._lock:
            if violated == self._violated:
                return violated
            self._violated = violated
        if violated:
            log.warning("%s (mode %s)", _shortfall(window), self._mode())
        else:
            log.info("%s is met again", window.slo.name)
        return violated

    def _current(self) -> SloWindow | None:
        text = self._slo()
        if text != self._text:
            with self._lock:
                self._text = text
                try:
                    self._begin(text)
                except SettingError as error:
                    log.error("%s; the objective is unchanged", error)
        return self._window

    def _begin(self, text: str) -> None:
        slo = parse_slo(text) if text else None
        self._window = None if slo is None else SloWindow(slo, self._window_s, clock=self._clock)
        self._violations = None if slo is None else self._violations_of(f"{slo.name}_exceeded")
        self._violated = False


def _shortfall(window: SloWindow) -> str:
    slo = window.slo
    return f"{slo.name} is {window.measured_ms:.0f} ms, the SLO is {slo.threshold_ms:g} ms"
