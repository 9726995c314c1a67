# SPDX-License-Identifier: Apache-2.0
"""Row after row towards a chunk, never faster than a joint may: the recursion that no array operation replaces.

Everything here is plain floats: at seven joints an array operation costs more than seven times the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, sub, truediv


@dataclass(frozen=True, slots=True)
class Joint:
    """One joint per control period: `step` is the largest move, `bend` the largest change of a move."""

    low: float
    high: float
    step: float
    bend: float

    @property
    def brake_room(self) -> float:
        """How far from a limit braking can matter at all: the way to stop from full speed, and one step."""
        if math.isinf(self.bend):
            return -math.inf
        return self.step * (self.step / (2 * self.bend) + 2.0)


def stoppable(room: float, bend: float) -> float:
    """Return the largest step after which a joint that slows by `bend` a period still stops within `room`.

    Stopping from a step s takes s + (s - bend) + (s - 2 bend) + ...; with n terms that is n s - bend n (n - 1) / 2.
    """
    if room <= 0.0:
        return 0.0
    periods = max(
        math.ceil((math.sqrt(1.0 + 8.0 * room / bend) - 1.0) / 2.0), 1
    )  # 0: too little room for its root
    return (room + bend * periods * (periods - 1) / 2.0) / periods


def band(joint: Joint, room: float, at: float, last: float) -> tuple[float, float]:
    """Return (least, most) next step from `at` after a step `last`: position wins over velocity, that over acceleration."""
    bend, step = joint.bend, joint.step
    above, below = joint.high - at, at - joint.low
    most = min(step, stoppable(above, bend)) if above < room else step
    least = max(-step, -stoppable(below, bend)) if below < room else -step
    for low, high in ((last - bend, last + bend), (-step, step), (-below, above)):
        least = low if least < low else high if least > high else least
        most = low if most < low else high if most > high else most
    return least, most


def clip(column: Sequence[float], joint: Joint, at: float, last: float) -> list[float]:
    """Return one joint's rows, each as near to the requested one as the joint gets."""
    if math.isinf(joint.bend):
        return _clip_speed(column, joint, at)
    rows: list[float] = []
    step, bend, room = joint.step, joint.bend, joint.brake_room
    floor, ceiling = joint.low + room, joint.high - room
    for wanted in column:
        if floor <= at <= ceiling:
            # far from both limits: what `band` comes to there, without the call
            least = last - bend if last - bend > -step else -step
            most = last + bend if last + bend < step else step
        else:
            least, most = band(joint, room, at, last)
        move = wanted - at
        last = least if move < least else most if move > most else move
        at += last
        rows.append(at)
    return rows


def _clip_speed(column: Sequence[float], joint: Joint, at: float) -> list[float]:
    # what is wanted lies inside the range, so that every step towards it does
    step, rows = joint.step, []
    for wanted in column:
        if wanted > at + step:
            at += step
        elif wanted < at - step:
            at -= step
        else:
            at = wanted
        rows.append(at)
    return rows


def scale(
    rows: Sequence[Sequence[float]], joints: Sequence[Joint], at: list[float], last: list[float], settled: int
) -> list[list[float]]:
    """Return all joints' rows, each step shortened by one factor, so that its direction stays.

    Where no one factor suits every joint (one that must brake, say), each joint is clipped for that row.
    settled: from this row on the requested rows break no limit, so that a walk which has caught up may stop.
    """
    accelerating = any(not math.isinf(joint.bend) for joint in joints)
    rooms = [joint.brake_room for joint in joints]
    steps = [joint.step for joint in joints]
    walked: list[list[float]] = []
    caught_up = 0
    for index, wanted in enumerate(rows):
        if caught_up >= 2 and index >= settled:
            return [*walked, *map(list, rows[index:])]
        moves = list(map(sub, wanted, at))
        if accelerating:
            last = _shortened(moves, list(map(band, joints, rooms, at, last)))
        else:
            excess = max(map(abs, map(truediv, moves, steps)))
            last = moves if excess <= 1.0 else [move / excess for move in moves]
        caught_up = caught_up + 1 if last is moves else 0
        at = list(wanted) if last is moves else list(map(add, at, last))
        walked.append(at)
    return walked


def _shortened(moves: list[float], bands: list[tuple[float, float]]) -> list[float]:
    smallest, largest = 0.0, 1.0
    for move, (least, most) in zip(moves, bands, strict=True):
        if move > 0.0:
            smallest, largest = max(smallest, least / move), min(largest, most / move)
        elif move < 0.0:
            smallest, largest = max(smallest, most / move), min(largest, least / move)
        elif least > 0.0 or most < 0.0:
            largest = -1.0
    if smallest <= largest:
        return moves if largest == 1.0 else [move * largest for move in moves]
    return [min(max(move, least), most) for move, (least, most) in zip(moves, bands, strict=True)]
