# SPDX-License-Identifier: Apache-2.0
"""An export appears whole and verified, beside its place where it is not, or not at all."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_folders import (
    AFTER,
    BEFORE,
    DATASET,
    JOINTS,
    checkpoint_folder,
    edit,
    old_layout,
    options,
)
from checkpoint_graphs import small_side
from safetensors.numpy import load_file

from reflex_core.doctor.export_files import hashes
from reflex_core.doctor.finding import OK
from reflex_core.errors import ConfigurationError, EmbodimentError
from reflex_core.files.json_fields import read_object
from reflex_core.robot.presets import load_embodiment
from reflex_export.export import STAGES, TorchSide, run
from reflex_export.options import ExportOptions
from reflex_export.result import Result, Verification


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflex_export.export.LIBRARIES", ())


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return checkpoint_folder(tmp_path / "policy")


def exported(
    policy: Path,
    out: Path | None,
    side: TorchSide | None = None,
    lines: list[str] | None = None,
    **given: Any,
) -> Result:
    reported = lines if lines is not None else []
    return run(
        str(policy), out, options(**given), reported.append, lambda *_: None, lambda: side or small_side()
    )


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_verified_export_is_whole(policy: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = exported(policy, tmp_path / "out", lines=lines)
    assert (result.folder, result.verification.verified) == (tmp_path / "out", True)
    assert left(tmp_path) == ["out", "policy"]
    assert set(left(result.folder)) == {
        "README.md", "VERIFICATION.md", "embodiment.json", "policy.onnx", BEFORE, AFTER, "reflex_config.json",
        "policy_preprocessor_step_3_normalizer_processor.safetensors",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    }  # fmt: skip
    assert hashes(result.folder).level == OK
    staged = [line.split(":")[0] for line in lines if not line.startswith("note")]
    assert staged == [f"{number}/{len(STAGES)} {name}" for number, name in enumerate(STAGES, 1)]
    assert any("the units of its states and actions are not known" in line for line in lines)


def test_words_come_with_their_tokenizer(tmp_path: Path) -> None:
    result = exported(checkpoint_folder(tmp_path / "policy", "smolvla"), tmp_path / "out")
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(left(result.folder))


def test_one_that_differs_is_put_beside_its_place_and_never_called_verified(
    policy: Path, tmp_path: Path
) -> None:
    for _ in range(2):  # a second one takes the place of the first
        result = exported(policy, tmp_path / "out", small_side(2e-4))
        assert result.folder == tmp_path / "out.not-verified"
        assert left(tmp_path) == ["out.not-verified", "policy"]
    for name in ("VERIFICATION.md", "README.md"):
        text = (result.folder / name).read_text()
        assert "NOT VERIFIED: 0.0002" in text
        assert "verified:" not in text
    assert read_object(result.folder / "reflex_config.json")["source"]["verified"] is False


@pytest.mark.parametrize("largest", [float("nan"), float("inf")])
def test_a_difference_that_is_no_number_is_not_verified(policy: Path, tmp_path: Path, largest: float) -> None:
    assert not exported(policy, tmp_path / "out", small_side(largest)).verification.verified


def test_what_was_not_compared_is_not_verified() -> None:
    assert not Verification((), (), (), 1e-4).verified
    assert not Verification(("one",), (), (), 1e-4).verified


def test_half_precision_is_compared_with_its_own_tolerance(policy: Path, tmp_path: Path) -> None:
    assert exported(policy, tmp_path / "out", small_side(5e-3), dtype="fp16").verification.verified
    strict = exported(policy, tmp_path / "strict", small_side(5e-3), dtype="fp16", tolerance=1e-3)
    assert not strict.verification.verified


class Stopped(BaseException):
    """Like KeyboardInterrupt, which would end the tests."""


@pytest.mark.parametrize("stage", ["load", "describe", "answers", "write", "compare"])
@pytest.mark.parametrize("error", [Stopped, ConfigurationError, OSError])
def test_an_interruption_or_an_error_leaves_nothing(
    policy: Path, tmp_path: Path, stage: str, error: type[BaseException]
) -> None:
    def stop(*_: object) -> None:
        raise error("no")

    with pytest.raises(error):
        exported(policy, tmp_path / "out", small_side(**{stage: stop}))
    assert left(tmp_path) == ["policy"]


def test_a_disk_that_becomes_full_is_said_so_and_leaves_nothing(policy: Path, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        ConfigurationError, match=f"^{tmp_path}: the disk became full while the export was written"
    ):
        exported(policy, tmp_path / "out", small_side(write=full))
    assert left(tmp_path) == ["policy"]


def test_a_refusal_leaves_nothing_and_asks_for_no_torch(policy: Path, tmp_path: Path) -> None:
    (policy / AFTER).unlink()

    def torch_side() -> TorchSide:
        raise AssertionError

    with pytest.raises(ConfigurationError, match="missing"):
        run(str(policy), tmp_path / "out", options(), lambda _: None, lambda *_: None, torch_side)
    assert left(tmp_path) == ["policy"]


def test_without_a_name_it_is_written_here_under_the_policys(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert exported(policy, None).folder == tmp_path / "here" / "policy_export"
    with pytest.raises(
        ConfigurationError, match="is there already: name another folder, or replace it with --force"
    ):
        exported(policy, None)
    assert left(tmp_path / "here") == ["policy_export"]


def test_an_export_is_replaced_only_if_that_is_asked_for(policy: Path, tmp_path: Path) -> None:
    out = exported(policy, tmp_path / "out").folder
    (out / "mine.txt").write_text("old")
    with pytest.raises(ConfigurationError, match="--force"):
        exported(policy, out)
    assert (out / "mine.txt").exists()
    exported(policy, out, force=True)
    assert not (out / "mine.txt").exists()
    assert left(tmp_path) == ["out", "policy"]


def test_one_that_fails_leaves_the_export_that_it_was_to_replace(policy: Path, tmp_path: Path) -> None:
    out = exported(policy, tmp_path / "out").folder
    exported(policy, out, small_side(1.0), force=True)
    assert read_object(out / "reflex_config.json")["source"]["verified"] is True
    assert left(tmp_path) == ["out", "out.not-verified", "policy"]


IN_THE_WAY = {
    "file": "is there already and no folder",
    "notes": "is there already, and is no export that --force could replace",
    "link": "is there already and no folder",
    "nowhere/out": "there is no such folder to write the export into: make it first",
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_nothing_else_is_ever_replaced(name: str, policy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "notes")
    with pytest.raises(ConfigurationError, match=IN_THE_WAY[name]):
        exported(policy, tmp_path / name, force=True)
    assert (tmp_path / "notes" / "thesis.tex").read_text() == "mine"


def test_the_folder_where_it_runs_is_not_replaced(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (Path(), Path("../here")):
        with pytest.raises(ConfigurationError, match="is where this runs: name a folder in it"):
            exported(policy, out)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "half\udcff", "long" * 62])
def test_a_name_that_cannot_be_written_is_refused_before_torch_is_asked_for(
    name: str, policy: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigurationError, match="the name of the export must be printable and have at most 255 bytes, got '"
    ):
        exported(policy, tmp_path / name, small_side(load=_never))
    assert left(tmp_path) == ["policy"]


def _never(_: object) -> object:
    raise AssertionError


def test_what_is_in_the_way_of_one_that_is_not_verified_is_found_first(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "out.not-verified").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"out\.not-verified: is there already and no folder"):
        exported(policy, tmp_path / "out", small_side(load=_never))


@pytest.mark.parametrize("what", ["the checkpoint", "the data set", "where this runs"])
def test_a_folder_that_holds_what_is_exported_is_not_replaced(
    what: str, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(policy, tmp_path / "out").folder
    inside = out / "mine"
    if what == "the checkpoint":
        policy = policy.rename(inside)
    elif what == "the data set":
        shutil.copytree(DATASET, inside)
    else:
        inside.mkdir()
        monkeypatch.chdir(inside)
    before = left(out)
    dataset = inside if what == "the data set" else None
    with pytest.raises(ConfigurationError, match=r"out: holds .*mine.*, which --force would remove with it"):
        exported(policy, out, small_side(load=_never), force=True, dataset=dataset)
    assert left(out) == before


def test_an_export_that_cannot_be_moved_away_is_refused_before_torch_is_asked_for(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(policy, tmp_path / "out").folder
    monkeypatch.setattr(  # root, who may run these tests, may write anywhere
        "reflex_export.folder.target_folder.unwritable", lambda path: "nothing can be written" * (path == out)
    )
    with pytest.raises(
        ConfigurationError, match="out: is there already, and nothing can be written: name another"
    ):
        exported(policy, out, small_side(load=_never), force=True)


def test_a_robot_that_was_filled_in_outlives_another_export(policy: Path, tmp_path: Path) -> None:
    """embodiment.json is where its owner is asked to put the robot's limits: hours of work, once."""
    lines: list[str] = []
    out = exported(policy, tmp_path / "out").folder
    skeleton = (out / "embodiment.json").read_bytes()
    exported(policy, out, lines=lines, force=True)
    assert (out / "embodiment.json").read_bytes() == skeleton
    assert "is kept" not in "".join(lines)
    edit(out / "embodiment.json", lambda document: document["velocity_max"].__setitem__(0, 1.0))
    mine = (out / "embodiment.json").read_bytes()
    exported(policy, out, lines=lines, force=True)
    assert (out / "embodiment.json").read_bytes() == mine
    assert f"note: {out / 'embodiment.json'} is kept as it was filled in" in lines
    (out / "embodiment.json").write_text('{"half":')
    exported(policy, out, force=True)
    assert (out / "embodiment.json").read_text() == '{"half":'


def test_an_interruption_at_the_last_moment_leaves_the_export_that_was_there(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(policy, tmp_path / "out").folder
    (out / "mine.txt").write_text("old")
    rename = Path.rename

    def stopped(path: Path, target: Path) -> Path:
        if path.name == "out" and target == out:
            raise Stopped
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(Stopped):
        exported(policy, out, force=True)
    assert (out / "mine.txt").read_text() == "old"
    assert left(tmp_path) == ["out", "policy"]


def test_an_empty_folder_is_filled(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert exported(policy, tmp_path / "out").folder == tmp_path / "out"


@pytest.mark.parametrize(
    ("oldest", "where"),
    [((3, 0), "pip install"), ((99, 1), "in an environment of Python 99.1 or newer, pip install")],
)
def test_missing_libraries_are_named_with_how_to_install_them(
    oldest: tuple[int, int], where: str, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reflex_export.export.LIBRARIES", ("json", "no_such_torch"))
    monkeypatch.setattr("reflex_export.export.OLDEST_PYTHON", oldest)
    with pytest.raises(
        ConfigurationError, match=rf"^no_such_torch: not installed: {where} 'reflex_ros\[export\]'"
    ):
        exported(policy, tmp_path / "out")


def test_a_checkpoint_of_0_3_is_exported_from_its_converted_folder(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def load(checkpoint: Any) -> object:
        seen.append(sorted(checkpoint.weights.tensors))
        assert checkpoint.weights.path.parent == checkpoint.folder
        assert not checkpoint.weights.path.is_symlink()
        return object()

    result = exported(old_layout(tmp_path / "policy"), tmp_path / "out", small_side(load=load))
    assert seen == [["model.action_out.weight", "model.text_model.embed_tokens.weight"]]
    assert {BEFORE, AFTER} <= set(left(result.folder))
    assert left(tmp_path) == ["out", "policy"]


def test_the_skeleton_asks_for_what_the_checkpoint_does_not_know(policy: Path, tmp_path: Path) -> None:
    folder = exported(policy, tmp_path / "out").folder
    with pytest.raises(
        EmbodimentError, match=r"asks for values that the exporter could not know.*action_space.ranges\[0\]"
    ) as caught:
        load_embodiment(folder / "embodiment.json")
    assert caught.value.slug == "embodiment-unfilled"
    document = read_object(folder / "embodiment.json")
    assert document["joint_names"] == list(JOINTS)
    assert document["cameras"][0] == {
        "name": "top",
        "resolution": [640, 480],
        "fps": 30.0,
        "color_space": "rgb8",
    }
    assert document["control"] == {"frequency_hz": 30.0, "chunk_size": 50, "rtc_execution_horizon": 40}
    assert document["gripper"] == {"component_idx": 5}
    # what was seen in training is a hint, and nothing that limits
    assert (
        "in the policy's units, which is no limit: shoulder_pan -1.836 to 1.765; shoulder_lift"
        in document["notes"]
    )
    assert not [pair for pair in document["action_space"]["ranges"] if not str(pair).startswith("FILL IN")]


def test_a_skeleton_that_is_filled_in_is_an_embodiment(policy: Path, tmp_path: Path) -> None:
    folder = exported(policy, tmp_path / "out").folder
    document = read_object(folder / "embodiment.json")
    document["action_space"]["ranges"] = [[-2.0, 2.0]] * 6
    document["velocity_max"] = [1.0] * 5 + [None]
    document["constraints"] |= {"max_ee_velocity": 0.5, "max_gripper_velocity": 1.0}
    (folder / "embodiment.json").write_text(json.dumps(document))
    robot = load_embodiment(folder / "embodiment.json")
    assert (robot.joint_names, robot.frequency_hz, robot.execution_horizon) == (JOINTS, 30.0, 40)
    np.testing.assert_array_equal(robot.action_max, np.full(6, 2.0))
    assert hashes(folder).level == OK  # filling it in is no damage


def test_a_skeleton_asks_for_the_rate_too_where_nothing_says_it(policy: Path, tmp_path: Path) -> None:
    result = run(str(policy), tmp_path / "out", ExportOptions(), lambda _: None, lambda *_: None, small_side)
    document = read_object(result.folder / "embodiment.json")
    assert "joint_names" not in document
    assert document["control"]["frequency_hz"].startswith("FILL IN")
    assert document["cameras"][0]["fps"].startswith("FILL IN")


def test_a_skeleton_asks_for_the_travel_of_joints_that_are_counted_in_shares_of_it(
    policy: Path, tmp_path: Path
) -> None:
    options = ExportOptions(names=JOINTS, fps=30.0, units=(*["degrees"] * 5, "percent"))
    result = run(str(policy), tmp_path / "out", options, lambda _: None, lambda *_: None, small_side)
    travel = read_object(result.folder / "embodiment.json")["travel"]
    assert travel[:5] == [None] * 5
    assert travel[5].startswith(
        "FILL IN: [at the low end, at the high end] of the calibrated travel of gripper"
    )


def test_offsets_are_hinted_at_by_the_range_of_the_state(tmp_path: Path) -> None:
    """The actions of this policy are offsets, but for the gripper's."""
    folder = exported(checkpoint_folder(tmp_path / "policy", "pi0"), tmp_path / "out").folder
    notes = read_object(folder / "embodiment.json")["notes"]
    states, actions = (
        load_file(next(folder.glob(f"policy_{kind}processor_step_*")))
        for kind in ("pre", "post")
    )  # fmt: skip
    low, high = states["observation.state.min"], states["observation.state.max"]
    assert f"shoulder_pan {low[0]:.4g} to {high[0]:.4g}; " in notes
    assert f"gripper {actions['action.min'][5]:.4g} to {actions['action.max'][5]:.4g}." in notes


def test_degrees_are_hinted_at_in_rad_too(policy: Path, tmp_path: Path) -> None:
    folder = exported(policy, tmp_path / "out", units=("degrees",)).folder
    notes = read_object(folder / "embodiment.json")["notes"]
    assert "shoulder_pan -1.836 to 1.765 degrees (-0.032 to 0.031 rad)" in notes
    assert "gripper -0.02184 to 0.9338 percent." in notes


def test_the_pages_say_what_was_compared(policy: Path, tmp_path: Path) -> None:
    folder = exported(policy, tmp_path / "out").folder
    page, card = (folder / "VERIFICATION.md").read_text(), (folder / "README.md").read_text()
    assert "| gripper | 1.00e-06 | 5.00e-07 | 1.000000000 | rad |" in page
    assert "- random, 640x480" in page
    assert "black ones change the answers by 0.5 or more" in page
    assert "lerobot 0.6.1" in page
    assert "ACT, trained with LeRobot and exported to ONNX" in card
    assert "| actions | 6: shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll, gripper |" in card
    assert "## Still to be said" in card


def test_pictures_that_hardly_matter_are_said_to(policy: Path, tmp_path: Path) -> None:
    side = small_side()

    def compare(*arguments: Any) -> Verification:
        found = side.compare(*arguments)
        return Verification(
            found.observations, found.stages, found.joints, found.tolerance, (1, 2, 4), 1e-3, {}, ("Odd.",)
        )

    page = (
        exported(policy, tmp_path / "out", small_side(compare=compare)).folder / "VERIFICATION.md"
    ).read_text()
    assert "the pictures hardly matter, so this comparison would not have shown a fault in them" in page
    assert "with 1, 2, 4 observations at a time, each row equals its single run" in page
    assert "- Odd." in page
    assert read_object(tmp_path / "out" / "reflex_config.json")["batch"] == {"verified": [1, 2, 4]}
