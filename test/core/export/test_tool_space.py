# SPDX-License-Identifier: Apache-2.0
"""Rows of a tool's pose by hand: every way to write a rotation, in every mode and frame, and back to the same numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from reflex_core.errors import ExportError
from reflex_core.export.action_space import read_action_space, tool_of
from reflex_core.export.tool_space import ToolSpace
from reflex_core.files.json_fields import refusing
from reflex_core.robot.poses import Poses
from reflex_core.robot.rotations import KINDS, matrix_of_axis_angle

QUARTER = math.pi / 2
HALF = math.sqrt(0.5)
# a quarter about z as each kind writes it, by hand, and the matrix that it is
WRITTEN = {
    "rpy": [0.0, 0.0, QUARTER],
    "axis_angle": [0.0, 0.0, QUARTER],
    "quaternion_xyzw": [0.0, 0.0, HALF, HALF],
    "quaternion_wxyz": [HALF, 0.0, 0.0, HALF],
    "rot6d_rows": [0.0, -1.0, 0.0, 1.0, 0.0, 0.0],
    "rot6d_columns": [0.0, 1.0, 0.0, -1.0, 0.0, 0.0],
}
ABOUT_Z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
DOWN = np.diag([1.0, -1.0, -1.0])  # a tool that points at the table
START = Poses(np.array([0.5, 0.1, 0.3]), DOWN)
MOVED = [0.01, 0.02, 0.03]
# positions and rotations of the second of two equal rows that begin at START, by hand
SECOND: dict[tuple[str, str], tuple[list[float], np.ndarray]] = {
    ("absolute", "base"): (MOVED, ABOUT_Z),
    # twice p + dp, and R(d) R(d) R: half a turn about the base's z
    ("delta", "base"): ([0.52, 0.14, 0.36], np.diag([-1.0, -1.0, 1.0]) @ DOWN),
    # R dp: (0.01, -0.02, -0.03) first; then the tool is turned by a quarter: its x is the base's -y, and its y -x
    ("delta", "tool"): ([0.5 + 0.01 - 0.02, 0.1 - 0.02 - 0.01, 0.3 - 0.06], DOWN @ np.diag([-1.0, -1.0, 1.0])),
    ("relative", "base"): ([0.51, 0.12, 0.33], ABOUT_Z @ DOWN),
    ("relative", "tool"): ([0.51, 0.08, 0.27], DOWN @ ABOUT_Z),
}  # fmt: skip


def space(rotation: str, mode: str, frame: str, scale: float = 1.0) -> ToolSpace:
    width = KINDS[rotation].width
    return ToolSpace(tuple(range(3 + width)), rotation, mode, frame, (scale,) * 3 + (1.0,) * width)


@pytest.mark.parametrize("rotation", WRITTEN)
@pytest.mark.parametrize(("mode", "frame"), SECOND)
def test_every_rotation_in_every_mode_and_frame_by_hand(rotation: str, mode: str, frame: str) -> None:
    row = np.array([*MOVED, *WRITTEN[rotation]])
    made = space(rotation, mode, frame).poses(np.stack([row, row]), START)[1]
    position, matrix = SECOND[mode, frame]
    np.testing.assert_allclose(made.position, position, atol=1e-9, rtol=0)
    np.testing.assert_allclose(made.rotation, matrix, atol=1e-9, rtol=0)


@pytest.mark.parametrize("rotation", WRITTEN)
@pytest.mark.parametrize(("mode", "frame"), SECOND)
def test_rows_are_the_inverse_and_keep_the_way_they_were_written(
    rotation: str, mode: str, frame: str
) -> None:
    random = np.random.default_rng(3)
    turns = KINDS[rotation].of_matrix(matrix_of_axis_angle(random.uniform(-1.7, 1.7, (20, 3))))
    if rotation.startswith("quaternion"):
        turns *= np.where(np.arange(20) % 2, -1.0, 1.0)[:, None]
    if rotation == "rpy":
        turns += 2 * np.pi * random.integers(-1, 2, (20, 3))
    if rotation == "axis_angle":  # a turn more about the same axis
        turns *= 1.0 + 2 * np.pi / np.linalg.norm(turns, axis=1, keepdims=True) * (np.arange(20) % 2)[:, None]
    rows = np.concatenate((random.normal(size=(20, 3)), turns), axis=1)
    kind = space(rotation, mode, frame, scale=0.05)
    np.testing.assert_allclose(kind.rows(kind.poses(rows, START), START, rows), rows, atol=1e-9, rtol=0)


def test_liberos_scale_is_metres_and_radians_per_axis() -> None:
    kind = ToolSpace(tuple(range(6)), "axis_angle", "delta", "base", (0.05,) * 3 + (0.5,) * 3)
    made = kind.poses(np.array([[1.0, 0.0, -1.0, 0.0, 0.0, 1.0]]), START)[0]
    np.testing.assert_allclose(made.position, [0.55, 0.1, 0.25], atol=1e-12)
    np.testing.assert_allclose(
        made.rotation, matrix_of_axis_angle(np.array([0.0, 0.0, 0.5])) @ DOWN, atol=1e-12
    )


# 0.1 s of 0.1 m/s along x and a quarter a second about z, twice: what the tool's own axes are after the first row, by hand
SPEEDS = [0.1, 0.0, 0.0, 0.0, 0.0, 10 * QUARTER]
AFTER: dict[str, tuple[list[float], np.ndarray]] = {
    # twice p + dt v, and half a turn about the base's z
    "base": ([0.52, 0.1, 0.3], np.diag([-1.0, -1.0, 1.0]) @ DOWN),
    # along the tool's x, which is the base's x first; then it is turned by a quarter about its z, which points down: the base's -y
    "tool": ([0.51, 0.09, 0.3], DOWN @ np.diag([-1.0, -1.0, 1.0])),
}


@pytest.mark.parametrize("frame", AFTER)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_velocities_are_steps_of_one_period_by_hand(frame: str, scale: float) -> None:
    kind = ToolSpace(tuple(range(6)), "axis_angle", "velocity", frame, (scale,) * 6).every(0.1)
    rows = np.array([SPEEDS, SPEEDS]) / scale
    made = kind.poses(rows, START)
    position, matrix = AFTER[frame]
    np.testing.assert_allclose(made.position[1], position, atol=1e-9, rtol=0)
    np.testing.assert_allclose(made.rotation[1], matrix, atol=1e-9, rtol=0)
    np.testing.assert_allclose(kind.rows(made, START, rows), rows, atol=1e-9, rtol=0)


def test_only_velocities_have_a_period() -> None:
    assert space("rpy", "delta", "base").every(0.1) == space("rpy", "delta", "base")


LIBERO: dict[str, Any] = {
    "columns": [0, 1, 2, 3, 4, 5], "space": "tool", "mode": "delta", "frame": "base", "rotation": "axis_angle",
    "scale": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
}  # fmt: skip
ROT6D: dict[str, Any] = {
    "columns": list(range(9)), "space": "tool", "mode": "absolute", "frame": "base", "rotation": "rot6d_columns",
}  # fmt: skip
fail = refusing("reflex_config.json", ExportError)


def test_an_entry_says_all_of_a_tools_pose_in_its_own_order() -> None:
    entry = LIBERO | {"columns": [3, 2, 1, 6, 5, 4]}
    found = tool_of(read_action_space({"action_space": [entry]}, 8, (), None, fail))
    assert found == ToolSpace((3, 2, 1, 6, 5, 4), "axis_angle", "delta", "base", (0.05,) * 3 + (0.5,) * 3)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([{key: LIBERO[key] for key in LIBERO if key != "frame"}], r"frame' must be one of base, tool, got null"),
        ([{key: LIBERO[key] for key in LIBERO if key != "rotation"}], r"rotation' must be one of rpy, .*, got null"),
        ([{key: LIBERO[key] for key in LIBERO if key != "mode"}], r"mode' must be one of absolute, delta, relative, velocity, got null"),
        ([LIBERO | {"mode": "speed"}], r"mode' must be one of absolute, delta, relative, velocity, got \"speed\""),
        ([LIBERO | {"mode": "velocity", "rotation": "rpy"}], r"rotation' must be axis_angle, as its mode is velocity: .*, got \"rpy\""),
        ([LIBERO | {"mode": "velocity", "unit": "degrees"}], r"unit' must be left out for a tool's pose"),
        ([LIBERO | {"rotation": "quaternion_xyzw"}], r"columns' must be 7 columns, x, y, z and 4 of quaternion_xyzw, got \[0, 1, 2, 3, 4, 5\]"),
        ([ROT6D | {"frame": "tool"}], r"frame' must be base, as its mode is absolute, got \"tool\""),
        ([ROT6D | {"scale": [1, 1, 1, 2, 2, 2, 2, 2, 2]}], r"scale' must be 1 for the columns of rot6d_columns, got \[1, 1, 1, 2"),
        ([LIBERO | {"unit": "degrees"}], r"unit' must be left out for a tool's pose, .*, got \"degrees\""),
        ([LIBERO, LIBERO | {"columns": [6, 7, 8, 9, 10, 11]}], r"action_space\[1\]\.space' must be tool in one entry"),
        ([LIBERO | {"gripper": {"open": 0, "closed": 1}}], r"gripper' must be left out, as its space is tool"),
    ],
)  # fmt: skip
def test_what_is_missing_or_contradicts_itself_is_refused_with_both(
    entries: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(ExportError, match=sentence):
        read_action_space({"action_space": entries}, 12, (), None, fail)


def test_offsets_number_by_number_are_no_poses() -> None:
    with pytest.raises(ExportError, match=r"action 2 \(offsets from the state\), got \"delta\""):
        read_action_space({"action_space": [LIBERO]}, 6, (), (False, False, True, False, False, False), fail)
    assert read_action_space({"action_space": [LIBERO | {"mode": "relative"}]}, 6, (), (), fail)
