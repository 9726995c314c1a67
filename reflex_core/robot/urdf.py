# SPDX-License-Identifier: Apache-2.0
"""Read joint limits from a robot's description (URDF). What the description lacks is reported, never invented."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from reflex_core.errors import ConfigurationError
from reflex_core.files.json_fields import JsonError, read_bounded
from reflex_core.robot.units import LEAST, MOST_M, MOST_RAD, MOST_SPEED, beyond
from reflex_core.text.untrusted import escaped, is_name

MOVING = ("revolute", "prismatic", "continuous")
ONCE = ("limit", "safety_controller", "mimic")
MOST_BYTES = 32 << 20

# what XML Schema calls a double, but for INF and NaN; Python also reads 1_0 and digits of other scripts
_DECIMAL = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


class UrdfError(ConfigurationError):
    """A robot description cannot be read."""

    slug = "bad-urdf"


@dataclass(frozen=True, slots=True)
class UrdfJoint:
    """One joint that moves by itself; None where the description has no limit. rad or m, per second, N m or N.

    Position is the tighter of the hard limit and the soft limit of `safety_controller`.
    """

    name: str
    kind: str
    position_min: float | None
    position_max: float | None
    velocity_max: float | None
    effort_max: float | None


@dataclass(frozen=True, slots=True)
class UrdfLimits:
    """joints: in the order of the file. notes: for display. missing: limits that a safe file needs."""

    joints: tuple[UrdfJoint, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]


def read_urdf(path: Path) -> UrdfLimits:
    """Return the limits of a URDF file. Raises UrdfError."""
    return limits_of(read_description(path), str(path))


def read_description(path: Path) -> bytes:
    """Return the bytes of a URDF file, at most MOST_BYTES. Raises UrdfError."""
    try:
        return read_bounded(path, MOST_BYTES)
    except OSError as error:
        raise UrdfError(f"{path}: {error.strerror or error}") from error
    except JsonError as error:
        raise UrdfError(f"{path}: {error}") from error


def limits_of(data: bytes, where: str) -> UrdfLimits:
    """Return the limits in a URDF document; `where` names it in messages."""
    robot = robot_element(data, where)
    joints: list[UrdfJoint] = []
    notes: list[str] = []
    missing: list[str] = []
    seen: set[str] = set()
    for element in robot.findall("joint"):
        name, kind = element.get("name", ""), element.get("type", "")
        if name in seen or not is_name(name):
            raise UrdfError(
                f"{where}: every joint must have a printable name of its own, got '{escaped(name)}'"
                f"{' twice' if name in seen else ''}"
            )
        _check_once(element, name, where)
        seen.add(name)
        if kind in ("floating", "planar"):
            notes.append(f"{name}: {kind} joints have no limits that could be checked: left out")
        if kind not in MOVING:
            continue
        mimic = element.find("mimic")
        if mimic is not None:
            leader = mimic.get("joint", "")
            notes.append(f"{name}: follows '{escaped(leader)}' (mimic), never commanded: left out")
            continue
        joint = _joint(element, name, kind, where, notes)
        joints.append(joint)
        missing += _missing(joint)
    if not joints:
        raise UrdfError(f"{where}: there must be a revolute, prismatic or continuous joint, got none")
    return UrdfLimits(tuple(joints), tuple(notes), tuple(missing))


def robot_element(data: bytes, where: str) -> ElementTree.Element:
    """Return the root of a URDF document, read without entities; `where` names it in messages. Raises UrdfError."""
    if len(data) > MOST_BYTES:
        raise UrdfError(f"{where}: a robot description must be under {MOST_BYTES} bytes, got {len(data)}")
    robot = _parse(data, where)
    if robot.tag != "robot":
        raise UrdfError(f"{where}: the root element must be 'robot', got '{robot.tag[:80]}'")
    if _is_xacro(robot):
        raise UrdfError(f"{where}: this is xacro, not URDF: run `xacro {where} > robot.urdf` first")
    return robot


def _check_once(joint: ElementTree.Element, name: str, where: str) -> None:
    for tag in ONCE:
        if len(joint.findall(tag)) > 1:
            raise UrdfError(
                f"{where}: joint '{name}' must have one '{tag}' at most: it is ambiguous which of them holds"
            )


class _NoDoctype(ElementTree.TreeBuilder):
    """A description needs no DOCTYPE; entities that expand to gigabytes do."""

    def doctype(self, *_: object) -> None:
        raise UrdfError("DOCTYPE")


def _parse(data: bytes, where: str) -> ElementTree.Element:
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise UrdfError(f"{where}: a robot description must not have a DOCTYPE or entities of its own")
    try:
        return ElementTree.fromstring(data, ElementTree.XMLParser(target=_NoDoctype()))  # noqa: S314 - no entities
    except UrdfError:
        raise UrdfError(
            f"{where}: a robot description must not have a DOCTYPE or entities of its own"
        ) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UrdfError(f"{where}: not XML: {error}") from error


def _is_xacro(robot: ElementTree.Element) -> bool:
    if any("xacro" in str(element.tag) for element in robot.iter()):
        return True
    return any("${" in value or "$(" in value for joint in robot.iter("joint") for value in _values(joint))


def _values(joint: ElementTree.Element) -> list[str]:
    return [value for element in joint.iter() for value in element.attrib.values()]


def _joint(element: ElementTree.Element, name: str, kind: str, where: str, notes: list[str]) -> UrdfJoint:
    limit, soft = element.find("limit"), element.find("safety_controller")
    low = high = None
    if kind == "continuous":
        notes.append(f"{name}: turns for ever (continuous): its position is not limited, only its speed")
    else:
        low, high = _range(limit, name, where)
        soft_low, soft_high = (
            _number(soft, f"soft_{side}_limit", name, where) for side in ("lower", "upper")
        )
        if soft_low or soft_high:  # both 0 is what a safety_controller says that leaves them out
            low = soft_low if low is None else low if soft_low is None else max(low, soft_low)
            high = soft_high if high is None else high if soft_high is None else min(high, soft_high)
            notes.append(f"{name}: its safety_controller has soft limits: the tighter of both are taken")
        if low is not None and high is not None and high - low < LEAST:
            remedy = "exchange them" if high < low else f"they must be at least {LEAST:g} apart"
            raise UrdfError(
                f"{where}: joint '{escaped(name)}' must have lower < upper, got {low:g} and {high:g}: {remedy}"
            )
        _check_unit(name, kind, low, high, where)
    velocity = _positive(limit, "velocity", name, where)
    if velocity is not None and velocity > MOST_SPEED:
        raise UrdfError(
            f"{where}: 'velocity' of joint '{escaped(name)}' must be in rad/s or m/s and at most {MOST_SPEED:g}, got"
            f" {velocity:g}: convert it, or leave it out where it is unknown"
        )
    return UrdfJoint(
        name,
        kind,
        low,
        high,
        velocity,
        _positive(limit, "effort", name, where),
    )


def _check_unit(name: str, kind: str, low: float | None, high: float | None, where: str) -> None:
    most, unit = (MOST_M, "m") if kind == "prismatic" else (MOST_RAD, "rad")
    least, last = low or 0.0, high or 0.0
    if not beyond(least, last, most):
        return
    wrong = (
        "millimetres: divide them by 1000"
        if unit == "m"
        else "degrees: multiply them by 0.0174533 (pi / 180)"
    )
    raise UrdfError(
        f"{where}: the limits of {kind} joint '{escaped(name)}' must be in {unit}, got {least:g} to {last:g}, which"
        f" looks like {wrong}"
    )


def _range(limit: ElementTree.Element | None, name: str, where: str) -> tuple[float | None, float | None]:
    """Read a range. A limit without `lower` or `upper` means 0 there; without both, or with both 0, there is none."""
    low, high = _number(limit, "lower", name, where), _number(limit, "upper", name, where)
    if not low and not high:
        return None, None
    return low or 0.0, high or 0.0


def _positive(element: ElementTree.Element | None, key: str, name: str, where: str) -> float | None:
    """Read a positive number; 0, which CAD programs write for an unknown one, is none."""
    value = _number(element, key, name, where)
    if value is not None and value < 0.0:
        raise UrdfError(f"{where}: '{key}' of joint '{name}' must not be negative, got {value:g}")
    if value is not None and 0.0 < value < LEAST:
        raise UrdfError(
            f"{where}: '{key}' of joint '{name}' must be at least {LEAST:g}, or 0 where it is unknown, got {value:g}"
        )
    return value or None


def _number(element: ElementTree.Element | None, key: str, name: str, where: str) -> float | None:
    text = element.get(key) if element is not None else None
    if text is None:
        return None
    value = decimal(text)
    if not math.isfinite(value):
        raise UrdfError(f"{where}: '{key}' of joint '{name}' must be a finite number, got '{text[:80]}'")
    return value


def decimal(text: str) -> float:
    """Return the number that a description writes; NaN where it is none."""
    return float(text) if _DECIMAL.fullmatch(text) else math.nan


def _missing(joint: UrdfJoint) -> list[str]:
    missing = []
    if joint.kind != "continuous" and joint.position_min is None:
        missing.append(f"{joint.name}: no position limits (lower, upper)")
    if joint.velocity_max is None:
        missing.append(f"{joint.name}: no velocity limit")
    return missing
