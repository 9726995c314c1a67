# SPDX-License-Identifier: Apache-2.0
"""The plausibility gate in time, on a clock that the test moves: what a joint can have done, and when it is believed again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from guarded import FRANKA
from joint_sensor import HOME, MARGIN, NAMES, TICK_S, VELOCITY, Sensor, rest
from robots import v1

from reflex_core.robot.joint_gate import (
    GAP_S,
    IMPLAUSIBLE,
    LEFT_S,
    NOT_FINITE,
    RECOVERY_S,
    SETTLE_S,
    JointGate,
    Path,
    joint_gate,
)


def test_a_joint_that_rests_or_moves_as_fast_as_it_may_is_believed(sensor: Sensor) -> None:
    for step in range(100):
        assert sensor.reads(VELOCITY * TICK_S * (step + 1)).believed
    assert sensor.estimate == pytest.approx(VELOCITY)
    assert sensor.refused == []


@pytest.mark.parametrize("reading", [1.0, -1.0, 2.8, MARGIN + VELOCITY * TICK_S + 1e-6])
def test_a_jump_is_not_believed_and_the_sentence_has_joint_value_and_expected(
    commanded: Sensor, reading: float
) -> None:
    fault = commanded.reads(reading).gate.fault(NAMES)
    assert fault is not None
    assert (fault.joint, fault.reading, fault.expected, fault.reason) == (
        "panda_joint1", reading, 0.0, IMPLAUSIBLE,
    )  # fmt: skip
    assert fault.text.startswith(
        f"joint 'panda_joint1' reads {reading:.6g} rad, it was at 0 rad 10 ms before"
    )
    assert "plausibility_margin_rad" in fault.text
    assert commanded.estimate == 0.0, "frozen"
    assert commanded.refused == ["panda_joint1"]


def test_what_lies_within_the_margin_is_believed(commanded: Sensor) -> None:
    assert commanded.reads(MARGIN + VELOCITY * TICK_S - 1e-6).believed
    assert commanded.estimate == pytest.approx(VELOCITY * TICK_S), "as far as the joint can have come"


@pytest.mark.parametrize("speed", [3.0, 4.0, 10.0])
def test_a_ramp_that_is_too_fast_is_caught_before_it_is_far(commanded: Sensor, speed: float) -> None:
    steps = 0
    while commanded.believed:
        steps += 1
        commanded.reads(speed * TICK_S * steps)
    ran_ahead = speed * TICK_S * steps - commanded.estimate
    assert ran_ahead <= MARGIN + speed * TICK_S
    assert not commanded.all_read([speed * TICK_S * steps] * 1000).believed, "it does not become true by time"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_its_own_reason(commanded: Sensor, value: float) -> None:
    fault = commanded.reads(value).gate.fault(NAMES)
    assert fault is not None
    assert fault.reason == NOT_FINITE
    assert "panda_joint1" in fault.text


@pytest.mark.parametrize("value", [9.0, 2 * math.pi, 45.0])
def test_what_is_outside_the_range_is_never_believed_not_even_at_first(value: float) -> None:
    sensor = Sensor().all_read(rest(value, 5.0))
    fault = sensor.gate.fault(NAMES)
    assert fault is not None
    assert fault.reason == IMPLAUSIBLE
    assert "its range is -2.8973 to 2.8973" in fault.text
    assert sensor.gate.believed(NAMES) is None


def test_a_lie_that_stays_is_never_believed(commanded: Sensor) -> None:
    assert not commanded.all_read(rest(1.0, 60.0)).believed
    fault = commanded.gate.fault(NAMES)
    assert fault is not None
    assert "~/reset_guard" in fault.text


def test_the_joint_is_believed_again_after_the_window_near_where_it_was(commanded: Sensor) -> None:
    commanded.all_read(rest(1.0, 1.0))
    good = 0
    while not commanded.believed:
        good += 1
        commanded.reads(0.01)
    assert RECOVERY_S <= (good - 1) * TICK_S <= RECOVERY_S + 2 * TICK_S
    assert commanded.estimate == pytest.approx(0.01)


def test_the_real_joint_went_on_to_where_it_was_commanded_to_be_held(commanded: Sensor) -> None:
    commanded.reads(-1.5).commands(0.5, 0.8)
    assert not commanded.all_read(rest(-1.5, 1.0)).believed
    assert commanded.all_read(rest(0.75, RECOVERY_S)).believed
    commanded.reads(-1.5)
    assert not commanded.all_read(rest(1.3, 5.0)).believed, (
        "beyond what was commanded, by more than the margin"
    )


def test_what_the_joint_was_commanded_before_explains_nothing_any_more(commanded: Sensor) -> None:
    """A chunk that comes from 0 has left it behind: zeros are no place on the way."""
    commanded.commands(0.0, 2.0)
    at = 0.0
    for _ in range(80):
        at += 0.02
        assert commanded.reads(at).believed
    assert not commanded.all_read(rest(0.0, 2.0)).believed
    assert commanded.all_read(rest(2.0, RECOVERY_S)).believed


def test_one_bad_reading_begins_the_window_anew(commanded: Sensor) -> None:
    commanded.reads(1.0)
    for _ in range(20):
        commanded.all_read(rest(0.0, RECOVERY_S - 3 * TICK_S))
        assert not commanded.reads(1.0).believed


@pytest.mark.parametrize("liar", [0.0, 2.4, -1.0])
def test_two_publishers_that_alternate_are_never_believed(liar: float) -> None:
    """Whichever spoke first, and before anything was commanded as well as after."""
    for first, second in ((1.0, liar), (liar, 1.0)):
        sensor = Sensor().reads(first)
        assert not any(sensor.reads(value).believed for value in [second, first] * 500)
        sensor.commands(0.5)
        assert not any(sensor.reads(value).believed for value in [second, first] * 500)


def test_alternating_readings_both_near_are_not_believed_either(commanded: Sensor) -> None:
    commanded.reads(2.0).commands(-0.5, 0.5)
    assert not any(commanded.reads(value).believed for value in [-0.5, 0.5] * 200)


def test_before_anything_was_commanded_a_steady_new_reading_is_accepted(sensor: Sensor) -> None:
    assert not sensor.all_read(rest(1.5, SETTLE_S - 0.1)).believed
    assert sensor.all_read(rest(1.5, 0.1)).believed
    assert sensor.estimate == 1.5


def test_a_joint_that_was_never_believed_is_believed_once_it_is_well(commanded: Sensor) -> None:
    sensor = Sensor().all_read(rest(math.nan, 1.0))
    assert not sensor.reads(0.3).believed
    assert sensor.all_read(rest(0.3, SETTLE_S)).believed


def test_a_person_makes_the_present_reading_true(commanded: Sensor) -> None:
    commanded.all_read(rest(1.0, 1.0))
    assert commanded.gate.anchor(NAMES) == ""
    assert commanded.believed
    assert commanded.estimate == 1.0


@pytest.mark.parametrize("value", [math.nan, 9.0, 3e38])
def test_not_even_a_person_makes_true_what_is_not_possible(commanded: Sensor, value: float) -> None:
    commanded.reads(value)
    assert "panda_joint1" in commanded.gate.anchor(NAMES)
    assert not commanded.believed


def test_every_joint_is_tracked_by_itself_and_partial_messages_are_welcome() -> None:
    gate = joint_gate(FRANKA, NAMES, MARGIN)
    for tick in range(100):
        now_ns = 10**12 + tick * 10**7
        gate.put(NAMES[:3], HOME[:3], now_ns, now_ns)
        gate.put(["gripper", *NAMES[3:]], [0.04, *HOME[3:]], now_ns + 10**6, now_ns + 10**6)
    assert gate.fault(NAMES) is None
    assert gate.believed(NAMES) is not None
    assert gate.believed(["gripper"]) is None, "a joint of others is none of ours"
    gate.commanded({name: Path([at], 10**12, 0.05) for name, at in zip(NAMES, HOME, strict=True)})
    gate.put(NAMES[:1], [2.5], 10**13, 10**12 + 10**9)
    fault = gate.fault(NAMES)
    assert fault is not None
    assert fault.joint == NAMES[0]
    assert gate.fault(NAMES[1:]) is None


def test_a_gripper_is_judged_by_its_range_and_not_by_its_speed() -> None:
    """What it holds may slip, and it is commanded one end or the other."""
    hand = v1("franka")
    gate = joint_gate(hand, hand.joint_names, MARGIN)
    rest_of_it = [float(each) for each in (hand.action_min + hand.action_max) / 2][:7]
    steps: list[tuple[float, bool]] = [(0.0, True), (1.0, True), (0.0, True), (80.0, False)]
    gate.commanded({name: Path([0.0], 10**12, 0.05) for name in hand.joint_names})
    for tick, (value, plausible) in enumerate(steps):
        gate.put(hand.joint_names, [*rest_of_it, value], 10**18 + tick * 10**7, 10**12 + tick * 10**7)
        assert (gate.fault(hand.joint_names) is None) is plausible
    for tick in range(10, 60):
        gate.put(hand.joint_names, [*rest_of_it, 0.9], 10**18 + tick * 10**7, 10**12 + tick * 10**7)
    assert gate.fault(hand.joint_names) is None


@pytest.mark.parametrize(
    "make", [lambda: joint_gate(None, NAMES, MARGIN), lambda: joint_gate(FRANKA, ["other"], MARGIN)]
)
def test_an_unknown_joint_must_only_be_a_number(make: Callable[[], JointGate]) -> None:
    gate = make()
    names = ["other"] if gate.fault(["other"]) is None and "other" in gate._trackers else NAMES
    for value, plausible in ((0.0, True), (500.0, True), (2e6, False)):
        gate.put(names, [value] * len(names), 10**18, 10**12)
        assert (gate.fault(names) is None) is plausible


def test_an_activation_forgets_everything(commanded: Sensor) -> None:
    commanded.reads(1.0)
    commanded.gate.reset()
    assert commanded.gate.believed(NAMES) is None
    assert commanded.reads(1.0).believed


def test_a_message_costs_little() -> None:
    """At 1 kHz and seven joints it must not keep the executor busy."""
    import timeit

    sensor = Sensor().reads(0.0)
    assert np.median(timeit.repeat(lambda: sensor.reads(0.0), number=100, repeat=5)) / 100 < 1e-3


def test_a_joint_under_command_has_soon_left_where_it_was_believed_last(commanded: Sensor) -> None:
    """A lie that happens to lie where the joint came from is none the truer for it."""
    commanded.commands(0.0, 1.5)
    commanded.reads(-1.0)
    commanded.commands(1.5)
    commanded.all_read(rest(-1.0, LEFT_S))
    assert not commanded.all_read(rest(0.0, 5.0)).believed
    assert commanded.all_read(rest(1.5, RECOVERY_S)).believed


def test_a_joint_that_is_under_no_command_may_be_where_it_was_believed_last(commanded: Sensor) -> None:
    commanded.commands(1.5).reads(-1.0)
    commanded.gate.released()
    commanded.all_read(rest(-1.0, 2.0))
    assert commanded.all_read(rest(0.0, RECOVERY_S)).believed


def test_where_one_joint_lies_the_rest_of_its_message_is_not_believed_either(commanded: Sensor) -> None:
    lying = [1.0, HOME[1] + 0.1, *HOME[2:]]
    for _ in range(100):
        commanded.now_ns += 10**7
        commanded.stamp_ns += 10**7
        commanded.gate.put(NAMES, lying, commanded.stamp_ns, commanded.now_ns)
    fault = commanded.gate.fault(NAMES[1:2])
    assert fault is not None
    assert fault.joint == NAMES[0]
    found = commanded.gate.believed(NAMES)
    assert found is not None
    assert found[0] == [0.0, *HOME[1:]]
    assert set(commanded.refused) == {NAMES[0]}, "it alone is counted"


@pytest.mark.parametrize(
    ("at_s", "least", "most"),
    [
        (-1.0, 0.0, 3.0),
        (0.0, 0.0, 3.0),
        (0.09, 0.0, 3.0),
        (0.11, 1.0, 3.0),
        (0.31, 3.0, 3.0),
        (9.0, 3.0, 3.0),
    ],
)
def test_what_is_still_commanded_is_the_row_that_is_approached_and_what_comes_after(
    at_s: float, least: float, most: float
) -> None:
    path = Path([0.0, 1.0, 2.0, 3.0], 10**12, 0.1)
    assert path.span(10**12 + int(at_s * 1e9)) == (least, most)
    turning = Path([0.0, 3.0, -1.0], 10**12, 0.1)
    assert turning.span(10**12 + 110_000_000) == (-1.0, 3.0)
    assert Path([5.0, 6.0], 10**12, 0.0).span(10**13) == (5.0, 6.0)


@pytest.mark.parametrize("joint", range(7))
def test_whichever_joint_lies_nothing_of_its_message_is_believed(commanded: Sensor, joint: int) -> None:
    commanded.message({joint: HOME[joint] + 0.5 if joint else 0.5})
    fault = commanded.gate.fault(NAMES)
    assert fault is not None
    assert fault.joint == NAMES[joint]
    found = commanded.gate.believed(NAMES)
    assert found is not None
    assert found[0] == [0.0, *HOME[1:]]


def test_a_lie_in_the_second_half_of_the_joint_states_is_a_fault_of_the_robot(commanded: Sensor) -> None:
    """The wrist has a driver of its own, and lies; the rest of the arm is believed."""
    commanded.message({5: HOME[5] + 1.0}, of=(4, 5, 6)).message({}, of=(0, 1, 2, 3))
    assert commanded.gate.fault(NAMES[:4]) is None
    fault = commanded.gate.fault(NAMES)
    assert fault is not None
    assert fault.joint == NAMES[5]


def test_how_long_it_takes_to_be_believed_is_what_the_guard_page_says() -> None:
    assert (RECOVERY_S, SETTLE_S, LEFT_S) == (0.3, 0.5, 0.5)


def test_what_is_true_again_is_refused_no_more(commanded: Sensor) -> None:
    """One lie is one reading that is not believed, whatever the joint reads after it."""
    commanded.reads(1.0).all_read(rest(0.0, RECOVERY_S))
    assert commanded.refused == ["panda_joint1"]


@pytest.mark.parametrize("value", [9.0, math.nan])
def test_before_anything_was_commanded_an_impossible_reading_says_nothing_of_the_next(
    sensor: Sensor, value: float
) -> None:
    sensor.reads(value).all_read(rest(1.5, SETTLE_S))
    assert sensor.refused == ["panda_joint1"]
    assert sensor.estimate == 1.5


def test_before_anything_was_commanded_the_reading_that_was_doubted_is_the_first_of_three(
    sensor: Sensor,
) -> None:
    assert not sensor.reads(1.5, after_s=0.3).reads(1.5, after_s=0.3).believed
    assert sensor.reads(1.5, after_s=0.3).believed


def test_a_joint_may_move_on_while_it_is_on_the_way_to_be_believed(commanded: Sensor) -> None:
    """Further than the margin, at a speed that it has."""
    commanded.reads(-1.0).commands(0.0, 2.0)
    good = [2.0 * TICK_S * step for step in range(math.ceil(RECOVERY_S / TICK_S) + 1)]
    assert good[-1] > 2 * MARGIN
    assert commanded.all_read(good).believed
    assert commanded.refused == ["panda_joint1"]


def test_the_sentence_of_a_silence_says_that_nothing_commanded_the_joint_to_go_there(
    commanded: Sensor,
) -> None:
    fault = commanded.reads(-1.0, after_s=5.0).gate.fault(NAMES)
    assert fault is not None
    assert fault.text == (
        "joint 'panda_joint1' reads -1 rad, it was at 0 rad 5000 ms before, and no command moved it there;"
        " if it really is there, call ~/reset_guard"
    )


def test_the_sentence_of_a_lie_stays_as_it_was_and_another_reading_has_another(commanded: Sensor) -> None:
    first = commanded.reads(1.0).gate.fault(NAMES)
    assert commanded.reads(1.0).gate.fault(NAMES) is first
    second = commanded.reads(1.1).gate.fault(NAMES)
    assert first is not None
    assert second is not None
    assert second.text == (
        "joint 'panda_joint1' reads 1.1 rad, and after a reading that cannot be true it is expected near 0 rad;"
        " if it really is there, call ~/reset_guard"
    )
    assert (second.joint, second.reading, second.expected) == ("panda_joint1", 1.1, 0.0)


def test_a_joint_that_lies_after_another_did_is_named_itself(commanded: Sensor) -> None:
    commanded.message({0: 1.0}).message({1: 1.0})
    fault = commanded.gate.fault(NAMES[1:2])
    assert fault is not None
    assert (fault.joint, fault.expected) == (NAMES[1], HOME[1])


def test_the_place_of_a_joint_that_was_never_believed_is_unknown() -> None:
    sensor = Sensor().reads(math.nan).commands(0.0)
    fault = sensor.reads(2.0).gate.fault(NAMES)
    assert fault is not None
    assert fault.expected is None
    assert "after a reading that cannot be true its position is unknown;" in fault.text


@pytest.mark.parametrize("lied_before", [False, True])
def test_after_a_silence_a_joint_may_be_where_it_was_though_it_was_commanded_to_leave(
    commanded: Sensor, lied_before: bool
) -> None:
    """What lasts half a second is how long it has not been believed, and it has been all the time."""
    if lied_before:
        commanded.reads(1.0).all_read(rest(0.0, RECOVERY_S + LEFT_S))
    commanded.commands(1.5)
    assert commanded.reads(0.05, after_s=2 * GAP_S).believed
