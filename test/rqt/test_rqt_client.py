# SPDX-License-Identifier: Apache-2.0
"""The panel's ROS side against a real policy node."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from reflex_ros.msg import EpisodeOutcome
from ros_world import BEYOND, HOME, JOINTS, World, wait_for, world
from sensor_msgs.msg import Image
from servers import ExportDir

from reflex_ros.messages.raw import RawMessage
from reflex_ros.rqt.board import SILENT_AFTER_S
from reflex_ros.rqt.camera_feed import picture_of
from reflex_ros.rqt.client import Client
from reflex_ros.rqt.operator_state import operator_state
from reflex_ros.rqt.panel_view import View


def domain_of(scene: World) -> int:
    return int(scene.robot.spinner.context.get_domain_id())


@contextmanager
def client_of(scene: World, node: str = "/reflex") -> Iterator[Client]:
    client = Client(node, domain_of(scene))
    try:
        yield client
    finally:
        client.close()


def view(client: Client) -> View:
    return client.board.view(time.monotonic())


@pytest.fixture(scope="module")
def scene(export_dir: ExportDir) -> Iterator[World]:
    """A node with one policy, whose model gives NaN where the robot is BEYOND."""
    settings: dict[str, Any] = {"export_dir": str(export_dir("calm_nan")), "embodiment": "franka"}
    with world(execution_horizon=1, robot_id="arm7", max_consecutive_crashes=0, **settings) as found:
        found.activate()
        found.robot.next_chunk()
        yield found


@pytest.fixture(scope="module")
def client(scene: World) -> Iterator[Client]:
    with client_of(scene) as found:
        yield found


def test_it_receives_state_chunks_and_diagnostics(client: Client) -> None:
    found = wait_for(
        lambda: view(client) if view(client).chunk and view(client).concerns else None, "all is heard"
    )
    assert (found.heard, found.state, found.robot) == (True, "ready", "arm7")
    assert found.chunk.names == tuple(JOINTS)
    assert found.seconds[-1].mean_ms > 0.0
    assert {"policy", "guard", "circuit breaker"} <= {each.name for each in found.concerns}


def test_the_limits_it_shows_are_those_that_the_guard_checks(scene: World, client: Client) -> None:
    ranges = wait_for(lambda: view(client).ranges, "the limits are heard")
    loaded = scene.server.engine.loaded
    assert loaded is not None
    limits = loaded.guard.limits
    assert limits is not None
    assert list(ranges) == list(limits.names)
    np.testing.assert_allclose([low for low, _ in ranges.values()], limits.position_min, rtol=1e-5)
    np.testing.assert_allclose([high for _, high in ranges.values()], limits.position_max, rtol=1e-5)


def test_it_follows_the_live_parameters(scene: World, client: Client) -> None:
    assert scene.robot.set("deadline_ms", 5000.0).successful
    assert scene.robot.set("slo_mode", "log_only").successful
    assert scene.robot.set("slo", "p99=4000ms").successful
    wait_for(lambda: view(client).deadline_ms == 5000.0, "the deadline is known")
    wait_for(lambda: view(client).slo_ms == 4000.0, "the objective is known")
    assert scene.robot.set("deadline_ms", 0.0).successful
    wait_for(lambda: view(client).deadline_ms is None, "the deadline is gone")


def test_stop_and_resume_reach_the_robot(scene: World, client: Client) -> None:
    client.stop()
    wait_for(lambda: view(client).figures.stopped, "stopped")
    assert scene.loop.stopped
    wait_for(lambda: view(client).notice == "stop: holding; call ~/resume to go on", "the answer is shown")
    client.resume()
    wait_for(lambda: not view(client).figures.stopped, "going on")
    assert view(client).notice_ok


def test_a_tripped_guard_is_seen_and_reset(scene: World, client: Client) -> None:
    scene.robot.positions = list(BEYOND)
    wait_for(lambda: view(client).figures.guard_tripped, "the trip is seen")
    assert any("no numbers" in event.text for event in view(client).events)
    scene.robot.positions = list(HOME)
    client.reset_guard()
    wait_for(lambda: view(client).notice == "reset guard: the guard was tripped", "the answer is shown")
    wait_for(lambda: not view(client).figures.guard_tripped, "it is reset")


def picture(client: Client, camera: str = "camera") -> Any:
    """The newest picture's pixel in the middle; None before there is one."""
    found = [each for each in view(client).pictures if each.camera == camera and each.pixels is not None]
    return tuple(int(value) for value in found[0].pixels[24, 32]) if found else None


def test_the_camera_is_received_only_while_it_is_shown(scene: World) -> None:
    with client_of(scene) as client:
        wait_for(lambda: view(client).cameras, "the camera's topic is known")
        assert view(client).cameras == {"camera": "/camera/image_raw"}
        assert not [thread for thread in threading.enumerate() if thread.name == "reflex panel cameras"]
        client.show_cameras(True)
        wait_for(lambda: picture(client) == (200, 30, 30), "a picture in the camera's colours")
        client.show_cameras(False)
        wait_for(lambda: not client._cameras.receiving, "the subscription is gone")
        topics = scene.robot.node.get_subscriptions_info_by_topic("/camera/image_raw")
        assert f"reflex_panel_{os.getpid()}" not in [info.node_name for info in topics]


def test_a_picture_that_cannot_be_decoded_is_a_sentence() -> None:
    broken = picture_of("camera", RawMessage("/c", "sensor_msgs/msg/Image", b"\0\1\0\0\0", 0, 0), 1.0)
    assert broken.pixels is None
    assert "/c" in broken.problem


def test_a_large_picture_is_made_smaller_and_keeps_its_shape() -> None:
    message = Image(height=960, width=1280, encoding="mono8", step=1280)
    message.data.frombytes(bytes(960 * 1280))
    raw = serialize_message(message)
    found = picture_of("camera", RawMessage("/c", "sensor_msgs/msg/Image", raw, 0, 0), 1.0)
    assert found.pixels is not None
    assert found.pixels.shape == (480, 640, 3)


def test_an_instruction_that_is_typed_is_the_one_that_the_node_follows(scene: World, client: Client) -> None:
    wait_for(lambda: view(client).topics.get("instruction"), "the topic is known")
    wait_for(lambda: client._instruction and client._instruction.get_subscription_count(), "the node listens")
    client.instruct("reach the blue block")
    wait_for(lambda: view(client).figures.instruction == "reach the blue block", "the node follows it")
    assert view(client).notice_ok


def test_an_episode_is_begun_and_its_outcome_arrives(scene: World, client: Client) -> None:
    before = view(client).figures.episode
    client.begin_episode()
    wait_for(lambda: view(client).figures.episode not in ("", before), "another episode runs")
    episode = view(client).figures.episode
    outcomes: list[EpisodeOutcome] = []
    scene.robot.node.create_subscription(EpisodeOutcome, "reflex/outcome", outcomes.append, 10)
    wait_for(lambda: client._outcome.get_subscription_count() >= 2, "both listen")
    client.end_episode(False)
    wait_for(lambda: outcomes, "the outcome is published")
    assert (outcomes[0].episode_id, outcomes[0].success) == (episode, False)
    assert view(client).notice == f"failure of episode {episode} reported"


def test_where_no_episode_runs_and_no_node_is_there_nothing_is_sent_and_a_sentence_says_why(
    scene: World,
) -> None:
    with client_of(scene, "/elsewhere") as lost:
        lost.end_episode(True)
        assert view(lost).notice == "success: no episode runs"
        lost.instruct("reach")
        assert "/elsewhere does not receive it" in view(lost).notice
        assert not view(lost).notice_ok


def test_an_open_breaker_is_seen_and_reset(export_dir: ExportDir) -> None:
    settings: dict[str, Any] = {"export_dir": str(export_dir("calm_raise")), "embodiment": "franka"}
    with world(max_consecutive_crashes=2, **settings) as scene:
        scene.activate()
        scene.robot.next_chunk()
        with client_of(scene) as client:
            scene.robot.positions = list(BEYOND)
            wait_for(lambda: operator_state(view(client)).word == "HOLDING", "the banner shows the hold")
            wait_for(lambda: view(client).state == "degraded", "the breaker is open")
            scene.robot.positions = list(HOME)
            client.reset_breaker()
            wait_for(lambda: view(client).state == "ready", "the model infers again")
            assert view(client).notice_ok


def test_a_compressed_camera_is_shown_too(export_dir: ExportDir) -> None:
    settings: dict[str, Any] = {"export_dir": str(export_dir("calm")), "embodiment": "franka"}
    with world(image_transport="compressed", **settings) as scene:
        scene.activate()
        with client_of(scene) as client:
            client.show_cameras(True)
            wait_for(lambda: picture(client), "a picture")
            assert view(client).cameras == {"camera": "/camera/image_raw/compressed"}
            assert np.abs(np.subtract(picture(client), (200, 30, 30))).max() < 6


def test_with_one_policy_there_is_no_split_and_setting_it_is_refused_aloud(client: Client) -> None:
    wait_for(lambda: view(client).heard, "heard")
    assert view(client).split is None
    client.set_split(30)
    wait_for(lambda: view(client).notice.startswith("split 30 %"), "an answer")


def test_it_lists_the_policy_nodes_that_are_there(client: Client) -> None:
    wait_for(lambda: "/reflex" in view(client).nodes, "the node is listed")


def test_a_node_that_is_not_there_is_said_and_nothing_waits_for_it(scene: World) -> None:
    with client_of(scene, "/elsewhere") as lost:
        lost.stop()
        assert view(lost).notice == "stop: /elsewhere does not answer"
        assert not view(lost).notice_ok
        assert not view(lost).heard


def test_a_stop_that_came_before_its_node_reaches_it(scene: World) -> None:
    from std_srvs.srv import Trigger

    stops: list[bool] = []

    def stop_late(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        stops.append(True)
        response.success = True
        return response

    with client_of(scene, "/late") as client:
        client.stop()
        assert view(client).notice == "stop: /late does not answer"
        scene.robot.node.create_service(Trigger, "/late/stop", stop_late)
        wait_for(lambda: stops, "the stop arrives")
        wait_for(lambda: view(client).notice == "stop: done", "the answer is shown")
    assert stops == [True]


def test_a_service_that_never_answers_is_given_up(scene: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from std_srvs.srv import Trigger

    monkeypatch.setattr("reflex_ros.rqt.client.ANSWER_WITHIN_S", 0.5)
    release: list[bool] = []

    def never(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        wait_for(lambda: release, "the test is over")
        return response

    scene.robot.node.create_service(Trigger, "/mute/stop", never)
    with client_of(scene, "/mute") as client:
        wait_for(lambda: client._triggers["stop"].service_is_ready(), "the service is there")
        client.stop()
        wait_for(lambda: "no answer from /mute" in view(client).notice, "it gives up")
    release.append(True)


def test_it_has_a_node_and_a_thread_of_its_own_and_leaves_neither(scene: World) -> None:
    client = Client("/reflex", domain_of(scene))
    assert client._context is not scene.robot.spinner.context
    thread = client._thread
    assert thread.is_alive()
    client.close()
    assert not thread.is_alive()
    assert not client._context.ok()
    client.close()


def test_the_silence_of_a_node_is_noticed(scene: World, client: Client) -> None:
    wait_for(lambda: view(client).heard, "heard")
    assert not client.board.view(time.monotonic() + SILENT_AFTER_S + 1.0).heard


def test_the_split_of_two_policies_is_seen_and_set(export_dir: ExportDir) -> None:
    one, two = str(export_dir("calm")), str(export_dir("calm_raise"))
    with world(policy_a=one, policy_b=two, rtc=False, embodiment="franka") as scene:
        scene.activate()
        with client_of(scene) as client:
            wait_for(lambda: view(client).split == 50, "the split is seen")
            client.set_split(10)
            wait_for(lambda: view(client).split == 10, "the new split is seen")
            assert scene.server.node.get_parameter("split").value == 10
            assert view(client).notice_ok
            wait_for(lambda: view(client).slots, "a slot has figures")
            assert view(client).slots[0].name in ("a", "b")
            wait_for(
                lambda: (
                    {"circuit breaker a", "circuit breaker b"}
                    <= {each.name for each in view(client).concerns}
                ),
                "both breakers",
            )
