# SPDX-License-Identifier: Apache-2.0
"""Setpoints at a rate of their own: where they begin, how they follow, how they end. On a clock that the test sets."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.chunks.setpoints import BLEND_S, REPEATS, STALL_S, SetpointStream, UnmeasuredError, next_tick
from reflex_core.values import ActionChunk, Floats

MS = 1_000_000
PERIOD_NS = 10 * MS
DT_S = 0.05


def chunk(*rows: list[float], dt_s: float = DT_S) -> ActionChunk:
    return ActionChunk(np.array(rows, np.float32), tuple(f"j{at}" for at in range(len(rows[0]))), dt_s)


def here(*positions: float) -> Floats:
    return np.array(positions, np.float32)


def ticked(stream: SetpointStream, from_ns: int, until_ns: int) -> list[tuple[int, list[float]]]:
    """What is sent, and when, in ms."""
    ticks = ((now_ns // MS, stream.tick(now_ns)) for now_ns in range(from_ns, until_ns, PERIOD_NS))
    return [(now_ms, row) for now_ms, row in ticks if row is not None]


def running(at: float) -> SetpointStream:
    """A stream that holds at a position and has just sent that."""
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.follow(chunk([at]), -50 * MS, 0, -10 * MS, here(at))
    for now_ns in range(-10 * MS, 10 * MS, PERIOD_NS):
        stream.tick(now_ns)
    return stream


@pytest.mark.parametrize(
    ("now_ms", "next_ms"),
    [(0, 10), (4.9, 10), (5, 10), (5.1, 20), (9, 20), (14.9, 20), (95.1, 110)],
)
def test_a_late_tick_is_left_out_and_never_made_up_for(now_ms: float, next_ms: int) -> None:
    assert next_tick(0, int(now_ms * MS), PERIOD_NS) == next_ms * MS


def test_it_starts_where_the_robot_is_measured_and_not_at_a_row_far_away() -> None:
    stream = SetpointStream(2, velocities=False, period_ns=PERIOD_NS)
    stream.follow(chunk([1.0, -1.0], [1.0, -1.0], [1.0, -1.0], [1.0, -1.0]), 0, 0, 0, here(0.5, 0.0))
    sent = ticked(stream, 0, 230 * MS)
    assert sent[0] == (0, [0.5, 0.0])
    steps = np.abs(np.diff([row for _, row in sent], axis=0))
    assert steps.max() <= 1.0 / (BLEND_S * 1e3) * 10 + 1e-9  # evenly, and not at once
    assert sent[-1][1] == [1.0, -1.0]


def test_rows_are_followed_linearly_at_the_time_of_the_tick() -> None:
    stream = running(0.0)
    stream.follow(chunk([0.1], [0.3]), 10 * MS, 0, 10 * MS, None)
    sent = dict(ticked(stream, 10 * MS, 120 * MS))
    np.testing.assert_allclose([sent[10], sent[60], sent[110]], [[0.0], [0.1], [0.3]], atol=1e-7)
    np.testing.assert_allclose([sent[30], sent[80]], [[0.04], [0.18]], atol=1e-7)
    stream = running(0.0)
    stream.follow(chunk([0.1], [0.3]), 10 * MS, 0, 10 * MS, None)
    late = stream.tick(83 * MS)  # seven ticks late: what is due now, and the ones between are not sent
    assert late == pytest.approx([0.1 + 0.2 * 23 / 50])


def test_a_new_chunk_continues_from_what_was_sent_last_and_the_newest_wins() -> None:
    stream = running(0.0)
    stream.follow(chunk([1.0], [2.0]), 10 * MS, 0, 10 * MS, here(0.0))
    assert stream.tick(20 * MS) == pytest.approx([0.2])
    stream.follow(
        chunk([9.0], [0.3], [0.4]), -30 * MS, 1, 25 * MS, here(-5.0)
    )  # its second row is due at 70 ms
    assert stream.tick(25 * MS) == pytest.approx([0.2])
    assert stream.tick(70 * MS) == pytest.approx([0.3])


def test_positions_end_in_the_last_row_several_times_and_then_in_silence() -> None:
    stream = running(0.0)
    stream.follow(chunk([0.1]), 10 * MS, 0, 10 * MS, None)
    sent = [row for _, row in ticked(stream, 10 * MS, 500 * MS)]
    np.testing.assert_allclose(sent[-REPEATS:], [[0.1]] * REPEATS, rtol=1e-6)
    assert len(sent) == 5 + REPEATS
    assert stream.silent
    assert stream.stop() == []


def test_speeds_end_in_zeros_one_row_after_the_last() -> None:
    stream = SetpointStream(1, velocities=True, period_ns=PERIOD_NS)
    stream.follow(chunk([0.4], [0.4]), 0, 0, 0, here(7.0))
    sent = ticked(stream, 0, 400 * MS)
    assert sent[0] == (0, [0.0])
    along = [row for now_ms, row in sent if 50 <= now_ms < 150]
    np.testing.assert_allclose(along, [[0.4]] * 10, rtol=1e-6)
    assert [row for _, row in sent[-REPEATS:]] == [[0.0]] * REPEATS
    assert sent[-1][0] <= 180


def test_a_stop_leaves_positions_where_they_are_and_speeds_at_zero() -> None:
    stream = running(0.0)
    stream.follow(chunk([1.0]), 10 * MS, 0, 10 * MS, None)
    stream.tick(20 * MS)
    np.testing.assert_allclose(stream.stop(), [[0.2]] * REPEATS, rtol=1e-6)
    assert stream.tick(30 * MS) is None
    moving = SetpointStream(1, velocities=True, period_ns=PERIOD_NS)
    assert moving.stop() == []  # nothing was ever sent
    moving.follow(chunk([0.4]), 0, 0, 0, None)
    moving.tick(50 * MS)
    assert moving.stop() == [[0.0]] * REPEATS
    assert moving.stop() == [[0.0]] * REPEATS  # a message may have been lost


@pytest.mark.parametrize(
    "rows", [[[0.1, 0.2]], [[float("nan")]], [[0.1], [float("inf")]]], ids=["width", "nan", "inf"]
)
def test_rows_that_are_no_rows_are_refused_and_what_was_followed_ends(rows: list[list[float]]) -> None:
    stream = running(0.0)
    stream.follow(chunk([1.0]), 10 * MS, 0, 10 * MS, None)
    with pytest.raises(ValueError, match="rows of 1 finite numbers"):
        stream.follow(chunk(*rows), 20 * MS, 0, 20 * MS, None)
    assert stream.silent


def test_after_a_standstill_of_the_process_the_rows_are_approached_again() -> None:
    stream = running(0.0)
    stream.follow(chunk(*[[0.1 * at] for at in range(1, 21)]), 10 * MS, 0, 10 * MS, None)
    before = stream.tick(60 * MS)
    now_ns = 61 * MS + int(STALL_S * 1e9)
    after = stream.tick(now_ns)
    assert stream.stalls == 1
    assert after == pytest.approx(before)
    approached = ticked(stream, now_ns, now_ns + int(BLEND_S * 1e9) + 1)
    assert np.abs(np.diff([row for _, row in approached], axis=0)).max() < 0.07
    assert approached[-1] == (361, pytest.approx([351 / 50 * 0.1], rel=1e-6))


def test_a_pause_is_followed_by_a_start_where_the_robot_is_measured() -> None:
    stream = running(0.0)
    for now_ns in range(10 * MS, 100 * MS, PERIOD_NS):
        stream.tick(now_ns)
    stream.follow(chunk([0.5]), 2000 * MS, 0, 2000 * MS, here(0.2))
    assert stream.tick(2000 * MS) == pytest.approx([0.2])


def test_an_origin_that_is_unknown_means_the_first_row() -> None:
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.follow(chunk([0.5], [0.7]), 0, 0, 0, None)
    assert stream.tick(0) == pytest.approx([0.5])


def test_a_hold_without_a_rate_is_one_row_at_once() -> None:
    stream = running(0.0)
    stream.follow(chunk([0.01], dt_s=0.0), 20 * MS, 0, 20 * MS, None)
    assert stream.tick(20 * MS) == pytest.approx([0.01])


LATER_NS = 1_000_000 * MS  # of a simulator, which then begins again


def followed(*, velocities: bool, until_ns: int) -> SetpointStream:
    stream = SetpointStream(1, velocities=velocities, period_ns=PERIOD_NS)
    stream.follow(chunk(*[[0.5]] * 10), LATER_NS, 0, LATER_NS, here(0.5))
    ticked(stream, LATER_NS, until_ns)
    return stream


@pytest.mark.parametrize("lasted_ms", [0, 300])
def test_a_clock_that_begins_again_ends_the_rows_and_stops_speeds(lasted_ms: int) -> None:
    for velocities in (False, True):
        stream = followed(velocities=velocities, until_ns=LATER_NS + lasted_ms * MS)
        sent = [row for _, row in ticked(stream, 0, 500 * MS)]
        assert (len(sent) >= REPEATS) == (velocities and lasted_ms > 0)
        assert all(row == [0.0] for row in sent)
        assert stream.silent


@pytest.mark.parametrize("lasted_ms", [300, 900])
def test_after_a_clock_that_begins_again_rows_are_followed_from_where_the_robot_is(lasted_ms: int) -> None:
    stream = followed(velocities=False, until_ns=LATER_NS + lasted_ms * MS)
    stream.follow(chunk([0.0], [0.0]), 0, 0, 0, here(-0.1))
    assert stream.tick(0) == pytest.approx([-0.1])


def test_a_clock_that_hesitates_ends_nothing() -> None:
    stream = running(0.0)
    stream.follow(chunk([0.1], [0.3]), 20 * MS, 0, 20 * MS, None)
    assert stream.tick(19 * MS) == pytest.approx([0.0])
    assert stream.tick(120 * MS) == pytest.approx([0.3])


def ramp(now_ns: int, speed: float, rows: int = 50, dt_s: float = 0.02) -> ActionChunk:
    """What goes on at that speed as if no tick had been missed: at `speed` * the time."""
    return chunk(*[[speed * (now_ns * 1e-9 + at * dt_s)] for at in range(1, rows + 1)], dt_s=dt_s)


@pytest.mark.parametrize("stall_ms", [110, 200, 300, 450])
def test_a_chunk_right_after_a_standstill_leads_to_its_rows_as_after_any(stall_ms: int) -> None:
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.follow(ramp(0, 1.0), 0, 0, 0, here(0.0))
    (*_, (_, before)) = ticked(stream, 0, 400 * MS)
    now_ns = 390 * MS + stall_ms * MS
    stream.follow(ramp(now_ns, 1.0), now_ns, 0, now_ns, here(before[0]))
    stream.follow(ramp(now_ns, 1.0), now_ns, 0, now_ns, here(before[0]))  # another one at once
    assert stream.stalls == 1
    sent = [before, *(row for _, row in ticked(stream, now_ns, now_ns + 400 * MS))]
    most = (1.0 + (stall_ms * 1e-3 + BLEND_S) / BLEND_S) * 0.01
    assert np.abs(np.diff(sent, axis=0)).max() < most
    assert sent[-1] == pytest.approx([0.39 + stall_ms * 1e-3 + 0.39], abs=1e-6)
    assert stream.stalls == 1


def test_a_chunk_while_the_rows_are_approached_again_does_not_cut_that_short() -> None:
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.follow(ramp(0, 1.0), 0, 0, 0, here(0.0))
    (*_, (_, before)) = ticked(stream, 0, 400 * MS)
    sent = [before, *(row for _, row in ticked(stream, 690 * MS, 740 * MS))]
    stream.follow(ramp(740 * MS, 1.0), 740 * MS, 0, 740 * MS, None)
    sent += [row for _, row in ticked(stream, 740 * MS, 1000 * MS)]
    assert np.abs(np.diff(sent, axis=0)).max() < 0.045  # evenly, and not the rest of the way within a row
    assert sent[-1] == pytest.approx([0.99], abs=1e-6)
    assert stream.stalls == 1


@pytest.mark.parametrize("seed", range(40))
def test_no_setpoint_is_further_from_the_one_before_than_the_limit_of_speed_allows_in_a_period(
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    limit = np.array([1.0, 0.3])
    stream = SetpointStream(2, velocities=False, period_ns=PERIOD_NS)
    stream.limit(limit)
    now_ns, at, sent = 0, np.zeros(2), [np.zeros(2)]
    speed = random.uniform(-1.0, 1.0, 2) * limit
    for _ in range(300):
        if random.random() < 0.15:  # a chunk: as handed over to a robot that has followed, or from anywhere
            begin = at + speed * now_ns * 1e-9 if random.random() < 0.8 else random.uniform(-1.0, 1.0, 2)
            speed = random.uniform(-1.0, 1.0, 2) * limit
            at = begin - speed * now_ns * 1e-9
            rows = [
                (begin + speed * 0.02 * (number + 1)).tolist() for number in range(random.integers(1, 40))
            ]
            stream.follow(
                chunk(*rows, dt_s=0.02), now_ns - int(random.integers(0, 30)) * MS, 0, now_ns, here(*sent[-1])
            )
        if random.random() < 0.7:
            row = stream.tick(now_ns)
            sent += [] if row is None else [row]
        now_ns += PERIOD_NS
        if random.random() < 0.08:
            now_ns += int(random.integers(1, 700)) * MS
    steps = np.abs(np.diff(sent, axis=0))
    assert len(sent) > 50
    assert (steps <= limit * PERIOD_NS * 1e-9 + 1e-6).all()


def test_what_was_missed_is_made_up_for_at_the_limit_of_speed_before_the_stream_ends() -> None:
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.limit(np.array([1.0]))
    stream.follow(ramp(0, 1.0, rows=10), 0, 0, 0, here(0.0))
    ticked(stream, 0, 110 * MS)
    sent = [row for _, row in ticked(stream, 190 * MS, 800 * MS)]  # eight ticks late
    assert np.diff(sent, axis=0).max() <= 0.01 + 1e-9
    np.testing.assert_allclose(sent[-REPEATS:], [[0.2]] * REPEATS, rtol=1e-6)
    assert sent[0][0] < 0.12
    assert stream.silent


def test_a_clock_that_goes_in_steps_of_its_own_moves_the_setpoint_as_far_as_it_goes() -> None:
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.limit(np.array([1.0]))
    stream.follow(ramp(0, 0.9), 0, 0, 0, here(0.0))
    for now_ms in range(0, 1000, 50):  # a simulator's, that is heard twenty times a second
        for _ in range(5):
            row = stream.tick(now_ms * MS, paced=False)
    assert row == pytest.approx([0.95 * 0.9], abs=1e-6)
    assert stream.stalls == 0


def test_a_rate_below_that_of_a_standstill_moves_the_robot() -> None:
    stream = SetpointStream(1, velocities=False, period_ns=500 * MS)
    stream.follow(chunk([0.1], [0.2], [0.3], [0.4], dt_s=0.5), 0, 0, 0, here(0.0))
    sent = [stream.tick(now_ms * MS) for now_ms in range(0, 2500, 500)]
    np.testing.assert_allclose(
        [row for row in sent if row is not None], [[0.0], [0.1], [0.2], [0.3], [0.4]], atol=1e-6
    )
    assert stream.stalls == 0


def test_what_ends_a_start_before_its_first_tick_sends_nothing_of_before_the_pause() -> None:
    stream = running(0.0)
    ticked(stream, 10 * MS, 100 * MS)
    stream.follow(chunk([0.5]), 2000 * MS, 0, 2000 * MS, here(0.2))
    assert stream.stop() == []


@pytest.mark.parametrize("pause_ms", [600, 60_000])
def test_after_a_pause_it_starts_where_it_is_measured_and_is_silent_while_it_is_not(pause_ms: int) -> None:
    stream = running(0.0)
    ticked(stream, 10 * MS, 100 * MS)
    now_ns = 100 * MS + pause_ms * MS
    with pytest.raises(UnmeasuredError, match="needs a measurement of where it is"):
        stream.follow(chunk([0.5], [0.6]), now_ns, 0, now_ns, None)
    assert (stream.silent, stream.unmeasured_starts) == (True, 1)
    assert ticked(stream, now_ns, now_ns + 50 * MS) == []
    stream.follow(chunk([0.5], [0.6]), now_ns, 0, now_ns + 50 * MS, here(0.4))
    assert stream.tick(now_ns + 50 * MS) == pytest.approx([0.4])
    assert stream.unmeasured_starts == 1


def test_after_others_may_have_commanded_it_it_is_silent_until_it_is_measured() -> None:
    stream = running(0.0)
    stream.forget()
    with pytest.raises(UnmeasuredError):
        stream.follow(chunk([0.5]), 20 * MS, 0, 20 * MS, None)
    assert stream.stop() == []


def test_a_measurement_that_is_no_number_is_none() -> None:
    stream = running(0.0)
    with pytest.raises(UnmeasuredError):
        stream.follow(chunk([0.1]), 5_000 * MS, 0, 5_000 * MS, here(np.nan))
    assert ticked(stream, 5_000 * MS, 5_100 * MS) == []


def test_what_was_never_measured_starts_again_at_the_first_row_and_not_where_it_was_commanded() -> None:
    stream = SetpointStream(1, velocities=False, period_ns=PERIOD_NS)
    stream.follow(chunk([0.1]), 0, 0, 0, None)
    ticked(stream, 0, 200 * MS)
    stream.follow(chunk([0.5], [0.6]), 2000 * MS, 0, 2000 * MS, None)
    assert stream.tick(2000 * MS) == pytest.approx([0.5])


def test_without_a_measurement_rows_go_on_where_it_was_commanded_a_moment_ago() -> None:
    stream = running(0.0)
    ticked(stream, 10 * MS, 100 * MS)
    stream.follow(chunk([0.5]), 300 * MS, 0, 300 * MS, None)
    assert stream.tick(300 * MS) == pytest.approx([0.0])
