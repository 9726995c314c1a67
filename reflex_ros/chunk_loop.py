# SPDX-License-Identifier: Apache-2.0
"""The thread that turns observations into published chunks: asks in time, skips what has elapsed, holds on doubt."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from reflex_core.assembly import Loaded
from reflex_core.engine import Engine
from reflex_core.errors import NotReadyError, ReflexError
from reflex_core.pacing import Pacing, Running
from reflex_core.rate_limit import ConditionLog
from reflex_core.robot.callers import ROS
from reflex_core.robot.intake import has_words
from reflex_core.trace.schema import Failure
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, Floats, Observation, Served
from reflex_ros.observations import Gates, ObservationBuffer, RefusedObservationError
from reflex_ros.outputs import Outputs
from reflex_ros.tap import OFF, Tap

POLL_S = 0.02
RETRY_S = 0.05

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The settings that may change while the loop runs."""

    gates: Gates
    execution_horizon: int
    margin_s: float


@dataclass(slots=True)
class Progress:
    """What the loop has done since it was made; read by status and diagnostics."""

    chunks: int = 0
    holds: int = 0
    errors: int = 0
    refused: int = 0
    clamped: int = 0
    fallbacks: int = 0
    discarded: int = 0
    latency_ms: float = 0.0
    age_ms: float = 0.0
    problem: str = ""
    problem_text: str = ""
    hold_reason: str = ""
    slot: str = ""


class ChunkLoop:
    """One per activation. `clock_ns` is the robot's clock (ROS time), `tuning` gives the present settings."""

    def __init__(
        self,
        engine: Engine,
        loaded: Loaded,
        buffer: ObservationBuffer,
        outputs: Outputs,
        clock_ns: Callable[[], int],
        tuning: Callable[[], Tuning],
        progress: Progress,
        tap: Tap = OFF,
    ) -> None:
        self._engine, self._loaded = engine, loaded
        self._buffer, self._outputs, self._tap = buffer, outputs, tap
        self._clock_ns, self._tuning = clock_ns, tuning
        self.progress = progress
        self.pacing = Pacing(loaded.first_latency_s)
        self.episode_id = ""
        self._fit = loaded.policy.fit
        self._needs_words = loaded.needs_instruction
        self._lock = threading.RLock()
        self._wake = threading.Condition()
        self._news = self._closing = self._stopped = False
        self._epoch = 0
        self._chunk_id = 0
        self._executing: tuple[Floats, Running] | None = None
        self._retry_at = 0.0
        self._problems = ConditionLog(log)
        self._unwell = False
        self._held_at_ns = time.monotonic_ns()  # nothing of an activation before goes on
        self._due_since_ns: int | None = None
        self._thread = threading.Thread(target=self._run, name="chunk loop", daemon=True)

    def start(self) -> None:
        """Begin to infer and publish."""
        self._thread.start()

    def close(self, reason: str) -> None:
        """End the thread and leave the robot holding. A chunk still being computed is thrown away."""
        with self._lock:
            self._closing = True
            self._epoch += 1
            if self._executing is not None:
                self._hold(reason)
        self.news()
        if self._thread.is_alive():
            self._thread.join()

    def news(self) -> None:
        """A message arrived: look again whether a chunk is due."""
        with self._wake:
            self._news = True
            self._wake.notify()

    def new_episode(self, episode_id: str) -> None:
        """Begin an episode: chunk numbers start at 0 and nothing of the old episode is used or published."""
        with self._lock:
            self.episode_id = episode_id
            self._chunk_id = 0
            self._loaded.begins(episode_id)
            self.restart()

    def restart(self) -> None:
        """Ask for a chunk at once: another instruction, another episode."""
        with self._lock:
            self._epoch += 1
            self.pacing.reset()
        self.news()

    def clock_jumped_back(self) -> None:
        """Stamps of before mean nothing now."""
        with self._lock:
            self._buffer.clear()
            self._forget()
            self._held_at_ns = time.monotonic_ns()
            self._executing = None
            self._due_since_ns = None
            self._note("clock_jump", "the clock jumped back: sensor data and running chunk were dropped")
            self.restart()

    @property
    def stopped(self) -> bool:
        """True after `stop` until `resume`."""
        return self._stopped

    def stop(self) -> None:
        """Latched: hold now, publish no chunk until `resume`."""
        with self._lock:
            self._stopped = True
            self._epoch += 1
            self.pacing.reset()
            self._hold("stopped")

    def resume(self) -> None:
        """Undo `stop`; the next chunk starts from a fresh observation."""
        with self._lock:
            self._stopped = False
        self.restart()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._news or self._closing, POLL_S)
                self._news = False
            if self._closing:
                return
            try:
                self._step()
            except Exception:
                log.exception("the chunk loop failed on a step; the robot holds")
                self._failed("internal-error", "see the log")

    def _step(self) -> None:
        if self._stopped or time.monotonic() < self._retry_at:
            return
        tuning = self._tuning()
        now_ns = self._clock_ns()
        due_ns = self.pacing.due_ns(tuning.execution_horizon or self._default_horizon(), tuning.margin_s)
        if due_ns is not None and now_ns < due_ns and not self._unwell:
            return
        if self._due_since_ns is None:
            self._due_since_ns = now_ns
        with self._lock:
            epoch, episode_id = self._epoch, self.episode_id
        try:
            observation = self._observe(now_ns, tuning.gates)
        except ReflexError as error:
            self.progress.refused += 1
            self._engine.metrics.observations_refused.labels(error.slug).inc()
            self._bridge(error, now_ns - self._due_since_ns, tuning.gates)
            return
        request = replace(
            self._engine.request(observation, episode_id=episode_id or None, caller=ROS),
            newest=lambda: self._buffer.peek(self._clock_ns(), tuning.gates),
        )
        try:
            served = self._engine.act(request)
        except NotReadyError as error:
            self.progress.errors += 1
            self._bridge(error, now_ns - self._due_since_ns, tuning.gates)
            return
        except ReflexError as error:
            self._tap.answered(request, Failure(error.slug, str(error)), self._buffer.consumed)
            self._failed(error.slug, str(error))
            return
        self._tap.answered(request, served, self._buffer.consumed)
        self._publish(served, observation, now_ns, epoch)

    def _default_horizon(self) -> int:
        embodiment = self._loaded.embodiment
        return (embodiment.execution_horizon if embodiment else 0) or self._fit.horizon

    def _observe(self, now_ns: int, gates: Gates) -> Observation:
        observation = self._buffer.take(now_ns, gates)
        if self._needs_words and not has_words(observation.instruction):
            raise RefusedObservationError(
                f"no instruction yet: publish one on the topic {self._buffer.topics.get('instruction', '/instruction')}",
                "no_instruction",
            )
        return observation

    def _publish(self, served: Served, observation: Observation, taken_ns: int, epoch: int) -> None:
        """Hand the chunk to the robot, unless the world has moved on meanwhile."""
        now_ns = self._clock_ns()
        running = Running(observation.stamp_ns, self._fit.dt_s, len(served.chunk.actions))
        with self._lock:
            if epoch != self._epoch or self._closing:
                self.progress.discarded += 1
                self._forget()
                return
            start = running.elapsed(now_ns)
            if start >= running.horizon:
                self._forget()
                self._failed("chunk_expired", "all of the chunk had elapsed before it was there")
                return
            if self._outlived(served):
                self._forget()
                self._failed("deadline", "the last good chunk is from before the robot held")
                return
            self._outputs.chunk(served, observation.stamp_ns, observation.age_ms, self._chunk_id, start)
            self._loaded.executed(self.episode_id or None, start)
            self._chunk_id += 1
            self._executing = (served.chunk.actions, running)
            self._due_since_ns = None
            self.pacing.started(running, (now_ns - taken_ns) * 1e-9)
            self._judge(served)
        self._count(served, observation)

    def _outlived(self, served: Served) -> bool:
        """True for a stand-in from before the robot held: it would jump to where it might have been by now."""
        if served.chunk.source != LAST_KNOWN_GOOD:
            return False
        age_ms = served.fallback_age_ms + served.injected_latency_ms
        return time.monotonic_ns() - age_ms * 1e6 < self._held_at_ns

    def _judge(self, served: Served) -> None:
        """What stands in for a fresh chunk is a reason to ask again soon."""
        source, reason = served.chunk.source, served.hold_reason
        if source == HOLD:
            self._held_at_ns = time.monotonic_ns()
            reason = reason or HOLD
        self._unwell = source in (HOLD, LAST_KNOWN_GOOD)
        if self._unwell:
            self._retry_at = time.monotonic() + RETRY_S
        text = "; ".join(served.guard.violations[:1]) or "this request was answered with a hold"
        problem = "deadline" if source == LAST_KNOWN_GOOD else reason
        if source == LAST_KNOWN_GOOD:
            text = f"inference was too slow, the chunk of {served.fallback_age_ms:.0f} ms ago goes on"
        self._note(problem, text)
        self.progress.hold_reason = reason

    def _count(self, served: Served, observation: Observation) -> None:
        if served.chunk.source == HOLD:
            self.progress.holds += 1
        else:
            self.progress.chunks += 1
        self.progress.clamped += served.guard.clamped
        self.progress.fallbacks += served.chunk.source in (LAST_KNOWN_GOOD, CLOUD)
        self.progress.latency_ms, self.progress.slot = served.latency_ms, served.slot
        self.progress.age_ms = observation.age_ms

    def _bridge(self, error: ReflexError, late_ns: int, gates: Gates) -> None:
        """No inference. The running chunk's tail bridges a hiccup of `max_age_ms`; after that the robot holds."""
        self._retry_at = time.monotonic() + RETRY_S
        self._note(error.slug, str(error))
        if late_ns > gates.max_age_ms * 1e6:
            with self._lock:
                if self._executing is not None and not self.progress.hold_reason:
                    self._hold(error.slug)

    def _failed(self, slug: str, text: str) -> None:
        self._retry_at = time.monotonic() + RETRY_S
        self.progress.errors += 1
        self._note(slug, text)
        with self._lock:
            if self._executing is not None and not self.progress.hold_reason:
                self._hold(slug)

    def _note(self, problem: str, text: str) -> None:
        """Log a problem once, when it begins, and once when it is over; one that comes and goes, once in a while."""
        self._problems.note(problem, text)
        self.progress.problem, self.progress.problem_text = problem, text

    def _forget(self) -> None:
        """Nothing may take the newest chunk for what the robot executes. Needs the lock."""
        self._loaded.not_executed(self.episode_id or None)

    def _hold(self, reason: str) -> None:
        """Publish a hold where the robot was last told to be, else where it measures itself. Needs the lock."""
        now_ns = self._clock_ns()
        position = self._buffer.measured(self._fit.action_names)
        if self._executing is not None:
            actions, running = self._executing
            position = actions[min(running.elapsed(now_ns), len(actions) - 1)]
        self.progress.hold_reason = reason
        self.pacing.reset()
        self._forget()
        self._held_at_ns = time.monotonic_ns()
        if position is None:
            log.error(
                "hold (%s): no commanded and no measured position is known, nothing was published", reason
            )
            return
        self._executing = (position[None], Running(now_ns, self._fit.dt_s, 1))
        self._outputs.hold(position, self._fit, now_ns, self.episode_id, self._chunk_id, reason)
        self.progress.holds += 1
        self._engine.metrics.holds.labels(reason).inc()
        log.warning("holding: %s", reason)
