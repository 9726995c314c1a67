# SPDX-License-Identifier: Apache-2.0
"""Each wedge over HTTP, with graphs that really burn, raise and give NaN: deadline, breaker, objective, limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import ALWAYS_MISSED, AT_REST, BEYOND, act, figure, grow_old, miss_the_objective
from http_client import STATE, Background, Client, busy, good, in_flight, wait_for
from servers import ExportDir, Server

from reflex_core.engine.engine import Engine
from reflex_core.errors import ConfigurationError
from reflex_core.settings.table import settings_from
from reflex_ros.cli.main import main
from reflex_ros.sidecar.server import Sidecar

Serve = Callable[..., Server]

HORIZON = 10
BUDGET_MS = 500.0  # enough for a calm inference on a busy machine, far too little for a burning one
DEADLINE = {"deadline_ms": BUDGET_MS, "max_fallback_age_ms": 60_000.0}


def test_over_the_deadline_with_nothing_known_the_robot_holds(serve: Serve) -> None:
    client = serve("calm_burning", **DEADLINE).client
    reply = act(client, BEYOND, episode_id="ep_1").json
    assert (reply["source"], reply["fallback_target"], reply["hold_reason"]) == ("hold", "hold", "deadline")
    assert (reply["deadline_exceeded"], reply["deadline_misses_total"], reply["denoising_steps"]) == (
        True,
        1,
        0,
    )
    np.testing.assert_allclose(reply["actions"], [BEYOND] * 50, rtol=1e-6)


def test_over_the_deadline_the_last_good_chunk_of_the_same_episode_goes_on(serve: Serve) -> None:
    client = serve("calm_burning", **DEADLINE).client
    good_one = act(client, episode_id="ep_1").json
    reply = act(client, BEYOND, episode_id="ep_1").json
    assert (reply["source"], reply["fallback_target"]) == ("last_known_good", "last_known_good")
    assert (reply["deadline_exceeded"], reply["seed"]) == (True, good_one["seed"])
    assert reply["fallback_age_ms"] >= BUDGET_MS - 1.0
    assert 0 < reply["num_actions"] <= good_one["num_actions"]
    assert reply["request_id"] != good_one["request_id"]
    labels = {"embodiment": "franka", "fallback_target": "last_known_good"}
    assert figure(client, "reflex_fallback_invocations_total", **labels) == 1


def test_another_episodes_chunk_never_stands_in(serve: Serve) -> None:
    client = serve("calm_burning", **DEADLINE).client
    assert act(client, episode_id="ep_1").json["source"] == "policy"
    for fields in ({"episode_id": "ep_2"}, {}):
        assert act(client, BEYOND, **fields).json["source"] == "hold"


@pytest.mark.parametrize(
    "who", [{"episode_id": "ep_1"}, {"robot_id": "arm-1"}, {}], ids=["episode", "robot", "nobody"]
)
def test_a_model_that_is_always_over_the_deadline_makes_a_first_chunk_that_stands_in(
    slow: Server, who: dict[str, str]
) -> None:
    """No rate, no position to hold at, and a budget that no inference keeps."""
    first = slow.client.act(**who)
    if first.status == 200:  # on a busy machine the inference may be over before its caller is answered
        assert (first.json["source"], first.json["deadline_exceeded"]) == ("last_known_good", True)
    else:
        assert (first.status, first.json["error"]) == (503, "deadline-exceeded")
        assert int(first.headers["retry-after"]) >= 1
    wait_for(lambda: slow.client.act(**who).status == 200)
    reply = slow.client.act(**who).json
    assert (reply["source"], reply["deadline_exceeded"], reply["num_actions"]) == (
        "last_known_good",
        True,
        HORIZON,
    )
    assert 0 < reply["fallback_age_ms"] <= 60_000.0
    assert figure(slow.client, "reflex_late_inferences_total", outcome="kept") >= 1
    assert slow.client.get("/health").json["consecutive_crashes"] == 0


@pytest.fixture(scope="module")
def slow(export_dir: ExportDir) -> Iterator[Server]:
    """Every answer takes longer than its budget; nothing says how fast its rows are or where the robot is."""
    values = {"export_dir": str(export_dir("decomposed")), "device": "cpu", "intra_op_threads": 1, "port": 0}
    settings = settings_from(values | {"deadline_ms": 0.1, "max_fallback_age_ms": 60_000.0})
    engine = Engine(settings)
    engine.load()
    engine.warm_up()
    sidecar = Sidecar(engine, settings)
    sidecar.start()
    yield Server(engine, sidecar, Client(sidecar.port))
    sidecar.stop()
    engine.unload()


def test_after_a_missed_deadline_the_policy_is_free(serve: Serve) -> None:
    server = serve("calm_burning", **DEADLINE)
    client = server.client
    assert act(client, BEYOND).json["deadline_exceeded"] is True
    reply = act(client).json
    assert (reply["source"], reply["deadline_exceeded"], reply["fallback_target"]) == ("policy", False, None)
    assert server.engine.loaded is not None
    deadline = server.engine.loaded.deadline
    wait_for(lambda: deadline.busy == 0)
    assert deadline.late == 1


def test_a_model_that_keeps_raising_is_left_alone(serve: Serve) -> None:
    client = serve("calm_raise", max_consecutive_crashes=3).client
    assert [act(client, BEYOND).status for _ in range(3)] == [500] * 3
    for state in (BEYOND, AT_REST):
        refused = act(client, state)
        assert (refused.status, refused.json["error"]) == (503, "server-degraded")
        assert refused.headers["retry-after"] == "60"
        assert "failed 3 times in a row" in refused.json["message"]
    health = client.get("/health")
    assert (health.status, health.json["state"]) == (503, "degraded")
    assert (health.json["consecutive_crashes"], health.json["max_consecutive_crashes"]) == (3, 3)
    assert figure(client, "reflex_breaker_state") == 2


def test_retry_after_is_the_cooldown(serve: Serve) -> None:
    client = serve("calm_raise", max_consecutive_crashes=1, breaker_cooldown_s=7.2).client
    act(client, BEYOND)
    assert act(client).headers["retry-after"] == "8"


def test_by_default_five_failures_open_the_breaker(serve: Serve) -> None:
    client = serve("calm_raise").client
    assert [act(client, BEYOND).status for _ in range(6)] == [500] * 5 + [503]


def test_a_success_between_them_starts_the_count_anew(serve: Serve) -> None:
    client = serve("calm_raise", max_consecutive_crashes=2).client
    assert [act(client, state).status for state in (BEYOND, AT_REST, BEYOND, AT_REST)] == [500, 200, 500, 200]
    assert client.get("/health").json["consecutive_crashes"] == 0


def test_a_clients_mistakes_never_count_as_failures(serve: Serve) -> None:
    client = serve("calm_raise", max_consecutive_crashes=1).client
    for mistake in (
        {"image": "!!!!"},
        {"image": None},
        {"state": AT_REST[:5]},
        {"seed": -1},
        {"instruction": 7},
    ):
        assert client.act(**{"state": AT_REST} | mistake).status == 422
    assert client.ask("POST", "/act", b"{").status == 400
    assert client.get("/health").json["consecutive_crashes"] == 0
    assert act(client).status == 200


def test_after_the_cooldown_one_success_closes_the_breaker(serve: Serve) -> None:
    client = serve("calm_raise", max_consecutive_crashes=2, breaker_cooldown_s=0.1).client
    wait_for(lambda: act(client, BEYOND).status == 503)
    wait_for(lambda: act(client).status == 200)
    health = client.get("/health")
    assert (health.status, health.json["state"], health.json["consecutive_crashes"]) == (200, "ready", 0)
    assert figure(client, "reflex_breaker_state") == 0


def test_a_person_may_close_the_breaker(serve: Serve) -> None:
    client = serve("calm_raise", max_consecutive_crashes=1).client
    act(client, BEYOND)
    assert act(client).status == 503
    assert client.ask("POST", "/breaker/reset").json == {"reset": True, "was_open": True}
    assert act(client).status == 200
    assert client.ask("POST", "/breaker/reset").json == {"reset": True, "was_open": False}


def test_without_a_breaker_there_is_none_to_close(serve: Serve) -> None:
    client = serve("calm_raise", max_consecutive_crashes=0).client
    assert [act(client, BEYOND).status for _ in range(7)] == [500] * 7
    answer = client.ask("POST", "/breaker/reset")
    assert (answer.status, answer.json["error"]) == (400, "breaker_not_enabled")


def test_nan_holds_and_counts_against_the_breaker(serve: Serve) -> None:
    client = serve("calm_nan", max_consecutive_crashes=2).client
    for crashes in (1, 2):
        reply = act(client, BEYOND).json
        assert (reply["source"], reply["hold_reason"]) == ("hold", "non_finite")
        np.testing.assert_allclose(reply["actions"], [BEYOND] * 50, rtol=1e-6)
        assert client.get("/health").json["consecutive_crashes"] == crashes
    assert act(client).json["error"] == "server-degraded"


def test_503_refuses_while_the_objective_is_missed_and_serves_again_afterwards(serve: Serve) -> None:
    server = serve("calm", slo=ALWAYS_MISSED, slo_mode="503")
    miss_the_objective(server)
    served = figure(server.client, "reflex_act_latency_seconds_count")
    refused = act(server.client)
    assert (refused.status, refused.json["error"]) == (503, "slo_violation")
    assert refused.headers["retry-after"] == "1"
    assert "the SLO is 0.001 ms" in refused.json["message"]
    assert figure(server.client, "reflex_act_latency_seconds_count") == served, "no inference ran"
    assert server.client.get("/health").status == 200
    grow_old(server)
    assert act(server.client).status == 200


@pytest.mark.parametrize("mode", ["degrade", "auto"])
def test_degrade_really_takes_fewer_steps_and_recovers(serve: Serve, mode: str) -> None:
    server = serve("decomposed_per_step", embodiment="", slo=ALWAYS_MISSED, slo_mode=mode)
    assert server.client.get("/config").json["effective"]["slo"]["mode"] == "degrade"
    miss_the_objective(server)
    taken = figure(server.client, "reflex_denoise_steps_total")
    reply = act(server.client).json
    assert (reply["denoising_steps"], reply["num_denoising_steps"]) == (5, 10)
    assert figure(server.client, "reflex_denoise_steps_total") == taken + 5
    grow_old(server)
    assert act(server.client).json["denoising_steps"] == 10


def test_log_only_counts_and_serves_as_before(serve: Serve) -> None:
    server = serve("decomposed_per_step", embodiment="", slo=ALWAYS_MISSED, slo_mode="log_only")
    miss_the_objective(server)
    assert act(server.client).json["denoising_steps"] == 10
    assert figure(server.client, "reflex_slo_violations_total", slo_kind="p50_exceeded") == 1


def test_auto_only_logs_where_the_loop_is_fused(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        server = serve("calm", slo=ALWAYS_MISSED)
    assert "its denoise loop is fused into one graph" in caplog.text
    assert server.client.get("/config").json["effective"]["slo"] == {
        "objective": "p50=0.001ms",
        "mode": "log_only",
    }
    miss_the_objective(server)
    assert act(server.client).status == 200
    assert figure(server.client, "reflex_slo_violations_total", slo_kind="p50_exceeded") == 1


def test_a_fused_loop_cannot_be_degraded(serve: Serve) -> None:
    server = serve("calm", ready=False, slo="p99=150ms", slo_mode="degrade")
    with pytest.raises(ConfigurationError, match="its denoise loop is fused into one graph"):
        server.engine.load()
    assert server.client.get("/health").json["state"] == "failed"


def test_adaptive_steps_stop_early_on_the_embedded_policy(serve: Serve) -> None:
    client = serve("calm", export_dir="", adaptive_steps=True).client
    reply = act(client, seed=1).json
    assert (reply["adaptive_enabled"], reply["num_denoising_steps"]) == (True, 10)
    assert 0 < reply["adaptive_steps_used"] < 10
    assert figure(client, "reflex_denoise_steps_total") == reply["adaptive_steps_used"]


def test_adaptive_steps_are_refused_where_the_loop_is_fused(serve: Serve) -> None:
    server = serve("calm", ready=False, adaptive_steps=True)
    with pytest.raises(ConfigurationError, match="adaptive"):
        server.engine.load()


def test_injected_latency_is_part_of_the_answers_own(serve: Serve) -> None:
    server = serve("calm", inject_latency_ms=30.0)
    reply = act(server.client).json
    assert reply["injected_latency_ms"] == 30.0
    assert reply["latency_ms"] >= 30.0
    server.engine.adjust(replace(server.engine.settings, inject_latency_ms=0.0))
    assert act(server.client).json["injected_latency_ms"] == 0


def test_more_than_max_concurrent_are_answered_with_retry_after(serve: Serve) -> None:
    server = serve("calm", max_concurrent=2)
    with busy(server.engine):
        waiting = [Background(lambda: act(server.client)) for _ in range(2)]
        wait_for(lambda: in_flight(server.engine) == 2)
        refused = act(server.client)
        assert (refused.status, refused.json["error"]) == (429, "too_many_requests")
        assert (refused.json["concurrent_requests"], refused.json["max_concurrent"]) == (2, 2)
        assert refused.headers["retry-after"] == "1"
        assert server.client.get("/health").status == 200
    assert [request.result().status for request in waiting] == [200] * 2
    assert act(server.client).status == 200


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ("r-1", "r-1"),
        ("a b~[1]", "a b~[1]"),
        ("жук-7", "%D0%B6%D1%83%D0%BA-7"),
        ("50%", "50%25"),
        ("é", "%C3%A9"),
    ],
)
def test_the_request_id_is_echoed_and_safe_in_a_header(serve: Serve, given: str, header: str) -> None:
    client = serve("calm").client
    for answer in (act(client, request_id=given), client.act(request_id=given, state=STATE[:5])):
        assert (answer.headers["x-request-id"], answer.json["request_id"]) == (header, given)


def test_a_request_id_cannot_write_headers(serve: Serve) -> None:
    answer = serve("calm").client.act(good(request_id="a\r\nX-Evil: 1"))
    assert (answer.status, answer.json["error"]) == (422, "bad-request-id")
    assert "x-evil" not in answer.headers
    assert answer.headers["x-request-id"] == answer.json["request_id"]


def test_health_names_the_recorders(serve: Serve, tmp_path: Path) -> None:
    client = serve("calm", record=str(tmp_path / "traces"), audit_log=str(tmp_path / "audit")).client
    assert client.get("/health").json["recorders"] == {"audit": "ok", "trace": "ok"}
    assert serve("calm").client.get("/health").json["recorders"] == {}


ELBOW = {"joint_names": ["elbow"], "position_min": [-1.0], "position_max": [1.0]}


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--safety-config", "/nowhere.json", "/nowhere.json: No such file or directory"),
        ("--safety-config", ELBOW, "'joint_names' must be names of this robot's actions"),
        ("--custom-embodiment-config", {"schema_version": 1}, "robot.json"),
        ("--slo", "p99<150", "slo: expected p<percentile>=<milliseconds>ms such as p99=150ms, got 'p99<150'"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_one_sentence(
    export_dir: ExportDir, tmp_path: Path, capfd: pytest.CaptureFixture[str], flag: str, value: Any, says: str
) -> None:
    if isinstance(value, dict):
        path = tmp_path / "robot.json"
        path.write_text(json.dumps(value))
        value = str(path)
    command = ["serve", str(export_dir("calm")), "--no-ros", "--port", "0", "--embodiment", "franka"]
    assert main([*command, "--device", "cpu", "--slo-mode", "503", flag, value]) in (1, 78)
    [sentence] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("reflex serve: ")]
    assert says in sentence
