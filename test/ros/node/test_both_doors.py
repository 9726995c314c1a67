# SPDX-License-Identifier: Apache-2.0
"""One engine, two interfaces: what /act says of an answer, ~/action_chunk says as well."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import BEYOND, act, figure
from http_client import Client, text
from reflex_ros.msg import ActionChunk
from ros_world import JOINTS, REACH_HOME, World, rows, wait_for, world
from servers import ExportDir

from reflex_core.chunks.handover import LEAD_S
from reflex_core.records.trace.parse import Recorded
from reflex_core.records.trace.reader import TraceReader
from reflex_core.values import Request, Served

WEDGES = ["telemetry", "admission", "latency", "guard", "deadline", "cloud", "breaker", "policy"]
ROBOT = "warehouse-01"


@dataclass(frozen=True)
class Answers:
    """One observation and seed asked through both interfaces, and what the trace says of the two answers."""

    chunk: ActionChunk
    reply: dict[str, Any]
    records: dict[str, Recorded]
    config: dict[str, Any]
    health: dict[str, Any]
    status: Any
    counted: float


def client_of(scene: World) -> Client:
    assert scene.server.sidecar is not None
    return Client(scene.server.sidecar.port)


def all_wedges(directory: Path) -> dict[str, Any]:
    """Every flag of the seed on the embedded policy. Joint 6 may not quite go where the robot stands: it is clamped."""
    limits = directory / "robot_limits.json"
    highest = [
        home + (1.0 if name != "panda_joint6" else -0.05)
        for name, home in zip(JOINTS, REACH_HOME, strict=True)
    ]
    document = {
        "joint_names": JOINTS,
        "position_min": [home - 1.0 for home in REACH_HOME],
        "position_max": highest,
        "max_consecutive_clamps": 0,
    }
    limits.write_text(json.dumps(document))
    return {
        "embodiment": "franka", "safety_config": str(limits), "adaptive_steps": True, "deadline_ms": 20_000.0,
        "cloud_fallback": "http://127.0.0.1:9", "inject_latency_ms": 20.0, "record": str(directory / "traces"),
        "audit_log": str(directory / "audit"), "max_consecutive_crashes": 5, "cuda_graphs": True,
        "auto_calibrate": True, "calibration_cache": str(directory / "calibration.json"), "slo": "p99=60000ms",
        "slo_mode": "degrade", "robot_id": ROBOT, "seed": 11, "http": True, "port": 0,
    }  # fmt: skip


def same_question(request: Request, served: Served) -> dict[str, Any]:
    [(camera, frame)] = request.observation.frames.items()
    assert request.observation.state is not None
    image = {
        "data": text(bytes(frame.data)),
        "encoding": frame.encoding,
        "height": frame.height,
        "width": frame.width,
    }
    return {
        "image": image,
        "state": request.observation.state.tolist(),
        "instruction": request.observation.instruction,
        "seed": served.seed,
        "request_id": "through-the-other-interface",
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    directory = tmp_path_factory.mktemp("both")
    heard: dict[str, tuple[Request, Served]] = {}
    with world(**all_wedges(directory)) as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.server.engine.listen(
            lambda request, served: heard.update({request.request_id: (request, served)})
        )
        scene.activate()
        chunk = scene.robot.next_chunk()
        client = client_of(scene)
        answer_over_http = client.act(same_question(*heard[chunk.request_id]))
        assert answer_over_http.status == 200, answer_over_http.body
        status = wait_for(lambda: scene.robot.status if scene.robot.status.chunks_total else None, "status")
        assert scene.robot.call("stop").success
        found = (client.get("/config").json, client.get("/health").json, status)
        counted = wait_for(
            lambda: (count := figure(client, "reflex_act_latency_seconds_count")) == len(heard) and count,
            "every answer of either interface is counted",
        )
    [path] = [found for found in (directory / "traces").rglob("*") if found.is_file()]
    with TraceReader(path) as trace:
        records = {record.request_id: record for record in trace}
    return Answers(chunk, answer_over_http.json, records, *found, counted)


def test_every_wedge_is_in_force(answers: Answers) -> None:
    assert answers.config["effective"]["wedges"] == WEDGES


def test_both_interfaces_name_the_same_robot_and_model(answers: Answers) -> None:
    chunk, reply = answers.chunk, answers.reply
    assert (chunk.robot_id, reply["robot_id"]) == (ROBOT, ROBOT)
    assert chunk.model_version == reply["model_version"]
    assert chunk.model_version.startswith("reach_panda@")
    assert chunk.inference_mode == reply["inference_mode"] == "onnx_cpu"
    assert chunk.policy_slot == reply["policy_slot"] == "prod"
    assert list(chunk.names) == reply["action_names"] == JOINTS
    assert (chunk.horizon, chunk.action_dim) == (reply["num_actions"], reply["action_dim"])
    assert chunk.dt_s == pytest.approx(reply["dt_s"])


def test_both_interfaces_report_what_the_wedges_did(answers: Answers) -> None:
    chunk, reply = answers.chunk, answers.reply
    assert (chunk.adaptive_enabled, reply["adaptive_enabled"]) == (True, True)
    assert chunk.denoise_steps == reply["adaptive_steps_used"] == reply["denoising_steps"]
    assert 0 < chunk.denoise_steps <= chunk.denoise_steps_configured == reply["num_denoising_steps"]
    assert chunk.injected_latency_ms == reply["injected_latency_ms"] == 20.0
    assert min(chunk.latency_ms, reply["latency_ms"]) >= 20.0
    assert (chunk.deadline_exceeded, reply["deadline_exceeded"]) == (False, False)
    assert (chunk.fallback_age_ms, reply["fallback_age_ms"]) == (0.0, 0.0)
    assert (chunk.source, reply["source"]) == (ActionChunk.SOURCE_POLICY, "policy")
    assert (chunk.hold_reason, reply["hold_reason"]) == ("", "")
    assert (chunk.instruction_truncated, reply["instruction_tokens_cut"]) == (False, 0)
    assert chunk.seed == reply["seed"] >= 11


def test_the_same_observation_and_seed_give_the_same_actions_through_both_interfaces(
    answers: Answers,
) -> None:
    here, there = answers.records[answers.chunk.request_id], answers.records["through-the-other-interface"]
    np.testing.assert_array_equal(here.raw_actions, there.raw_actions)


def test_the_guard_bounds_both_interfaces_and_says_the_same_of_the_joint(answers: Answers) -> None:
    chunk, reply = answers.chunk, answers.reply
    assert (chunk.guard_clamped, reply["guard_clamped"]) == (True, True)
    above = [line for line in chunk.guard_violations if line.startswith("panda_joint6 above max: ")]
    assert len(above) == 1
    assert above == [
        line for line in reply["guard_violations"] if line.startswith("panda_joint6 above max: ")
    ]
    most = np.float32(REACH_HOME[5] - 0.05) + 1e-6
    assert rows(chunk)[chunk.start_index :, 5].max() <= most
    assert np.array(reply["actions"])[:, 5].max() <= most


def test_what_each_interface_gave_is_what_the_trace_keeps(answers: Answers) -> None:
    chunk, reply = answers.chunk, answers.reply
    here, there = answers.records[chunk.request_id], answers.records["through-the-other-interface"]
    assert here.seq == chunk.trace_seq
    # a robot whose command is not known has some rows for the way to the first one that it is given
    led = chunk.start_index + round(LEAD_S / chunk.dt_s) + 1
    np.testing.assert_array_equal(here.actions[led:], rows(chunk)[led:])
    np.testing.assert_array_equal(there.actions, np.array(reply["actions"], np.float32))


def test_status_topic_and_health_agree(answers: Answers) -> None:
    status, health = answers.status, answers.health
    assert (status.state, health["state"]) == ("ready", "ready")
    assert (status.robot_id, health["robot_id"]) == (ROBOT, ROBOT)
    assert (status.embodiment, health["embodiment"]) == ("franka", "franka")
    assert status.model_version == health["model_version"]
    assert (status.guard_tripped, health["guard_tripped"]) == (False, False)
    assert (status.consecutive_failures, health["consecutive_crashes"]) == (0, 0)
    assert health["recorders"] == {"audit": "ok", "trace": "ok"}


def test_metrics_count_both_interfaces(answers: Answers) -> None:
    assert answers.counted >= 2


def test_what_breaks_behind_one_interface_is_closed_at_the_other(export_dir: ExportDir) -> None:
    settings = {"export_dir": str(export_dir("calm_raise")), "embodiment": "franka", "http": True, "port": 0}
    with world(**settings, max_consecutive_crashes=3, breaker_cooldown_s=3600.0) as scene:
        scene.activate()
        scene.robot.next_chunk()
        client = client_of(scene)
        refused = wait_for(
            lambda: (found := act(client, BEYOND)).status == 503 and found, "the breaker opens for HTTP"
        )
        assert refused.json["error"] == "server-degraded"
        wait_for(lambda: scene.robot.status.state == "degraded", "the status topic says so")
        wait_for(lambda: scene.robot.status.holding, "the robot holds")
        assert scene.robot.chunks[-1].source == ActionChunk.SOURCE_HOLD
        assert client.get("/health").json["state"] == "degraded"
        assert scene.robot.call("reset_breaker").success
        assert scene.robot.next_chunk().source == ActionChunk.SOURCE_POLICY
        assert act(client).status == 200
