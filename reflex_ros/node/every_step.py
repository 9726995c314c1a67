# SPDX-License-Identifier: Apache-2.0
"""A2C2 at every control step: streamed rows are corrected by what is seen now, on their way to the robot."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from reflex_core.chunks.a2c2.features import Features
from reflex_core.chunks.a2c2.reasons import EVERY_STEP, NOT_A_POLICY_CHUNK
from reflex_core.chunks.a2c2.steps import Running, StepCorrection
from reflex_core.chunks.interpolation import Doubles, Spline
from reflex_core.chunks.scheduling import ExecutingChunk
from reflex_core.engine.serving_state import ServingState
from reflex_core.metrics.metrics import Metrics
from reflex_core.reports import A2C2Report
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import HOLD, POLICY, Floats, Request, Served
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.node.progress import Tuning
from reflex_ros.outputs.outputs import Outputs

LOOKS_PER_ROW = 2  # at most: features and guard take some milliseconds
JOIN_S = 1.0

Commanded = Callable[[Floats, int, int], None]  # rows, how long until the first is due, and from when: ns

log = logging.getLogger(__name__)


class EveryStep:
    """The corrections of one activation. A thread of its own looks at what is new; ticks only sample what it found.

    Before `enable` nothing happens in here. The caller of `made`, `follow`, `freeze` and `end` has `lock`, which
    orders what is commanded.
    """

    def __init__(
        self, loaded: ServingState, buffer: ObservationBuffer, outputs: Outputs, metrics: Metrics, tuning: Callable[[], Tuning],
        clock_ns: Callable[[], int], lock: threading.RLock, commanded: Commanded,
    ) -> None:  # fmt: skip
        """Correct nothing yet. commanded: takes the rows as they are corrected."""
        self._loaded, self._buffer, self._outputs = loaded, buffer, outputs
        self._metrics, self._tuning, self._clock_ns = metrics, tuning, clock_ns
        self._lock, self._commanded = lock, commanded
        self._limited_log = RateLimitedLog(log)
        self._made: tuple[Request, Floats, bool] | None = None
        self._followed: tuple[Request, Served] | None = None
        self._seen_ns = 0
        self._wake, self._news, self._closing = threading.Condition(), False, False
        self._thread = threading.Thread(target=self._run, name="a2c2 every step", daemon=True)
        self._steps: StepCorrection | None = None
        self._features: Features | None = None
        self._least_s = 0.0

    def enable(self) -> None:
        """Correct the rows of streamed outputs from now on, by the head of the first slot."""
        slot, limits, tuning = self._loaded.first, self._loaded.guard.limits, self._tuning
        assert slot.a2c2 is not None  # the settings were checked
        binding = slot.policy.binding
        dim = len(binding.action_names)
        free = np.full(dim, np.inf)
        low, high = (-free, free) if limits is None else (limits.position_min, limits.position_max)
        self._features, self._least_s = slot.a2c2.correction.features, binding.dt_s / LOOKS_PER_ROW
        steps = self._steps = StepCorrection(
            slot.a2c2.correction, low, high, self._outputs.streamed(dim),
            latency_threshold_ms=slot.settings.a2c2_latency_threshold_ms,
            max_age_s=lambda: tuning().gates.max_age_ms * 1e-3,
            admitted=self._admitted, on_outcome=self._count, on_error=self._warn,
        )  # fmt: skip
        self._outputs.adjust(lambda group: steps.adjust(np.array(group.columns)))

    def start(self) -> None:
        """Begin to look."""
        if self._steps is not None:
            self._thread.start()

    def news(self) -> None:
        """Take note that something was measured."""
        with self._wake:
            self._news = True
            self._wake.notify()

    def close(self) -> None:
        """End the thread, and correct nothing more."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        if self._thread.is_alive():
            log.error("a correction does not end: it is abandoned, and its rows will not be sent")
        if self._steps is not None:
            self._outputs.adjust(lambda _: None)

    def carry_over(self, episode_id: str) -> None:
        """Note for the next chunk how the executing one was corrected."""
        executed = None if self._steps is None else self._steps.executed()
        if executed is not None:
            self._loaded.corrected(episode_id or None, executed.request_id, executed.rows)

    def made(self, request: Request, served: Served, *, joined: bool) -> None:
        """Take note of a chunk before it is led over from the one before. joined: that one is executed now."""
        self._made = (request, served.chunk.actions, joined)

    def follow(
        self, served: Served, running: ExecutingChunk, start: int, motion: Spline, now_ns: int
    ) -> None:
        """Correct this chunk from now on, which was noted by `made` and is streamed as `motion`."""
        made, self._made = self._made, None
        if self._steps is None or self._features is None or made is None:
            return
        request, rows, joined = made
        ours = served.chunk.source == POLICY and served.a2c2.reason == EVERY_STEP
        self._followed = (request, served)
        self._steps.follow(
            Running(
                rows, served.chunk.actions, motion, running.stamp_ns, running.dt_s, start,
                self._features.decoded(request.observation), request.request_id, joined=joined,
                skip="" if ours else served.a2c2.reason if served.chunk.source == POLICY else NOT_A_POLICY_CHUNK,
            ),
            now_ns,
        )  # fmt: skip

    def added(self, now_ns: int) -> tuple[Doubles, Doubles] | None:
        """Return (action_dim,) what is added to what is commanded now, and its velocity; None: nothing."""
        return None if self._steps is None else self._steps.added(now_ns)

    def freeze(self) -> None:
        """Let nothing that is seen change this chunk any more: the clocks of its observations were set."""
        if self._steps is not None:
            self._steps.freeze()

    def end(self) -> None:
        """Add nothing to what follows: a hold, or nothing."""
        self._made = self._followed = None
        if self._steps is not None:
            self._steps.end()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._news or self._closing)
                self._news = False
            if self._closing:
                return
            try:
                self._look()
            except BaseException as error:  # extensions written in Rust panic with what is no Exception
                text = "what was seen could not be used to correct the rows"
                self._limited_log(logging.ERROR, "look", text, error=error)
            with self._wake:
                self._wake.wait_for(lambda: self._closing, self._least_s)

    def _look(self) -> None:
        """Correct the executing chunk by what is seen now, if that is new and can be acted on."""
        if self._steps is None or self._features is None or self._followed is None:
            return
        observation = self._buffer.peek(self._clock_ns(), self._tuning().gates)
        if observation is None or observation.stamp_ns == self._seen_ns:
            return
        self._seen_ns = observation.stamp_ns
        decoded = self._features.decoded(observation)  # not under the lock: a hold must not wait for it
        with self._lock:
            if self._followed is not None:
                self._steps.observe(decoded, self._clock_ns())

    def _admitted(self, running: Running, rows: Floats, first: int) -> Floats | None:
        """Return the rows as the guard lets them pass, and note that they are commanded; None where it would hold the robot."""
        assert self._followed is not None
        request, served = self._followed
        guard, now_ns = self._loaded.guard, self._clock_ns()
        row = max(ExecutingChunk(running.stamp_ns, running.dt_s, len(rows) - 1).elapsed(now_ns), first)
        passed = guard.rejoined(request, served, row, replace(served.chunk, actions=rows.astype(np.float32)))
        if passed.chunk.source == HOLD:
            guard.commands.forget()
            return None
        guard.commands.executed()
        actions = passed.chunk.actions
        self._commanded(actions[row:], running.stamp_ns + (row + 1) * running.dt_ns - now_ns, now_ns)
        return actions

    def _count(self, outcome: A2C2Report) -> None:
        self._metrics.a2c2_steps.labels(outcome.reason).inc()

    def _warn(self, error: Exception) -> None:
        kind = type(error).__name__
        self._limited_log(logging.WARNING, kind, "A2C2 did not correct the rows: %s: %s", kind, error)
