# SPDX-License-Identifier: Apache-2.0
"""vla-eval's websocket: hello, episodes, one row per observation, errors that keep the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import pytest
from http_client import STATE, picture
from servers import Server
from wires import packed, unpacked, vla_eval_tag
from ws_client import Socket, connected

from reflex_core.engine.serving_state import ServingState
from reflex_core.values import Request, Served

Serve = Callable[..., Server]
PATH = "/vla-eval"


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve("mono_pi0_7")


class Harness:
    """The client's side: messages with type, payload, seq and timestamp."""

    def __init__(self, client: Socket) -> None:
        self._client, self._seq, self.answered = client, 0, 0

    def notify(self, kind: str, payload: Any) -> None:
        self._seq += 1
        message = {"type": kind, "payload": payload, "seq": self._seq, "timestamp": 1.5}
        self._client.send(packed(message, vla_eval_tag))

    def ask(self, kind: str, payload: Mapping[str, Any]) -> tuple[str, Any]:
        found = self.ask_unseen(kind, payload)
        assert self.answered == self._seq
        return found

    def ask_unseen(self, kind: str, payload: Mapping[str, Any]) -> tuple[str, Any]:
        """The same, where the server does not read what it refuses."""
        self.notify(kind, payload)
        answer = unpacked(bytes(self._client.receive()))
        assert set(answer) == {"type", "payload", "seq", "timestamp"}
        self.answered = answer["seq"]
        return answer["type"], answer["payload"]


def as_png(image: Any) -> dict[str, Any]:
    """An image as vla-eval sends it by default."""
    data = cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()
    return {"__image__": True, "format": "png", "data": data, "shape": list(image.shape)}


def raw(image: Any) -> dict[str, Any]:
    data = {"data": image.tobytes(), "dtype": "|u1", "shape": list(image.shape)}
    return {"__image__": True, "format": "raw"} | data


def observation(image: Any = None, **changes: Any) -> dict[str, Any]:
    picture_ = picture() if image is None else image
    return {
        "images": {"agentview": picture_},
        "states": np.array(STATE),
        "task_description": "reach",
    } | changes


def test_an_episode_that_begins_again_under_its_name_carries_nothing_over(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark that tries an episode again sends the same id."""
    begun: list[str | None] = []
    monkeypatch.setattr(ServingState, "begins", lambda _, name, __: begun.append(name))
    for _ in range(2):
        with connected(server, PATH) as client:
            harness = Harness(client)
            harness.notify("episode_start", {"task": {"name": "t"}, "recording": {"eid": "e-1"}})
            assert harness.ask("observation", observation())[0] == "action"
    first, second = begun
    assert str(first).startswith("e-1@ws-")
    assert str(second).startswith("e-1@ws-")
    assert first != second, "also of two benchmarks at the same time"


def test_the_client_speaks_first_and_is_asked_for_state_and_wrist(server: Server) -> None:
    with connected(server, PATH) as client:
        kind, payload = Harness(client).ask("hello", {"harness_version": "0.8.0", "protocol_version": 1})
    assert (kind, payload["protocol_version"], payload["model_server"]) == ("hello", 1, "reflex")
    assert payload["capabilities"] == {}
    assert payload["observation_params"]["send_state"] is True
    assert payload["reflex"]["action_dim"] == 7


def test_one_row_comes_for_each_observation_and_a_chunk_lasts_as_many_as_the_policy_executes(
    server: Server,
) -> None:
    seen: list[tuple[Request, Served]] = []
    server.engine.listen(lambda request, served: seen.append((request, served)))
    with connected(server, f"{PATH}?replan=3") as client:
        harness = Harness(client)
        harness.ask("hello", {})
        harness.notify("episode_start", {"task": {"name": "reach"}, "recording": {"eid": "trial-7"}})
        rows = [harness.ask("observation", observation()) for _ in range(7)]
    assert {kind for kind, _ in rows} == {"action"}
    assert all(payload["actions"].shape == (7,) for _, payload in rows)
    assert len(seen) == 3
    for number, (_, payload) in enumerate(rows):
        np.testing.assert_array_equal(payload["actions"], seen[number // 3][1].chunk.actions[number % 3])
    (episode,) = {request.episode_id for request, _ in seen}
    assert episode.startswith("trial-7@ws-")
    assert {request.wire for request, _ in seen} == {"vla_eval"}


def test_images_come_as_png_raw_or_arrays(server: Server) -> None:
    seen: list[Request] = []
    server.engine.listen(lambda request, _: seen.append(request))
    with connected(server, f"{PATH}?replan=1") as client:
        harness = Harness(client)
        for image in (as_png(picture()), raw(picture()), picture()):
            assert harness.ask("observation", observation(image))[0] == "action"
    encodings = [next(iter(request.observation.frames.values())).encoding for request in seen]
    assert encodings == ["png", "rgb8", "rgb8"]


def test_an_error_is_a_message_and_ends_the_chunk_and_not_the_connection(server: Server) -> None:
    with connected(server, f"{PATH}?replan=5") as client:
        harness = Harness(client)
        assert harness.ask("observation", observation())[0] == "action"
        kind, payload = harness.ask("nonsense", {})
        assert kind == "error"
        assert payload["error"].startswith("bad-message: ")
        kind, payload = harness.ask("observation", observation(states=np.zeros(2)))
        assert payload["error"].startswith("state-length: ")
        assert harness.ask("observation", observation())[0] == "action"
        client.send(b"\xc1")
        assert unpacked(bytes(client.receive()))["type"] == "error"
        client.send(packed({"type": "hello"}))
        assert "'seq' must be a whole number" in unpacked(bytes(client.receive()))["payload"]["error"]
        assert harness.ask("hello", {})[0] == "hello"


@pytest.mark.parametrize("change", ["instruction", "episode", "deactivation", "reload"])
def test_rows_that_are_left_are_handed_out_to_no_other_purpose(server: Server, change: str) -> None:
    seen: list[Request] = []
    server.engine.listen(lambda request, _: seen.append(request))
    with connected(server, f"{PATH}?replan=50") as client:
        harness = Harness(client)
        harness.ask("observation", observation())
        harness.ask("observation", observation())
        assert len(seen) == 1
        if change == "instruction":
            harness.ask("observation", observation(task_description="stop"))
        elif change == "episode":
            harness.notify("episode_start", {})
            harness.ask("observation", observation())
        elif change == "deactivation":
            server.engine.pause()
            kind, payload = harness.ask("observation", observation())
            assert (kind, payload["error"].partition(":")[0]) == ("error", "not-ready")
            server.engine.warm_up()
            harness.ask("observation", observation())
        else:
            server.engine.load()
            server.engine.warm_up()
            harness.ask("observation", observation())
    assert len(seen) == 2


def test_what_awaits_no_reply_gets_none_also_when_it_is_refused(server: Server) -> None:
    """The client would take it for the answer to its next observation, and be one action behind for ever."""
    with connected(server, PATH) as client:
        harness = Harness(client)
        harness.ask("hello", {})
        server.engine.unload()
        harness.notify("episode_start", {})
        harness.notify("episode_end", {"success": True})
        kind, payload = harness.ask_unseen("observation", observation())
        assert (kind, payload["error"].partition(":")[0]) == ("error", "not-ready")
        server.engine.load()
        server.engine.warm_up()
        harness.notify("episode_start", {"recording": 3})
        harness.notify("episode_start", "nothing")
        assert harness.ask("observation", observation())[0] == "action"


def test_the_end_of_an_episode_is_its_outcome(server: Server) -> None:
    with connected(server, PATH) as client:
        harness = Harness(client)
        for number, success in enumerate((True, False, None)):
            harness.notify("episode_start", {"recording": {"eid": f"trial-{number}"}})
            harness.ask("observation", observation())
            harness.notify("episode_end", {} if success is None else {"success": success, "steps": 4})
        harness.ask("hello", {})
    exposition = server.client.get("/metrics").body.decode()
    outcomes = [line for line in exposition.splitlines() if line.startswith("reflex_episode_outcomes_total{")]
    assert sorted(line.rsplit(" ", 1)[1] for line in outcomes) == ["1.0", "1.0"]
