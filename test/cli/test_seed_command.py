# SPDX-License-Identifier: Apache-2.0
"""The whole command line of the seed in one call, as a process of its own, on the embedded policy."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import families, figure
from children import end
from exports import PANDA_JOINTS
from http_client import PATIENCE_S, Answer, Client, wait_for
from repository import ROOT

from reflex_core.records.trace.reader import TraceReader
from reflex_core.robot.presets import load_preset

ARM = load_preset("franka").without_gripper()
MARGIN_RAD = 0.1
HOME = [0.0, 0.127, 0.0, -2.34, 0.0, 2.46, 0.78]  # in the middle of what the policy was trained on
WEDGES = ["telemetry", "admission", "latency", "guard", "deadline", "cloud", "breaker", "policy"]


@dataclass(frozen=True)
class Run:
    """One start of the command: what it answered while it ran, and how it ended."""

    act: Answer
    health: Answer
    config: Answer
    metric_names: set[str]
    answered: float
    status: int
    log: str


@dataclass(frozen=True)
class Place:
    """Where the command reads and writes."""

    directory: Path

    @property
    def traces(self) -> Path:
        return self.directory / "traces"

    @property
    def calibration(self) -> Path:
        return self.directory / "calibration.json"

    @property
    def limits(self) -> Path:
        return self.directory / "robot_limits.json"


def command(place: Place) -> list[str]:
    """The seed's words; behind them, what keeps them on this machine, inside a temporary directory and without ROS."""
    seed = [
        "serve", str(ROOT / "models" / "reach_panda"),
        "--embodiment", "franka",
        "--safety-config", str(place.limits),
        "--adaptive-steps",
        "--deadline-ms", "20000",  # the seed says 33: a machine that runs other tests as well may need longer
        "--cloud-fallback", "http://127.0.0.1:9",
        "--inject-latency-ms", "0",
        "--record", str(place.traces),
        "--max-consecutive-crashes", "5",
        "--cuda-graphs",
        "--auto-calibrate",
        "--slo", "p99=150ms",
        "--robot-id", "warehouse-01",
    ]  # fmt: skip
    here = ["--no-ros", "--port", "0", "--calibration-cache", str(place.calibration), "--seed", "11"]
    return [sys.executable, "-m", "reflex_ros.cli.main", *seed, *here]


@contextmanager
def serving(place: Place) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """The process once it is ready."""
    process = subprocess.Popen(
        command(place), cwd=ROOT, env=os.environ | {"HOME": str(place.directory)}, text=True,
        stdout=subprocess.PIPE, stderr=(place.directory / "log").open("w"),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        port = next(found[1] for line in lines if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
        client = Client(int(port))
        wait_for(lambda: client.get("/health").status == 200 or process.poll() is not None)
        assert process.poll() is None, (place.directory / "log").read_text()
        yield client, process
    finally:
        end(process)


def run(place: Place) -> Run:
    with serving(place) as (client, process):
        act = client.act(state=HOME, episode_id="ep_1", request_id="r-1", instruction="reach the red block")
        health, config = client.get("/health"), client.get("/config")
        names, answered = set(families(client)), figure(client, "reflex_act_latency_seconds_count")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
        log = (place.directory / "log").read_text()
        return Run(act, health, config, names, answered, process.returncode, log)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("seed"))
    limits = {
        "joint_names": PANDA_JOINTS,
        "position_min": (ARM.action_min + MARGIN_RAD).tolist(),
        "position_max": (ARM.action_max - MARGIN_RAD).tolist(),
    }
    place.limits.write_text(json.dumps(limits))
    return place


@pytest.fixture(scope="module")
def first(place: Place) -> Run:
    """Once for the whole module: it measures the machine, which takes a while."""
    return run(place)


@pytest.fixture(scope="module")
def second(first: Run, place: Place) -> Run:
    return run(place)


@pytest.fixture(scope="module")
def reply(first: Run) -> dict[str, Any]:
    assert first.act.status == 200, first.act.body
    document: dict[str, Any] = first.act.json
    return document


def test_the_actions_are_a_chunk_inside_the_limits(reply: dict[str, Any]) -> None:
    actions = np.asarray(reply["actions"])
    assert actions.shape == (50, 7) == (reply["num_actions"], reply["action_dim"])
    assert reply["action_names"] == PANDA_JOINTS
    assert np.isfinite(actions).all()
    assert (actions >= ARM.action_min + MARGIN_RAD - 1e-6).all()
    assert (actions <= ARM.action_max - MARGIN_RAD + 1e-6).all()
    assert len({tuple(row) for row in actions.tolist()}) > 1, "a policy's chunk, not a hold"


def test_every_field_of_the_seeds_example_is_there_and_true(reply: dict[str, Any]) -> None:
    assert reply["latency_ms"] > 0
    assert reply["inference_mode"] == "onnx_cpu"
    assert isinstance(reply["guard_clamped"], bool)
    assert all(re.match(r"panda_joint\d ", line) for line in reply["guard_violations"])
    assert reply["guard_clamped"] == bool(reply["guard_violations"])
    assert reply["adaptive_enabled"] is True
    assert 0 < reply["adaptive_steps_used"] <= 10
    assert reply["injected_latency_ms"] == 0
    assert reply["robot_id"] == "warehouse-01"


def test_the_other_telemetry_is_true_too(reply: dict[str, Any]) -> None:
    assert (reply["source"], reply["fallback_target"], reply["hold_reason"]) == ("policy", None, "")
    assert (reply["deadline_exceeded"], reply["deadline_misses_total"]) == (False, 0)
    assert (reply["request_id"], reply["episode_id"], reply["seed"] >= 11) == ("r-1", "ep_1", True)
    assert reply["denoising_steps"] == reply["adaptive_steps_used"] <= reply["num_denoising_steps"] <= 10
    assert reply["active_providers"] == ["CPUExecutionProvider"]
    assert 0 < sum(reply["stages_ms"].values()) <= reply["latency_ms"]
    assert reply["latency_p99_ms"] == pytest.approx(reply["latency_ms"], abs=0.002)
    assert reply["model_version"] == f"reach_panda@{reply['model_hash']}"


def test_health_says_who_and_how_it_is(first: Run) -> None:
    health = first.health.json
    assert (first.health.status, health["status"], health["state"]) == (200, "ok", "ready")
    assert (health["model_loaded"], health["inference_mode"]) == (True, "onnx_cpu")
    assert (health["robot_id"], health["embodiment"]) == ("warehouse-01", "franka")
    assert (health["consecutive_crashes"], health["max_consecutive_crashes"]) == (0, 5)
    assert health["recorders"] == {"trace": "ok"}


def test_config_lists_the_wedges_that_are_in_effect(first: Run, place: Place) -> None:
    config = first.config.json
    assert config["model_id"] == "reach_panda"
    assert config["robot_id"] == "warehouse-01"
    assert config["effective"]["wedges"] == WEDGES
    assert config["effective"]["embodiment"] == "franka"
    assert any("cuda_graphs has no effect" in note for note in config["effective"]["notes"])
    assert str(place.directory) not in first.config.body.decode()


def test_metrics_are_those_of_one_answer(first: Run) -> None:
    assert first.answered == 1
    for name in ("reflex_robot_info", "reflex_breaker_state", "reflex_slo_violations", "reflex_records"):
        assert name in first.metric_names


def test_sigterm_ends_it_in_order(first: Run, place: Place) -> None:
    assert first.status == 0, first.log
    assert "Traceback" not in first.log
    trace = min(place.traces.glob("*.jsonl.gz"))
    with TraceReader(trace) as reader:
        [record] = list(reader)
        assert reader.footer is not None
        assert (reader.footer["total_requests"], reader.footer["total_errors"]) == (1, 0)
    assert (record.document["request"]["request_id"], record.document["response"]["source"]) == (
        "r-1",
        "policy",
    )


def test_the_machine_was_measured_and_the_next_start_looks_it_up(
    first: Run, second: Run, place: Place
) -> None:
    cache = json.loads(place.calibration.read_text())
    assert cache["schema_version"] == 1
    [entry] = [entry for key, entry in cache["entries"].items() if key.startswith("franka::")]
    assert entry["provider"] == "CPUExecutionProvider"
    assert second.status == 0, second.log
    assert "measured" in first.log
    assert f"calibration of {entry['timestamp']} taken from" in second.log
    assert "measured" not in second.log
    assert second.act.status == 200
    assert len(list(place.traces.glob("*.jsonl.gz"))) == 2
