# SPDX-License-Identifier: Apache-2.0
"""What is wrong with settings whatever the model is, is found before one is loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reflex_core.engine.engine import Engine
from reflex_core.engine.validation import problems
from reflex_core.errors import ConfigurationError
from reflex_core.files.directories import unwritable
from reflex_core.settings.table import settings_from
from reflex_ros.preflight import CHECKS, require_interface, require_sound

ExportDir = Callable[[str], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty").write_text("")
    (tmp_path / "no_export").mkdir()
    (tmp_path / "bad_export").mkdir()
    (tmp_path / "bad_export" / "reflex_config.json").write_text("{")
    (tmp_path / "half_export").mkdir()
    config = {"model_type": "pi0", "export_kind": "monolithic", "chunk_size": 50, "action_dim": 7}
    (tmp_path / "half_export" / "reflex_config.json").write_text(json.dumps(config))
    return tmp_path


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"slo": "150ms"}, "slo: expected p<percentile>=<milliseconds>ms"),
    ({"safety_config": "{}/nope.json"}, "nope.json: No such file"),
    ({"safety_config": "{}/broken.json"}, "broken.json: not readable as JSON"),
    ({"custom_embodiment_config": "{}/nope.json"}, "nope.json: No such file"),
    ({"custom_embodiment_config": "{}/broken.json"}, "broken.json: not readable as JSON"),
    ({"embodiment": "frank"}, "no embodiment preset 'frank'"),
    ({"export_dir": "{}/nope"}, "nope: no such export directory"),
    ({"export_dir": "{}/no_export"}, "reflex_config.json"),
    ({"export_dir": "{}/bad_export"}, "reflex_config.json: not readable as JSON"),
    ({"policy_a": "demo", "policy_b": "{}/nope", "rtc": False}, "nope: no such export directory"),
    ({"policy_a": "demo", "policy_b": "{}/half_export", "rtc": False}, "model.onnx: missing"),
    ({"shadow_policy": "{}/half_export"}, "model.onnx: missing"),
    ({"variant": "nope"}, "there is no variant 'nope'"),
    ({"policy_a": "demo", "policy_b": "demo"}, "--no-rtc"),
    ({"policy_a": "demo"}, "--policy-a needs --policy-b"),
    ({"split": 80}, "--split 80"),
    ({"shadow_policy": "{}/nope"}, "nope: no such export directory"),
    ({"a2c2_checkpoint": "{}/nope.npz"}, "nope.npz: the A2C2 checkpoint cannot be read"),
    ({"a2c2_checkpoint": "{}/file"}, "expected an .npz file"),
    ({"cloud_fallback": "notaurl"}, "setting 'cloud_fallback': 'notaurl' is not the URL"),
    ({"cloud_fallback": "http://cloud:8000", "cloud_api_key_file": "{}/nope"}, "setting 'cloud_api_key_file'"),
    ({"cloud_fallback": "http://cloud:8000", "cloud_api_key_file": "{}/empty"}, "is empty"),
    ({"cloud_api_key_file": "{}/nope"}, "setting 'cloud_api_key_file'"),
    ({"otel_endpoint": "localhost:4318"}, "--otel-endpoint: 'localhost:4318' is not the base URL"),
    ({"record": "/proc/nope"}, "setting 'record': /proc/nope: nothing can be written"),
    ({"record": "{}/file/traces"}, "is not a directory"),
    ({"record": "{}/file"}, "is not a directory"),
    ({"record": "{}/" + "x" * 300}, "File name too long"),
    ({"record_bag": "/proc/nope"}, "setting 'record_bag': /proc/nope: nothing can be written"),
    ({"audit_log": "/proc/nope"}, "setting 'audit_log': /proc/nope: nothing can be written"),
    ({"auto_calibrate": True, "calibration_cache": "/proc/nope/c.json"}, "setting 'calibration_cache': /proc/nope"),
    ({"auto_calibrate": True, "calibration_cache": "{}/no_export"}, "is a directory"),
    ({"auto_calibrate": True, "calibration_cache": "/dev/null"}, "/dev/null: is no regular file"),
    ({"auto_calibrate": True, "calibration_cache": "{}/" + "x" * 300}, "File name too long"),
    ({"auto_calibrate": True, "calibration_cache": "{}/\0"}, "embedded null byte"),
    ({"record": "{}/\0"}, "setting 'record'"),
    ({"providers": ["Nope"]}, "has no Nope"),
    ({"device": "tensorrt"}, "device 'tensorrt' needs TensorrtExecutionProvider"),
    ({"calibrate_force": True}, "--calibrate-force"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "says"), WRONG, ids=lambda each: "-".join(each) if isinstance(each, dict) else ""
)
def test_it_is_found_before_a_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr("reflex_core.engine.engine.assemble", lambda *_: pytest.fail("the model was loaded"))
    before = sorted(folder.rglob("*"))
    values = {
        name: value.replace("{}", str(folder)) if isinstance(value, str) else value
        for name, value in settings.items()
    }
    engine = Engine(settings_from(values), check=require_sound)
    with pytest.raises(ConfigurationError) as refused:
        engine.load()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (engine.state, engine.reason) == ("failed", str(refused.value))
    assert sorted(folder.rglob("*")) == before, "nothing is made where nothing is served"


def test_what_is_right_passes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame")
    settings = settings_from({
        "export_dir": "demo", "embodiment": "franka", "slo": "p99=150ms", "record": str(tmp_path / "a" / "b"),
        "record_bag": str(tmp_path), "audit_log": str(tmp_path / "audit"), "cloud_fallback": "http://cloud:8000",
        "cloud_api_key_file": str(tmp_path / "key"), "auto_calibrate": True, "calibration_cache": str(tmp_path / "c.json"),
    })  # fmt: skip
    assert list(problems(settings, CHECKS)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_every_problem_is_named_not_only_the_first(folder: Path) -> None:
    wrong = {"slo": "fast", "safety_config": str(folder / "nope"), "cloud_fallback": "x"}
    assert list(problems(settings_from({"device": "tensorrt", "allow_cpu_fallback": True}), CHECKS)) == []
    assert [name for name, _ in problems(settings_from(wrong), CHECKS)] == [
        "objective",
        "other servers",
        "safety",
    ]


def test_spans_without_the_extra_are_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reflex_ros.otel.tracing", None)
    with pytest.raises(ConfigurationError, match="needs the extra 'otel'"):
        require_sound(settings_from({"otel_endpoint": "http://localhost:4318"}))


def test_a_directory_that_is_there_is_tried_and_one_that_is_not_is_not_made(tmp_path: Path) -> None:
    assert unwritable(tmp_path) == unwritable(tmp_path / "a" / "b") == ""
    assert unwritable(Path("/proc/nope")).startswith("nothing can be written")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_keep_a_robot_from_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert unwritable(tmp_path) == ""


def test_what_only_ros_gives_is_refused_without_it() -> None:
    require_interface(settings_from({"record_bag": "bags", "http": False}), over_ros=True)
    for wish, says in (
        ({"record_bag": "bags"}, "records what goes over ROS"),
        ({"http": False}, "nothing would be"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            require_interface(settings_from(wish), over_ros=False)
