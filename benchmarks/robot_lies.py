# SPDX-License-Identifier: Apache-2.0
"""What joint states report when the sensor is not well: leaps and nonsense, and what no rate gives away."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.robot_world import SPEED, TICK_S, Doubles, Lie

Change = Callable[[Doubles, float], None]


def sudden(chance: random.Random, joint: int) -> tuple[str, Lie]:
    """Return the name and the lie of a reading that no joint of this arm can have made."""
    offset = chance.choice([-1, 1]) * chance.uniform(0.65, 3.0)
    speed = chance.choice([-1, 1]) * chance.uniform(2.0, 6.0) * SPEED[joint]
    began: list[float] = []
    begun: list[float] = []

    def put(value: float, *, joints: Sequence[int] = (joint,)) -> Change:
        def change(reading: Doubles, _: float) -> None:
            reading[list(joints)] = value

        return change

    def add(reading: Doubles, _: float) -> None:
        reading[joint] += offset

    def ramp(reading: Doubles, seconds: float) -> None:
        begun.append(reading[joint]) if not begun else None
        reading[joint] = begun[0] + speed * seconds

    def flicker(reading: Doubles, seconds: float) -> None:
        if int(seconds / TICK_S) % 7 == 0:
            reading[joint] += offset

    changes = {
        "jump": add, "ramp": ramp, "flicker": flicker, "zeros": put(0.0, joints=range(7)), "nan": put(np.nan),
        "inf": put(np.inf), "far": put(chance.choice([9.0, -45.0, 3e38])), "turn": put(2 * np.pi + 2.6),
    }  # fmt: skip
    name, change = chance.choice(list(changes.items()))

    def lie(position: Doubles, now_s: float) -> Doubles:
        began.append(now_s) if not began else None
        reading = position.copy()
        change(reading, now_s - began[0])
        return reading

    return name, lie


def slow(chance: random.Random, joint: int, idle: Callable[[], bool]) -> tuple[str, Lie]:
    """Return the name and the lie of a sensor that freezes or drifts, no faster than the joint could be.

    idle: true from a stop until the next chunk, when a drift looks the same as a hand that moves the arm.
    """
    speed = chance.choice([-1, 1]) * chance.uniform(0.02, 1.1) * SPEED[joint]
    most, whole = chance.uniform(0.1, 3.0), chance.random() < 0.5
    mine = np.arange(7) == joint
    frozen: list[Doubles] = []
    gone = [0.0]

    def freeze(position: Doubles, _: float) -> Doubles:
        frozen.append(position.copy()) if not frozen else None
        return frozen[0] if whole else np.where(mine, frozen[0], position)

    def drift(position: Doubles, _: float) -> Doubles:
        if not idle():
            gone[0] = float(np.clip(gone[0] + speed * TICK_S, -most, most))
        return position + np.where(mine, gone[0], 0.0)

    return chance.choice([("freeze", freeze), ("drift", drift)])
