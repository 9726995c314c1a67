# SPDX-License-Identifier: Apache-2.0
"""Splines through rows: hand-made vectors, and that no limit is left between two rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from reflex_core.chunks.interpolation import (
    AGAINST_THE_BEGIN,
    AT_A_TURN,
    FASTER,
    Bounds,
    Spline,
    fade,
    through,
)

Doubles = NDArray[np.float64]
MS = 1_000_000


def bounds(
    low: float = -np.inf, high: float = np.inf, most: float = np.inf, dim: int = 1, *, smooth: bool = True
) -> Bounds:
    ends = np.full(dim, low), np.full(dim, high)
    return Bounds(*ends, np.full(dim, most), np.full(dim, smooth), np.full(dim, np.nan))


def column(*values: float) -> Doubles:
    return np.array(values, np.float64)[:, None]


def times(*ms: float) -> NDArray[np.int64]:
    return np.array([value * MS for value in ms], np.int64)


def motion(spline: Spline, step_ms: float = 0.25) -> tuple[Doubles, Doubles]:
    """Positions at a fine grid, and the speed between its points."""
    grid = np.arange(spline.times_ns[0], spline.end_ns + 1, int(step_ms * MS))
    positions = spline.sampled(grid)
    return positions, np.diff(positions, axis=0) / (step_ms * 1e-3)


def test_a_spline_between_two_points_is_the_cubic_with_both_velocities() -> None:
    spline = through(times(0, 1000), column(0.0, 1.0), np.array([0.0]), bounds())
    position, velocity = spline.at(250 * MS)
    assert position[0] == pytest.approx(3 * 0.25**2 - 2 * 0.25**3, abs=1e-12)
    assert velocity[0] == pytest.approx(6 * 0.25 - 6 * 0.25**2, abs=1e-12)


def test_the_velocities_of_three_points_by_hand() -> None:
    """Unit periods, 0, 1, 3 from rest to rest: 0 + 4 v + 0 = 3 (3 - 0), so that v = 9/4."""
    spline = through(times(0, 1000, 2000), column(0.0, 1.0, 3.0), np.array([0.0]), bounds())
    assert spline.velocities[:, 0] == pytest.approx([0.0, 2.25, 0.0], abs=1e-12)


def test_the_velocities_of_uneven_periods_by_hand() -> None:
    """h = 0.5, 1; p = 0, 1, 2; v0 = 2: 2/0.5... : 2 v0 + 2 (2 + 1) v1 = 3 (2 * 2 + 1 * 1) with the slopes 2 and 1."""
    spline = through(times(0, 500, 1500), column(0.0, 1.0, 2.0), np.array([2.0]), bounds())
    assert spline.velocities[1, 0] == pytest.approx((15.0 - 4.0) / 6.0, abs=1e-12)


def test_the_acceleration_has_no_step_at_a_row() -> None:
    rows = np.random.default_rng(3).normal(0.0, 0.02, (20, 3)).cumsum(axis=0)
    stamps = np.cumsum(np.random.default_rng(4).integers(20, 80, 20)) * MS
    spline = through(stamps, rows, np.array([0.1, 0.0, -0.1]), bounds(dim=3))
    h, v = np.diff(stamps)[:, None] * 1e-9, spline.velocities
    secants = np.diff(rows, axis=0) / h
    ending = (2 * v[:-1] + 4 * v[1:] - 6 * secants) / h
    beginning = (6 * secants - 4 * v[:-1] - 2 * v[1:]) / h
    assert ending[:-1] == pytest.approx(beginning[1:], abs=1e-9)
    assert (v[0] == [0.1, 0.0, -0.1]).all()
    assert (v[-1] == 0.0).all()


def test_constant_deceleration_is_reproduced_exactly() -> None:
    """1 rad/s braked with 10 rad/s^2 over 0.1 s: 0.0375 rad after half of it, 0.05 at the end."""
    spline = through(times(0, 50, 100), column(0.0, 0.0375, 0.05), np.array([1.0]), bounds())
    assert spline.velocities[:, 0] == pytest.approx([1.0, 0.5, 0.0], abs=1e-12)
    assert spline.at(20 * MS)[1][0] == pytest.approx(0.8, abs=1e-9)


def test_a_motion_stands_still_before_it_begins_and_after_its_end() -> None:
    spline = through(times(1000, 1050), column(0.2, 0.3), np.array([1.0]), bounds())
    for moment, place in ((900, 0.2), (1050, 0.3), (9000, 0.3)):
        position, velocity = spline.at(moment * MS)
        assert (position[0], velocity[0]) == (place, 0.0)


def test_one_point_is_a_standstill() -> None:
    spline = through(times(1000), column(0.2), np.array([1.0]), bounds())
    assert spline.velocities.tolist() == [[0.0]]
    assert spline.sampled(times(0, 2000)).tolist() == [[0.2], [0.2]]


def test_where_the_spline_would_leave_the_range_it_does_not() -> None:
    """A step to the upper limit: the C2 spline overshoots it by a tenth of the step."""
    rows = column(0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.9)
    stamps = times(*(50 * i for i in range(7)))
    free, _ = motion(through(stamps, rows, np.array([0.0]), bounds()))
    kept, _ = motion(through(stamps, rows, np.array([0.0]), bounds(0.0, 1.0)))
    assert free.max() > 1.05
    assert kept.max() <= 1.0 + 1e-6
    assert kept.min() >= -1e-6


def test_the_range_counts_more_than_the_velocity_that_is_given() -> None:
    rows = column(0.99, 1.0, 1.0)
    kept, _ = motion(through(times(0, 50, 100), rows, np.array([2.0]), bounds(0.0, 1.0)))
    assert kept.max() <= 1.0 + 1e-6


def test_a_row_outside_the_range_is_the_callers() -> None:
    spline = through(times(0, 50, 100), column(1.2, 1.1, 1.0), np.array([0.0]), bounds(0.0, 1.0))
    assert spline.positions[:, 0].tolist() == [1.2, 1.1, 1.0]


def test_no_velocity_is_above_the_limit_and_the_last_period_is_longer_where_a_fast_joint_must_brake_in_it() -> (
    None
):
    """Rows at the very limit to the end."""
    rows = column(*(0.1 * i for i in range(10)))
    spline = through(times(*(50 * i for i in range(10))), rows, np.array([2.0]), bounds(most=2.0))
    _, speed = motion(spline)
    assert np.abs(spline.velocities).max() <= 2.0
    assert np.abs(speed).max() <= 2.0 * FASTER
    assert spline.end_ns == 475 * MS


@pytest.mark.parametrize("seed", range(20))
def test_random_rows_at_their_limits_never_leave_them(seed: int) -> None:
    chance = np.random.default_rng(seed)
    steps = chance.uniform(-0.1, 0.1, (40, 4)).round(int(chance.integers(1, 3)))
    rows = np.clip(steps.cumsum(axis=0), -0.4, 0.4)
    velocity = (rows[1] - rows[0]) / 0.05
    spline = through(times(*(50 * i for i in range(40))), rows, velocity, bounds(-0.4, 0.4, 2.0, dim=4))
    positions, speed = motion(spline, 1.0)
    assert np.abs(positions).max() <= 0.4 + 1e-6
    assert np.abs(spline.velocities).max() <= 2.0
    assert np.abs(speed).max() <= AT_A_TURN * 2.0 + 1e-6, "a cubic from rest to rest within one period"
    assert np.isfinite(spline.velocities).all()


def led(secants: Doubles, periods_ms: Doubles, velocity: Doubles, limits: Bounds) -> Spline:
    """Through rows that are reached by these speeds, (n, d) rad/s, one after the other."""
    stamps = times(0, *np.cumsum(periods_ms).tolist())
    ways = secants * (np.diff(stamps) * 1e-9)[:, None]
    return through(
        stamps, np.concatenate([np.zeros((1, ways.shape[1])), ways.cumsum(axis=0)]), velocity, limits
    )


def peaks(spline: Spline) -> Doubles:
    """(n - 1, d) rad/s, the greatest speed on every way, from `at` at 400 moments of it."""
    found = []
    for begin, end in zip(spline.times_ns, spline.times_ns[1:], strict=False):
        moments = np.linspace(begin, end, 401)[:-1].astype(np.int64)
        found.append(np.abs([spline.at(int(moment))[1] for moment in moments]).max(axis=0))
    return np.array(found)


def ways(spline: Spline) -> Doubles:
    """(n - 1, d) rad/s, the mean speed of every way."""
    each: Doubles = np.abs(np.diff(spline.positions, axis=0)) / (np.diff(spline.times_ns) * 1e-9)[:, None]
    return each


@pytest.mark.parametrize("slower", [0.9, 0.5, 0.2, 0.0])
def test_a_joint_that_slows_down_after_some_rows_at_its_limit_keeps_it(slower: float) -> None:
    """With the mean of both ways at the corner it would be up to a third too fast before it."""
    secants = column(1.0, 1.0, 1.0, 1.0, slower, 0.2, 0.1) * 2.0
    spline = led(secants, np.full(7, 50.0), np.array([2.0]), bounds(most=2.0))
    assert peaks(spline).max() <= FASTER * 2.0 + 1e-9
    assert np.abs(spline.velocities).max() <= 2.0


@pytest.mark.parametrize("seed", range(10))
def test_where_any_velocities_keep_the_limit_it_is_kept(seed: int) -> None:
    """Rows of random motions that are cubic between them and no faster than 2 rad/s, often as fast, to the end."""
    chance, most = np.random.default_rng(seed), 2.0
    u = np.linspace(0.0, 1.0, 201)
    secants, at = np.zeros((30, 4)), np.clip(chance.uniform(-1.5, 1.5, 4), -1.0, 1.0)
    begin = at * most
    for i, joint in np.ndindex(secants.shape):
        for attempt in range(1000):
            end = 0.0 if i == 29 else float(np.clip(chance.uniform(-1.5, 1.5), -1.0, 1.0))
            way = float(chance.uniform(-1.0, 1.0)) if attempt else (at[joint] + end) / 2.0
            way = 1.0 if at[joint] == end == 1.0 else way
            speed = at[joint] * (1 - u) * (1 - 3 * u) + end * u * (3 * u - 2) + 6 * way * u * (1 - u)
            if np.abs(speed).max() <= 1.0:
                break
        else:
            raise AssertionError("no way was found")
        secants[i, joint], at[joint] = way * most, end
    spline = led(secants, chance.integers(10, 80, 30).astype(np.float64), begin, bounds(most=most, dim=4))
    assert peaks(spline).max() <= FASTER * most + 1e-9
    assert np.abs(spline.velocities).max() <= most


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_no_rows_make_a_joint_faster_than_the_factors_say(seed: int, smooth: bool) -> None:
    """Random rows, most of them at the limit and many of them turns, some beyond it; uneven periods; any beginning."""
    chance, most = np.random.default_rng(seed), 2.0
    levels = np.array([-1.3, -1.0, -1.0, -0.8, 0.0, 0.8, 1.0, 1.0, 1.3])
    secants = most * np.where(chance.random((40, 4)) < 0.3, chance.uniform(-1, 1, (40, 4)), chance.choice(levels, (40, 4)))  # fmt: skip
    begin = most * chance.choice([-1.0, -0.5, 0.0, 1.0], 4)
    periods_ms = chance.integers(5, 80, 40).astype(np.float64)
    spline = led(secants, periods_ms, begin, bounds(most=most, dim=4, smooth=smooth))
    found, way = peaks(spline), ways(spline)
    factors = found / np.maximum(way, most)
    assert factors[1:].max() <= AT_A_TURN + 1e-9
    assert factors[0].max() <= AGAINST_THE_BEGIN + 1e-9
    assert found[1:][way[1:] <= most / AT_A_TURN].max() <= FASTER * most + 1e-9
    assert np.abs(spline.velocities).max() <= most


def test_rows_that_turn_at_the_limit_are_the_worst_there_are() -> None:
    """A zigzag; the motion begins in the direction of its first way, or against it."""
    secants = 2.0 * np.array([[(-1.0) ** i] for i in range(20)])
    along = peaks(led(secants, np.full(20, 50.0), np.array([2.0]), bounds(most=2.0)))
    against = peaks(led(secants, np.full(20, 50.0), np.array([-2.0]), bounds(most=2.0)))
    assert along[1:].max() == pytest.approx(AT_A_TURN * 2.0, rel=1e-4)
    assert along[0] == pytest.approx(2.0 * 4 / 3, rel=1e-4)
    assert against[1:].max() == pytest.approx(AT_A_TURN * 2.0, rel=1e-4)
    assert against[0] == pytest.approx(AGAINST_THE_BEGIN * 2.0, rel=1e-4)


def test_a_way_much_longer_than_the_others_is_led_no_further_beside_the_straight_line_for_it() -> None:
    """The guard counts in straight lines, and the way to the first row takes a second where the stamps are ahead."""
    limits = replace(Bounds.unlimited(1), velocity_max=np.array([2.0]))
    secants = np.concatenate([[[-1.3]], np.full((10, 1), 2.0)])
    spline = led(secants, np.concatenate([[750.0], np.full(10, 50.0)]), np.array([-0.6]), limits)
    assert spline.velocities[1, 0] == 0.0
    positions, _ = motion(Spline(spline.times_ns[:2], spline.positions[:2], spline.velocities[:2]))
    assert positions.min() >= spline.positions[1, 0] - 1e-9


def test_what_is_within_the_limits_stays_the_c2_spline_to_the_last_bit_beside_a_joint_that_is_too_fast() -> (
    None
):
    smooth = np.sin(np.arange(30) * 0.3)[:, None]
    fast = 2.0 * np.sign(np.sin(np.arange(30) * 0.3 + 0.1))[:, None] * (np.arange(30) < 25)[:, None]
    fast[5:8] *= 0.25
    secants = np.concatenate([smooth, fast, -smooth], axis=1)
    begin = np.array([0.0, 2.0, 0.5])
    free = led(secants, np.full(30, 50.0), begin, bounds(dim=3))
    kept = led(secants, np.full(30, 50.0), begin, bounds(most=2.0, dim=3))
    assert kept.end_ns == free.end_ns
    assert (kept.velocities[:, [0, 2]] == free.velocities[:, [0, 2]]).all()
    assert (kept.velocities[:, 1] != free.velocities[:, 1]).any()


@pytest.mark.parametrize("seed", range(10))
def test_the_range_counts_more_than_the_limit_of_speed(seed: int) -> None:
    """Rows that lead to an end of the range at the limit, and away from it."""
    chance = np.random.default_rng(seed)
    rows = np.clip(chance.choice([-0.1, 0.1, 0.07, 0.1], (40, 4)).cumsum(axis=0), -0.4, 0.4)
    begin = np.clip((rows[1] - rows[0]) / 0.05, -2.0, 2.0)
    spline = through(times(*(50 * i for i in range(40))), rows, begin, bounds(-0.4, 0.4, 2.0, dim=4))
    positions, _ = motion(spline, 1.0)
    assert np.abs(positions).max() <= 0.4 + 1e-6
    assert peaks(spline).max() <= AT_A_TURN * 2.0 + 1e-9


def test_a_gripper_at_its_limit_overshoots_no_row_either() -> None:
    secants = column(1.0, 1.0, 1.0, 0.1, 0.0, -1.0, -1.0, 0.0)
    spline = led(secants, np.full(8, 50.0), np.array([0.0]), bounds(most=1.0, smooth=False))
    positions, _ = motion(spline)
    assert positions.max() <= spline.positions.max() + 1e-12
    assert positions.min() >= spline.positions.min() - 1e-12


def test_a_gripper_never_overshoots_a_row() -> None:
    rows = column(0.04, 0.04, 0.0, 0.0, 0.01, 0.03)
    spline = through(times(*(50 * i for i in range(6))), rows, np.array([0.0]), bounds(smooth=False))
    positions, _ = motion(spline)
    assert positions.max() <= 0.04 + 1e-12
    assert positions.min() >= -1e-12


def test_columns_of_a_motion() -> None:
    spline = through(
        times(0, 50), np.array([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]]), np.zeros(3), bounds(dim=3), anchored=True
    )
    part = spline.of(np.array([2, 0]))
    assert part.positions.tolist() == [[3.0, 1.0], [3.5, 1.5]]
    assert part.anchored
    assert spline.of(slice(0, 2)).velocities.shape == (2, 2)


def old() -> Spline:
    """At 1 rad for ever."""
    return through(times(0), column(1.0), np.array([0.0]), bounds())


def test_a_fade_by_hand() -> None:
    """Old 1, new 0, 0.2 s: after 0, 0.05, 0.1, 0.15 s the old one counts 1, 27/32, 1/2, 5/32; then nothing."""
    rows = np.zeros((6, 1), np.float32)
    faded = fade(rows, times(0, 50, 100, 150, 200, 250), old(), 0, np.array([0.2]))
    assert faded[:, 0].tolist() == [1.0, 27 / 32, 0.5, 5 / 32, 0.0, 0.0]
    assert faded.dtype == np.float32
    assert not rows.any(), "the chunk itself stays"


def test_rows_that_agree_with_the_old_motion_come_back_as_they_are() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (10, 2)).astype(np.float32)
    stamps = times(*(50 * i for i in range(10)))
    running = through(stamps, rows.astype(np.float64), np.zeros(2), bounds(dim=2))
    assert fade(rows, stamps, running, 0, np.full(2, 0.3)) is rows


def test_no_fade_where_none_is_wanted_and_none_of_a_gripper() -> None:
    rows = np.zeros((5, 1), np.float32)
    stamps = times(0, 50, 100, 150, 200)
    assert fade(rows, stamps, old(), 0, np.array([0.0])) is rows
    both = through(times(0), np.array([[1.0, 1.0]]), np.zeros(2), bounds(dim=2))
    faded = fade(np.zeros((5, 2), np.float32), stamps, both, 0, np.array([0.2, 0.0]))
    assert faded.tolist() == [[1.0, 0.0], [27 / 32, 0.0], [0.5, 0.0], [5 / 32, 0.0], [0.0, 0.0]]


def test_the_last_row_of_a_short_chunk_is_its_own_however_soon_it_is_due() -> None:
    faded = fade(np.zeros((2, 1), np.float32), times(25, 50), old(), 0, np.array([0.3]))
    assert faded.tolist() == [[0.5], [0.0]]
