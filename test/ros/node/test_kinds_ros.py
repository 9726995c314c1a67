# SPDX-License-Identifier: Apache-2.0
"""ACT and Diffusion Policy command a robot over ROS; what was served replays to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kinds import act, diffusion
from replays import command
from ros_world import wait_for, world
from schedules import ddim_table

Output = pytest.CaptureFixture[str]
ANY_SIZE = [{"camera": "front", "input": "img_front", "mask": None, "resize": "stretch"}]


def served(
    tmp_path: Path, make: Callable[[Path], None], enough: Callable[[Any], bool]
) -> tuple[Path, list[dict[str, Any]]]:  # fmt: skip
    """The trace of a robot that followed the policy until `enough` holds for the newest chunks, and its requests."""
    make(tmp_path / "export")
    traces = {"record": str(tmp_path / "traces"), "record_images": "full", "record_no_gzip": True}
    with world(export_dir=str(tmp_path / "export"), embodiment="franka", **traces) as scene:
        scene.activate()
        scene.robot.next_chunk()
        wait_for(lambda: enough(scene.robot.chunks), "enough chunks")
    (trace,) = (tmp_path / "traces").glob("*.jsonl")
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    return trace, [line for line in lines if line["kind"] == "request"]


def replayed(capsys: Output, trace: Path, export: Path) -> Any:
    done = command(capsys, trace, "--model", export, "--fail-on", "actions", "--output", "-")
    return done.report["summary"]


def test_act_averages_its_chunks_with_one_inference_per_control_step(tmp_path: Path, capsys: Output) -> None:
    make = act(temporal_ensemble_coeff=0.01, images=ANY_SIZE, n_action_steps=1)
    trace, requests = served(tmp_path, make, lambda chunks: len(chunks) >= 12)
    averaged = [line["temporal_ensemble"] for line in requests if "temporal_ensemble" in line]
    assert max(block["chunks"] for block in averaged) >= 5
    assert all(block["elapsed_rows"] > 0 for block in averaged if block["previous"])
    assert {line["denoise"]["steps_used"] for line in requests} == {1}
    summary = replayed(capsys, trace, tmp_path / "export")
    assert summary["n_diffed"] >= 12
    assert summary["max_abs_diff"] == 0.0


def test_diffusion_moves_a_robot(tmp_path: Path, capsys: Output) -> None:
    trace, requests = served(
        tmp_path,
        diffusion(ddim_table(10), images=ANY_SIZE, n_action_steps=4),
        lambda chunks: len(chunks) >= 4,
    )
    assert {line["denoise"]["steps_used"] for line in requests} == {10}
    assert replayed(capsys, trace, tmp_path / "export")["max_abs_diff"] == 0.0
