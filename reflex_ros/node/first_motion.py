# SPDX-License-Identifier: Apache-2.0
"""~/first_motion: the last part of a dry run. Each joint is moved a little, slowly, there and back, and its readings are compared."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from std_srvs.srv import Trigger

from reflex_core.chunks import first_motion
from reflex_core.chunks.first_motion import FirstMotionError, Step
from reflex_core.chunks.interpolation import Doubles, Spline
from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_core.robot.groups import GRIPPER, Group
from reflex_core.robot.limits.limits import Limits
from reflex_core.settings.table import Settings
from reflex_core.values import ActionChunk
from reflex_ros.graph.endpoints import UNKNOWN
from reflex_ros.graph.other_policies import await_names
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.driving import is_simulated, tuning_of
from reflex_ros.node.holds import STOPPED
from reflex_ros.node.measured_joints import MeasuredJoints
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.outputs.base import Acting, Command, Limited, Output
from reflex_ros.outputs.channels import Channel, channels_of, require_one_each
from reflex_ros.outputs.interfaces import output_maker, with_defaults

if TYPE_CHECKING:
    from reflex_ros.node.lifecycle import ManagedNode

POLL_S = 0.02
SETTLE_S = 1.0  # how long a joint may take to get where it was commanded
FLUSH_S = 1.0
CONTROLLER_S = 5.0  # how long the controllers may take to be found
MATCH_S = 0.5  # how long a controller that was found may take to find us, too: what is sent before is lost
SIMULATED_STEP_NS = 200_000_000  # a simulator's clock that goes further at once was set
LONGEST_NS = 2**62
END_S = 10.0  # how long the end of an activation waits for the end of the motion

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """One group and what commands it, for this motion alone."""

    group: Group
    output: Output

    @property
    def channels(self) -> list[Channel]:
        return [*channels_of(self.group, self.output)]


class FirstMotion:
    """The service. Commands leave only while a request is answered; robot interfaces are made for it and destroyed after it."""

    def __init__(
        self, node: ManagedNode, engine: Engine, loop: Callable[[], ChunkLoop | None],
        buffer: Callable[[], ObservationBuffer | None], settings: Callable[[], Settings],
    ) -> None:  # fmt: skip
        """Create the service. loop, buffer: of the present activation."""
        self._node, self._engine, self._settings = node, engine, settings
        self._loop, self._buffer = loop, buffer
        self._idle, self._ending, self._why = threading.Event(), threading.Event(), ""
        self._idle.set()
        # in the usual kind of group no other callback would run while the robot moves: no joint state, no ~/stop
        node.create_service(Trigger, "~/first_motion", self._answer, callback_group=ReentrantCallbackGroup())

    def abort(self, why: str) -> None:
        """Have a motion under way end at once, with a hold. From any thread."""
        if not self._ending.is_set():
            self._why = why
            self._ending.set()

    async def ended(self, why: str) -> None:
        """End a motion under way, and wait until nothing of it is left on the node."""
        if not self._idle.is_set():
            self.abort(why)
            await self._node.off_executor(lambda: self._idle.wait(END_S))

    async def _answer(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.success, response.message = await self._moved()
        except ReflexError as error:
            response.success, response.message = False, str(error)
        except Exception:
            log.exception("the first motion failed")
            response.success, response.message = (
                False,
                "the first motion failed, and the robot was held: see the log",
            )
        log.log(logging.INFO if response.success else logging.WARNING, "first motion: %s", response.message)
        return response

    async def _moved(self) -> tuple[bool, str]:
        if not self._idle.is_set():
            raise FirstMotionError("a first motion is under way")
        self._ending.clear()
        robot = self._robot()
        self._idle.clear()
        robot.loop.progress.first_motion = True
        try:
            parts = self._made(robot.groups, robot.limits)
            try:
                return await self._node.off_executor(
                    lambda: _Run(robot, parts, self._ending, self._reason).tried()
                )
            finally:
                for part in parts:
                    await self._disabled(part.output)
                    part.output.destroy()
        finally:
            robot.loop.progress.first_motion = False
            self._idle.set()

    async def _disabled(self, output: Output) -> None:
        if isinstance(output, Acting):  # its cancellations leave from this thread alone
            output.disable()
        else:
            await self._node.off_executor(output.disable)  # it may wait for its receivers

    def _reason(self) -> str:
        return self._why

    def _robot(self) -> _Robot:
        """Return the robot, where its joints may be moved now. Raises FirstMotionError."""
        loop, buffer, loaded, settings = self._loop(), self._buffer(), self._engine.loaded, self._settings()
        if not settings.dry_run:
            raise FirstMotionError("the first motion is part of a dry run: start with dry_run")
        if loop is None or buffer is None or loaded is None or self._node.state != "active":
            raise FirstMotionError(f"the node is {self._node.state}, not active")
        binding, limits = loaded.policy.binding, loaded.guard.limits
        if binding.embodiment is None or limits is None:
            raise FirstMotionError("the first motion needs the robot's ranges: name an embodiment")
        if loop.stop_reason == STOPPED:
            raise FirstMotionError("the robot is stopped: call ~/resume first")
        if unmoved := buffer.motion_left():
            raise FirstMotionError(
                f"move every joint by hand once: {', '.join(unmoved)} {'has' if len(unmoved) == 1 else 'have'} not moved, or"
                " what is read of it cannot be right; the diagnostic `commands` says which"
            )
        joints = MeasuredJoints(buffer, binding, lambda: tuning_of(self._settings()))
        groups = [with_defaults(group, settings) for group in first_motion.moving(binding.groups)]
        robot = _Robot(self._node, loop, buffer, joints, groups, limits, binding.action_names)
        robot.planned()  # what cannot be planned is refused before any robot interface is made
        return robot

    def _made(self, groups: Sequence[Group], limits: Limits) -> list[_Part]:
        """Return the robot interfaces, which let commands out. On the executor's thread."""
        parts: list[_Part] = []
        try:
            for group in groups:
                # the way back must be a goal of its own, however short it is
                options = {**group.options, "dead_band": 0.0} if group.space == GRIPPER else group.options
                made = output_maker(group.output)(self._node, _publish, replace(group, options=options))
                parts.append(_Part(group, made))
            require_one_each(channel for part in parts for channel in part.channels)
        except BaseException:
            for part in parts:
                part.output.destroy()
            raise
        for part in parts:
            if isinstance(part.output, Limited):
                part.output.limit(limits.velocity_max[list(part.group.columns)])
            part.output.enable()
        return parts


def _publish(publisher: Any, message: Any) -> None:
    publisher.publish(message)


@dataclass(frozen=True, slots=True)
class _Robot:
    """What is moved."""

    node: ManagedNode
    loop: ChunkLoop
    buffer: ObservationBuffer
    joints: MeasuredJoints
    groups: Sequence[Group]
    limits: Limits
    names: tuple[str, ...]

    def now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def planned(self) -> tuple[Doubles, tuple[Step, ...]]:
        """Return (dim,) where everything begins, and a step for each joint. Raises FirstMotionError."""
        base = first_motion.inside(self.groups, self.limits, self.position())
        return base, first_motion.plan(self.groups, self.limits, base)

    def position(self) -> Doubles:
        """Return (dim,) where the joints are. Raises FirstMotionError where that is not known."""
        found = self.joints.position(self.now_ns())
        if found is None:
            fault = self.buffer.fault()
            why = fault.text if fault is not None else "no joint state is fresh"
            raise FirstMotionError(f"where the joints are is not known: {why}")
        return found.astype(np.float64)


class _Elapsed:
    """How much of a motion is over. A clock that is set meanwhile must not make a hold jump along it."""

    def __init__(self, robot: _Robot) -> None:
        """Begin to count: on simulated time where the robot lives by it, else on a monotonic clock."""
        simulated = is_simulated(robot.node)
        self._clock_ns = robot.now_ns if simulated else time.monotonic_ns
        self._most_ns = SIMULATED_STEP_NS if simulated else LONGEST_NS
        self._last_ns, self._total_ns = self._clock_ns(), 0

    def ns(self) -> int:
        """Return the time since the beginning. To be called often: of a simulator's leap it counts a moment."""
        now_ns = self._clock_ns()
        self._total_ns += min(max(now_ns - self._last_ns, 0), self._most_ns)
        self._last_ns = now_ns
        return self._total_ns


class _Run:
    """One motion of all joints, one after the other. Lives in a thread of its own."""

    def __init__(
        self, robot: _Robot, parts: Sequence[_Part], ending: threading.Event, reason: Callable[[], str]
    ) -> None:
        self._robot, self._parts, self._ending, self._reason = robot, parts, ending, reason
        self._base, self._steps = np.zeros(len(robot.names)), tuple[Step, ...]()
        self._channels = [channel for part in parts for channel in part.channels]

    def tried(self) -> tuple[bool, str]:
        """Move joint by joint, until one moves that was not meant to. Return whether all did as commanded, and what was seen.

        Raises FirstMotionError where it cannot begin.
        """
        self._await_controllers()
        # measured now and not when the service was called: a person may have moved the robot while it waited
        self._base, self._steps = self._robot.planned()
        phrases: list[str] = []
        fine = True
        for number, step in enumerate(self._steps):
            moved, phrase, why = self._tried(step)
            fine = fine and moved and not why
            phrases.append(phrase)
            if why:
                left = [step.name for step in self._steps[number + 1 :]]
                phrases.append(f"held: {why}")
                phrases += [f"not tried: {', '.join(left)}"] if left else []
                break
        return fine, "; ".join(filter(None, phrases))

    def _tried(self, step: Step) -> tuple[bool, str, str]:
        """Move one joint there and back. Return whether it moved as commanded, what is said of it, and why it is held there."""
        if moved_on := first_motion.elsewhere(self._steps, self._robot.position() - self._base):
            return False, "", f"{', '.join(moved_on)} moved before {step.name} was tried"
        there = step.target(self._base)
        why, away = self._led(step, self._base, there)
        if why and not first_motion.deviates(step, self._steps, away):
            return False, "", why
        moved, phrase = first_motion.verdict(step, self._steps, away)
        if not why:
            why, away = self._led(step, there, self._base)
            if not why and moved and not first_motion.came_back(step, away):
                return False, phrase, f"{step.name} did not come back"
        return moved, phrase, why

    def _led(self, step: Step, begin: Doubles, end: Doubles) -> tuple[str, Doubles]:
        """Send one way and watch it. Return why it was broken off with a hold, and (dim,) how far the joints are from the base."""
        part = next(part for part in self._parts if step.column in part.group.columns)
        motion, elapsed = (
            first_motion.leg(begin, end, step.duration_s, self._robot.now_ns()),
            _Elapsed(self._robot),
        )
        try:
            part.output.send(self._command(part, motion))
            why, away = self._watched(step, end, motion, elapsed)
        except BaseException:
            self._hold(part, motion, elapsed)
            raise
        if why:
            self._hold(part, motion, elapsed)
        return why, away

    def _watched(self, step: Step, end: Doubles, motion: Spline, elapsed: _Elapsed) -> tuple[str, Doubles]:
        """Return why the way must be broken off, "" once it is over, and (dim,) how far the joints are from the base."""
        away, back = np.zeros(len(end)), float(end[step.column]) == float(self._base[step.column])
        settled_s: float | None = None
        while True:
            ended = self._ending.wait(POLL_S)
            try:
                away = self._robot.position() - self._base
                why = self._reason() if ended else self._problem(step, away)
            except FirstMotionError as error:
                why = self._reason() if ended else str(error)
            if why:
                return why, away
            if elapsed.ns() < motion.end_ns - int(motion.times_ns[0]):
                continue
            settled_s = time.monotonic() + SETTLE_S if settled_s is None else settled_s
            near = abs(away[step.column]) < 0.1 * abs(step.away) if back else first_motion.arrived(step, away)
            if near or time.monotonic() >= settled_s:
                return "", away

    def _problem(self, step: Step, away: Doubles) -> str:
        if self._robot.loop.stop_reason == STOPPED:
            return "the robot was stopped"
        if first_motion.deviates(step, self._steps, away):
            return "a joint left its way"
        others = self._others()
        return f"{', '.join(others)} can command it too" if others else ""

    def _others(self) -> list[str]:
        own = self._robot.node.get_fully_qualified_name()
        found = set[str]()
        for channel in self._channels:
            commanders = channel.commanders(self._robot.node)
            if own in commanders:
                commanders.remove(own)  # a second node of our name stays in it
            found |= {*commanders}
        return sorted(found - {UNKNOWN})

    def _await_controllers(self) -> None:
        """Wait for a receiver of every command. Raises FirstMotionError without one, and where another node commands."""
        node, end_s = self._robot.node, time.monotonic() + CONTROLLER_S
        await_names(node, self._channels)
        if others := self._others():
            raise FirstMotionError(
                f"{', '.join(others)} can command this robot too, on"
                f" {', '.join(channel.name for channel in self._channels)}: end it first"
            )
        while lacks := [channel.name for channel in self._channels if not channel.receivers(node)]:
            if self._ending.wait(POLL_S):
                raise FirstMotionError(f"nothing was moved: {self._reason()}")
            if time.monotonic() >= end_s:
                raise FirstMotionError(
                    f"nothing takes the commands on {', '.join(lacks)}: start the controller, or remap the name"
                )
        if self._ending.wait(MATCH_S):
            raise FirstMotionError(f"nothing was moved: {self._reason()}")

    def _hold(self, part: _Part, motion: Spline, elapsed: _Elapsed) -> None:
        held = first_motion.braked(motion, elapsed.ns(), self._robot.now_ns())
        part.output.hold(self._command(part, held))
        part.output.flush(FLUSH_S)

    def _command(self, part: _Part, motion: Spline) -> Command:
        columns = np.array(part.group.columns)
        rows = motion.positions[1:, columns].astype(np.float32)
        if isinstance(part.output, Acting):  # it moves at its own speed: one goal
            rows[:] = rows[-1]
        names = tuple(self._robot.names[column] for column in part.group.columns)
        chunk = ActionChunk(rows, names, first_motion.DT_S)
        stamp_ns = int(motion.times_ns[0])
        measured = self._robot.buffer.measured(names, stamp_ns, np.inf)
        return Command(chunk, stamp_ns, 0, motion.of(columns), measured)
