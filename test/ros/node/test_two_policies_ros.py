# SPDX-License-Identifier: Apache-2.0
"""Two policies through the real node: who answers the robot, and what people change while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from asking import AT_REST, act, safety_file
from http_client import Client, jpeg
from reflex_ros.msg import ActionChunk, EpisodeOutcome
from ros_world import REACH_HOME, World, wait_for, world
from servers import ExportDir

from reflex_core.files.share import embedded_policy
from reflex_core.slots.routing import bucket

# arms that stand still while they are commanded to move are clamped again and again: no guard is to trip here
WIDE = {
    "position_min": [home - 1.0 for home in REACH_HOME],
    "position_max": [home + 1.0 for home in REACH_HOME],
    "max_consecutive_clamps": 0,
}


@contextmanager
def two(export_dir: ExportDir, a: str = "calm", b: str = "calm", **settings: Any) -> Iterator[World]:
    exports = {"policy_a": str(export_dir(a)), "policy_b": str(export_dir(b)), "rtc": False}
    values = {"embodiment": "franka", "http": True, "port": 0, "execution_horizon": 1} | exports | settings
    with world(**values) as scene:
        scene.activate()
        yield scene


def client_of(scene: World) -> Client:
    assert scene.server.sidecar is not None
    return Client(scene.server.sidecar.port)


def chunk_of(scene: World, episode: str) -> ActionChunk:
    """The next chunk of an episode that begins now."""
    scene.robot.begin(episode)

    def newest() -> ActionChunk | None:
        chunk = scene.robot.next_chunk()
        return chunk if chunk.episode_id == episode else None

    found: ActionChunk = wait_for(newest, f"a chunk of {episode}")
    return found


def test_each_episode_of_the_robot_has_its_policy(export_dir: ExportDir) -> None:
    with two(export_dir, "calm", "calm_other") as scene:
        for episode in ("ep_2", "ep_1", "ep_xyz"):
            chunk = chunk_of(scene, episode)
            assert chunk.policy_slot == ("a" if bucket(episode) < 50 else "b")
            assert chunk.model_version.startswith("pi0-mono@")
        status = wait_for(
            lambda: scene.robot.status if scene.robot.status.policy_slot == "b" else None, "status"
        )
        assert (status.policy_verdict, status.split_percent, status.rtc_mode) == ("healthy", 50, "off")


def test_the_split_is_a_live_parameter_and_follows_http_and_services(export_dir: ExportDir) -> None:
    with two(export_dir) as scene:
        assert scene.robot.set("split", 10).successful
        assert client_of(scene).get("/policies").json["split"] == 10
        refused = scene.robot.set("split", 101)
        assert not refused.successful
        assert client_of(scene).ask("POST", "/policies", b'{"split": 70}').status == 200
        node = scene.server.node
        wait_for(lambda: node.get_parameter("split").value == 70, "the parameter follows")
        assert scene.robot.set("deadline_ms", 20_000.0).successful
        assert client_of(scene).get("/policies").json["split"] == 70
        response = scene.robot.call("promote_b")
        assert (response.success, response.message) == (True, "slot a gets 0 % of new episodes, before 70 %")
        assert scene.robot.call("rollback").success
        wait_for(lambda: scene.robot.status.split_percent == 70, "the status says so")


def test_without_two_policies_there_is_nothing_to_split(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        scene.activate()
        refused = scene.robot.set("split", 10)
        assert not refused.successful
        assert "--policy-a" in refused.reason
        assert "one policy" in scene.robot.call("promote_a").message


def test_the_outcome_of_the_running_episode_is_kept_for_its_slot(export_dir: ExportDir) -> None:
    with two(export_dir) as scene:
        chunk_of(scene, "ep_1")
        publisher = scene.robot.node.create_publisher(EpisodeOutcome, "/reflex/outcome", 10)
        wait_for(publisher.get_subscription_count, "the node listens")
        publisher.publish(EpisodeOutcome(success=True))
        wait_for(
            lambda: client_of(scene).get("/policies").json["slots"]["b"]["successes"] == 1, "it is counted"
        )


def test_a_score_counts_only_where_the_message_says_that_it_has_one(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        scene.activate()
        publisher = scene.robot.node.create_publisher(EpisodeOutcome, "/reflex/outcome", 10)
        wait_for(publisher.get_subscription_count, "the node listens")
        reports = {
            "left_out": EpisodeOutcome(score=0.5),
            "nothing": EpisodeOutcome(),
            "nan": EpisodeOutcome(has_score=True, score=float("nan")),
            "zero": EpisodeOutcome(has_score=True),
            "half": EpisodeOutcome(has_score=True, score=0.5),
        }
        loaded = scene.server.engine.loaded
        assert loaded is not None
        kept = {}
        for episode, report in reports.items():
            report.episode_id = episode
            publisher.publish(report)
            kept[episode] = wait_for(lambda name=episode: loaded.outcomes.find(name), episode).score
        assert kept == {"left_out": None, "nothing": None, "nan": None, "zero": 0.0, "half": 0.5}


def test_four_clients_and_the_robot_never_share_what_an_episode_carries(tmp_path: Path) -> None:
    """Every guided chunk names a chunk of its own episode, and the robot's never one of a client."""
    settings: dict[str, Any] = {
        "export_dir": str(embedded_policy()), "http": True, "port": 0, "prefix_cache": True, "execution_horizon": 2,
        "prefix_cache_max_age_ms": 60_000.0, "seed": 3, "safety_config": safety_file(tmp_path, **WIDE),
    }  # fmt: skip
    with world(**settings) as scene:
        scene.robot.positions = list(REACH_HOME)
        seen: list[Any] = []
        scene.server.engine.listen(lambda request, served: seen.append((request, served)))
        scene.activate()
        port = client_of(scene).port

        def client(number: int) -> None:
            for step in range(6):
                reply = act(
                    Client(port), REACH_HOME, episode_id=f"client-{number}", elapsed_rows=4 if step else None,
                    image=jpeg(height=224, width=224, colour=(20 * number + 40,) * 3),
                )  # fmt: skip
                assert reply.status == 200

        threads = [Thread(target=client, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        scene.robot.next_chunk()
        wait_for(lambda: scene.robot.status.rtc_guided_total > 0, "chunks are guided")
    episode_of = {served.request_id: request.episode_id for request, served in seen}
    guided = [(request, served) for request, served in seen if served.rtc.previous]
    assert {request.episode_id for request, _ in guided} >= {f"client-{number}" for number in range(4)}
    assert any(not request.episode_id.startswith("client-") for request, _ in guided)
    assert all(episode_of[served.rtc.previous] == request.episode_id for request, served in guided)
    for number in range(4):
        statuses = [
            served.cache.status for request, served in seen if request.episode_id == f"client-{number}"
        ]
        assert statuses == ["miss"] + ["hit"] * 5  # its own picture, whatever the others look at


@pytest.mark.parametrize("episode", ["ep_1", "ep_2"])
def test_both_interfaces_route_alike(export_dir: ExportDir, episode: str) -> None:
    with two(export_dir, "calm", "calm_other") as scene:
        chunk = chunk_of(scene, episode)
        reply = act(client_of(scene), AT_REST, episode_id=episode)
        assert (reply.json["policy_slot"], reply.json["model_version"]) == (
            chunk.policy_slot,
            chunk.model_version,
        )
