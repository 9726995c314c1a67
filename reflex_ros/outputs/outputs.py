# SPDX-License-Identifier: Apache-2.0
"""What the node publishes of a chunk: commands through the robot interface, ~/action_chunk for observers, ~/debug."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message

from reflex_core.chunks.handover import braking
from reflex_core.chunks.interpolation import Doubles, Mask, Spline
from reflex_core.chunks.setpoints import Adjust
from reflex_core.errors import ConfigurationError
from reflex_core.export.binding import Binding
from reflex_core.metrics.cadence import TickFigures
from reflex_core.robot.groups import VELOCITY, Group
from reflex_core.robot.limits.hold import Hold
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import HOLD, POLICY, ActionChunk, Columns, Floats, Served
from reflex_ros.bag.recorder_hook import OFF, RecorderHook
from reflex_ros.messages.chunks import chunk_message, hold_message
from reflex_ros.msg import ActionChunk as ActionChunkMsg
from reflex_ros.outputs.base import (
    STREAM_GONE,
    STREAM_LATE,
    Acting,
    Adapting,
    Adjusted,
    Command,
    Halting,
    Limited,
    MakeOutput,
    Measuring,
    Output,
    Reporting,
    Ticking,
)
from reflex_ros.outputs.channels import Channel, channels_of, require_one_each
from reflex_ros.outputs.debug import DebugTopics
from reflex_ros.outputs.joint_trajectory import COMMANDS

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode, LifecyclePublisher


Measured = Callable[
    [Sequence[str]], Floats | None
]  # where these columns are now; None where that is not known

log = logging.getLogger(__name__)


def _nowhere(_: Sequence[str]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class _Part:
    """One group, its columns of a chunk, and what commands them."""

    group: Group
    columns: Columns | slice
    output: Output


class Outputs:
    """Send chunks and holds. Callers must order their calls; nothing leaves while the node is inactive.

    A group whose robot interface fails keeps no other from its command: the failure is raised once all have theirs.
    """

    def __init__(
        self, node: LifecycleNode, robot_id: str, groups: Sequence[Group], output_of: Callable[[Group], MakeOutput]
    ) -> None:  # fmt: skip
        """Create the publishers of every group. output_of: returns the maker of a group's robot interface.

        Raises ConfigurationError where a robot interface cannot command its group; nothing is left on the node then.
        """
        self._node, self._robot_id = node, robot_id
        self.dry_run = False  # set by who makes it with outputs that command nothing
        self.control, self.blend = (
            POLICY,
            1.0,
        )  # who commands, and how much of the policy's motion; set by who does
        self.executed: Callable[[ActionChunkMsg], None] = lambda _: (
            None
        )  # is given every command as ~/action_chunk
        self.recorder_hook: RecorderHook = OFF
        self.measured: Measured = _nowhere
        self._limited_log = RateLimitedLog(log)
        self._parts: list[_Part] = []
        self._chunks = node.create_lifecycle_publisher(
            ActionChunkMsg, "~/action_chunk", COMMANDS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )  # fmt: skip
        self._debug = DebugTopics(node)
        try:
            for group in groups:
                self._parts.append(_Part(group, _chosen(group), output_of(group)(node, self._publish, group)))
            require_one_each(self.channels)
        except ConfigurationError:
            self.destroy()
            raise
        for part in self._parts:
            if isinstance(part.output, Measuring):
                part.output.measure(partial(self._measured_of, part.group.names))
        self._ticking = [part.output for part in self._parts if isinstance(part.output, Ticking)]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, with their robot interfaces and options."""
        return tuple(part.group for part in self._parts)

    def _measured_of(self, names: Sequence[str]) -> Floats | None:
        return self.measured(names)

    def found_eras(self, eras: Mapping[str, str]) -> None:
        """Tell the outputs how their controllers take a new trajectory, by the names of groups."""
        for part in self._parts:
            if part.group.name in eras and isinstance(part.output, Adapting):
                part.output.found_era(eras[part.group.name])

    def limit(self, velocity_max: Doubles) -> None:
        """Tell the outputs that pace the motion how fast it may be. velocity_max: (action_dim,) rad or m per second."""
        for part in self._parts:
            if isinstance(part.output, Limited):
                part.output.limit(velocity_max[part.columns])

    def adjust(self, adjust_of: Callable[[Group], Adjust | None]) -> None:
        """Have every row per tick of a chunk pass through what `adjust_of` returns for its group; None: it is sent as it is."""
        for part in self._parts:
            if isinstance(part.output, Adjusted):
                part.output.adjust(adjust_of(part.group))

    def streamed(self, dim: int) -> Mask:
        """Return (dim,) the columns whose rows are sent one per tick, so that they can be adjusted."""
        found = np.zeros(dim, np.bool_)
        for part in self._parts:
            found[part.columns] = isinstance(part.output, Adjusted)
        return found

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Where the commands of every group go, after remapping."""
        return tuple(channel for part in self._parts for channel in channels_of(part.group, part.output))

    @property
    def addresses(self) -> dict[str, str]:
        """Where the commands of each group go, after remapping, by the name of the group."""
        return {channel.group: channel.name for channel in self.channels}

    def reports(self) -> dict[str, dict[str, object]]:
        """Return what the robot interfaces have to say for diagnostics, by the name of their group."""
        return {
            part.group.name: part.output.report()
            for part in self._parts
            if isinstance(part.output, Reporting)
        }

    def ticks(self) -> list[TickFigures]:
        """Return how punctual the ticks are of every group that is sent row by row."""
        return [output.figures() for output in self._ticking]

    def overdue(self) -> str:
        """Return why the robot must be held where ticks do not come: STREAM_GONE, STREAM_LATE, or ""; without waiting."""
        reasons = {output.overdue() for output in self._ticking}
        return next((reason for reason in (STREAM_GONE, STREAM_LATE) if reason in reasons), "")

    def enable(self) -> None:
        """Let messages out: the node becomes active."""
        self._chunks.on_activate(None)
        for part in self._parts:
            part.output.enable()

    def disable(self) -> None:
        """Drop messages: the node is in another state than active. On the executor's thread, which cancels actions."""
        self._chunks.on_deactivate(None)
        for part in self._parts:
            part.output.disable()
        self._debug.pause()

    def disable_topics(self) -> None:
        """Disable what commands by topics before the rest: it may wait for its receivers, so not on the executor's thread."""
        for part in self._parts:
            if not isinstance(part.output, Acting):
                part.output.disable()

    def chunk(
        self, served: Served, stamp_ns: int, age_ms: float, chunk_id: int, start: int, motion: Spline
    ) -> None:
        """Send a served chunk from row `start` on, which `motion` leads through."""
        of_policy = self.blend >= 1.0 and not served.chunk.of_person
        self._command(
            lambda output: output.send,
            lambda part: Command(
                _columns(served.chunk, part.columns),
                stamp_ns,
                start,
                motion.of(part.columns),
                adjusted=of_policy,
            ),
        )
        message = chunk_message(served, stamp_ns, age_ms, chunk_id, start)
        self._announce(message)
        self._debug.chunk(served.latency_ms, stamp_ns)

    def hold(
        self, held: Hold, like: Binding, now_ns: int, episode: str, chunk_id: int, reason: str, motion: Spline | None,
        served: Served | None = None, *, punctual: bool = False,
    ) -> None:  # fmt: skip
        """Command the robot to come to rest, its joints by `motion`, None where they cannot be held: then its velocities alone.

        served: the answer that is a hold; None for a hold of the node itself. punctual: as in Command.
        """
        chunk = ActionChunk(held.rows, like.action_names, held.dt_s, source=HOLD)
        self._command(
            lambda output: output.hold, lambda part: _held(part, held, chunk, now_ns, motion, punctual)
        )
        if held.held is not None:
            chunk = _columns(chunk, np.flatnonzero(held.held))
        if served is None:
            message = hold_message(chunk, now_ns, episode, chunk_id, held.start)
        else:
            message = chunk_message(replace(served, chunk=chunk), now_ns, 0.0, chunk_id, held.start)
        message.hold_reason = reason
        self._announce(message)

    def _announce(self, message: ActionChunkMsg) -> None:
        """Publish a command for observers, and record it."""
        message.robot_id, message.control, message.blend = self._robot_id, self.control, self.blend
        self._publish(self._chunks, message)
        self.executed(message)

    def halt(self) -> None:
        """End what goes on by itself, where the robot cannot be held: a trajectory that was sent is its controller's."""
        for part in self._parts:
            if isinstance(part.output, Halting) and part.group.commands != VELOCITY:
                part.output.halt()

    def _command(
        self,
        way: Callable[[Output], Callable[[Command], None]],
        command_of: Callable[[_Part], Command | None],
    ) -> None:
        """Give every group its command, with where it is measured; None: it gets none."""
        failures = []
        for part in self._parts:
            try:
                command = command_of(part)
                if command is not None:
                    way(part.output)(replace(command, measured=self.measured(command.chunk.names)))
            except Exception as error:
                text = f"group '{part.group.name}' was not commanded"
                self._limited_log(logging.ERROR, part.group.name, text, error=error)
                failures.append(error)
        if failures:
            raise failures[0]

    def _publish(self, publisher: LifecyclePublisher, message: Any) -> None:
        publisher.publish(message)
        if self.recorder_hook is not OFF:  # the name of a topic is slow to ask for at each tick
            whole = (
                deserialize_message(message, publisher.msg_type) if isinstance(message, bytes) else message
            )
            self.recorder_hook.sent(publisher.topic_name, whole)

    def flush(self, timeout_s: float) -> None:
        """Wait until the last command has reached the robot, at most `timeout_s`."""
        for part in self._parts:
            part.output.flush(timeout_s)

    def destroy(self) -> None:
        """Destroy all publishers."""
        self._node.destroy_lifecycle_publisher(self._chunks)
        for part in self._parts:
            part.output.destroy()
        self._debug.destroy()


def _held(
    part: _Part, held: Hold, chunk: ActionChunk, now_ns: int, motion: Spline | None, punctual: bool
) -> Command | None:
    """Return by what a group is held: velocities brake at once, joints by `motion`; None where it cannot be held."""
    rows = _columns(chunk, part.columns)
    if part.group.commands == VELOCITY:
        return Command(rows, now_ns, 0, braking(held, part.columns, now_ns))
    return (
        None
        if motion is None
        else Command(rows, now_ns, held.start, motion.of(part.columns), punctual=punctual)
    )


def _chosen(group: Group) -> Columns | slice:
    """Return the index of the group's columns; a slice, which copies nothing, where they lie in a row."""
    first, count = group.columns[0], len(group.columns)
    in_a_row = group.columns == tuple(range(first, first + count))
    return slice(first, first + count) if in_a_row else np.array(group.columns)


def _columns(chunk: ActionChunk, chosen: Columns | slice) -> ActionChunk:
    """Return the chunk as one group's robot interface takes it."""
    return replace(
        chunk, actions=chunk.actions[:, chosen], names=tuple(np.array(chunk.names, object)[chosen])
    )
