# SPDX-License-Identifier: Apache-2.0
"""Several robots ask one server: who is held, who is served, who may be reset, and where each is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import AT_REST, BEYOND, act, figure
from http_client import Answer, Client, good
from servers import ExportDir, Server

from reflex_core.engine.engine import Engine
from reflex_core.records.trace.reader import TraceReader
from reflex_core.settings.table import settings_from
from reflex_core.values import Observation
from reflex_ros.sidecar.cloud_client import body_of
from reflex_ros.sidecar.robot_access import Robot, RobotSnapshot
from reflex_ros.sidecar.server import Sidecar

CLAMPS = 10  # the default of the guard
OWN = "warehouse-01"


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def server(export_dir: ExportDir, traces: Path) -> Iterator[Server]:
    """One server for all tests of this file, beside a robot that its node drives."""
    values = {"export_dir": str(export_dir("calm")), "embodiment": "franka", "robot_id": OWN, "port": 0}
    settings = settings_from(values | {"device": "cpu", "intra_op_threads": 1, "record": str(traces)})
    engine = Engine(settings)
    robot = Robot(
        str, str, lambda: RobotSnapshot("active"), lambda: "the measured state is still not believed: why"
    )
    sidecar = Sidecar(engine, settings, robot)
    sidecar.start()
    engine.load()
    engine.warm_up()
    yield Server(engine, sidecar, Client(sidecar.port))
    sidecar.stop()
    engine.unload()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """No caller is tripped before or after."""
    yield server.client
    for caller in server.client.get("/guard/status").json["tripped_callers"]:
        reset(server.client, caller=caller)


def reset(client: Client, **body: Any) -> Answer:
    return client.ask("POST", "/guard/reset", json.dumps(body).encode())


def trip(client: Client, **who: Any) -> str:
    """Chunks that begin too far from where the robot says it is; returns who the server took it for."""
    for _ in range(CLAMPS):
        reply = act(client, BEYOND, **who).json
    assert reply["hold_reason"] == "guard_tripped"
    return str(reply["caller"])


def test_one_robot_that_trips_stops_no_other(client: Client) -> None:
    assert trip(client, robot_id="arm-1", episode_id="shared") == "arm-1"
    other = act(client, robot_id="arm-2", episode_id="shared").json
    assert (other["source"], other["caller"], other["robot_id"]) == ("policy", "arm-2", OWN)
    assert act(client).json["source"] == "policy"
    assert act(client, episode_id="arm-1").json["source"] == "policy"
    assert act(client, robot_id="arm-1", episode_id="new").json["hold_reason"] == "guard_tripped"
    health = client.get("/health")
    assert (health.status, health.json["status"]) == (200, "ok")
    status = client.get("/guard/status").json
    assert (status["tripped"], status["tripped_callers"], status["callers"]["arm-1"]) == (
        True,
        ["arm-1"],
        CLAMPS,
    )


def test_good_chunks_of_another_robot_do_not_save_one_that_is_clamped(client: Client) -> None:
    for number in range(CLAMPS):
        held = act(client, BEYOND, robot_id="arm-3").json
        good = act(client, robot_id="arm-4").json
        assert good["source"] == "policy", number
    assert held["hold_reason"] == "guard_tripped"


def test_a_stranger_does_not_trip_the_robot_that_the_node_drives(client: Client, server: Server) -> None:
    assert trip(client) == "peer:127.0.0.1"
    assert trip(client, episode_id="ros") == "episode:ros"
    assert server.engine.loaded is not None
    assert not server.engine.loaded.guard.status("ros").tripped


@pytest.mark.parametrize(
    ("robot_id", "slug"),
    [
        ("ros", "reserved-robot-id"), (OWN, "reserved-robot-id"), ("peer:127.0.0.1", "reserved-robot-id"),
        (7, "bad-robot-id"), ("a\nb", "bad-robot-id"), (" ", "bad-robot-id"), ("x" * 257, "bad-robot-id"),
        (["arm-1"], "bad-robot-id"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_a_robots_is_refused(client: Client, robot_id: Any, slug: str) -> None:
    refused = act(client, robot_id=robot_id)
    assert (refused.status, refused.json["error"]) == (422, slug)


def test_a_reset_is_of_the_caller_that_is_named(client: Client) -> None:
    for robot_id in ("arm-5", "arm-6"):
        trip(client, robot_id=robot_id)
    unclear = reset(client)
    assert (unclear.status, unclear.json["error"]) == (422, "caller-needed")
    assert "'arm-5', 'arm-6' are tripped" in unclear.json["message"]
    assert reset(client, caller="arm-5").json == {"reset": True, "was_tripped": True}
    assert reset(client, caller="arm-5").json == {"reset": True, "was_tripped": False}
    assert act(client, robot_id="arm-5").json["source"] == "policy"
    assert act(client, robot_id="arm-6").json["hold_reason"] == "guard_tripped"
    assert client.ask("POST", "/guard/reset").json["was_tripped"] is True
    assert act(client, robot_id="arm-6").json["source"] == "policy"
    trip(client, episode_id="ep_1")
    assert reset(client, caller="ep_1").json["was_tripped"] is True


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b'{"caller": "nobody"}', 404, "unknown-caller"), (b'{"callr": "arm-5"}', 422, "bad-body"),
        (b'{"caller": ""}', 422, "bad-caller"), (b'{"caller": 5}', 422, "bad-caller"),
        (b"[]", 422, "bad-body"), (b"{", 400, "malformed-json"),
    ],
)  # fmt: skip
def test_a_reset_without_a_known_name_resets_no_caller(
    client: Client, body: bytes, status: int, slug: str
) -> None:
    trip(client, robot_id="arm-7")
    refused = client.ask("POST", "/guard/reset", body)
    assert (refused.status, refused.json["error"]) == (status, slug)
    assert client.get("/guard/status").json["tripped_callers"] == ["arm-7"]


def test_the_robot_of_the_node_is_reset_over_http_only_by_name(client: Client, server: Server) -> None:
    loaded = server.engine.loaded
    assert loaded is not None
    for _ in range(CLAMPS):
        loaded.guard.trips.count("ros", clamped=True, well=False)
    assert client.ask("POST", "/guard/reset").json["error"] == "caller-needed"
    trip(client, robot_id="arm-8")
    assert client.ask("POST", "/guard/reset").json["was_tripped"] is True
    assert loaded.guard.status().tripped_callers == ("ros",)
    answer = reset(client, caller="ros").json
    assert answer["was_tripped"] is True
    assert answer["problem"] == "the measured state is still not believed: why"


def test_callers_are_counted_in_bounded_names(client: Client) -> None:
    def counted(**labels: str) -> float:
        return figure(client, "reflex_caller_requests_total", **labels)

    before = counted(caller="arm-9", outcome="answered")
    act(client, robot_id="arm-9")
    act(client, BEYOND, robot_id="arm-9")
    act(client, AT_REST[:5], robot_id="arm-9")
    assert counted(caller="arm-9", outcome="answered") == before + 1
    assert counted(caller="arm-9", outcome="clamped") == 1
    assert counted(caller="arm-9", outcome="refused") == 1
    for number in range(100):
        act(client, robot_id=f"invented-{number}")
    assert counted(caller="other") > 0
    text = client.get("/metrics").body.decode()
    assert (
        len({line.split('caller="')[1].split('"')[0] for line in text.splitlines() if 'caller="' in line})
        < 80
    )


def test_another_server_gets_the_name_of_the_robot(server: Server) -> None:
    seen = Observation({}, None, "reach")
    for caller, named in (("arm-1", "arm-1"), ("ros", None), ("peer:::1", None), ("episode:ep_1", None)):
        body = body_of(server.engine.request(seen, caller=caller))
        assert json.loads(body).get("robot_id") == named


def test_a_trace_says_who_asked(client: Client, server: Server, traces: Path) -> None:
    act(client, robot_id="arm-10", request_id="r-caller", episode_id="ep_2")
    server.engine.unload()
    server.engine.load()
    server.engine.warm_up()
    [recorded] = [
        record
        for path in traces.glob("*.jsonl.gz")
        for record in TraceReader(path)
        if record.request_id == "r-caller"
    ]
    assert recorded.document["request"]["caller"] == "arm-10"


@pytest.mark.parametrize(
    "spoiled",
    [
        {"instruction": ""}, {"instruction": " \n"}, {"instruction": "\x00\x01"}, {"instruction": "\u200b"},
        {"instruction": ...}, {"instruction": ..., "prompt": "reach"}, {"instruction": ..., "task": "reach"},
        {"instruction": ..., "Instruction": "reach"},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_that_does_not_say_what_to_do_is_refused(client: Client, spoiled: dict[str, Any]) -> None:
    document = good(state=AT_REST) | spoiled
    refused = client.act({key: value for key, value in document.items() if value is not ...})
    assert (refused.status, refused.json["error"]) == (422, "missing-instruction")
    for key in ("prompt", "task", "Instruction"):
        assert (f"this request has '{key}'" in refused.json["message"]) is (key in document)


@pytest.mark.parametrize(
    ("first", "slug"),
    [
        ("1e38", "implausible-state"), ("9.0", "implausible-state"), ("-45", "implausible-state"),
        ("3.5e38", "state-not-finite"), ("1e308", "state-not-finite"), ("NaN", "state-not-finite"),
        ("-Infinity", "state-not-finite"),
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_true_is_the_callers_mistake_alone(
    client: Client, server: Server, first: str, slug: str
) -> None:
    document = json.dumps(good(state=AT_REST)).replace(str(AT_REST), str([0.125, *AT_REST[1:]]))
    for _ in range(CLAMPS):
        refused = client.ask("POST", "/act", document.replace("[0.125,", f"[{first},").encode())
        assert (refused.status, refused.json["error"]) == (422, slug)
    assert client.get("/health").json["consecutive_crashes"] == 0
    assert client.get("/guard/status").json["tripped"] is False
    assert act(client).json["source"] == "policy"


def test_without_a_state_a_tripped_caller_gets_the_same_error_every_time(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    trip(client, robot_id="arm-11")
    caplog.clear()
    for _ in range(3):
        refused = act(client, None, robot_id="arm-11")  # type: ignore[arg-type]
        assert (refused.status, refused.json["error"]) == (422, "missing-state")
    assert not [record for record in caplog.records if record.exc_info]
