# SPDX-License-Identifier: Apache-2.0
"""When a request is sent again: within one deadline for all of it, and never what was refused."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Callable

JITTER = 0.5  # a pause is this share shorter at most, so that clients do not come back all at once
LATER = 0.1  # and after a Retry-After it is this share longer at most


class Deadline:
    """A point in time that connecting, sending, waiting and every retry share."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end_s = clock() + timeout_s

    @property
    def remaining_s(self) -> float:
        """Seconds that are left, 0.0 when it has passed."""
        return max(self._end_s - self._clock(), 0.0)


@dataclass(frozen=True)
class Retries:
    """Pauses before a request is sent again: the first, doubled each time, up to the longest; with jitter.

    most: how often it is sent again, beside that its deadline must allow it; 0: never.
    """

    first_s: float = 0.02
    longest_s: float = 0.5
    most: int = 8

    def pause_s(
        self, attempt: int, retry_after_s: float | None, uniform: Callable[[], float] = random.random
    ) -> float | None:
        """Return the pause before attempt + 1 (attempt counts from 0), never less than a Retry-After; None: give up."""
        if attempt >= self.most:
            return None
        backoff_s = min(self.first_s * 2.0**attempt, self.longest_s) * (1.0 - JITTER * uniform())
        if retry_after_s is None:
            return backoff_s
        return max(backoff_s, retry_after_s * (1.0 + LATER * uniform()))
