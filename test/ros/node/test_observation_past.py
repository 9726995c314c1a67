# SPDX-License-Identifier: Apache-2.0
"""What the observation buffer keeps for a policy of several observations: at the control rate, however inference runs."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from reflex_core.images.raw_encodings import rgb
from reflex_core.values import Observation
from reflex_ros.messages.raw import IMAGE, Consumed, RawMessage
from reflex_ros.node.observation_buffer import Gates, ObservationBuffer
from reflex_ros.node.past import Past

MS = 10**6
BEGAN_MS = 1_700_000_000_000
PERIOD_S = 0.1
GATES = Gates(max_age_ms=300.0, max_skew_ms=150.0)
STEPS = 3


def picture(shade: int, stamp_ms: float, damaged: bool = False) -> RawMessage:
    """A serialised 1x1 sensor_msgs/Image of one grey."""
    pixels = bytes([shade] * 3)
    head = struct.pack("<4x") + struct.pack("<iI", 0, 0) + struct.pack("<I4s", 1, b"\0")
    size = struct.pack("<II", 1, 1) + struct.pack("<I5s", 5, b"rgb8\0") + b"\0" + b"\0\0"
    rows = struct.pack("<I", 3) + struct.pack("<I", 3) + pixels
    stamp_ns = round(stamp_ms * MS)
    raw = b"\0\1\0\0" + (head + size + rows)[4:]
    return RawMessage("camera", IMAGE, raw[:20] if damaged else raw, stamp_ns, stamp_ns)


class Scene:
    """A camera and a joint that say how many milliseconds have passed, and a clock that the test moves."""

    def __init__(self, steps: int = STEPS) -> None:
        self.now_ms = float(BEGAN_MS)
        self.buffer = ObservationBuffer(
            ("camera",), ("arm",), True, monotonic_ns=lambda: round(self.now_ms * MS), past=Past(steps, PERIOD_S)
        )  # fmt: skip

    @property
    def passed_ms(self) -> float:
        return self.now_ms - BEGAN_MS

    def run(self, ms: float, every_ms: float = 10.0, *, sees: bool = True) -> None:
        """Let time pass, with a picture and a joint state every so often."""
        end_ms = self.now_ms + ms
        while self.now_ms + every_ms <= end_ms + 1e-6:
            self.now_ms += every_ms
            if sees:
                self.buffer.put_image("camera", picture(round(self.passed_ms / 10), self.now_ms))
            state = RawMessage("joints", "sensor_msgs/msg/JointState", b"", round(self.now_ms * MS), 0)
            self.buffer.put_joints(state, ("arm",), [self.passed_ms * 1e-4])

    def take(self) -> Observation:
        return self.buffer.take(round(self.now_ms * MS), GATES)

    def looked_back_ms(self) -> list[float]:
        taken = self.take()
        return [(taken.stamp_ns - one.stamp_ns) / MS for one in taken.history]


def test_moments_are_one_control_period_apart_and_not_one_inference() -> None:
    scene = Scene()
    scene.run(800)
    scene.take()
    scene.run(800)  # as long as a chunk
    assert scene.looked_back_ms() == pytest.approx([200, 100], abs=PERIOD_S * 1e3 / 4)


def test_every_moment_holds_what_was_seen_and_measured_then() -> None:
    scene = Scene()
    scene.run(1000)
    for one in (*scene.take().history, scene.take()):
        passed_ms = one.stamp_ns / MS - BEGAN_MS
        assert int(rgb(one.frames["camera"])[0, 0, 0]) == round(passed_ms / 10)
        assert one.state is not None
        np.testing.assert_allclose(one.state, [passed_ms * 1e-4], atol=2e-3)
    assert scene.take().history[0].age_ms == pytest.approx(200, abs=25)


def test_a_new_episode_looks_back_at_nothing_of_the_one_before() -> None:
    scene = Scene()
    scene.run(1000)
    scene.buffer.new_episode()
    assert scene.take().history == ()
    scene.run(100)
    assert scene.looked_back_ms() == pytest.approx([90], abs=25)
    scene.run(100)
    assert scene.looked_back_ms() == pytest.approx([190, 100], abs=25)


@pytest.mark.parametrize("moved", [True, False])
def test_a_clock_that_jumps_forgets_it_too(moved: bool) -> None:
    scene = Scene()
    scene.run(1000)
    scene.buffer.clear(moved=moved)
    scene.run(10)
    assert scene.take().history == ()


def test_after_a_gap_nothing_older_is_looked_at() -> None:
    scene = Scene()
    scene.run(1000)
    scene.run(450, sees=False)
    scene.run(20)
    # a moment of after the gap, near as it is, and none of before
    assert scene.looked_back_ms() == pytest.approx([15], abs=10)


def test_a_slow_camera_gives_what_it_has() -> None:
    scene = Scene()
    scene.run(1000, every_ms=150)
    assert scene.looked_back_ms() == pytest.approx([300, 150], abs=1)


def test_a_moment_that_is_not_believed_is_not_kept() -> None:
    scene = Scene(steps=2)
    scene.run(1000)
    scene.now_ms += 100
    state = RawMessage("joints", "sensor_msgs/msg/JointState", b"", round(scene.now_ms * MS), 0)
    scene.buffer.put_joints(state, ("arm",), [float("nan")])
    scene.buffer.put_image("camera", picture(0, scene.now_ms))
    assert scene.buffer.fault() is not None
    assert all(np.isfinite(kept.value.state).all() for kept in scene.buffer._past._recent._moments)  # type: ignore[arg-type]
    assert scene.buffer._past._recent._moments[-1].at_ns < state.stamp_ns


def test_a_damaged_picture_of_the_past_ends_the_looking_back() -> None:
    scene = Scene()
    scene.run(1000)
    scene.now_ms += 30
    state = RawMessage("joints", "sensor_msgs/msg/JointState", b"", round(scene.now_ms * MS), 0)
    scene.buffer.put_joints(state, ("arm",), [0.1])
    scene.buffer.put_image("camera", picture(1, scene.now_ms, damaged=True))
    scene.run(100)
    assert scene.looked_back_ms() == []
    scene.run(300)
    assert len(scene.looked_back_ms()) == 2


def test_streams_that_were_too_far_apart_are_not_looked_back_at() -> None:
    scene = Scene(steps=2)
    scene.run(1000, sees=False)
    scene.now_ms += 1
    scene.buffer.put_image("camera", picture(1, scene.now_ms - 200))
    scene.now_ms += 150
    state = RawMessage("joints", "sensor_msgs/msg/JointState", b"", round(scene.now_ms * MS), 0)
    scene.buffer.put_joints(state, ("arm",), [0.1])
    scene.buffer.put_image("camera", picture(1, scene.now_ms - 100))
    assert scene.take().history == ()


def test_what_was_looked_back_at_is_what_was_consumed() -> None:
    scene = Scene(steps=2)
    scene.run(1000)
    taken = scene.take()
    (before,) = scene.buffer.consumed.history
    assert isinstance(before, Consumed)
    assert before.images["camera"].stamp_ns == taken.history[0].stamp_ns
    assert len(before.states) == 1
    assert scene.buffer.peek(round(scene.now_ms * MS), GATES) is not None
    assert scene.buffer.consumed.history == (before,), "looking is not taking"


def test_a_policy_of_one_observation_keeps_nothing() -> None:
    scene = Scene(steps=1)
    scene.run(1000)
    assert scene.take().history == scene.buffer.consumed.history == ()
    assert scene.buffer._past._recent.values == ()
