# SPDX-License-Identifier: Apache-2.0
"""What the first version made is used for real: replayed, played, compared, continued, or refused by name."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from first_version import MADE, embedded_of_then
from replays import Outcome, command, record
from servers import ExportDir, MakeEngine

from reflex_core.calibration import auto, cache
from reflex_core.calibration.measure import Effort
from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.records.audit.chain import audit_files, verify
from reflex_core.records.audit.log import AuditLog
from reflex_core.records.trace.reader import TraceReader
from reflex_core.settings.table import settings_from
from reflex_ros.cli.main import main
from reflex_ros.settings_sources import given

Output = pytest.CaptureFixture[str]
BEFORE = "the first version, which preprocessed observations differently"
WEIGHTS_ALONE = "covers only the weights"
EXPORTS = MADE / "exports"
LAST_DIGITS = 1e-6  # rad or m: std + eps instead of std
QUICK = Effort(warm_up_runs=1, runs=4, budget_s=1.0)


def replayed(capsys: Output, source: str, *models: Path) -> tuple[Outcome, float]:
    """A replay of one of the recordings, and its largest difference of any action."""
    options = ("--model", "--model-b")
    words = [word for pair in zip(options, models, strict=False) for word in pair]
    outcome = command(capsys, MADE / source, *words, "--device", "cpu", "--output", "-")
    return outcome, float(outcome.report["summary"]["max_abs_diff"])


def test_a_trace_of_an_export_whose_hash_is_the_same_is_repeated_to_the_bit(capsys: Output) -> None:
    outcome, difference = replayed(capsys, "traces/plain.jsonl", EXPORTS / "expert_stack")
    assert (outcome.status, difference) == (0, 0.0)
    assert outcome.report["summary"]["warnings"] == []


@pytest.mark.parametrize("bag", ["bags/mcap.bag", "bags/sqlite3.bag"])
def test_a_bag_is_repeated(bag: str, capsys: Output) -> None:
    outcome, difference = replayed(capsys, bag, EXPORTS / "calm")
    assert outcome.status == 0
    assert difference <= LAST_DIGITS


@pytest.mark.parametrize(
    ("trace", "exports"),
    [
        ("traces/pictures.jsonl.gz", ["calm"]),
        ("traces/shadow.jsonl.gz", ["calm"]),
        ("traces/two.jsonl.gz", ["calm", "calm_other"]),
        ("traces/carried.jsonl.gz", ["measured"]),
    ],
)
def test_a_trace_is_repeated_on_the_weights_it_names_and_the_last_digits_are_explained(
    trace: str, exports: list[str], capsys: Output
) -> None:
    outcome, difference = replayed(capsys, trace, *(EXPORTS / name for name in exports))
    assert outcome.status == 0
    assert difference <= LAST_DIGITS
    assert any(WEIGHTS_ALONE in note for note in outcome.report["summary"]["warnings"])
    assert "model_hash mismatch" not in outcome.err
    assert BEFORE in outcome.err
    assert "std + eps instead of std (affects the last digits)" in outcome.err


def test_a_replay_repeats_the_steps_and_prefixes_of_a_threshold_that_is_served_no_more(
    capsys: Output,
) -> None:
    outcome, _ = replayed(capsys, "traces/carried.jsonl.gz", EXPORTS / "measured")
    summary = outcome.report["summary"]
    assert summary["n_other_steps"] == 0
    assert not any("this replay" in warning for warning in summary["warnings"])


def test_a_trace_of_the_embedded_policy_is_repeated_by_the_embedded_policy_of_today(
    tmp_path: Path, capsys: Output
) -> None:
    for export in (embedded_of_then(tmp_path), Path("demo")):
        outcome, difference = replayed(capsys, "traces/demo.jsonl.gz", export)
        assert outcome.status == 0
        assert difference <= LAST_DIGITS


@pytest.mark.parametrize(
    ("trace", "export", "why"),
    [
        ("traces/resized.jsonl.gz", "", "resized by stretch and bilinear instead of stretch and area"),
        ("traces/quantiles.jsonl.gz", "processors_quantiles", "normalised by quantiles instead of mean_std"),
    ],
)
def test_where_the_answer_is_another_the_replay_says_why(
    trace: str, export: str, why: str, tmp_path: Path, capsys: Output
) -> None:
    model = EXPORTS / export if export else embedded_of_then(tmp_path)
    outcome, difference = replayed(capsys, trace, model)
    assert difference > 10 * LAST_DIGITS
    assert BEFORE in outcome.err
    assert why in outcome.err


def test_a_trace_of_today_says_how_observations_were_prepared_and_is_not_doubted(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "mono_pi0_7", 1, embodiment="franka")
    with TraceReader(trace) as reader:
        assert reader.header["preprocessing"] == 2
    outcome = command(capsys, trace, "--model", export_dir("mono_pi0_7"), "--device", "cpu")
    assert outcome.status == 0
    assert BEFORE not in outcome.err + outcome.out


def test_a_trace_without_pictures_is_inspected(capsys: Output) -> None:
    outcome = command(capsys, MADE / "traces/hashes.jsonl.gz", "--no-replay")
    assert outcome.status == 0
    assert "records: 1 (with footer)" in outcome.out


def test_two_policies_are_compared(capsys: Output) -> None:
    assert main(["ab", "report", str(MADE / "traces/two.jsonl.gz")]) == 0
    output = capsys.readouterr().out
    assert "2/3 = 66.7%" in output
    assert "1/3 = 33.3%" in output


def test_a_dataset_is_made_of_a_trace(tmp_path: Path, capsys: Output) -> None:
    words = [
        "trace",
        "export",
        str(MADE / "traces/pictures.jsonl.gz"),
        "--format",
        "npz",
        "--output",
        str(tmp_path / "set"),
    ]
    assert main(words) == 0, capsys.readouterr().err


def test_the_audit_log_goes_on_where_the_first_version_stopped(tmp_path: Path, capsys: Output) -> None:
    directory = Path(shutil.copytree(MADE / "audit", tmp_path / "audit"))
    before = verify(audit_files(directory))
    log = AuditLog(
        directory,
        robot_id="",
        model_version="m@0",
        model_hash="0" * 16,
        config_hash="0" * 16,
        retention_days=0,
    )
    log.close()
    after = verify(audit_files(directory), before.head)
    assert after.finding is None
    assert after.records > before.records
    assert after.records_after == after.records - before.records
    assert main(["audit", "verify", str(directory)]) == 3
    assert main(["audit", "verify", str(directory), "--head", before.head]) == 0


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The calibration that 3d37f39 kept, as if this were its machine and its day."""
    path = Path(shutil.copy(MADE / "calibration.json", tmp_path))
    monkeypatch.setattr(cache, "OLDEST_DAYS", 100_000)
    return path


@pytest.mark.parametrize(("export", "robot"), [("expert_stack", ""), ("calm", "franka")])
def test_a_calibration_is_taken_whichever_hash_it_stands_under(export: str, robot: str, kept: Path) -> None:
    from reflex_core.robot.presets import load_preset

    machine, found = cache.read(kept).fingerprint, open_export(EXPORTS / export)
    embodiment = load_preset(robot) if robot else None
    taken, sentences = auto.auto_calibrate(found, embodiment, path=kept, machine=machine)
    entries = cache.read(kept).entries
    assert taken == entries[cache.key_of(robot, found.model_hash)]
    assert taken == entries[cache.key_of(robot, found.weights_hash)]
    moved = found.model_hash != found.weights_hash
    assert [("its model_hash covered only the weights" in sentence) for sentence in sentences] == [moved]
    _, again = auto.auto_calibrate(found, embodiment, path=kept, machine=machine)
    assert again == (f"calibration of {taken.timestamp} taken from {kept}",)


def test_a_server_starts_with_the_calibration_of_then_and_keeps_learning_under_the_hash_of_today(
    kept: Path, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine, export = cache.read(kept).fingerprint, EXPORTS / "calm"
    monkeypatch.setattr(auto, "this_machine", lambda: machine)
    values = {"export_dir": str(export), "embodiment": "franka", "intra_op_threads": 0}
    with caplog.at_level(logging.INFO):
        engine = make_engine("calm", **values, auto_calibrate=True, calibration_cache=str(kept))
    assert "its model_hash covered only the weights" in caplog.text
    assert engine.loaded is not None
    assert cache.key_of("franka", open_export(export).model_hash) in cache.read(kept).entries


def test_a_calibration_of_another_machine_is_measured_again_and_the_log_says_why(
    kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = replace(cache.read(kept).fingerprint, cpu_count=64)
    found = open_export(EXPORTS / "expert_stack")
    with caplog.at_level(logging.WARNING):
        taken, sentences = auto.auto_calibrate(found, None, path=kept, machine=other, effort=QUICK)
    assert "it was measured on other hardware or software: cpu_count 2 is now 64" in caplog.text
    assert sentences[0].startswith("measured ")
    assert list(cache.read(kept).entries) == [cache.key_of("", found.model_hash)]
    assert cache.read(kept).entries[cache.key_of("", found.model_hash)] == taken


@pytest.mark.parametrize(
    ("setting", "again"), [("adaptive_steps", "calibrate-adaptive"), ("prefix_cache", "calibrate-prefix")]
)
def test_a_threshold_of_the_first_version_is_not_served_and_its_command_is_named(
    setting: str, again: str, make_engine: MakeEngine
) -> None:
    values = {"export_dir": str(EXPORTS / "measured"), "embodiment": "franka", setting: True}
    with pytest.raises(ConfigurationError, match="first version.*preprocessed observations") as refused:
        make_engine("mono_pi0", **values)
    assert f"reflex {again} " in str(refused.value)


def test_a_fixture_of_the_first_version_still_agrees_where_preprocessing_is_the_same(capsys: Output) -> None:
    words = [
        str(EXPORTS / "measured"),
        "--embodiment",
        "franka",
        "--no-ros",
        "--device",
        "cpu",
        "--port",
        "0",
    ]
    main(["doctor", "--json", *words])
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found["hashes"]["level"] == "ok"
    assert found["parity"]["level"] == "ok"


def test_a_parity_fixture_of_the_first_version_that_differs_names_the_reason(capsys: Output) -> None:
    words = [str(EXPORTS / "sealed"), "--embodiment", "franka", "--no-ros", "--device", "cpu", "--port", "0"]
    assert main(["doctor", "--json", *words]) == 1
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert (
        "recorded by the first version, which preprocessed observations differently"
        in found["parity"]["said"]
    )
    assert "letterbox and bilinear instead of letterbox and area" in found["parity"]["said"]
    assert "reflex manifest" in found["parity"]["do"]


@pytest.mark.parametrize("name", ["serve.yaml", "every_node.yaml", "embedded.yaml"])
def test_a_parameter_file_gives_what_it_gave(name: str) -> None:
    path = MADE / "settings" / name
    for words in (["--ros-args", "--params-file", str(path)], []):
        found = given({}, words, None if words else str(path))
        expected = {"serve.yaml": "exports/calm", "every_node.yaml": "exports/calm", "embedded.yaml": ""}
        assert found.settings.export_dir == expected[name]
        assert found.settings == settings_from(dict(found.written))


def test_a_misspelt_name_that_was_passed_over_is_refused() -> None:
    path = MADE / "settings" / "misspelt.yaml"
    with pytest.raises(ConfigurationError, match="safety_confg.*did you mean safety_config"):
        given({}, ["--ros-args", "--params-file", str(path)])
