# SPDX-License-Identifier: Apache-2.0
"""An arm that policies on other servers drive through the real node: while they answer, when they are killed, and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from controller_bench import Bench
from http_client import Client
from openpi_double import OpenpiDouble, rows_of, towards
from reflex_ros.msg import ActionChunk
from ros_world import HOME, JOINTS, REACH_HOME, World, wait_for, world
from servers import MakeEngine

from reflex_core.files.share import embedded_policy
from reflex_ros.sidecar.server import Sidecar

TARGET = [HOME[0] + 0.4, *HOME[1:]]
OK, ERROR = b"\x00", b"\x02"
LOST, BAD = "remote-unreachable", "remote-bad-reply"
ARM = str(embedded_policy() / "embodiment.json")


@contextmanager
def driven(url: str, at: list[float], **settings: Any) -> Iterator[tuple[World, Bench]]:
    """A node whose policy runs at the URL, and an arm that does what it commands."""
    values = {"export_dir": "", "remote": url, "remote_wait_s": 20.0} | settings
    with world(**values) as scene:
        scene.robot.joints_on = False
        with Bench(scene.domain, dict(zip(JOINTS, at, strict=True))) as bench:
            bench.trajectory_controller("arm_controller", JOINTS, topic="/reflex/joint_trajectory")
            scene.activate("reach the red block")
            yield scene, bench


@pytest.fixture
def openpi() -> Iterator[OpenpiDouble]:
    server = OpenpiDouble(towards(TARGET)).start()
    yield server
    server.stop()


def hold_of(scene: World) -> str:
    return str(scene.robot.status.hold_reason)


def killed_and_back(
    scene: World, bench: Bench, kill: Callable[[], None], start: Callable[[], None], least_rad: float
) -> None:
    """Kill the server in the middle of a motion: the rows that are there go on, the robot holds, and moves on afterwards."""
    begins = dict(bench.joints)
    wait_for(lambda: max(abs(bench.joints[name] - begins[name]) for name in JOINTS) > 0.02, "the arm moves")
    kill()
    there = dict(bench.joints)
    wait_for(lambda: hold_of(scene) == LOST, f"the robot holds; now {hold_of(scene)}")
    assert max(abs(bench.joints[name] - there[name]) for name in JOINTS) > least_rad
    scene.robot.diagnosed("remote server", ERROR)
    chunks = len(scene.robot.chunks)
    start()
    scene.robot.next_chunk(seen=chunks)
    wait_for(lambda: not hold_of(scene), "the robot is moved again")


def test_an_openpi_server_drives_the_arm_and_is_lost_and_found(openpi: OpenpiDouble) -> None:
    with driven(openpi.url, HOME, embodiment="franka") as (scene, bench):
        killed_and_back(scene, bench, openpi.stop, lambda: openpi.start() and None, least_rad=0.01)
        wait_for(
            lambda: abs(bench.joints[JOINTS[0]] - TARGET[0]) < 0.05, "the arm is where the policy wants it"
        )
        assert scene.robot.status.inference_mode == "remote"


def test_another_server_of_this_kind_drives_the_arm_and_is_lost_and_found(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", export_dir=str(embedded_policy()))
    servers: list[Sidecar] = []

    def start(port: int = 0) -> None:
        servers.append(Sidecar(engine, replace(engine.settings, port=port)))
        servers[-1].start()

    start()
    port = servers[0].port
    with driven(f"http://127.0.0.1:{port}", REACH_HOME, custom_embodiment_config=ARM, http=True, port=0) as (
        scene,
        bench,
    ):
        killed_and_back(scene, bench, servers[0].stop, lambda: start(port), least_rad=0.0)
        assert scene.server.sidecar is not None
        client = Client(scene.server.sidecar.port)
        assert client.get("/config").json["effective"]["remote"]["dialect"] == "reflex"
        wait_for(
            lambda: (client.get("/config").json["effective"]["rtc"]["guided"]) > 0, "chunks are guided there"
        )
    servers[-1].stop()


def test_a_server_that_begins_to_lie_is_held_against_at_once(openpi: OpenpiDouble) -> None:
    with driven(openpi.url, HOME, embodiment="franka", max_consecutive_crashes=0) as (scene, _):
        scene.robot.next_chunk()
        openpi.answer = rows_of([[float("nan")] * 7] * 10)
        wait_for(lambda: hold_of(scene) == BAD, "the robot holds")
        scene.robot.diagnosed("remote server", OK)  # it answers, whatever it says
        openpi.answer = towards(TARGET)
        wait_for(lambda: not hold_of(scene), "the robot is moved again")


def test_with_a_deadline_the_last_good_chunk_goes_on_while_the_server_is_slow(openpi: OpenpiDouble) -> None:
    settings = {"embodiment": "franka", "deadline_ms": 200.0, "max_fallback_age_ms": 1000.0, "execution_horizon": 2}  # fmt: skip
    with driven(openpi.url, HOME, **settings) as (scene, _):
        scene.robot.next_chunk()
        openpi.delay_s = 5.0
        scene.robot.next_chunk(ActionChunk.SOURCE_LAST_KNOWN_GOOD)
        scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
        openpi.delay_s = 0.0
        scene.robot.next_chunk()


def test_a_node_whose_server_is_not_there_does_not_become_active_and_says_why() -> None:
    with world(export_dir="", remote="ws://127.0.0.1:9", remote_wait_s=0.0, embodiment="franka") as scene:
        scene.spinner.do(scene.server.start)
        assert scene.state != "active"
        assert "remote_wait_s" in scene.server.node.refusal
