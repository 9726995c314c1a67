# SPDX-License-Identifier: Apache-2.0
"""Rotations as policies and data sets write them, to and from matrices. All arrays are float64 with any leading axes.

Formulas: Rodrigues, Shepperd (quaternion of a matrix), Shoemake (slerp), Zhou et al. 2019 (6D). rpy are fixed axes x, y, z as in
URDF and tf: R = Rz Ry Rx. Quaternions are x, y, z, w unless a name says wxyz. A 6D rotation is the first two rows (UMI, GR00T,
PyTorch3D) or columns (X-VLA, Zhou) of the matrix: one read for the other is the inverse rotation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

SMALL = 1e-9  # of a norm: a shorter direction is none
UPRIGHT = 1e-12  # of the cosine of a pitch: below it roll and yaw turn about the same axis


def matrix_of_rpy(rpy: Doubles) -> Doubles:
    """Convert (..., 3) roll, pitch, yaw in rad to (..., 3, 3)."""
    half = np.zeros((*rpy.shape, 4))
    for axis in range(3):  # one quaternion per axis
        half[..., axis, axis] = np.sin(rpy[..., axis] / 2)
        half[..., axis, 3] = np.cos(rpy[..., axis] / 2)
    roll, pitch, yaw = (half[..., axis, :] for axis in range(3))
    return matrix_of_quaternion(multiplied(yaw, multiplied(pitch, roll)))


def rpy_of_matrix(matrix: Doubles) -> Doubles:
    """Convert (..., 3, 3) to (..., 3) roll, pitch, yaw in rad, pitch from -pi/2 to pi/2; yaw is 0 where they are not unique."""
    unique = np.hypot(matrix[..., 0, 0], matrix[..., 1, 0]) > UPRIGHT
    yaw = np.where(unique, np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0]), 0.0)
    # from what is left of the rotation without the yaw, so that a yaw of few digits costs none of the rotation's
    s, c = np.sin(yaw), np.cos(yaw)
    pitch = np.arctan2(-matrix[..., 2, 0], c * matrix[..., 0, 0] + s * matrix[..., 1, 0])
    roll = np.arctan2(
        s * matrix[..., 0, 2] - c * matrix[..., 1, 2], c * matrix[..., 1, 1] - s * matrix[..., 0, 1]
    )
    return np.stack((roll, pitch, yaw), axis=-1)


def matrix_of_axis_angle(vector: Doubles) -> Doubles:
    """Convert (..., 3) axis times angle in rad to (..., 3, 3)."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    half = 0.5 * np.sinc(angle / (2 * np.pi))  # sin(angle / 2) / angle, without a gap at 0
    return matrix_of_quaternion(np.concatenate((vector * half, np.cos(angle / 2)), axis=-1))


def axis_angle_of_matrix(matrix: Doubles) -> Doubles:
    """Convert (..., 3, 3) to (..., 3) axis times angle, the angle from 0 to pi; stable at both ends."""
    quaternion = quaternion_of_matrix(matrix)
    quaternion = np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    length = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    turned = 2 * np.arctan2(length, quaternion[..., 3:])
    factor = np.divide(turned, length, out=np.full_like(length, 2.0), where=length > SMALL)
    vector: Doubles = quaternion[..., :3] * factor
    return vector


def matrix_of_quaternion(quaternion: Doubles) -> Doubles:
    """Convert (..., 4) x, y, z, w of any length but 0 to (..., 3, 3). Raises ValueError for one without a direction."""
    x, y, z, w = np.moveaxis(_unit(quaternion, "quaternion"), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_of_matrix(matrix: Doubles) -> Doubles:
    """Convert (..., 3, 3) to (..., 4) x, y, z, w of length 1; of the two signs either."""
    a, b, c = (matrix[..., axis, axis] for axis in range(3))
    largest = np.argmax(np.stack((a - b - c, b - a - c, c - a - b, a + b + c), axis=-1), axis=-1)
    skew = np.stack(
        (
            matrix[..., 2, 1] - matrix[..., 1, 2],
            matrix[..., 0, 2] - matrix[..., 2, 0],
            matrix[..., 1, 0] - matrix[..., 0, 1],
        ),
        axis=-1,
    )
    both = matrix + np.swapaxes(matrix, -1, -2)
    # four times the products of the quaternion with its component i: the row of the largest one loses no digits
    products = np.zeros((*matrix.shape[:-2], 4, 4))
    products[..., :3, :3] = both
    products[..., :3, 3] = products[..., 3, :3] = skew
    for axis, diagonal in enumerate((1 + a - b - c, 1 + b - a - c, 1 + c - a - b, 1 + a + b + c)):
        products[..., axis, axis] = diagonal
    row = np.take_along_axis(products, largest[..., None, None], axis=-2)[..., 0, :]
    quaternion: Doubles = row / np.linalg.norm(row, axis=-1, keepdims=True)
    return quaternion


def multiplied(first: Doubles, second: Doubles) -> Doubles:
    """Return (..., 4) the quaternion of the rotation `second` followed by `first`."""
    vector, other = first[..., :3], second[..., :3]
    w, v = first[..., 3:], second[..., 3:]
    along = w * v - np.sum(vector * other, axis=-1, keepdims=True)
    return np.concatenate((w * other + v * vector + np.cross(vector, other), along), axis=-1)


def continuous(quaternions: Doubles) -> Doubles:
    """Return (n, 4) the same rotations, each of the sign that is nearer to the row before."""
    if len(quaternions) < 2:
        return quaternions.copy()
    apart = np.sum(quaternions[1:] * quaternions[:-1], axis=-1) < 0
    signs = np.concatenate(([1.0], np.cumprod(np.where(apart, -1.0, 1.0))))
    return quaternions * signs[:, None]


def slerp(first: Doubles, second: Doubles, share: Doubles | float) -> Doubles:
    """Return (..., 4) the rotation a share of the way, 0 to 1, from one unit quaternion to the other, by the shorter arc."""
    share = np.asarray(share, dtype=np.float64)[..., None]
    second = np.where(np.sum(first * second, axis=-1, keepdims=True) < 0, -second, second)
    # by the chord, which keeps its digits where the two are nearly the same
    angle = 2 * np.arctan2(
        np.linalg.norm(second - first, axis=-1, keepdims=True),
        np.linalg.norm(second + first, axis=-1, keepdims=True),
    )
    whole = np.sinc(angle / np.pi)
    before = (1 - share) * np.sinc((1 - share) * angle / np.pi) / whole
    after = share * np.sinc(share * angle / np.pi) / whole
    return _unit(before * first + after * second, "rotation")


def matrix_of_rot6d_rows(rot6d: Doubles) -> Doubles:
    """Convert (..., 6), the first two rows, to (..., 3, 3). Raises ValueError where they span no plane."""
    x = _unit(rot6d[..., :3], "first half of a 6D rotation")
    y = rot6d[..., 3:]
    y = _unit(
        y - np.sum(x * y, axis=-1, keepdims=True) * x, "second half of a 6D rotation, across the first,"
    )
    return np.stack((x, y, np.cross(x, y)), axis=-2)


def rot6d_rows_of_matrix(matrix: Doubles) -> Doubles:
    """Convert (..., 3, 3) to (..., 6), its first two rows."""
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


def matrix_of_rot6d_columns(rot6d: Doubles) -> Doubles:
    """Convert (..., 6), the first two columns, to (..., 3, 3). Raises ValueError where they span no plane."""
    return np.swapaxes(matrix_of_rot6d_rows(rot6d), -1, -2)


def rot6d_columns_of_matrix(matrix: Doubles) -> Doubles:
    """Convert (..., 3, 3) to (..., 6), its first two columns."""
    return rot6d_rows_of_matrix(np.swapaxes(matrix, -1, -2))


def _unit(vectors: Doubles, what: str) -> Doubles:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (length > SMALL).all():  # false for NaN as well
        raise ValueError(f"a {what} must have a direction, got length {float(np.nan_to_num(length).min()):g}")
    unit: Doubles = vectors / length
    return unit


def _matrix_of_wxyz(quaternion: Doubles) -> Doubles:
    return matrix_of_quaternion(np.roll(quaternion, -1, axis=-1))


def _wxyz_of_matrix(matrix: Doubles) -> Doubles:
    return np.roll(quaternion_of_matrix(matrix), 1, axis=-1)


@dataclass(frozen=True, slots=True)
class RotationKind:
    """One way to write a rotation in `width` numbers."""

    width: int
    to_matrix: Callable[[Doubles], Doubles]
    of_matrix: Callable[[Doubles], Doubles]


KINDS: Mapping[str, RotationKind] = {
    "rpy": RotationKind(3, matrix_of_rpy, rpy_of_matrix),
    "axis_angle": RotationKind(3, matrix_of_axis_angle, axis_angle_of_matrix),
    "quaternion_xyzw": RotationKind(4, matrix_of_quaternion, quaternion_of_matrix),
    "quaternion_wxyz": RotationKind(4, _matrix_of_wxyz, _wxyz_of_matrix),
    "rot6d_rows": RotationKind(6, matrix_of_rot6d_rows, rot6d_rows_of_matrix),
    "rot6d_columns": RotationKind(6, matrix_of_rot6d_columns, rot6d_columns_of_matrix),
}


def nearest(kind: str, written: Doubles, like: Doubles) -> Doubles:
    """Return (..., width) the same rotations, of the several ways to write each in one kind the one nearest to `like`."""
    ways = [written]
    if kind.startswith("quaternion"):
        ways = [written, -written]
    elif kind == "axis_angle":
        angle = np.linalg.norm(written, axis=-1, keepdims=True)
        axis = np.divide(written, angle, out=np.zeros_like(written), where=angle > SMALL)
        ways = [written, written - 2 * np.pi * axis, written + 2 * np.pi * axis]
    elif kind == "rpy":
        other = np.stack((written[..., 0] + np.pi, np.pi - written[..., 1], written[..., 2] + np.pi), axis=-1)
        ways = [one + 2 * np.pi * np.round((like - one) / (2 * np.pi)) for one in (written, other)]
    apart = np.stack([np.linalg.norm(one - like, axis=-1) for one in ways])
    chosen = np.argmin(apart, axis=0)[None, ..., None]
    found: Doubles = np.take_along_axis(np.stack(ways), chosen, axis=0)[0]
    return found
