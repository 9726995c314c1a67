# SPDX-License-Identifier: Apache-2.0
"""The client against a real server: chunks, episodes that are guided, the player, asyncio, openpi's shape, refusals."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_programs import typed
from http_client import Background, at_the_policy, busy, picture, wait_for
from servers import Server

import reflex_client
from reflex_client import AsyncPolicy, InvalidObservationError, Policy, Row
from reflex_core.files.share import embedded_policy
from reflex_ros.sidecar import fair_queue

Serve = Callable[..., Server]
PATIENCE_S = 60.0
HOME = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve("mono_pi0_7", export_dir=str(embedded_policy()))


@pytest.fixture
def policy(server: Server) -> Policy:
    return Policy(server.sidecar.url, timeout_s=PATIENCE_S, robot_id="arm-1")


def observation() -> dict[str, Any]:
    return {"images": picture(), "state": HOME}


def test_a_reply_has_the_chunk_of_the_server_to_the_bit(server: Server, policy: Policy) -> None:
    reply = policy.act(**observation(), instruction="reach", seed=7, request_id="mine", episode_id="one")
    served = server.client.act(
        image=reflex_client.request.image_of(picture(), "image", 95), instruction="reach", seed=7, state=HOME
    ).json  # fmt: skip
    np.testing.assert_array_equal(reply.actions, np.array(served["actions"], np.float32))
    assert (reply.names, reply.dt_s, reply.source) == (
        tuple(served["action_names"]),
        served["dt_s"],
        "policy",
    )
    assert (reply.request_id, reply.episode_id, reply.seed) == ("mine", "one", 7)
    assert reply.cameras_used
    assert reply.document["caller"] == "arm-1"
    assert reply.document["reflex"]["request"]["seed"] == 7
    assert reply.round_trip_ms > reply.latency_ms > 0
    assert not reply.is_fallback
    with pytest.raises(ValueError, match="read-only"):
        reply.actions[0, 0] = 1.0


def test_what_the_page_of_wires_says_to_type_is_answered(server: Server, tmp_path: Path) -> None:
    written = typed("[reflex_client](../how-to/use-the-python-client.md), our own", server.sidecar.port)
    assert eval(written).act(**observation(), instruction="reach").rows == 50
    fields = reflex_client.request.fields_of(picture(), HOME, "reach")
    (tmp_path / "request.json").write_text(json.dumps(fields))
    curl = typed("[any program](../how-to/use-http-from-cpp.md), in JSON", server.sidecar.port)
    done = subprocess.run(["bash", "-c", curl], cwd=tmp_path, capture_output=True, check=True)
    assert len(json.loads(done.stdout)["actions"]) == 50


def test_the_server_s_refusal_has_its_sentence(policy: Policy) -> None:
    with pytest.raises(reflex_client.ObservationRefusedError, match="the state must be 7 numbers") as raised:
        policy.act(picture(), [0.0], "reach")
    assert (raised.value.status, raised.value.slug) == (422, "state-length")


def test_a_wrong_key_is_unauthorised(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFLEX_API_KEY", "the right key")
    url = serve("mono_pi0_7", export_dir=str(embedded_policy())).sidecar.url
    with pytest.raises(reflex_client.UnauthorizedError):
        Policy(url, "wrong").act(**observation(), instruction="reach")
    assert Policy(url, "the right key").act(**observation(), instruction="reach").rows == 50


def test_a_misspelt_field_comes_back(policy: Policy) -> None:
    reply = policy.act(**observation(), instruction="reach", sed=3)
    assert (reply.ignored_fields, dict(reply.did_you_mean)) == (("sed",), {"sed": "seed"})


def test_the_requests_of_an_episode_continue_each_other(policy: Policy) -> None:
    with policy.episode("pick", "reach") as episode:
        first = episode.act(**observation())
        second = episode.act(**observation(), elapsed_rows=5)
        assert (first.rtc_mode, second.rtc_mode) == ("", "guided_identity")
        assert second.document["rtc_previous"] == first.request_id
        assert episode.outcome(success=True, note="well")["success"] is True
    assert (first.episode_id, second.episode_id) == ("pick", "pick")


def rows_of(player: Any, chunks: int) -> list[Row]:
    found: list[Row] = []
    for row in player:
        if row is not None:
            found.append(row)
        if len({id(each.reply) for each in found}) == chunks:
            return found
    raise AssertionError("the player ended")


def test_a_player_goes_on_from_chunk_to_chunk_without_a_gap_and_is_guided(policy: Policy) -> None:
    with (
        policy.episode(instruction="reach") as episode,
        episode.player(observation, execution_horizon=10) as player,
    ):
        found = rows_of(player, 3)
    chunks = [list(group) for _, group in itertools.groupby(found, key=lambda row: row.reply.request_id)]
    assert chunks[0][0].index == 0
    for before, after in itertools.pairwise(chunks):
        assert [row.index for row in before] == list(range(before[0].index, before[-1].index + 1))
        reply = after[0].reply
        assert reply.rtc_mode == "guided_identity"
        assert reply.document["rtc_previous"] == before[0].reply.request_id
        # row 0 of the later chunk was due at its observation, after at most the rows that were handed out by then
        assert after[0].index <= before[-1].index + 1
        assert after[0].index >= 1
    assert player.problem is None


def test_a_player_hands_out_what_is_left_while_the_server_is_away_and_goes_on_when_it_is_back(
    serve: Serve,
) -> None:
    server = serve("mono_pi0_7", export_dir=str(embedded_policy()))
    policy = Policy(server.sidecar.url, timeout_s=0.5)
    with (
        policy.episode(instruction="reach") as episode,
        episode.player(observation, execution_horizon=2) as player,
    ):
        rows_of(player, 1)
        server.engine.pause()
        while player.problem is None:
            assert player.next_row() is not None, "the rows that are left"
        assert isinstance(player.problem, reflex_client.UnavailableError)
        server.engine.warm_up()
        before = player.chunks
        while player.chunks == before:
            player.next_row()
        assert player.problem is None


def test_an_answer_that_would_come_too_late_is_not_made(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_queue, "FIRST_GUESS_S", 2.0 * PATIENCE_S)  # what a request takes, as it believes
    server, answered = serve("mono_pi0_7", export_dir=str(embedded_policy())), list[str]()
    server.engine.listen(lambda request, _: answered.append(request.request_id))
    policy = Policy(server.sidecar.url, timeout_s=PATIENCE_S)
    with busy(server.engine):
        other = Background(lambda: policy.act(**observation(), instruction="reach", request_id="other"))
        wait_for(lambda: at_the_policy(server.engine) == 1)
        with pytest.raises(reflex_client.UnavailableError) as raised:
            policy.act(**observation(), instruction="reach", request_id="late")
        assert raised.value.slug == "deadline-unreachable"
        with policy.episode(instruction="reach") as episode, episode.player(observation) as player:
            while player.problem is None:
                assert player.next_row() is None, "the robot holds"
        assert player.problem.slug == "deadline-unreachable"
    other.result()
    assert answered == ["other"]


def test_what_asking_again_does_not_help_is_raised_where_rows_are_taken(policy: Policy) -> None:
    wrong = {**observation(), "state": [0.0, 0.0]}
    broken = RuntimeError("no camera")

    def observe() -> dict[str, Any]:
        raise broken

    with (
        policy.episode(instruction="reach") as episode,
        episode.player(lambda: wrong) as player,
        pytest.raises(reflex_client.ObservationRefusedError, match="7 numbers"),
    ):
        list(player)
    with (
        policy.episode() as episode,
        episode.player(observe) as player,
        pytest.raises(RuntimeError, match="no camera"),
    ):
        list(player)
    assert not [thread for thread in threading.enumerate() if thread.name == "reflex-chunks"]


def test_the_asyncio_twin_answers_the_same_and_plays(server: Server) -> None:
    async def run() -> None:
        async with AsyncPolicy(server.sidecar.url, timeout_s=PATIENCE_S) as policy:
            await policy.wait_until_ready()
            one = await policy.act(**observation(), instruction="reach", seed=7)
            same = Policy(server.sidecar.url).act(**observation(), instruction="reach", seed=7)
            np.testing.assert_array_equal(one.actions, same.actions)
            replies = set()

            async def observe() -> dict[str, Any]:
                return observation()

            async with policy.episode(instruction="reach") as episode:
                async for row in episode.play(observe, execution_horizon=4):
                    if row is not None:
                        replies.add((row.reply.request_id, row.reply.rtc_mode))
                    if len(replies) == 3:
                        break
                assert sorted(mode for _, mode in replies) == ["", "guided_identity", "guided_identity"]
                assert (await episode.outcome(success=False))["success"] is False
            with pytest.raises(reflex_client.ObservationRefusedError):
                await policy.act(picture(), [0.0], "reach")

    asyncio.run(run())


def test_what_the_openpi_client_is_given_is_answered_in_its_shape(policy: Policy) -> None:
    seen = {"observation/image": picture(), "observation/state": np.array(HOME), "prompt": "reach"}
    replies = [policy.infer(seen), policy.infer({**seen, "prompt": b"reach"})]
    for reply in replies:
        assert reply["actions"].shape == (50, 7)
        assert reply["server_timing"]["infer_ms"] > 0
    ids = [reply["reflex"]["request"]["episode_id"] for reply in replies]
    policy.reset()
    ids.append(policy.infer(seen)["reflex"]["request"]["episode_id"])
    assert ids[0] == ids[1] != ids[2]
    assert policy.get_server_metadata()["state_names"]


def test_a_gripper_apart_is_not_taken_for_the_robots_own_number(policy: Policy) -> None:
    """0 is open for DROID's programs and closed for others."""
    seen = {
        "observation/exterior_image_1_left": np.zeros((32, 32, 3), np.uint8),
        "observation/joint_position": np.zeros(7),
        "observation/gripper_position": np.zeros(1),
        "prompt": "reach",
    }
    with pytest.raises(InvalidObservationError, match="open or closed") as raised:
        policy.infer(seen)
    assert raised.value.slug == "gripper-undeclared"


def test_an_observation_is_kept_for_the_next_chunk_of_its_episode(serve: Serve) -> None:
    policy = Policy(
        serve("two_observations", embodiment="").sidecar.url, timeout_s=PATIENCE_S, jpeg_quality=None
    )
    with policy.episode(instruction="go") as episode:
        assert episode.observe(picture(8, 8, (10, 10, 10)), [1, -1])["kept"] == 1
        reply = episode.act(picture(8, 8, (20, 20, 20)), [2, -2])
    assert reply.actions[0].tolist() == [10, 20, 1, -1, 2, -2]
    assert reply.document["reflex"]["history"]["kept"] == 1
