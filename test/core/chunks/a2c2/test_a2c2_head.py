# SPDX-License-Identifier: Apache-2.0
"""The maths of the correction head, against the formula written out row by row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import HORIZON, JOINTS, constant, contents, correction_of, written

from reflex_core.chunks.a2c2.checkpoint import read_checkpoint
from reflex_core.chunks.a2c2.head import Head, position_encoding
from reflex_core.robot.gripper import End
from reflex_core.values import Floats

ACTIONS = np.random.default_rng(3).normal(size=(HORIZON, JOINTS)).astype(np.float32)
SEEN = np.random.default_rng(4).normal(size=7).astype(np.float32)
LATENCY_MS = 120.0


def by_the_formula(document: dict[str, Any], action: Floats, position: int) -> Floats:
    """One row, as the format describes it, in double precision."""
    dim = document["position_encoding_dim"]
    encoding = [
        (math.sin if index % 2 == 0 else math.cos)(position / 10000 ** ((index - index % 2) / dim))
        for index in range(dim)
    ]
    hidden = np.concatenate([action, SEEN, encoding, [LATENCY_MS]])
    layers = document["num_hidden_layers"]
    for number in range(layers + 1):
        hidden = document[f"w{number}"].astype(float) @ hidden + document[f"b{number}"]
        if number < layers:
            inner = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
            hidden = 0.5 * hidden * (1 + np.tanh(inner))
    return np.tanh(hidden / 3) * 3


def test_all_rows_at_once_are_what_the_formula_gives_row_by_row(tmp_path: Path) -> None:
    document = contents(layers=3)
    residual = Head(read_checkpoint(written(tmp_path / "head.npz", document))).residual(
        ACTIONS, SEEN, LATENCY_MS
    )
    expected = [by_the_formula(document, action, row) for row, action in enumerate(ACTIONS)]
    np.testing.assert_allclose(residual, expected, atol=1e-4)
    assert residual.dtype == np.float32


def test_a_position_beyond_the_chunk_counts_as_its_last(tmp_path: Path) -> None:
    head = Head(read_checkpoint(written(tmp_path / "head.npz", contents())))
    beyond, last = (
        head.residual(ACTIONS[:1], SEEN, LATENCY_MS, np.array([row])) for row in (HORIZON + 5, HORIZON - 1)
    )
    np.testing.assert_array_equal(beyond, last)


def test_the_residual_saturates(tmp_path: Path) -> None:
    head = Head(read_checkpoint(constant(tmp_path / "head.npz", 1e6)))
    np.testing.assert_array_equal(head.residual(ACTIONS, SEEN, LATENCY_MS), np.full((HORIZON, JOINTS), 3.0))


@pytest.mark.parametrize("dim", [0, 1, 4, 5])
def test_the_position_encoding_has_any_width(dim: int) -> None:
    encoding = position_encoding(3, dim)
    assert encoding.shape == (3, dim)
    np.testing.assert_allclose(encoding[0], [0, 1, 0, 1, 0][:dim])


def test_a_correction_is_in_the_units_of_the_statistics(tmp_path: Path) -> None:
    corrected = correction_of(constant(tmp_path / "head.npz", 0.3)).chunk(ACTIONS, SEEN, 0.0)
    residual = math.tanh(0.1) * 3
    np.testing.assert_allclose(corrected.actions - ACTIONS, residual * 0.25, atol=1e-5)
    assert corrected.magnitude == pytest.approx(residual * math.sqrt(HORIZON * JOINTS), rel=1e-5)


def test_a_control_step_is_corrected_like_its_row_of_the_chunk(tmp_path: Path) -> None:
    correction = correction_of(written(tmp_path / "head.npz", contents()))
    chunk = correction.chunk(ACTIONS, SEEN, LATENCY_MS).actions
    steps = [correction.step(action, SEEN, row, LATENCY_MS) for row, action in enumerate(ACTIONS)]
    np.testing.assert_allclose(chunk, steps, atol=1e-6)


def test_rows_that_are_over_take_the_correction_of_the_first_that_is_not(tmp_path: Path) -> None:
    correction = correction_of(written(tmp_path / "head.npz", contents()))
    whole = correction.chunk(ACTIONS, SEEN, LATENCY_MS).actions - ACTIONS
    late = correction.chunk(ACTIONS, SEEN, LATENCY_MS, elapsed_rows=4).actions - ACTIONS
    np.testing.assert_allclose(late[:4], np.tile(whole[4], (4, 1)), atol=1e-6)
    np.testing.assert_allclose(late[4:], whole[4:], atol=1e-6)


def test_a_gripper_that_snaps_keeps_its_ends(tmp_path: Path) -> None:
    snapping = End(6, np.float32(0), np.float32(1), np.float32(0.5), False)
    correction = correction_of(constant(tmp_path / "head.npz", 1.0), ends=(snapping,))
    change = correction.chunk(ACTIONS, SEEN, 0.0).actions - ACTIONS
    assert (change[:, 6] == 0).all()
    assert (change[:, :6] > 0.1).all()
