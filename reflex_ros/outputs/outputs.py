# SPDX-License-Identifier: Apache-2.0
"""What the node publishes of a chunk: commands through the robot interface, ~/action_chunk for observers, ~/debug."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.qos_overriding_options import QoSOverridingOptions

from reflex_core.chunks.interpolation import Spline
from reflex_core.export.binding import Binding
from reflex_core.robot.groups import Group
from reflex_core.robot.limits.hold import Hold
from reflex_core.values import HOLD, ActionChunk, Columns, Served
from reflex_ros.bag.recorder_hook import OFF, RecorderHook
from reflex_ros.messages.chunks import chunk_message, hold_message
from reflex_ros.msg import ActionChunk as ActionChunkMsg
from reflex_ros.outputs.base import Command, MakeOutput
from reflex_ros.outputs.debug import DebugTopics
from reflex_ros.outputs.joint_trajectory import COMMANDS

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode, LifecyclePublisher


class Outputs:
    """Send chunks and holds. Callers must order their calls; nothing leaves while the node is inactive."""

    def __init__(
        self, node: LifecycleNode, robot_id: str, groups: Sequence[Group], output_of: Callable[[Group], MakeOutput]
    ) -> None:  # fmt: skip
        """Create the publishers of every group. output_of: returns the maker of a group's robot interface."""
        self._node, self._robot_id = node, robot_id
        self.recorder_hook: RecorderHook = OFF
        self._chunks = node.create_lifecycle_publisher(
            ActionChunkMsg, "~/action_chunk", COMMANDS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )  # fmt: skip
        self._robot = [(_chosen(group), output_of(group)(node, self._publish, group)) for group in groups]
        self._debug = DebugTopics(node)

    @property
    def command_topics(self) -> tuple[str, ...]:
        """The command topics of every group, after remapping."""
        return tuple(topic for _, output in self._robot for topic in output.topics)

    def enable(self) -> None:
        """Let messages out: the node becomes active."""
        self._chunks.on_activate(None)
        for _, output in self._robot:
            output.enable()

    def disable(self) -> None:
        """Drop messages: the node is in another state than active."""
        self._chunks.on_deactivate(None)
        for _, output in self._robot:
            output.disable()
        self._debug.pause()

    def chunk(
        self, served: Served, stamp_ns: int, age_ms: float, chunk_id: int, start: int, motion: Spline
    ) -> None:
        """Send a served chunk from row `start` on, which `motion` leads through."""
        for columns, output in self._robot:
            output.send(Command(_columns(served.chunk, columns), stamp_ns, start, motion.of(columns)))
        message = chunk_message(served, stamp_ns, age_ms, chunk_id, start)
        message.robot_id = self._robot_id
        self._publish(self._chunks, message)
        self._debug.chunk(served.latency_ms, stamp_ns)

    def hold(
        self, held: Hold, like: Binding, now_ns: int, episode: str, chunk_id: int, reason: str, motion: Spline,
        served: Served | None = None,
    ) -> None:  # fmt: skip
        """Command the robot to come to rest by `motion`. served: the answer that is a hold; None for a hold of the node itself."""
        chunk = ActionChunk(held.rows, like.action_names, held.dt_s, source=HOLD)
        for columns, output in self._robot:
            output.hold(Command(_columns(chunk, columns), now_ns, held.start, motion.of(columns)))
        if served is None:
            message = hold_message(chunk, now_ns, episode, chunk_id, held.start)
        else:
            message = chunk_message(replace(served, chunk=chunk), now_ns, 0.0, chunk_id, held.start)
        message.robot_id, message.hold_reason = self._robot_id, reason
        self._publish(self._chunks, message)

    def _publish(self, publisher: LifecyclePublisher, message: Any) -> None:
        publisher.publish(message)
        self.recorder_hook.sent(publisher.topic_name, message)

    def flush(self, timeout_s: float) -> None:
        """Wait until the last command has reached the robot, at most `timeout_s`."""
        for _, output in self._robot:
            output.flush(timeout_s)

    def destroy(self) -> None:
        """Destroy all publishers."""
        self._node.destroy_lifecycle_publisher(self._chunks)
        for _, output in self._robot:
            output.destroy()
        self._debug.destroy()


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
