# SPDX-License-Identifier: Apache-2.0
"""ROS messages become values and values become ROS messages, the cheap way."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image, Imu
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from reflex_core.errors import ObservationError
from reflex_core.images.file_headers import MAX_PIXELS
from reflex_core.images.raw_encodings import needs_conversion
from reflex_core.text.untrusted import escaped
from reflex_core.values import (
    CLOUD,
    HOLD,
    LAST_KNOWN_GOOD,
    POLICY,
    ActionChunk,
    Floats,
    Frame,
    Pixels,
    Served,
)
from reflex_ros.messages.raw import Arrival, image_frame
from reflex_ros.msg import ActionChunk as ActionChunkMsg

_SOURCES = {
    POLICY: ActionChunkMsg.SOURCE_POLICY,
    LAST_KNOWN_GOOD: ActionChunkMsg.SOURCE_LAST_KNOWN_GOOD,
    CLOUD: ActionChunkMsg.SOURCE_CLOUD,
    HOLD: ActionChunkMsg.SOURCE_HOLD,
}


def stamp_ns(stamp: Time) -> int:
    """A ROS stamp as integer nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def time_msg(nanoseconds: int) -> Time:
    """Integer nanoseconds as a ROS stamp."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)


def frame(arrival: Arrival, max_pixels: int = MAX_PIXELS) -> Frame:
    """The message's pixels, not yet decoded; no copy. Raises ObservationError for an unknown compressed kind."""
    found = image_frame(arrival, max_pixels)
    if found.decoder is not None or not needs_conversion(found.encoding):
        return found
    return replace(found, decoder=_cv_bridge_decoder(arrival, found.encoding))


def _cv_bridge_decoder(arrival: Arrival, encoding: str) -> Callable[[Frame], Pixels] | None:
    """cv_bridge for Bayer and YUV where ROS brings the real one; None leaves it to OpenCV."""
    bridge = _cv_bridge()
    if bridge is None:
        return None

    def decode(_: Frame) -> Pixels:
        try:
            message = deserialize_message(arrival.raw, Image)
            return np.asarray(bridge.imgmsg_to_cv2(message, "rgb8"), dtype=np.uint8)
        except Exception as error:
            raise ObservationError(
                f"cv_bridge cannot read a {escaped(encoding, 40)} image: {escaped(str(error), 200)}",
                "bad-image",
            ) from error

    return decode


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    """cv_bridge of a ROS install. The PyPI package of that name gives wrong pixels and is not used."""
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix
    except ImportError:
        return None
    try:
        get_package_prefix("cv_bridge")
        from cv_bridge import CvBridge
    except (ImportError, PackageNotFoundError, LookupError):
        return None
    return CvBridge()


def imu_state(message: Imu) -> Floats:
    """(4,) orientation quaternion x, y, z, w."""
    q = message.orientation
    return np.array([q.x, q.y, q.z, q.w], dtype=np.float32)


def odometry_state(message: Any) -> Floats:
    """(10,) position 3, orientation quaternion 4 (x, y, z, w), linear velocity 3."""
    p, q, v = message.pose.pose.position, message.pose.pose.orientation, message.twist.twist.linear
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w, v.x, v.y, v.z], dtype=np.float32)


def chunk_message(
    served: Served, observation_stamp_ns: int, age_ms: float, chunk_id: int, start: int
) -> ActionChunkMsg:
    """The answer as ~/action_chunk. `start` is the first row that has not elapsed."""
    chunk = served.chunk
    message = _chunk_message(chunk, observation_stamp_ns, chunk_id, start)
    message.episode_id = served.episode_id or ""
    message.request_id = served.request_id
    message.policy_slot = served.slot
    message.model_version = served.model_version
    message.seed = served.seed
    message.inference_mode = served.inference_mode
    message.hold_reason = served.hold_reason
    message.latency_ms = served.latency_ms
    message.injected_latency_ms = served.injected_latency_ms
    message.deadline_exceeded = served.deadline_exceeded
    message.fallback_age_ms = served.fallback_age_ms
    message.adaptive_enabled = served.adaptive_enabled
    message.denoise_steps_configured = served.denoise_steps_configured
    message.trace_seq = served.trace_seq
    message.observation_age_ms = age_ms
    message.denoise_steps = served.denoise_steps
    message.guard_clamped = served.guard.clamped
    message.guard_violations = list(served.guard.violations)
    message.instruction_truncated = served.tokens_cut > 0
    return message


def hold_message(
    chunk: ActionChunk, now_ns: int, episode_id: str, chunk_id: int, start: int
) -> ActionChunkMsg:
    """A hold as ~/action_chunk: where the robot comes to rest. `start` is the first row that can be reached in time."""
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
    """Rows `start` onwards as a JointTrajectory that joint_trajectory_controller splices by its stamp (0: on arrival).

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
