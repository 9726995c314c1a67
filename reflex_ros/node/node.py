# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: cameras, joints and an instruction in; action chunks, trajectories and diagnostics out."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from reflex_core.engine.engine import Engine
from reflex_core.engine.preflight import require_requests_suffice, why_undrivable
from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import ConfigurationError, ReflexError
from reflex_core.values import ROS
from reflex_ros.bag.recorder_hook import OFF, open_recorder_hook
from reflex_ros.console import startup_banner
from reflex_ros.console.terminal import watched
from reflex_ros.graph.other_policies import require_alone
from reflex_ros.graph.qos import LATCHED
from reflex_ros.msg import ServeStatus
from reflex_ros.node import diagnostics, parameters
from reflex_ros.node.ab_services import create_ab_interfaces
from reflex_ros.node.assignment import Assignment
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.compat import NODE_OPTIONS
from reflex_ros.node.controller_checks import ControllerChecks
from reflex_ros.node.driving import (
    Driving,
    await_controllers,
    end_outputs,
    is_simulated,
    make_outputs,
    observation_buffer,
    tuning_of,
)
from reflex_ros.node.first_motion import FirstMotion
from reflex_ros.node.get_action_chunk import ChunkService, OwnSensors
from reflex_ros.node.holds import AWAITING_GOAL
from reflex_ros.node.lifecycle import ACTIVATE, CONFIGURE, ManagedNode
from reflex_ros.node.logging_bridge import bridge, unbridge
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.node.operator_commands import operator_commands
from reflex_ros.node.progress import Progress
from reflex_ros.node.robot_snapshot import take_snapshot
from reflex_ros.node.run_policy import RunPolicyServer, SkillRobot
from reflex_ros.node.services import answering
from reflex_ros.node.status import status_message
from reflex_ros.node.subscriptions import Inputs
from reflex_ros.node.takeover_inputs import create_handing_over
from reflex_ros.otel.connect import connect_tracing
from reflex_ros.outputs.outputs import Outputs
from reflex_ros.preflight import require_sound
from reflex_ros.sidecar.robot_access import Robot, RobotSnapshot
from reflex_ros.sidecar.server import Sidecar
from reflex_ros.sidecar.server_connections import connect_cloud, connect_remote

RATE_WINDOW_S = 2.0  # chunks are counted over so long: one comes about every second
HEARTBEAT_S = 0.1  # how long the executor may sleep before it looks at signals


class ReflexNode:
    """The node `reflex`: its work in each lifecycle state. The sidecar answers from construction on."""

    def __init__(self, overrides: Mapping[str, object], **node_options: Any) -> None:
        self.node = ManagedNode("reflex", **(NODE_OPTIONS | node_options))
        self.settings = parameters.declare(self.node, overrides)
        self.engine = Engine(self.settings, connect_cloud, connect_tracing, require_sound, connect_remote)
        self._progress = Progress()
        self._buffer: ObservationBuffer | None = None
        self._outputs: Outputs | None = None
        self._inputs: Inputs | None = None
        self._driving: Driving | None = None
        self._loop: ChunkLoop | None = None
        self._recorder_hook = OFF
        self._assignment = Assignment(
            self.node, lambda: self.settings.robot_id, lambda: self._loop, lambda: self._buffer, self.now_ns
        )
        counts = round(RATE_WINDOW_S * self.settings.status_rate_hz) + 1
        self._counts: deque[tuple[float, int]] = deque(maxlen=max(counts, 2))
        self._findings: list[diagnostics.Finding] = []
        self._controllers = ControllerChecks(self.node)
        commands = operator_commands(self.node, self._assignment, self._require_loop)
        robot = Robot(self._stop, self._resume, self._snapshot, self._believe, *commands)
        self.sidecar = Sidecar(self.engine, self.settings, robot) if self.settings.http else None
        if self.sidecar is not None:
            self.sidecar.start()
        self._banner_shown = self._mirroring = False
        self.ending = False  # set by the process: what is under way must not put a robot in motion any more
        self._interfaces()
        work = self.node.work
        work[State.TRANSITION_STATE_CONFIGURING] = self._configure
        work[State.TRANSITION_STATE_ACTIVATING] = self._activate
        work[State.TRANSITION_STATE_DEACTIVATING] = self._deactivate
        work[State.TRANSITION_STATE_CLEANINGUP] = self._clean_up
        work[State.TRANSITION_STATE_SHUTTINGDOWN] = self._clean_up
        self._logs = bridge(
            self.node.get_logger()
        )  # last: a node that cannot be made must not keep the loggers

    def _interfaces(self) -> None:
        node = self.node
        self._status = node.create_publisher(ServeStatus, "~/status", LATCHED)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # the steady clock: people must see status, and signals must be noticed, while simulated time stands still
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(1.0 / self.settings.status_rate_hz, self._publish_status, clock=steady)
        node.create_timer(1.0, self._publish_diagnostics, clock=steady)
        node.create_timer(HEARTBEAT_S, lambda: None, clock=steady)
        for name, action in (
            ("stop", self._stop), ("resume", self._resume), ("new_episode", self._new_episode),
            ("reset_guard", self._reset_guard), ("reset_breaker", self._reset_breaker),
        ):  # fmt: skip
            node.create_service(Trigger, f"~/{name}", answering(action))
        create_ab_interfaces(node, self.engine, lambda: self._assignment.episode_id, self._mirror_split)
        create_handing_over(node, lambda: self._require_loop().takeover)
        self._skill = RunPolicyServer(
            node, self.engine, self._progress,
            SkillRobot(lambda: self._loop, self._assignment, lambda: self.ending, self.now_ns, self._elapses_ns),
        )  # fmt: skip
        own = OwnSensors(
            lambda: self._buffer if self._loop is not None else None,
            lambda: tuning_of(self.settings).gates,
            self.now_ns,
        )
        ChunkService(node, self.engine, self._assignment, own)
        self._first_motion = FirstMotion(node, self.engine, lambda: self._loop, lambda: self._buffer, lambda: self.settings)  # fmt: skip
        node.before_change = parameters.before_change
        node.add_on_set_parameters_callback(
            parameters.on_change(
                lambda: self.settings,
                lambda: node.state != "unconfigured",
                lambda settings: parameters.require_kept(settings, self.engine.loaded),
            )
        )
        node.after_change = self._parameters_changed
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)  # fmt: skip
        self._jumps = node.get_clock().create_jump_callback(threshold, post_callback=self._clock_jumped)

    def now_ns(self) -> int:
        """Return the robot's clock in ns: ROS time, simulated with use_sim_time."""
        return int(self.node.get_clock().now().nanoseconds)

    def _elapses_ns(self) -> int:
        """Return the clock that durations are measured on: simulated time, or a monotonic one."""
        return self.now_ns() if is_simulated(self.node) else time.monotonic_ns()

    def _log_line(self, line: str) -> None:
        self.node.get_logger().info(line)

    async def _configure(self) -> None:
        self.settings = parameters.read(self.node)
        await self.node.off_executor(lambda: watched(lambda: self.engine.load(self.settings), self._log_line))
        loaded = self.engine.loaded
        assert loaded is not None
        if why := why_undrivable(loaded, self.settings):
            await self._serve_requests_alone(why)
            return
        self._buffer = observation_buffer(self.node, self.engine, loaded, self.settings)
        try:
            self._outputs = make_outputs(self.node, loaded, self._buffer, lambda: self.settings)
        except ConfigurationError:
            self._buffer = None
            self.engine.unload()
            raise
        self.engine.addresses = self._outputs.addresses
        await self._controllers.ask(self._outputs)

    async def _serve_requests_alone(self, why: str) -> None:
        """Answer over HTTP from now on, while the node stays inactive: what is loaded must not command a robot."""
        try:
            require_requests_suffice(self.settings, why)
        except ConfigurationError:
            self.engine.unload()
            raise
        self.engine.undrivable = why
        self.node.get_logger().warning(f"the node stays inactive, HTTP requests are answered: {why}")
        await self.node.off_executor(lambda: watched(self.engine.warm_up, self._log_line))
        self._show_banner()

    async def _activate(self) -> None:
        if self.engine.undrivable:
            raise ConfigurationError(self.engine.undrivable)
        await self.node.off_executor(lambda: watched(self.engine.warm_up, self._log_line))
        loaded, buffer, outputs = self.engine.loaded, self._buffer, self._outputs
        assert loaded is not None
        assert buffer is not None
        assert outputs is not None
        wait_s = self.settings.controller_wait_s
        try:
            await self.node.off_executor(
                lambda: await_controllers(self.node, outputs, wait_s, lambda: self.ending)
            )
            if self.ending:
                raise ConfigurationError("the process is ending")
            require_alone(self.node, outputs.channels)
            (await self._controllers.ask(outputs)).require_fit()
        except ConfigurationError:
            self.engine.pause()
            raise
        await self.node.off_executor(lambda: self._open_recorder_hook(loaded))
        outputs.recorder_hook = self._recorder_hook
        outputs.enable()
        self._driving = driving = Driving(
            self.node, self.engine, loaded, buffer, outputs, lambda: tuning_of(self.settings), self._progress,
            self._recorder_hook,
        )  # fmt: skip
        self._loop = loop = driving.loop
        if self.settings.await_goal or self._assignment.of_goal:
            loop.stop_reason = AWAITING_GOAL
        self._assignment.begin_episode("")
        try:
            self._inputs = Inputs(
                self.node, self.settings, tuple(loaded.policy.binding.cameras.values()), buffer,
                loop.news, self._assignment.instruct, self._assignment.begin_episode, self._recorder_hook,
            )  # fmt: skip
        except ConfigurationError:
            await self._deactivate()
            raise
        self._show_banner()
        # what is loaded now stays: a collection must not walk it while the robot moves
        gc.collect()
        gc.freeze()
        driving.start()

    def _show_banner(self) -> None:
        """Show the startup banner, once."""
        if not self._banner_shown:
            self._banner_shown = True
            startup_banner.show_for_node(self.engine, self.sidecar, self._log_line, self.node)

    async def _deactivate(self) -> None:
        self._first_motion.abort(gone := "the node was deactivated")
        await self._skill.deactivated()
        driving, self._driving, self._loop = self._driving, None, None
        await self._first_motion.ended(gone)
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if driving is not None:
            driving.unsubscribe()
            await self.node.off_executor(lambda: driving.close("deactivated"))
        if self._outputs is not None:
            await end_outputs(self.node, self._outputs)
            self._outputs.recorder_hook = OFF
        await self.node.off_executor(self._close_recorder_hook)
        self.engine.pause()
        gc.unfreeze()

    def _open_recorder_hook(self, loaded: ServingState) -> None:
        self._recorder_hook = open_recorder_hook(self.node, self.settings, loaded, self.now_ns)
        self.engine.metrics.recorders.watched = (*loaded.recorders, *self._recorder_hook.recorders)

    def _close_recorder_hook(self) -> None:
        recorder_hook, self._recorder_hook = self._recorder_hook, OFF
        recorder_hook.close()
        loaded = self.engine.loaded
        self.engine.metrics.recorders.watched = loaded.recorders if loaded is not None else ()

    async def _clean_up(self) -> None:
        await self._deactivate()
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        self._buffer = None
        self.engine.unload()
        self.engine.undrivable, self.engine.addresses = "", {}
        gc.collect()

    def _parameters_changed(self, changes: list[Parameter]) -> None:
        try:
            # the split may have been changed over HTTP; its parameter follows a moment later
            self.settings = replace(parameters.read(self.node), split=self.engine.settings.split)
            self.engine.adjust(self.settings)
            for change in changes:
                if change.name == "split" and self.engine.loaded is not None and not self._mirroring:
                    self.engine.pair().operating.set_split(change.value, "the parameter was set", "ros")
        except ReflexError as error:
            self.node.get_logger().error(f"parameters not applied: {error}")

    def _mirror_split(self, split: int) -> None:
        """Set the parameter to the split in use, without changing the split."""
        self._mirroring = True
        try:
            self.node.set_parameters([Parameter("split", value=split)])
        finally:
            self._mirroring = False

    def _clock_jumped(self, jump: Any) -> None:
        self._first_motion.abort("the clock jumped")
        if self._loop is not None and jump.delta.nanoseconds < 0:
            self._loop.clock_jumped_back()

    def _stop(self) -> str:
        self._first_motion.abort("~/stop was called")
        problem = self._require_loop().stop()
        self._skill.stopped()
        return f"stopped: {problem}" if problem else "holding; call ~/resume to go on"

    def _resume(self) -> str:
        self._require_loop().resume()
        self._assignment.of_goal = False
        return "going on with a fresh observation"

    def _new_episode(self) -> str:
        self._require_loop()
        self._assignment.begin_episode("")
        return self._assignment.episode_id

    def _reset_guard(self) -> str:
        message = "the guard was tripped" if self.engine.reset_guard(ROS) else "the guard was not tripped"
        problem = self._believe()
        return f"{message}; {problem}" if problem else message

    def _believe(self) -> str:
        """Trust the joints' present readings, because an operator confirms them; return why that cannot be, else ""."""
        problem = ""
        if self._buffer is not None:
            problem = self._buffer.anchor() if self._loop is None else self._loop.believe()
        return f"the measured state is still not believed: {problem}" if problem else ""

    def _reset_breaker(self) -> str:
        return "the breaker was open" if self.engine.reset_breaker() else "the breaker was closed"

    def _require_loop(self) -> ChunkLoop:
        if self._loop is None:
            raise ReflexError(f"the node is {self.node.state}, not active")
        return self._loop

    def _snapshot(self) -> RobotSnapshot:
        episode_id, now_ns = self._assignment.episode_id, self.now_ns()
        return take_snapshot(self.node, self.engine, self._progress, self._loop, self._buffer, episode_id, self._findings, now_ns)  # fmt: skip

    def _publish_status(self) -> None:
        progress = self._progress
        self._counts.append((time.monotonic(), progress.chunks))
        (began_s, before), (now_s, chunks) = self._counts[0], self._counts[-1]
        rate_hz = (chunks - before) / (now_s - began_s) if now_s > began_s else 0.0
        status = status_message(self.engine, progress, self._loop, self.now_ns(), rate_hz)
        if status.problem and self._inputs is not None:
            status.problem = "; ".join([status.problem, *self._inputs.unheard])
        status.header.stamp = self.node.get_clock().now().to_msg()
        status.episode_id, status.instruction = self._assignment.episode_id, self._assignment.instruction
        self._status.publish(status)
        self._recorder_hook.sent(self._status.topic_name, status)

    def _publish_diagnostics(self) -> None:
        findings = [
            diagnostics.policy_finding(self.engine, self.node.refusal),
            diagnostics.queue_finding(self.engine),
            *([diagnostics.undrivable_finding(why)] if (why := self.engine.undrivable) else []),
        ]
        loop, buffer, loaded = self._loop, self._buffer, self.engine.loaded
        if loaded is not None:
            findings += diagnostics.wedge_findings(
                loaded, self._progress, self.engine.metrics.recorders.watched
            )
        if loop is not None and buffer is not None and loaded is not None:
            findings += [
                diagnostics.observation_finding(loop, buffer.ages_ms(self.now_ns())),
                diagnostics.timing_finding(loop, loaded, self.settings),
                *(self._driving.findings() if self._driving else []),
            ]
        if self._inputs is not None:
            findings += [self._inputs.connections(), *self._controllers.findings()]
        self._findings = findings
        message = diagnostics.array_message(findings, self.node.get_name(), self.settings.robot_id)
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        self._recorder_hook.sent(self._diagnostics.topic_name, message)

    async def start(self) -> bool:
        """Walk to `active` without a lifecycle manager. False when a transition did not succeed.

        What must not command a robot stays inactive, and its requests are answered: that is no failure.
        """
        configured = await self.node.change(CONFIGURE)
        return configured and (bool(self.engine.undrivable) or await self.node.change(ACTIVATE))

    async def finish(self) -> None:
        """Leave the robot holding and free everything; for the end of the process."""
        self.ending = True
        await self._clean_up()

    def destroy(self) -> None:
        """Close the socket and the node."""
        if self.sidecar is not None:
            self.sidecar.stop()
        unbridge(self._logs)
        self._skill.destroy()
        self.node.destroy_node()
