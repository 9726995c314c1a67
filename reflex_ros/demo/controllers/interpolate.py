# SPDX-License-Identifier: Apache-2.0
"""How joint_trajectory_controller gets from one point to the next: per segment, by the fields that both ends have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reflex_ros.demo.controllers.points import Floats, Point, State, Trajectory

S_PER_NS = 1e-9


def between(start_ns: int, start: State, end_ns: int, end: State, at_ns: int) -> State:
    """Return the state at `at_ns`, start_ns <= at_ns < end_ns, of the segment between two states that have positions.

    Positions alone: linear, and no acceleration. With velocities: cubic. With accelerations too: quintic. Accelerations
    without velocities leave every output at 0, as they do in the controller.
    """
    span_s, at_s = (end_ns - start_ns) * S_PER_NS, (at_ns - start_ns) * S_PER_NS
    coefficients = _coefficients(start, end, span_s)
    first = _derivative(coefficients)
    return State(_value(coefficients, at_s), _value(first, at_s), _value(_derivative(first), at_s))


def _coefficients(start: State, end: State, span_s: float) -> Floats:
    """Return the polynomial of each joint, (degree + 1, joints), lowest power first."""
    p0, v0, a0 = start.positions, start.velocities, start.accelerations
    p1, v1, a1 = end.positions, end.velocities, end.accelerations
    assert p0 is not None  # the caller has deduced those that were missing
    assert p1 is not None
    has_accelerations = a0 is not None and a1 is not None
    if v0 is None or v1 is None:
        return np.zeros((2, len(p0))) if has_accelerations else np.stack([p0, (p1 - p0) / span_s])
    moved = p1 - p0
    if a0 is None or a1 is None:
        return np.stack([
            p0,
            v0,
            (3 * moved - (2 * v0 + v1) * span_s) / span_s**2,
            (-2 * moved + (v0 + v1) * span_s) / span_s**3,
        ])  # fmt: skip
    return np.stack([
        p0,
        v0,
        a0 / 2,
        (20 * moved - (12 * v0 + 8 * v1) * span_s - (3 * a0 - a1) * span_s**2) / (2 * span_s**3),
        (-30 * moved + (16 * v0 + 14 * v1) * span_s + (3 * a0 - 2 * a1) * span_s**2) / (2 * span_s**4),
        (12 * moved - 6 * (v0 + v1) * span_s - (a0 - a1) * span_s**2) / (2 * span_s**5),
    ])  # fmt: skip


def _derivative(coefficients: Floats) -> Floats:
    return coefficients[1:] * np.arange(1, len(coefficients))[:, None]


def _value(coefficients: Floats, at_s: float) -> Floats:
    total = np.zeros(coefficients.shape[1])
    for coefficient in coefficients[::-1]:
        total = total * at_s + coefficient
    return total


def deduced(start: State, end: State, span_s: float) -> tuple[State, State]:
    """Return both ends of a segment, the end with the positions and velocities that it lacks (Heun's rule)."""
    if end.positions is not None or start.positions is None:
        return start, end
    zeros = np.zeros(len(start.positions))
    v0 = zeros if start.velocities is None else start.velocities
    start = replace(start, velocities=v0)
    if end.velocities is None:
        a0 = zeros if start.accelerations is None else start.accelerations
        assert end.accelerations is not None  # a point without any field is refused
        start = replace(start, accelerations=a0)
        end = replace(end, velocities=v0 + (a0 + end.accelerations) * (span_s / 2))
    assert end.velocities is not None
    assert start.positions is not None
    return start, replace(end, positions=start.positions + (v0 + end.velocities) * (span_s / 2))


def upsampled(trajectory: Trajectory, policy_frequency_hz: float) -> Trajectory:
    """Return a trajectory of positions with the velocities of the C2 spline through them that rests at both ends.

    Points that all have time 0 are first spread at `policy_frequency_hz`, if that is above 0. Others than trajectories
    of two points or more with nothing but positions, and those whose times do not increase, are returned unchanged.
    """
    points = trajectory.points
    if not _has_positions_only(points):
        return trajectory
    if policy_frequency_hz > 0 and all(point.time_from_start_ns == 0 for point in points):
        points = tuple(
            replace(point, time_from_start_ns=round((index + 1) / policy_frequency_hz * 1e9))
            for index, point in enumerate(points)
        )
    times_s = np.array([point.time_from_start_ns for point in points]) * S_PER_NS
    if len(points) > 1 and (np.diff(times_s) > 0).all():
        positions = np.stack([point.positions for point in points if point.positions is not None])
        velocities = rest_to_rest(times_s, positions)
        points = tuple(replace(point, velocities=row) for point, row in zip(points, velocities, strict=True))
    return replace(trajectory, points=points)


def _has_positions_only(points: tuple[Point, ...]) -> bool:
    plain = all(point.velocities is None and point.accelerations is None for point in points)
    lengths = {-1 if point.positions is None else len(point.positions) for point in points}
    return plain and len(lengths) == 1 and -1 not in lengths


def rest_to_rest(times_s: Floats, positions: Floats) -> Floats:
    """Return the velocities (n, joints) at the knots of the C2 spline through positions (n, joints), 0 at both ends."""
    count = len(times_s)
    inverse = 1 / np.diff(times_s)
    slopes = np.diff(positions, axis=0) * (inverse**2)[:, None]
    matrix, right = np.eye(count), np.zeros_like(positions)
    inner = np.arange(1, count - 1)
    matrix[inner, inner - 1], matrix[inner, inner + 1] = inverse[:-1], inverse[1:]
    matrix[inner, inner] = 2 * (inverse[:-1] + inverse[1:])
    right[1:-1] = 3 * (slopes[:-1] + slopes[1:])
    return np.asarray(np.linalg.solve(matrix, right), np.float64)
