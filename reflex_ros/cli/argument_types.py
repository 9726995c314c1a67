# SPDX-License-Identifier: Apache-2.0
"""Types of command-line arguments that several sub-commands take; each raises for text that is no value of it."""

from __future__ import annotations

import argparse
import math

FASTEST_HZ = 1000.0


def comma_separated(text: str) -> tuple[str, ...]:
    """Return the parts between commas, without spaces around them."""
    return tuple(part.strip() for part in text.split(","))


def finite(text: str) -> float:
    """Return a number that is neither infinite nor NaN."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
    return value


def positive(text: str) -> float:
    """Return a finite number above 0."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def rate_hz(text: str) -> float:
    """Return a control rate that a robot may have (docs/reference/embodiments.md)."""
    value = float(text)
    if not 0 < value <= FASTEST_HZ:  # nor NaN
        raise argparse.ArgumentTypeError(f"must lie above 0 and up to {FASTEST_HZ:g}, got {text}")
    return value


def seed(text: str) -> int:
    """Return the seed of start noise."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be 0 or more and below 2^63, got {value}")
    return value
