# SPDX-License-Identifier: Apache-2.0
"""The chunk loop in a world on paper."""

from __future__ import annotations

from benchmarks.robot_world import Command, World
from reflex_core.values import Floats, Request


class Scene:
    """A world, and everything that was sent in it. Its watchdog sleeps unless the test wakes it."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.world = World(heard=self.sent.append)
        self.loop, self.engine, self.progress = self.world.loop, self.world.engine, self.world.loop.progress
        self.world.watchdog.check = lambda: None  # type: ignore[method-assign]
        self.calls = 0
        model = self.engine.model

        def counting(request: Request) -> Floats:
            self.calls += 1
            return model(request)

        self.engine.model = counting

    def run(self, seconds: float) -> list[Command]:
        """Let time pass; what was sent meanwhile."""
        before = len(self.sent)
        self.world.run(seconds)
        return self.sent[before:]

    def fails_with(self, error: BaseException) -> None:
        def failing(_: Request) -> Floats:
            self.calls += 1
            raise error

        self.engine.model = failing
