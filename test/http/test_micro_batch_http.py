# SPDX-License-Identifier: Apache-2.0
"""Robots that ask at the same time share runs of the network, and each gets the chunk that it would get alone."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from asking import AT_REST, BEYOND, act, figure
from http_client import Answer, Background, Client, at_the_policy, busy, good, jpeg, wait_for
from raw_http import act_bytes
from servers import Server

from reflex_core.errors import ConfigurationError
from reflex_core.policy.micro_batch import TOLERANCE

Serve = Callable[..., Server]
ROBOTS = 8


def batching(serve: Serve, name: str = "batched", **settings: object) -> Server:
    return serve(name, max_batch=ROBOTS, http_threads=ROBOTS, embodiment="", **settings)


def answer_to(client: Client, robot: int, name: str, **fields: Any) -> Answer:
    """What one of eight different robots asks, under a name without a history."""
    state = [joint + 0.001 * robot for joint in AT_REST]
    more = {"image": jpeg(colour=(20 * robot, 90, 200)), "seed": robot, "robot_id": f"{name}-{robot}"}
    return act(client, **({"state": state} | more | fields))


def at_once(
    server: Server, robots: int = ROBOTS, odd: dict[int, dict[str, Any]] | None = None
) -> list[Answer]:
    """The answers of robots that all wait for the policy before it is free."""
    with busy(server.engine):
        waiting = [
            Background(
                lambda robot=robot: answer_to(server.client, robot, "together", **(odd or {}).get(robot, {}))  # type: ignore[misc]
            )
            for robot in range(robots)
        ]
        wait_for(lambda: at_the_policy(server.engine) == robots)
    return [one.result() for one in waiting]


def assert_same(one: Answer, other: Answer) -> None:
    assert (one.status, other.status) == (200, 200)
    assert one.json["seed"] == other.json["seed"]
    np.testing.assert_allclose(one.json["actions"], other.json["actions"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["batched", "batched_per_step"])
def test_eight_robots_at_once_each_get_what_they_get_alone(name: str, serve: Serve) -> None:
    server = batching(serve, name)
    together = at_once(server)
    assert figure(server.client, "reflex_batch_size_count") == 1
    assert figure(server.client, "reflex_batch_size_sum") == ROBOTS
    alone = [answer_to(server.client, robot, "alone") for robot in range(ROBOTS)]
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)
    chunks = {tuple(np.ravel(one.json["actions"]).tolist()) for one in together}
    assert len(chunks) == ROBOTS
    assert figure(server.client, "reflex_batch_size_sum") == 2 * ROBOTS


def test_robots_that_go_on_asking_are_never_given_anothers_chunk(serve: Serve) -> None:
    server = batching(serve)
    wanted = [answer_to(server.client, robot, "alone") for robot in range(ROBOTS)]

    def ask_on(robot: int) -> list[Answer]:
        return [answer_to(server.client, robot, f"again-{number}") for number in range(10)]

    found = [Background(lambda robot=robot: ask_on(robot)) for robot in range(ROBOTS)]  # type: ignore[misc]
    for robot, answers in enumerate(found):
        for answer in answers.result():
            assert_same(answer, wanted[robot])


def test_one_that_makes_the_network_raise_fails_alone(serve: Serve) -> None:
    server = batching(serve, "batched_raise")
    found = at_once(server, odd={3: {"state": BEYOND}})
    assert [answer.status for answer in found] == [200, 200, 200, 500, 200, 200, 200, 200]
    for robot in (0, 1, 2, 4, 5, 6, 7):
        assert_same(found[robot], answer_to(server.client, robot, "alone"))
    assert figure(server.client, "reflex_batch_alone_total", reason="failed") == ROBOTS


def test_nan_of_one_holds_that_one_alone(serve: Serve) -> None:
    server = batching(serve, "batched_nan")
    found = at_once(server, odd={3: {"state": BEYOND}})
    assert [answer.json["hold_reason"] for answer in found] == ["", "", "", "non_finite", "", "", "", ""]
    for robot in (0, 1, 2, 4, 5, 6, 7):
        assert_same(found[robot], answer_to(server.client, robot, "alone"))
    assert figure(server.client, "reflex_batch_alone_total", reason="not_finite") == ROBOTS


def test_one_that_is_refused_never_reaches_the_batch(serve: Serve) -> None:
    server = batching(serve)
    assert answer_to(server.client, 1, "bad", state=[0.0]).status == 422
    assert [answer.status for answer in at_once(server)] == [200] * ROBOTS


def test_a_client_that_has_gone_does_not_disturb_the_others(serve: Serve) -> None:
    server = batching(serve)
    with busy(server.engine):
        gone = socket.create_connection(("127.0.0.1", server.sidecar.port))
        gone.sendall(act_bytes(state=AT_REST))
        wait_for(lambda: at_the_policy(server.engine) == 1)
        waiting = [
            Background(lambda robot=robot: answer_to(server.client, robot, "together"))  # type: ignore[misc]
            for robot in range(4)
        ]
        wait_for(lambda: at_the_policy(server.engine) == 5)
        gone.close()
    for robot, one in enumerate(waiting):
        assert_same(one.result(), answer_to(server.client, robot, "alone"))


def test_a_deadline_that_a_batch_would_miss_is_kept_by_runs_of_one(serve: Serve) -> None:
    server = batching(serve, deadline_ms=20_000.0)
    assert server.engine.loaded is not None
    took_s = server.engine.loaded.policy._batches._took_s  # type: ignore[attr-defined]
    took_s.update(dict.fromkeys((2, 4, 8), 3600.0))
    found = at_once(server, 2)
    assert [answer.json["source"] for answer in found] == ["policy", "policy"]
    assert (
        figure(server.client, "reflex_batch_size_sum")
        == figure(server.client, "reflex_batch_size_count")
        == 2
    )
    assert figure(server.client, "reflex_batch_alone_total", reason="deadline") == 1


def test_the_deadline_that_a_client_states_keeps_it_out_of_a_batch_that_would_miss_it(serve: Serve) -> None:
    server = batching(serve)
    assert server.engine.loaded is not None
    server.engine.loaded.policy._batches._took_s.update(dict.fromkeys((2, 4, 8), 3600.0))  # type: ignore[attr-defined]
    body = json.dumps(good(state=AT_REST)).encode()
    with busy(server.engine):
        waiting = [
            Background(lambda: server.client.ask("POST", "/act", body, X_Reflex_Deadline_Ms="60000"))
            for _ in range(2)
        ]
        wait_for(lambda: at_the_policy(server.engine) == 2)
    assert [one.result().status for one in waiting] == [200, 200]
    assert figure(server.client, "reflex_batch_alone_total", reason="deadline") == 1
    assert (
        figure(server.client, "reflex_batch_size_sum")
        == figure(server.client, "reflex_batch_size_count")
        == 2
    )


def test_too_few_threads_for_the_batch_are_warned_of(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    serve("batched", max_batch=ROBOTS, http_threads=2, embodiment="")
    assert "max_batch is 8, but http_threads is 2" in caplog.text
    caplog.clear()
    batching(serve)
    assert "max_batch is" not in caplog.text


def test_a_batch_over_its_deadline_ends_and_the_next_one_is_served(serve: Serve) -> None:
    server = batching(serve, "batched_burning", deadline_ms=300.0)
    found = at_once(server, 2, odd={1: {"state": BEYOND}})
    assert [answer.json.get("source") for answer in found] == ["hold", "hold"]
    assert server.engine.loaded is not None
    deadline = server.engine.loaded.deadline
    wait_for(lambda: not deadline.busy)
    wait_for(lambda: answer_to(server.client, 0, "later").json.get("source") == "policy")


def test_config_says_what_is_batched(serve: Serve) -> None:
    server = batching(serve)
    described = server.client.get("/config").json["effective"]["batching"]
    assert (described["max_batch"], described["sizes"], described["off"]) == (ROBOTS, [2, 4, 8], "")
    assert described["largest_difference"] <= TOLERANCE


def test_an_export_for_one_robot_is_refused_at_the_start(serve: Serve) -> None:
    with pytest.raises(ConfigurationError, match="--max-batch 8 needs graphs with a dynamic batch axis"):
        batching(serve, "mono_pi0_7")
