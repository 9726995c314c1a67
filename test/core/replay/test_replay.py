# SPDX-License-Identifier: Apache-2.0
"""`reflex replay` on traces of a real engine: the same bits from the same policy, a failure from another."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import jpeg, picture
from replays import Document, command, edited, observation, record, written
from servers import ExportDir, MakeEngine

from reflex_core.files.share import embedded_policy
from reflex_core.values import Frame

Output = pytest.CaptureFixture[str]
LAYOUTS = ["decomposed", "decomposed_per_step", "mono_pi0_7", "expert_stack", "vlm_stack"]


def change_config(path: Path, **changes: object) -> Path:
    file = path / "reflex_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_policy_gives_the_same_bits(
    name: str, make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    robot = {"embodiment": "franka"} if name == "mono_pi0_7" else {}
    trace = record(make_engine, tmp_path, name, **robot)
    done = command(
        capsys, trace, "--model", export_dir(name), "--diff", "all", "--fail-on", "actions", "--output", "-"
    )
    assert done.status == 0
    summary = done.report["summary"]
    assert (summary["n_diffed"], summary["n_pass_actions"], summary["n_pass_cache"]) == (3, 3, 3)
    assert (summary["max_abs_diff"], summary["n_raised"], summary["n_other_steps"]) == (0.0, 0, 0)
    assert [entry["actions"]["max_abs_diff"] for entry in done.report["per_request_diffs"]] == [0.0] * 3


def test_the_embedded_policy_with_adaptive_steps_and_raw_cameras_gives_the_same_bits(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    engine = make_engine(
        "decomposed", export_dir=str(embedded_policy()), adaptive_steps=True, record=str(tmp_path), record_images="full"
    )  # fmt: skip
    taken = set()
    for number in range(6):
        pixels = picture(96, seed=number)
        seen = observation(("camera",), 7, number, Frame(pixels[..., ::-1].copy(), "bgr8", 96, 96, 3 * 96))
        taken.add(engine.act(engine.request(seen)).inference.denoise_steps)
    engine.unload()
    assert len(taken) > 1
    (trace,) = tmp_path.glob("*.gz")
    done = command(capsys, trace, "--model", embedded_policy(), "--fail-on", "actions", "--output", "-")
    assert done.status == 0
    assert done.report["summary"]["max_abs_diff"] == 0.0
    steps = {entry["denoise_steps"]["replayed"] for entry in done.report["per_request_diffs"]}
    assert steps == taken


@pytest.mark.parametrize(
    "max_steps_recorded", [True, False], ids=["max_steps recorded", "only the steps that were used"]
)
def test_fewer_steps_of_a_degraded_service_are_taken_again(
    max_steps_recorded: bool, make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    engine = make_engine(
        "decomposed_per_step", record=str(tmp_path), record_images="full", record_no_gzip=True
    )
    request = engine.request(observation(("base", "wrist_l", "wrist_r"), 7, 0))
    assert engine.act(replace(request, max_steps=3)).inference.denoise_steps == 3
    engine.unload()
    (trace,) = tmp_path.glob("*.jsonl")
    if not max_steps_recorded:
        trace = edited(trace, lambda document: document.pop("max_steps"))
    done = command(capsys, trace, "--model", export_dir("decomposed_per_step"), "--fail-on", "actions")
    assert done.status == 0
    assert "max_abs=0.00e+00 [PASS]" in done.lines[0]


def test_lines_and_summary_read_as_promised(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "decomposed")
    done = command(capsys, trace, "--model", export_dir("decomposed"), "--diff", "all", "--n", "2")
    assert done.status == 0
    output = done.out.splitlines()
    assert output[0] == f"Replay: {trace}"
    header = json.loads(trace.read_text().splitlines()[0])
    for number, key in enumerate(
        ("reflex_version", "model_hash", "config_hash", "model_type", "export_kind", "embodiment"), start=1
    ):
        assert output[number] == f"  {key}: {header[key]}"
    assert f"Loading target model: {export_dir('decomposed')}" in output
    assert "Replaying requests (--n=2, --diff=all):" in output
    assert len(done.lines) == 2
    number = r"[+-]?\d+\.\d"
    pattern = (
        r"  seq=   0  actions: cos=1\.000000 max_abs=0\.00e\+00 \[PASS\]"
        rf"  latency: \d+→\d+ms \({number}%\) \[(PASS|FAIL)\]  cache: n/a→n/a \[PASS\]"
    )
    assert re.fullmatch(pattern, done.lines[0])
    summary = output[output.index("Summary:") :]
    assert summary[1:3] == ["  replayed: 2", "  diffed: 2"]
    assert "  actions: 2/2 pass (cos≥0.999, max_abs<1e-3)" in summary
    assert any(line.endswith("/2 pass (within ±5% of recorded total_ms)") for line in summary)
    assert "  cache: 2/2 pass (status match)" in summary
    assert done.err == ""


def test_another_model_is_diffed_warned_of_and_fails(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "mono_pi0_7", embodiment="franka")
    other = export_dir("wide")
    done = command(capsys, trace, "--model", other, "--fail-on", "actions")
    assert done.status == 3
    assert len(done.lines) == 3
    assert all("[FAIL]" in line for line in done.lines)
    assert "WARN: model_hash mismatch" in done.out
    assert command(capsys, trace, "--model", other).status == 0


def test_a_small_joint_of_another_scale_fails(
    make_engine: MakeEngine, export_copy: ExportDir, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    """1.3 times the travel of a joint that moves by a tenth of a milliradian: cosine and max_abs see nothing."""
    path = export_copy("mono_pi0_7")
    statistics = json.loads((path / "reflex_config.json").read_text())["normalization"]
    statistics["action"]["std"][6] = 1e-4
    change_config(path, normalization=statistics)
    trace = record(make_engine, tmp_path / "traces", "mono_pi0_7", export_dir=str(path), embodiment="franka")
    assert command(capsys, trace, "--model", path, "--fail-on", "actions").status == 0
    statistics["action"]["std"][6] = 1.3e-4
    change_config(path, normalization=statistics)
    done = command(capsys, trace, "--model", path, "--fail-on", "actions")
    assert done.status == 3
    assert "WARN: config_hash mismatch" in done.out
    assert all("cos=1.000000" in line and "[FAIL] panda_joint7" in line for line in done.lines)


def test_another_shape_is_a_failure(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "decomposed")
    done = command(capsys, trace, "--model", export_dir("mono_pi0"), "--fail-on", "actions")
    assert done.status == 3
    assert "shape (10, 7)→(10, 32) [FAIL]" in done.lines[0]
    assert "  other shape: 3, counted as failed" in done.out


def test_a_predict_that_raises_is_a_failure_of_every_mode(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "mono_pi0_7", embodiment="franka")

    def beyond(document: Document) -> None:
        if document["seq"] == 1:
            document["request"]["state"][0] = 2.5

    trace = edited(trace, beyond)
    for mode in ("actions", "cache", "latency-median"):
        done = command(
            capsys, trace, "--model", export_dir("failing_raise"), "--diff", "all", "--fail-on", mode
        )
        assert done.status == 3
        assert "replay raised InferenceError" in done.lines[1]
        assert "  raised: 1, counted as failed" in done.out


def test_what_no_policy_answered_is_counted_and_left_out(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "decomposed", count=4)

    def other(document: Document) -> None:
        if document["seq"] == 1:
            document["response"]["source"] = "last_known_good"
        if document["seq"] == 2:
            document["response"]["source"] = "hold"
        if document["seq"] == 3:
            document |= {"error": {"slug": "bad-image", "message": "no picture"}}

    done = command(capsys, edited(trace, other), "--model", export_dir("decomposed"), "--output", "-")
    assert done.status == 0
    summary = done.report["summary"]
    assert (summary["n_records"], summary["n_diffed"]) == (4, 1)
    assert summary["n_left_out"] == {"last_known_good": 1, "hold": 1, "error": 1}
    assert "1 error, 1 hold, 1 last_known_good" in done.err


def test_a_chunk_that_the_guard_held_back_is_replayed(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    """The model gave NaN, the robot got a hold: the NaN is what a replay must show again."""
    engine = make_engine("failing_nan", embodiment="franka", record=str(tmp_path), record_images="full")
    seen = observation(("camera",), 7, 0)
    assert seen.state is not None
    seen.state[0] = 2.5
    assert engine.act(engine.request(seen)).hold_reason == "non_finite"
    engine.unload()
    (trace,) = tmp_path.glob("*.gz")
    done = command(capsys, trace, "--model", export_dir("failing_nan"), "--fail-on", "actions")
    assert done.status == 0
    assert len(done.lines) == 1
    done = command(capsys, trace, "--model", export_dir("wide"), "--fail-on", "actions")
    assert done.status == 3
    assert "max_abs=inf [FAIL]" in done.lines[0]


def test_pictures_of_a_hash_only_trace_are_found_by_their_hash(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path / "traces", "decomposed", record_images="hash_only")
    model = export_dir("decomposed")
    done = command(capsys, trace, "--model", model)
    assert done.status == 1
    assert "--images" in done.err
    assert "--no-replay" in done.err
    assert command(capsys, trace, "--no-replay").status == 0
    pictures = tmp_path / "pictures" / "below"
    pictures.mkdir(parents=True)
    for number in range(3):
        for place in range(3):
            data = jpeg(seed=10 * number + place)
            (pictures / f"{hashlib.md5(data).hexdigest()}.jpg").write_bytes(data)
    done = command(capsys, trace, "--model", model, "--images", tmp_path / "pictures", "--fail-on", "actions")
    assert done.status == 0
    assert "max_abs=0.00e+00" in done.lines[2]
    next(iter(pictures.iterdir())).unlink()
    done = command(capsys, trace, "--model", model, "--images", tmp_path / "pictures", "--fail-on", "actions")
    assert done.status == 3
    assert "none of the 8 files has that hash" in done.out
    assert command(capsys, trace, "--model", model, "--images", tmp_path / "nowhere").status == 1


def test_a_trace_without_pictures_replays_on_a_policy_that_takes_none(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path / "blind", "expert_stack", record_images="none")
    done = command(capsys, trace, "--model", export_dir("expert_stack"), "--fail-on", "actions")
    assert done.status == 0
    trace = record(make_engine, tmp_path / "seeing", "decomposed", record_images="none")
    done = command(capsys, trace, "--model", export_dir("decomposed"))
    assert done.status == 1
    assert "recorded with --record-images none" in done.err


def test_latency_is_judged_line_by_line_and_by_medians(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "decomposed", count=8)
    model = export_dir("decomposed")

    def taking(total_ms: float) -> Path:
        return edited(trace, lambda document: document["latency"].update(total_ms=total_ms))

    judged = ("--diff", "latency", "--fail-on")
    assert command(capsys, taking(1e-3), "--model", model, *judged, "latency-median").status == 3
    fast = taking(1e6)
    assert command(capsys, fast, "--model", model, *judged, "latency").status == 3
    done = command(capsys, fast, "--model", model, *judged, "latency-median", "--output", "-")
    assert done.status == 0
    assert done.report["summary"]["latency"]["verdict"] == "faster"


def test_a_recorded_cache_hit_that_is_none_now_fails(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "decomposed")
    hit = edited(trace, lambda document: document.update(cache={"status": "hit"}))
    done = command(capsys, hit, "--model", export_dir("decomposed"), "--diff", "cache", "--fail-on", "cache")
    assert done.status == 3
    assert "cache: hit→n/a [FAIL]" in done.lines[0]


def test_two_slots_are_replayed_on_two_exports_with_counts_of_their_own(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    names = {"a": "decomposed", "b": "decomposed_state"}
    documents: list[Document] = []
    policies: list[Document] = []
    for slot, name in names.items():
        trace = record(make_engine, tmp_path / slot, name)
        header, *requests, _ = [json.loads(line) for line in trace.read_text().splitlines()]
        policies.append({"slot": slot, "model_id": name, "model_hash": header["model_hash"]})
        documents += [
            request | {"slot": slot, "seq": len(documents) + n} for n, request in enumerate(requests)
        ]
    header |= {"model_hash": policies[0]["model_hash"], "config_hash": "", "policies": policies}
    trace = written(tmp_path / "two.jsonl", [header, *documents])
    model, other = (export_dir(name) for name in names.values())
    done = command(
        capsys, trace, "--model", model, "--model-b", other, "--fail-on", "actions", "--output", "-"
    )
    assert done.status == 0
    slots = done.report["summary"]["slots"]
    assert {slot: tally["n_pass_actions"] for slot, tally in slots.items()} == {"a": 3, "b": 3}
    assert "WARN" not in done.err
    done = command(capsys, trace, "--model", model, "--fail-on", "actions")
    assert done.status == 3
    assert "WARN: slot b was recorded with another model" in done.out
    output = done.out[done.out.index("  slot a: 3 replayed") :].splitlines()
    assert "3/3 pass" in output[1]
    assert any("0/3 pass" in line for line in output)


def test_a_seed_of_the_caller_takes_the_place_of_the_recorded_one(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "decomposed")
    model = export_dir("decomposed")
    done = command(capsys, trace, "--model", model, "--seed", "5", "--fail-on", "actions")
    assert done.status == 3
    assert "WARN: the start noise was drawn from seed 5" in done.out
    unseeded = edited(trace, lambda document: document.pop("noise"))
    done = command(capsys, unseeded, "--model", model, "--fail-on", "actions")
    assert done.status == 3
    assert "the noise of 3 requests was not recorded" in done.out


def test_columns_are_compared_by_name(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "mono_pi0_7")

    def turned(document: Document) -> None:
        response: dict[str, Any] = document["response"]
        response["names"] = response["names"][::-1]
        for key in {"actions", "raw_actions"} & set(response):
            response[key] = np.array(response[key])[:, ::-1].tolist()

    done = command(capsys, edited(trace, turned), "--model", export_dir("mono_pi0_7"), "--fail-on", "actions")
    assert done.status == 0


def test_the_robot_of_the_trace_is_taken_unless_another_is_named(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "mono_pi0_7", embodiment="franka")
    model = export_dir("mono_pi0_7")
    assert command(capsys, trace, "--model", model, "--embodiment", "ur5").status == 2

    def moved(document: Document) -> None:
        document["settings"] |= {"custom_embodiment_config": "/robots/arm7.json"}

    lost = edited(trace, moved, kind="header")
    done = command(capsys, lost, "--model", model)
    assert done.status == 2
    assert "/robots/arm7.json, which is not here" in done.err
    assert (
        command(capsys, lost, "--model", model, "--embodiment", "franka", "--fail-on", "actions").status == 0
    )
