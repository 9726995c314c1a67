# SPDX-License-Identifier: Apache-2.0
"""What the node tells the robot: chunks, trajectories, holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from trajectory_msgs.msg import JointTrajectory

from reflex_core.export.binding import Fit
from reflex_core.robot.limits.hold import Hold
from reflex_core.values import HOLD, ActionChunk, Served
from reflex_ros.bag.recorder_hook import OFF, Tap
from reflex_ros.messages.chunks import chunk_message, hold_message, trajectory_message
from reflex_ros.msg import ActionChunk as ActionChunkMsg
from reflex_ros.outputs.debug import DebugTopics

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode, LifecyclePublisher

COMMANDS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class Outputs:
    """~/action_chunk, ~/joint_trajectory and ~/debug/*. Publishing is thread-safe; nothing leaves while the node is inactive."""

    def __init__(self, node: LifecycleNode, robot_id: str) -> None:
        overridable = QoSOverridingOptions.with_default_policies()
        self._node = node
        self._robot_id = robot_id
        self.tap: Tap = OFF
        self._chunks = node.create_lifecycle_publisher(
            ActionChunkMsg, "~/action_chunk", COMMANDS, qos_overriding_options=overridable
        )
        self._trajectories = node.create_lifecycle_publisher(
            JointTrajectory, "~/joint_trajectory", COMMANDS, qos_overriding_options=overridable
        )
        self._debug = DebugTopics(node)

    @property
    def trajectory_topic(self) -> str:
        """Where the robot hears its commands, remappings done."""
        return str(self._trajectories.topic_name)

    def enable(self, on: bool) -> None:
        """Let messages out (active) or swallow them (every other state)."""
        for publisher in (self._chunks, self._trajectories):
            (publisher.on_activate if on else publisher.on_deactivate)(None)
        if not on:
            self._debug.pause()

    def chunk(self, served: Served, stamp_ns: int, age_ms: float, chunk_id: int, start: int) -> None:
        """Publish a served chunk from row `start` on."""
        self._publish(self._trajectories, trajectory_message(served.chunk, stamp_ns, start))
        message = chunk_message(served, stamp_ns, age_ms, chunk_id, start)
        message.robot_id = self._robot_id
        self._publish(self._chunks, message)
        self._debug.chunk(served.latency_ms, stamp_ns)

    def hold(
        self, held: Hold, like: Fit, now_ns: int, episode: str, chunk_id: int, reason: str,
        served: Served | None = None,
    ) -> None:  # fmt: skip
        """Tell the robot to come to rest. served: the answer that is a hold, and what it says of itself.

        The trajectory has stamp 0: it begins when it arrives, so that no clock and no delay makes a controller refuse it.
        """
        chunk = ActionChunk(held.rows, like.action_names, held.dt_s, source=HOLD)
        self._publish(self._trajectories, trajectory_message(chunk, 0, held.start))
        if served is None:
            message = hold_message(chunk, now_ns, episode, chunk_id, held.start)
        else:
            message = chunk_message(replace(served, chunk=chunk), now_ns, 0.0, chunk_id, held.start)
        message.robot_id, message.hold_reason = self._robot_id, reason
        self._publish(self._chunks, message)

    def _publish(self, publisher: LifecyclePublisher, message: Any) -> None:
        publisher.publish(message)
        self.tap.sent(publisher.topic_name, message)

    def flush(self, timeout_s: float) -> None:
        """Wait until the last command has reached its subscribers, at most `timeout_s`."""
        self._trajectories.wait_for_all_acked(Duration(seconds=timeout_s))

    def destroy(self) -> None:
        """Take both topics away."""
        self._node.destroy_lifecycle_publisher(self._chunks)
        self._node.destroy_lifecycle_publisher(self._trajectories)
        self._debug.destroy()
