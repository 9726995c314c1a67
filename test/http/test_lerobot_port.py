# SPDX-License-Identifier: Apache-2.0
"""The gRPC port of LeRobot's clients, over real sockets, with messages as they send them."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hostile_pickles import HOSTILE
from http_client import busy, wait_for
from lerobot_client import (
    LerobotClient,
    captured,
    message,
    observation,
    part,
    parts,
    setup,
)
from servers import Server

from reflex_core.engine.engine import Engine
from reflex_core.errors import ConfigurationError, InferenceError, ReflexError, SettingError
from reflex_core.settings.table import settings_from
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import Request, Served
from reflex_ros.sidecar import lerobot_parts, lerobot_port
from reflex_ros.sidecar.connections import ConnectionLimits
from reflex_ros.sidecar.server import Sidecar
from reflex_ros.sidecar.wires import lerobot as wire

Serve = Callable[..., Server]

DEMO = {"export_dir": "demo", "embodiment": ""}  # its chunks can be guided
READY = np.array([0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8])
MEAN = np.array([0.0, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0])
REACH = "reach the red cube"


@pytest.fixture
def lerobot(serve: Serve) -> Iterator[Callable[..., tuple[Server, Callable[[], LerobotClient]]]]:
    """`lerobot("calm")`: a server with the port, and what makes a client of it."""
    clients: list[LerobotClient] = []

    def start(name: str = "calm", **changes: Any) -> tuple[Server, Callable[[], LerobotClient]]:
        server = serve(name, **{"lerobot_port": 0, "lerobot_units": ("radians",)} | changes)

        def client() -> LerobotClient:
            clients.append(LerobotClient(server.sidecar.lerobot_port))
            return clients[-1]

        return server, client

    yield start
    for client in clients:
        client.close()


def at_mean(timestep: int = 0, **changes: Any) -> bytes:
    return observation(MEAN, timestep=timestep, **{"task": REACH} | changes)


def recorded(server: Server) -> list[Served]:
    """All answers of the engine from now on."""
    found: list[Served] = []
    act = server.engine.act

    def kept(request: Any) -> Served:
        found.append(act(request))
        return found[-1]

    server.engine.act = kept  # type: ignore[method-assign]
    return found


def requests(server: Server) -> list[Request]:
    """All requests to the engine from now on."""
    found: list[Request] = []
    act = server.engine.act

    def kept(request: Request) -> Served:
        found.append(request)
        return act(request)

    server.engine.act = kept  # type: ignore[method-assign]
    return found


def counted(server: Server, name: str, **labels: str) -> float:
    for line in server.client.get("/metrics").body.decode().splitlines():
        if line.startswith(name + "{") and all(f'{key}="{text}"' in line for key, text in labels.items()):
            return float(line.rpartition(" ")[2])
    return 0.0


def refused(call: Callable[[], object]) -> tuple[Any, str]:
    """The status and the sentence of a call that fails."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), error.value.details()


def test_rows_are_those_of_the_engine_and_rtc_is_guided_from_timesteps(lerobot: Any) -> None:
    server, client = lerobot(**DEMO)
    answers, one = recorded(server), client()
    one.start()
    for timestep, first in ((0, 0), (25, 26), (50, 51)):
        one.send(observation(READY, timestep=timestep, must_go=timestep == 0))
        found = one.actions()
        assert [row.timestep for row in found] == list(range(first, first + 50))
        np.testing.assert_array_equal([row.action for row in found], answers[-1].chunk.actions)
        assert found[0].action.dtype == np.float32
    assert [bool(served.rtc.mode) for served in answers] == [False, True, True]
    assert [served.rtc.elapsed_rows for served in answers] == [0.0, 26.0, 25.0]
    assert len({served.episode_id for served in answers}) == 1
    assert counted(server, "reflex_wire_requests_total", wire="lerobot", outcome="answered") >= 1


def test_degrees_go_in_and_come_out(lerobot: Any) -> None:
    server, client = lerobot(lerobot_units=("degrees",))
    answers, one = recorded(server), client()
    one.start()
    one.send(observation(np.degrees(MEAN), task=REACH))
    rows = np.array([row.action for row in one.actions()])
    np.testing.assert_allclose(rows, np.degrees(answers[0].chunk.actions), rtol=1e-5)
    np.testing.assert_allclose(rows[0], np.degrees(MEAN), atol=5.0)


def test_rows_for_a_faster_client_are_interpolated(lerobot: Any) -> None:
    server, client = lerobot(lerobot_fps=30.0, **DEMO)
    answers, one = recorded(server), client()
    one.start(actions_per_chunk=100)
    one.send(observation(READY))
    found = one.actions()
    assert len(found) == 75  # 50 rows of 1/20 s
    np.testing.assert_allclose(found[2].action, answers[0].chunk.actions[1], rtol=1e-6)
    assert found[1].timestamp - found[0].timestamp == pytest.approx(1 / 30, rel=1e-3)
    one.send(observation(READY, timestep=29))
    assert one.actions()[0].timestep == 30
    assert answers[1].rtc.elapsed_rows == pytest.approx(20.0)


def test_a_client_gets_as_many_rows_as_it_asks_for(lerobot: Any) -> None:
    _, client = lerobot()
    one = client()
    one.start(actions_per_chunk=10)
    one.send(at_mean())
    assert len(one.actions()) == 10


@pytest.mark.parametrize("version", ["0_4_4", "0_6_1"])
def test_the_bytes_of_the_real_client_are_answered(lerobot: Any, tmp_path: Path, version: str) -> None:
    """An SO-101 with joints in the order of the franka preset's names is another robot: refused, by name; ours is answered."""
    _, client = lerobot()
    one = client()
    code, sentence = refused(lambda: one._setup(captured(f"setup_{version}.bin")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence.startswith("joints-mismatch: ")
    assert "shoulder_pan.pos" in sentence
    code, sentence = refused(lambda: one.send_parts(iter([captured(f"observation_{version}.bin")])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "panda_joint1" in sentence


def test_instructions_may_change_within_an_episode_and_the_image_is_the_one_sent(lerobot: Any) -> None:
    server, client = lerobot()
    seen, one = requests(server), client()
    one.start()
    image = np.random.default_rng(1).integers(0, 255, (30, 40, 3), np.uint8)
    one.send(at_mean(task="reach the red cube", camera=image))
    one.actions()
    one.send(at_mean(20, task="push the ball", camera=image))
    one.actions()
    assert [request.observation.instruction for request in seen] == ["reach the red cube", "push the ball"]
    [frame] = seen[0].observation.frames.values()
    assert (frame.encoding, frame.height, frame.width) == ("rgb8", 30, 40)
    assert bytes(frame.data) == image.tobytes()
    assert seen[0].wire == "lerobot"
    assert seen[0].caller.startswith("session:lerobot-")


def test_full_names_of_cameras_and_a_rename_map_are_taken(lerobot: Any) -> None:
    server, client = lerobot(wire_keys=("camera=observation.images.left",))
    seen = requests(server)
    one = client()
    cameras = {
        "observation.images.hand": np.full((8, 8, 3), 1, np.uint8),
        "cam_high": np.full((8, 8, 3), 2, np.uint8),
    }
    one.start(
        cameras=("hand", "cam_high"), rename_map={"observation.images.cam_high": "observation.images.left"}
    )
    one.send(at_mean(**cameras))
    assert one.actions()
    assert bytes(seen[0].observation.frames["camera"].data) == bytes([2] * 192)


def test_shares_of_wire_keys_are_not_lerobots(lerobot: Any) -> None:
    """Its units say what a gripper counts; a setting that is not read must not look as if it were."""
    _, client = lerobot("droid", wire_keys=("state=a+b:closed",))
    _, sentence = refused(lambda: client().set_up(setup()))
    assert "'b:closed', which this wire does not read" in sentence
    assert "--lerobot-units" in sentence


def test_get_actions_before_anything_is_empty_within_two_seconds(lerobot: Any) -> None:
    _, client = lerobot()
    one = client()
    for prepare in (lambda: None, one.ready, one.start):
        prepare()
        begun = time.monotonic()
        assert one.actions() == []
        assert 1.5 < time.monotonic() - begun < 4.0


def test_the_newest_observation_is_answered_and_one_too_close_is_not(lerobot: Any) -> None:
    server, client = lerobot()
    answers, one = recorded(server), client()
    one.start()
    for timestep in (3, 4, 5):
        one.send(at_mean(timestep))
    assert one.actions()[0].timestep == 6
    one.send(at_mean(6))
    assert one.actions() == []
    one.send(at_mean(6, must_go=True))
    assert one.actions()[0].timestep == 7
    assert len(answers) == 2
    assert counted(server, "reflex_wire_requests_total", wire="lerobot", outcome="skipped") == 1


def test_an_observation_that_no_one_asked_for_is_not_answered_later(
    lerobot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = lerobot()
    seen, one = requests(server), client()
    one.start()
    one.send(at_mean())
    sent_ns = time.monotonic_ns()
    assert one.actions()
    assert seen[0].received_ns < sent_ns  # its age counts from when it came
    monkeypatch.setattr(lerobot_port, "STALE_S", 0.0)
    one.send(at_mean(30))
    assert one.actions() == []
    assert len(seen) == 1
    assert server.sidecar.memory.bytes == 0


def test_many_clients_are_served_each_by_itself(lerobot: Any) -> None:
    server, client = lerobot(**DEMO)
    answers = recorded(server)
    first, second = client(), client()
    first.start()
    first.send(observation(READY, timestep=10))
    second.start()  # Ready of one wipes nothing of another
    assert first.actions()[0].timestep == 11
    second.send(observation(READY, timestep=0))
    assert second.actions()[0].timestep == 0
    first.send(observation(READY, timestep=30))
    assert first.actions()[0].timestep == 31
    assert answers[0].episode_id == answers[2].episode_id != answers[1].episode_id
    assert answers[2].rtc.elapsed_rows == 20.0


def test_parts_of_two_clients_do_not_mix(lerobot: Any) -> None:
    _, client = lerobot()
    image = np.zeros((600, 800, 3), np.uint8)
    turn = threading.Barrier(2, timeout=30)

    def slowly(data: bytes) -> Iterator[bytes]:
        for piece in parts(data, 300_000):
            turn.wait()
            yield piece

    def run(one: LerobotClient, timestep: int) -> int:
        one.start()
        one.send_parts(slowly(at_mean(timestep, camera=image)), timeout=30)
        return one.actions()[0].timestep

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(run, client(), timestep) for timestep in (100, 200)]
        assert [one.result(60) for one in found] == [101, 201]


def test_another_model_is_asked_for_and_nothing_is_loaded(
    lerobot: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_line", RateLimitedLog(wire.log))
    server, client = lerobot()
    with caplog.at_level(logging.INFO):
        client().start(pretrained_name_or_path="evil/weights", policy_type="pi0")
    assert "asked for pi0 evil/weights" in caplog.text
    assert server.engine.loaded is not None


def test_undeclared_units_are_refused_in_setup_and_observation(lerobot: Any) -> None:
    _, client = lerobot(lerobot_units=())
    one = client()
    one.ready()
    for call in (lambda: one.set_up(setup()), lambda: one.send(at_mean())):
        code, sentence = refused(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence.startswith("units-undeclared: nothing says what the client counts its joints in")


def test_a_client_without_cameras_is_refused_by_name(lerobot: Any) -> None:
    _, client = lerobot()
    code, sentence = refused(lambda: client().set_up(setup(cameras=())))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence.startswith("missing-image: ")


def test_a_setup_waits_for_a_policy_that_is_loading(lerobot: Any) -> None:
    server, client = lerobot(ready=False)
    one = client()
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(one.start)
        time.sleep(0.3)
        assert not started.done()
        assert refused(lambda: client().send(at_mean()))[0] is grpc.StatusCode.FAILED_PRECONDITION
        server.engine.load()
        server.engine.warm_up()
        started.result(30)
    one.send(at_mean())
    assert one.actions()


def test_nothing_is_sent_while_nothing_serves_and_the_client_goes_on_afterwards(lerobot: Any) -> None:
    server, client = lerobot()
    one = client()
    one.start()
    server.engine.pause()  # as a node that is deactivated
    one.send(at_mean())
    assert one.actions() == []
    code, sentence = refused(lambda: one.set_up(setup()))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "state is 'inactive'" in sentence
    server.engine.warm_up()
    one.send(at_mean(3))
    assert one.actions()[0].timestep == 4


def test_a_failure_of_the_model_is_one_sentence(lerobot: Any) -> None:
    server, client = lerobot()
    one = client()
    one.start()
    act = server.engine.act
    server.engine.act = failing
    one.send(at_mean())
    code, sentence = refused(one.actions)
    assert code is grpc.StatusCode.INTERNAL
    assert sentence.endswith(": the model failed on this request; the server's log says why")
    server.engine.act = act
    one.send(at_mean(1))  # nothing was delivered, so that it is not too close to anything
    assert one.actions()[0].timestep == 2


def failing(request: Any) -> Served:
    raise InferenceError("session.run: out of memory at /home/somebody")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_payload_is_refused_in_one_sentence_and_counted(
    hostile: tuple[Server, LerobotClient], tmp_path: Path, name: str
) -> None:
    server, one = hostile
    mark = tmp_path / "mark"
    data = HOSTILE[name](mark)
    before = counted(server, "reflex_wire_requests_total", wire="lerobot", outcome="refused")
    for call in (lambda: one.send(data), lambda: one.set_up(data)):
        code, sentence = refused(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, sentence
        slug, colon, text = sentence.partition(": ")
        assert colon
        assert slug in {"unsafe-pickle", "malformed-pickle", "bad-body"}
        assert len(text) < 400
        assert "\n" not in text
    assert not mark.exists()
    assert counted(server, "reflex_wire_requests_total", wire="lerobot", outcome="refused") == before + 2
    one.send(at_mean(must_go=True))  # the server is unharmed
    assert one.actions()


def calm_server(export_dir: Any) -> tuple[Engine, Sidecar]:
    """An engine and its server; the caller ends both."""
    values = {"export_dir": str(export_dir("calm")), "device": "cpu", "intra_op_threads": 1, "embodiment": "franka",
              "port": 0, "lerobot_port": 0, "lerobot_units": ("radians",)}  # fmt: skip
    engine = Engine(settings_from(values))
    engine.load()
    engine.warm_up()
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    return engine, sidecar


@pytest.fixture(scope="module")
def hostile(export_dir: Any) -> Iterator[tuple[Server, LerobotClient]]:
    """One server for all of them."""
    from http_client import Client

    engine, sidecar = calm_server(export_dir)
    client = LerobotClient(sidecar.lerobot_port)
    yield Server(engine, sidecar, Client(sidecar.port)), client
    client.close()
    sidecar.stop()
    engine.unload()


def test_nothing_keeps_a_server_whose_port_was_open(export_dir: Any) -> None:
    """gRPC keeps the event loop for good, and a node that is configured anew must let go of its policy."""
    engine, sidecar = calm_server(export_dir)
    client = LerobotClient(sidecar.lerobot_port)
    client.start()
    client.close()
    sidecar.stop()
    engine.unload()
    left = weakref.ref(engine)
    del engine, sidecar
    gc.collect()
    assert left() is None


def test_parts_that_are_no_observation_are_refused(lerobot: Any) -> None:
    _, client = lerobot()
    one = client()
    data = at_mean()
    cases = {
        "malformed-parts: the observation ended": [part(data[:50], 1), part(data[50:], 2)],
        "malformed-parts: the observation ended ": [],
        "malformed-parts: an observation begins": [part(data, 1), part(data, 1), part(b"", 3)],
        "malformed-protobuf: ": [b"\x12\xff\xff\xff\xff\x0fx"],
        "malformed-parts: the data of a part": [b"\x08\x03\x10\x01"],
        "malformed-pickle: ": [part(data[:-40], 3)],
    }
    for begin, sent in cases.items():
        code, sentence = refused(lambda sent=sent: one.send_parts(iter(sent), timeout=30))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence.startswith(begin.strip())
    one.send(data)
    assert one.actions()


def test_a_part_or_an_observation_that_is_too_large_is_refused(lerobot: Any) -> None:
    server, client = lerobot(max_pixels=1024)
    one = client()
    assert (
        refused(lambda: one.send_parts(iter([part(bytes(5 << 20), 3)])))[0]
        is grpc.StatusCode.RESOURCE_EXHAUSTED
    )
    endless = (part(bytes(1 << 20), 2) for _ in iter(int, 1))
    code, sentence = refused(lambda: one.send_parts(endless, timeout=60))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("body-too-large: ")
    code, sentence = refused(lambda: one.send(at_mean(camera=np.zeros((64, 64, 3), np.uint8))))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "pixels" in sentence
    wait_for(lambda: server.sidecar.memory.bytes == 0)


def test_a_stream_that_never_ends_is_ended_and_keeps_no_other_client_out(
    lerobot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_parts, "PART_S", 1.0)
    server, client = lerobot()
    release = threading.Event()

    def hanging() -> Iterator[bytes]:
        yield part(bytes(100_000), 1)
        release.wait(60)

    hung = [
        one.send_parts.future(hanging(), timeout=60) for one in (client() for _ in range(8)) for _ in range(4)
    ]
    one = client()
    one.start()
    one.send(at_mean())
    assert one.actions()
    for call in hung:
        assert call.exception(30).code() is grpc.StatusCode.ABORTED
    release.set()
    wait_for(lambda: server.sidecar.memory.bytes <= 10_000)


def test_a_storm_of_ready_hurts_no_other_client(lerobot: Any) -> None:
    server, client = lerobot()
    one, storm = client(), client()
    one.start()
    calls = [storm._ready.future(b"", timeout=60) for _ in range(500)]
    one.send(at_mean())
    assert one.actions()
    for call in calls:
        call.exception(60)  # answered, or over the limit of calls
    one.send(at_mean(20))
    assert one.actions()
    del server


def test_more_clients_than_there_is_room_for_are_refused(
    lerobot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_port, "MOST_CLIENTS", 2)
    _, client = lerobot()
    clients = [client(), client(), client()]
    for one in clients[:2]:
        one.ready()
    code, sentence = refused(clients[2].ready)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("too-many-clients: ")
    monkeypatch.setattr(lerobot_port, "IDLE_S", 0.0)
    clients[2].ready()  # the others have gone


def test_connections_that_are_too_many_are_closed_and_those_before_them_go_on(lerobot: Any) -> None:
    server, client = lerobot(limits=ConnectionLimits(most=3))
    one = client()
    one.start()
    where = ("127.0.0.1", server.sidecar.lerobot_port)
    with ExitStack() as opened:
        silent = [opened.enter_context(socket.create_connection(where, timeout=30)) for _ in range(8)]
        assert sorted(bool(connection.recv(1)) for connection in silent) == [False] * 6 + [True] * 2
        code, sentence = refused(client().ready)
        assert code is grpc.StatusCode.UNAVAILABLE  # the client tries again by itself
        assert "\n" not in sentence
        one.send(at_mean())
        assert one.actions()
        assert server.client.get("/health").status == 200
    wait_for(lambda: answers(client))  # there is room again


@pytest.mark.parametrize(("version", "warned"), [("1.62.3", True), ("1.63.0", False), ("1.100.0rc1", False)])
def test_a_grpcio_that_limits_no_connections_is_named(
    lerobot: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
    warned: bool,
) -> None:
    monkeypatch.setattr(grpc, "__version__", version)
    lerobot()
    assert (f"grpcio {version} does not limit the connections" in caplog.text) == warned


def answers(client: Callable[[], LerobotClient]) -> bool:
    try:
        client().ready()
    except grpc.RpcError:
        return False
    return True


def test_the_memory_of_an_observation_is_freed_when_it_is_replaced_or_its_client_goes(
    lerobot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = lerobot()
    one = client()
    one.start()
    image = np.zeros((480, 640, 3), np.uint8)
    for timestep in range(3):
        one.send(at_mean(timestep, camera=image))
        assert server.sidecar.memory.bytes == image.nbytes
    assert one.actions()
    wait_for(lambda: server.sidecar.memory.bytes == 0)
    one.send(at_mean(30, camera=image))
    one.close()
    monkeypatch.setattr(lerobot_port, "IDLE_S", 0.0)
    client().ready()
    wait_for(lambda: server.sidecar.memory.bytes == 0)


def test_a_client_that_leaves_during_its_inference_leaves_nothing_behind(lerobot: Any) -> None:
    server, client = lerobot()
    one = client()
    one.start()
    one.send(at_mean())
    with busy(server.engine):
        call = one.get.future(b"", timeout=60)
        wait_for(lambda: server.sidecar.waiting == 1)
        call.cancel()
    wait_for(lambda: server.sidecar.memory.bytes == 0 and server.sidecar.waiting == 0)
    other = client()
    other.start()
    other.send(at_mean())
    assert other.actions()


def test_clients_that_go_within_an_observation_fill_no_log(
    lerobot: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A line with a traceback for each would be a log as long as a client likes."""
    server, client = lerobot()
    release = threading.Event()

    def hanging() -> Iterator[bytes]:
        yield part(bytes(1000), 1)
        release.wait(60)

    calls = [one.send_parts.future(hanging(), timeout=60) for one in (client() for _ in range(20))]
    wait_for(lambda: server.sidecar.memory.bytes == 20_000)
    for call in calls:
        call.cancel()
    wait_for(lambda: server.sidecar.memory.bytes == 0)
    release.set()
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_the_server_ends_while_clients_wait(lerobot: Any) -> None:
    server, client = lerobot()
    one, two = client(), client()
    one.start()
    waiting = [one.get.future(b"", timeout=60), two.get.future(b"", timeout=60)]
    time.sleep(0.3)
    begun = time.monotonic()
    server.sidecar.stop()
    assert time.monotonic() - begun < 2.0
    for call in waiting:
        error = call.exception(10)
        assert error is None or error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_without_the_setting_there_is_no_port(serve: Serve) -> None:
    assert serve("calm").sidecar.lerobot_port == 0


def test_a_port_that_is_taken_is_refused_in_one_sentence(lerobot: Any, serve: Serve) -> None:
    server, _ = lerobot()
    with pytest.raises(ReflexError, match=r"cannot listen on 127.0.0.1:\d+ for LeRobot's clients") as error:
        serve("calm", lerobot_port=server.sidecar.lerobot_port)
    assert error.value.slug == "address-in-use"


@pytest.mark.parametrize(("insecure", "lerobot_insecure"), [(False, False), (True, False), (False, True)])
def test_another_address_needs_both_settings(insecure: bool, lerobot_insecure: bool) -> None:
    values = {
        "lerobot_port": 0,
        "lerobot_host": "0.0.0.0",
        "insecure": insecure,
        "lerobot_insecure": lerobot_insecure,
    }
    with pytest.raises(ConfigurationError, match="--insecure and --lerobot-insecure") as error:
        lerobot_port.require_lerobot(settings_from(values))
    assert error.value.slug == "insecure-address"
    lerobot_port.require_lerobot(settings_from(values | {"insecure": True, "lerobot_insecure": True}))


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_port.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingError, match=r"needs the package grpcio: pip install 'reflex_ros\[lerobot\]'"):
        lerobot_port.require_lerobot(settings_from({"lerobot_port": 0}))


def test_methods_that_are_not_there_are_unimplemented(lerobot: Any) -> None:
    _, client = lerobot()
    call = client().channel.unary_unary("/transport.AsyncInference/Shutdown")
    assert refused(lambda: call(message(b"x"), timeout=10))[0] is grpc.StatusCode.UNIMPLEMENTED
