# SPDX-License-Identifier: Apache-2.0
"""How well chunks fit together, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class SmoothnessFigures:
    """Over the newest 200 borders of all episodes: plain numbers, NaN where nothing was measured."""

    chunks: int
    late_chunks: int
    borders: int
    late_share: float
    border_jump_mean: float
    border_jump_p95: float
    overlap_disagreement_mean: float
    jerk_rms: float

    def document(self) -> dict[str, float | int | None]:
        """Return the figures for a reply: None instead of NaN, which JSON does not have."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: None if math.isnan(value) else value for name, value in values.items()}


NOTHING_MEASURED = SmoothnessFigures(0, 0, 0, *(5 * [math.nan]))
