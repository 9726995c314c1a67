# SPDX-License-Identifier: Apache-2.0
"""Log lines about trouble that may come with every request: counted, and spoken of once in a while."""

from __future__ import annotations

import math
import threading
import time

QUIET_S = 60.0  # between two lines of the log on the same trouble


class Seldom:
    """How often something has happened since it was last spoken of. Thread-safe."""

    def __init__(self, quiet_s: float = QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._happened = 0
        self._spoken_at = -math.inf

    def times(self) -> int:
        """Count one more; 0 while it is too early to speak of it again."""
        with self._lock:
            self._happened += 1
            if time.monotonic() - self._spoken_at < self._quiet_s:
                return 0
            self._spoken_at = time.monotonic()
            happened, self._happened = self._happened, 0
            return happened
