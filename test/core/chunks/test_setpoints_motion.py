# SPDX-License-Identifier: Apache-2.0
"""Setpoints along a motion in time: no step of the position or the velocity, wherever it begins, changes, stalls or ends."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Bounds, Doubles, Spline, through
from reflex_core.chunks.setpoints import BLEND_S, REPEATS, STALL_S, SetpointStream, UnmeasuredError
from reflex_core.values import ActionChunk, Floats

MS = 1_000_000
PERIOD_NS = 10 * MS
DT_S = 0.05
NAMES = ("a", "b")


def here(*positions: float) -> Floats:
    return np.array(positions, np.float32)


def path(seconds: Doubles, apart: float = 0.0) -> Floats:
    """Where the policy wants the joints: at most 1.4 rad/s and 2.8 rad/s2."""
    column = 0.6 * np.sin(1.6 * seconds) + 0.1 * np.sin(4.0 * seconds)
    return (np.stack([column, -0.5 * column], axis=1) + apart).astype(np.float32)


class Arm:
    """A stream that is handed one chunk after another, as the node does it, on a clock in ms."""

    def __init__(self, limit: float = np.inf, period_ns: int = PERIOD_NS) -> None:
        bounds = Bounds.unlimited(2)
        self.handover = Handover(bounds, lambda _: self.at, lambda: 0.3)
        self.stream = SetpointStream(2, velocities=False, period_ns=period_ns)
        self.stream.limit(np.full(2, limit))
        self.period_ms = period_ns / MS
        self.at = path(np.zeros(1))[0].astype(np.float64)
        self.sent: list[Doubles] = []
        self.now_ms = 0.0

    def chunk(self, apart: float = 0.0, age_ms: float = 120.0, late_ms: float = 1.0, count: int = 50) -> None:
        """Follow the path from an observation of that age on; the command comes `late_ms` after it was made."""
        made_ns = int((self.now_ms - late_ms) * MS)
        stamp_ns = made_ns - int(age_ms * MS)
        rows = path(stamp_ns * 1e-9 + DT_S * np.arange(1, count + 1), apart)
        chunk, start = ActionChunk(rows, NAMES, DT_S), int(age_ms // 50)
        led = self.handover.led(chunk, stamp_ns, start, made_ns)
        motion = self.handover.take_over(led, stamp_ns, start, made_ns)
        self.stream.follow(led, stamp_ns, start, int(self.now_ms * MS), here(*self.at), motion=motion)

    def tick(self, until_ms: float) -> None:
        """Send what is due, every period."""
        while self.now_ms < until_ms:
            row = self.stream.tick(int(self.now_ms * MS))
            if row is not None:
                self.sent.append(row)
                self.at = row
            self.now_ms += self.period_ms

    def acceleration(self) -> float:
        """The greatest that the setpoints have, rad/s2."""
        return float(np.abs(np.diff(self.sent, n=2, axis=0)).max()) / (self.period_ms * 1e-3) ** 2


def towards(*knots: float, begin_ms: int = 0, apart_ms: int = 500) -> Spline:
    """A motion of both joints through the knots, from rest to rest."""
    points = np.repeat(np.array(knots)[:, None], 2, axis=1)
    times_ns = (begin_ms + apart_ms * np.arange(len(knots), dtype=np.int64)) * MS
    return through(times_ns, points, np.zeros(2), Bounds.unlimited(2))


def rows(count: int = 2) -> ActionChunk:
    """Rows beside a motion: what they are is not followed."""
    return ActionChunk(np.zeros((count, 2), np.float32), NAMES, DT_S)


def following(motion: Spline, at: float = 0.0) -> SetpointStream:
    stream = SetpointStream(2, velocities=False, period_ns=PERIOD_NS)
    stream.follow(rows(), 0, 0, 0, here(at, at), motion=motion)
    return stream


def ticked(stream: SetpointStream, from_ms: int, until_ms: int) -> Doubles:
    """The first joint's setpoints."""
    sent = [stream.tick(now_ms * MS) for now_ms in range(from_ms, until_ms, 10)]
    return np.array([row[0] for row in sent if row is not None])


@pytest.mark.parametrize(("apart", "most"), [(0.0, 4.0), (0.004, 8.0)])
@pytest.mark.parametrize("late_ms", [0.5, 9.0])
def test_the_setpoints_of_many_chunks_are_as_smooth_as_their_path(
    apart: float, most: float, late_ms: float
) -> None:
    """Straight lines between the same rows: 27 rad/s2 at 100 Hz, and at a change of chunks more."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        arm = Arm()
        arm.chunk()
        arm.tick(1000.0)
        arm.sent.clear()
        for _ in range(12):
            arm.chunk(random.uniform(-apart, apart), late_ms=late_ms)
            arm.tick(arm.now_ms + float(random.integers(20, 60)) * 10.0)
        assert arm.acceleration() < most
        true = path(np.array([(arm.now_ms - arm.period_ms) * 1e-3]))[0]
        np.testing.assert_allclose(arm.sent[-1], true, atol=0.002 + 2 * apart)


def test_the_motion_itself_is_sent_at_the_moment_of_the_tick() -> None:
    motion = towards(0.0, 0.4, 0.1)
    sent = ticked(following(motion), 0, 1000)
    np.testing.assert_allclose(sent, motion.sampled(np.arange(0, 1000, 10) * MS)[:, 0], atol=1e-6)
    stream = following(motion)
    stream.tick(0)
    assert stream.tick(83 * MS) == pytest.approx(motion.at(83 * MS)[0])  # late: what is due now


def test_a_robot_that_is_elsewhere_is_led_to_the_motion_without_a_step_of_its_velocity() -> None:
    sent = ticked(following(towards(0.5, 0.5, 0.5), at=0.1), 0, 400)
    assert sent[0] == pytest.approx(0.1)
    assert sent[-1] == pytest.approx(0.5)
    assert sent[int(BLEND_S * 100) - 1] < 0.5 <= sent[int(BLEND_S * 100)] + 1e-9
    assert np.abs(np.diff(sent, n=2)).max() < 6 * 0.4 / BLEND_S**2 * 1e-4 * 1.01  # a cubic's, and no kink
    assert sent[1] - sent[0] < 0.004


def test_the_way_to_a_motion_far_away_takes_as_long_as_the_limit_of_speed_needs() -> None:
    stream = SetpointStream(2, velocities=False, period_ns=PERIOD_NS)
    stream.limit(np.array([1.0, 1.0]))
    stream.follow(rows(), 0, 0, 0, here(-0.5, 0.5), motion=towards(0.5, 0.5))
    sent = ticked(stream, 0, 2000)
    assert np.diff(sent).max() <= 0.01 + 1e-9
    assert sent[148] < 0.5  # half as long again as at the limit all along
    assert sent[-1] == pytest.approx(0.5)


def test_a_motion_that_does_not_begin_where_the_last_one_is_is_entered_with_its_velocity() -> None:
    stream = following(towards(0.0, 0.5))
    before = ticked(stream, 0, 250)
    stream.follow(rows(), 0, 0, 245 * MS, None, motion=towards(0.0, -0.2, begin_ms=245))
    stream.follow(rows(), 0, 0, 245 * MS, None, motion=towards(0.0, 0.0, begin_ms=245))  # another at once
    after = ticked(stream, 250, 900)
    sent = np.concatenate([before, after])
    # a quarter of a radian and 1.5 rad/s are taken back within 0.2 s
    assert np.abs(np.diff(sent, n=2)).max() < (6 * 0.25 + 4 * 1.5 * BLEND_S) / BLEND_S**2 * 1e-4
    assert after[0] > before[-1]
    assert sent[-1] == pytest.approx(0.0, abs=1e-9)


def test_a_motion_comes_to_rest_several_times_and_then_there_is_silence() -> None:
    stream = following(towards(0.0, 0.3))
    sent = ticked(stream, 0, 2000)
    np.testing.assert_array_equal(sent[-REPEATS:], [sent[-1]] * REPEATS)
    assert sent[-1] == 0.3
    assert len(sent) == 50 + REPEATS
    assert stream.silent


def test_after_a_stall_the_motion_is_approached_again_from_rest() -> None:
    stream = following(motion := towards(0.0, 2.0, apart_ms=2000))
    before = ticked(stream, 0, 1000)
    now_ms = 1000 + int(STALL_S * 1e3) + 10
    after = ticked(stream, now_ms, now_ms + 300)
    assert stream.stalls == 1
    assert after[0] == pytest.approx(before[-1])
    assert after[1] - after[0] < 0.02
    assert after[-1] == pytest.approx(motion.at((now_ms + 290) * MS)[0][0])


def test_a_motion_right_after_a_stall_is_approached_from_rest_too() -> None:
    stream = following(towards(0.0, 2.0, apart_ms=2000))
    before = ticked(stream, 0, 1000)
    motion = towards(1.3, 2.0, begin_ms=1300, apart_ms=1000)
    stream.follow(rows(), 0, 0, 1300 * MS, None, motion=motion)
    after = ticked(stream, 1300, 1600)
    assert stream.stalls == 1
    assert after[0] == pytest.approx(before[-1])
    assert after[1] - after[0] < 0.015
    assert after[-1] == pytest.approx(motion.at(1590 * MS)[0][0])


def test_an_adjustment_goes_on_into_the_next_motion_and_a_hold_begins_with_it() -> None:
    stream = SetpointStream(2, velocities=False, period_ns=PERIOD_NS)
    still = towards(0.0, 0.0, apart_ms=5000)

    def sent(from_ms: int, until_ms: int) -> Doubles:
        found = []
        for now_ms in range(from_ms, until_ms, 10):
            due = stream.due(now_ms * MS)
            assert due is not None
            row = stream.advance([at + 0.05 for at in due] if stream.adjusted else due, now_ms * MS)
            assert row is not None
            found.append(row[0])
        return np.array(found)

    stream.follow(rows(), 0, 0, 0, here(0.0, 0.0), motion=still, adjusted=True)
    sent(0, 300)
    stream.follow(rows(), 0, 0, 300 * MS, None, motion=still, adjusted=True)
    np.testing.assert_allclose(sent(300, 600), 0.05, atol=1e-9)
    stream.follow(rows(), 0, 0, 600 * MS, None, motion=still)
    held = sent(600, 900)
    assert held[0] == pytest.approx(0.05)
    assert held[1] > 0.048  # no kink
    assert held[-1] == pytest.approx(0.0, abs=1e-9)


def test_after_a_pause_a_motion_begins_where_it_is_measured_or_not_at_all() -> None:
    stream = following(towards(0.0, 0.1))
    ticked(stream, 0, 1000)
    with pytest.raises(UnmeasuredError):
        stream.follow(rows(), 0, 0, 3000 * MS, None, motion=towards(0.1, 0.2, begin_ms=3000))
    stream.follow(rows(), 0, 0, 3000 * MS, here(0.3, 0.3), motion=towards(0.1, 0.2, begin_ms=3000))
    assert stream.tick(3005 * MS) == pytest.approx([0.3, 0.3], abs=1e-6)


def test_a_motion_that_was_never_measured_is_followed_at_once() -> None:
    stream = SetpointStream(2, velocities=False, period_ns=PERIOD_NS)
    stream.follow(rows(), 0, 0, 0, None, motion=(motion := towards(0.2, 0.5)))
    assert stream.tick(100 * MS) == pytest.approx(motion.at(100 * MS)[0])


def test_a_clock_that_begins_again_ends_a_motion() -> None:
    later_ms = 1_000_000
    stream = SetpointStream(2, velocities=False, period_ns=PERIOD_NS)
    motion = towards(0.0, 0.5, begin_ms=later_ms)
    stream.follow(rows(), 0, 0, later_ms * MS, here(0.0, 0.0), motion=motion)
    ticked(stream, later_ms, later_ms + 200)
    assert ticked(stream, 0, 200).size == 0
    assert stream.silent


@pytest.mark.parametrize(
    "positions", [np.zeros((2, 1)), np.array([[0.0, 0.0], [np.nan, 0.0]])], ids=["width", "nan"]
)
def test_a_motion_that_is_none_is_refused_and_what_was_followed_ends(positions: Doubles) -> None:
    stream = following(towards(0.0, 0.5))
    ticked(stream, 0, 100)
    wrong = Spline(np.array([100 * MS, 600 * MS]), positions, np.zeros_like(positions))
    with pytest.raises(ValueError, match="rows of 2 finite numbers"):
        stream.follow(rows(), 0, 0, 100 * MS, None, motion=wrong)
    assert stream.silent


@pytest.mark.parametrize("seed", range(20))
def test_no_setpoint_on_a_motion_is_further_from_the_one_before_than_the_limit_allows(seed: int) -> None:
    random = np.random.default_rng(seed)
    limit = 1.0
    arm = Arm(limit)
    for _ in range(20):
        arm.chunk(
            random.uniform(-0.3, 0.3) if random.random() < 0.2 else 0.0, late_ms=random.uniform(0.0, 20.0)
        )
        arm.tick(arm.now_ms + random.uniform(20.0, 400.0))
        if random.random() < 0.3:
            arm.now_ms += random.uniform(10.0, 400.0)
    assert len(arm.sent) > 100
    assert np.abs(np.diff(arm.sent, axis=0)).max() <= limit * arm.period_ms * 1e-3 + 1e-6
