# SPDX-License-Identifier: Apache-2.0
"""What a wedge needs of a metric that metrics.py has made."""

from __future__ import annotations

from typing import Protocol


class Counts(Protocol):
    """A counter that is bound to its labels."""

    def inc(self) -> None:
        """One more."""
        ...
