# SPDX-License-Identifier: Apache-2.0
"""`reflex replay` repeats deterministic and diffusion policies to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kinds import HEIGHT, WIDTH, diffusion
from replays import command, observation, written
from schedules import SAMPLE, ddim_table
from servers import ExportDir, MakeEngine

from reflex_core.values import Frame

Output = pytest.CaptureFixture[str]


def record(make_engine: MakeEngine, directory: Path, name: str, **settings: object) -> Path:
    engine = make_engine(name, record=str(directory), record_images="full", **settings)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        frame = Frame(pixels, "rgb8", HEIGHT, WIDTH, 3 * WIDTH)
        seen = replace(observation(("front",), 7, number, frame), stamp_ns=10**18 + number * 50_000_000)
        engine.act(engine.request(seen, episode_id="episode-1"))
    engine.unload()
    return next(iter(directory.glob("*.jsonl*")))


@pytest.mark.parametrize("name", ["act", "act_ensemble", "diffusion_ddim", "diffusion_ddpm"])
def test_every_kind_gives_the_same_bits(
    name: str, make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, name)
    done = command(
        capsys, trace, "--model", export_dir(name), "--diff", "all", "--fail-on", "actions", "--output", "-"
    )
    summary = done.report["summary"]
    assert (done.status, summary["n_diffed"], summary["max_abs_diff"]) == (0, 3, 0.0)
    assert (summary["n_raised"], summary["n_other_steps"]) == (0, 0)


def test_ddim_that_stopped_early_stops_there_again(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    export = tmp_path / "export"
    diffusion(ddim_table(20, SAMPLE), prediction=SAMPLE)(export)
    early = {"adaptive_steps": True, "adaptive_threshold": 0.05}
    trace = record(make_engine, tmp_path / "traces", "act", export_dir=str(export), **early)
    done = command(capsys, trace, "--model", export, "--fail-on", "actions", "--output", "-")
    assert (done.status, done.report["summary"]["max_abs_diff"]) == (0, 0.0)
    steps = {entry["denoise_steps"]["replayed"] for entry in done.report["per_request_diffs"]}
    assert max(steps) < 20


def test_an_averaged_chunk_whose_predecessor_is_missing_is_replayed_alone_and_reported(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path, "act_ensemble", record_no_gzip=True)
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert [line["temporal_ensemble"]["chunks"] for line in lines if line["kind"] == "request"] == [1, 2, 3]
    torn = written(tmp_path / "torn.jsonl", [line for line in lines if line.get("seq") != 0])
    found = command(capsys, torn, "--model", export_dir("act_ensemble"), "--output", "-").report["summary"]
    assert any("1 chunks were guided by one, or averaged with one" in note for note in found["warnings"])
    assert found["max_abs_diff"] > 0
