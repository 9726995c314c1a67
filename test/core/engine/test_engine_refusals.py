# SPDX-License-Identifier: Apache-2.0
"""What the engine refuses to load, each in one clear sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT
from servers import ExportDir, MakeEngine

from reflex_core.engine.engine import Engine
from reflex_core.errors import ConfigurationError
from reflex_core.files.share import share
from reflex_core.settings.table import settings_from

Change = Callable[[Path, dict[str, Any]], object]


def engine_on(path: Path, **settings: object) -> Engine:
    return Engine(settings_from({"export_dir": str(path), "device": "cpu", "intra_op_threads": 1} | settings))


def edited(**changes: Any) -> Change:
    return lambda _, config: config.update(changes)


def without_file(name: str) -> Change:
    return lambda path, _: (path / name).unlink()


BAD_EXPORTS: dict[str, tuple[Change, str]] = {
    "no configuration": (edited(GONE=True), "its reflex_config.json is missing"),
    "no JSON": (edited(BROKEN=True), "reflex_config.json: not readable as JSON"),
    "no graph": (without_file("model.onnx"), "model.onnx: missing"),
    "truncated graph": (
        lambda path, _: (path / "model.onnx").write_bytes((path / "model.onnx").read_bytes()[:-500]),
        "model.onnx: onnxruntime cannot load it",
    ),
    "no tokenizer": (without_file("tokenizer/tokenizer.json"), "tokenizer.json: missing"),
    "damaged tokenizer": (
        lambda path, _: (path / "tokenizer" / "tokenizer.json").write_text("{}"), "not a tokenizer file"
    ),
    "NaN statistics": (
        edited(normalization={"action": {"mean": [float("nan")] * 7, "std": [1.0] * 7}}), "NaN or Inf"
    ),
    "short statistics": (
        edited(normalization={"action": {"mean": [0.0] * 5, "std": [1.0] * 5}}),
        "'normalization.action' must be 7 numbers",
    ),
    "short state statistics": (
        edited(normalization={"state": {"mean": [0.0] * 5, "std": [1.0] * 5}}), "its statistics have 5 numbers"
    ),
    "outside": (edited(graphs={"monolithic": "../model.onnx"}), "lies outside the export directory"),
    "wrong chunk size": (edited(chunk_size=25), "'chunk_size' must be 50"),
    "wrong action dim": (edited(action_dim=6, action_names=[f"panda_joint{n}" for n in range(1, 7)], normalization={}),
                         "its actions have 6 dimensions, embodiment 'franka' has 8, or 7 without its gripper"),
    "other joints": (edited(action_names=[f"ur_{number}" for number in range(7)]), "has joints panda_joint1"),
    "other rate": (edited(frequency_hz=50.0), "trained at 50 Hz, the embodiment says 20 Hz"),
    "other layout": (edited(export_kind="tensorrt"), "'export_kind' must be"),
    "other names": (edited(flow={"noise": "epsilon"}), "'flow' must be naming an input of the graphs"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD_EXPORTS))
def test_a_bad_export_is_refused_in_one_sentence_that_names_the_file(
    export_copy: ExportDir, name: str
) -> None:
    change, says = BAD_EXPORTS[name]
    path = export_copy("mono_pi0_7")
    config = json.loads((path / "reflex_config.json").read_text())
    change(path, config)
    (path / "reflex_config.json").write_text("{" if "BROKEN" in config else json.dumps(config))
    if "GONE" in config:
        (path / "reflex_config.json").unlink()
    engine = engine_on(path, embodiment="franka")
    with pytest.raises(ConfigurationError) as caught:
        engine.load()
    sentence = str(caught.value)
    assert says in sentence
    assert str(path) in sentence
    assert "\n" not in sentence
    assert len(sentence) < 600
    assert (engine.state, engine.reason, engine.loaded) == ("failed", sentence, None)


def test_a_robot_without_the_camera_is_refused(export_dir: ExportDir, tmp_path: Path) -> None:
    robot = json.loads((share() / "config" / "embodiments" / "franka.json").read_text())
    robot["cameras"] = [robot["cameras"][0] | {"name": "wrist_l"}]
    (tmp_path / "robot.json").write_text(json.dumps(robot))
    engine = engine_on(export_dir("mono_pi0_7"), custom_embodiment_config=str(tmp_path / "robot.json"))
    with pytest.raises(
        ConfigurationError, match="the policy needs camera 'base', embodiment 'franka' has wrist_l"
    ):
        engine.load()


def test_a_calibration_file_without_a_robot_is_refused(export_dir: ExportDir) -> None:
    file = ROOT / "test" / "fixtures" / "lerobot_calibration" / "so101.json"
    engine = engine_on(export_dir("mono_pi0_7"), lerobot_calibration=str(file))
    with pytest.raises(
        ConfigurationError, match="'lerobot_calibration': must be left out where no embodiment"
    ):
        engine.load()


def test_an_unknown_robot_is_refused(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", ready=False, embodiment="frnka")
    with pytest.raises(ConfigurationError, match="no embodiment preset 'frnka'"):
        engine.load()
    assert engine.state == "failed"


def test_a_device_that_is_not_there_is_refused(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", ready=False, device="tensorrt")
    with pytest.raises(ConfigurationError, match="device 'tensorrt' needs TensorrtExecutionProvider"):
        engine.load()
