# SPDX-License-Identifier: Apache-2.0
"""What a wedge needs of a metric that metrics.py has made."""

from __future__ import annotations

import threading
from typing import Protocol


class Counts(Protocol):
    """A counter that is bound to its labels."""

    def inc(self) -> None:
        """Add one."""
        ...


class Gauge(Protocol):
    """A gauge that is bound to its labels and goes up and down."""

    def inc(self) -> None:
        """Add one."""
        ...

    def dec(self) -> None:
        """Subtract one."""
        ...


class NullGauge:
    """A gauge that nothing reads."""

    def inc(self) -> None:
        """Do nothing."""

    def dec(self) -> None:
        """Do nothing."""


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
        """Add one."""
        with self._lock:
            self._total += 1


pictures_mended = (
    Count()
)  # JPEGs that were repaired in this process; a camera that needs it needs it for every image
