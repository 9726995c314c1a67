# SPDX-License-Identifier: Apache-2.0
"""What runs while the node is active: observation buffer, chunk loop and watchdog."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from reflex_core.engine.engine import Engine
from reflex_core.engine.preflight import JOINT_STATES
from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import ConfigurationError
from reflex_core.robot.joint_gate import joint_gate
from reflex_core.robot.motion_check import motion_check
from reflex_core.robot.path_tolerance import path_tolerance
from reflex_core.settings.table import Settings
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.bag.recorder_hook import RecorderHook
from reflex_ros.graph.endpoints import publishers
from reflex_ros.graph.other_policies import await_names, contested
from reflex_ros.node import diagnostics
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.executed import record_commands
from reflex_ros.node.holds import STOPPED
from reflex_ros.node.observation_buffer import Gates, ObservationBuffer
from reflex_ros.node.outputs_finding import outputs_finding
from reflex_ros.node.past import Past
from reflex_ros.node.progress import Progress, Tuning
from reflex_ros.node.takeover import require_takeover
from reflex_ros.node.takeover_inputs import TakeoverInputs
from reflex_ros.node.watchdog import Watchdog
from reflex_ros.outputs.channels import await_receivers
from reflex_ros.outputs.dry_run import DryRunOutput
from reflex_ros.outputs.interfaces import AT_CONTROL_RATE, output_maker, with_defaults
from reflex_ros.outputs.outputs import Outputs

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode
    from rclpy.node import Node

    from reflex_ros.node.lifecycle import ManagedNode

FLUSH_S = 1.0  # how long the last commands may take to reach the robot

log = logging.getLogger(__name__)


def tuning_of(settings: Settings) -> Tuning:
    """Return the settings that may change while the loop runs."""
    gates = Gates(settings.max_age_ms, settings.max_skew_ms)
    return Tuning(
        gates, settings.execution_horizon, settings.margin_ms * 1e-3, settings.fade_s, settings.blend, settings.blend_s,
        settings.takeover_release_s, settings.takeover_button,
    )  # fmt: skip


def observation_buffer(
    node: Node, engine: Engine, loaded: ServingState, settings: Settings
) -> ObservationBuffer:
    """Return the buffer for one robot, with the gate that its joints' readings pass."""
    binding = loaded.policy.binding
    joints = binding.state_names or binding.action_names
    gate = joint_gate(
        loaded.embodiment, (*joints, *binding.action_names), settings.plausibility_margin_rad,
        stamps_rule=is_simulated(node), on_implausible=lambda joint: engine.metrics.implausible_readings.labels(joint).inc(),
    )  # fmt: skip
    tolerance = path_tolerance(
        loaded.embodiment, binding.action_names, settings.path_tolerance_rad,
        on_error=_tracking_errors(engine),
    )  # fmt: skip
    buffer = ObservationBuffer(
        tuple(binding.cameras.values()), joints, loaded.needs_state or settings.state_source == JOINT_STATES,
        settings.max_pixels, gate, tolerance=tolerance,
        past=Past(loaded.observation_steps, loaded.observation_period_s),
    )  # fmt: skip
    buffer.instruction = settings.instruction
    if settings.dry_run:
        buffer.motion = motion_check(binding.embodiment, binding.state_names, binding.state_statistics)
    return buffer


def _tracking_errors(engine: Engine) -> Callable[[str, str], None]:
    """Return a callback that counts a joint far from its command, and logs it at a limited rate."""
    log_limited = RateLimitedLog(log)

    def noted(joint: str, text: str) -> None:
        engine.metrics.tracking_errors.labels(joint).inc()
        log_limited(logging.WARNING, joint, "%s", text)

    return noted


def make_outputs(
    node: LifecycleNode, loaded: ServingState, buffer: ObservationBuffer, settings: Callable[[], Settings]
) -> Outputs:
    """Return the outputs of every group.

    Raises ConfigurationError where a robot interface cannot command its group, or no person the robot, and one shall.
    """
    require_takeover(loaded, settings().takeover_release_s)
    clock = node.get_clock()
    groups = [with_defaults(group, settings()) for group in loaded.policy.binding.groups]
    dry_run = settings().dry_run
    if settings().control_rate_hz and not any(group.output in AT_CONTROL_RATE for group in groups):
        log.warning(
            "control_rate_hz has no effect: no group of this robot has an output of %s",
            " or ".join(AT_CONTROL_RATE),
        )
    outputs = Outputs(
        node,
        settings().robot_id,
        groups,
        lambda group: DryRunOutput if dry_run else output_maker(group.output),
    )
    outputs.dry_run = dry_run
    if settings().a2c2_every_step and not dry_run:
        _require_streamed(outputs, loaded)
    if loaded.guard.limits is not None:
        outputs.limit(loaded.guard.limits.velocity_max)
    outputs.measured = lambda names: buffer.measured(
        names, int(clock.now().nanoseconds), settings().max_age_ms
    )
    return outputs


def _require_streamed(outputs: Outputs, loaded: ServingState) -> None:
    """Raise ConfigurationError where nothing can be corrected at every step; the outputs are destroyed then."""
    binding = loaded.policy.binding
    names = np.array(binding.action_names)[~outputs.streamed(len(binding.action_names))]
    if 0 < len(names) < len(binding.action_names):
        log.info(
            "--a2c2-every-step corrects no rows of %s, which are not sent one per tick", ", ".join(names)
        )
    problem = ""
    if len(names) == len(binding.action_names):
        problem = "needs a robot interface that sends one row per tick, such as forward_command (--output, or the groups' outputs)"
    elif not binding.dt_s > 0.0:
        problem = "needs the rate of the actions (`frequency_hz` of the export or the embodiment), got none"
    if problem:
        outputs.destroy()
        raise ConfigurationError(f"--a2c2-every-step {problem}", "a2c2-every-step")


def await_controllers(node: Node, outputs: Outputs, wait_s: float, ending: Callable[[], bool]) -> None:
    """Wait until other commanders there have their names, and every named group its controller, or the process is `ending`.

    Raises ConfigurationError naming the groups without one after `wait_s` seconds.
    """
    await_names(node, outputs.channels)
    await_receivers(node, outputs.channels, wait_s, ending)


async def end_outputs(node: ManagedNode, outputs: Outputs) -> None:
    """Wait for the last commands to reach the robot, then let none out. What takes a moment keeps the executor from nothing."""
    await node.off_executor(lambda: outputs.flush(FLUSH_S))
    await node.off_executor(outputs.disable_topics)
    outputs.disable()


def is_simulated(node: Node) -> bool:
    """Return True where the robot's clock is a simulator's, which reports its jumps."""
    return bool(node.get_clock().ros_time_is_active)


class Driving:
    """One activation: loop, takeover and watchdog, begun and ended together. The buffer of the activation before is emptied."""

    def __init__(
        self, node: Node, engine: Engine, loaded: ServingState, buffer: ObservationBuffer, outputs: Outputs,
        tuning: Callable[[], Tuning], progress: Progress, recorder_hook: RecorderHook,
    ) -> None:  # fmt: skip
        self._node, self._outputs, self.buffer, self._engine = node, outputs, buffer, engine
        engine.metrics.ticks.figures = outputs.ticks
        buffer.clear()
        clock = node.get_clock()
        self.loop = ChunkLoop(
            engine, loaded, buffer, outputs, lambda: int(clock.now().nanoseconds), tuning, progress, recorder_hook,
            wall_clock=not is_simulated(node), dry_run=outputs.dry_run,
        )  # fmt: skip
        engine.commander = lambda: progress.control
        takeover = self.loop.takeover
        record_commands(outputs, loaded, lambda: int(clock.now().nanoseconds), every=takeover.enabled)
        self._person = (
            TakeoverInputs(node, takeover, tuning().takeover_button, recorder_hook)
            if takeover.enabled
            else None
        )
        if loaded.first.settings.a2c2_every_step and not outputs.dry_run:
            self.loop.every_step.enable()
        self.watchdog = Watchdog(self.loop, lambda reason: engine.metrics.watchdog.labels(reason).inc())

    def start(self) -> None:
        """Begin to infer, to publish and to watch."""
        self.loop.start()
        self.watchdog.start()
        if self._person is not None:
            self.loop.takeover.start()

    def unsubscribe(self) -> None:
        """Hear no person any more. On the executor's thread."""
        if self._person is not None:
            self._person.destroy()

    def close(self, reason: str) -> None:
        """End everything and leave the robot holding."""
        self.loop.takeover.close()
        self.loop.close(reason)
        self.watchdog.close()
        self._engine.commander = lambda: ""

    def _watch_others(self) -> diagnostics.Finding:
        """Hold and stop when another policy commands this robot too; both nodes detect it."""
        channels = self._outputs.channels
        found = contested(self._node, channels)
        others = sorted(set[str]().union(*found.values()))
        if others and self.loop.stop_reason != STOPPED:
            log.error("stopped: %s commands this robot too, on %s", ", ".join(others), ", ".join(found))
            self.loop.stop()
        return diagnostics.command_finding(others, [*found] or [channel.name for channel in channels])

    def findings(self) -> list[diagnostics.Finding]:
        """Return the diagnostics of other commanders (which stop this one), the measured state, the clocks, the watchdog and the outputs."""
        fault = self.buffer.fault()
        others = (
            publishers(self._node, self.buffer.topics.get("state", JOINT_STATES)) if fault is not None else []
        )
        return [
            diagnostics.dry_run_finding(self.buffer.moved(), first_motion=self.loop.progress.first_motion)
            if self._outputs.dry_run
            else self._watch_others(),
            diagnostics.plausibility_finding(fault, others),
            diagnostics.tracking_finding(self.buffer.tracking_error()),
            diagnostics.clock_finding(self.buffer.lags.smallest_s()),
            diagnostics.watchdog_finding(self.watchdog.barking),
            *([diagnostics.takeover_finding(self.loop)] if self._person is not None else []),
            *([] if self._outputs.dry_run else [outputs_finding(self._node, self._outputs)]),
        ]
