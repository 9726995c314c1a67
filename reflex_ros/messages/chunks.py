# SPDX-License-Identifier: Apache-2.0
"""Convert answers and holds to messages: ~/action_chunk with every field known, JointTrajectory for the robot."""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from reflex_core.reports import Document
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, POLICY, ActionChunk, Served
from reflex_ros.messages.stamps import time_msg
from reflex_ros.msg import ActionChunk as ActionChunkMsg

_SOURCES = {
    POLICY: ActionChunkMsg.SOURCE_POLICY,
    LAST_KNOWN_GOOD: ActionChunkMsg.SOURCE_LAST_KNOWN_GOOD,
    CLOUD: ActionChunkMsg.SOURCE_CLOUD,
    HOLD: ActionChunkMsg.SOURCE_HOLD,
}
_FIELDS = frozenset(ActionChunkMsg.get_fields_and_field_types())


def chunk_message(
    served: Served, observation_stamp_ns: int, age_ms: float, chunk_id: int, start: int
) -> ActionChunkMsg:
    """Return the answer as ~/action_chunk. `start` is the first row that has not elapsed."""
    chunk = served.chunk
    message = _chunk_message(chunk, observation_stamp_ns, chunk_id, start)
    message.episode_id = served.episode_id or ""
    message.request_id = served.request_id
    message.policy_slot = served.slot
    message.model_version = served.model_version
    message.seed = served.seed
    message.hold_reason = served.hold_reason
    message.latency_ms = served.latency_ms
    message.injected_latency_ms = served.injected_latency_ms
    message.trace_seq = served.trace_seq
    message.observation_age_ms = age_ms
    message.instruction_truncated = served.inference.tokens_cut > 0
    _set(message, served.inference.document())
    _set(message, served.fallback.document())
    _set(message, served.guard.document(), "guard_")
    return message


def _set(message: ActionChunkMsg, document: Document, prefix: str = "") -> None:
    """Set those values of a block for which the message has a field."""
    for name, value in document.items():
        if (field := prefix + name) in _FIELDS:
            setattr(message, field, list(value) if isinstance(value, tuple) else value)


def hold_message(
    chunk: ActionChunk, now_ns: int, episode_id: str, chunk_id: int, start: int
) -> ActionChunkMsg:
    """Return a hold as ~/action_chunk: where the robot comes to rest. `start` is the first row that can be reached in time."""
    message = _chunk_message(chunk, now_ns, chunk_id, start)
    message.episode_id = episode_id
    return message


def _chunk_message(chunk: ActionChunk, stamp: int, chunk_id: int, start: int) -> ActionChunkMsg:
    message = ActionChunkMsg(
        chunk_id=chunk_id,
        names=list(chunk.names),
        dt_s=chunk.dt_s,
        horizon=chunk.actions.shape[0],
        action_dim=chunk.actions.shape[1],
        start_index=start,
        source=_SOURCES[chunk.source],
        trace_seq=-1,
        data=array("f", np.ascontiguousarray(chunk.actions, dtype=np.float32).tobytes()),
    )
    message.header.stamp = time_msg(stamp)
    return message


def trajectory_message(chunk: ActionChunk, stamp: int, start: int) -> JointTrajectory:
    """Return rows `start` onwards as a JointTrajectory that joint_trajectory_controller splices by its stamp (0: on arrival).

    Row i is to be reached at stamp + (i + 1) * dt_s; positions in rad or m, in the order of the joint names.
    """
    message = JointTrajectory(joint_names=list(chunk.names))
    message.header.stamp = time_msg(stamp)
    step_ns = round(chunk.dt_s * 1e9)
    for row, positions in enumerate(chunk.actions[start:].astype(np.float64), start=start + 1):
        seconds, rest = divmod(row * step_ns, 1_000_000_000)
        point = JointTrajectoryPoint(positions=array("d", positions.tobytes()))
        point.time_from_start = Duration(sec=seconds, nanosec=rest)
        message.points.append(point)
    return message
