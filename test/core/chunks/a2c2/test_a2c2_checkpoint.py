# SPDX-License-Identifier: Apache-2.0
"""The file of a correction head: what is taken, and the sentence for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import contents, correction_of, written

from reflex_core.chunks.a2c2.checkpoint import read_checkpoint, write_checkpoint
from reflex_core.errors import ConfigurationError


def test_reads_what_it_writes(tmp_path: Path) -> None:
    first = read_checkpoint(written(tmp_path / "head.npz", contents()))
    write_checkpoint(first)
    again = read_checkpoint(first.path)
    assert again.features == "state"
    assert again.output_saturation_scale == 3.0
    for before, after in zip(first.weights + first.biases, again.weights + again.biases, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_file_without_saturation_and_features_takes_the_defaults(tmp_path: Path) -> None:
    document = contents(obs_dim=256, output_saturation_scale=None, features=None)
    checkpoint = read_checkpoint(written(tmp_path / "head.npz", document))
    assert checkpoint.output_saturation_scale == 3.0
    assert (checkpoint.features, checkpoint.names_features) == ("runtime256", False)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a size is missing": ({"hidden_dim": None}, "hidden_dim: expected a whole number from 1 to 65536, got nothing"),
    "a size is a fraction": ({"chunk_size": 7.5}, "chunk_size: expected a whole number .* got shape .* of float64"),
    "a size is negative": ({"chunk_size": -1}, "chunk_size: expected a whole number from 1 to 65536, got -1"),
    "a size is a list": ({"action_dim": [7, 7]}, "action_dim: expected a whole number .* got shape"),
    "a weight is missing": ({"w1": None}, r"w1: expected float32 of shape \(16, 16\), got nothing"),
    "a weight has another shape": ({"w0": np.zeros((16, 22), np.float32)}, r"w0: .*\(16, 23\), got float32 .*\(16, 22\)"),
    "a bias has another shape": ({"b2": np.zeros(6, np.float32)}, r"b2: expected float32 of shape \(7,\), got"),
    "a weight is of whole numbers": ({"w2": np.zeros((7, 16), int)}, "w2: .* got int64"),
    "a weight is not finite": ({"b0": np.full(16, np.nan, np.float32)}, "b0: expected finite float32 numbers"),
    "a weight is too large": ({"b0": np.full(16, 1e300)}, "b0: expected finite float32 numbers"),
    "there are more layers": ({"w3": np.zeros((7, 7), np.float32)}, "num_hidden_layers: .* also w3"),
    "the saturation is zero": ({"output_saturation_scale": 0.0}, "output_saturation_scale: .* above 0, got 0.0"),
    "the saturation is NaN": ({"output_saturation_scale": np.nan}, "output_saturation_scale: .* got nan"),
    "the features are a number": ({"features": 3}, "features: expected one text"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_refuses_a_file_in_which(case: str, tmp_path: Path) -> None:
    changed, sentence = WRONG[case]
    path = written(tmp_path / "head.npz", contents(**changed))
    with pytest.raises(ConfigurationError, match=f"head.npz: {sentence}"):
        read_checkpoint(path)


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_checkpoint(tmp_path / "head.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"not an archive"])
def test_refuses_a_file_of_another_kind(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "head.npz").write_bytes(content)
    with pytest.raises(ConfigurationError, match="expected an .npz file with plain arrays") as caught:
        read_checkpoint(tmp_path / "head.npz")
    assert "pickle" not in str(caught.value)


def test_refuses_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "head.npy", np.zeros(3))
    with pytest.raises(ConfigurationError, match="got one array"):
        read_checkpoint(tmp_path / "head.npy")


def test_runs_no_pickled_code(tmp_path: Path) -> None:
    path = written(tmp_path / "head.npz", contents(w0=np.array([print], dtype=object)))
    with pytest.raises(ConfigurationError, match="plain arrays"):
        read_checkpoint(path)


MISFITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another number of joints": (
        {}, {"action_names": ("a", "b"), "action_statistics": None}, "action_dim: expected 2 .* got 7",
    ),
    "a longer chunk": ({}, {"horizon": 11}, "chunk_size: expected 11 or more, the policy's chunk, got 10"),
    "other features than it says": ({"features": "state+words32"}, {}, "obs_dim: expected 39 .* got 7"),
    "no named features and not 256 numbers": ({"features": None}, {}, "obs_dim: expected 256 .*names none.* got 7"),
    "unknown features": ({"features": "state+smell"}, {}, "unknown part 'smell'; known: state, "),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_refuses_a_policy_with(case: str, tmp_path: Path) -> None:
    changed, binding, sentence = MISFITS[case]
    path = written(tmp_path / "head.npz", contents(**changed))
    with pytest.raises(ConfigurationError, match=f"head.npz: .*{sentence}"):
        correction_of(path, **binding)
