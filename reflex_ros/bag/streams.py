# SPDX-License-Identifier: Apache-2.0
"""A bag that holds whole streams as the events that a dataset at a fixed rate is made of. Needs rosbags, and no ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from reflex_core.dataset.streams import Commanded, Ended, Event, Inferred, Reading
from reflex_core.errors import ObservationError
from reflex_core.records.trace.executed import ExecutedRows
from reflex_core.records.trace.notes import OUTCOME
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.schema import REQUEST
from reflex_core.values import Floats
from reflex_ros.bag.source import BagSource, unreadable
from reflex_ros.bag.topic_types import CONSUMED, STRING
from reflex_ros.messages.raw import COMPRESSED_IMAGE, IMAGE, RawMessage, header_stamp_ns, image_frame

CHUNK = "reflex_ros/msg/ActionChunk"
JOINT_STATE, IMU, ODOMETRY = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Imu", "nav_msgs/msg/Odometry"
SOURCE_HOLD = 3  # of ActionChunk.msg
LONGEST_AGE_MS = 60_000.0  # that the setting takes
LONGEST_PERIOD_S = 60.0
MAX_AGE_MS = 300.0  # where the settings of the recorded node do not have it


class BagStreams:
    """One bag. Iterate `events` once. Raises TraceError, in the constructor and while iterating.

    The clock of all times is the robot's. What the recorded node published itself is no stream of a sensor, also where it has a
    sensor's type: people's commands are recorded under its name.
    """

    def __init__(self, path: Path) -> None:
        self._source = BagSource(path)
        try:
            self._read_first(path)
        except TraceError:
            self._source.close()
            raise
        except Exception as error:
            self._source.close()
            raise unreadable(path, error) from error

    def _read_first(self, path: Path) -> None:
        """Read what the header and the first request say of the streams."""
        header = self._source.header
        settings = header.get("settings")
        age_ms = settings.get("max_age_ms") if isinstance(settings, dict) else None
        self.max_age_ms = MAX_AGE_MS
        if isinstance(age_ms, int | float) and 0.0 < age_ms <= LONGEST_AGE_MS:
            self.max_age_ms = float(age_ms)
        self.robot = str(header.get("embodiment") or "unknown")
        self.session = str(header.get("session_id") or path).replace(" ", "")
        request = next((document for _, document in self._source.notes(REQUEST) if _answered(document)), None)
        if request is None:
            raise TraceError(
                f"{path}: holds no answered request: it does not tell which topic is which camera"
            )
        response = request["response"]
        self.action_names = tuple(map(str, response.get("names") or ()))
        joints = header.get("state_names")
        self.state_names = (
            tuple(map(str, joints)) if isinstance(joints, list) and joints else self.action_names
        )
        dt_s = response.get("dt_s")
        self.rate_hz = 1.0 / dt_s if isinstance(dt_s, int | float) and dt_s > 0.0 else 0.0
        places = request.get(CONSUMED)
        self._cameras = {
            str(place.get("topic")): str(camera)
            for camera, place in (places.items() if isinstance(places, dict) else ())
            if isinstance(place, dict)
        }
        self.cameras: Sequence[str] = tuple(self._cameras.values())
        self._kinds = self._source.topics
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._types.register(get_types_from_msg(self._source.definition(CHUNK), CHUNK))
        self._joints: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> BagStreams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    @property
    def fraction(self) -> float:
        """The fraction of the bag that has been read, 0 to 1."""
        return self._source.fraction

    @property
    def damage(self) -> Sequence[str]:
        """What is missing."""
        return self._source.damage

    def events(self) -> Iterator[Event]:
        """Yield every event in the order in which they were recorded. Raises TraceError."""
        read: dict[str, Callable[[str, int, bytes], Iterator[Event]]] = {
            IMAGE: self._image, COMPRESSED_IMAGE: self._image, JOINT_STATE: self._joint_state, IMU: self._vector,
            ODOMETRY: self._vector, CHUNK: self._command, STRING: self._record,
        }  # fmt: skip
        for topic, time_ns, raw in self._source.messages(frozenset(read)):
            kind = self._kinds.get(topic, STRING)  # the trace inside is no message of the robot
            try:
                yield from read[kind](topic, time_ns, raw)
            except TraceError:
                raise
            except Exception as error:
                raise TraceError(f"{self._source.path}: {topic} at {time_ns}: {_short(error)}") from error

    def _image(self, topic: str, time_ns: int, raw: bytes) -> Iterator[Event]:
        camera = self._cameras.get(topic)
        if camera is None:
            return
        stamp_ns = header_stamp_ns(raw) or time_ns
        kind = self._kinds[topic]
        frame = image_frame(RawMessage(topic, kind, raw, stamp_ns, time_ns))
        yield Reading(time_ns, stamp_ns, camera, frame, stamp_ns)

    def _joint_state(self, topic: str, time_ns: int, raw: bytes) -> Iterator[Event]:
        """Yield the state that a message makes whole; joints may come in parts, as in the node."""
        if self._source.is_own(topic):
            return
        message: Any = self._types.deserialize_cdr(raw, JOINT_STATE)
        if len(message.name) != len(message.position):
            return
        stamp_ns = header_stamp_ns(raw) or time_ns
        for name, position in zip(message.name, message.position, strict=True):
            if name in self.state_names:
                self._joints[name] = (float(position), stamp_ns)
        if len(self._joints) == len(self.state_names):
            found = [self._joints[name] for name in self.state_names]
            state = np.array([position for position, _ in found], np.float32)
            if np.isfinite(state).all():
                yield Reading(time_ns, stamp_ns, None, state, min(stamp for _, stamp in found))

    def _vector(self, topic: str, time_ns: int, raw: bytes) -> Iterator[Event]:
        kind = self._kinds[topic]
        state = (_imu if kind == IMU else _odometry)(self._types.deserialize_cdr(raw, kind))
        stamp_ns = header_stamp_ns(raw) or time_ns
        if np.isfinite(state).all():
            yield Reading(time_ns, stamp_ns, None, state, stamp_ns)

    def _command(self, topic: str, time_ns: int, raw: bytes) -> Iterator[Event]:
        if not self._source.is_own(topic):
            return
        message: Any = self._types.deserialize_cdr(raw, CHUNK)
        rows = np.asarray(message.data, np.float32).reshape(message.horizon, message.action_dim)
        if not 0.0 < message.dt_s <= LONGEST_PERIOD_S or not len(rows) or rows.shape[1] != len(message.names):
            raise ObservationError(
                f"expected rows of {len(message.names)} numbers, up to {LONGEST_PERIOD_S:g} s apart, got"
                f" {message.horizon} of {message.action_dim}, {message.dt_s:g} s apart"
            )
        found = ExecutedRows(
            message.control, time_ns, header_stamp_ns(raw), message.start_index, message.dt_s, tuple(message.names), rows,
            message.request_id, message.episode_id, message.blend,
        )  # fmt: skip
        yield Commanded(time_ns, found, message.source == SOURCE_HOLD)

    def _record(self, topic: str, time_ns: int, raw: bytes) -> Iterator[Event]:
        document = self._source.record(topic, time_ns, raw)
        if document is None:
            return
        if document.get("kind") == OUTCOME:
            yield Ended(time_ns, str(document.get("episode_id")), document.get("success") is True)
        elif document.get("kind") == REQUEST and isinstance(document.get("request"), dict):
            request = document["request"]
            stamp_ns = request.get("stamp_ns")
            if isinstance(stamp_ns, int):
                yield Inferred(time_ns, stamp_ns, str(request.get("instruction") or ""))


def _answered(document: Mapping[str, Any]) -> bool:
    response = document.get("response")
    return isinstance(response, dict) and isinstance(response.get("names"), list) and bool(response["names"])


def _imu(message: Any) -> Floats:
    q = message.orientation
    return np.array([q.x, q.y, q.z, q.w], np.float32)


def _odometry(message: Any) -> Floats:
    p, q, v = message.pose.pose.position, message.pose.pose.orientation, message.twist.twist.linear
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w, v.x, v.y, v.z], np.float32)


def _short(error: Exception) -> str:
    text = str(error) if isinstance(error, ObservationError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:200]
