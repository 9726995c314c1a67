# SPDX-License-Identifier: Apache-2.0
"""What the node does with a streamed output, in simulated time: hand over, follow the motion, correct every control step."""

from __future__ import annotations

import numpy as np

from benchmarks.moving_target import Doubles, World
from reflex_core.chunks.a2c2.correction import Correction
from reflex_core.chunks.a2c2.reasons import APPLIED
from reflex_core.chunks.a2c2.steps import Running, StepCorrection
from reflex_core.chunks.handover import Handover, bounds_of
from reflex_core.chunks.setpoints import SetpointStream
from reflex_core.export.binding import Binding
from reflex_core.robot.limits.limits import effective_limits
from reflex_core.values import Observation, Served

TICKS = 5  # per control step: 100 Hz at 20 Hz
FADE_S = 0.3  # the default of the setting


class StreamedArm:
    """One robot whose rows are streamed and corrected. What it sees is looked at once per control step."""

    def __init__(self, binding: Binding, correction: Correction) -> None:
        limits = effective_limits(binding.action_names, binding.embodiment, None)
        assert limits is not None  # the embedded export brings its own robot
        self._period_ns = round(binding.dt_s * 1e9) // TICKS
        self._stream = SetpointStream(limits.dim, velocities=False, period_ns=self._period_ns)
        self._stream.limit(limits.velocity_max)
        self._handover = Handover(bounds_of(binding, limits), lambda _: self._rest, lambda: FADE_S)
        everywhere = np.ones(limits.dim, np.bool_)
        self.steps = StepCorrection(correction, limits.position_min, limits.position_max, everywhere)
        self._adjust = self.steps.adjust(slice(None))
        self._rest: Doubles | None = None
        self.corrected = 0  # control steps

    def follow(self, world: World, served: Served, seen: Observation, start: int) -> None:
        """Follow an answer from now on, whose row `start` is the first that is still to come."""
        now_ns, chunk, joined = world.stamp_ns(), served.chunk, self._rest is not None
        measured = world.command()
        self._rest = measured.astype(np.float64)
        led = self._handover.led(chunk, seen.stamp_ns, start, now_ns)
        motion = self._handover.take_over(led, seen.stamp_ns, start, now_ns)
        running = Running(
            chunk.actions, led.actions, motion, seen.stamp_ns, chunk.dt_s, start, seen, served.request_id, joined=joined
        )  # fmt: skip
        self.steps.follow(running, now_ns)
        self._stream.follow(led, seen.stamp_ns, start, now_ns, measured, motion=motion, adjusted=True)

    def commanded(self, at_ns: int) -> Doubles | None:
        """(action_dim,) what is commanded at a moment, as far as is known now."""
        return self.steps.commanded(at_ns)

    def __call__(self, world: World) -> list[Doubles]:
        """What is sent during the present control step: each for the end of its tick."""
        begin_ns, sent = world.stamp_ns(), []
        outcome = self.steps.observe(world.look(), begin_ns)
        self.corrected += outcome is not None and outcome.reason == APPLIED
        for tick in range(1, TICKS + 1):
            now_ns = begin_ns + tick * self._period_ns
            due = self._stream.due(now_ns)
            if due is None:
                continue
            row = self._stream.advance(self._adjust(np.array(due), now_ns).tolist(), now_ns)
            sent += [] if row is None else [np.array(row)]
        return sent
