# SPDX-License-Identifier: Apache-2.0
"""What metrics, health and diagnostics read of a recorder."""

from __future__ import annotations

from typing import Protocol


class Watched(Protocol):
    """What health, metrics and diagnostics look at."""

    kind: str

    @property
    def problem(self) -> str:
        """Why records cannot be written just now; empty while they can."""
        ...

    @property
    def written(self) -> int:
        """Records written so far."""
        ...

    @property
    def dropped(self) -> int:
        """Records lost so far."""
        ...
