# SPDX-License-Identifier: Apache-2.0
"""Joint states of a Panda, read at 100 Hz by the gate of its joints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from guarded import FRANKA, MIDDLE

from reflex_core.robot.joint_gate import (
    JointGate,
    Path,
    joint_gate,
)

NAMES = list(FRANKA.joint_names)
HOME = [float(each) for each in MIDDLE]
TICK_S = 0.01  # joint states at 100 Hz
VELOCITY, MARGIN = 2.175, 0.2


class Sensor:
    """Reports joint 1 through a gate; the others rest at HOME."""

    def __init__(self, gate: JointGate | None = None) -> None:
        self.refused: list[str] = []
        self.gate = gate or joint_gate(FRANKA, NAMES, MARGIN, on_implausible=self.refused.append)
        self.now_ns = 10**12
        self.stamp_ns = 10**18

    def reads(self, value: float, after_s: float = TICK_S, stamped_s: float | None = None) -> Sensor:
        self.now_ns += int(after_s * 1e9)
        self.stamp_ns += int((after_s if stamped_s is None else stamped_s) * 1e9)
        self.gate.put(NAMES, [value, *HOME[1:]], self.stamp_ns, self.now_ns)
        return self

    def message(self, values: Mapping[int, float], of: Sequence[int] = range(7)) -> Sensor:
        """One message of the joints `of`, which rest but for `values`, each behind its number."""
        self.now_ns += int(TICK_S * 1e9)
        self.stamp_ns += int(TICK_S * 1e9)
        readings = [values.get(joint, HOME[joint] if joint else 0.0) for joint in of]
        self.gate.put([NAMES[joint] for joint in of], readings, self.stamp_ns, self.now_ns)
        return self

    def all_read(self, values: Iterable[float]) -> Sensor:
        for value in values:
            self.reads(value)
        return self

    @property
    def believed(self) -> bool:
        return self.gate.fault(NAMES) is None

    @property
    def estimate(self) -> float:
        found = self.gate.believed(NAMES)
        assert found is not None
        return found[0][0]

    def commands(self, low: float, high: float | None = None) -> Sensor:
        """A way from `low` to `high` that takes a second, and stays there."""
        rows = np.linspace(low, low if high is None else high, 21).tolist()
        first_ns = self.stamp_ns if self.gate.stamps_rule else self.now_ns
        paths = {name: Path([at], first_ns, 0.05) for name, at in zip(NAMES, HOME, strict=True)}
        self.gate.commanded({**paths, NAMES[0]: Path(rows, first_ns, 0.05)})
        return self


def rest(value: float, seconds: float) -> list[float]:
    return [value] * (math.ceil(seconds / TICK_S) + 1)
