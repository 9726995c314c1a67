# SPDX-License-Identifier: Apache-2.0
"""What a wedge needs of a metric that metrics.py has made."""

from __future__ import annotations

import threading
from typing import Protocol


class Counts(Protocol):
    """A counter that is bound to its labels."""

    def inc(self) -> None:
        """One more."""
        ...


class Gauge(Protocol):
    """A gauge that is bound to its labels and goes up and down."""

    def inc(self) -> None:
        """One more."""
        ...

    def dec(self) -> None:
        """One less."""
        ...


class NullGauge:
    """A level that nobody looks at."""

    def inc(self) -> None:
        """Nothing."""

    def dec(self) -> None:
        """Nothing."""


class Count:
    """How often something has happened in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0

    @property
    def total(self) -> int:
        """How often so far."""
        return self._total

    def add(self) -> None:
        """Once more."""
        with self._lock:
            self._total += 1
