# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of LeRobot 0.3, with the statistics among the weights, become folders as 0.4 and newer save them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_folders import CONFIG, TENSORS, WEIGHTS, checkpoint_folder, edit, old_layout, options
from safetensors.numpy import load_file, save_file

from reflex_core.errors import ExportError
from reflex_core.export.processors import read_processors
from reflex_core.export.read_normalization import read_normalization
from reflex_export.checkpoint import Checkpoint
from reflex_export.folder.old_layout import without_buffers
from reflex_export.folder.read_folder import read_checkpoint


def read(folder: Path, work: Path) -> Checkpoint:
    work.mkdir(exist_ok=True)
    return read_checkpoint(str(folder), options(), work)


@pytest.mark.parametrize("family", ["act", "diffusion"])
def test_it_normalises_as_the_same_policy_saved_by_0_6(family: str, tmp_path: Path) -> None:
    """Modes of each type, cameras with their own statistics, an underscore in a name."""
    new = read(checkpoint_folder(tmp_path / "new", family), tmp_path / "a")
    old = read(old_layout(tmp_path / "old", family), tmp_path / "b")
    assert (old.version, old.state_dim, old.horizon) == ("0.3", new.state_dim, new.horizon)
    for name in ("state", "action"):
        ours, theirs = getattr(old.normalization, name), getattr(new.normalization, name)
        np.testing.assert_array_equal(ours.shift, theirs.shift)
        np.testing.assert_array_equal(ours.back, theirs.back)
    assert set(old.normalization.pictures) == set(new.normalization.pictures)
    assert old.normalization.state_mode == new.normalization.state_mode
    for camera, statistics in new.normalization.pictures.items():
        np.testing.assert_array_equal(old.normalization.pictures[camera].shift, statistics.shift)


def test_a_feature_with_underscores_keeps_its_own_statistics(tmp_path: Path) -> None:
    """LeRobot's own migration reads names backward, and makes `observation.images.front.cam` of this one."""
    folder = old_layout(tmp_path / "old")
    table = load_file(folder / WEIGHTS)
    renamed = {name.replace("images_top", "images_front_cam"): value for name, value in table.items()}
    save_file(renamed, folder / WEIGHTS)

    def rename(config: dict[str, dict[str, object]]) -> None:
        inputs = config["input_features"]
        inputs["observation.images.front_cam"] = inputs.pop("observation.images.top")

    edit(folder / CONFIG, rename)
    assert "observation.images.front_cam" in read(folder, tmp_path / "work").normalization.pictures


def test_the_weights_are_copied_without_the_statistics(tmp_path: Path) -> None:
    found = read(old_layout(tmp_path / "old"), tmp_path / "work")
    assert (found.folder / WEIGHTS).is_symlink()
    assert "normalize_inputs.buffer_observation_state.mean" in found.weights.tensors
    weights = without_buffers(found.weights, found.folder)
    assert not (found.folder / WEIGHTS).is_symlink()
    assert weights.path == found.folder / WEIGHTS
    assert set(weights.tensors) == set(TENSORS)
    copied = load_file(found.folder / WEIGHTS)
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(copied[name], tensor)
    assert (weights.data_start % 8, len(load_file(tmp_path / "old" / WEIGHTS))) == (0, len(TENSORS) + 10)


def test_what_is_written_is_read_as_lerobots_own(tmp_path: Path) -> None:
    folder = read(old_layout(tmp_path / "old"), tmp_path / "work").folder
    processors = read_processors(folder)
    assert processors is not None
    assert read_normalization(folder, {}, "here", processors).action_mode == "mean_std"
    assert json.loads((folder / CONFIG).read_text())["type"] == "act"


def test_modes_that_are_unknown_are_refused(tmp_path: Path) -> None:
    folder = old_layout(tmp_path / "old")
    edit(folder / CONFIG, lambda config: config["normalization_mapping"].update(STATE="ROBUST"))
    with pytest.raises(ExportError, match="normalization_mapping.STATE is not known here: 'ROBUST'"):
        read(folder, tmp_path / "a")
    edit(folder / CONFIG, lambda config: config.pop("normalization_mapping"))
    with pytest.raises(ExportError, match="names no 'normalization_mapping'"):
        read(folder, tmp_path / "b")
