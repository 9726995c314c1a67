# SPDX-License-Identifier: Apache-2.0
"""Explain what the guard changed: the line of a violation as a sentence, and what an operator can do about it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NUMBER = r"(-?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf|nan))"
_RANGE = re.compile(rf"(.+?) (workspace )?(below min|above max): {NUMBER} [<>] {NUMBER}( per second)?$")
_OUTSIDE = re.compile(rf"(.+?) (?:workspace )?range left already: {NUMBER} ([<>]) {NUMBER}: holding")
_RATE = re.compile(rf"(.+?) (velocity|acceleration|speed|turning): {NUMBER} > {NUMBER} (\S.*)$")
_BOX = re.compile(rf"(.+?) box ([xyz]) (below min|above max): {NUMBER} (?:[<>]|too near) {NUMBER} m$")
_PLANE = re.compile(rf"(.+?) at plane (\d+): {NUMBER} (?:<|too near) {NUMBER} m$")
_PAIR = re.compile(rf"(.+?) and (.+?) apart: {NUMBER} (?:<|too near) {NUMBER} m$")
_NOT_FINITE = re.compile(r"non_finite_action: (\d+) ")
_TRIPPED = re.compile(r"guard_tripped: (.*?)(?:: holding position)?$")

_RATES = {
    "velocity": "move at", "acceleration": "accelerate with", "speed": "move at", "turning": "turn at",
}  # fmt: skip
RANGE_ADVICE = (
    "If it repeats, check that the policy was trained on this robot and that its start pose is one it has seen;"
    " the range is that of the embodiment and the safety file."
)
RATE_ADVICE = (
    "If it repeats, the policy moves faster than this robot may: lower --blend, check the rate of the export,"
    " or train with slower demonstrations."
)
TOOL_ADVICE = (
    "Move the object or the start pose away from the limit, or widen it in the safety file if that is safe."
)
FINITE_ADVICE = (
    "The model returned no numbers: check the export with `reflex doctor` and the camera pictures."
)
OUTSIDE_ADVICE = "Move the joint back into its range by hand or with the robot's own controls, then resume."
TRIPPED_ADVICE = (
    "Look at the robot and at the events before this one; reset the guard only when you know the cause."
)


@dataclass(frozen=True, slots=True)
class Explained:
    """One violation in words. joint: empty where it is not of one joint. advice: empty where there is none."""

    text: str
    advice: str = ""
    joint: str = ""


def explained(line: str, units: Mapping[str, str]) -> Explained:
    """Return the sentence of a violation as the guard writes it; an unknown line comes back as it is.

    units: rad or m by joint, for lines that name none.
    """
    for pattern, words in _WORDS:
        if found := pattern.match(line):
            return words(found, units)
    return Explained(line)


def all_explained(lines: Iterable[str], units: Mapping[str, str]) -> tuple[Explained, ...]:
    """Return every line in words; the same advice is given once."""
    result: list[Explained] = []
    given: set[str] = set()
    for line in lines:
        one = explained(line, units)
        result.append(Explained(one.text, "" if one.advice in given else one.advice, one.joint))
        given.add(one.advice)
    return tuple(result)


def _in_range(found: re.Match[str], units: Mapping[str, str]) -> Explained:
    joint, workspace, side, value, bound, rate = found.groups()
    unit = units.get(joint, "") + ("/s" if rate else "")
    limit = "upper" if side == "above max" else "lower"
    word = "above" if side == "above max" else "below"
    where = f"{limit} limit{' of the workspace' if workspace else ''}"
    text = f"{joint} would go {_apart(value, bound, unit)} {word} its {where} ({_size(bound, unit)})"
    return Explained(text, RANGE_ADVICE, joint)


def _outside(found: re.Match[str], units: Mapping[str, str]) -> Explained:
    joint, value, side, bound = found.groups()
    unit = units.get(joint, "")
    word = "above its upper" if side == ">" else "below its lower"
    text = f"{joint} is {_apart(value, bound, unit)} {word} limit ({_size(bound, unit)}): the robot holds"
    return Explained(text, OUTSIDE_ADVICE, joint)


def _rate(found: re.Match[str], _: Mapping[str, str]) -> Explained:
    joint, kind, value, limit, unit = found.groups()
    verb = _RATES[kind]
    text = (
        f"{joint} would {verb} {_size(value, unit)}, {_share(value, limit)} its limit of {_size(limit, unit)}"
    )
    return Explained(text, RATE_ADVICE, joint)


def _box(found: re.Match[str], _: Mapping[str, str]) -> Explained:
    tool, axis, side, value, bound = found.groups()
    word = "above the upper" if side == "above max" else "below the lower"
    return Explained(
        f"{tool} would come {_apart(value, bound, 'm')} {word} end of its box on {axis} ({_size(bound, 'm')})",
        TOOL_ADVICE,
    )


def _plane(found: re.Match[str], _: Mapping[str, str]) -> Explained:
    body, number, value, bound = found.groups()
    return Explained(f"{body} would come {_apart(value, bound, 'm')} too near to plane {number}", TOOL_ADVICE)


def _pair(found: re.Match[str], _: Mapping[str, str]) -> Explained:
    one, other, value, least = found.groups()
    text = f"{one} and {other} would come within {_size(value, 'm')} (at least {_size(least, 'm')})"
    return Explained(text, TOOL_ADVICE)


def _not_finite(found: re.Match[str], _: Mapping[str, str]) -> Explained:
    return Explained(
        f"The model returned {found[1]} values that are no numbers: the robot holds", FINITE_ADVICE
    )


def _tripped(found: re.Match[str], _: Mapping[str, str]) -> Explained:
    reason = found[1].partition("consecutive_clamp_limit_exceeded: ")[2] or found[1]
    return Explained(f"The guard tripped: {reason}", TRIPPED_ADVICE)


_WORDS = (
    (_OUTSIDE, _outside),
    (_BOX, _box),
    (_RANGE, _in_range),
    (_RATE, _rate),
    (_PLANE, _plane),
    (_PAIR, _pair),
    (_NOT_FINITE, _not_finite),
    (_TRIPPED, _tripped),
)


def _apart(value: str, bound: str, unit: str) -> str:
    apart = abs(float(value) - float(bound))
    degrees = f" ({math.degrees(apart):.2g}°)" if unit == "rad" else ""
    return f"{apart:.2g} {unit}".rstrip() + degrees


def _size(value: str, unit: str) -> str:
    return f"{float(value):.4g} {unit}".rstrip()


def _share(value: str, limit: str) -> str:
    return f"{float(value) / float(limit):.2g} times" if float(limit) > 0.0 else "above"
