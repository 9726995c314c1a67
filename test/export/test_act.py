# SPDX-License-Identifier: Apache-2.0
"""ACT from LeRobot's checkpoint to an answer over HTTP: one deterministic graph, pictures of one size, a chunk without noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from agreement import LIMIT, over_http, replayed
from checkpoints import act, act_ensemble
from dataset_folders import with_pictures, write_v3
from exported import actions_of, export, sent, served, verified
from lerobot_answers import LeRobot, load
from raw_observations import observation

from reflex_core.doctor.finding import OK
from reflex_core.doctor.parity import parity
from reflex_core.export.export import open_export
from reflex_core.policy.load import load_policy
from reflex_export.families.table import family
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.lerobot_policy import load as load_here
from reflex_export.onnx_files import write_graphs
from reflex_export.options import ExportOptions

Exported = Callable[..., Path]
Policies = Callable[[str], LeRobot]
OWN, SMALL = (480, 640), (96, 128)
DIFFERS = 3


def test_a_server_gives_lerobots_own_actions(exported: Exported, lerobot: Policies) -> None:
    found = over_http(exported("act"), lerobot("act"), [OWN] * 4)
    assert max(found.values()) <= LIMIT, found


def test_what_was_served_is_replayed_bit_for_bit(exported: Exported, tmp_path: Path) -> None:
    summary = replayed(exported("act"), tmp_path)
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (3, 0.0)


def test_a_picture_of_another_size_is_refused_with_both_sizes(exported: Exported) -> None:
    with served(exported("act")) as server:
        answer = server.client.act(sent(observation(0, (360, 640))) | {"instruction": "x"})
    assert answer.status == 422
    assert "640x480" in answer.json["message"]
    assert "640x360" in answer.json["message"]


def test_a_seed_changes_nothing(exported: Exported) -> None:
    with served(exported("act")) as server:
        one, other = (actions_of(server, observation(5), seed) for seed in (1, 2))
    np.testing.assert_array_equal(one, other)


def test_it_proves_itself_and_the_doctor_repeats_the_proof(exported: Exported) -> None:
    folder = exported("act")
    page = (folder / "VERIFICATION.md").read_text(encoding="utf-8")
    assert "**verified: " in page
    for words in (
        "image inputs",
        "state input",
        "normalised chunk",
        "shoulder_pan",
        "with 1, 2, 4 observations",
    ):
        assert words in page
    assert "hardly matter" not in page
    document = json.loads((folder / "reflex_config.json").read_text(encoding="utf-8"))
    assert document["batch"] == {"verified": [1, 2, 4]}
    assert document["source"]["verified"] is True
    found = parity(load_policy(open_export(folder), None, "cpu", 1))
    assert (found.level, "of 6 observations" in found.said) == (OK, True), found


def test_an_export_that_differs_is_not_called_verified(tmp_path: Path) -> None:
    done = export(
        act(tmp_path / "checkpoint", image=SMALL), tmp_path / "out", "--observations", 2, "--tolerance", 1e-12
    )
    assert done.returncode == DIFFERS, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "out.not-verified"}
    pages = [(tmp_path / "out.not-verified" / name).read_text() for name in ("VERIFICATION.md", "README.md")]
    assert all("NOT VERIFIED" in page for page in pages)
    document = json.loads((tmp_path / "out.not-verified" / "reflex_config.json").read_text())
    assert document["source"]["verified"] is False


def test_pictures_that_hardly_matter_are_named(tmp_path: Path) -> None:
    made = act(tmp_path / "still", image=SMALL)
    weights = made.folder / "model.safetensors"
    _scale(weights, "model.action_head.weight", 1e-4)
    folder = verified(made, tmp_path / "out", "--observations", 2)
    assert "the pictures hardly matter" in (folder / "VERIFICATION.md").read_text(encoding="utf-8")


def _scale(weights: Path, name: str, factor: float) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    tensors[name] = tensors[name] * factor
    save_file(tensors, weights)


def test_observations_of_the_data_set_are_compared_too(tmp_path: Path) -> None:
    made = act(tmp_path / "checkpoint", image=SMALL)
    cubes = write_v3(tmp_path / "cubes", with_pictures(SMALL))
    folder = verified(replace(made, dataset=cubes), tmp_path / "out", "--observations", 4)
    page = (folder / "VERIFICATION.md").read_text(encoding="utf-8")
    assert "over 6 observations" in page
    assert "- episode 0, frame 0 of cubes\n- episode 1, frame 3 of cubes\n" in page
    found = parity(load_policy(open_export(folder), None, "cpu", 1))
    assert (found.level, "of 6 observations" in found.said) == (OK, True), found


def test_half_precision_is_half_as_large_and_close(exported: Exported, lerobot: Policies) -> None:
    whole, half = exported("act"), exported("act", "--dtype", "fp16")
    sizes = [(folder / "policy.onnx").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    found = over_http(half, lerobot("act"), [OWN] * 2)
    assert LIMIT < max(found.values()) <= 2e-2, found
    inputs = onnx.load(half / "policy.onnx").graph.input
    assert {value.type.tensor_type.elem_type for value in inputs} == {onnx.TensorProto.FLOAT}


def test_an_act_that_reads_no_state_is_served(tmp_path: Path) -> None:
    made = act(tmp_path / "checkpoint", image=SMALL, without=("observation.state",))
    folder = verified(made, tmp_path / "out", "--observations", 2)
    document = json.loads((folder / "reflex_config.json").read_text(encoding="utf-8"))
    assert "state" not in document
    found = over_http(folder, load(made), [SMALL] * 2)
    assert max(found.values()) <= LIMIT, found


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of an ACT with as many layers as LeRobot's default, and narrow ones."""
    root = tmp_path_factory.mktemp("deep")
    made = act(root / "checkpoint", image=SMALL, n_encoder_layers=4, n_vae_encoder_layers=4)
    options = ExportOptions()
    checkpoint = read_checkpoint(str(made.folder), options, root)
    graphs = family("act").graphs(load_here(checkpoint).policy, checkpoint, options)
    assert write_graphs(graphs, root, options) == ""
    return root / "policy.onnx"


def test_its_graph_is_small_enough_to_load_at_once(deep: Path) -> None:
    model = onnx.load(deep)
    assert len(model.graph.node) < 2500
    assert not any(node.metadata_props for node in model.graph.node)


def test_the_encoder_of_training_is_left_out(deep: Path) -> None:
    weights = deep.parent / "checkpoint" / "pretrained_model" / "model.safetensors"
    from safetensors.torch import load_file

    tensors = load_file(weights)
    needed = sum(tensor.nbytes for name, tensor in tensors.items() if "vae" not in name)
    left_out = sum(tensor.nbytes for name, tensor in tensors.items() if "vae" in name)
    stored = sum(len(tensor.raw_data) for tensor in onnx.load(deep).graph.initializer)
    assert stored < needed + left_out / 2


def test_chunks_of_an_episode_are_averaged_as_lerobot_does(tmp_path: Path) -> None:
    """With one inference per control period, LeRobot's `select_action` gives the first row of the mean."""
    made = act_ensemble(tmp_path / "checkpoint", image=SMALL)
    folder = verified(made, tmp_path / "out", "--observations", 2)
    document: dict[str, Any] = json.loads((folder / "reflex_config.json").read_text(encoding="utf-8"))
    assert (document["temporal_ensemble_coeff"], document["n_action_steps"]) == (0.01, 1)
    periods = [observation(number, SMALL, task="reach") for number in range(6)]
    theirs = load(made).episode(periods)
    with served(folder) as server:
        ours = [
            actions_of(server, seen, 0, episode_id="e", **({"elapsed_rows": 1} if number else {}))[0]
            for number, seen in enumerate(periods)
        ]
    alone = load(made).chunk([periods[-1]]).physical[0]
    assert np.abs(alone - theirs[-1]).max() > 100 * LIMIT
    assert np.abs(np.stack(ours) - theirs).max() <= LIMIT
