# SPDX-License-Identifier: Apache-2.0
"""A thread that ticks at a rate while there is something to do, and what is known of its punctuality from outside."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from reflex_core.chunks.setpoints import next_tick
from reflex_core.concurrency.real_time import Scheduling, hurry
from reflex_core.metrics.cadence import Cadence

LATE_S = 0.1  # so late a tick, and the robot is held in its place
JOIN_S = 1.0

log = logging.getLogger(__name__)


class Ticks:
    """Call `tick` from a thread of its own, every period until it returns False, and again after `begin`.

    A late tick is left out, never made up for by a burst. tick: must not raise.
    """

    def __init__(self, name: str, rate_hz: float, tick: Callable[[], bool]) -> None:
        """Start the thread, which waits for `begin`."""
        self.period_ns = round(1e9 / rate_hz)
        self.cadence = Cadence(rate_hz)
        self._tick = tick
        self._begun = threading.Event()
        self._closing = False
        self._before: Scheduling | None = None  # it hurried
        self._awaited_ns: int | None = None  # when the thread is due to be there; monotonic
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def gone(self) -> bool:
        """True when the thread has ended without `close`."""
        return not self._thread.is_alive() and not self._closing

    @property
    def late_s(self) -> float:
        """How long ago the tick was due that has not ended yet; 0.0 while none is due."""
        awaited_ns = self._awaited_ns
        return 0.0 if awaited_ns is None else max(time.monotonic_ns() - awaited_ns, 0) * 1e-9

    def begin(self) -> None:
        """Have a tick come at once, where none is awaited."""
        if self._awaited_ns is None:
            self._awaited_ns = time.monotonic_ns()
        self._begun.set()

    def hurry(self) -> None:
        """Give the thread real-time priority until `relax`. Raises OSError where the system does not permit it."""
        if self._before is None and self._thread.is_alive() and self._thread.native_id is not None:
            self._before = hurry(self._thread.native_id)

    def relax(self) -> None:
        """Have the thread scheduled as before `hurry`."""
        before, self._before = self._before, None
        if before is not None and self._thread.is_alive():
            before.restore()

    def close(self) -> None:
        """End the thread after the tick under way."""
        self._closing = True
        self._begun.set()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            log.error("%s: a tick does not end, and its thread is abandoned", self._thread.name)

    def _run(self) -> None:
        while not self._closing:
            self._begun.wait()
            self._begun.clear()
            self._follow(time.monotonic_ns() if self._awaited_ns is None else self._awaited_ns)

    def _follow(self, deadline_ns: int) -> None:
        """Tick until there is nothing more to do."""
        began_ns = time.monotonic_ns()
        while not self._closing and self._tick():
            ended_ns = time.monotonic_ns()
            following_ns = next_tick(deadline_ns, ended_ns, self.period_ns)
            self._awaited_ns = following_ns
            left_out = (following_ns - deadline_ns) // self.period_ns - 1
            self.cadence.tick((began_ns - deadline_ns) * 1e-9, left_out)
            deadline_ns = following_ns
            time.sleep((deadline_ns - ended_ns) * 1e-9)
            began_ns = time.monotonic_ns()
        self._awaited_ns = None
