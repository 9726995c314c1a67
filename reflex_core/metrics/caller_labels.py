# SPDX-License-Identifier: Apache-2.0
"""Callers as labels of metrics: few enough for a time-series database, however many there are."""

from __future__ import annotations

import threading

from reflex_core.values import PREFIXES, ROS, UNKNOWN

OTHER = "other"
NAMES_KEPT = 64


class CallerLabels:
    """Callers as a metric may name them: so many robots by their names, the others by kind. Bounded for ever, thread-safe."""

    def __init__(self, most: int = NAMES_KEPT) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = {ROS, UNKNOWN}
        self._room = most

    def label(self, caller: str) -> str:
        """Return `ros`, the robot's own name while there is room for names, `other`, or session, episode, peer."""
        if caller in self._names:  # grows only, and a set is read whole
            return caller
        for prefix in PREFIXES:
            if caller.startswith(prefix):
                return prefix[:-1]
        with self._lock:
            if self._room <= 0 and caller not in self._names:
                return OTHER
            if caller not in self._names:
                self._room -= 1
                self._names.add(caller)
        return caller
