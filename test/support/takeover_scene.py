# SPDX-License-Identifier: Apache-2.0
"""A person beside the chunk loop in a world on paper, and what the arm is commanded a thousand times a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.robot_world import DT_S, HOME, HORIZON, NAMES, SPEED, TICK_S, TUNING, Command, World
from reflex_core.values import Floats, Request
from reflex_ros.node.progress import Tuning

Doubles = NDArray[np.float64]

RELEASE_S = 0.3
OFTEN_TICKS = 2  # how often the takeover's thread looks
# numbers of a controller's messages are whole nanoseconds, and a motion may be so much faster than its limit between rows
FASTER, ROUNDING = 1.01, 1e-7


def moving(request: Request) -> Floats:
    """Lead every joint along a slow wave around where it is, as a policy does: from the state it saw."""
    assert request.observation.state is not None
    seconds = np.arange(1, HORIZON + 1)[:, None] * DT_S
    phases = np.arange(7)[None] + request.observation.stamp_ns * 1e-9 % 10.0
    way = 0.3 * (np.sin(0.9 * seconds + phases) - np.sin(phases))
    rows: Floats = (request.observation.state + way).astype(np.float32)
    return rows


def standing(request: Request) -> Floats:
    """Stay where the robot is seen."""
    assert request.observation.state is not None
    return np.tile(request.observation.state, (HORIZON, 1)).astype(np.float32)


class TakeoverScene:
    """A world whose policy moves, and a person who commands `wanted` on every tick in which it is not None.

    fastest: how fast each joint was commanded, over 1 ms, as a share of its limit.
    """

    def __init__(self, tuning: Tuning | None = None, model: Callable[[Request], Floats] = moving) -> None:
        self.sent: list[Command] = []
        self.wanted: Callable[[], Doubles | None] = lambda: None
        self.fastest = 0.0
        self._before = HOME.copy()
        self._ticks = 0
        tuning = replace(TUNING, takeover_release_s=RELEASE_S) if tuning is None else tuning
        self.world = World(heard=self.sent.append, meanwhile=self._tick, tuning=tuning)
        self.world.engine.model = model
        self.loop, self.takeover = self.world.loop, self.world.loop.takeover
        self.progress, self.labels = self.loop.progress, self.world.outputs.labels

    @property
    def now_s(self) -> float:
        """The monotonic clock."""
        return self.world.clock.seconds

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run(seconds)

    def target(self) -> Doubles:
        """(7,) what the arm is commanded now."""
        return self.world.arm.commanded()

    def _tick(self) -> None:
        """Sample what the controller did since the tick before; then the person commands, and the takeover's thread looks."""
        end_ns = round(self.now_s * 1e9)
        times_ns = end_ns - np.arange(9, -1, -1) * round(TICK_S * 1e8)
        path = self.world.arm._motion.sampled(times_ns)
        steps = np.abs(np.diff(path, axis=0, prepend=self._before[None]))
        self.fastest = max(self.fastest, float(((steps - ROUNDING) / (SPEED * TICK_S / 10)).max()))
        self._before = path[-1]
        self._ticks += 1
        wanted = self.wanted()
        if wanted is not None:
            self.takeover.put(NAMES, wanted.tolist())
        if self._ticks % OFTEN_TICKS == 0:
            self.takeover.check()
