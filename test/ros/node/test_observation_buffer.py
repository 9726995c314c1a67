# SPDX-License-Identifier: Apache-2.0
"""The observation buffer by itself: made-up messages, made-up stamps, a clock that the test moves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from buffer_scene import GATES, HOME, MS, NOW_NS, Scene, message

from benchmarks.robot_world import NAMES
from reflex_core.robot.joint_gate import SETTLE_S
from reflex_ros.node.observation_buffer import (
    FUTURE_NS,
    NAMES_KEPT,
    NOTHING_CONSUMED,
    ObservationBuffer,
    RefusedObservationError,
    check_stamps,
)


def test_an_observation_is_the_newest_of_every_stream() -> None:
    scene = Scene()
    scene.reads([0.01, *HOME[1:]])
    picture = scene.sees(age_ms=10.0)
    taken = scene.take()
    np.testing.assert_allclose(taken.state, [0.01, *HOME[1:]], atol=1e-6)
    assert taken.state is not None
    assert taken.state.dtype == np.float32
    assert scene.buffer.consumed.images == {"camera": picture}


def test_a_look_without_taking_is_the_same_observation_and_consumes_nothing() -> None:
    scene = Scene()
    scene.take()
    before = scene.buffer.consumed
    scene.reads([0.01, *HOME[1:]])
    peeked = scene.buffer.peek(NOW_NS, GATES)
    assert peeked is not None
    np.testing.assert_allclose(peeked.state, [0.01, *HOME[1:]], atol=1e-6)
    assert scene.buffer.consumed is before


def test_the_newest_is_the_same_observation_consumes_nothing_and_says_why_there_is_none() -> None:
    scene = Scene()
    taken, before = scene.take(), scene.buffer.consumed
    newest = scene.buffer.newest(NOW_NS, GATES)
    np.testing.assert_array_equal(newest.state, taken.state)
    assert newest.stamp_ns == taken.stamp_ns
    assert scene.buffer.consumed is before
    scene.buffer.clear()
    with pytest.raises(RefusedObservationError, match="joint states lack panda_joint1"):
        scene.buffer.newest(NOW_NS, GATES)


def test_the_observation_carries_the_oldest_stamp_and_its_age() -> None:
    scene = Scene()
    scene.sees(age_ms=70.0)
    scene.reads(HOME, age_ms=5.0)
    taken = scene.take()
    assert taken.stamp_ns == NOW_NS - 70 * MS
    assert taken.age_ms == pytest.approx(70.0)
    scene.sees(age_ms=1.0)
    scene.reads(HOME[:3], NAMES[:3], age_ms=90.0)
    assert scene.take().stamp_ns == NOW_NS - 90 * MS, "the older of two messages that make the state"


def test_joints_split_over_two_messages_are_merged_by_name() -> None:
    """Arm and gripper drivers often share the topic; each says what it knows, in its own order."""
    scene = Scene()
    first = scene.reads([-2.39, 0.01, 0.04], (NAMES[3], NAMES[0], "gripper"))
    second = scene.reads([0.79, 2.61, 0.02, 0.19, 0.01], (*NAMES[:3:-1], NAMES[1], NAMES[2]))
    np.testing.assert_allclose(scene.take().state, [0.01, 0.19, 0.01, -2.39, 0.02, 2.61, 0.79], atol=1e-6)
    assert set(map(id, scene.buffer.consumed.states)) == {id(first), id(second)}


def test_a_message_without_positions_says_nothing() -> None:
    scene = Scene()
    before = scene.take().state
    scene.buffer.put_joints(message(NOW_NS), NAMES, [])
    np.testing.assert_array_equal(scene.take().state, before)


def test_what_was_never_seen_is_named() -> None:
    empty = ObservationBuffer(("left", "right"), NAMES, False)
    with pytest.raises(RefusedObservationError, match="camera 'left'") as caught:
        empty.take(NOW_NS, GATES)
    assert caught.value.slug == "camera_missing"
    scene = Scene(cameras=())
    scene.buffer.clear()
    assert scene.refused() == ("state_missing", scene.refused()[1])
    scene.reads([0.0], ("fr3_joint1",))
    slug, text = scene.refused()
    assert slug == "joint_names"
    assert NAMES[0] in text
    assert "fr3_joint1" in text


def test_a_policy_that_reads_words_is_asked_nothing_without_them() -> None:
    scene = Scene()
    scene.buffer.topics = {"instruction": "/arm/say"}
    with pytest.raises(RefusedObservationError, match="/arm/say") as caught:
        scene.buffer.take(NOW_NS, GATES, needs_words=True)
    assert caught.value.slug == "no_instruction"
    assert scene.take().instruction == ""
    scene.buffer.instruction = "reach"
    assert scene.buffer.take(NOW_NS, GATES, needs_words=True).instruction == "reach"


def test_a_policy_without_a_state_needs_no_joints() -> None:
    scene = Scene(needs_state=False)
    scene.buffer.clear()
    scene.sees()
    assert scene.take().state is None


@pytest.mark.parametrize(
    ("camera_ms", "state_ms", "slug", "expected"),
    [
        (300.5, 300.5, "stale", "max_age_ms"), (20.0, 301.0, "stale", "the robot state"),
        (301.0, 20.0, "stale", "camera 'camera'"), (-1001.0, 20.0, "future_stamp", "in the future"),
        (20.0, 171.0, "skewed", "max_skew_ms"), (180.0, 20.0, "skewed", "camera 'camera' lags"),
    ],
)  # fmt: skip
def test_stamps_that_no_inference_may_run_on(
    camera_ms: float, state_ms: float, slug: str, expected: str
) -> None:
    scene = Scene()
    scene.sees(age_ms=camera_ms)
    scene.reads(HOME, age_ms=state_ms)
    assert scene.refused()[0] == slug
    assert expected in scene.refused()[1]


@pytest.mark.parametrize(("camera_ms", "state_ms"), [(300.0, 160.0), (20.0, 170.0), (-999.0, -999.0)])
def test_stamps_at_the_limit_pass(camera_ms: float, state_ms: float) -> None:
    scene = Scene()
    scene.sees(age_ms=camera_ms)
    scene.reads(HOME, age_ms=state_ms)
    assert scene.take().stamp_ns == NOW_NS - int(max(camera_ms, state_ms, 0.0) * MS)


def test_without_any_stamp_the_observation_is_of_now_and_with_one_that_is_ahead_too() -> None:
    assert check_stamps({}, NOW_NS, GATES) == NOW_NS
    assert check_stamps({"a": NOW_NS + FUTURE_NS}, NOW_NS, GATES) == NOW_NS


@pytest.mark.parametrize(
    ("reading", "slug"),
    [(math.nan, "state_not_finite"), (math.inf, "state_not_finite"), (9.0, "implausible_state"), (1.5, "implausible_state")],
)  # fmt: skip
def test_a_reading_that_cannot_be_true_is_refused_and_no_robot_is_held_at_it(
    reading: float, slug: str
) -> None:
    scene = Scene()
    scene.reads([reading, *HOME[1:]])
    assert scene.refused()[0] == slug
    assert "panda_joint1" in scene.refused()[1]
    fault = scene.buffer.fault()
    assert fault is not None
    assert fault.joint == "panda_joint1"
    assert scene.buffer.measured(NAMES, NOW_NS, 300.0) is None
    believed = scene.buffer.believed(NAMES)
    assert believed is not None
    assert believed[0] == HOME


def test_a_person_makes_the_present_reading_true() -> None:
    scene = Scene()
    scene.reads([1.5, *HOME[1:]])
    assert scene.buffer.anchor() == ""
    np.testing.assert_allclose(scene.take().state, [1.5, *HOME[1:]], atol=1e-6)


@pytest.mark.parametrize(
    ("age_ms", "known"), [(300.0, True), (301.0, False), (-900.0, True), (-1100.0, False)]
)
def test_a_measurement_to_hold_at_is_fresh(age_ms: float, known: bool) -> None:
    scene = Scene()
    scene.reads(HOME, age_ms=age_ms)
    assert (scene.buffer.measured(NAMES, NOW_NS, 300.0) is not None) is known


def test_a_measurement_to_hold_at_has_every_joint() -> None:
    assert Scene().buffer.measured((*NAMES, "gripper"), NOW_NS, 300.0) is None
    assert ObservationBuffer((), NAMES, True).measured(NAMES, NOW_NS, 300.0) is None


def test_a_state_that_is_no_joints_is_checked_as_well() -> None:
    scene = Scene()
    for values, slug in (([0.0, 1.0, 0.0, 0.0], ""), ([0.0, math.nan, 0.0, 0.0], "state_not_finite")):
        scene.buffer.put_vector(message(NOW_NS, topic="imu/data"), np.array(values, np.float32))
        if slug:
            assert scene.refused()[0] == slug
            assert "imu/data" in scene.refused()[1]
        else:
            assert scene.take().state is not None


def test_a_clock_that_was_set_leaves_what_is_believed_and_a_simulator_does_not() -> None:
    for moved in (False, True):
        scene = Scene()
        scene.buffer.clear(moved=moved)
        assert scene.refused()[0] == "state_missing"
        assert (scene.buffer.believed(NAMES) is None) is moved
        scene.sees()
        scene.reads([1.5, *HOME[1:]])
        assert (scene.buffer.fault() is None) is moved


def test_every_time_that_the_joints_cease_to_be_believed_counts_once() -> None:
    scene = Scene()
    for times in (1, 2):
        for value in (9.0, math.nan, 9.0):
            scene.reads([value, *HOME[1:]])
        assert scene.buffer.doubts == times
        for _ in range(round(SETTLE_S / 0.01) + 2):
            scene.reads(HOME)
        assert scene.buffer.fault() is None
        assert scene.buffer.doubts == times


def test_the_ages_of_the_streams_are_those_of_their_newest_messages() -> None:
    scene = Scene()
    scene.sees(age_ms=40.0)
    scene.reads(HOME[:2], NAMES[:2], age_ms=60.0)
    scene.reads([0.0], ("stranger",), age_ms=9000.0)
    assert scene.buffer.ages_ms(NOW_NS) == {
        "camera camera": pytest.approx(40.0),
        "state": pytest.approx(60.0),
    }
    assert scene.buffer.lags.smallest_s() == {
        "camera camera": pytest.approx(3e-3),
        "state": pytest.approx(3e-3),
    }


def test_joint_states_from_before_the_robot_came_to_rest_say_nothing_of_where_it_rests() -> None:
    scene = Scene()
    scene.buffer.released(scene.monotonic_ns + 15 * MS)
    assert scene.refused()[0] == "stale"
    assert scene.buffer.measured(NAMES, NOW_NS, 300.0) is None
    scene.reads(HOME)
    assert scene.refused()[0] == "stale"
    scene.reads(HOME[:6], NAMES[:6])
    assert scene.refused()[0] == "stale", "one of them is from before"
    scene.reads(HOME[6:], NAMES[6:])
    assert scene.take().state is not None
    assert scene.buffer.measured(NAMES, NOW_NS, 300.0) is not None


@pytest.mark.parametrize("quiet", ["joints", "camera"])
def test_a_stream_is_not_young_because_its_clock_is_ahead(quiet: str) -> None:
    """Stamped 0.8 s in the future and silent for half a second: by its stamps alone it would be fresh for a second."""
    scene = Scene()
    for _ in range(51):
        scene.monotonic_ns += 10 * MS
        if quiet != "joints":
            scene.buffer.put_joints(message(NOW_NS - 20 * MS), NAMES, HOME)
        if quiet != "camera":
            scene.sees()
    slug, text = scene.refused()
    assert slug == "stale"
    assert "came 5" in text
    assert ("the robot state" if quiet == "joints" else "camera 'camera'") in text
    assert "clocks" in text
    assert (scene.buffer.measured(NAMES, NOW_NS, 300.0) is None) is (quiet == "joints")


def test_a_silent_state_that_is_no_joints_is_not_young_because_its_clock_is_ahead() -> None:
    scene = Scene()
    scene.buffer.put_vector(message(NOW_NS), np.zeros(4, np.float32))
    scene.take()
    scene.monotonic_ns += 301 * MS
    scene.sees()
    assert scene.refused()[0] == "stale"


def test_in_simulated_time_only_the_stamps_say_how_old_something_is() -> None:
    scene = Scene()
    scene.gate.stamps_rule = True
    scene.monotonic_ns += 10_000 * MS
    scene.take()
    assert scene.buffer.measured(NAMES, NOW_NS, 300.0) is not None


def test_unknown_names_take_no_memory_without_end() -> None:
    scene = Scene()
    for number in range(1000):
        scene.reads([0.0], (f"stranger{number}",))
    assert len(scene.buffer._joints) == len(scene.buffer._arrived_ns) <= NAMES_KEPT + len(NAMES)
    scene.reads(HOME)
    scene.sees()
    scene.take()


def test_when_the_clock_jumped_pictures_and_states_of_every_kind_are_from_before() -> None:
    scene = Scene()
    scene.buffer.put_vector(message(NOW_NS), np.zeros(4, np.float32))
    scene.take()
    scene.buffer.clear()
    assert scene.buffer.lags.smallest_s() == {}
    scene.reads(HOME)
    assert scene.refused()[0] == "camera_missing"
    scene.sees()
    np.testing.assert_allclose(scene.take().state, HOME, atol=1e-6)


def test_before_anything_was_taken_nothing_was_consumed() -> None:
    assert Scene().buffer.consumed == NOTHING_CONSUMED


def test_how_late_states_that_are_no_joints_come_is_known_as_well() -> None:
    buffer = ObservationBuffer((), (), True)
    buffer.put_vector(message(NOW_NS), np.zeros(4, np.float32))
    assert buffer.lags.smallest_s() == {"state": pytest.approx(3e-3)}


@pytest.mark.parametrize("age_ms", [301.0, -1100.0])
@pytest.mark.parametrize("first", [True, False])
def test_a_measurement_of_two_messages_is_as_bad_as_the_worse(age_ms: float, first: bool) -> None:
    scene = Scene()
    scene.reads(HOME[:4], NAMES[:4], age_ms=age_ms if first else 20.0)
    scene.reads(HOME[4:], NAMES[4:], age_ms=20.0 if first else age_ms)
    assert scene.buffer.measured(NAMES, NOW_NS, 300.0) is None


def test_a_measurement_of_which_a_part_is_silent_is_none() -> None:
    """Its stamp is from the future, and alone would keep it young."""
    scene = Scene()
    scene.reads(HOME, age_ms=-500.0)
    for _ in range(31):
        scene.reads(HOME[:4], NAMES[:4])
    assert scene.buffer.measured(NAMES[:4], NOW_NS, 300.0) is not None
    assert scene.buffer.measured(NAMES, NOW_NS, 300.0) is None


@pytest.mark.parametrize(("reading", "known"), [(0.04, True), (math.nan, False), (math.inf, False)])
def test_a_measurement_of_a_joint_that_only_the_actions_have_is_a_number(reading: float, known: bool) -> None:
    """No policy reads it, so that no gate judges it; a robot is not held at it all the same."""
    scene = Scene()
    scene.reads([reading], ("gripper",))
    assert (scene.buffer.measured((*NAMES, "gripper"), NOW_NS, 300.0) is not None) is known


def test_the_age_of_a_state_that_is_no_joints_is_said_and_of_what_was_never_seen_none() -> None:
    buffer = ObservationBuffer(("camera",), NAMES, True)
    assert buffer.ages_ms(NOW_NS) == {}
    buffer.put_vector(message(NOW_NS - 40 * MS), np.zeros(4, np.float32))
    assert buffer.ages_ms(NOW_NS) == {"state": pytest.approx(40.0)}


def test_what_is_missing_is_said_with_the_topic_it_should_come_on() -> None:
    buffer = ObservationBuffer(("camera",), NAMES, True)
    buffer.topics = {"camera": "/wrist/image", "state": "/joint_states"}
    with pytest.raises(RefusedObservationError, match="on /joint_states lack"):
        buffer.take(NOW_NS, GATES)
    buffer.put_joints(message(NOW_NS, "sensor_msgs/msg/JointState"), NAMES, HOME)
    with pytest.raises(RefusedObservationError, match="no image from camera 'camera' yet on /wrist/image"):
        buffer.take(NOW_NS, GATES)
