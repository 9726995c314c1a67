# SPDX-License-Identifier: Apache-2.0
"""Track the latency of served requests, and store it for the next start."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from reflex_core.metrics.latency_window import LatencyWindow
from reflex_core.values import POLICY, Request, Served

WINDOW, NEEDED = 100, 30
PERCENTILE = 95
KEEP_EVERY_S = 60.0

log = logging.getLogger(__name__)


class LatencyTracker:
    """A listener of the engine. Thread-safe; `keep(ms)` is called on a thread of its own, and at `close`.

    first_ms: the estimate used before 30 answers.
    """

    def __init__(
        self, first_ms: float, keep: Callable[[float], None], keep_every_s: float = KEEP_EVERY_S
    ) -> None:
        self._first_ms = first_ms
        self._keep, self._keep_every_s = keep, keep_every_s
        self._lock = threading.Lock()
        self._window_ms = LatencyWindow(WINDOW)
        self._changed = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="latency-tracker", daemon=True)
        self._thread.start()

    def __call__(self, _: Request, served: Served) -> None:
        """Count a fresh chunk; a fallback sent at a deadline shows nothing about the policy's latency."""
        if served.chunk.source != POLICY:
            return
        with self._lock:
            self._window_ms.add(served.latency_ms)
            self._changed = True

    @property
    def learnt(self) -> bool:
        """True once there are enough answers."""
        return len(self._window_ms) >= NEEDED

    @property
    def compensation_ms(self) -> float:
        """95th percentile of the newest 100 answers, linear between them; `first_ms` before there are 30."""
        with self._lock:
            known = len(self._window_ms) >= NEEDED
            return self._window_ms.percentile(PERCENTILE) if known else self._first_ms

    def close(self) -> None:
        """Store the newest estimate and end the thread. May be called again."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._keep_every_s):
            self._keep_what_is_new()
        self._keep_what_is_new()

    def _keep_what_is_new(self) -> None:
        if not (self._changed and self.learnt):
            return
        self._changed = False
        try:
            self._keep(self.compensation_ms)
        except (OSError, ValueError) as error:  # a full disk must not end learning
            log.warning("the learnt latency cannot be stored: %s", error)
