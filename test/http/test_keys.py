# SPDX-License-Identifier: Apache-2.0
"""Keys of robots and operators through real sockets: rights by route, whose robot it is, and changes without a restart."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from groot_client import GrootClient, GrootError, nested
from http_client import PATIENCE_S, Answer, Client, good, wait_for
from lerobot_client import SERVICE
from wires import libero
from ws_client import UpgradeError, connected

from reflex_core.errors import ReflexError
from reflex_core.metrics.metrics import Metrics
from reflex_core.settings.table import settings_from
from reflex_ros.cli.main import main as reflex
from reflex_ros.sidecar import file_watch
from reflex_ros.sidecar.access import Keyring
from reflex_ros.sidecar.key_file import (
    ACT,
    OPERATE,
    READ,
    KeyFileError,
    add_key,
    fresh_key,
    read_keys,
    revoke_key,
)
from reflex_ros.sidecar.lerobot_port import require_lerobot
from reflex_ros.sidecar.robot_access import Robot, RobotSnapshot
from reflex_ros.sidecar.server import Sidecar

Serve = Callable[..., Any]
NOW_S = 1_800_000_000.0


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def made(path: Path, *rights: str, robot: str = "", expires_s: float | None = None) -> str:
    token, key = fresh_key(rights, robot, time.time(), expires_s, "")
    add_key(path, key)
    return token


def act(client: Client, key: str, **fields: Any) -> Answer:
    body = json.dumps(good(**fields)).encode()
    return client.ask("POST", "/act", body, Authorization=f"Bearer {key}")


def callers_of(server: Any) -> list[str]:
    """The callers of the answers from now on."""
    found: list[str] = []
    server.engine.listen(lambda request, _: found.append(request.caller))
    return found


# the file


def test_a_key_is_in_no_file_and_its_hash_is_no_key(keys_file: Path) -> None:
    token = made(keys_file, ACT, robot="arm-1")
    assert token not in keys_file.read_text()
    assert len(token) >= 43
    ring = Keyring(None, read_keys(keys_file))
    found = ring.access(token.encode())
    assert found is not None
    assert (found.robot_id, found.rights) == ("arm-1", {ACT})
    for wrong in (b"", token[:-1].encode(), token.encode() + b"x", read_keys(keys_file)[0].sha256.encode()):
        assert ring.access(wrong) is None


def test_a_key_expires_at_its_second() -> None:
    token, key = fresh_key((ACT,), "arm-1", NOW_S, NOW_S + 10, "")
    now = [NOW_S + 9.9]
    ring = Keyring(None, [key], clock=lambda: now[0])
    assert ring.access(token.encode()) is not None
    now[0] = NOW_S + 10
    assert ring.access(token.encode()) is None


def test_an_empty_file_of_keys_still_refuses_every_request() -> None:
    assert Keyring(None, ()).required
    assert Keyring(None, ()).access(b"") is None
    assert not Keyring().required


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(keys_file: Path, mode: int) -> None:
    made(keys_file, ACT)
    keys_file.chmod(mode)
    with pytest.raises(KeyFileError, match="other users may write it"):
        read_keys(keys_file)
    keys_file.chmod(0o644)
    assert len(read_keys(keys_file)) == 1


def test_the_file_is_made_for_its_owner_alone_and_keeps_comments(keys_file: Path) -> None:
    made(keys_file, ACT)
    assert keys_file.stat().st_mode & 0o777 == 0o600
    keys_file.write_text("# arms of hall 3\n" + keys_file.read_text())
    made(keys_file, READ)
    first, second = read_keys(keys_file)
    revoke_key(keys_file, first.id)
    assert keys_file.read_text().startswith("# arms of hall 3\n")
    assert read_keys(keys_file) == (second,)


def test_a_server_that_reads_by_its_group_still_can_after_a_change(keys_file: Path) -> None:
    """As with a file of root and the server's group, mode 0640: else it keeps the earlier keys, revoked ones too."""
    made(keys_file, ACT)
    groups = {os.getegid() + 1} if os.geteuid() == 0 else set(os.getgroups())
    group = max(groups - {os.getegid()}, default=os.getegid())
    os.chown(keys_file, -1, group)
    keys_file.chmod(0o640)
    made(keys_file, READ)
    revoke_key(keys_file, read_keys(keys_file)[0].id)
    found = keys_file.stat()
    assert (found.st_gid, found.st_mode & 0o777) == (group, 0o640)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1: is not JSON"), ("[]", "must be a JSON object"), ('{"id": "a"}', "'rights' must be a list"),
        ('{"id": "a", "rights": ["fly"], "sha256": ""}', "'rights' must be a list of act, operate, read"),
        ('{"id": "a", "rights": ["act"], "sha256": "12"}', "64 hex digits"),
        ('{"id": "a b", "rights": ["act"], "sha256": "12"}', "'id' must be"),
        ('{"id": "a", "rights": ["act"], "sha256": "%s", "robot": "x"}' % ("0" * 64), "unknown field 'robot'"),
        ('{"id": "a", "rights": ["act"], "sha256": "%s", "robot_id": "ros"}' % ("0" * 64), "another name"),
        ('{"id": "a", "rights": ["act"], "sha256": "%s", "expires": "soon"}' % ("0" * 64), "must be a time"),
        ('{"id": "a", "rights": ["act"], "sha256": "%s"}\n' % ("0" * 64) * 2, "line 2: .* twice"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_key_is_named(keys_file: Path, line: str, says: str) -> None:
    keys_file.write_text(line)
    keys_file.chmod(0o600)
    with pytest.raises(KeyFileError, match=says):
        read_keys(keys_file)


@pytest.mark.parametrize("kind", ["directory", "pipe", "none"])
def test_what_is_no_file_is_refused_at_the_start(make_engine: Any, keys_file: Path, kind: str) -> None:
    if kind == "directory":
        keys_file.mkdir()
    elif kind == "pipe":
        os.mkfifo(keys_file)
    engine = make_engine("mono_pi0_7", ready=False, port=0, keys_file=str(keys_file))
    with pytest.raises(ReflexError, match="setting 'keys_file'"):
        Sidecar(engine, engine.settings).start()


# the routes


def test_each_route_takes_the_right_that_it_needs(make_engine: Any, keys_file: Path) -> None:
    keys = {right: made(keys_file, right) for right in (ACT, OPERATE, READ)}
    engine = make_engine("mono_pi0_7", port=0, keys_file=str(keys_file), embodiment="franka")
    sidecar = Sidecar(engine, engine.settings, Robot(str, str, lambda: RobotSnapshot("active")))
    sidecar.start()
    client = Client(sidecar.port)
    needed = {
        ("POST", "/act"): ACT, ("POST", "/stop"): OPERATE, ("POST", "/resume"): OPERATE, ("POST", "/guard/reset"): OPERATE,
        ("POST", "/breaker/reset"): OPERATE, ("POST", "/policies"): OPERATE, ("POST", "/instruction"): OPERATE,
        ("POST", "/episodes"): OPERATE, ("GET", "/config"): READ, ("GET", "/metrics"): READ, ("GET", "/history"): READ,
        ("GET", "/guard/status"): READ, ("GET", "/policies"): READ,
    }  # fmt: skip
    try:
        for (method, path), right in needed.items():
            body = json.dumps(good()).encode() if path == "/act" else b"{}" if method == "POST" else None
            for held, key in keys.items():
                answer = client.ask(method, path, body, X_Reflex_Key=key)
                if held == right:
                    assert answer.status not in (401, 403), (path, held, answer.body)
                else:
                    assert (answer.status, answer.json["error"]) == (403, "missing-right"), (path, held)
                    assert f"'{right}'" in answer.json["message"]
            assert client.ask(method, path, body).status == 401, path
            assert client.ask(method, path, body, X_Reflex_Key="rk_wrong").status == 401, path
        for right, allowed in ((ACT, True), (OPERATE, True), (READ, False)):
            outcome = client.ask(
                "POST", "/episodes/e/outcome", b'{"success": true}', X_Reflex_Key=keys[right]
            )
            assert (outcome.status != 403) is allowed
    finally:
        sidecar.stop()


def test_health_says_without_a_key_that_it_serves_and_no_more(serve: Serve, keys_file: Path) -> None:
    key, other = made(keys_file, READ), made(keys_file, ACT)
    client = serve("mono_pi0_7", keys_file=str(keys_file)).client
    for brief in (client.get("/health"), client.get("/health", X_Reflex_Key=other)):
        assert (brief.status, brief.json) == (200, {"status": "ok", "state": "ready", "model_loaded": True})
    assert client.get("/health", X_Reflex_Key=key).json["robot_id"] == "arm7"


def test_the_single_key_has_all_rights_beside_a_file_of_keys(
    serve: Serve, keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFLEX_API_KEY", "the one key")
    made(keys_file, ACT)
    client = serve("mono_pi0_7", keys_file=str(keys_file)).client
    assert act(client, "the one key").status == 200
    assert client.get("/config", X_Reflex_Key="the one key").status == 200
    assert client.ask("POST", "/guard/reset", X_Reflex_Key="the one key").status == 200


# whose robot


def test_the_robot_of_a_key_is_the_caller(serve: Serve, keys_file: Path, tmp_path: Path) -> None:
    key, free = made(keys_file, ACT, robot="arm-1"), made(keys_file, ACT, READ)
    client = serve("mono_pi0_7", keys_file=str(keys_file)).client
    answer = act(client, key, episode_id="e")
    assert (answer.status, answer.json["caller"]) == (200, "arm-1")
    assert act(client, key, robot_id="arm-1").json["caller"] == "arm-1"
    refused = act(client, key, robot_id="arm-2")
    assert (refused.status, refused.json["error"]) == (403, "other-robot")
    assert "this key is for the robot 'arm-1', and the request names 'arm-2'" in refused.json["message"]
    assert act(client, free, robot_id="arm-2").json["caller"] == "arm-2"
    metrics = client.get("/metrics", X_Reflex_Key=free).body.decode()
    assert 'reflex_caller_requests_total{caller="arm-1",outcome="clamped"} 2.0' in metrics
    assert 'reflex_act_errors_total{slug="other-robot"} 1.0' in metrics


def test_a_robot_reports_the_ends_of_its_own_episodes_alone(serve: Serve, keys_file: Path) -> None:
    own, other = made(keys_file, ACT, robot="arm-1"), made(keys_file, ACT, robot="arm-2")
    free, lead = made(keys_file, ACT, READ), made(keys_file, ACT, OPERATE, robot="arm-2")
    server = serve("mono_pi0_7", keys_file=str(keys_file))
    client = server.client

    def report(key: str, episode: str) -> Answer:
        return client.ask("POST", f"/episodes/{episode}/outcome", b'{"success": false}', X_Reflex_Key=key)

    assert act(client, own, episode_id="one").status == 200
    assert act(client, free, episode_id="unnamed").status == 200
    refused = report(other, "one")
    assert (refused.status, refused.json["error"]) == (403, "other-robot")
    assert (
        "this key is for the robot 'arm-2', and the episode 'one' is not its own" in refused.json["message"]
    )
    assert server.engine.loaded.outcomes.find("one") is None
    assert act(client, other, episode_id="one").status == 200  # its episode it is not for that
    assert [report(other, name).status for name in ("one", "unnamed")] == [403, 403]
    assert [report(key, "one").status for key in (own, free, lead)] == [200, 200, 200]
    assert report(other, "answered-by-another-server").status == 200
    metrics = client.get("/metrics", X_Reflex_Key=free).body.decode()
    assert 'reflex_act_errors_total{slug="other-robot"} 3.0' in metrics


def test_a_websocket_brings_its_key_once_and_loses_it_when_it_is_revoked(
    serve: Serve, keys_file: Path
) -> None:
    key, reader = made(keys_file, ACT, robot="arm-1"), made(keys_file, READ)
    server = serve("mono_pi0_7", keys_file=str(keys_file))
    callers = callers_of(server)
    for headers, status in (({}, 401), ({"X_Reflex_Key": reader}, 403)):
        with pytest.raises(UpgradeError) as refused, connected(server, **headers):
            pass
        assert refused.value.status == status
    with connected(server, Authorization=f"Api-Key {key}") as socket:
        socket.receive()
        socket.infer(libero())
        assert callers == ["arm-1"]
        revoke_key(keys_file, read_keys(keys_file)[0].id)
        wait_for(lambda: "unauthorized" in str(socket.infer(libero())))


def test_gr00t_messages_bring_their_robots_key(serve: Serve, keys_file: Path) -> None:
    key, reader = made(keys_file, ACT, robot="arm-1"), made(keys_file, READ)
    server = serve("mono_pi0_7", keys_file=str(keys_file), groot_port=0)
    callers = callers_of(server)
    client = GrootClient(server.sidecar.groot_port)
    try:
        wanted = {"endpoint": "get_action", "data": {"observation": nested(), "options": None}}
        with pytest.raises(GrootError, match="unauthorized"):
            client.ask(wanted)
        with pytest.raises(GrootError, match="missing-right"):
            client.ask(wanted | {"api_token": reader})
        client.ask(wanted | {"api_token": key})
    finally:
        client.close()
    assert callers == ["arm-1"]


def test_lerobots_port_takes_the_key_of_the_metadata(serve: Serve, keys_file: Path) -> None:
    key, reader = made(keys_file, ACT, robot="arm-1"), made(keys_file, READ)
    server = serve("mono_pi0_7", keys_file=str(keys_file), lerobot_port=0)
    with grpc.insecure_channel(f"127.0.0.1:{server.sidecar.lerobot_port}") as channel:
        ready = channel.unary_unary(f"{SERVICE}Ready")
        for metadata, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            ((("authorization", "Bearer rk_wrong"),), grpc.StatusCode.UNAUTHENTICATED),
            ((("authorization", f"Bearer {reader}"),), grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                ready(b"", metadata=metadata, timeout=60)
            assert refused.value.code() == code
        assert ready(b"", metadata=(("authorization", f"Bearer {key}"),), timeout=60) == b""


def test_lerobots_port_may_be_open_where_calls_bring_keys(keys_file: Path) -> None:
    made(keys_file, ACT)
    open_port = {"lerobot_port": 0, "lerobot_host": "0.0.0.0"}
    require_lerobot(settings_from(open_port | {"keys_file": str(keys_file)}))
    for more in ({}, {"keys_file": str(keys_file), "lerobot_insecure": True}):
        with pytest.raises(ReflexError, match="can be reached from other machines"):
            require_lerobot(settings_from(open_port | more))


# changes


def test_keys_are_replaced_without_a_restart(
    serve: Serve, keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = made(keys_file, ACT, READ, robot="arm-1")
    client = serve("mono_pi0_7", keys_file=str(keys_file)).client
    assert act(client, first).status == 200
    second = made(keys_file, ACT, READ, robot="arm-1")
    wait_for(lambda: act(client, second).status == 200)
    assert act(client, first).status == 200, "both hold while the robots change over"
    revoke_key(keys_file, read_keys(keys_file)[0].id)
    wait_for(lambda: act(client, first).status == 401)
    assert act(client, second).status == 200


def test_a_broken_file_keeps_the_keys_that_were(
    serve: Serve, keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = made(keys_file, ACT, READ)
    good_lines = keys_file.read_text()
    client = serve("mono_pi0_7", keys_file=str(keys_file)).client

    def failures(number: int) -> bool:
        text = client.get("/metrics", X_Reflex_Key=key).body.decode()
        return f'reflex_file_reloads_total{{file="keys",outcome="failed"}} {number}.0' in text

    keys_file.write_text(good_lines + "{broken\n")
    wait_for(lambda: failures(1))
    assert "line 2: is not JSON" in caplog.text
    assert "the earlier ones stay in use" in caplog.text
    keys_file.unlink()
    wait_for(lambda: failures(2))
    assert act(client, key).status == 200
    keys_file.write_text(good_lines)
    keys_file.chmod(0o622)
    wait_for(lambda: failures(3))
    keys_file.chmod(0o600)
    third = made(keys_file, ACT)
    wait_for(lambda: act(client, third).status == 200)


def test_a_file_that_became_empty_refuses_every_key_and_says_so(
    serve: Serve, keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = made(keys_file, ACT)
    client = serve("mono_pi0_7", keys_file=str(keys_file)).client
    keys_file.write_text("# none\n")
    wait_for(lambda: act(client, key).status == 401)
    assert f"{keys_file} has no key any more" in caplog.text


def test_a_file_that_could_not_be_read_for_a_while_is_read_then(
    keys_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when this process had no file descriptor left at the moment of a revocation: the file does not change again."""
    monkeypatch.setattr(file_watch, "AGAIN_AFTER_LOOKS", 2)
    made(keys_file, ACT)
    answers = iter([KeyFileError("Too many open files"), KeyFileError("Too many open files"), read_keys])

    def load() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer(keys_file)

    async def watched() -> None:
        applied = asyncio.Event()
        files = file_watch.WatchedFiles("keys", (keys_file,), load, lambda _: applied.set())
        async with file_watch.watching(files, metrics, every_s=0.001):
            await asyncio.wait_for(applied.wait(), PATIENCE_S)

    metrics = Metrics()
    asyncio.run(watched())
    assert caplog.text.count("Too many open files") == 1
    assert b'file="keys",outcome="failed"} 1.0' in metrics.exposition()


# the command


def test_the_command_adds_lists_and_revokes(keys_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        reflex(["key", "add", str(keys_file), "--robot", "arm-1", "--rights", "act,read", "--expires", "90d"])
        == 0
    )
    out, err = capsys.readouterr()
    [entry] = read_keys(keys_file)
    assert Keyring(None, [entry]).access(out.strip().encode()) is not None
    assert f"{entry.id} of arm-1: act, read, until {entry.expires}. It cannot be shown again." in err
    assert reflex(["key", "ls", str(keys_file)]) == 0
    listed = capsys.readouterr().out
    assert "arm-1" in listed
    assert entry.sha256 not in listed
    assert reflex(["key", "ls", str(keys_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["robot_id"] == "arm-1"
    assert reflex(["key", "revoke", str(keys_file), entry.id]) == 0
    assert read_keys(keys_file) == ()
    assert reflex(["key", "revoke", str(keys_file), entry.id]) == 1
    assert "has no key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--rights", "fly"], 2, "expected act, operate, read"), (["--expires", "yesterday"], 2, "expected 90d"),
        (["--expires", "2020-01-01"], 2, "a time that is to come"), (["--robot", "ros"], 1, "another name"),
    ],
)  # fmt: skip
def test_the_command_refuses_what_would_be_no_key(
    keys_file: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, says: str
) -> None:
    try:
        found = reflex(["key", "add", str(keys_file), *words])
    except SystemExit as ended:
        found = int(ended.code or 0)
    assert (found, says in capsys.readouterr().err) == (status, True)
    assert not keys_file.exists()
