# SPDX-License-Identifier: Apache-2.0
"""Clients of other projects, as their users install them, drive the simulated arm through this server."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_programs import lines_of_page, typed
from exports import PANDA_MEAN
from http_client import STATE, Background, busy, good, picture, text
from servers import Server

from reflex_client import Policy
from reflex_core.engine.engine import Engine
from reflex_core.settings.table import settings_from
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import make_scene
from reflex_ros.sidecar.server import Sidecar

pytestmark = pytest.mark.clients

MODEL = Path(__file__).parents[2] / "models" / "reach_panda"
SCENES = range(10_000, 10_020)
DT_S = 0.05
LIMIT_S = 6.0
PING_S = PONG_S = 20.0  # of the package websockets
EXECUTED = 10  # rows of each answer
OPENVLA_HZ = 5.0  # of its client, which takes one row for each image

Peers = Callable[..., Any]
Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    made = Arm()
    yield made
    made.close()


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Sidecar]:
    """The embedded policy behind HTTP and ZeroMQ."""
    engine = Engine(settings_from({"export_dir": str(MODEL), "device": "cpu", "port": 0, "groot_port": 0}))
    engine.load()
    engine.warm_up()
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    yield sidecar
    sidecar.stop()
    engine.unload()


def reached(arm: Arm, peer: Any, seed: int, hz: float) -> bool:
    """Whether the arm gets to where its instruction says, closed loop, within the time of an episode."""
    scene = make_scene(seed)
    arm.reset(scene)
    first = True
    while arm.time_s < LIMIT_S:
        state = arm.joint_positions_rad.astype(np.float64)
        rows = peer.infer(arm.image(), state, scene.instruction, seed=seed, first=first)
        first = False
        for row in rows[:EXECUTED]:
            arm.step(row, 1.0 / hz)
    return arm.reached(scene)


JOINED = "openpi-client that executes 10 rows of each chunk, whose chunks are to be joined"
WITH_KEY = "openpi-client, where the server has a key"
DROID_KEYS = "state=observation/joint_position+observation/gripper_position:closed"
OURS, CURL = (
    "[reflex_client](../how-to/use-the-python-client.md), our own",
    "[any program](../how-to/use-http-from-cpp.md), in JSON",
)
DROID, DROID_ARENA = (
    "openpi-client that sends what DROID's robots measure",
    "RoboArena, for an arm with its gripper",
)
WIDOWX, YAM = "OpenVLA (inspect-robots-widowx)", "MolmoAct2 (inspect-robots-yam)"
LEROBOT = "LeRobot's robot_client, 0.4 to 0.6"  # by test/demo/test_lerobot_arm.py: it wants gigabytes
# environment, program, what the page calls the client, more arguments
CLIENTS = {
    "openpi-client": ("openpi", "openpi", "openpi-client"),
    "openpi-client, joined": ("openpi", "openpi", JOINED),
    "vllm": ("openpi", "openpi", "vLLM-Omni's, LeRobot's policy type `vllm` among them"),
    "RoboArena": ("openpi", "openpi", "RoboArena"),
    "vla-eval": ("others", "vla_eval_harness", "vla-eval"),
    "OpenVLA": ("others", "bodies", "OpenVLA's body, for a policy that reads the state", "openvla"),
    "OpenVLA-OFT": ("others", "bodies", "OpenVLA-OFT", "oft"),
    "MolmoAct2": ("others", "bodies", "MolmoAct2's body, for another robot", "molmoact2"),
    "msgpack": ("others", "bodies", "any program, in msgpack", "msgpack"),
    "GR00T": ("groot", "groot", "Isaac-GR00T (inspect-robots-unitree-g1), one arm of seven joints"),
}


def test_every_line_of_the_page_is_typed_here() -> None:
    alone = {WITH_KEY, OURS, CURL, WIDOWX, YAM, LEROBOT, DROID, DROID_ARENA}
    assert set(lines_of_page()) == alone | {name for _, _, name, *_ in CLIENTS.values()}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_an_unchanged_client_drives_the_arm_to_the_named_block(
    arm: Arm, sidecar: Sidecar, peer: Peers, client: tuple[str, ...]
) -> None:
    environment, program, name, *more = client
    port = sidecar.groot_port if environment == "groot" else sidecar.port
    program_of_it = peer(environment, program, typed(name, port), *more)
    hz = OPENVLA_HZ if more == ["openvla"] else 1.0 / DT_S
    missed = [seed for seed in SCENES if not reached(arm, program_of_it, seed, hz)]
    assert len(missed) <= len(SCENES) // 20, missed


def test_our_own_client_and_curl_get_chunks(serve: Serve, tmp_path: Path) -> None:
    port = serve("mono_pi0_7").sidecar.port
    with eval(typed(OURS, port), {"Policy": Policy}) as policy:
        reply = policy.act({"camera": np.zeros((32, 32, 3), np.uint8)}, STATE, "reach")
    assert np.shape(reply.actions) == (50, 7)
    (tmp_path / "request.json").write_text(json.dumps(good()))
    made = subprocess.run(shlex.split(typed(CURL, port)), cwd=tmp_path, capture_output=True, check=True)
    assert np.shape(json.loads(made.stdout)["actions"]) == (50, 7)


def test_openpi_client_brings_its_key(serve: Serve, peer: Peers, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("KEY")
    server = serve("mono_pi0_7", api_key_file=str(key))
    line = typed(WITH_KEY, server.sidecar.port)
    rows = peer("openpi", "openpi", line).infer(
        np.zeros((224, 224, 3), np.uint8), np.zeros(7), "reach", first=True
    )
    assert rows.shape == (10, 7)


@pytest.mark.parametrize(("client", "keys"), [(DROID, [DROID_KEYS]), (DROID_ARENA, [])])
def test_a_client_of_droids_robots_counts_its_gripper_from_open_to_closed(
    serve: Serve, peer: Peers, client: str, keys: list[str]
) -> None:
    server = serve("droid", wire_keys=keys)
    image = {"data": text(picture().tobytes()), "encoding": "rgb8", "height": 32, "width": 32}
    body = {"image": image, "instruction": "reach", "seed": 3, "state": [*PANDA_MEAN, 0.0195]}
    expected = np.array(server.client.act(body).json["actions"], np.float32)
    state = np.array([*PANDA_MEAN, 0.5])
    rows = peer("openpi", "droid", typed(client, server.sidecar.port)).infer(
        picture(), state, "reach", seed=3
    )
    np.testing.assert_allclose(rows[:, :7], expected[:, :7], atol=1e-6)
    np.testing.assert_allclose(rows[:, 7], 1.0 - expected[:, 7] / 0.039, atol=1e-6)


def test_openpi_client_waits_out_an_inference_of_a_minute(serve: Serve, peer: Peers) -> None:
    """It pings every 20 s, and gives a server up that does not answer within 20 s more."""
    server = serve("mono_pi0_7")
    program = peer("openpi", "openpi", typed("openpi-client", server.sidecar.port))
    image, state = np.zeros((224, 224, 3), np.uint8), np.zeros(7)
    assert program.infer(image, state, "reach").shape == (10, 7)
    with busy(server.engine):
        answer = Background(lambda: program.infer(image, state, "reach"))
        time.sleep(PING_S + PONG_S + 5.0)
        assert not answer.done
    assert answer.result().shape == (10, 7)


def test_the_real_openvla_client_gets_its_one_row_from_a_policy_without_state(
    serve: Serve, peer: Peers
) -> None:
    server = serve("decomposed", embodiment="")
    program = peer("others", "openvla", typed(WIDOWX, server.sidecar.port))
    assert program.infer(np.zeros((480, 640, 3), np.uint8), np.zeros(7), "reach").shape == (1, 7)


def test_the_real_molmoact2_client_gets_its_chunk(serve: Serve, peer: Peers) -> None:
    """It is made for two arms of seven joints."""
    server = serve("fourteen", embodiment="")
    program = peer("others", "molmoact2", typed(YAM, server.sidecar.port))
    rows = program.infer(np.zeros((224, 224, 3), np.uint8), np.zeros(14), "fold")
    assert rows.shape == (10, 14)


def test_a_client_of_another_kind_is_refused_and_harms_nothing(serve: Serve, peer: Peers) -> None:
    server = serve("mono_pi0_7")
    program = peer("others", "triton", server.sidecar.port)
    assert program.infer(np.zeros((4, 4, 3), np.uint8), np.zeros(7), "reach") == [[404.0]]
    answer = server.client.ask("POST", "/v2/models/policy/infer", b"{}")
    assert (answer.status, answer.json["error"]) == (404, "not-found")
    assert server.client.act(good()).status == 200
