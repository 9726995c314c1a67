# SPDX-License-Identifier: Apache-2.0
"""Format the guard's position limits for a diagnostic, and parse them back: panels draw what the guard checks."""

from __future__ import annotations

from collections.abc import Mapping

from reflex_core.robot.limits.limits import Limits

_KEY, _BETWEEN = " range", " to "


def range_values(limits: Limits) -> dict[str, str]:
    """Return `{"joint1 range": "-2.9 to 2.9 rad"}`: one entry per action dimension; infinite where there is no limit."""
    rows = zip(limits.names, limits.position_min, limits.position_max, strict=True)
    return {
        name + _KEY: f"{low:.6g}{_BETWEEN}{high:.6g} {limits.unit(column)}".rstrip()
        for column, (name, low, high) in enumerate(rows)
    }


def ranges_from(values: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Return name -> (lowest, highest) from the values of the guard's diagnostic; other values are left out."""
    found = {}
    for key, text in values.items():
        if not key.endswith(_KEY) or _BETWEEN not in text:
            continue
        low, _, high = text.partition(_BETWEEN)
        try:
            found[key.removesuffix(_KEY)] = (float(low), float(high.split()[0]))
        except (ValueError, IndexError):
            continue
    return found


def units_from(values: Mapping[str, str]) -> dict[str, str]:
    """Return name -> unit from the values of the guard's diagnostic; a range without a unit is left out."""
    found = {}
    for key, text in values.items():
        words = text.partition(_BETWEEN)[2].split()
        if key.endswith(_KEY) and len(words) > 1:
            found[key.removesuffix(_KEY)] = words[1]
    return found
