# SPDX-License-Identifier: Apache-2.0
"""Rate-limited log lines about trouble that may come with every request: counted, and logged once in a while."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from reflex_core.concurrency.lru import Lru

QUIET_S = 60.0  # between two lines of the log on the same trouble
KINDS_KEPT = 64


class RateLimit:
    """Count occurrences since the last one that was logged. Thread-safe."""

    def __init__(self, quiet_s: float = QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._happened = 0
        self._spoken_at = -math.inf

    def times(self) -> int:
        """Count one more and return the number to log; 0 while it is too early to log again."""
        with self._lock:
            self._happened += 1
            if time.monotonic() - self._spoken_at < self._quiet_s:
                return 0
            self._spoken_at = time.monotonic()
            happened, self._happened = self._happened, 0
            return happened


class RateLimitedLog:
    """Lines of one logger, at most one in `quiet_s` per kind; a line holds how many of its kind were left out.

    clock: seconds, monotonic. Thread-safe, and bounded: at most KINDS_KEPT kinds have their own count.
    """

    def __init__(
        self, log: logging.Logger, quiet_s: float = QUIET_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._quiet_s, self._clock = log, quiet_s, clock
        self._lock = threading.Lock()
        self._kinds: Lru[str, tuple[float, int]] = Lru(KINDS_KEPT)

    def __call__(
        self, level: int, kind: str, message: str, *args: object, error: BaseException | None = None
    ) -> None:
        """Log `message % args`, unless a line of this kind was logged less than `quiet_s` ago; then count it.

        error: its traceback goes with the line.
        """
        now_s = self._clock()
        with self._lock:
            last_s, left_out = self._kinds.get(kind) or (-math.inf, 0)
            quiet = now_s - last_s < self._quiet_s
            self._kinds.put(kind, (last_s, left_out + 1) if quiet else (now_s, 0))
        if quiet:
            return
        more = f" ({left_out} more like it in the last {now_s - last_s:.0f} s)" if left_out else ""
        self._log.log(level, f"{message}%s", *args, more, exc_info=error)


class ConditionLog:
    """One condition after another (a problem, "" for none): its beginning and its end are logged, once each.

    A condition that comes and goes is logged once in `quiet_s`; if it has come back unlogged and stays, it is logged as soon
    as that time is over, so that the log never ends on "is over" while it is not. Call `note` in every cycle.
    clock: seconds, monotonic. For one thread at a time.
    """

    def __init__(
        self, log: logging.Logger, quiet_s: float = QUIET_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._quiet_s, self._clock = log, quiet_s, clock
        self._logged = self._now = ""
        self._logged_s: Lru[tuple[str, bool], float] = Lru(KINDS_KEPT)
        self._changes = 0

    def note(self, condition: str, text: str = "") -> None:
        """Log that `condition` holds now, or that the one before is over, where the log does not have that yet."""
        if condition != self._now:
            self._now = condition
            self._changes += 1
        if condition == self._logged:
            return
        kind = (condition or self._logged, bool(condition))
        now_s = self._clock()
        last_s = self._logged_s.get(kind)
        if last_s is not None and now_s - last_s < self._quiet_s:
            return
        self._logged_s.put(kind, now_s)
        unsaid = self._changes - 1
        more = f" ({unsaid} changes since the last such line)" if unsaid > 0 else ""
        if condition:
            self._log.warning("%s: %s%s", condition, text, more)
        else:
            self._log.info("%s ended%s", self._logged, more)
        self._logged, self._changes = condition, 0
