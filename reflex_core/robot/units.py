# SPDX-License-Identifier: Apache-2.0
"""What numbers in the wrong unit look like: everything inside is rad and m, and files are written by people."""

from __future__ import annotations

import math

MOST_RAD = 4.0 * math.pi  # two turns either way; cables allow no arm more, and 90 degrees are far beyond it
# where it is unknown whether a joint turns or slides, or whether it is a position at all
MOST_RAD_OR_M = 8.0 * math.pi
MOST_M = 25.0
MOST_SPEED = 100.0  # rad/s or m/s
# of a speed, an acceleration, a range or a rate: nothing that moves is so slow, and 1e-320 has no reciprocal
LEAST = 1e-6

NOT_RAD = "degrees, percent or millimetres: write rad and m (one degree is 0.0174533 rad)"
NOT_RAD_PER_S = "degrees or millimetres per second: write rad/s and m/s (one degree is 0.0174533 rad)"


def beyond(low: float, high: float, most: float) -> bool:
    """Return whether a range reaches so far that it must be in another unit. False for NaN."""
    return low < -most or high > most
