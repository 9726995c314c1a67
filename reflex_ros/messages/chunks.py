# SPDX-License-Identifier: Apache-2.0
"""Convert answers and holds to messages: ~/action_chunk with every field known, JointTrajectory for the robot."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from reflex_core.chunks.interpolation import Spline
from reflex_core.reports import Document
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, POLICY, TELEOP, ActionChunk, Served
from reflex_ros.messages.stamps import time_msg
from reflex_ros.messages.trajectory_bytes import Doubles, message_of
from reflex_ros.msg import ActionChunk as ActionChunkMsg

# a point that is due sooner is left out for a controller that counts from a message's arrival; at most a share of a period
SOON_S, SOON_SHARE = 0.02, 0.5

_SOURCES = {
    POLICY: ActionChunkMsg.SOURCE_POLICY,
    LAST_KNOWN_GOOD: ActionChunkMsg.SOURCE_LAST_KNOWN_GOOD,
    CLOUD: ActionChunkMsg.SOURCE_CLOUD,
    HOLD: ActionChunkMsg.SOURCE_HOLD,
    TELEOP: ActionChunkMsg.SOURCE_TELEOP,
}


def source_code(source: str) -> int:
    """Return a source as messages have it; that of a policy where there is none yet."""
    return int(_SOURCES.get(source, ActionChunkMsg.SOURCE_POLICY))


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


def rows_message(chunk: ActionChunk, columns: Sequence[int], stamp_ns: int) -> JointTrajectory:
    """Return some columns of every row as a JointTrajectory. columns: positions in rad or m.

    Row i is to be reached at stamp + (i + 1) * dt_s, as in the chunk; there are no velocities, as no motion is made of it.
    """
    message = JointTrajectory(joint_names=[chunk.names[column] for column in columns])
    message.header.stamp = time_msg(stamp_ns)
    step_ns = round(chunk.dt_s * 1e9)
    for row, positions in enumerate(chunk.actions[:, list(columns)].astype(np.float64), start=1):
        seconds, rest = divmod(row * step_ns, 1_000_000_000)
        point = JointTrajectoryPoint(positions=array("d", positions.tobytes()))
        point.time_from_start = Duration(sec=seconds, nanosec=rest)
        message.points.append(point)
    return message


def _first_joined(motion: Spline) -> int:
    """Return the first point for a controller that joins trajectories by itself.

    It counts the points' times from the arrival of the message: a little late, it would have no time for a point that is due soon.
    """
    gaps_s = np.diff(motion.times_ns) * 1e-9
    if not len(gaps_s):
        return 0
    soon_ns = motion.times_ns[0] + int(min(SOON_S, SOON_SHARE * float(np.median(gaps_s))) * 1e9)
    return max(1, min(int(np.searchsorted(motion.times_ns, soon_ns)), len(gaps_s)))


def trajectory_message(
    names: Sequence[str], motion: Spline, stamp_ns: int, *, anchor: bool, velocities: bool = True
) -> JointTrajectory:
    """Return a motion as a JointTrajectory whose points count from its beginning.

    names: of the joints, in rad or m. stamp_ns: when it begins; 0: on arrival. anchor: begin with the point at 0 s, where the
    running motion is then, if the motion has one. velocities: give those as well; the last ones are 0.
    """
    return message_of(names, stamp_ns, *sent_points(motion, anchor=anchor, velocities=velocities))


def sent_points(
    motion: Spline, *, anchor: bool, velocities: bool
) -> tuple[NDArray[np.int64], Doubles, Doubles | None]:
    """Return when the points of a motion are due after its beginning, in ns, their positions, and their velocities if wanted."""
    first = min(1, len(motion.times_ns) - 1)
    if motion.anchored:
        first = 0 if anchor else _first_joined(motion)
    since_ns = motion.times_ns[first:] - motion.times_ns[0]
    return since_ns, motion.positions[first:], motion.velocities[first:] if velocities else None
