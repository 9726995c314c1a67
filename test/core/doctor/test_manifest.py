# SPDX-License-Identifier: Apache-2.0
"""`reflex manifest`: an export that brings nothing is green in the doctor afterwards, and what changes it is reported."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest
from servers import ExportDir

from reflex_core.doctor.export_files import hashes
from reflex_core.doctor.finding import FAIL, OK, WARN
from reflex_core.doctor.manifest import shipped_files
from reflex_core.doctor.parity import FIXTURE, parity, record
from reflex_core.export.export import open_export
from reflex_core.files.observations import read_observations
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.presets import load_preset
from reflex_ros.cli.main import main as reflex

Output = pytest.CaptureFixture[str]
ARM = [0.0, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0]


def policy_of(path: Path) -> Policy:
    return load_policy(open_export(path), load_preset("franka"), "cpu", 1)


def manifest(path: Path, *more: str) -> int:
    return reflex(["manifest", str(path), "--embodiment", "franka", *more])


def changed(path: Path, **values: object) -> None:
    file = path / "reflex_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def spoil(path: Path, without: str = "-") -> None:
    """Make the recorded chunk another one; fields whose names end so are left out."""
    with np.load(path / FIXTURE) as stored:
        kept = {name: stored[name] for name in stored.files if not name.endswith(without)}
    np.savez(path / FIXTURE, **(kept | {"normalised": kept["normalised"] + 1}))


@pytest.fixture
def calm(export_copy: ExportDir) -> Path:
    return export_copy("calm")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """One observation as files, its picture a JPEG."""
    folder = tmp_path / "seen"
    folder.mkdir()
    picture = np.full((48, 64, 3), 60, np.uint8)
    picture[10:20, 10:20] = 0, 0, 200
    assert cv2.imwrite(str(folder / "1.jpg"), picture)
    document = {"instruction": "reach the red cube", "state": ARM, "images": {"camera": "1.jpg"}}
    (folder / "1.json").write_text(json.dumps(document))
    return folder


def test_the_doctor_is_green_for_an_export_whose_manifest_was_written_here(
    calm: Path, capsys: Output
) -> None:
    assert hashes(calm).level == WARN
    assert manifest(calm) == 0
    assert "VERIFICATION.md: 4 files" in capsys.readouterr().out
    assert (hashes(calm).level, parity(policy_of(calm)).level) == (OK, OK)
    arguments = ["doctor", str(calm), "--embodiment", "franka", "--no-ros", "--port", "0", "--device", "cpu"]
    assert reflex([*arguments, "--intra-op-threads", "1", "--json"]) == 0
    found = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert found["hashes"]["level"] == found["parity"]["level"] == OK
    assert "largest difference" in found["parity"]["said"]


def test_every_file_but_the_descriptions_and_what_is_hidden_is_listed(calm: Path) -> None:
    (calm / "README.md").write_text("mine")
    (calm / ".cache").mkdir()
    (calm / ".cache" / "model.lock").write_text("")
    assert manifest(calm) == 0
    names = [path.relative_to(calm).as_posix() for path in shipped_files(calm)]
    assert sorted(names) == ["model.onnx", FIXTURE, "reflex_config.json", "tokenizer/tokenizer.json"]
    assert stat.S_IMODE((calm / FIXTURE).stat().st_mode) == 0o644
    (calm / "README.md").write_text("changed")
    assert hashes(calm).level == OK


def test_nothing_is_replaced_without_force(calm: Path, capsys: Output) -> None:
    (calm / "VERIFICATION.md").write_text("of the exporter")
    assert manifest(calm) == 1
    assert "brings VERIFICATION.md already" in capsys.readouterr().err
    assert not (calm / FIXTURE).exists()
    assert (calm / "VERIFICATION.md").read_text() == "of the exporter"
    assert manifest(calm, "--force") == 0
    assert manifest(calm) == 1
    assert f"brings {FIXTURE} and VERIFICATION.md already" in capsys.readouterr().err


def test_a_recorded_observation_is_decoded_and_kept(calm: Path, recorded: Path) -> None:
    assert manifest(calm, "--observations", str(recorded), "--seed", "5", "--tolerance", "1e-4") == 0
    with np.load(calm / FIXTURE) as fixture:
        [camera] = [name for name in fixture.files if name.startswith("image.")]
        assert fixture[camera].shape == (48, 64, 3)
        assert fixture[camera][15, 15, 0] > 150, "RGB"
        assert (str(fixture["instruction"]), int(fixture["seed"])) == ("reach the red cube", 5)
        np.testing.assert_array_equal(fixture["state"], np.float32(ARM))
    assert "0.0001 is allowed" in parity(policy_of(calm)).said
    assert "the recorded observation 1" in (calm / "VERIFICATION.md").read_text()


def test_a_fixture_holds_the_cameras_under_the_names_of_the_export(calm: Path, recorded: Path) -> None:
    """So that it is of use on a robot whose cameras are called otherwise."""
    policy = policy_of(calm)
    assert policy.binding.cameras == {"base": "camera"}
    [observation] = read_observations(recorded)
    record(calm / FIXTURE, policy, observation, seed=3)
    with np.load(calm / FIXTURE) as fixture:
        assert [name for name in fixture.files if name.startswith("image.")] == ["image.base"]
    assert parity(policy).level == OK


@pytest.mark.parametrize("steps", [3, 7])
def test_a_changed_configuration_is_named(export_copy: ExportDir, steps: int) -> None:
    path = export_copy("decomposed_state_per_step")
    policy = load_policy(open_export(path), None, "cpu", 1)
    record(path / FIXTURE, policy, policy.canary(), seed=1)
    changed(path, num_denoising_steps=steps)
    found = parity(load_policy(open_export(path), None, "cpu", 1))
    assert found.level == FAIL
    assert "reflex_config.json (num_denoising_steps, images, normalization, ...) was changed" in found.said
    assert "undo the change" in found.do


def test_other_weights_are_named(calm: Path) -> None:
    assert manifest(calm) == 0
    spoil(calm)
    (calm / "model.onnx.data").write_bytes(b"other weights")
    policy = policy_of(calm)
    assert f"these are {policy.export.model_hash}" in parity(policy).said


def test_a_fixture_that_does_not_say_what_it_is_of_leaves_all_three_open(calm: Path) -> None:
    policy = policy_of(calm)
    record(calm / FIXTURE, policy, policy.canary(), seed=3)
    spoil(calm, without="_hash")
    message = parity(policy).said
    assert all(
        word in message for word in ("weights", "reflex_config.json (num_denoising_steps", "onnxruntime")
    )


def test_what_was_measured_later_is_no_change_of_the_configuration(calm: Path) -> None:
    assert manifest(calm) == 0
    changed(calm, prefix_cache={"image_threshold": 0.1, "max_age_ms": 1000})
    spoil(calm)
    found = parity(policy_of(calm))
    assert "weights and configuration are those that it was recorded with" in found.said
    assert "onnxruntime" in found.do


def test_hashes_can_be_written_anew_beside_the_fixture_of_the_training_code(
    calm: Path, capsys: Output
) -> None:
    assert manifest(calm, "--keep-parity") == 1
    assert "brings no parity.npz" in capsys.readouterr().err
    record(calm / FIXTURE, policy_of(calm), policy_of(calm).canary(), seed=9)
    before = (calm / FIXTURE).read_bytes()
    assert manifest(calm, "--keep-parity") == 0
    changed(calm, notes="edited")
    assert (hashes(calm).level, "--keep-parity --force" in hashes(calm).do) == (WARN, True)
    assert manifest(calm, "--keep-parity") == 1
    assert manifest(calm, "--keep-parity", "--force") == 0
    assert (hashes(calm).level, (calm / FIXTURE).read_bytes()) == (OK, before)


def test_a_fixture_of_another_policy_is_not_kept(calm: Path, capsys: Output) -> None:
    policy = policy_of(calm)
    record(calm / FIXTURE, policy, policy.canary(), seed=9)
    spoil(calm)
    assert manifest(calm, "--keep-parity") == 1
    assert "is of another policy" in capsys.readouterr().err
    assert not (calm / "VERIFICATION.md").exists()


def test_an_observation_that_the_policy_does_not_take_writes_nothing(
    calm: Path, recorded: Path, capsys: Output
) -> None:
    (recorded / "1.json").write_text('{"instruction": "reach", "state": [0, 1]}')
    before = sorted(calm.rglob("*"))
    assert manifest(calm, "--observations", str(recorded)) == 1
    assert "reflex manifest: " in capsys.readouterr().err
    assert sorted(calm.rglob("*")) == before


def test_what_a_table_cannot_hold_is_refused_before_anything_is_written(calm: Path, capsys: Output) -> None:
    (calm / "odd|name").write_text("")
    assert manifest(calm) == 1
    assert "must be without |" in capsys.readouterr().err
    assert not (calm / FIXTURE).exists()


@pytest.mark.parametrize("option", [["--seed", "-1"], ["--tolerance", "0"], ["--tolerance", "nan"]])
def test_a_bad_option_is_status_2(calm: Path, option: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        manifest(calm, *option)
    assert stopped.value.code == 2


def test_an_export_that_is_none_is_refused(tmp_path: Path, capsys: Output) -> None:
    assert manifest(tmp_path / "none") == 1
    assert "no such export directory" in capsys.readouterr().err


def test_the_former_spelling_writes_the_same_manifest_and_names_the_new_one(
    calm: Path, tmp_path: Path, capsys: Output
) -> None:
    copied = Path(shutil.copytree(calm, tmp_path / "copied"))
    assert manifest(copied) == 0
    capsys.readouterr()
    assert reflex(["export", "seal", str(calm), "--embodiment", "franka"]) == 0
    assert capsys.readouterr().err == (
        "reflex export seal is now `reflex manifest FOLDER`; this spelling goes in the next release\n"
    )
    assert (calm / "VERIFICATION.md").read_text() == (copied / "VERIFICATION.md").read_text()
