# SPDX-License-Identifier: Apache-2.0
"""The correction wedge: corrects a late chunk by newer observations, before the guard.

It acts once per chunk, on every row; or it leaves the chunk to what streams it, which corrects every row when it is due (`steps`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from reflex_core.chunks.a2c2.correction import Correction
from reflex_core.chunks.a2c2.features import Moment
from reflex_core.chunks.a2c2.reasons import (
    APPLIED,
    COLD_START,
    EVERY_STEP,
    HIGH_SUCCESS,
    LOW_LATENCY,
    NOT_A_POLICY_CHUNK,
    TOO_LARGE,
)
from reflex_core.metrics.latency_window import LatencyWindow
from reflex_core.reports import A2C2Report
from reflex_core.values import POLICY, ROS, Floats, Observation, Request, Served
from reflex_core.wedges.wedge import Proceed

LATENCY_WINDOW, SUCCESS_WINDOW, NEEDED = 100, 50, 5
PERCENTILE = 95
QUIET_S = 60.0

log = logging.getLogger(__name__)


class A2C2:
    """Corrects the chunks of one policy slot. Thread-safe; what it remembers is bounded and about the slot alone."""

    def __init__(
        self,
        correction: Correction,
        *,
        latency_threshold_ms: float = 40.0,
        success_threshold: float = 0.9,
        newest: Callable[[Request], Observation | None] = lambda _: None,
        previous: Callable[[Request], Floats | None] = lambda _: None,
        injected_ms: Callable[[], float] = lambda: 0.0,
        on_outcome: Callable[[A2C2Report], None] = lambda _: None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        every_step: bool = False,
    ) -> None:
        """newest: the newest observation of this request's robot, None where only the request's own is known.

        previous: (action_dim,) what it is being commanded. injected_ms: delay that is added outside. on_outcome: for metrics.
        clock_ns: the one that requests are received by.
        every_step: the chunk of a robot with streamed outputs is corrected there, row by row, and not a second time here.
        A success_threshold above 1 never skips for success; without reported episodes nothing is skipped for it either.
        """
        self.correction = correction
        self._latency_threshold_ms = latency_threshold_ms
        self._success_threshold = success_threshold
        self._newest, self._previous = newest, previous
        self._injected_ms, self._on_outcome, self._clock_ns = injected_ms, on_outcome, clock_ns
        self._every_step = every_step
        checkpoint = correction.head.checkpoint
        self._most_per_row = checkpoint.output_saturation_scale
        self._lock = threading.Lock()
        self._latencies_ms = LatencyWindow(LATENCY_WINDOW)
        self._successes: deque[bool] = deque(maxlen=SUCCESS_WINDOW)
        self._warned_s = -QUIET_S

    def report(self, success: bool) -> None:
        """Count the end of an episode of this slot. An answer without an error is no success: only reports count."""
        with self._lock:
            self._successes.append(success)

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        served = proceed(request)
        latency_ms = (self._clock_ns() - request.received_ns) * 1e-6 + self._injected_ms()
        held = served.hold_reason or served.unreached
        if served.chunk.source != POLICY or held or not np.isfinite(served.chunk.actions).all():
            return self._reported(served, A2C2Report(False, NOT_A_POLICY_CHUNK))
        if self._every_step and request.caller == ROS:
            return self._reported(served, A2C2Report(False, HIGH_SUCCESS if self._succeeds() else EVERY_STEP))
        p95_ms, skip = self._measured(latency_ms)
        if skip:
            return self._reported(served, A2C2Report(False, skip))
        try:
            actions, outcome = self._corrected(request, served, p95_ms)
        except Exception as error:  # a correction is an extra: the policy's own chunk is still good
            self._warn(request, error)
            return self._reported(served, A2C2Report(False, f"error:{type(error).__name__}"))
        if outcome.applied:
            served = replace(served, chunk=replace(served.chunk, actions=actions))
        return self._reported(served, outcome)

    def _measured(self, latency_ms: float) -> tuple[float, str]:
        """Return (95th percentile of the latency, why nothing is to be corrected); the newest answer counts."""
        with self._lock:
            self._latencies_ms.add(latency_ms)
            known, p95_ms = len(self._latencies_ms), self._latencies_ms.percentile(PERCENTILE)
        if known < NEEDED:
            return 0.0, COLD_START
        if p95_ms < self._latency_threshold_ms:
            return p95_ms, LOW_LATENCY
        return p95_ms, HIGH_SUCCESS if self._succeeds() else ""

    def _succeeds(self) -> bool:
        """Return True where enough episodes were reported, and enough of them as successes."""
        with self._lock:
            successes = list(self._successes)
        return len(successes) >= NEEDED and sum(successes) / len(successes) > self._success_threshold

    def _corrected(self, request: Request, served: Served, p95_ms: float) -> tuple[Floats, A2C2Report]:
        seen, chunk = request.observation, served.chunk
        now = self._newest(request) or seen
        between_ms = (now.stamp_ns - seen.stamp_ns) * 1e-6
        if between_ms <= 0:  # nothing newer: the head's input is the usual latency, as its format defines
            now, between_ms = seen, p95_ms
        elapsed_rows = max(int(between_ms * 1e-3 / chunk.dt_s), 0) if chunk.dt_s > 0 else 0
        observation = self.correction.features_of(Moment(now, seen, self._previous(request)))
        corrected = self.correction.chunk(chunk.actions, observation, between_ms, elapsed_rows)
        most = np.sqrt(len(chunk.actions)) * self._most_per_row
        if not np.isfinite(corrected.actions).all():
            return chunk.actions, A2C2Report(False, TOO_LARGE)
        if corrected.magnitude > most:
            return chunk.actions, A2C2Report(False, TOO_LARGE, corrected.magnitude)
        return corrected.actions, A2C2Report(True, APPLIED, corrected.magnitude)

    def _reported(self, served: Served, outcome: A2C2Report) -> Served:
        self._on_outcome(outcome)
        return replace(served, a2c2=outcome)

    def _warn(self, request: Request, error: Exception) -> None:
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._warned_s < QUIET_S:
                return
            self._warned_s = now_s
        log.warning(
            "A2C2 did not correct the chunk of request %s: %s: %s",
            request.request_id,
            type(error).__name__,
            error,
        )
