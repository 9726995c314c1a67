# SPDX-License-Identifier: Apache-2.0
"""/health, /config and /metrics; the API key; which addresses may be listened on."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from http_client import Background, Client, good, wait_for

from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_core.settings.table import settings_from
from reflex_ros.sidecar.auth import VARIABLE, read_key
from reflex_ros.sidecar.server import Sidecar

Serve = Callable[..., Any]
ExportDir = Callable[[str], Path]

KEY = "correct horse battery staple"


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(f"  {KEY}\n")
    return str(path)


def test_health_tells_every_state_on_the_way_to_ready(serve: Serve) -> None:
    server = serve("heavy", ready=False)

    def watch() -> list[tuple[int, dict[str, Any]]]:
        seen = [server.client.get("/health")]
        while seen[-1].status != 200:
            seen.append(server.client.get("/health"))
        return [(answer.status, answer.json) for answer in seen]

    first = server.client.get("/health")
    assert (first.status, first.json["state"], first.json["model_loaded"]) == (503, "initializing", False)
    assert first.json["inference_mode"] == "uninitialized"
    watching = Background(watch)
    server.engine.load()
    server.engine.warm_up()
    seen = watching.result()
    states = list(dict.fromkeys(document["state"] for _, document in seen))
    assert [state for state in states if state in ("loading", "warming", "ready")] == [
        "loading",
        "warming",
        "ready",
    ]
    for status, document in seen:
        assert (status == 200) == (document["state"] == "ready") == (document["status"] == "ok")
    ready = seen[-1][1]
    assert ready["model_loaded"] is True
    assert (ready["inference_mode"], ready["robot_id"], ready["reason"]) == ("onnx_cpu", "arm7", "")


def test_health_says_that_a_refused_configuration_is_in_the_log(serve: Serve) -> None:
    server = serve("mono_pi0_7", ready=False, embodiment="nobody")
    with pytest.raises(ReflexError):
        server.engine.load()
    answer = server.client.get("/health")
    assert (answer.status, answer.json["state"]) == (503, "failed")
    assert answer.json["reason"] == "configuration refused, see the log"


def test_health_says_that_the_warm_up_failed(serve: Serve) -> None:
    server = serve("always_nan", ready=False)
    server.engine.load()
    with pytest.raises(ReflexError):
        server.engine.warm_up()
    assert server.client.get("/health").json["reason"] == "warm-up failed, see the log"


def test_health_is_503_while_the_policy_is_paused(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    server.engine.pause()
    assert server.client.get("/health").status == 503
    assert server.client.act().json["error"] == "not-ready"


def test_config_is_what_the_export_wrote_and_what_is_served(serve: Serve, export_dir: ExportDir) -> None:
    server = serve("mono_pi0_7")
    written = json.loads((export_dir("mono_pi0_7") / "reflex_config.json").read_text())
    document = server.client.get("/config").json
    assert {key: document[key] for key in written} == written
    assert document["robot_id"] == "arm7"
    assert document["effective"]["embodiment"] == "franka"
    assert document["effective"]["cameras"] == {"base": "camera"}


def test_config_tells_no_path_of_this_machine(serve: Serve, export_dir: ExportDir, tmp_path: Path) -> None:
    export = tmp_path / "export"
    shutil.copytree(export_dir("mono_pi0_7"), export)
    config = json.loads((export / "reflex_config.json").read_text())
    config |= {
        "spine_path": "/home/me/checkpoints/best",
        "nested": [{"where": "C:\\models\\a"}],
        "origin": "org/name",
    }
    (export / "reflex_config.json").write_text(json.dumps(config))
    document = serve("mono_pi0_7", export_dir=str(export)).client.get("/config").json
    assert document["spine_path"] == "best"
    assert document["nested"] == [{"where": "a"}]
    assert document["origin"] == "org/name"
    assert str(tmp_path) not in json.dumps(document)


def test_config_before_loading_is_what_is_known(serve: Serve) -> None:
    answer = serve("mono_pi0_7", ready=False).client.get("/config")
    assert (answer.status, answer.json["robot_id"]) == (200, "arm7")


@pytest.mark.parametrize("path", ["/health", "/config", "/metrics"])
def test_head_answers_like_get_without_a_body(serve: Serve, path: str) -> None:
    client = serve("mono_pi0_7").client
    head, got = client.ask("HEAD", path), client.get(path)
    assert (head.status, head.headers["content-type"]) == (200, got.headers["content-type"])
    assert (head.body, bool(got.body)) == (b"", True)


def test_a_key_file_is_read_without_waiting_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(path: Path) -> bytes | None:
        return read_key(settings_from({"api_key_file": str(path)}))

    monkeypatch.setattr("reflex_core.files.secrets.WAIT_S", 0.1)
    pipe, file = tmp_path / "pipe", tmp_path / "key"
    os.mkfifo(pipe)
    with pytest.raises(ReflexError, match="api_key_file': .*pipe: no key was written into the pipe"):
        key(pipe)
    monkeypatch.setattr("reflex_core.files.secrets.WAIT_S", 60.0)
    writing = Background(lambda: pipe.write_text(f"{KEY}\n"))
    assert key(pipe) == KEY.encode()  # as the shell's <(command) gives it
    writing.result()
    for content, says in ((b"a\nb", "one line"), (b"k" * 5000, "at most 4096 bytes"), (b" \n", "is empty")):
        file.write_bytes(content)
        with pytest.raises(ReflexError, match=says):
            key(file)
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(ReflexError, match=r"must be a file|directory"):
            key(path)


def test_without_the_key_act_and_config_are_closed(serve: Serve, key_file: str) -> None:
    client = serve("mono_pi0_7", api_key_file=key_file).client
    for answer in (client.act(), client.get("/config"), client.ask("POST", "/act", b"{")):
        assert (answer.status, answer.json["error"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in answer.body.decode()
    assert client.get("/health").status == 200
    assert client.get("/metrics").status == 200
    assert client.get("/nope").status == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"Authorization": f"bearer   {KEY}  "}, 200),
        ({"X_Reflex_Key": KEY}, 200),
        ({"Authorization": "Basic dXNlcg==", "X_Reflex_Key": KEY}, 200),
        ({"Authorization": "Bearer wrong", "X_Reflex_Key": KEY}, 401),
        ({"Authorization": f"Bearer {KEY}x"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": KEY}, 401),
        ({"X_Reflex_Key": KEY[:-1]}, 401),
        ({"X_Reflex_Key": "k\xe4y"}, 401),
        ({"X_Reflex_Key": ""}, 401),
    ],
)
def test_who_holds_the_key_gets_in(serve: Serve, key_file: str, headers: dict[str, str], status: int) -> None:
    client = serve("mono_pi0_7", api_key_file=key_file).client
    assert client.ask("POST", "/act", json.dumps(good()).encode(), **headers).status == status
    assert client.get("/config", **headers).status == status


def test_the_key_may_come_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    client = serve("mono_pi0_7").client
    assert client.get("/config").status == 401
    assert client.get("/config", X_Reflex_Key=KEY).status == 200


@pytest.mark.parametrize(("content", "says"), [(b" \n", "is empty"), (None, "No such file")])
def test_a_key_file_without_a_key_is_refused(
    make_engine: Any, tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    engine = make_engine("mono_pi0_7", ready=False, port=0, api_key_file=str(path))
    with pytest.raises(ReflexError, match=f"'api_key_file'.*{says}"):
        Sidecar(engine, engine.settings).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_loopback_a_key_or_insecure_is_needed(host: str) -> None:
    settings = settings_from({"port": 0, "host": host})
    with pytest.raises(ReflexError, match=r"REFLEX_API_KEY or --api-key-file.*--insecure"):
        Sidecar(Engine(settings), settings).start()


@pytest.mark.parametrize("more", [{}, {"insecure": True}])
@pytest.mark.parametrize("host", ["example.invalid", "x" * 70])
def test_a_host_that_cannot_be_resolved_is_refused_before_a_key_is_asked_for(
    host: str, more: dict[str, object]
) -> None:
    settings = settings_from({"port": 0, "host": host, **more})
    with pytest.raises(ReflexError) as refused:
        Sidecar(Engine(settings), settings).start()
    assert str(refused.value).startswith(f"--host {host}: ")
    assert "REFLEX_API_KEY" not in str(refused.value)


@pytest.mark.parametrize("way", ["key", "insecure", "loopback"])
def test_it_listens_where_it_may(make_engine: Any, key_file: str, way: str) -> None:
    host = "localhost" if way == "loopback" else "0.0.0.0"
    more: dict[str, object] = {"api_key_file": key_file} if way == "key" else {"insecure": way == "insecure"}
    engine = make_engine("mono_pi0_7", ready=False, port=0, host=host, **more)
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    try:
        assert Client(sidecar.port, "localhost").get("/health").status == 503
    finally:
        sidecar.stop()


def test_a_taken_port_is_one_sentence(serve: Serve) -> None:
    first = serve("mono_pi0_7")
    settings = settings_from({"port": first.sidecar.port})
    second = Sidecar(Engine(settings), settings)
    with pytest.raises(
        ReflexError, match=f"cannot listen on 127.0.0.1:{first.sidecar.port}: another program does"
    ):
        second.start()
    second.stop()
    assert first.client.get("/health").status == 200


def test_a_stopped_sidecar_frees_its_port_and_may_be_stopped_again(make_engine: Any) -> None:
    engine = make_engine("mono_pi0_7", ready=False, port=0)
    first = Sidecar(engine, engine.settings)
    first.start()
    first.stop()
    first.stop()
    settings = settings_from({"port": first.port})
    second = Sidecar(engine, settings)
    second.start()
    second.stop()


def test_a_second_life_after_reload_answers_with_the_new_policy(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    server.engine.unload()
    wait_for(lambda: server.client.get("/health").json["state"] == "initializing")
    server.engine.load()
    server.engine.warm_up()
    assert server.client.act().status == 200


def test_no_socket_listens_after_stop(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    server.sidecar.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60)


def test_nothing_of_a_server_that_has_ended_is_kept(make_engine: Callable[..., Engine]) -> None:
    """A node that is configured again and again has another server each time, and each has an engine."""
    engine = make_engine("calm", port=0, embodiment="franka")
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    for path in ("/health", "/config", "/metrics"):
        assert Client(sidecar.port).get(path).status == 200
    ended = weakref.ref(sidecar.app)
    sidecar.stop()
    del sidecar
    for _ in range(3):  # what a finalizer still held in one pass goes in the next; a leak stays in all
        gc.collect()
    assert ended() is None
