# SPDX-License-Identifier: Apache-2.0
"""What a LeRobot folder holds, read without torch from folders that LeRobot itself saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoint_folders import (
    BEFORE,
    CONFIG,
    DATASET,
    FAMILIES,
    JOINTS,
    VLM,
    WORDS,
    checkpoint_folder,
    configure,
    edit,
    options,
    step,
)
from safetensors.numpy import load_file, save_file

from reflex_core.errors import ConfigurationError
from reflex_export.checkpoint import Checkpoint
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.options import ExportOptions


def read(folder: Path, work: Path, given: ExportOptions | None = None) -> Checkpoint:
    work.mkdir(exist_ok=True)
    return read_checkpoint(str(folder), given or options(), work)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read(family: str, tmp_path: Path, work: Path) -> None:
    found = read(checkpoint_folder(tmp_path / "policy", family), work)
    assert (found.family, found.state_dim, found.action_dim, found.name) == (family, 6, 6, "policy")
    assert found.joints == JOINTS
    assert [camera.camera for camera in found.cameras if not camera.empty] == ["top", "wrist"]
    assert (found.robot.frequency_hz, found.robot.robot_type) == (30.0, "so101_follower")
    assert found.normalization.action is not None
    assert found.weights.elements == 524


@pytest.mark.parametrize(
    ("family", "horizon", "executed", "observations", "empty", "version"),
    [
        ("act", 50, 40, 1, 0, "0.4 to 0.6"),
        ("diffusion", 16, 8, 2, 0, "0.4 to 0.6"),
        ("smolvla", 50, 50, 1, 1, "0.4 to 0.6"),
        ("pi0", 50, 50, 1, 1, "0.6"),
        ("pi05", 50, 50, 1, 1, "0.6"),
        ("xvla", 32, 32, 1, 0, "0.4 to 0.6"),
    ],
)
def test_rows_history_and_empty_cameras(
    family: str,
    horizon: int,
    executed: int,
    observations: int,
    empty: int,
    version: str,
    tmp_path: Path,
    work: Path,
) -> None:
    found = read(checkpoint_folder(tmp_path / "policy", family), work)
    assert (found.horizon, found.n_action_steps, found.observation_steps) == (horizon, executed, observations)
    assert sum(camera.empty for camera in found.cameras) == empty
    assert found.version == version


def test_a_pipeline_of_0_5_is_recognised_by_the_name_of_its_step(tmp_path: Path, work: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy", "pi0")
    edit(
        folder / BEFORE,
        lambda document: step(document, "relative_actions_processor").update(
            registry_name="delta_actions_processor"
        ),
    )
    assert read(folder, work).version == "0.5"


def test_a_camera_keeps_its_name_on_the_robot_where_the_pipeline_renames_it(
    tmp_path: Path, work: Path
) -> None:
    folder = checkpoint_folder(tmp_path / "policy", "act")
    rename = {"observation.images.front": "observation.images.top"}
    edit(
        folder / BEFORE,
        lambda document: step(document, "rename_observations_processor")["config"].update(rename_map=rename),
    )
    top = read(folder, work).cameras[0]
    assert (top.feature, top.observation, top.camera) == (
        "observation.images.top",
        "observation.images.front",
        "front",
    )
    assert (top.input, top.mask) == ("img_top", "mask_top")


def test_empty_cameras_are_fed_last_and_names_become_different_inputs(tmp_path: Path, work: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy", "smolvla")
    picture = {"type": "VISUAL", "shape": [3, 480, 640]}
    names = ("empty_camera_0", "left.front", "left_front")
    inputs = {f"observation.images.{name}": picture for name in names}
    state = {"observation.state": {"type": "STATE", "shape": [6]}}
    configure(folder, input_features=inputs | state)
    cameras = read(folder, work, options(dataset=None, names=JOINTS)).cameras
    assert [(camera.camera, camera.slot, camera.empty) for camera in cameras] == [
        ("left.front", "left_front", False), ("left_front", "left_front_", False), ("empty_camera_0", "empty_camera_0", True),
    ]  # fmt: skip


def test_the_picture_of_old_data_sets_has_no_camera_in_its_name(tmp_path: Path, work: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy", "smolvla")
    inputs = {
        "observation.image": {"type": "VISUAL", "shape": [3, 96, 96]},
        "observation.state": {"type": "STATE", "shape": [6]},
    }
    configure(folder, input_features=inputs)
    (camera,) = read(folder, work).cameras
    assert (camera.observation, camera.camera, camera.input) == ("observation.image", "image", "img_image")


@pytest.mark.parametrize("named", ["run", "run/checkpoints/last", "run/checkpoints/000200"])
def test_a_training_run_is_taken_as_its_last_checkpoint_and_that_is_noted(
    named: str, tmp_path: Path, work: Path
) -> None:
    for number in ("000100", "000200"):
        checkpoint_folder(tmp_path / "run" / "checkpoints" / number / "pretrained_model")
    (tmp_path / "run" / "checkpoints" / "last").symlink_to("000200")
    found = read(tmp_path / named, work)
    assert found.folder.resolve() == tmp_path / "run" / "checkpoints" / "000200" / "pretrained_model"
    assert any("is not the checkpoint itself" in note for note in found.notes)
    assert found.name.startswith("run_")


def test_a_file_of_the_checkpoint_names_its_folder(tmp_path: Path, work: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy")
    assert read(folder / CONFIG, work).folder == folder


def test_the_tokenizer_is_found_where_the_pipeline_names_it(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the checkpoint, under the path that was used in training, and in the cache of the hub."""
    folder = checkpoint_folder(tmp_path / "policy", "smolvla")
    snapshot = tmp_path / "hub" / "models--HuggingFaceTB--SmolVLM2-500M-Video-Instruct" / "snapshots" / "abc"
    shutil.copytree(WORDS, snapshot)
    shutil.copy(VLM / CONFIG, snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert read(folder, work, options(tokenizer=None, vlm=None)).tokenizer == snapshot
    assert read(folder, work, options(tokenizer=None, vlm=None)).vlm == snapshot
    edit(
        folder / BEFORE,
        lambda document: step(document, "tokenizer_processor")["config"].update(tokenizer_name=str(WORDS)),
    )
    assert read(folder, work, options(tokenizer=None)).tokenizer == WORDS
    shutil.copy(WORDS / "tokenizer.json", folder)
    assert read(folder, work, options(tokenizer=None)).tokenizer == folder


def test_bfloat16_is_noted(tmp_path: Path, work: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy", "pi0")
    configure(folder, dtype="bfloat16")
    assert any("bfloat16" in note for note in read(folder, work).notes)


def test_a_data_set_without_the_policys_cameras_is_noted(tmp_path: Path, work: Path) -> None:
    folder, info = checkpoint_folder(tmp_path / "policy"), tmp_path / "info.json"
    document = json.loads((DATASET / "meta" / "info.json").read_text())
    del document["features"]["observation.images.top"]
    info.write_text(json.dumps(document))
    assert any(
        "lists no observation.images.top" in note for note in read(folder, work, options(dataset=info)).notes
    )


def test_what_is_not_given_is_asked_for(tmp_path: Path, work: Path) -> None:
    robot = read(checkpoint_folder(tmp_path / "policy"), work, ExportOptions()).robot
    assert [sentence.split(" is not known")[0].split(" are not known")[0] for sentence in robot.open_questions] == [
        "the names of its joints", "its control rate", "the units of its states and actions"
    ]  # fmt: skip
    given = ExportOptions(names=JOINTS, fps=30, units=("radians",))
    assert read(checkpoint_folder(tmp_path / "other"), work, given).robot.open_questions == ()


def test_the_gripper_of_an_so101_is_counted_in_percent(tmp_path: Path, work: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy")
    assert read(folder, work, options(units=("degrees",))).robot.units == (*["degrees"] * 5, "percent")
    assert read(folder, work, options(units=("radians",))).robot.units == ("radians",)
    given = ExportOptions(names=JOINTS, fps=30, units=("degrees",))
    assert read(folder, work, given).robot.units == ("degrees",)


def test_units_that_cannot_be_radians_are_asked_for_with_their_reach(tmp_path: Path, work: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy")
    (file,) = folder.glob("policy_postprocessor_step_*")
    table = load_file(file)
    table["action.max"] = np.full(6, 97.5, np.float32)
    save_file(table, file)
    (question,) = read(folder, work).robot.open_questions
    assert "they reach 97.5 in training: no radians" in question


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (
            {"names": ("a", "b")},
            r"--names must be 6 different names, one for each action of the policy, got 2: a, b",
        ),
        ({"fps": 50.0}, r"--fps is 50, and the data set was recorded at 30 Hz"),
        ({"units": ("furlongs",)}, r"--units must be of radians, .* got 'furlongs'"),
        (
            {"units": ("degrees", "percent")},
            r"--units must be one unit, or 6 of them, one for each action, got 2",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(
    given: dict[str, object], match: str, tmp_path: Path, work: Path
) -> None:
    with pytest.raises(ConfigurationError, match=match):
        read(checkpoint_folder(tmp_path / "policy"), work, options(**given))


def test_names_of_checkpoint_and_data_set_that_differ_are_refused(tmp_path: Path, work: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy", "pi0")
    names = [f"joint_{number}" for number in range(6)]
    edit(
        folder / BEFORE,
        lambda document: step(document, "relative_actions_processor")["config"].update(action_names=names),
    )
    with pytest.raises(
        ConfigurationError,
        match="the checkpoint calls its actions joint_0, .* the data set calls them shoulder",
    ):
        read(folder, work)
    assert read(folder, work, options(names=JOINTS)).joints == JOINTS
