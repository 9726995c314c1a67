# SPDX-License-Identifier: Apache-2.0
"""Cubic splines through the rows of a chunk: what a trajectory controller executes between them. Pure functions.

The velocities are those of the C2 spline, so that the acceleration has no step at a row. Where it would leave the limits
between two rows, they are those of a monotone interpolation (Fritsch and Butland 1984), which stays between its points. Where
these are too fast, they are the nearest ones that are not, if there are any. There need not be: a way between two
rows that takes the limit all along ends at the limit, and a joint that turns there would have to begin the next one so, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reflex_core.values import Columns, Floats

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]
Times = NDArray[np.int64]

FASTER = 1.01  # times its limit: what counts as kept between two rows
# times the faster of the limit and the way itself, where the limit cannot be kept: a cubic from rest to rest; on the first way
# one that begins at the limit in the other direction, v (1 - u) (1 - 9 u), and ends at rest
AT_A_TURN, AGAINST_THE_BEGIN = 1.5, 16.0 / 9.0
LONGER = 3.0  # times the usual way: one that keeps its velocities
ROUNDING = 1e-9  # times a limit
OUTSIDE = 1e-6  # rad or m: rounding to float32 is not outside a range


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a motion must stay in. All (d,): rad or m, rad/s or m/s, infinite where unknown.

    smooth: the columns that move like joints. Others (a gripper, a velocity, a pose) never overshoot a row and are not faded.
    fade_s: how long a new chunk is faded in, NaN where nothing is said.
    rates: the columns that are velocities themselves, which robot interfaces take from the rows; None: there are none.
    """

    low: Doubles
    high: Doubles
    velocity_max: Doubles
    smooth: Mask
    fade_s: Doubles
    rates: Mask | None = None

    @classmethod
    def unlimited(cls, dim: int) -> Bounds:
        """Return those of `dim` joints of which nothing is known."""
        free = np.full(dim, np.inf)
        return cls(-free, free, free, np.ones(dim, np.bool_), np.full(dim, np.nan))

    def of(self, chosen: Mask) -> Bounds:
        """Return those of some columns."""
        rates = None if self.rates is None else self.rates[chosen]
        return Bounds(
            self.low[chosen], self.high[chosen], self.velocity_max[chosen], self.smooth[chosen], self.fade_s[chosen], rates
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spline:
    """A motion through knots, cubic between two of them.

    times_ns: (n,), increasing, on the robot's clock; the first is when it was published. positions, velocities: (n, d), rad or
    m and per second; the last velocity is 0. anchored: the first knot is where an earlier motion is
    commanded to be then; else the controller has time until the second one.
    """

    times_ns: Times
    positions: Doubles
    velocities: Doubles
    anchored: bool = False

    @property
    def end_ns(self) -> int:
        """When it has come to rest."""
        return int(self.times_ns[-1])

    def at(self, now_ns: int) -> tuple[Doubles, Doubles]:
        """Return (d,) positions and (d,) velocities at a moment; a standstill before the first knot and after the last."""
        place = self.place(now_ns)
        times = self.times_ns
        if now_ns < times[0] or now_ns >= times[-1]:
            return place, np.zeros(len(place))
        i = int(np.searchsorted(times, now_ns, side="right")) - 1
        h = float(times[i + 1] - times[i]) * 1e-9
        u = float(now_ns - times[i]) * 1e-9 / h
        p, v = self.positions[i : i + 2], self.velocities[i : i + 2]
        velocity = (6.0 * u * (1.0 - u) / h) * (p[1] - p[0])
        velocity += (1.0 - u) * (1.0 - 3.0 * u) * v[0] + u * (3.0 * u - 2.0) * v[1]
        return place, velocity

    def place(self, now_ns: int) -> Doubles:
        """Return (d,) positions at a moment: `sampled`, for who needs only one."""
        times = self.times_ns
        if now_ns < times[0] or now_ns >= times[-1]:
            end: Doubles = self.positions[0 if now_ns < times[0] else -1]
            return end.copy()
        i = int(times.searchsorted(now_ns, side="right")) - 1
        h = float(times[i + 1] - times[i]) * 1e-9
        u = float(now_ns - times[i]) * 1e-9 / h
        left = 1.0 - u
        place: Doubles = (1.0 + 2.0 * u) * (left * left) * self.positions[i]
        place += u * u * (3.0 - 2.0 * u) * self.positions[i + 1]
        place += h * u * (left * left) * self.velocities[i]
        place -= h * u * u * left * self.velocities[i + 1]
        return place

    def sampled(self, times_ns: Times) -> Doubles:
        """Return (m, d) positions at `times_ns` (m,); constant before the first knot and after the last."""
        times, positions = self.times_ns, self.positions
        if len(times) == 1:
            return np.repeat(positions, len(times_ns), axis=0)
        i = np.minimum(np.maximum(np.searchsorted(times, times_ns, side="right") - 1, 0), len(times) - 2)
        h = ((times[i + 1] - times[i]) * 1e-9)[:, None]
        u = np.minimum(np.maximum((times_ns - times[i]) * 1e-9 / h[:, 0], 0.0), 1.0)[:, None]
        away: Doubles = (
            (1.0 + 2.0 * u) * (1.0 - u) ** 2 * positions[i]
            + u * u * (3.0 - 2.0 * u) * positions[i + 1]
            + h * u * (1.0 - u) ** 2 * self.velocities[i]
            - h * u * u * (1.0 - u) * self.velocities[i + 1]
        )
        return away

    def with_knot(self, moment_ns: int) -> Spline:
        """Return the same motion with a knot at that moment; itself where the first way ends by then."""
        if moment_ns >= self.times_ns[1]:
            return self
        position, velocity = self.at(moment_ns)
        return Spline(
            np.insert(self.times_ns, 1, moment_ns),
            np.insert(self.positions, 1, position, axis=0),
            np.insert(self.velocities, 1, velocity, axis=0),
            self.anchored,
        )

    def earlier(self, by_ns: int) -> Spline:
        """Return the same motion so much earlier, for another clock."""
        return Spline(self.times_ns - by_ns, self.positions, self.velocities, self.anchored)

    def of(self, chosen: Columns | slice) -> Spline:
        """Return the motion of some columns."""
        return Spline(self.times_ns, self.positions[:, chosen], self.velocities[:, chosen], self.anchored)


def through(
    times_ns: Times, positions: Doubles, velocity: Doubles, bounds: Bounds, *, anchored: bool = False
) -> Spline:
    """Return the motion that begins with `velocity` (d,), goes through all points and ends at rest.

    A joint at its limit cannot brake within the last period without being faster before: that period is half as long again
    then. The velocities at the points keep the limit. Between the points, a joint that can keep FASTER times the limit all along,
    by whatever velocities at the points, does so unless the nearest such ones leave its range or a way takes LONGER times the
    usual one. Else some ways are faster: at most AT_A_TURN times as fast as the limit, or as the way itself where that is faster,
    on the first way AGAINST_THE_BEGIN times.
    Columns that are not smooth stay monotone: no overshoot, at most these factors.

    Args:
        times_ns: (n,), increasing.
        positions: (n, d), rad or m.
        velocity: (d,), of the first point.
        bounds: Limits between the points; the points themselves are the caller's.
        anchored: As in Spline.
    """
    if len(times_ns) == 1:
        return Spline(times_ns, positions, np.zeros_like(positions), anchored)
    velocities, hurries = _velocities(times_ns, positions, velocity, bounds)
    if hurries:
        times_ns = times_ns.copy()
        times_ns[-1] += (times_ns[-1] - times_ns[-2]) // 2
        velocities, _ = _velocities(times_ns, positions, velocity, bounds)
    return Spline(times_ns, positions, _kept(times_ns, positions, velocities, bounds), anchored)


def fade(rows: Floats, due_ns: Times, old: Spline, now_ns: int, fade_s: Doubles) -> Floats:
    """Return the rows led over from the old motion within `fade_s` from now; `rows` itself where both agree.

    A row keeps s^2 (3 - 2 s) of the old motion, s being what is left of the fade when it is due. The last
    row is the new chunk's own, however soon it is due: chunks of a few rows would else lead the robot nowhere.

    Args:
        rows: (n, d) of the new chunk.
        due_ns: (n,), when they are due, on the clock of `old`.
        old: What is executed now.
        now_ns: When the new rows take over.
        fade_s: (d,), 0 for columns that are not faded.
    """
    fade_s = np.minimum(fade_s, max(int(due_ns[-1]) - now_ns, 0) * 1e-9)
    longest_ns = int(fade_s.max(initial=0.0) * 1e9)
    count = int(np.searchsorted(due_ns, now_ns + longest_ns))
    if count == 0:
        return rows
    since_s = (due_ns[:count, None] - now_ns) * 1e-9
    left = np.where(fade_s > 0.0, 1.0 - since_s / np.where(fade_s > 0.0, fade_s, 1.0), 0.0)
    left = np.minimum(np.maximum(left, 0.0), 1.0)
    away = np.where(left > 0.0, old.sampled(due_ns[:count]) - rows[:count], 0.0)
    if not away.any():
        return rows
    faded = rows.copy()
    faded[:count] = rows[:count] + away * (left * left * (3.0 - 2.0 * left))
    return faded


def _velocities(
    times_ns: Times, positions: Doubles, velocity: Doubles, bounds: Bounds
) -> tuple[Doubles, bool]:
    """Return (n, d) velocities, and whether a joint is too fast in the last period because it has to brake there."""
    h = np.diff(times_ns) * 1e-9
    secants = np.diff(positions, axis=0) / h[:, None]
    most = bounds.velocity_max
    begin = np.minimum(np.maximum(velocity, -most), most)
    safe = np.minimum(np.maximum(monotone(secants, begin), -most), most)
    velocities = np.where(bounds.smooth, continuous(h, secants, begin), safe)
    velocities = np.minimum(np.maximum(velocities, -most), most)
    replaced = np.zeros(velocities.shape, np.bool_)
    while True:
        fast = peaks(secants, velocities) > most * FASTER
        broken = fast | leaving(h, positions, secants, velocities, bounds)
        new = np.zeros(velocities.shape, np.bool_)
        new[1:-1] = (broken[1:] | broken[:-1]) & ~replaced[1:-1]
        if not new.any():
            break
        velocities, replaced = np.where(new, safe, velocities), replaced | new
    if broken[0].any():  # the range counts more than a smooth beginning
        inside = np.where(begin * secants[0] > 0.0, np.sign(begin) * np.minimum(np.abs(begin), 3.0 * np.abs(secants[0])), 0.0)  # fmt: skip
        leaves = leaving(h[:1], positions[:2], secants[:1], velocities[:2], bounds)[0]
        velocities[0] = np.where(leaves, inside, velocities[0])
    return velocities, bool((fast[-1] & (np.abs(secants[-1]) <= most * FASTER)).any())


def _kept(times_ns: Times, positions: Doubles, velocities: Doubles, bounds: Bounds) -> Doubles:
    """Return (n, d) velocities that keep the limit of speed, the nearest ones; `velocities` itself where it is kept already.

    A way that cannot keep it, or not inside the range, keeps both its velocities, and the others are chosen anew beside them. So
    does a way that takes much longer than the others, as to the first row: it would lead far beside the straight line, by which
    the guard counts.
    """
    h = np.diff(times_ns) * 1e-9
    secants = np.diff(positions, axis=0) / h[:, None]
    fast = (peaks(secants, velocities) > bounds.velocity_max * FASTER).any(axis=0) & bounds.smooth
    if not fast.any():
        return velocities
    positions, secants, given = positions[:, fast], secants[:, fast], velocities[:, fast]
    inside = bounds.of(fast)
    fixed = np.zeros(given.shape, np.bool_)
    long = h > LONGER * np.median(h)
    fixed[:-1] = long[:, None]
    fixed[1:] |= long[:, None]
    fixed[[0, -1]] = True
    while True:
        found, lost = _nearest(secants, given, fixed, inside.velocity_max)
        lost |= leaving(h, positions, secants, found, inside)
        ends = np.zeros(fixed.shape, np.bool_)
        ends[:-1] = lost
        ends[1:] |= lost
        if not (ends & ~fixed).any():
            break
        fixed |= ends
    kept = velocities.copy()
    kept[:, fast] = found
    return kept


def _nearest(secants: Doubles, given: Doubles, fixed: Mask, most: Doubles) -> tuple[Doubles, Mask]:
    """Return (n, d) velocities as near to the given ones as lets every way keep the limit, and (n - 1, d) which cannot.

    Backwards: from which velocities at a point the limit can be kept to the end. Forwards: the nearest of them.
    """
    limit, sense = most * FASTER, np.where(secants < 0.0, -1.0, 1.0)
    means = limit - np.abs(secants)
    low, high = np.where(fixed, given, -most), np.where(fixed, given, most)
    lost = np.zeros(secants.shape, np.bool_)
    hurried = (3.0 * means < 2.0 * limit).any(axis=1)  # no ends within the limit make another way too fast
    for i in np.flatnonzero(hurried)[::-1].tolist():
        least, greatest, lost[i] = _other_end(sense[i], means[i], low[i + 1], high[i + 1], limit)
        least, greatest = np.maximum(least, low[i]), np.minimum(greatest, high[i])
        lost[i] |= least > greatest
        low[i], high[i] = np.where(lost[i], low[i], least), np.where(lost[i], high[i], greatest)
    found = np.minimum(np.maximum(given, low), high)
    for i in np.flatnonzero(hurried).tolist():
        least, greatest, _ = _other_end(sense[i], means[i], found[i], found[i], limit)
        least, greatest = np.where(lost[i], -most, least), np.where(lost[i], most, greatest)
        nearest = np.minimum(np.maximum(given[i + 1], least), greatest)
        found[i + 1] = np.minimum(np.maximum(nearest, low[i + 1]), high[i + 1])
    return found, lost


def _other_end(
    sense: Doubles, mean: Doubles, low: Doubles, high: Doubles, limit: Doubles
) -> tuple[Doubles, Doubles, Mask]:
    """Return from (d,) to (d,) velocities at one end of a way suit some between `low` and `high` at its other; (d,) if none do.

    sense: (d,) 1 or -1, the direction of the way. mean: (d,) limit - |secant|.

    What the speed leaves of the limit, L - v, is a parabola with this mean. With A and B at its ends it is nowhere below 0 if
    and only if A + B - sqrt(A B) <= 3 mean (its middle Bernstein coefficient is at least -sqrt(A B)). Ends that are no faster
    than L then keep the limit in the other direction as well.
    """
    ends = limit - sense * low, limit - sense * high
    near, far = np.minimum(*ends), np.minimum(np.maximum(*ends), 4.0 * mean)
    none: Mask = near > far + ROUNDING * limit
    best = np.maximum(np.minimum(np.maximum(mean, near), far), 0.0)
    most_left = (np.sqrt(best) + np.sqrt(np.maximum(12.0 * mean - 3.0 * best, 0.0))) / 2.0
    least_left = np.sqrt(near) - np.sqrt(np.maximum(12.0 * mean - 3.0 * near, 0.0))
    least_left = np.where(near > 3.0 * mean, np.maximum(least_left, 0.0) / 2.0, 0.0)
    slow, fast = sense * (limit - most_left**2), sense * (limit - least_left**2)
    return np.minimum(slow, fast), np.maximum(slow, fast), none


def continuous(h: Doubles, secants: Doubles, first: Doubles) -> Doubles:
    """Return (n, d) velocities of the C2 spline with `first` (d,) at its beginning and 0 at its end.

    h: (n - 1,) seconds; secants: (n - 1, d). The matrix is tridiagonal and the same for every column: Thomas algorithm.
    """
    per_s = (1.0 / h).tolist()
    slopes = 3.0 * secants / h[:, None]
    upper = 0.0
    pivots: list[float] = []
    factors: list[float] = []
    for before, after in pairwise(per_s):
        pivots.append(2.0 * (before + after) - before * upper)
        upper = after / pivots[-1]
        factors.append(upper)
    velocities = np.zeros((len(h) + 1, secants.shape[1]))
    velocities[0] = first
    # a row of a few joints costs numpy more than its numbers cost Python; the operations and their bits are the same
    columns = zip(velocities[0].tolist(), (slopes[:-1] + slopes[1:]).T.tolist(), strict=True)
    solved = [_solved(right, begin, per_s, pivots, factors) for begin, right in columns]
    velocities[1:-1] = np.array(solved).T.reshape(len(factors), len(solved))
    return velocities


def _solved(
    right: list[float], begin: float, per_s: list[float], pivots: list[float], factors: list[float]
) -> list[float]:
    """Return (n - 2,) of one column between its first and its last velocity: forwards, and back from the end, where it is 0."""
    value, found = begin, []
    for wanted, before, pivot in zip(right, per_s, pivots, strict=False):
        value = (wanted - before * value) / pivot
        found.append(value)
    after = 0.0
    for row in range(len(found) - 1, -1, -1):
        after = found[row] = found[row] - factors[row] * after
    return found


def monotone(secants: Doubles, first: Doubles) -> Doubles:
    """Return (n, d) velocities that overshoot no point: 0 at a turn, else the harmonic mean of both secants."""
    velocities = np.zeros((len(secants) + 1, secants.shape[1]))
    velocities[0] = first
    before, after = secants[:-1], secants[1:]
    same = before * after > 0.0
    velocities[1:-1] = np.where(same, 2.0 * before * after / np.where(same, before + after, 1.0), 0.0)
    return velocities


def peaks(secants: Doubles, velocities: Doubles) -> Doubles:
    """Return (n - 1, d) the greatest speed between every two points: of a parabola, at its ends or its vertex."""
    begin, end = velocities[:-1], velocities[1:]
    linear = 6.0 * secants - 4.0 * begin - 2.0 * end
    square = 3.0 * (begin + end) - 6.0 * secants
    vertex = np.where(square != 0.0, -linear / np.where(square != 0.0, 2.0 * square, 1.0), 0.0)
    vertex = np.minimum(np.maximum(vertex, 0.0), 1.0)
    peak: Doubles = np.abs(begin + vertex * (linear + vertex * square))
    return np.maximum(np.maximum(np.abs(begin), np.abs(end)), peak)


def leaving(h: Doubles, positions: Doubles, secants: Doubles, velocities: Doubles, bounds: Bounds) -> Mask:
    """Return (n - 1, d) where the range is left between two points that are inside it."""
    before, after = positions[:-1], positions[1:]
    begin, end, step = velocities[:-1], velocities[1:], h[:, None]
    reach = 4.0 / 27.0 * step * (np.abs(begin) + np.abs(end))  # no cubic goes further beyond both its points
    least, most = np.minimum(before, after), np.maximum(before, after)
    low, high = np.minimum(bounds.low, least) - OUTSIDE, np.maximum(bounds.high, most) + OUTSIDE
    found: Mask = (least - reach < low) | (most + reach > high)
    if not found.any():
        return found
    linear = 6.0 * secants - 4.0 * begin - 2.0 * end
    square = 3.0 * (begin + end) - 6.0 * secants
    root = np.sqrt(np.maximum(linear * linear - 4.0 * square * begin, 0.0))
    outside = np.zeros(found.shape, np.bool_)
    # q is never 0 where there is a turn: both roots without a difference of like numbers
    q = -0.5 * (linear + np.where(linear >= 0.0, root, -root))
    for over, under in ((q, square), (begin, q)):
        u = np.minimum(np.maximum(over / np.where(under != 0.0, under, np.inf), 0.0), 1.0)
        there = before + step * u * (begin + u * (linear / 2.0 + u * square / 3.0))
        outside |= (there < low) | (there > high)
    return found & outside
