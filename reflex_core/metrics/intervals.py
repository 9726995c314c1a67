# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests of counts, for a number of trials that was fixed beforehand."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054


def wilson(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Score interval of a proportion, (0, 1) of nothing; `z` standard deviations wide, 1.96 for 95 %.

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if trials == 0:
        return 0.0, 1.0
    rate, share = successes / trials, z * z / trials
    middle = (rate + share / 2) / (1 + share)
    half = z / (1 + share) * math.sqrt(rate * (1 - rate) / trials + share / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def two_sided_p(deviation: float) -> float:
    """Return the chance of a standard normal value at least this far from 0; of its square, chi-square with one degree."""
    return math.erfc(abs(deviation) / math.sqrt(2))
