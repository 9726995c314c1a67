# SPDX-License-Identifier: Apache-2.0
"""A policy of two observations over HTTP: what it sees of the past, and what the reply says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simplejpeg
from asking import figure
from http_client import raw, text, wait_for
from servers import ExportDir

from reflex_core.images.raw_encodings import rgb
from reflex_core.values import Frame, Observation, Request
from reflex_ros.otel.attributes import attributes, finished
from reflex_ros.sidecar.cloud_client import body_of
from reflex_ros.sidecar.wires.json import JsonWire
from reflex_ros.sidecar.wires.wire import Readable

Serve = Callable[..., Any]


# a header of 8x8 pixels without any
BROKEN_JPEG = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))[:-30]


def seen(shade: int, state: float) -> dict[str, Any]:
    return {"image": raw(height=8, width=8, colour=(shade, shade, shade)), "state": [state, -state]}


def test_every_request_looks_back_on_the_one_before_of_its_episode(serve: Serve) -> None:
    server = serve("two_observations", embodiment="")
    first = server.client.act({**seen(10, 1), "episode_id": "one"}).json
    assert first["actions"][0] == [10, 10, 1, -1, 1, -1]
    assert first["history"] == {"steps": 2, "given": 0, "kept": 0, "filled": 1, "ages_ms": [0.0]}
    other = server.client.act({**seen(50, 5), "episode_id": "other"}).json
    assert other["actions"][0] == [50, 50, 5, -5, 5, -5]
    second = server.client.act({**seen(20, 2), "episode_id": "one"}).json
    assert second["actions"][0] == [10, 20, 1, -1, 2, -2]
    history = second["history"]
    assert (history["given"], history["kept"], history["filled"]) == (0, 1, 0)
    assert 0 < history["ages_ms"][0] < 20_000
    assert second["ignored_fields"] == []
    config = server.client.get("/config").json["effective"]
    assert config["observation_steps"] == 2
    assert config["wedges"][0] == "history"


def test_without_an_episode_nothing_is_shared(serve: Serve) -> None:
    server = serve("two_observations", embodiment="")
    for shade in (10, 20):
        assert server.client.act(seen(shade, 0)).json["actions"][0][:2] == [shade, shade]
    assert figure(server.client, "reflex_history_filled_total", reason="no_episode") == 2


def test_a_client_may_send_the_history_itself(serve: Serve) -> None:
    server = serve("two_observations", embodiment="")
    answer = server.client.act({**seen(20, 2), "history": [seen(10, 1)]}).json
    assert answer["actions"][0] == [10, 20, 1, -1, 2, -2]
    assert answer["history"] == {"steps": 2, "given": 1, "kept": 0, "filled": 0, "ages_ms": [None]}
    named = {"images": {"front": seen(30, 0)["image"]}, "state": [3, -3], "stat": 1}
    answer = server.client.act({**seen(20, 2), "history": [named]}).json
    assert answer["actions"][0] == [30, 20, 3, -3, 2, -2]
    assert answer["ignored_fields"] == ["history[0].stat"]
    assert answer["did_you_mean"] == {"history[0].stat": "history[0].state"}


@pytest.mark.parametrize(
    ("history", "slug", "message"),
    [
        ([seen(1, 1)] * 2, "bad-history", "'history' must be at most the 1 observations before this one (observation_steps 2), got 2"),
        ("yesterday", "bad-history", "'history' must be a list of objects, got 'yesterday'"),
        ([seen(1, 1) | {"state": ["x"]}], "bad-state", "'history[0].state' must hold only numbers"),
        ([{"image": "!", "state": [0, 0]}], "bad-base64", "'history[0].image' is not base64"),
        ([seen(1, 1) | {"state": [1]}], "state-length", "1 control period(s) before the newest observation: the state must be"),
        ([{"state": [1, 1]}], "missing-image", "1 control period(s) before the newest observation: no image from camera 'front'"),
    ],
)  # fmt: skip
def test_a_history_that_cannot_be_is_refused(serve: Serve, history: Any, slug: str, message: str) -> None:
    server = serve("two_observations", embodiment="")
    answer = server.client.act({**seen(20, 2), "history": history})
    assert (answer.status, answer.json["error"]) == (422, slug)
    assert message in answer.json["message"]


def test_a_policy_of_one_observation_takes_no_history(serve: Serve) -> None:
    answer = serve("of_other_shapes", embodiment="").client.act({"history": [{"state": [0, 0]}]})
    assert (answer.status, answer.json["error"]) == (422, "bad-history")
    assert "left out: the policy sees one observation" in answer.json["message"]


def test_an_observation_may_be_sent_without_inference(serve: Serve) -> None:
    server = serve("two_observations", embodiment="")
    kept = server.client.act({**seen(10, 1), "episode_id": "one", "observe_only": True, "request_id": "r-9"})
    assert (kept.status, kept.headers["x-request-id"]) == (200, "r-9")
    assert kept.json == {
        "observed": True, "observation_steps": 2, "kept": 1, "episode_id": "one", "request_id": "r-9", "ignored_fields": [],
        "did_you_mean": {},
    }  # fmt: skip
    answer = server.client.act({**seen(20, 2), "episode_id": "one"}).json
    assert answer["actions"][0] == [10, 20, 1, -1, 2, -2]
    refused = server.client.act({**seen(10, 1), "observe_only": True})
    assert (refused.status, refused.json["error"]) == (422, "missing-episode-id")
    short = server.client.act({**seen(10, 1), "state": [1], "episode_id": "one", "observe_only": True})
    assert (short.status, short.json["error"]) == (422, "state-length")
    odd = server.client.act({**seen(10, 1), "episode_id": "one", "observe_only": "yes"})
    assert (odd.status, odd.json["error"]) == (422, "bad-observe-only")
    assert figure(server.client, "reflex_act_errors_total", slug="state-length") == 1


@pytest.mark.parametrize(
    ("images", "slug"),
    [
        ({}, "missing-image"),
        ({"image": text(BROKEN_JPEG)}, "bad-image"),
    ],
)
def test_an_observation_that_no_inference_would_take_is_refused_at_once_and_not_kept(
    images: dict[str, Any], slug: str, serve: Serve
) -> None:
    """Otherwise the next request of the episode, which is right, would be refused for it."""
    server = serve("two_observations", embodiment="")
    bad = server.client.act({**images, "state": [1, -1], "episode_id": "one", "observe_only": True})
    assert (bad.status, bad.json["error"]) == (422, slug)
    answer = server.client.act({**seen(20, 2), "episode_id": "one"})
    assert (answer.status, answer.json["history"]["kept"]) == (200, 0)


def test_the_newest_observation_is_not_blamed_on_an_earlier_one_that_it_stands_for(serve: Serve) -> None:
    server = serve("two_observations", embodiment="")
    bad = server.client.act({"state": [1, -1], "episode_id": "one"})
    assert (bad.status, bad.json["error"]) == (422, "missing-image")
    assert bad.json["message"].startswith("no image from ")


def test_one_request_per_chunk_is_filled_counted_and_reported(serve: Serve) -> None:
    server = serve("two_observations_fast", embodiment="")
    for shade in (10, 20):
        began = time.monotonic()
        answer = server.client.act({**seen(shade, 0), "episode_id": "one"}).json
        assert answer["actions"][0][:2] == [shade, shade]
        wait_for(lambda began=began: time.monotonic() > began + 0.01)
    assert answer["history"]["filled"] == 1
    assert figure(server.client, "reflex_history_filled_total", reason="start") == 1
    assert figure(server.client, "reflex_history_filled_total", reason="gap") == 1


def test_the_shadow_sees_the_same_history(serve: Serve, export_dir: ExportDir) -> None:
    server = serve("two_observations", embodiment="", shadow_policy=str(export_dir("two_observations")))
    for number in (1, 2):
        server.client.act({**seen(10 * number, number), "episode_id": "one"})
        wait_for(lambda number=number: server.engine.loaded.shadow.compared == number)
    assert figure(server.client, "reflex_shadow_divergence_sum") == 0


def test_a_shadow_may_look_back_further_than_the_policy(serve: Serve, export_dir: ExportDir) -> None:
    server = serve("one_observation", embodiment="", shadow_policy=str(export_dir("two_observations")))
    for number in (1, 2):
        reply = server.client.act({**seen(10 * number, number), "episode_id": "one"}).json
        assert reply["actions"][0] == [10 * number, number, -number]
        wait_for(lambda number=number: server.engine.loaded.shadow.compared == number)
    assert (reply["history"]["steps"], reply["history"]["kept"]) == (2, 1)


def test_a_span_says_where_the_history_came_from(serve: Serve) -> None:
    server = serve("two_observations", embodiment="")
    spans: list[dict[str, Any]] = []
    server.engine.listen(
        lambda request, served: spans.append(attributes(finished(request, 0, served, 0), {}, "none"))
    )
    for shade in (10, 20):
        server.client.act({**seen(shade, 0), "episode_id": "one"})
    found = [
        {name: value for name, value in span.items() if name.startswith("reflex.history.")} for span in spans
    ]
    assert [list(one.values()) for one in found] == [[2, 0, 0, 1], [2, 0, 1, 0]]
    assert list(found[0]) == [f"reflex.history.{name}" for name in ("steps", "given", "kept", "filled")]


@pytest.mark.parametrize("episode", ["ep_1", "ep_2", "ep_xyz", "req_abc"])
def test_both_of_two_policies_get_their_episodes_history(
    serve: Serve, export_dir: ExportDir, episode: str
) -> None:
    path = str(export_dir("two_observations"))
    server = serve("two_observations", embodiment="", policy_a=path, policy_b=path, rtc=False, split=50)
    server.client.act({**seen(10, 1), "episode_id": episode})
    assert server.client.act({**seen(20, 2), "episode_id": episode}).json["actions"][0][:2] == [10, 20]


def test_the_server_of_the_cloud_fallback_gets_the_history_along() -> None:
    frames = [{"front": Frame(bytes([shade]) * 192, "rgb8", 8, 8)} for shade in (10, 20)]
    states = [np.array([number, 0], np.float32) for number in (1, 2)]
    earlier = Observation(frames[0], states[0], "reach")
    observation = Observation(frames[1], states[1], "reach", history=(earlier,))
    body = body_of(Request(observation, 0, "r-1", "one"))
    there = JsonWire().decode(bytearray(body), Readable(("front",), observation_steps=2)).observation
    (before,) = there.history
    assert before.state is not None
    assert before.state.tolist() == [1, 0]
    assert [int(rgb(one.frames["front"])[0, 0, 0]) for one in (before, there)] == [10, 20]
