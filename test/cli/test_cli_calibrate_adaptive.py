# SPDX-License-Identifier: Apache-2.0
"""`reflex calibrate-adaptive`: what it measures on, what it writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from servers import ExportDir

from reflex_core.export.export import open_export
from reflex_core.export.flow import Adaptive
from reflex_core.files.atomic import write_block
from reflex_core.files.observations import read_observations
from reflex_core.files.share import embedded_policy
from reflex_core.policy.load import load_policy
from reflex_ros.cli.calibrate_adaptive import main
from reflex_ros.cli.main import main as reflex
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import make_scene

Output = pytest.CaptureFixture[str]


@pytest.fixture
def reach(tmp_path: Path) -> Path:
    """A copy of the embedded export that was never calibrated."""
    path = Path(
        shutil.copytree(embedded_policy(), tmp_path / "reach", ignore=shutil.ignore_patterns("mono*"))
    )
    config = config_of(path)
    del config["adaptive"]
    (path / "reflex_config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two observations as files: a PNG, a JPEG."""
    folder = tmp_path_factory.mktemp("recorded")
    arm = Arm()
    for seed, suffix in ((1, "png"), (2, "jpg")):
        scene = make_scene(seed)
        arm.reset(scene)
        image = cv2.cvtColor(arm.image(), cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(folder / f"{seed}.{suffix}"), image)
        write_observation(
            folder / f"{seed}.json",
            instruction=scene.instruction,
            state=list(scene.start_joints_rad),
            images={"camera": f"{seed}.{suffix}"},
        )
    arm.close()
    return folder


def config_of(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / "reflex_config.json").read_text())
    return document


def write_observation(path: Path, **document: object) -> None:
    path.write_text(json.dumps(document))


def test_without_write_it_prints_and_changes_nothing(reach: Path, capsys: Output) -> None:
    before = (reach / "reflex_config.json").read_bytes()
    assert reflex(["calibrate-adaptive", str(reach), "--scenes", "1"]) == 0
    output = capsys.readouterr().out
    assert "9 chunks of 10 steps" in output
    assert output.count("-> ") == 1
    assert "nothing was written" in output
    assert (reach / "reflex_config.json").read_bytes() == before


def test_what_it_writes_is_what_the_policy_then_takes(reach: Path) -> None:
    before = config_of(reach)
    assert main([str(reach), "--scenes", "2", "--write"]) == 0
    after = config_of(reach)
    block = after.pop("adaptive")
    assert after == before
    assert sorted(path.name for path in reach.iterdir() if path.name.startswith(".")) == []
    measured = block["measured"]
    assert (measured["chunks"], measured["denoise_steps"]) == (18, 10)
    assert measured["mean_steps"] < 10
    assert measured["difference"] <= measured["max_difference"] == 0.01
    policy = load_policy(open_export(reach), None, "cpu", 1)
    assert policy.adaptive() == Adaptive(block["threshold"], block["min_steps"], block["patience"])


def test_measuring_again_replaces_the_block(reach: Path) -> None:
    write_block(reach / "reflex_config.json", "adaptive", {"threshold": 9.0, "min_steps": 2})
    assert main([str(reach), "--scenes", "1", "--write"]) == 0
    assert config_of(reach)["adaptive"]["threshold"] < 9


def test_a_looser_bound_saves_more(reach: Path) -> None:
    steps = []
    for bound in ("0.005", "0.02"):
        assert main([str(reach), "--scenes", "2", "--max-difference", bound, "--write"]) == 0
        steps.append(config_of(reach)["adaptive"]["measured"]["mean_steps"])
    assert steps[0] > steps[1]


def test_a_bound_that_nothing_keeps_is_status_1_and_writes_nothing(reach: Path, capsys: Output) -> None:
    assert main([str(reach), "--scenes", "1", "--max-difference", "1e-7", "--write"]) == 1
    assert "leave it off" in capsys.readouterr().out
    assert "adaptive" not in config_of(reach)


def test_recorded_observations_are_measured(reach: Path, recorded: Path, capsys: Output) -> None:
    assert main([str(reach), "--observations", str(recorded), "--seeds", "3", "--write"]) == 0
    assert "6 chunks of 10 steps; 2 recorded observations" in capsys.readouterr().out
    assert config_of(reach)["adaptive"]["measured"]["observations"] == "2 recorded observations"


def test_a_preset_with_a_gripper_that_the_export_lacks_gives_the_arm_s_ranges(
    reach: Path, capsys: Output
) -> None:
    assert main([str(reach), "--scenes", "1", "--embodiment", "franka"]) == 0
    assert "-> " in capsys.readouterr().out


def test_the_file_keeps_its_mode_and_a_link_its_target(reach: Path, tmp_path: Path) -> None:
    """Caches of model hubs are made of links: what they point at belongs to others."""
    target = tmp_path / "blob"
    shutil.move(reach / "reflex_config.json", target)
    target.chmod(0o640)
    before = target.read_bytes()
    (reach / "reflex_config.json").symlink_to(target)
    write_block(reach / "reflex_config.json", "adaptive", {"threshold": 0.1, "min_steps": 3})
    assert target.read_bytes() == before
    assert not (reach / "reflex_config.json").is_symlink()
    assert stat.S_IMODE((reach / "reflex_config.json").stat().st_mode) == 0o640
    assert config_of(reach)["adaptive"] == {"threshold": 0.1, "min_steps": 3}


def refused(arguments: list[str], capsys: Output) -> str:
    assert main(arguments) == 1
    output = capsys.readouterr().err
    assert output.startswith("reflex calibrate-adaptive: ")
    assert len(output.splitlines()) == 1
    return output


def test_a_fused_loop_is_refused(export_dir: ExportDir, capsys: Output) -> None:
    message = refused([str(export_dir("mono_pi0_7")), "--embodiment", "franka"], capsys)
    assert "fused into model.onnx" in message


def test_the_ranges_must_come_from_somewhere(export_dir: ExportDir, capsys: Output) -> None:
    assert "give --embodiment" in refused([str(export_dir("decomposed_per_step"))], capsys)


def test_another_policy_than_the_embedded_one_needs_observations(
    export_dir: ExportDir, capsys: Output
) -> None:
    robot = str(embedded_policy() / "embodiment.json")
    message = refused([str(export_dir("expert_stack")), "--custom-embodiment-config", robot], capsys)
    assert "needs --observations" in message


def test_an_export_without_a_directory_is_refused(tmp_path: Path, capsys: Output) -> None:
    assert "no such export directory" in refused([str(tmp_path / "none")], capsys)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[1]", "must hold a JSON object"),
        ("{", "not readable as JSON"),
        ('{"images": ["a.png"]}', "'images' must be"),
        ('{"images": {"camera": 3}}', "'images' must be"),
        ('{"instruction": 3}', "'instruction' must be"),
        ('{"state": "abc"}', "'state' must be"),
        ('{"images": {"camera": "gone.png"}}', "gone.png"),
        ('{"images": {"camera": "a.json"}}', "neither JPEG nor PNG"),
        ('{"state": [0, 0, 0, 0, 0, 0, 0]}', "camera"),  # what the policy itself misses
    ],
)
def test_a_damaged_observation_is_named(
    reach: Path, tmp_path: Path, document: str, message: str, capsys: Output
) -> None:
    folder = tmp_path / "seen"
    folder.mkdir()
    (folder / "a.json").write_text(document)
    assert message in refused([str(reach), "--observations", str(folder)], capsys)


def test_an_empty_folder_is_refused(reach: Path, tmp_path: Path, capsys: Output) -> None:
    assert "found none" in refused([str(reach), "--observations", str(tmp_path)], capsys)


@pytest.mark.parametrize(
    "option", [["--scenes", "0"], ["--seeds", "x"], ["--max-difference", "1"], ["--max-difference", "nan"]]
)
def test_a_bad_option_is_status_2(option: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(option)
    assert stopped.value.code == 2


def test_files_become_observations(recorded: Path) -> None:
    first, second = read_observations(recorded)
    assert first.state is not None
    assert first.state.dtype == np.float32
    assert {first.frames["camera"].encoding, second.frames["camera"].encoding} == {"png", "jpeg"}
