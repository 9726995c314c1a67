# SPDX-License-Identifier: Apache-2.0
"""The joint limits that a recording was made under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reflex_core.errors import ReflexError
from reflex_core.files.json_fields import is_number
from reflex_core.robot.presets import load_preset, preset_names
from reflex_core.values import NOTHING

NO_LIMITS = "the recording names no limits: it was made without a robot, or by an earlier version"

Pair = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Position limits by joint, None where there is none. note: where they come from, empty: recorded as in force.

    speeds: the largest speed by joint, per second, where there is a limit.
    """

    positions: Mapping[str, Pair] = field(default_factory=lambda: NOTHING)
    note: str = ""
    speeds: Mapping[str, float] = field(default_factory=lambda: NOTHING)

    def of(self, name: str) -> Pair:
        """Return the lowest and the highest position of a joint."""
        return self.positions.get(name, (None, None))


def bounds_of(header: Mapping[str, Any]) -> Bounds:
    """Return the limits of a recording: those in force where its header has them, else those of the embodiment that it names."""
    block = header.get("limits")
    if isinstance(block, dict):
        names, low, high = (block.get(key) for key in ("names", "position_min", "position_max"))
        if isinstance(names, list) and isinstance(low, list) and isinstance(high, list):
            found = [str(name) for name in names]
            return Bounds(_pairs(found, low, high), speeds=_speeds(found, block.get("velocity_max")))
    name = header.get("embodiment")
    if not isinstance(name, str) or name not in preset_names():
        return Bounds(note=NO_LIMITS)
    try:
        robot = load_preset(name)
    except ReflexError as error:
        return Bounds(note=f"the limits of embodiment '{name}' cannot be read: {error}")
    pairs = _pairs(robot.joint_names, robot.action_min.tolist(), robot.action_max.tolist())
    return Bounds(
        pairs, f"limits of the embodiment '{name}': the recording does not hold those that were in force"
    )


def _pairs(names: Sequence[str], low: Sequence[object], high: Sequence[object]) -> dict[str, Pair]:
    return {
        name: (_number(least), _number(most)) for name, least, most in zip(names, low, high, strict=False)
    }


def _speeds(names: Sequence[str], values: object) -> dict[str, float]:
    if not isinstance(values, list):
        return {}
    return {name: float(value) for name, value in zip(names, values, strict=False) if is_number(value)}


def _number(value: object) -> float | None:
    return float(value) if is_number(value) else None
