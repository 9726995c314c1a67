# SPDX-License-Identifier: Apache-2.0
"""Synthetic delay of every answer, for every caller."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from reflex_core.values import Request, Served
from reflex_core.wedges.wedge import Proceed

MOST_MS = 1000.0


class Latency:
    """Sleeps `delay_ms` (0..1000) on the caller's own thread, holding nothing that others wait for."""

    def __init__(self, delay_ms: Callable[[], float], sleep: Callable[[float], None] = time.sleep) -> None:
        self._delay_ms, self._sleep = delay_ms, sleep

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        served = proceed(request)
        delay_ms = min(self._delay_ms(), MOST_MS)
        if not delay_ms > 0:
            return served
        self._sleep(delay_ms * 1e-3)
        return replace(served, injected_latency_ms=delay_ms)
