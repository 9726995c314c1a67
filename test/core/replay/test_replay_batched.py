# SPDX-License-Identifier: Apache-2.0
"""Answers that shared a run of the network say so in the trace, and are replayed alone, within the tolerance of a batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from http_client import Background, at_the_policy, busy, wait_for
from replays import command, observation
from servers import ExportDir, MakeEngine

from reflex_core.policy.micro_batch import TOLERANCE

ROBOTS = 4


@pytest.mark.parametrize("name", ["batched", "batched_per_step"])
def test_a_batch_is_recorded_and_replayed_within_the_tolerance(
    name: str,
    make_engine: MakeEngine,
    export_dir: ExportDir,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = make_engine(
        name, record=str(tmp_path), record_images="full", record_no_gzip=True, max_batch=ROBOTS
    )
    assert engine.loaded is not None
    binding = engine.loaded.policy.binding
    cameras = tuple(dict.fromkeys(binding.cameras.values()))
    seen = [observation(cameras, binding.state_dim or 7, number) for number in range(ROBOTS + 1)]
    with busy(engine):
        waiting = [
            Background(lambda one=one: engine.act(engine.request(one)))  # type: ignore[misc]
            for one in seen[:ROBOTS]
        ]
        wait_for(lambda: at_the_policy(engine) == ROBOTS)
    assert [one.result().inference.batch_size for one in waiting] == [ROBOTS] * ROBOTS
    engine.act(engine.request(seen[ROBOTS]))
    engine.unload()
    [trace] = tmp_path.glob("*.jsonl")
    records = [json.loads(line) for line in trace.read_text().splitlines()]
    sizes = [record.get("batch_size") for record in records if record["kind"] == "request"]
    assert sizes == [ROBOTS] * ROBOTS + [None]

    done = command(capsys, trace, "--model", export_dir(name), "--fail-on", "actions", "--output", "-")
    summary = done.report["summary"]
    assert (done.status, summary["n_pass_actions"], summary["n_batched"]) == (0, ROBOTS + 1, ROBOTS)
    assert summary["max_abs_diff_batched"] <= TOLERANCE
    *_, alone = done.report["per_request_diffs"]
    assert alone["actions"]["max_abs_diff"] == 0.0
    printed = command(capsys, trace, "--model", export_dir(name)).out
    assert f"recorded in a batch, replayed alone: {ROBOTS}, at worst max_abs=" in printed
