# SPDX-License-Identifier: Apache-2.0
"""An observation buffer, and what its topics bring when a test says so."""

from __future__ import annotations

import pytest

from benchmarks.robot_world import ARM, NAMES, PICTURE
from reflex_core.robot.joint_gate import joint_gate
from reflex_core.robot.path_tolerance import path_tolerance
from reflex_core.values import Observation
from reflex_ros.messages.raw import IMAGE, RawMessage
from reflex_ros.node.observation_buffer import (
    Gates,
    ObservationBuffer,
    RefusedObservationError,
)

NOW_NS = 1_700_000_000 * 10**9
MS = 10**6
GATES = Gates(max_age_ms=300.0, max_skew_ms=150.0)
HOME = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]


def message(stamp_ns: int, kind: str = IMAGE, topic: str = "a/topic") -> RawMessage:
    return RawMessage(topic, kind, PICTURE if kind == IMAGE else b"", stamp_ns, stamp_ns + 3 * MS)


class Scene:
    """A buffer of one camera and the joints of the arm, all of them seen 20 ms ago."""

    def __init__(self, *, cameras: tuple[str, ...] = ("camera",), needs_state: bool = True) -> None:
        self.monotonic_ns = 10**12
        self.gate = joint_gate(ARM, NAMES, 0.2)
        self.tolerance = path_tolerance(ARM, NAMES, 0.4)
        self.buffer = ObservationBuffer(
            cameras, NAMES, needs_state, gate=self.gate, monotonic_ns=lambda: self.monotonic_ns,
            tolerance=self.tolerance,
        )  # fmt: skip
        for camera in cameras:
            self.sees(camera)
        self.reads(HOME)

    def sees(self, camera: str = "camera", age_ms: float = 20.0) -> RawMessage:
        arrival = message(NOW_NS - int(age_ms * MS))
        self.buffer.put_image(camera, arrival)
        return arrival

    def reads(
        self, positions: list[float], names: tuple[str, ...] = NAMES, age_ms: float = 20.0
    ) -> RawMessage:
        self.monotonic_ns += 10 * MS
        arrival = message(NOW_NS - int(age_ms * MS), "sensor_msgs/msg/JointState")
        self.buffer.put_joints(arrival, names, positions)
        return arrival

    def take(self) -> Observation:
        return self.buffer.take(NOW_NS, GATES)

    def refused(self) -> tuple[str, str]:
        with pytest.raises(RefusedObservationError) as caught:
            self.take()
        assert self.buffer.peek(NOW_NS, GATES) is None
        return caught.value.slug, str(caught.value)
