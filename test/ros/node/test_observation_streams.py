# SPDX-License-Identifier: Apache-2.0
"""The streams of the observation buffer: whose ages count, what a clock that was set leaves, what the gate learns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.robot_world import NAMES, PICTURE
from reflex_core.robot.joint_gate import Implausible, Path
from reflex_ros.messages.raw import IMAGE, RawMessage
from reflex_ros.node.observation_buffer import (
    NOTHING_CONSUMED,
    Gates,
    ObservationBuffer,
    RefusedObservationError,
    check_stamps,
)

NOW_NS = 1_700_000_000 * 10**9
MONOTONIC_NS = 10**12
MS = 10**6
GATES = Gates(max_age_ms=300.0, max_skew_ms=150.0)
HOME = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]


class Recorder:
    """A gate that believes everything and remembers what it got."""

    def __init__(self, *, stamps_rule: bool = False) -> None:
        self.stamps_rule = stamps_rule
        self.paths: list[Mapping[str, Path]] = []
        self.put_: list[tuple[Sequence[str], Sequence[float], int, int]] = []
        self.releases = self.resets = 0

    def put(self, *message: Any) -> None:
        self.put_.append(message)

    def fault(self, _: Sequence[str]) -> Implausible | None:
        return None

    def commanded(self, paths: Mapping[str, Path]) -> None:
        self.paths.append(paths)

    def released(self) -> None:
        self.releases += 1

    def reset(self) -> None:
        self.resets += 1


def image(age_ms: float = 20.0) -> RawMessage:
    return arrival(age_ms, IMAGE)


def arrival(age_ms: float = 20.0, kind: str = "sensor_msgs/msg/JointState") -> RawMessage:
    stamp_ns = NOW_NS - round(age_ms * MS)
    return RawMessage("a/topic", kind, PICTURE if kind == IMAGE else b"", stamp_ns, stamp_ns + 3 * MS)


def buffer(
    *cameras: str, needs_state: bool = True, names: tuple[str, ...] = NAMES, gate: Recorder | None = None
) -> ObservationBuffer:
    return ObservationBuffer(cameras, names, needs_state, gate=gate, monotonic_ns=lambda: MONOTONIC_NS)  # type: ignore[arg-type]


def test_a_buffer_has_a_gate_of_its_own_where_it_is_given_none() -> None:
    seen = buffer()
    assert seen.consumed is NOTHING_CONSUMED
    seen.put_joints(arrival(), NAMES, HOME)
    np.testing.assert_allclose(seen.take(NOW_NS, GATES).state, HOME, atol=1e-6)
    seen.put_joints(arrival(10.0), NAMES, [math.nan, *HOME[1:]])
    assert seen.fault() is not None


def test_the_gate_judges_every_message_by_its_stamp_and_its_arrival() -> None:
    gate = Recorder()
    seen = buffer(gate=gate)
    seen.put_joints(arrival(30.0), NAMES, HOME)
    seen.put_joints(arrival(20.0), NAMES, HOME[:3])  # positions for another robot
    assert gate.put_ == [(NAMES, HOME, NOW_NS - 30 * MS, MONOTONIC_NS)]


@pytest.mark.parametrize("stamps_rule", [False, True])
def test_the_gate_learns_what_each_joint_is_commanded_and_from_when(stamps_rule: bool) -> None:
    """On the monotonic clock, or on the stamps' where only they say how much time has passed for the robot."""
    gate = Recorder(stamps_rule=stamps_rule)
    seen = buffer(gate=gate)
    rows = np.array([[0.1, 1.0], [0.2, 2.0], [0.3, 3.0]], np.float32)
    seen.commanded(("a", "b"), rows, 30 * MS, NOW_NS, 0.05)
    (paths,) = gate.paths
    assert set(paths) == {"a", "b"}
    assert list(paths["b"].rows) == [1.0, 2.0, 3.0]
    assert paths["a"].first_ns == paths["b"].first_ns == (NOW_NS if stamps_rule else MONOTONIC_NS) + 30 * MS
    assert paths["a"].dt_s == 0.05
    with pytest.raises(ValueError, match="zip"):
        seen.commanded(("a", "b", "c"), rows, 0, NOW_NS, 0.05)
    seen.released(0)
    assert gate.releases == 1


def test_a_clock_that_was_set_leaves_no_message_and_no_lag() -> None:
    for moved, resets in ((None, 1), (True, 1), (False, 0)):
        gate = Recorder()
        seen = buffer("camera", needs_state=False, gate=gate)
        seen.put_image("camera", image())
        seen.put_vector(arrival(), np.zeros(3, np.float32))
        seen.put_joints(arrival(), NAMES, HOME)
        seen.clear() if moved is None else seen.clear(moved=moved)
        assert gate.resets == resets
        assert seen.ages_ms(NOW_NS) == {}
        assert seen.lags.smallest_s() == {}
        with pytest.raises(RefusedObservationError, match="no image from camera 'camera' yet"):
            seen.take(NOW_NS, GATES)


def test_the_age_of_the_state_is_that_of_its_oldest_part_and_of_no_stranger() -> None:
    seen = buffer("camera")
    assert seen.ages_ms(NOW_NS) == {}
    seen.put_image("camera", image(7.0))
    assert seen.ages_ms(NOW_NS) == {"camera camera": pytest.approx(7.0)}
    seen.put_joints(arrival(50.0), NAMES[:3], HOME[:3])
    seen.put_joints(arrival(40.0), NAMES[3:], HOME[3:])
    seen.put_joints(arrival(900.0), ("gripper",), [0.0])
    assert seen.ages_ms(NOW_NS)["state"] == pytest.approx(50.0)


def test_a_state_that_is_no_joints_has_its_age_and_its_lag() -> None:
    seen = buffer(needs_state=False)
    seen.put_vector(arrival(60.0), np.arange(3, dtype=np.float32))
    assert seen.ages_ms(NOW_NS) == {"state": pytest.approx(60.0)}
    assert seen.lags.smallest_s() == {"state": pytest.approx(3e-3)}
    taken = seen.take(NOW_NS, GATES)
    np.testing.assert_array_equal(taken.state, [0.0, 1.0, 2.0])
    assert (taken.stamp_ns, taken.age_ms) == (NOW_NS - 60 * MS, pytest.approx(60.0))


@pytest.mark.parametrize(
    ("ages_ms", "known"),
    [
        ((20.0, 300.0), True), ((20.0, 300.5), False), ((300.5, 20.0), False), ((20.0, -1000.0), True),
        ((20.0, -1000.5), False), ((-1000.5, 20.0), False),
    ],
)  # fmt: skip
def test_no_part_of_a_measurement_may_be_old_or_from_the_future(
    ages_ms: tuple[float, float], known: bool
) -> None:
    seen = buffer()
    seen.put_joints(arrival(ages_ms[0]), NAMES[:3], HOME[:3])
    seen.put_joints(arrival(ages_ms[1]), NAMES[3:], HOME[3:])
    measured = seen.measured(NAMES, NOW_NS, 300.0)
    assert (measured is not None) is known
    if measured is not None:
        np.testing.assert_allclose(measured, HOME, atol=1e-6)
        assert measured.dtype == np.float32


@pytest.mark.parametrize("reading", [math.nan, math.inf])
def test_a_joint_that_the_gate_does_not_know_must_be_finite_all_the_same(reading: float) -> None:
    seen = buffer()
    seen.put_joints(arrival(), (*NAMES, "gripper"), [*HOME, reading])
    assert seen.measured((*NAMES, "gripper"), NOW_NS, 300.0) is None
    assert seen.measured(NAMES, NOW_NS, 300.0) is not None
    seen.put_joints(arrival(), ("gripper",), [0.5])
    assert seen.measured((*NAMES, "gripper"), NOW_NS, 300.0) is not None


def test_without_names_of_joints_there_is_no_state() -> None:
    """A policy that needs a state, and a description that does not say which joints make it."""
    seen = buffer(names=())
    seen.put_joints(arrival(), ("somebody",), [0.0])
    with pytest.raises(RefusedObservationError, match="joints seen: somebody"):
        seen.take(NOW_NS, GATES)


def test_what_is_missing_is_named_with_its_topic_where_that_is_known() -> None:
    seen = buffer("wrist")
    with pytest.raises(
        RefusedObservationError, match=r"^no image from camera 'wrist' yet$|^joint states lack"
    ):
        seen.take(NOW_NS, GATES)
    seen.topics = {"wrist": "/arm/wrist", "state": "/arm/joint_states"}
    with pytest.raises(
        RefusedObservationError, match=r"^joint states on /arm/joint_states lack panda_joint1"
    ):
        seen.take(NOW_NS, GATES)
    seen.put_joints(arrival(), NAMES, HOME)
    with pytest.raises(RefusedObservationError, match=r"camera 'wrist' yet on /arm/wrist$"):
        seen.take(NOW_NS, GATES)


def test_what_was_consumed_is_what_the_last_observation_was_made_of() -> None:
    seen = buffer("left", "right")
    pictures = {"left": image(10.0), "right": image(15.0)}
    for camera, each in pictures.items():
        seen.put_image(camera, each)
    seen.put_image("nobody's", image(5.0))
    state = arrival(12.0)
    seen.put_joints(state, NAMES, HOME)
    looked_at = seen.peek(NOW_NS, GATES)
    assert looked_at is not None
    np.testing.assert_allclose(looked_at.state, HOME, atol=1e-6)
    assert seen.consumed is NOTHING_CONSUMED, "looking is not taking"
    seen.take(NOW_NS, GATES)
    assert seen.consumed.images == pictures
    assert seen.consumed.states == (state,)
    taken = seen.consumed
    seen.put_image("left", image(1.0))
    assert seen.consumed is taken


def test_the_oldest_and_the_newest_stream_are_named_when_they_are_too_far_apart() -> None:
    stamps = {"a": NOW_NS - 100 * MS, "b": NOW_NS - 260 * MS, "c": NOW_NS - 50 * MS}
    with pytest.raises(RefusedObservationError, match=r"^b lags c by 210 ms, the limit is 150 ms") as caught:
        check_stamps(stamps, NOW_NS, GATES)
    assert caught.value.slug == "skewed"
    assert check_stamps({"a": NOW_NS - 5 * MS, "b": NOW_NS - 9 * MS}, NOW_NS, GATES) == NOW_NS - 9 * MS


def test_a_stamp_from_the_future_says_by_how_much() -> None:
    with pytest.raises(RefusedObservationError, match=r"^a is stamped 1500 ms in the future") as caught:
        check_stamps({"a": NOW_NS + 1500 * MS}, NOW_NS, GATES)
    assert caught.value.slug == "future_stamp"


def test_joint_states_from_before_the_robot_came_to_rest_say_nothing_of_where_it_is() -> None:
    seen = buffer()
    seen.put_joints(arrival(), NAMES, HOME)
    for rest_ns, known in ((MONOTONIC_NS, True), (MONOTONIC_NS + 1, False)):
        seen.released(rest_ns)
        assert (seen.measured(NAMES, NOW_NS, 300.0) is not None) is known
        assert (seen.peek(NOW_NS, GATES) is not None) is known
    with pytest.raises(RefusedObservationError, match="since the robot came to rest") as caught:
        seen.take(NOW_NS, GATES)
    assert caught.value.slug == "stale"


def test_every_joint_must_have_been_seen_since_the_robot_came_to_rest() -> None:
    now_ns = [MONOTONIC_NS]
    seen = ObservationBuffer((), NAMES, True, monotonic_ns=lambda: now_ns[0])
    for before, after in ((NAMES[:3], NAMES[3:]), (NAMES[3:], NAMES[:3])):
        seen.put_joints(arrival(), before, [HOME[NAMES.index(name)] for name in before])
        now_ns[0] += 10 * MS
        seen.released(now_ns[0])
        seen.put_joints(arrival(10.0), after, [HOME[NAMES.index(name)] for name in after])
        assert seen.measured(NAMES, NOW_NS, 300.0) is None
        assert seen.measured(after, NOW_NS, 300.0) is not None
        assert seen.peek(NOW_NS, GATES) is None
