# SPDX-License-Identifier: Apache-2.0
"""What a robot's tool and bodies may do: the limits in force, and how a safety file says them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.files.json_fields import JsonFields, is_number
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.units import LEAST, MOST_M, MOST_SPEED

Doubles = NDArray[np.float64]

SPEED, BOX, PLANE, COLLISION = "tool_speed", "tool_box", "tool_plane", "self_collision"
KINDS = (SPEED, BOX, PLANE, COLLISION)
CLAMP, HOLD = ACTIONS = ("clamp", "hold")
KEYS = (
    "speed_max", "turning_max", "box_min", "box_max", "planes", "distance_min",
    "on_speed", "on_box", "on_plane", "on_collision",
)  # fmt: skip
PLANE_KEYS = ("normal", "offset")
MOST_PLANES = 16


@dataclass(frozen=True, slots=True)
class Plane:
    """Allowed is what lies where normal . point >= offset_m. normal: (3,) unit, in the frame of the root."""

    normal: Doubles
    offset_m: float


@dataclass(frozen=True, slots=True)
class ToolRules:
    """What a safety file says of tool and bodies. m, m/s, rad/s; infinite: no limit. distance_m: None: it says nothing.

    held: the kinds that are answered by a hold; the others are clamped.
    """

    speed_max: float = math.inf
    turning_max: float = math.inf
    box_min: Doubles = field(default_factory=lambda: np.full(3, -np.inf))
    box_max: Doubles = field(default_factory=lambda: np.full(3, np.inf))
    planes: tuple[Plane, ...] = ()
    distance_m: float | None = None
    held: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """The limits in force, of one robot. furthest: (d,) how far from 0 its joints go at most, rad or m."""

    kinematics: Kinematics
    rules: ToolRules
    furthest: Doubles

    @property
    def checks_bodies(self) -> bool:
        """Whether own bodies must keep a distance from each other."""
        return self.rules.distance_m is not None and bool(self.kinematics.pairs)


def read_tool(block: JsonFields) -> ToolRules:
    """Return the limits of a safety file's `tool`. Raises a refusal that names the key."""
    block.only(KEYS)
    box_min, box_max = _box(block)
    held = {
        kind for kind, key in zip(KINDS, KEYS[-4:], strict=True) if block.choice(key, ACTIONS, CLAMP) == HOLD
    }
    rules = ToolRules(
        speed_max=_speed(block, "speed_max"), turning_max=_speed(block, "turning_max"), box_min=box_min, box_max=box_max,
        planes=_planes(block), distance_m=block.number("distance_min", 0.0, MOST_M) if "distance_min" in block else None,
        held=frozenset(held),
    )  # fmt: skip
    if not any(key in block and block[key] != [] for key in KEYS[:6]):
        raise block.refusal(
            "speed_max", f"there, or another of {', '.join(KEYS[:6])}: this block would check nothing"
        )
    return rules


def tool_limits(
    embodiment: Embodiment | None, rules: ToolRules | None, refuse: Callable[[str], Exception]
) -> ToolLimits | None:
    """Return the tighter of embodiment and safety file; None where the embodiment does not describe its kinematics.

    refuse: makes the error for rules that cannot be checked on this robot.
    """
    known = None if embodiment is None else embodiment.kinematics
    if known is None or embodiment is None:
        if rules is not None:
            raise refuse("'tool' can only be checked where the embodiment has 'kinematics', and it has none")
        return None
    given = ToolRules() if rules is None else rules
    if given.distance_m is not None and not known.pairs:
        raise refuse(
            "'tool.distance_min' needs capsules on two links or more in the embodiment's 'kinematics', which has none to compare"
        )
    distance_m = given.distance_m
    if distance_m is None and embodiment.collision_check and known.pairs:
        distance_m = 0.0
    rules = replace(given, speed_max=min(given.speed_max, embodiment.max_ee_velocity), distance_m=distance_m)
    return ToolLimits(known, rules, np.fmax(np.abs(embodiment.action_min), np.abs(embodiment.action_max)))


def unchecked(embodiment: Embodiment | None) -> str:
    """Return one line about what the embodiment limits and nothing checks; empty where everything is."""
    if embodiment is None:
        return ""
    known, bodies = embodiment.kinematics, embodiment.collision_check
    if known is None:
        also = " and collision_check" if bodies else ""
        return f"max_ee_velocity ({embodiment.max_ee_velocity:g} m/s){also}: the embodiment has no kinematics"
    if bodies and not known.pairs:
        return "collision_check: the kinematics of the embodiment have no capsules to compare"
    return ""


def described(limits: ToolLimits) -> tuple[str, ...]:
    """Return a line for each limit, for people."""
    rules, tool = limits.rules, limits.kinematics.tool
    lines = [f"{tool} at most {rules.speed_max:g} m/s"]
    if math.isfinite(rules.turning_max):
        lines.append(f"{tool} turning at most {rules.turning_max:g} rad/s")
    if np.isfinite(rules.box_min).any():
        lines.append(f"{tool} inside {rules.box_min.tolist()} to {rules.box_max.tolist()} m")
    for number, plane in enumerate(rules.planes):
        lines.append(
            f"plane {number}: {np.round(plane.normal, 6).tolist()} . point at least {plane.offset_m:g} m"
        )
    if limits.checks_bodies:
        lines.append(
            f"{len(limits.kinematics.pairs)} pairs of bodies at least {rules.distance_m or 0.0:g} m apart"
        )
    return tuple(lines)


def _speed(block: JsonFields, key: str) -> float:
    return block.number(key, LEAST, MOST_SPEED) if key in block else math.inf


def _box(block: JsonFields) -> tuple[Doubles, Doubles]:
    if ("box_min" in block) != ("box_max" in block):
        raise block.refusal("box_min", "there exactly when 'box_max' is")
    if "box_min" not in block:
        return np.full(3, -np.inf), np.full(3, np.inf)
    low, high = (
        _point(block, key, "[x, y, z] in m in the frame of the root") for key in ("box_min", "box_max")
    )
    if not (high - low >= LEAST).all():
        raise block.refusal("box_min", f"less than 'box_max' {high.tolist()}, by at least {LEAST:g}")
    return low, high


def _planes(block: JsonFields) -> tuple[Plane, ...]:
    entries = block.get("planes", [])
    if not isinstance(entries, list) or len(entries) > MOST_PLANES:
        raise block.refusal("planes", f"a list of at most {MOST_PLANES} planes")
    return tuple(_plane(block.item("planes", at)) for at in range(len(entries)))


def _plane(entry: JsonFields) -> Plane:
    entry.only(PLANE_KEYS)
    normal = _point(entry, "normal", "[x, y, z] towards the allowed side")
    length = float(np.linalg.norm(normal))
    if length < LEAST:
        raise entry.refusal("normal", "a direction")
    return Plane(normal / length, entry.number("offset", -MOST_M, MOST_M))


def _point(entry: JsonFields, key: str, what: str) -> Doubles:
    values = entry.get(key)
    if not isinstance(values, list) or len(values) != 3 or not all(map(_is_near, values)):
        raise entry.refusal(key, f"three finite numbers, {what}")
    return np.array(values, dtype=np.float64)


def _is_near(value: object) -> bool:
    return is_number(value, -MOST_M, MOST_M)
