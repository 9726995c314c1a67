# SPDX-License-Identifier: Apache-2.0
"""Two robots whose episodes have the same id: nothing that is kept of one of them reaches the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import AT_REST, BEYOND, act
from http_client import good, raw, wait_for
from kinds import HEIGHT, WIDTH
from ws_client import connected

from reflex_core.concurrency.lru import Lru, forgotten
from reflex_core.files.share import embedded_policy
from reflex_core.robot.callers import episode_key, is_episode
from reflex_core.values import Observation, Request
from reflex_ros.sidecar.key_file import ACT, add_key, fresh_key

Serve = Callable[..., Any]
SAME = "episode-1"


def demo(serve: Serve, **settings: object) -> Any:
    return serve("mono_pi0_7", export_dir=str(embedded_policy()), embodiment="", **settings)


def test_the_chunk_of_one_robot_does_not_guide_the_other(serve: Serve) -> None:
    client = demo(serve).client
    first = act(client, robot_id="arm-1", episode_id=SAME).json
    other = act(client, robot_id="arm-2", episode_id=SAME, elapsed_rows=1.0).json
    nameless = act(client, episode_id=SAME, elapsed_rows=1.0).json
    second = act(client, robot_id="arm-1", episode_id=SAME, elapsed_rows=1.0).json
    assert (other["rtc_mode"], nameless["rtc_mode"]) == ("", "")
    assert (second["rtc_mode"] != "", second["rtc_previous"]) == (True, first["request_id"])


def test_the_prefix_of_one_robot_is_not_reused_for_the_other(serve: Serve) -> None:
    client = demo(serve, prefix_cache=True, prefix_cache_max_age_ms=60_000.0).client
    picture = raw(height=96, width=96)
    found = [
        act(client, robot_id=robot, episode_id=SAME, image=picture).json["cache_status"]
        for robot in ("arm-1", "arm-2", "arm-1", "arm-2")
    ]
    assert found == ["miss", "miss", "hit", "hit"]


def test_the_chunks_of_one_robot_are_not_averaged_with_the_others(serve: Serve) -> None:
    client = serve("act_ensemble").client
    same: dict[str, Any] = {"episode_id": SAME, "elapsed_rows": 1.0, "image": raw(height=HEIGHT, width=WIDTH)}
    first = act(client, robot_id="arm-1", **same).json
    other = act(client, robot_id="arm-2", **same).json
    second = act(client, robot_id="arm-1", **same).json
    assert other["temporal_ensemble"]["chunks"] == 1
    assert second["temporal_ensemble"] == {"chunks": 2, "previous": first["request_id"]}


def test_the_last_good_chunk_of_one_robot_is_not_executed_by_the_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("mono_pi0_7", deadline_ms=5_000.0)
    client = server.client
    assert act(client, robot_id="arm-1", episode_id=SAME).json["source"] == "policy"
    [slot] = server.engine.loaded.slots.values()

    def fails(*_: Any, **__: Any) -> Any:
        raise TimeoutError

    deadline = server.engine.loaded.deadline
    monkeypatch.setattr(deadline, "_deadline_ns", lambda request: request.received_ns)  # it is over at once
    monkeypatch.setattr(slot.policy, "predict", fails)
    own = act(client, robot_id="arm-1", episode_id=SAME)
    other = act(client, robot_id="arm-2", episode_id=SAME)
    wait_for(lambda: not deadline.busy)
    assert own.json["source"] == "last_known_good"
    assert other.json.get("source") == "hold"


def test_the_guard_follows_each_robot_by_itself(serve: Serve) -> None:
    client = serve("calm", deadline_ms=0.0).client
    for _ in range(10):
        tripped = act(client, BEYOND, robot_id="arm-1", episode_id=SAME).json
    assert tripped["hold_reason"] == "guard_tripped"
    other = act(client, AT_REST, robot_id="arm-2", episode_id=SAME).json
    assert (other["source"], other["hold_reason"]) == ("policy", "")


def test_earlier_observations_are_of_the_robot_that_sent_them(serve: Serve) -> None:
    client = serve("two_observations", embodiment="").client

    def seen(shade: int, robot_id: str) -> Any:
        image = raw(height=8, width=8, colour=(shade, shade, shade))
        return client.act({"image": image, "state": [0, 0], "robot_id": robot_id, "episode_id": SAME}).json[
            "actions"
        ][0][:2]

    assert seen(10, "arm-1") == [10, 10]
    assert seen(50, "arm-2") == [50, 50]
    assert seen(20, "arm-1") == [10, 20]


def test_what_is_kept_is_bounded_and_what_was_dropped_is_counted(serve: Serve) -> None:
    client = demo(serve).client
    before = forgotten["guidance"]
    for number in range(257):
        act(client, robot_id=f"arm-{number}", episode_id=SAME)
    assert forgotten["guidance"] == before + 1
    assert (
        f'reflex_states_forgotten_total{{kind="guidance"}} {before + 1}.0'
        in client.get("/metrics").body.decode()
    )


def test_a_memory_without_a_kind_counts_nothing() -> None:
    before = dict(forgotten)
    memory: Lru[int, int] = Lru(1)
    memory.put(1, 1)
    assert memory.put(2, 2) == (1, 1)
    assert dict(forgotten) == before


def test_no_name_can_be_made_to_mean_another_robots_episode(tmp_path: Path) -> None:
    def key(caller: str, episode_id: str | None) -> str | None:
        return episode_key(Request(Observation({}, None, ""), 0, "r", episode_id, caller=caller))

    assert key("arm-1", "e") != key("arm-2", "e")
    assert key("arm-1", "e") != key("", "e") == "e"
    assert key("peer:10.0.0.7", "e") == key("session:s", "e") == "e"
    assert key("arm-1", None) is None
    assert is_episode(key("arm-1", "e") or "", "e")
    assert not is_episode(key("arm-1", "ee") or "", "e")
    assert not is_episode("e", None)


@pytest.mark.parametrize(("robot", "guided"), [("arm-2", True), ("arm-1", False)])
def test_an_episode_that_a_robot_begins_anew_is_its_own(
    serve: Serve, tmp_path: Path, robot: str, guided: bool
) -> None:
    keys = {name: fresh_key((ACT,), name, 0.0, None, "") for name in ("arm-1", "arm-2")}
    for _, entry in keys.values():
        add_key(tmp_path / "keys.jsonl", entry)
    server = demo(serve, keys_file=str(tmp_path / "keys.jsonl"))

    def answered_to(**more: Any) -> Any:
        body = json.dumps(good(state=AT_REST, episode_id="shared-1", **more)).encode()
        return server.client.ask("POST", "/act", body, X_Reflex_Key=keys["arm-1"][0]).json

    first = answered_to()
    with connected(
        server, "/v1/realtime/robot/openpi", X_Reflex_Key=keys[robot][0], X_Session_Id="shared"
    ) as socket:
        socket.receive()
        socket.infer({"endpoint": "reset"})  # which begins the episode shared-1 of this robot
    assert (answered_to(elapsed_rows=1.0)["rtc_previous"] == first["request_id"]) is guided
