# SPDX-License-Identifier: Apache-2.0
"""--cloud-fallback between two real servers: what fails here is answered there, and nothing goes in circles."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from asking import BEYOND, act, figure, safety_file
from http_client import good
from servers import Server
from wires import libero
from ws_client import connected

Serve = Callable[..., Server]

UNREACHABLE = "http://127.0.0.1:9"  # the discard port: a connection is refused at once


def point(server: Server, url: str) -> None:
    """Load the policy of a server that has not yet one, with a cloud behind it."""
    server.engine.load(replace(server.engine.settings, cloud_fallback=url))
    server.engine.warm_up()


@pytest.mark.parametrize("fault", ["calm_raise", "calm_nan"])
def test_what_fails_here_is_answered_there(serve: Serve, fault: str) -> None:
    there = serve("calm", robot_id="cloud")
    here = serve(fault, cloud_fallback=there.sidecar.url, cloud_timeout_ms=30_000.0)
    reply = act(here.client, BEYOND, seed=4, request_id="r-4").json
    assert (reply["source"], reply["fallback_target"], reply["policy_slot"]) == ("cloud", "cloud", "cloud")
    assert (reply["robot_id"], reply["request_id"], reply["seed"]) == ("arm7", "r-4", 4)
    assert reply["model_version"].startswith("cloud:")
    assert figure(here.client, "reflex_fallback_invocations_total", fallback_target="cloud") == 1
    assert figure(there.client, "reflex_act_latency_seconds_count") == 1


def test_what_comes_from_the_cloud_passes_the_guard_here(serve: Serve, tmp_path: Path) -> None:
    there = serve("mono_pi0_7")
    slow = safety_file(tmp_path, velocity_max=[0.2] * 7, position_min=[-2.0] * 7, position_max=[2.0] * 7)
    here = serve(
        "calm_raise", cloud_fallback=there.sidecar.url, cloud_timeout_ms=30_000.0, safety_config=slow
    )
    reply = act(here.client, BEYOND).json
    assert (reply["source"], reply["guard_clamped"]) == ("cloud", True)
    assert any(line.endswith("> 0.2 rad/s") for line in reply["guard_violations"])
    steps = np.diff(np.vstack([BEYOND, reply["actions"]]), axis=0)
    assert (np.abs(steps) <= 0.2 * 0.05 + 1e-6).all()


def test_an_open_breaker_asks_the_cloud_at_once(serve: Serve) -> None:
    there = serve("calm")
    here = serve(
        "calm_raise", cloud_fallback=there.sidecar.url, cloud_timeout_ms=30_000.0, max_consecutive_crashes=1
    )
    for state in (BEYOND, BEYOND):
        assert act(here.client, state).json["source"] == "cloud"
    assert here.client.get("/health").json["state"] == "degraded"


def test_over_the_deadline_with_a_cloud_in_reach_the_cloud_answers(serve: Serve) -> None:
    there = serve("calm")
    here = serve("calm_burning_long", cloud_fallback=there.sidecar.url, deadline_ms=2000.0)
    reply = act(here.client, BEYOND).json
    assert (reply["source"], reply["deadline_exceeded"]) == ("cloud", False)


def test_without_the_cloud_the_failure_is_the_one_of_here(serve: Serve) -> None:
    here = serve("calm_raise", cloud_fallback=UNREACHABLE)
    answer = act(here.client, BEYOND)
    assert (answer.status, answer.json["error"]) == (500, "inference-error")
    assert figure(here.client, "reflex_cloud_failures_total", reason="refused") == 1


def test_a_clients_mistake_is_not_sent_on(serve: Serve) -> None:
    there = serve("calm")
    here = serve("calm_raise", cloud_fallback=there.sidecar.url)
    assert here.client.act(state=BEYOND[:5]).status == 422
    assert figure(there.client, "reflex_act_errors_total") == 0


def test_what_was_forwarded_once_is_not_forwarded_again(serve: Serve) -> None:
    there = serve("calm")
    here = serve("calm_raise", cloud_fallback=there.sidecar.url)
    body = json.dumps(good(state=BEYOND)).encode()
    assert here.client.ask("POST", "/act", body, X_Reflex_Hop="1").status == 500
    assert figure(there.client, "reflex_act_latency_seconds_count") == 0


def test_what_was_forwarded_once_is_not_forwarded_again_from_a_websocket(serve: Serve) -> None:
    there = serve("calm")
    here = serve("calm_raise", cloud_fallback=there.sidecar.url)
    observation = libero(**{"observation/state": np.array(BEYOND)})
    with connected(here, X_Reflex_Hop="1") as client:
        client.receive()
        assert client.infer(observation).startswith("inference-error: ")
    assert figure(there.client, "reflex_act_latency_seconds_count") == 0
    with connected(here) as client:
        client.receive()
        assert client.infer(observation)["reflex"]["chunk"]["source"] == "cloud"


def test_two_servers_that_point_at_each_other_and_both_fail_end_in_an_error(serve: Serve) -> None:
    one, other = (serve("calm_raise", ready=False, cloud_timeout_ms=30_000.0) for _ in range(2))
    point(one, other.sidecar.url)
    point(other, one.sidecar.url)
    for attempt in (1, 2):
        for server in (one, other):
            answer = act(server.client, BEYOND)
            assert (answer.status, answer.json["error"]) == (500, "inference-error")
        for server in (one, other):  # each failed on its own request and on the one of its neighbour, no more
            assert figure(server.client, "reflex_act_errors_total", slug="inference-error") == 2 * attempt
            assert figure(server.client, "reflex_cloud_failures_total", reason="status") == attempt
