# SPDX-License-Identifier: Apache-2.0
"""~/run_policy: the policy as a skill. One goal at a time, and whatever ends it, the robot holds."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.task import Future

from reflex_core.engine.engine import Engine
from reflex_core.metrics.episodes import ID_RULE, usable_id
from reflex_core.robot.intake import has_words
from reflex_core.text.untrusted import escaped
from reflex_core.values import ROS
from reflex_ros.action import RunPolicy
from reflex_ros.messages.chunks import source_code
from reflex_ros.node.assignment import TEXT_LIMIT, Assignment
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.holds import GOAL_ENDED, GONE, STOPPED
from reflex_ros.node.progress import Progress
from reflex_ros.node.watchdog import TEXTS as WATCHDOG_TEXTS
from reflex_ros.outputs.base import STREAM_GONE

if TYPE_CHECKING:
    from rclpy.action.server import ServerGoalHandle

    from reflex_ros.node.lifecycle import ManagedNode

ACTIVE = "active"
PERIOD_S = 0.1  # of feedback, and of looking for what ends a goal by itself
STOPPED_TEXT = "the robot was stopped: call ~/resume before the next goal"
BREAKER_OPEN = "server-degraded"  # slug of the refusal while the breaker of every policy is open

Result = RunPolicy.Result
REASONS = {
    Result.TERMINATION_TIME_LIMIT: "time_limit",
    Result.TERMINATION_CANCELED: "canceled",
    Result.TERMINATION_PREEMPTED: "preempted",
    Result.TERMINATION_STOPPED: "stopped",
    Result.TERMINATION_DEACTIVATED: "deactivated",
    Result.TERMINATION_GUARD_TRIPPED: "guard_tripped",
    Result.TERMINATION_BREAKER_OPEN: "breaker_open",
    Result.TERMINATION_SUPERSEDED: "superseded",
    Result.TERMINATION_FAILED: "failed",
}
# ends of a goal at which the robot is not held: the newer goal goes on; who stopped the robot has held it
NOT_HELD = (Result.TERMINATION_PREEMPTED, Result.TERMINATION_STOPPED)


@dataclass(frozen=True, slots=True)
class SkillRobot:
    """What a goal needs of the node.

    loop: the chunk loop, None unless the node is active. ending: the process is. now_ns: the robot's clock.
    elapses_ns: the clock that durations are measured on: simulated time, or a monotonic one.
    """

    loop: Callable[[], ChunkLoop | None]
    assignment: Assignment
    ending: Callable[[], bool]
    now_ns: Callable[[], int]
    elapses_ns: Callable[[], int]


@dataclass(slots=True)
class Goal:
    """One accepted goal. before: the counts of the node when it began. ended: completes with the reason and a sentence."""

    handle: ServerGoalHandle
    before: dict[str, int]
    ended: Future
    episode_id: str = ""
    elapsed_s: float = 0.0
    last_ns: int = 0
    finished: Future = field(default_factory=Future)

    @property
    def limit_s(self) -> float:
        """How long it may go on."""
        return float(self.handle.request.max_duration_s) or math.inf

    def elapse(self, now_ns: int) -> None:
        """Count the time since the last call; a simulator that begins again takes none away."""
        self.elapsed_s += max(now_ns - self.last_ns, 0) * 1e-9
        self.last_ns = now_ns


class RunPolicyServer:
    """The action server. Its callbacks and the timer run on the executor's thread; `end` may be called from any."""

    def __init__(self, node: ManagedNode, engine: Engine, progress: Progress, robot: SkillRobot) -> None:
        """Create the action; goals are rejected while there is no chunk loop."""
        self._node, self._engine, self._progress, self._robot = node, engine, progress, robot
        self._lock = threading.Lock()
        self._goal: Goal | None = None
        self._accepted: dict[bytes, Goal] = {}
        # a goal runs for minutes, and a group of the usual kind would keep every other callback waiting for it
        group = ReentrantCallbackGroup()
        self._server = ActionServer(
            node, RunPolicy, "~/run_policy", self._execute, callback_group=group, goal_callback=self._judge,
            handle_accepted_callback=self._begin, cancel_callback=self._cancel,
        )  # fmt: skip
        self._timer = node.create_timer(PERIOD_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()
        robot.assignment.superseded = lambda why: self.end(Result.TERMINATION_SUPERSEDED, why)

    def destroy(self) -> None:
        """Destroy the action."""
        self._node.destroy_timer(self._timer)
        self._server.destroy()

    def end(self, reason: int, message: str) -> Goal | None:
        """End the running goal, unless it has ended already; return it. The robot holds when this returns."""
        with self._lock:
            goal, self._goal = self._goal, None
        if goal is None:
            return None
        loop = self._robot.loop()
        if reason not in NOT_HELD and loop is not None and (problem := loop.stop(GOAL_ENDED)):
            message = f"{message}; {problem}"
        self._engine.metrics.goals.labels(REASONS[reason]).inc()
        goal.elapse(self._robot.elapses_ns())
        goal.ended.set_result((reason, message))
        if self._node.executor is not None:
            self._node.executor.wake()
        return goal

    def stopped(self) -> None:
        """End the running goal because a person stopped the robot, which holds already."""
        self.end(Result.TERMINATION_STOPPED, STOPPED_TEXT)

    async def deactivated(self) -> None:
        """End the running goal because the node leaves the state active; its result is set when this returns."""
        goal = self.end(Result.TERMINATION_DEACTIVATED, "the node was deactivated")
        if goal is not None:
            await goal.finished

    def _judge(self, request: RunPolicy.Goal) -> GoalResponse:
        if why := self._refusal(request):
            self._node.get_logger().warning(f"goal of ~/run_policy rejected: {why}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _refusal(self, request: RunPolicy.Goal) -> str:
        """Return why a goal can not be begun, whatever the robot does now; "" where it can."""
        loaded = self._engine.loaded
        if self._robot.ending():
            return "the node is ending"
        if self._node.state != ACTIVE or self._robot.loop() is None or loaded is None:
            return f"the node is {self._node.state}, not active"
        if not 0.0 <= request.max_duration_s < math.inf:
            return f"max_duration_s must be 0 or more seconds, got {request.max_duration_s}"
        if len(request.instruction) > TEXT_LIMIT:
            return f"an instruction of {len(request.instruction)} characters, the limit is {TEXT_LIMIT}"
        if loaded.needs_instruction and not has_words(
            request.instruction or self._robot.assignment.instruction
        ):
            return "no instruction, and the policy reads one"
        if not usable_id(request.episode_id):
            return f"an episode id of {len(request.episode_id)} characters: expected {ID_RULE}"
        exports = [slot.policy.export for slot in loaded.slots.values()]
        if request.policy and any(request.policy not in (one.model_id, one.model_version) for one in exports):
            served = ", ".join(one.model_version for one in exports)
            return f"the policy {escaped(request.policy, 100)!r} is not what answers here: {served}"
        return ""

    def _begin(self, handle: ServerGoalHandle) -> None:
        """Begin an accepted goal, in the order in which goals came; the one before it ends."""
        self.end(Result.TERMINATION_PREEMPTED, "a newer goal took over")
        loop, request = self._robot.loop(), handle.request
        counts = counted(self._progress)
        goal = Goal(handle, counts, Future(), last_ns=self._robot.elapses_ns())
        self._accepted[bytes(handle.goal_id.uuid)] = goal
        stopped = loop is None or loop.stop_reason == STOPPED
        if not stopped:
            goal.episode_id = self._robot.assignment.begin_goal(request.instruction, request.episode_id)
        with self._lock:
            self._goal = goal
        if loop is None:
            self.end(Result.TERMINATION_DEACTIVATED, "the node was deactivated")
        elif stopped or not loop.resume(for_goal=True):
            self.end(Result.TERMINATION_STOPPED, STOPPED_TEXT)
        else:
            self._node.get_logger().info(
                f"goal of ~/run_policy: {escaped(self._robot.assignment.instruction, 200)!r}"
            )
            self._timer.reset()
        handle.execute()

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        goal = self._goal
        if goal is None or bytes(goal.handle.goal_id.uuid) != bytes(handle.goal_id.uuid):
            return CancelResponse.REJECT  # it has ended already
        self.end(Result.TERMINATION_CANCELED, "the goal was canceled, the robot holds")
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> RunPolicy.Result:
        """Wait for the end of a goal, which others bring about, and send its result."""
        goal = self._accepted.pop(bytes(handle.goal_id.uuid))
        reason, message = await goal.ended
        if self._goal is None:
            self._timer.cancel()
        if reason == Result.TERMINATION_TIME_LIMIT:
            handle.succeed()
        elif reason == Result.TERMINATION_CANCELED:
            handle.canceled()
        else:
            handle.abort()
        self._node.get_logger().info(f"goal of ~/run_policy ended, {REASONS[reason]}: {message}")
        result = Result(termination_reason=reason, message=message, episode_id=goal.episode_id)
        result.model_version, result.duration_s = self._model_version(), goal.elapsed_s
        set_counts(result, self._progress, goal)
        goal.finished.set_result(None)
        return result

    def _model_version(self) -> str:
        loaded = self._engine.loaded
        if loaded is None:
            return ""
        return str(loaded.slots.get(self._progress.slot, loaded.first).policy.export.model_version)

    def _tick(self) -> None:
        goal, loop = self._goal, self._robot.loop()
        if goal is None or loop is None:
            return
        goal.elapse(self._robot.elapses_ns())
        if found := self._why_ended(goal, loop):
            self.end(*found)
            return
        goal.handle.publish_feedback(self._feedback(goal, loop))

    def _why_ended(self, goal: Goal, loop: ChunkLoop) -> tuple[int, str] | None:
        """Return the reason and a sentence when a goal is over, else None."""
        loaded, progress = self._engine.loaded, self._progress
        if loop.stopped:
            return Result.TERMINATION_STOPPED, STOPPED_TEXT
        if loaded is not None and loaded.guard.status(ROS).tripped:
            return Result.TERMINATION_GUARD_TRIPPED, "the guard is tripped: call ~/reset_guard"
        if progress.problem == BREAKER_OPEN:
            return Result.TERMINATION_BREAKER_OPEN, progress.problem_text
        if (overdue := loop.overdue()) in (GONE, STREAM_GONE):
            return Result.TERMINATION_FAILED, WATCHDOG_TEXTS[overdue]
        if goal.elapsed_s >= goal.limit_s:
            return (
                Result.TERMINATION_TIME_LIMIT,
                f"the {goal.limit_s:g} s of the goal are over, the robot holds",
            )
        return None

    def _feedback(self, goal: Goal, loop: ChunkLoop) -> RunPolicy.Feedback:
        progress, loaded = self._progress, self._engine.loaded
        feedback = RunPolicy.Feedback(
            elapsed_s=goal.elapsed_s,
            source=source_code(progress.source),
            hold_reason=progress.hold_reason,
            problem=f"{progress.problem}: {progress.problem_text}" if progress.problem else "",
            latency_ms=progress.latency_ms,
        )
        if loaded is not None:
            feedback.consecutive_clamps = loaded.guard.status(ROS).consecutive_clamps
        running, now_ns = loop.scheduler.running, self._robot.now_ns()
        if running is not None:
            feedback.queue_depth = running.horizon - running.elapsed(now_ns)
            feedback.queue_remaining_s = running.remaining_s(now_ns)
        set_counts(feedback, progress, goal)
        return feedback


COUNTS = {
    "chunks": "chunks",
    "holds": "holds",
    "guard_clamped": "clamped",
    "fallbacks": "fallbacks",
    "errors": "errors",
}


def counted(progress: Progress) -> dict[str, int]:
    """Return the counts of the node by the names of a goal's fields."""
    return {field_: getattr(progress, name) for field_, name in COUNTS.items()}


def set_counts(message: Any, progress: Progress, goal: Goal) -> None:
    """Set what was counted since the goal began."""
    for name, count in counted(progress).items():
        setattr(message, name, count - goal.before[name])
