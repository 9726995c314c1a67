# SPDX-License-Identifier: Apache-2.0
"""The setting `lerobot_units`: what LeRobot's clients count their joints in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from reflex_core.errors import SettingError
from reflex_core.robot.units import UNIT_OF
from reflex_core.values import NOTHING

SETTING = "lerobot_units"


@dataclass(frozen=True, slots=True)
class ClientUnits:
    """usual: the unit of every joint that `by_name` does not name; "" where the setting is empty: the policy's own."""

    usual: str = ""
    by_name: Mapping[str, str] = field(default_factory=lambda: NOTHING)


@lru_cache(maxsize=8)
def client_units(entries: tuple[str, ...]) -> ClientUnits:
    """Return the units of the setting's entries: one for all, and `joint=unit`. Raises SettingError."""
    usual, by_name = "", {}
    for entry in entries:
        name, equals, word = entry.rpartition("=")
        unit = UNIT_OF.get(word.strip().lower(), "")
        taken = name in by_name if equals else bool(usual)
        if not unit or taken or (equals and not name):
            raise SettingError(
                f"setting '{SETTING}' takes one of radians, degrees, norm100 and percent for all joints, and entries such as"
                f" gripper=percent for others, got {entry!r:.120}"
            )
        if equals:
            by_name[name] = unit
        else:
            usual = unit
    if by_name and not usual:
        raise SettingError(
            f"setting '{SETTING}' must say what the other joints are counted in, too: degrees, norm100 or radians"
        )
    return ClientUnits(usual, by_name)
