# SPDX-License-Identifier: Apache-2.0
"""A robot on a clock that a test moves, and a judge of everything that is sent to it."""

from __future__ import annotations

import numpy as np

from benchmarks.robot_judge import Judge
from benchmarks.robot_world import HORIZON, SPEED, Command, Doubles, Lie, World
from reflex_core.values import Floats, Request

FAST_S, SLOW_S = 0.05, 0.6


class Scene:
    """A world that is judged, and everything that was sent."""

    def __init__(self, latency_s: float = FAST_S) -> None:
        self.judge = Judge()
        self.sent: list[Command] = []
        self.world = World(heard=self._heard, meanwhile=self.judge.look)
        self.judge.world = self.world
        self.world.engine.latency_s = latency_s

    def _heard(self, command: Command) -> None:
        self.judge.heard(command)
        self.sent.append(command)

    @property
    def progress(self) -> object:
        return self.world.loop.progress

    @property
    def last(self) -> Command:
        return self.sent[-1]

    def run(self, seconds: float) -> Scene:
        self.world.run(seconds)
        return self

    def to(self, target: Doubles) -> Scene:
        """Let the policy go there at 0.8 of the speed limits."""

        def model(request: Request) -> Floats:
            state = request.observation.state
            assert state is not None
            way = target - state
            ramp = np.arange(1, HORIZON + 1)[:, None] * 0.04 * SPEED
            return (state + np.minimum(ramp, np.abs(way)) * np.sign(way)).astype(np.float32)

        self.world.engine.model = model
        return self

    def well(self) -> None:
        assert self.judge.problems == []


def offset(by: float) -> Lie:
    return lambda position, _: position + np.array([by, 0, 0, 0, 0, 0, 0])


def reads(value: float, joint: int = 0) -> Lie:
    def lie(position: Doubles, _: float) -> Doubles:
        return np.where(np.arange(7) == joint, value, position)

    return lie
