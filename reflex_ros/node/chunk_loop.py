# SPDX-License-Identifier: Apache-2.0
"""The thread that turns observations into published chunks: requests in time, skips elapsed rows, holds on doubt."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from reflex_core.chunks.scheduling import ChunkScheduler, ExecutingChunk
from reflex_core.chunks.tool_check import HELD_FOR as TOOL_LIMIT
from reflex_core.engine.engine import Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import NotReadyError, ReflexError
from reflex_core.records.trace.schema import Failure
from reflex_core.robot.clocks import ClockSteps
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, ROS, Request, Served
from reflex_ros.bag.recorder_hook import OFF, RecorderHook
from reflex_ros.node.every_step import EveryStep
from reflex_ros.node.execution import Execution
from reflex_ros.node.holds import DEACTIVATED, GONE, LATE, STOPPED, Holds, handover_of
from reflex_ros.node.observation_buffer import Gates, ObservationBuffer
from reflex_ros.node.progress import Progress, Tuning
from reflex_ros.node.takeover import Takeover, TakeoverLoop
from reflex_ros.outputs.outputs import Outputs

POLL_S = 0.02
RETRY_S = 0.05
LOCK_S = 0.5  # how long another thread waits for the loop's lock before it reports that it cannot hold
HANGING_S = 5.0  # a cycle that takes longer, and three times what is usual, is late whatever the robot does
JOIN_S = 10.0  # how long the end of an activation waits for an inference under way

log = logging.getLogger(__name__)


class ChunkLoop:
    """One per activation. `clock_ns` is the robot's clock (ROS time), `tuning` gives the present settings."""

    def __init__(
        self, engine: Engine, loaded: ServingState, buffer: ObservationBuffer, outputs: Outputs, clock_ns: Callable[[], int],
        tuning: Callable[[], Tuning], progress: Progress, recorder_hook: RecorderHook = OFF,
        monotonic_ns: Callable[[], int] = time.monotonic_ns, *, wall_clock: bool = False, dry_run: bool = False,
    ) -> None:  # fmt: skip
        """Create the loop. wall_clock: `clock_ns` is this machine's, which people and NTP may set; a simulator reports jumps."""
        self._engine, self._loaded, self._buffer = engine, loaded, buffer
        self._outputs, self._recorder_hook = outputs, recorder_hook
        self._clock_ns, self._tuning, self._monotonic_ns = clock_ns, tuning, monotonic_ns
        self._steps = ClockSteps(clock_ns, monotonic_ns) if wall_clock else None
        self._commands = loaded.guard.commands
        self._handover = handover_of(loaded, buffer, tuning, monotonic_ns)
        self._holds = Holds(loaded, self._handover, buffer, outputs, engine.metrics, progress, tuning, clock_ns, monotonic_ns)  # fmt: skip
        self._holds.dry_run = dry_run
        self._lock, self._wake = threading.RLock(), threading.Condition()
        self.every_step = self._holds.every_step = EveryStep(
            loaded, buffer, outputs, engine.metrics, tuning, clock_ns, self._lock, self._holds.commanded
        )
        self.progress = progress
        self.scheduler = ChunkScheduler(loaded.first_latency_s)
        self.execution = Execution(
            loaded, self._holds, self._handover, outputs, progress, self.every_step, tuning().blend, clock_ns, monotonic_ns
        )  # fmt: skip
        self._binding = loaded.policy.binding
        self._horizon, self._needs_words = loaded.execution_horizon, loaded.needs_instruction
        self._news, self._closing, self.stop_reason = False, False, ""
        self._epoch, self._rescued = 0, False
        self._retry_at, self._rehold_at, self._unwell = 0.0, 0.0, False
        self._beat_ns = monotonic_ns()
        self._due_since_ns: int | None = None
        self._commands.end()
        self.takeover = Takeover(
            engine, loaded, buffer, self.execution, self._handover, progress, tuning, clock_ns, monotonic_ns,
            TakeoverLoop(self._lock, self._hold, self._end_commands, self.restart, self._why_not_a_person), dry_run=dry_run,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="chunk loop", daemon=True)

    def start(self) -> None:
        """Begin to infer and publish."""
        self._thread.start()
        self.every_step.start()

    def close(self, reason: str) -> None:
        """End the thread and leave the robot holding. A chunk still being computed is thrown away."""
        with self._lock:
            self._closing = True
            self._epoch += 1
            self._end_commands(held=self.execution.running is not None and self._hold(reason))
        self.news()
        self.every_step.close()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        if self._thread.is_alive():
            log.error("an inference does not end: it is abandoned, and its result will be discarded")

    def news(self) -> None:
        """Wake the loop after a message: check again whether a chunk is due."""
        with self._wake:
            self._news = True
            self._wake.notify()
        self.every_step.news()

    def new_episode(self, episode_id: str) -> None:
        """Begin an episode: chunk numbers start at 0, nothing of the old episode is used or published."""
        with self._lock:
            self.execution.episode_id = episode_id
            self.execution.chunk_id = 0
            self._loaded.begins(episode_id)
            self._buffer.new_episode()
            self.restart()

    def restart(self) -> None:
        """Ask for a chunk at once: another instruction, another episode."""
        with self._lock:
            self._epoch += 1
            self.scheduler.reset()
        self.news()

    def clock_jumped_back(self) -> None:
        """Start over after a simulator's restart: older stamps are void, the robot may be anywhere."""
        with self._lock:
            self._buffer.clear()
            self._forget()
            self._end_commands()
            self.execution.held_at_ns = self._monotonic_ns()
            self.execution.running = None
            self._due_since_ns = None
            self.progress.note("clock_jump", "the clock jumped back: what was known before was dropped")
            self.restart()

    def _clock_was_set(self) -> bool:
        """Return whether this machine's clock was set; then begin again with fresh sensor data. Needs the lock.

        Commands go on meanwhile, on the monotonic clock.
        """
        step_s = self._steps.step_s() if self._steps is not None else 0.0
        if step_s:
            self._commands.count_on_monotonic_clock()
            self._handover.forget()
            self.every_step.freeze()
            self._buffer.clear(moved=False)
            self._due_since_ns = None
            self._epoch += 1
            self.scheduler.reset()
            message = f"the clock of this machine was set by {step_s:+.1f} s: the robot held, and sensor data was dropped"
            self.progress.note("clock_jump", message)
        return bool(step_s)

    @property
    def stopped(self) -> bool:
        """True after `stop` until `resume`."""
        return bool(self.stop_reason)

    def stop(self, reason: str = STOPPED) -> str:
        """Hold now and publish no chunk until `resume`. Return why no hold was possible, else ""."""
        with self._lock:
            self.stop_reason = STOPPED if self.stop_reason == STOPPED else reason
            self._epoch += 1
            self._end_commands(held=(held := self._hold(reason)))
            return "" if held else self.progress.unheld_text

    def resume(self, *, for_goal: bool = False) -> bool:
        """Undo `stop`; the next chunk starts from a fresh observation. False where a goal would undo a person's stop."""
        with self._lock:
            if for_goal and self.stop_reason == STOPPED:
                return False
            self.stop_reason = self.progress.unheld_text = self.progress.problem = ""
        self.restart()
        return True

    def believe(self) -> str:
        """Trust the joints' present readings because an operator confirms them; return why one cannot be, else ""."""
        with self._lock:
            doubted, problem = self._buffer.fault() is not None, self._buffer.anchor()
            if doubted and not problem:  # what was commanded says nothing of where they are
                self._commands.end()
            return problem

    def _end_commands(self, *, held: bool = False) -> None:
        """Drop earlier commands once a last hold has come to rest: the robot may be moved by hand then."""
        self.takeover.end()
        self._buffer.released(self.execution.end_commands(held=held))

    def overdue(self) -> str:
        """Return why the watchdog must hold the robot: the loop or a stream of setpoints is late or gone, or "". For another thread."""
        if self._closing or self._thread.ident is None:
            return ""
        return GONE if not self._thread.is_alive() else self.late() or self._outputs.overdue()

    def late(self) -> str:
        """Return `chunk_loop_late` when nothing followed a chunk within `max_age_ms`, or a cycle does not end; else ""."""
        if self.stop_reason or self._rescued:  # rescued: the cycle of then has not ended yet
            return LATE if self._rescued else ""
        over_ns = self.execution.over_ns(wall_clock=self._steps is not None)
        most_ns = self._tuning().gates.max_age_ms * 1e6
        if over_ns is not None and over_ns > most_ns and not self.progress.hold_reason:
            return LATE
        hanging_s = max(HANGING_S, 3.0 * self.scheduler.latency_s)
        return LATE if self._monotonic_ns() - self._beat_ns > hanging_s * 1e9 else ""

    def rescue(self, reason: str, text: str) -> bool:
        """Hold on behalf of the loop; False when its lock is taken and no hold was possible."""
        self.progress.problem, self.progress.problem_text = reason, text
        if not self._lock.acquire(timeout=LOCK_S):
            return False
        try:
            self._rescued = reason in (LATE, GONE)
            return self._hold(reason) if self._moves else True
        finally:
            self._lock.release()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._news or self._closing, POLL_S)
                self._news = False
            if self._closing:
                return
            self.cycle()

    def cycle(self) -> None:
        """Run one cycle: read the sensors, infer, publish or hold. Never raises: nothing in here may end the thread."""
        self._beat_ns, self._rescued = self._monotonic_ns(), False
        try:
            self._step()
        except BaseException as error:  # extensions written in Rust panic with what is no Exception
            try:
                text = "the chunk loop failed on a step; the robot holds"
                self.progress.limited_log(logging.ERROR, "step", text, error=error)
                slug = self._outputs.overdue() or "internal-error"  # sending finds a stream gone
                self._failed(slug, f"{type(error).__name__}: see the log")
            except BaseException:
                log.exception("the chunk loop could not hold the robot after a failed step")

    def _step(self) -> None:
        with self._lock:
            if self._clock_was_set():
                self._hold_instead("clock_jump")
        if self.stop_reason:
            return
        self._doubt()
        if self._monotonic_ns() * 1e-9 < self._retry_at:
            return
        tuning, now_ns = self._tuning(), self._clock_ns()
        if self.execution.aim(tuning):
            self.scheduler.reset()
        due_ns = self.scheduler.due_ns(tuning.execution_horizon or self._horizon, tuning.margin_s)
        if due_ns is not None and now_ns < due_ns and not self._unwell:
            return
        if self._due_since_ns is None:
            self._due_since_ns = now_ns
        with self._lock:
            began, episode_id = (self._epoch, self._buffer.doubts), self.execution.episode_id
        try:
            observation = self._buffer.take(now_ns, tuning.gates, needs_words=self._needs_words)
        except ReflexError as error:
            self.progress.refused += 1
            self._engine.metrics.observations_refused.labels(error.slug).inc()
            self._bridge(error, now_ns - self._due_since_ns, tuning.gates)
            return
        self.every_step.carry_over(episode_id)
        request = replace(
            self._engine.request(observation, episode_id=episode_id or None, received_ns=self._monotonic_ns(), caller=ROS),
            newest=lambda: self._buffer.peek(self._clock_ns(), tuning.gates),
        )  # fmt: skip
        try:
            served = self._engine.act(request)
        except NotReadyError as error:
            self.progress.errors += 1
            self._bridge(error, now_ns - self._due_since_ns, tuning.gates)
            return
        except ReflexError as error:
            self._recorder_hook.answered(request, Failure(error.slug, str(error)), self._buffer.consumed)
            self._failed(error.slug, str(error))
            return
        self._recorder_hook.answered(request, served, self._buffer.consumed)
        self._publish(request, served, now_ns, began)

    def _publish(self, request: Request, served: Served, taken_ns: int, began: tuple[int, int]) -> None:
        """Publish the chunk, unless the episode, the clock or the robot's state has changed or been doubted meanwhile."""
        running = ExecutingChunk(request.observation.stamp_ns, self._binding.dt_s, len(served.chunk.actions))
        with self._lock:
            now_ns = self._clock_ns()
            latency_s = (now_ns - taken_ns) * 1e-9
            if self._clock_was_set():
                self._hold_instead("clock_jump")
            changed = began != (self._epoch, self._buffer.doubts)
            if changed or self._closing or self._hung(latency_s) or self._buffer.fault():
                self.progress.discarded += 1
                self._forget()
                return
            if self.takeover.taken:
                self._watch(served, running, latency_s)
                return
            start = running.elapsed(now_ns)
            if why := self.execution.unfit(served, start, now_ns):
                self._forget()
                self._failed(*why)
                return
            self.every_step.made(request, served, joined=self._handover.executing)
            served, led = self.execution.led(served, running.stamp_ns, start, now_ns)
            served = self._loaded.guard.rejoined(request, served, start, led)
            if served.chunk.source == HOLD:
                if not self._hold(served.hold_reason or HOLD, served):
                    return
            elif not self._handover.keeps_tool(served.chunk, running.stamp_ns, start, now_ns):
                self._forget()
                self._failed(TOOL_LIMIT, "no motion to this chunk keeps the limits of tool and bodies")
                return
            else:
                self.execution.send(served, request.observation.age_ms, running, start, now_ns)
                self.scheduler.started(running, latency_s)
            self.execution.chunk_id += 1
            self._due_since_ns = None
            self._judge(served)
        self.progress.count(served, request.observation.age_ms)

    def _watch(self, served: Served, running: ExecutingChunk, latency_s: float) -> None:
        """Take note of an answer that is not executed, because a person commands the robot. Needs the lock."""
        self._forget()
        self._due_since_ns = None
        self.progress.watched += 1
        self._judge(served, executed=False)
        if not self._unwell:
            self.scheduler.started(running, latency_s)

    def _hung(self, latency_s: float) -> bool:
        """Return True for an answer so late that the watchdog held the robot; its latency is learned, for the next one."""
        usual_s = self.scheduler.latency_s + self._tuning().gates.max_age_ms * 1e-3
        hung = self._rescued and latency_s > 2.0 * usual_s
        if hung:
            self.scheduler.learn(latency_s)
        return hung

    def _judge(self, served: Served, *, executed: bool = True) -> None:
        """Schedule the next request soon where the answer is a fallback."""
        self._unwell = served.chunk.source in (HOLD, LAST_KNOWN_GOOD)
        if self._unwell:
            self._retry_at = self._monotonic_ns() * 1e-9 + RETRY_S
        self.progress.judge(served, executed=executed)

    def _doubt(self) -> None:
        """Hold at once, whatever is being inferred, where a joint is not where it reports to be."""
        fault = self._buffer.fault()
        if fault is not None and self.execution.running is not None and not self.progress.hold_reason:
            self.progress.note(fault.reason, fault.text)
            self._hold_instead(fault.reason)

    def _bridge(self, error: ReflexError, late_ns: int, gates: Gates) -> None:
        """Handle a cycle without inference: the running chunk's tail bridges `max_age_ms`; after that the robot holds."""
        self._retry_at = self._monotonic_ns() * 1e-9 + RETRY_S
        self.progress.note(error.slug, str(error))
        if late_ns > gates.max_age_ms * 1e6 and not self.takeover.active:
            self._hold_instead(error.slug)

    def _failed(self, slug: str, text: str) -> None:
        self._retry_at = self._monotonic_ns() * 1e-9 + RETRY_S
        self.progress.errors += 1
        self.progress.note(slug, text)
        if not self.takeover.active:
            self._hold_instead(slug)

    @property
    def _moves(self) -> bool:
        """True where the robot executes a chunk and is not held yet."""
        return self.execution.running is not None and not self.stopped and not self.progress.hold_reason

    def _why_not_a_person(self) -> tuple[str, str]:
        """Return why no person may command the robot now, as reason of a hold and sentence; empty ones where one may."""
        if self._clock_was_set():  # where the robot is on its way is known by the clock of before
            self._hold_instead("clock_jump")
        reason = self.stop_reason or (LATE if self._rescued else self._outputs.overdue())
        reason = DEACTIVATED if self._closing else reason
        return (reason, f"the robot is held: {reason}") if reason else ("", "")

    def _hold_instead(self, reason: str) -> None:
        """Hold a robot that executes a chunk and is not held yet; where that is not possible, try again soon."""
        with self._lock:
            if self._moves and self._monotonic_ns() * 1e-9 >= self._rehold_at and not self._hold(reason):
                self._rehold_at = self._monotonic_ns() * 1e-9 + RETRY_S

    def _forget(self) -> None:
        """Forget the newest chunk, which the robot does not execute. Needs the lock."""
        self._loaded.not_executed(self.execution.episode_id or None)

    def _hold(self, reason: str, served: Served | None = None) -> bool:
        """Publish the guard's hold; False when there is none, which is reported. Needs the lock.

        served: the answer that is a hold; None for a hold of the loop itself.
        """
        self._clock_was_set()
        self.takeover.end()
        if self.execution.resting:
            return True
        self.scheduler.reset()
        self._forget()
        held = self.execution.hold(reason, served)
        if not held:
            self._retry_at = self._monotonic_ns() * 1e-9 + RETRY_S
        return held
