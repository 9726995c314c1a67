# SPDX-License-Identifier: Apache-2.0
"""Chunks of pose differences by hand, for each convention of the field."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reflex_core.robot.poses import (
    BASE_FRAME,
    CHUNK_START,
    FRAMES,
    ROW_BEFORE,
    STARTS,
    TOOL_FRAME,
    Poses,
    composed,
    differences,
    on_the_way,
)
from reflex_core.robot.rotations import KINDS, axis_angle_of_matrix, matrix_of_axis_angle, matrix_of_rpy

DOWN = np.diag([1.0, -1.0, -1.0])  # a tool that points at the table: its y and z are the base's, inverted
START = Poses(np.array([0.5, 0.0, 0.3]), DOWN)
QUARTER = math.pi / 2
ABOUT_Z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def close(found: np.ndarray, wanted: object) -> None:
    np.testing.assert_allclose(found, wanted, atol=1e-9, rtol=0)


def repeated(position: list[float], rotation: np.ndarray, rows: int) -> Poses:
    return Poses(np.tile(position, (rows, 1)), np.tile(rotation, (rows, 1, 1)))


def yaw(rotation: np.ndarray) -> float:
    return math.degrees(math.atan2(rotation[1, 0], rotation[0, 0]))


def test_robosuite_and_libero_turn_and_move_in_the_base_from_row_to_row() -> None:
    scaled = np.array([1.0, 0.0, -1.0]) * 0.05
    turn = matrix_of_axis_angle(np.array([0.0, 0.0, QUARTER]))
    made = composed(START, repeated(scaled.tolist(), turn, 2), BASE_FRAME, ROW_BEFORE)
    close(made.position, [[0.55, 0.0, 0.25], [0.60, 0.0, 0.20]])
    # the tool's x: along x, then y, then -x of the base; its z keeps pointing down
    close(made.rotation[0], ABOUT_Z @ DOWN)
    close(made.rotation[1], np.diag([-1.0, 1.0, -1.0]))


def test_bridge_and_openvla_write_rpy_that_are_turned_about_the_bases_axes() -> None:
    turn = KINDS["rpy"].to_matrix(np.array([QUARTER, 0.0, QUARTER]))
    made = composed(START, repeated([0.0, 0.01, 0.0], turn, 1), BASE_FRAME, ROW_BEFORE)
    close(made.position, [[0.5, 0.01, 0.3]])
    close(made.rotation[0], [[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@pytest.mark.parametrize("who", ["UMI", "GR00T"])
def test_umi_and_gr00t_write_rows_in_the_tool_of_the_chunks_start(who: str) -> None:
    turn = KINDS["rot6d_rows"].to_matrix(np.array([0.0, -1.0, 0.0, 1.0, 0.0, 0.0]))
    made = composed(START, repeated([0.1, 0.02, 0.05], turn, 2), TOOL_FRAME, CHUNK_START)
    # y and z of a tool that points down are inverted; the second row starts from the chunk's start again
    close(made.position, [[0.6, -0.02, 0.25]] * 2)
    close(made.rotation[1], DOWN @ ABOUT_Z)


def test_xvla_writes_columns_of_the_pose_itself() -> None:
    matrix = KINDS["rot6d_columns"].to_matrix(np.array([0.0, 1.0, 0.0, -1.0, 0.0, 0.0]))
    close(matrix, ABOUT_Z)


def test_droids_cartesian_steps_are_rpy_from_row_to_row() -> None:
    step = 0.15 * np.array([0.0, 0.0, 1.0])
    made = composed(START, repeated([0.075, 0.0, 0.0], matrix_of_rpy(step), 3), BASE_FRAME, ROW_BEFORE)
    close(made.position[2], [0.725, 0.0, 0.3])
    assert yaw(made.rotation[2]) == pytest.approx(math.degrees(0.45), abs=1e-9)


def test_the_wrong_frame_inverts_z_of_a_tool_that_points_down() -> None:
    steps = repeated([0.01, 0.0, 0.01], matrix_of_axis_angle(np.array([0.0, 0.0, 0.05])), 10)
    base = composed(START, steps, BASE_FRAME, ROW_BEFORE)[9]
    tool = composed(START, steps, TOOL_FRAME, ROW_BEFORE)[9]
    close(base.position, [0.60, 0.0, 0.40])
    assert yaw(base.rotation) == pytest.approx(math.degrees(0.5), abs=1e-9)
    # the step of row k points where k turns of 0.05 rad about an inverted z have turned x
    close(tool.position[0], 0.5 + 0.01 * sum(math.cos(0.05 * k) for k in range(10)))
    close(tool.position[1], -0.01 * sum(math.sin(0.05 * k) for k in range(10)))
    close(tool.position[2], 0.20)
    assert yaw(tool.rotation) == pytest.approx(-math.degrees(0.5), abs=1e-9)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("starts_from", STARTS)
def test_differences_are_the_inverse(frame: str, starts_from: str) -> None:
    random = np.random.default_rng(5)
    deltas = Poses(random.normal(size=(30, 3)), matrix_of_rpy(random.uniform(-3, 3, size=(30, 3))))
    start = Poses(random.normal(size=3), matrix_of_rpy(random.uniform(-3, 3, size=3)))
    again = differences(start, composed(start, deltas, frame, starts_from), frame, starts_from)
    close(again.position, deltas.position)
    close(again.rotation, deltas.rotation)


def test_a_chunk_of_no_rows_has_no_poses() -> None:
    none = Poses(np.zeros((0, 3)), np.zeros((0, 3, 3)))
    assert composed(START, none, BASE_FRAME, ROW_BEFORE).position.shape == (0, 3)
    assert axis_angle_of_matrix(differences(START, none, TOOL_FRAME, CHUNK_START).rotation).shape == (0, 3)


def test_between_two_rows_a_pose_is_on_the_straight_way_and_turned_by_its_share() -> None:
    turns = np.array([[0.0, 0.0, QUARTER], [0.0, 0.0, QUARTER]])
    path = Poses(np.array([[0.6, 0.0, 0.3], [0.6, 0.2, 0.3]]), matrix_of_axis_angle(turns) @ DOWN)
    half = on_the_way(START, path, 0.5)
    close(half.position, [0.55, 0.0, 0.3])
    close(half.rotation, matrix_of_axis_angle(np.array([0.0, 0.0, QUARTER / 2])) @ DOWN)
    close(on_the_way(START, path, 1.25).position, [0.6, 0.05, 0.3])
    for row, at in ((0.0, START), (1.0, path[0]), (2.0, path[1]), (9.0, path[1])):
        close(on_the_way(START, path, row).position, at.position)
        close(on_the_way(START, path, row).rotation, at.rotation)
