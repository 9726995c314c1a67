# SPDX-License-Identifier: Apache-2.0
"""Rotations against vectors made by hand, and every way to write one against every other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflex_core.robot.rotations import (
    KINDS,
    axis_angle_of_matrix,
    continuous,
    matrix_of_axis_angle,
    matrix_of_quaternion,
    matrix_of_rpy,
    multiplied,
    nearest,
    quaternion_of_matrix,
    rpy_of_matrix,
    slerp,
)

# a quarter turn about x, then one about z: x becomes y, y becomes z, z becomes x; a third of a turn about (1, 1, 1)
TURNED = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
THIRD = 2 * math.pi / 3 / math.sqrt(3)
WRITTEN = {
    "rpy": [math.pi / 2, 0.0, math.pi / 2],
    "axis_angle": [THIRD, THIRD, THIRD],
    "quaternion_xyzw": [0.5, 0.5, 0.5, 0.5],
    "quaternion_wxyz": [0.5, 0.5, 0.5, 0.5],
    "rot6d_rows": [0.0, 0.0, 1.0, 1.0, 0.0, 0.0],
    "rot6d_columns": [0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
}
HALF = math.sqrt(0.5)
QUARTER_ABOUT_Z = {
    "rpy": [0.0, 0.0, math.pi / 2],
    "axis_angle": [0.0, 0.0, math.pi / 2],
    "quaternion_xyzw": [0.0, 0.0, HALF, HALF],
    "quaternion_wxyz": [HALF, 0.0, 0.0, HALF],
    "rot6d_rows": [0.0, -1.0, 0.0, 1.0, 0.0, 0.0],
    "rot6d_columns": [0.0, 1.0, 0.0, -1.0, 0.0, 0.0],
}
ABOUT_Z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def close(found: np.ndarray, wanted: object) -> None:
    np.testing.assert_allclose(found, wanted, atol=1e-9, rtol=0)


def angle(matrix: np.ndarray) -> float:
    return math.degrees(float(np.linalg.norm(axis_angle_of_matrix(matrix))))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(("written", "matrix"), [(WRITTEN, TURNED), (QUARTER_ABOUT_Z, ABOUT_Z)])
def test_each_way_to_write_a_rotation_by_hand(
    kind: str, written: dict[str, list[float]], matrix: np.ndarray
) -> None:
    close(KINDS[kind].to_matrix(np.array(written[kind])), matrix)
    found = KINDS[kind].of_matrix(matrix)
    close(found * (np.sign(found[-1]) if kind.startswith("quaternion") else 1.0), written[kind])
    assert len(written[kind]) == KINDS[kind].width


@pytest.mark.parametrize("kind", list(KINDS))
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(n * n for n in q) > 1e-2))
def test_what_is_written_is_read_again(kind: str, quaternion: list[float]) -> None:
    matrix = matrix_of_quaternion(np.array([quaternion, quaternion[::-1]]))
    again = KINDS[kind].to_matrix(KINDS[kind].of_matrix(matrix))
    np.testing.assert_allclose(again, matrix, atol=1e-9)


@pytest.mark.parametrize("turned", [0.0, 1e-12, 1e-7, 1e-3, 1.0, math.pi - 1e-3, math.pi - 1e-8, math.pi])
@pytest.mark.parametrize("axis", [[1.0, 0.0, 0.0], [0.0, 0.6, -0.8], [2 / 3, -1 / 3, 2 / 3]])
def test_axis_and_angle_are_stable_at_0_and_at_half_a_turn(turned: float, axis: list[float]) -> None:
    vector = turned * np.array(axis)
    found = axis_angle_of_matrix(matrix_of_axis_angle(vector))
    # half a turn about an axis is one about its opposite
    assert min(np.abs(found - vector).max(), np.abs(found + vector).max() if turned > 3 else math.inf) <= 1e-9


@pytest.mark.parametrize("pitch", [math.pi / 2, -math.pi / 2, math.pi / 2 - 1e-7, 1e-11 - math.pi / 2])
def test_rpy_that_are_not_unique_still_give_the_rotation(pitch: float) -> None:
    matrix = matrix_of_rpy(np.array([0.4, pitch, -0.9]))
    found = rpy_of_matrix(matrix)
    assert found[2] == 0.0 or abs(abs(pitch) - math.pi / 2) > 1e-12
    close(matrix_of_rpy(found), matrix)


def test_rows_read_for_columns_are_the_inverse_rotation() -> None:
    matrix = matrix_of_rpy(np.array([0.3, -0.2, 0.25]))
    misread = KINDS["rot6d_columns"].to_matrix(KINDS["rot6d_rows"].of_matrix(matrix))
    close(misread, matrix.T)
    assert angle(misread.T @ matrix) == pytest.approx(2 * angle(matrix), abs=1e-9)


def test_rpy_read_for_axis_and_angle_is_nearly_right_in_small_steps_alone() -> None:
    for size in (0.05, 0.5):  # 0.07 and 7 degrees: half the product of the two angles
        rpy = np.array([size, size, 0.0])
        off = angle(matrix_of_rpy(rpy).T @ matrix_of_axis_angle(rpy))
        assert off == pytest.approx(math.degrees(size * size / 2), rel=0.05)


def test_a_network_need_not_give_unit_vectors() -> None:
    close(KINDS["rot6d_rows"].to_matrix(np.array([0.0, 0.0, 3.0, 2.0, 0.0, 7.0])), TURNED)
    close(KINDS["quaternion_xyzw"].to_matrix(np.array([2.0, 2.0, 2.0, 2.0])), TURNED)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("quaternion_xyzw", [0.0] * 4), ("rot6d_rows", [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        ("rot6d_columns", [1.0, 0.0, 0.0, 2.0, 0.0, 0.0]), ("quaternion_wxyz", [math.nan] * 4),
    ],
)  # fmt: skip
def test_numbers_without_a_direction_are_no_rotation(kind: str, numbers: list[float]) -> None:
    with pytest.raises(ValueError, match="must have a direction"):
        KINDS[kind].to_matrix(np.array(numbers))


def test_the_sign_of_a_quaternion_follows_the_row_before() -> None:
    turns = np.linspace(0.0, 3 * math.pi, 40)
    smooth = np.stack((0 * turns, 0 * turns, np.sin(turns / 2), np.cos(turns / 2)), axis=-1)
    flipped = smooth * np.where(np.arange(40) % 3 == 1, -1.0, 1.0)[:, None]
    close(continuous(flipped), smooth)
    close(continuous(smooth[:1]), smooth[:1])


def test_a_share_of_the_way_is_a_share_of_the_angle() -> None:
    start, end = quaternion_of_matrix(np.eye(3)), quaternion_of_matrix(ABOUT_Z)
    for share in (0.0, 0.25, 0.5, 1.0):
        for sign in (1.0, -1.0):  # by the shorter arc, whichever sign is written
            turned = axis_angle_of_matrix(matrix_of_quaternion(slerp(start, sign * end, share)))
            close(turned, [0.0, 0.0, share * math.pi / 2])
    close(slerp(start, start, 0.3), start)
    shares = np.array([0.0, 1.0])
    close(slerp(np.stack((start, start)), np.stack((end, end)), shares)[1], end)


def test_rotations_follow_each_other_as_their_matrices_do() -> None:
    first, second = matrix_of_rpy(np.array([[0.1, 0.2, 0.3], [-1.0, 0.5, 2.0]]))
    product = multiplied(quaternion_of_matrix(first), quaternion_of_matrix(second))
    close(matrix_of_quaternion(product), first @ second)


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_way_to_write_a_rotation_is_the_same_rotation_and_as_near_as_any(kind: str) -> None:
    random = np.random.default_rng(8)
    matrices = matrix_of_axis_angle(random.uniform(-2, 2, (50, 3)))
    written = KINDS[kind].of_matrix(matrices)
    like = written + random.normal(scale=3.0, size=written.shape)
    found = nearest(kind, written, like)
    np.testing.assert_allclose(KINDS[kind].to_matrix(found), matrices, atol=1e-9)
    before, after = (np.linalg.norm(one - like, axis=-1) for one in (written, found))
    assert (after <= before + 1e-12).all()
    if not kind.startswith("rot6d"):
        assert (after < before - 1e-3).any()


def test_no_turn_has_no_axis_to_add_a_turn_about() -> None:
    assert nearest("axis_angle", np.zeros((1, 3)), np.array([[3.0, 0.0, 0.0]])).tolist() == [[0.0, 0.0, 0.0]]
