# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of LeRobot 0.3 that was converted without torch is loaded by LeRobot 0.6 and answers as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_variants import VARIANTS
from checkpoints import Made
from lerobot_answers import LeRobot, load
from raw_observations import noise, observation

from reflex_core.errors import ConfigurationError
from reflex_export.folder.old_layout import without_buffers
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.options import ExportOptions


def converted(made: Made, tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    found = read_checkpoint(str(made.folder), ExportOptions(dataset=made.dataset), tmp_path / "work")
    assert found.version == "0.3"
    without_buffers(found.weights, found.folder)
    return found.folder


@pytest.mark.parametrize("family", ["act", "diffusion"])
def test_it_answers_as_the_same_policy_in_the_layout_of_0_6(
    family: str, checkpoint: Callable[[str], Made], lerobot: Callable[[str], LeRobot], tmp_path: Path
) -> None:
    made = checkpoint(family)
    old = replace(made, folder=VARIANTS["release_0_3"](made.folder, tmp_path / "old"))
    new = replace(made, folder=converted(old, tmp_path))
    seen, theirs = observation(3), lerobot(family)
    given = None if theirs.noise_shape is None else noise(0, theirs.noise_shape)
    history = [seen] * int(getattr(theirs.policy.config, "n_obs_steps", 1))
    ours = load(new).chunk(history, given)
    np.testing.assert_array_equal(ours.physical, theirs.chunk(history, given).physical)


@pytest.mark.parametrize(
    "name",
    ["truncated_weights", "missing_statistics", "lora", "unknown_step", "step_of_own_class", "unknown_type"],
)
def test_a_checkpoint_that_lerobot_made_and_that_was_damaged_is_refused(
    name: str, checkpoint: Callable[[str], Made], tmp_path: Path
) -> None:
    folder = VARIANTS[name](checkpoint("act").folder, tmp_path / name)
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        read_checkpoint(str(folder), ExportOptions(), tmp_path)
