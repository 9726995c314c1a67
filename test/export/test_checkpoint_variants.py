# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of other releases are what LeRobot takes for them, and what it takes in silence is wrong indeed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from checkpoint_folders import CONFIG, WEIGHTS, configure
from checkpoint_variants import CALLED, STEP, VARIANTS
from checkpoints import CAMERAS, Made, statistics
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import migrate_policy_normalization
from lerobot_answers import LeRobot, load
from numpy.typing import NDArray
from raw_observations import RawObservation, noise, observation
from safetensors.torch import load_file

SEEN = observation(3)
Checkpoint, Policy = Callable[[str], Made], Callable[[str], LeRobot]


def variant(name: str, made: Made, folder: Path) -> Made:
    """A checkpoint with one of VARIANTS as its folder."""
    return replace(made, folder=VARIANTS[name](made.folder, folder))


def answer(policy: LeRobot, seen: RawObservation = SEEN) -> NDArray[np.float32]:
    """(rows, n) physical actions, from the same noise for each policy of a shape."""
    shape = policy.noise_shape
    return policy.chunk([seen], None if shape is None else noise(0, shape)).physical


def test_lerobots_own_migration_takes_the_layout_of_0_3(
    checkpoint: Checkpoint, lerobot: Policy, tmp_path: Path
) -> None:
    made = checkpoint("act")
    old = variant("release_0_3", made, tmp_path / "old")
    assert not list(old.folder.glob("policy_*"))
    configure(old.folder, pretrained_backbone_weights=None, device="cpu")
    new = replace(made, folder=tmp_path / "new")
    words = ["migrate", "--pretrained-path", str(old.folder), "--output-dir", str(new.folder)]
    with (
        patch.object(sys, "argv", words),
        patch.object(PreTrainedPolicy, "generate_model_card"),
    ):  # which asks the network
        migrate_policy_normalization.main()
    np.testing.assert_allclose(answer(load(new)), answer(lerobot("act")), atol=1e-6)


def test_lerobot_finds_the_statistics_of_0_3_among_the_weights(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Its migration of a Diffusion Policy ends when that writes its crop."""
    made = checkpoint("diffusion")
    old = load_file(variant("release_0_3", made, tmp_path / "old").folder / WEIGHTS)
    assert (
        migrate_policy_normalization.remove_normalization_layers(old).keys()
        == load_file(made.folder / WEIGHTS).keys()
    )
    table, found = statistics(), migrate_policy_normalization.extract_normalization_stats(old)
    used = {"observation.state": ("min", "max"), "action": ("min", "max")}
    used |= {f"observation.images.{camera}": ("mean", "std") for camera in CAMERAS}
    assert {feature: set(numbers) for feature, numbers in found.items()} == {
        feature: set(names) for feature, names in used.items()
    }
    for feature, numbers in found.items():
        for name, values in numbers.items():
            np.testing.assert_array_equal(values, table[feature][name])


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_the_layout_of_0_4_is_loaded_and_answers_the_same(
    family: str, checkpoint: Checkpoint, lerobot: Policy, tmp_path: Path
) -> None:
    old = variant("release_0_4", checkpoint(family), tmp_path / "old")
    steps = json.loads((old.folder / "policy_preprocessor.json").read_text())["steps"]
    assert "relative_actions_processor" not in [step["registry_name"] for step in steps]
    np.testing.assert_array_equal(answer(load(old)), answer(lerobot(family)))


def test_the_name_of_0_5_is_unknown_to_lerobot_0_6(checkpoint: Checkpoint, tmp_path: Path) -> None:
    old = variant("release_0_5", checkpoint("pi0_relative"), tmp_path / "old")
    with pytest.raises(ImportError, match="delta_actions_processor"):
        load(old)


@pytest.mark.parametrize(
    ("family", "name"), [("pi0", "truncated_weights"), ("pi0", "missing_weights"), ("act", "missing_weights")]
)
def test_lerobot_takes_a_part_of_the_weights_in_silence_and_answers_wrongly(
    family: str, name: str, checkpoint: Checkpoint, lerobot: Policy, tmp_path: Path
) -> None:
    part = load(variant(name, checkpoint(family), tmp_path / "part"))
    assert np.abs(answer(part) - answer(lerobot(family))).max() > 1e-2


def test_lerobot_leaves_actions_without_statistics_as_they_are(
    checkpoint: Checkpoint, lerobot: Policy, tmp_path: Path
) -> None:
    bare = load(variant("missing_statistics", checkpoint("act"), tmp_path / "bare"))
    np.testing.assert_array_equal(answer(bare), lerobot("act").chunk([SEEN]).normalised)


def test_weights_of_a_compiled_network_are_loaded_into_a_compiled_network(
    checkpoint: Checkpoint, lerobot: Policy, tmp_path: Path
) -> None:
    compiled = variant("compiled_weights", checkpoint("diffusion"), tmp_path / "compiled").folder
    config = PreTrainedConfig.from_pretrained(compiled)
    config.device, config.pretrained_backbone_weights = "cpu", None
    loaded = get_policy_class("diffusion").from_pretrained(compiled, config=config).state_dict()
    own = lerobot("diffusion").policy.state_dict()
    assert {name.replace("._orig_mod", "") for name in loaded} == own.keys()
    name = "diffusion.unet.final_conv.1.weight"
    np.testing.assert_array_equal(loaded[name.replace("unet", "unet._orig_mod")], own[name])


def test_renamed_cameras_are_those_of_the_robot(
    checkpoint: Checkpoint, lerobot: Policy, tmp_path: Path
) -> None:
    renamed = load(variant("renamed_cameras", checkpoint("smolvla"), tmp_path / "renamed"))
    pictures = {theirs: SEEN.pictures[own] for theirs, own in CALLED.items()}
    seen = replace(SEEN, pictures=pictures)
    np.testing.assert_array_equal(answer(renamed, seen), answer(lerobot("smolvla")))


def test_a_run_has_the_newest_checkpoint_behind_its_link(checkpoint: Checkpoint, tmp_path: Path) -> None:
    run = VARIANTS["run_folder"](checkpoint("act").folder, tmp_path / "run")
    last = run / "checkpoints" / "last"
    assert last.resolve().name == STEP
    assert (last / "pretrained_model" / CONFIG).is_file()
    assert not (run / CONFIG).exists()


@pytest.mark.parametrize("name", ["unknown_step", "step_of_own_class", "unknown_type", "lora"])
def test_lerobot_refuses_what_it_does_not_know(name: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"blur_faces|my_steps|my_policy|model\.safetensors"):
        load(variant(name, checkpoint("act"), tmp_path / name))
