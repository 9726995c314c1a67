# SPDX-License-Identifier: Apache-2.0
"""Judge where a motion of the joints leads tool and bodies, between its rows as well. numpy alone; no repair.

The motion is cubic between two knots; its velocities at the knots lie between two given ones. It is sampled every SAMPLE_S or
closer, and what may happen between two samples is bounded. With w the reach beyond each joint, so that |J_j| <= w_j, and S the
speeds of the turning joints together, the tool's

    |p''|  <= w.|q''| + S w.|q'|
    |p'''| <= w.|q'''| + 3 S w.|q''| + S^2 w.|q'|

as a second derivative of p by two joints is at most the smaller reach. A joint that slides turns nothing and counts several times in
what S multiplies, as its slide on what turns bends the way in any order of the two. Between two samples d apart a place is within d^2 / 8 |p''|
of the straight line, and a velocity within d^2 / 8 |p'''|. A gap between two bodies shrinks no faster than the joints between them
move the one or the other; and it is the least of lengths l between points of them, with |l''| <= |r''| + |r'|^2 / l where it bends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.kinematics.capsules import distances, ends_of
from reflex_core.robot.limits.tool_limits import BOX, COLLISION, PLANE, SPEED, ToolLimits
from reflex_core.robot.limits.tool_reach import Reaches

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

SAMPLE_S = 0.0125
MOST_SAMPLES = 8  # of one way
STEP_S = 1e-6  # by which a pose is moved on for its velocity: rounding of 1e-16 m is 1e-10 m/s then
FINER = 4  # times more samples where it takes them to tell whether a motion near a limit leads inside
MARGIN_M = 0.001  # inside the limits of place: a motion may begin to bend away there
AT_REST_M = 1e-7  # what is nearer is no further: rows are float32
TOUCHING_M = 1e-6  # inside: what is nearer to a limit counts as outside
OUTWARD_M = 1e-4  # so far further out a motion may bend that begins outside and leads back
AXES = ("x", "y", "z")


@dataclass(frozen=True, slots=True)
class Course:
    """A motion through knots. positions: (n + 1, d), rad or m. seconds: (n,) between two of them.

    low, high: (n + 1, d) between which the velocities at the knots lie. held: (n, d) where the robot comes to rest if it is held
    on each way.
    """

    positions: Doubles
    seconds: Doubles
    low: Doubles
    high: Doubles
    held: Doubles


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a motion breaks. hurry: (n,) the tool's greatest speed on each way, in times its limit.

    leaves: the first way on which a limit of place is broken, n where none is. lines, kinds: one line for each limit, their labels.
    """

    hurry: Doubles
    leaves: int
    lines: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Nothing is broken."""
        return not self.kinds


@dataclass(frozen=True, slots=True)
class _Curve:
    """Samples of a motion, `per_way` of each way and the last knot: q, speeds (s, d); doubt, speed_doubt: how far they may be off.

    most: (3, n, d) first, second and third derivative on each way at most. step_s: (n,) between two samples.
    """

    q: Doubles
    speeds: Doubles
    doubt: Doubles
    speed_doubt: Doubles
    most: Doubles
    per_way: int
    step_s: Doubles


@dataclass(frozen=True, slots=True)
class _Beyond:
    """How far a motion is beyond some limits of place, in m, negative inside.

    samples: (c, s). between: (c, s - 1), at most until the next sample, both included. held: (c, n), where it is held on a way.
    texts: (c,), make the line of each from how far beyond it is.
    """

    samples: Doubles
    between: Doubles
    held: Doubles
    kinds: list[str]
    texts: list[Callable[[float], str]]


class ToolJudge:
    """The limits of one robot's tool and bodies as one call. Holds no state: thread-safe."""

    def __init__(self, limits: ToolLimits) -> None:
        """Take limits; what is not limited costs nothing."""
        self.limits = limits
        known, rules = limits.kinematics, limits.rules
        self._reaches = Reaches(known, limits.furthest)
        self._faces = [
            (axis, sign, bound)
            for sign, corner in ((-1.0, rules.box_min), (1.0, rules.box_max))
            for axis, bound in enumerate(corner.tolist())
            if np.isfinite(bound)
        ]
        self._pairs = known.pairs if limits.checks_bodies else ()
        self._at_planes = self._reaches.moving if rules.planes else []
        self._radii = np.array([one.radius_m for one in known.capsules])
        # (p, 1) m that the surfaces of a pair are nearer than its axes
        self._thick = np.array([self._radii[list(pair)].sum() for pair in self._pairs]).reshape(-1, 1)
        self.moving = np.vstack([self._reaches.tool, self._reaches.capsules]).max(axis=0) > 0.0

    def __call__(self, course: Course, margin_m: float = MARGIN_M) -> Verdict:
        """Judge a motion. margin_m: how far inside the limits of place it must stay."""
        per_way = min(max(math.ceil(float(course.seconds.max()) / SAMPLE_S), 1), MOST_SAMPLES)
        found, unsure = self._judged(course, margin_m, 1)  # most motions are far enough from every limit
        if not found.clean and per_way > 1:
            found, unsure = self._judged(course, margin_m, per_way)
        return self._judged(course, margin_m, FINER * per_way)[0] if unsure else found

    def _judged(self, course: Course, margin_m: float, per_way: int) -> tuple[Verdict, bool]:
        """Return what these samples show, and whether more of them may show that a limit of place is kept after all."""
        known, curve = self.limits.kinematics, _sampled(course, per_way)
        count = len(curve.q)
        q = np.concatenate([curve.q, course.held, (course.held + course.positions[1:]) / 2.0])
        bodies = bool(self._pairs or self._at_planes)
        links = (known.tree if bodies else self._reaches.tool_tree).poses(q)
        moved = self._reaches.tool_tree.poses(curve.q + STEP_S * curve.speeds)[0]
        lines: list[str] = []
        hurry = self._hurry(links[0, :count], moved, curve, lines)
        kinds = [SPEED] if lines else []
        ends = ends_of(known.capsules, known.tree.links, links) if bodies else np.zeros((2, 0, len(q), 3))
        leaves, unsure = len(course.seconds), False
        for beyond in self._beyond(links[0, :, :3, 3], ends[0], ends[1], curve):
            first, in_doubt = _first_broken(beyond, per_way, margin_m, lines, kinds)
            leaves, unsure = min(leaves, first), unsure or in_doubt
        return Verdict(hurry, leaves, tuple(lines), tuple(kinds)), unsure

    def _hurry(self, here: Doubles, moved: Doubles, curve: _Curve, lines: list[str]) -> Doubles:
        name, rules = self.limits.kinematics.tool, self.limits.rules
        found = np.zeros(len(curve.step_s))
        for what, limit, unit, reach in (
            ("speed", rules.speed_max, "m/s", self._reaches.tool),
            ("turning", rules.turning_max, "rad/s", self._reaches.turning),
        ):
            if not np.isfinite(limit):
                continue
            if what == "speed":
                speeds = np.linalg.norm(moved[:, :3, 3] - here[:, :3, 3], axis=1) / STEP_S
            else:  # the columns of a frame turn by w x e: the squares add up to 2 |w|^2
                speeds = np.linalg.norm(moved[:, :3, :3] - here[:, :3, :3], axis=(1, 2)) / STEP_S / 2.0**0.5
            fastest = self._fastest(speeds, reach, curve)
            found = np.maximum(found, fastest / limit)
            if not fastest.max() <= limit:  # nor where it is no number
                lines.append(f"{name} {what}: {fastest.max():.6g} > {limit:.6g} {unit}")
        return found

    def _fastest(self, speeds: Doubles, reach: Doubles, curve: _Curve) -> Doubles:
        """Return (n,) the greatest speed on each way. speeds: (s,) at the samples."""
        turning, bends = self._reaches.turning, self._reaches.bends
        at_most = np.abs(curve.speeds) + curve.speed_doubt
        off = curve.speed_doubt @ reach + (at_most @ turning) * (curve.doubt @ reach)
        off += (curve.doubt @ turning) * (at_most @ (reach * self._reaches.slides))
        first, second = curve.most[:2] @ (reach * bends)
        about, more = curve.most[0] @ turning, curve.most[1] @ turning
        bend = curve.most[2] @ reach + 2.0 * about * second + more * first + about * about * first
        fastest: Doubles = _of_ways(speeds + off, curve.per_way) + curve.step_s**2 / 8.0 * bend
        return fastest

    def _beyond(self, points: Doubles, starts: Doubles, stops: Doubles, curve: _Curve) -> list[_Beyond]:
        """Return the limits of place, at the samples and where it is held on each way.

        points: (m, 3) of the tool. starts, stops: (capsules, m, 3) of the bodies.
        """
        known, rules, found = self.limits.kinematics, self.limits.rules, []
        if self._faces:
            far = np.stack([sign * (points[:, axis] - bound) for axis, sign, bound in self._faces])
            reach = np.tile(self._reaches.tool, (len(far), 1))
            found.append(
                self._curved(
                    far, reach, curve, [BOX] * len(far), [self._of_box(*face) for face in self._faces]
                )
            )
        if rules.planes:
            names = [known.tool, *(known.capsules[at].link for at in self._at_planes)]
            reach = np.stack([self._reaches.tool, *(self._reaches.capsules[at] for at in self._at_planes)])
            for number, plane in enumerate(rules.planes):
                ends = np.minimum(
                    starts[self._at_planes] @ plane.normal, stops[self._at_planes] @ plane.normal
                )
                above = np.concatenate(
                    [(points @ plane.normal)[None], ends - self._radii[self._at_planes, None]]
                )
                texts = [_of_plane(name, number, plane.offset_m) for name in names]
                found.append(self._curved(plane.offset_m - above, reach, curve, [PLANE] * len(names), texts))
        if self._pairs:
            gaps = distances(starts, stops, self._radii, self._pairs)
            found.append(self._of_pairs(gaps, curve))
        return found

    def _curved(
        self,
        far: Doubles,
        reach: Doubles,
        curve: _Curve,
        kinds: list[str],
        texts: list[Callable[[float], str]],
    ) -> _Beyond:
        """Return limits of points that are moved along curves. far: (c, m) beyond them. reach: (c, d) of the joints."""
        count = len(curve.q)
        bulge = np.repeat(curve.step_s**2 / 8.0 * self._bend(reach, curve), curve.per_way, axis=1)
        samples = far[:, :count] + reach @ curve.doubt.T
        # most motions need no more than the first
        rough = np.maximum(samples[:, :-1], samples[:, 1:]) + bulge if curve.per_way == 1 else None
        between = _peaks(samples, bulge) if rough is None else rough
        return _Beyond(samples, between, _held(far[:, count:]), kinds, texts)

    def _bend(self, reach: Doubles, curve: _Curve) -> Doubles:
        """Return (c, n) the greatest acceleration of points on each way. reach: (c, d) of the joints."""
        about = curve.most[0] @ self._reaches.turning
        found: Doubles = reach @ curve.most[1].T + ((reach * self._reaches.bends) @ curve.most[0].T) * about
        return found

    def _of_pairs(self, gaps: Doubles, curve: _Curve) -> _Beyond:
        count, least, reach = len(curve.q), self.limits.rules.distance_m or 0.0, self._reaches.pairs
        far = least - gaps
        wide = np.repeat(curve.step_s[:, None] ** 2 / 4.0 * curve.most[1], curve.per_way, axis=0)
        length = reach @ (np.abs(np.diff(curve.q, axis=0)) + wide).T
        samples = far[:, :count] + reach @ curve.doubt.T
        capsules = self.limits.kinematics.capsules
        texts = [_of_pair(capsules[one].link, capsules[other].link, least) for one, other in self._pairs]
        between = (samples[:, :-1] + samples[:, 1:] + length) / 2.0
        kinds = [COLLISION] * len(far)
        if curve.per_way == 1:
            return _Beyond(samples, between, _held(far[:, count:]), kinds, texts)
        axes = self._thick + least - between  # how far the axes of the capsules are apart at least
        speed = np.repeat(reach @ curve.most[0].T, curve.per_way, axis=1)
        bend = np.repeat(self._bend(reach, curve), curve.per_way, axis=1)
        bend += np.where(axes > 0.0, speed**2 / np.where(axes > 0.0, axes, 1.0), np.inf)
        curved = _peaks(samples, np.repeat(curve.step_s**2, curve.per_way) / 8.0 * bend)
        return _Beyond(samples, np.minimum(between, curved), _held(far[:, count:]), kinds, texts)

    def _of_box(self, axis: int, sign: float, bound: float) -> Callable[[float], str]:
        name, word, compared = (
            self.limits.kinematics.tool,
            *(("below min", "<") if sign < 0.0 else ("above max", ">")),
        )
        return lambda far: (
            f"{name} box {AXES[axis]} {word}: {bound + sign * far:.6g} {_than(compared, far)} {bound:.6g} m"
        )


def _of_plane(name: str, number: int, offset_m: float) -> Callable[[float], str]:
    return lambda far: f"{name} at plane {number}: {offset_m - far:.6g} {_than('<', far)} {offset_m:.6g} m"


def _of_pair(one: str, other: str, least_m: float) -> Callable[[float], str]:
    return lambda far: f"{one} and {other} apart: {least_m - far:.6g} {_than('<', far)} {least_m:.6g} m"


def _than(compared: str, far: float) -> str:
    """Return the word between a value and its limit, which it keeps by less than the margin where it is not beyond it."""
    return compared if far > 0.0 else "too near"


def _held(far: Doubles) -> Doubles:
    """Return (c, n) the worse of half the way to where it is held, and there."""
    ends, halves = np.split(far, 2, axis=1)
    return np.maximum(ends, halves)


def _peaks(samples: Doubles, bulge: Doubles) -> Doubles:
    """Return (c, s - 1) the most from one sample (c, s) to the next of what is at most 4 u (1 - u) bulge above the line between them."""
    rise, known = np.diff(samples, axis=1), np.isfinite(bulge)
    curved = np.maximum(
        np.where(known, bulge, 1.0), np.abs(rise) / 4.0
    )  # where it is less, an end is the most, as here
    room = np.where(
        curved > 0.0, (rise + 4.0 * curved) ** 2 / np.where(curved > 0.0, 16.0 * curved, 1.0), 0.0
    )
    return np.where(known, samples[:, :-1] + room, np.inf)


def _first_broken(
    beyond: _Beyond, per_way: int, margin_m: float, lines: list[str], kinds: list[str]
) -> tuple[int, bool]:
    """Return the first way on which one is broken, and say which; and whether one is so between samples alone.

    Inside, a motion stays so by the margin, and by no margin where it only leads further inside. Outside, it may not lead
    further out than it was.
    """
    samples, ways = beyond.samples, beyond.held.shape[1]
    if (beyond.between <= -margin_m).all() and (beyond.held <= -margin_m / 2.0).all():
        return ways, False
    least = np.minimum.accumulate(samples, axis=1)[:, :-1]
    inward: Mask = samples[:, 1:] <= least + AT_REST_M
    allowed = np.where(least > -TOUCHING_M, np.maximum(least, 0.0) + OUTWARD_M, 0.0)
    outward: Mask = np.logical_not((beyond.between <= -margin_m) | (inward & (beyond.between <= allowed)))
    in_doubt = bool((outward & inward).any())
    when_held: Mask = beyond.held > np.maximum(-margin_m / 2.0, least[:, per_way - 1 :: per_way] + AT_REST_M)
    bad: Mask = outward.reshape(len(outward), ways, per_way).any(axis=2) | when_held
    between = beyond.between.reshape(outward.shape[0], ways, per_way).max(axis=2)
    broken = bad.any(axis=1)
    for at in np.flatnonzero(broken).tolist():
        far = max(float(between[at][bad[at]].max()), float(beyond.held[at][bad[at]].max()))
        lines.append(beyond.texts[at](far))
        if beyond.kinds[at] not in kinds:
            kinds.append(beyond.kinds[at])
    return (int(bad[broken].argmax(axis=1).min()) if broken.any() else ways), in_doubt


def _of_ways(at_samples: Doubles, per_way: int) -> Doubles:
    """Return (n,) the greatest of each way's samples, both its knots among them."""
    most: Doubles = np.maximum(at_samples[:-1].reshape(-1, per_way).max(axis=1), at_samples[per_way::per_way])
    return most


def _sampled(course: Course, per_way: int) -> _Curve:
    h = course.seconds[:, None]
    mid, half = (course.low + course.high) / 2.0, (course.high - course.low) / 2.0
    before, after = course.positions[:-1], course.positions[1:]
    begin, end, slope = mid[:-1], mid[1:], (after - before) / h
    u = (np.arange(per_way) / per_way)[:, None, None]
    b, c = u * (1.0 - u) ** 2, u * u * (1.0 - u)
    db, dc = (1.0 - u) * (1.0 - 3.0 * u), u * (3.0 * u - 2.0)
    q = before + h * (u * slope + b * (begin - slope) - c * (end - slope))
    speeds = slope + db * (begin - slope) + dc * (end - slope)
    doubt, speed_doubt = h * (b * half[:-1] + c * half[1:]), np.abs(db) * half[:-1] + np.abs(dc) * half[1:]
    # Bernstein's coefficients of the velocity: a parabola lies in their hull
    first = np.maximum(
        np.maximum(np.abs(begin) + half[:-1], np.abs(end) + half[1:]),
        np.abs(3.0 * slope - begin - end) + half[:-1] + half[1:],
    )
    second = (
        np.maximum(
            np.abs(6.0 * slope - 4.0 * begin - 2.0 * end) + 4.0 * half[:-1] + 2.0 * half[1:],
            np.abs(6.0 * slope - 2.0 * begin - 4.0 * end) + 2.0 * half[:-1] + 4.0 * half[1:],
        )
        / h
    )
    third = (np.abs(12.0 * slope - 6.0 * (begin + end)) + 6.0 * (half[:-1] + half[1:])) / h**2

    def ordered(parts: Doubles, last: Doubles) -> Doubles:
        return np.concatenate([parts.swapaxes(0, 1).reshape(-1, parts.shape[2]), last[None]])

    return _Curve(
        ordered(q, after[-1]), ordered(speeds, end[-1]), ordered(doubt, np.zeros_like(half[-1])), ordered(speed_doubt, half[-1]),
        np.stack([first, second, third]), per_way, course.seconds / per_way,
    )  # fmt: skip
