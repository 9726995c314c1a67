# SPDX-License-Identifier: Apache-2.0
"""Distances between capsules: by hand, and against the smallest of many points."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.robot.kinematics.capsules import Capsule, distances, ends_of

X, Y, Z = np.eye(3)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((0 * X, X), (Y, X + Y), 1.0),  # side by side
        ((0 * X, X), (3 * X, 5 * X), 2.0),  # in a line
        ((0 * X, X), (0.5 * X + Z - Y, 0.5 * X + Z + Y), 1.0),  # crossed
        ((0 * X, X), (0.25 * X - Y, 0.25 * X + Y), 0.0),  # through each other
        ((0 * X, 0 * X), (3 * X + 4 * Y, 3 * X + 4 * Y), 5.0),  # two points
        ((0 * X, 0 * X), (Y - X, Y + X), 1.0),  # a point and a segment
        ((Y - X, Y + X), (0 * X, 0 * X), 1.0),  # the other way round
        ((0 * X, X), (2 * X + Y, 3 * X + 9 * Y), 2**0.5),  # ends
        ((0 * X, X), (0.5 * X + 2 * Y, 0.5 * X + 1 * Y), 1.0),  # an end and a side
        ((0 * X, 4 * X), (3 * X + Y, 1 * X + Y), 1.0),  # antiparallel
    ],
)
def test_the_distance_of_two_segments(one: tuple, other: tuple, apart: float) -> None:
    starts, stops = (np.array([one[end], other[end]])[:, None] for end in (0, 1))
    assert distances(starts, stops, np.zeros(2), [(0, 1)]) == pytest.approx(apart)
    assert distances(starts, stops, np.array([0.1, 0.3]), [(1, 0)]) == pytest.approx(apart - 0.4)


def test_no_pair_of_points_is_nearer_and_one_is_as_near() -> None:
    rng = np.random.default_rng(2)
    starts, stops = rng.normal(size=(2, 2, 400, 3))
    stops[0, :50] = starts[0, :50]  # points
    stops[1, 50:100] = starts[1, 50:100] + 2.0 * (stops[0, 50:100] - starts[0, 50:100])  # parallel
    found = distances(starts, stops, np.zeros(2), [(0, 1)])[0]
    share = np.linspace(0.0, 1.0, 201)[:, None, None]
    along, across = (starts[one] + share * (stops[one] - starts[one]) for one in (0, 1))
    nearest = np.array([
        np.linalg.norm(along[:, None, row] - across[None, :, row], axis=-1).min() for row in range(400)
    ])  # fmt: skip
    assert (found <= nearest + 1e-9).all()
    assert (found >= nearest - 0.03).all()


def test_capsules_go_with_their_links() -> None:
    poses = np.broadcast_to(np.eye(4), (2, 3, 4, 4)).copy()
    poses[1, :, :3, 3] = [[0, 0, 1], [0, 0, 2], [0, 0, 3]]
    poses[1, :, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # a quarter turn about z
    capsules = [Capsule("base", 0 * X, Z, 0.5), Capsule("hand", X, 2 * X, 0.1)]
    starts, stops = ends_of(capsules, ("base", "hand"), poses)
    assert starts[1].tolist() == [[0, 1, 1], [0, 1, 2], [0, 1, 3]]
    assert stops[1].tolist() == [[0, 2, 1], [0, 2, 2], [0, 2, 3]]
    apart = distances(starts, stops, np.array([0.5, 0.1]), [(0, 1)])
    assert apart == pytest.approx(np.array([[0.4, 2**0.5 - 0.6, 5**0.5 - 0.6]]))
