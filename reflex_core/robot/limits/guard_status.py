# SPDX-License-Identifier: Apache-2.0
"""What the guard reports of itself: to diagnostics, /config and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """Status of the guard. enabled: there are limits to check. inference_count: chunks examined so far.

    tripped, trip_reason, consecutive_clamps: of the requested caller; else whether any caller is tripped, the first one's
    reason, the highest count. tripped_callers: all that are tripped; callers: clamped chunks in a row of those that
    are tripped or counted; both cut to CALLERS_SHOWN. tripped_total: how many are tripped.
    """

    enabled: bool
    tripped: bool
    trip_reason: str
    consecutive_clamps: int
    max_consecutive_clamps: int
    inference_count: int
    mode: str
    violations_total: int
    tripped_total: int = 0
    tripped_callers: tuple[str, ...] = ()
    callers: Mapping[str, int] = field(default_factory=dict)
