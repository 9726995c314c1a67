# SPDX-License-Identifier: Apache-2.0
"""`reflex fleet` with real servers: what it prints, whom it waits for, and what becomes of those that do not answer."""

from __future__ import annotations

import fcntl
import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from asking import act
from http_client import Client, wait_for
from repository import ROOT
from scripted_server import Received, replies, scripted
from servers import ExportDir, Server

from reflex_core.engine.engine import Engine
from reflex_core.records.trace.reader import TraceReader
from reflex_core.settings.table import settings_from
from reflex_ros.cli.main import main
from reflex_ros.fleet.servers import read_servers
from reflex_ros.sidecar.robot_access import Robot, RobotSnapshot
from reflex_ros.sidecar.server import Sidecar

HEAD = "robot_id,cell,address\n"
KEY = "a key that is long enough"


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def trickling() -> Iterator[int]:
    """The port of a server that sends one byte of an endless answer at a time: each read returns, and none is the last."""

    def trickle(received: Received) -> None:
        while True:
            received.socket.sendall(b"H")
            time.sleep(0.05)

    with scripted(trickle) as found:
        yield int(found.url.rpartition(":")[2])


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def listed(tmp_path: Path, **ports: int) -> str:
    """A list of servers by name, in cell north."""
    rows = [f"{name.replace('_', '-')},north,127.0.0.1:{port}\n" for name, port in ports.items()]
    (tmp_path / "fleet.csv").write_text(HEAD + "".join(rows))
    return str(tmp_path / "fleet.csv")


@pytest.fixture
def pair(serve: Callable[..., Server], export_dir: ExportDir) -> Callable[..., Server]:
    def start(**settings: Any) -> Server:
        slots = {"policy_a": str(export_dir("calm")), "policy_b": str(export_dir("calm")), "rtc": False}
        return serve("calm", **(slots | {"split": 80} | settings))

    return start


def split_of(server: Server) -> int:
    return int(server.client.get("/policies").json["split"])


def port_of(server: Server) -> int:
    return server.sidecar.port


def test_status_is_one_table_of_all_servers(
    pair: Callable[..., Server], serve: Callable[..., Server], closed: int, tmp_path: Path, capsys: Any
) -> None:
    first, second = pair(), serve("calm", ready=False)
    act(first.client)
    fleet = listed(tmp_path, arm_1=port_of(first), arm_2=port_of(second), arm_3=closed)
    assert main(["fleet", "status", fleet]) == 1
    found = capsys.readouterr()
    titles, *rows = found.out.splitlines()
    assert titles.split() == ["NAME", "CELL", "STATE", "POLICY", "SPLIT", "P99", "HOLDS", "MOVED"]
    assert rows[0].split()[:3] == ["arm-1", "north", "READY"]
    assert " | " in rows[0]
    assert "80 %" in rows[0]
    assert " ms " in rows[0]
    assert rows[1].split()[:3] == ["arm-2", "north", "WAITING"]
    assert rows[2].strip() == "No policy is loaded yet."
    assert rows[3].split() == ["arm-3", "north", "NO", "ANSWER"]
    assert "arm-3" in found.err
    assert found.err.splitlines()[-1].endswith("1 of 3 servers failed; again for these: --only arm-3")


def test_status_has_the_word_of_the_page_and_every_figure_as_json(
    serve: Callable[..., Server], tmp_path: Path, capsys: Any
) -> None:
    server = serve("calm")
    assert main(["fleet", "status", listed(tmp_path, arm_1=port_of(server)), "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    answer = json.loads(line)["answer"]
    assert (answer["word"], answer["split"], answer["holds"], answer["episodes_moved"]) == (
        "READY",
        None,
        0,
        0,
    )
    assert answer["robot_id"] == "arm7"


def test_a_split_reaches_all_that_answer_and_can_be_sent_again_to_those_that_did_not(
    pair: Callable[..., Server], silent: int, tmp_path: Path, capsys: Any
) -> None:
    first, second = pair(), pair()
    fleet = listed(tmp_path, arm_1=port_of(first), arm_2=silent, arm_3=port_of(second))
    assert main(["fleet", "split", fleet, "20", "--reason", "v2 looks good", "--timeout", "5"]) == 1
    found = capsys.readouterr()
    assert [split_of(server) for server in (first, second)] == [20, 20]
    assert found.out.splitlines() == ["arm-1  split 20 %", "arm-2  NOT CHANGED", "arm-3  split 20 %"]
    assert "--only arm-2" in found.err
    listed(tmp_path, arm_1=port_of(first), arm_3=port_of(second))
    assert main(["fleet", "split", fleet, "20"]) == 0
    for server in (first, second):
        history = server.client.get("/policies").json["history"]
        assert [swap["reason"] for swap in history] == ["v2 looks good"], "the second time changed nothing"


def test_promote_and_rollback_reach_every_server(
    pair: Callable[..., Server], tmp_path: Path, capsys: Any
) -> None:
    servers = [pair(), pair()]
    fleet = listed(tmp_path, arm_1=port_of(servers[0]), arm_2=port_of(servers[1]))
    assert main(["fleet", "promote", fleet, "b"]) == 0
    assert [split_of(server) for server in servers] == [0, 0]
    assert main(["fleet", "rollback", fleet, "--only", "arm-2"]) == 0
    assert [split_of(server) for server in servers] == [0, 80]
    assert main(["fleet", "rollback", fleet]) == 1, "arm-2 has nothing to roll back"
    assert [split_of(server) for server in servers] == [80, 80]
    assert "arm-2: 409 nothing to roll back" in capsys.readouterr().err


def test_a_change_that_a_server_refuses_names_it(
    serve: Callable[..., Server], pair: Callable[..., Server], tmp_path: Path, capsys: Any
) -> None:
    one, both = serve("calm"), pair()
    fleet = listed(tmp_path, arm_1=port_of(one), arm_2=port_of(both))
    assert main(["fleet", "split", fleet, "20"]) == 1
    found = capsys.readouterr()
    assert (split_of(both), "reflex fleet: arm-1: 4" in found.err) == (20, True)


@pytest.fixture
def robots(export_dir: ExportDir, tmp_path: Path) -> Iterator[Callable[[], tuple[int, list[str]]]]:
    """`robots()`: the port of a server with a robot, and what was requested of the robot."""
    with ExitStack() as stack:

        def start() -> tuple[int, list[str]]:
            done: list[str] = []
            (tmp_path / "key").write_text(KEY)
            settings = settings_from({
                "export_dir": str(export_dir("calm")), "embodiment": "franka", "port": 0, "device": "cpu",
                "api_key_file": str(tmp_path / "key"),
            })  # fmt: skip
            engine = Engine(settings)

            def stop() -> str:
                done.append("stop")
                return "the robot holds"

            sidecar = Sidecar(engine, settings, Robot(stop, str, lambda: RobotSnapshot("active")))
            stack.callback(sidecar.stop)
            sidecar.start()
            return sidecar.port, done

        yield start


def test_a_stop_reaches_every_robot_though_others_hang_trickle_or_are_gone(
    robots: Callable[[], tuple[int, list[str]]],
    silent: int,
    trickling: int,
    closed: int,
    tmp_path: Path,
    capsys: Any,
) -> None:
    (one, first), (two, second) = robots(), robots()
    names = {"a_silent": silent, "b_arm": one, "c_trickling": trickling, "d_closed": closed, "e_arm": two}
    fleet, keys = listed(tmp_path, **names), tmp_path / "keys"
    keys.mkdir()
    for name in names:
        (keys / name.replace("_", "-")).write_text(KEY + "\n")
    assert main(["fleet", "stop", fleet, "--keys", str(keys), "--timeout", "5"]) == 1
    assert (first, second) == (["stop"], ["stop"])
    found = capsys.readouterr()
    lines = found.out.splitlines()
    assert sorted(lines) == [
        "a-silent  NOT STOPPED", "b-arm  stopped", "c-trickling  NOT STOPPED", "d-closed  NOT STOPPED", "e-arm  stopped",
    ]  # fmt: skip
    assert lines.index("b-arm  stopped") < lines.index("a-silent  NOT STOPPED"), "printed as they come"
    assert found.err.splitlines()[-1].endswith(
        "3 of 5 servers failed; again for these: --only a-silent,c-trickling,d-closed"
    )


def test_a_stop_of_a_server_that_commands_no_robot_is_no_stop(
    serve: Callable[..., Server], tmp_path: Path, capsys: Any
) -> None:
    assert main(["fleet", "stop", listed(tmp_path, arm_1=port_of(serve("calm")))]) == 1
    found = capsys.readouterr()
    assert found.out == "arm-1  NOT STOPPED\n"
    assert "without a robot" in found.err


def test_a_key_that_is_missing_or_wrong_fails_for_that_server_alone(
    robots: Callable[[], tuple[int, list[str]]], tmp_path: Path, capsys: Any
) -> None:
    ports = [robots()[0] for _ in range(3)]
    fleet, keys = listed(tmp_path, arm_1=ports[0], arm_2=ports[1], arm_3=ports[2]), tmp_path / "keys"
    keys.mkdir()
    (keys / "arm-1").write_text(KEY)
    (keys / "arm-2").write_text("another key")
    assert main(["fleet", "status", fleet, "--keys", str(keys)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("reflex fleet: arm-2: 401 ")
    assert errors[1] == f"reflex fleet: arm-3: {keys}/arm-3: No such file or directory"


def test_what_a_server_sends_cannot_write_to_the_terminal(tmp_path: Path, capsys: Any) -> None:
    evil = "\x1b[2J\x07evil"
    with scripted(
        replies(200, {"word": evil, "policies": [evil], "sentence": evil, "split": "x", "p99_ms": 1e300})
    ) as found:
        fleet = listed(tmp_path, arm_1=int(found.url.rpartition(":")[2]))
        assert main(["fleet", "status", fleet]) == 0
    text = capsys.readouterr().out
    assert "evil" in text
    assert "\x1b" not in text


def record(serve: Callable[..., Server], folder: Path, **settings: Any) -> Server:
    server = serve("calm", record=str(folder), **settings)
    act(server.client, episode_id="ep")
    server.client.ask("POST", "/episodes/ep/outcome", b'{"success": true}')
    return server


def test_traces_are_collected_and_a_second_run_copies_what_is_new(
    serve: Callable[..., Server], tmp_path: Path, capsys: Any
) -> None:
    servers = [record(serve, tmp_path / "one"), record(serve, tmp_path / "two", record_no_gzip=True)]
    fleet, out = listed(tmp_path, arm_1=port_of(servers[0]), arm_2=port_of(servers[1])), tmp_path / "traces"

    def copied() -> int:
        assert main(["fleet", "collect", fleet, str(out)]) == 0
        return sum(path.stat().st_size for path in out.rglob("*.jsonl*"))

    wait_for(lambda: copied() > 0 and len(list(out.rglob("*.jsonl*"))) == 2)
    before = copied()
    act(servers[1].client, episode_id="more")
    wait_for(lambda: copied() > before)
    for server in servers:
        server.engine.unload()
    copied()
    capsys.readouterr()
    assert main(["fleet", "collect", fleet, str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "arm-1  1 traces, 0 new or longer, 0.0 MB copied", "arm-2  1 traces, 0 new or longer, 0.0 MB copied",
    ]  # fmt: skip
    for name, folder in (("arm-1", "one"), ("arm-2", "two")):
        [copy], [trace] = (out / name).iterdir(), (tmp_path / folder).iterdir()
        assert copy.read_bytes() == trace.read_bytes()
    with TraceReader(next((out / "arm-2").iterdir())) as reader:
        assert [found["kind"] for found in reader.documents()].count("request") == 2
    assert main(["ab", "report", str(out / "arm-1"), str(out / "arm-2"), "--split", "50"]) == 0


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..%2f..%2fkey", "a.jsonl/../b.jsonl", "notes.txt", "link.jsonl"]
)
def test_only_traces_of_the_record_folder_are_files_of_the_server(
    serve: Callable[..., Server], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "records"
    server = record(serve, folder)
    (tmp_path / "key").write_text("secret")
    (folder / "notes.txt").write_text("secret")
    (folder / "link.jsonl").symlink_to(tmp_path / "key")
    answer = server.client.get(f"/traces/{name}")
    assert (answer.status, b"secret" in answer.body) == (404, False)
    names = [entry["name"] for entry in server.client.get("/traces").json["traces"]]
    assert [one for one in names if not one.endswith(".jsonl.gz")] == []


def test_a_list_of_traces_that_names_another_path_is_refused_and_writes_nothing(
    tmp_path: Path, capsys: Any
) -> None:
    with scripted(replies(200, {"traces": [{"name": "../../evil.jsonl", "bytes": 4}]})) as found:
        fleet = listed(tmp_path, arm_1=int(found.url.rpartition(":")[2]))
        assert main(["fleet", "collect", fleet, str(tmp_path / "out")]) == 1
    assert "which is no trace" in capsys.readouterr().err
    assert list(tmp_path.rglob("evil*")) == []


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["stop"], {}), (["stop"], {"stopped": False}), (["stop"], {"ok": True}), (["status"], {"status": "ok"}),
        (["split", "20"], {"ok": True}), (["rollback"], {"split": None}),
    ],
)  # fmt: skip
def test_another_program_that_says_yes_to_everything_did_not_do_it(
    words: list[str], answer: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    with scripted(replies(200, answer)) as found:
        fleet = listed(tmp_path, arm_1=int(found.url.rpartition(":")[2]))
        assert main(["fleet", words[0], fleet, *words[1:]]) == 1
    text = capsys.readouterr()
    assert "arm-1  stopped" not in text.out
    assert "arm-1: /" in text.err


def test_a_list_of_as_many_traces_as_a_server_names_is_read(tmp_path: Path) -> None:
    names = [f"{'t' * 190}-{number:05d}.jsonl" for number in range(20_000)]
    with scripted(replies(200, {"traces": [{"name": name, "bytes": 0} for name in names]})) as found:
        fleet = listed(tmp_path, arm_1=int(found.url.rpartition(":")[2]))
        assert main(["fleet", "collect", fleet, str(tmp_path / "out")]) == 0
    assert sum(1 for _ in (tmp_path / "out" / "arm-1").iterdir()) == len(names)


def test_a_part_of_a_trace_that_was_not_wanted_is_not_appended(tmp_path: Path, capsys: Any) -> None:
    whole = b'{"a": 1}\n{"b": 2}\n'

    def server(received: Received) -> None:
        if "GET /traces HTTP" in received.head:
            replies(200, {"traces": [{"name": "t.jsonl", "bytes": len(whole)}]})(received)
            return
        head = f"HTTP/1.1 206 X\r\nContent-Length: {len(whole)}\r\nContent-Range: bytes 0-17/18\r\n\r\n"
        received.socket.sendall(head.encode() + whole)

    copy = tmp_path / "out" / "arm-1" / "t.jsonl"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(whole[:9])
    with scripted(server) as found:
        fleet = listed(tmp_path, arm_1=int(found.url.rpartition(":")[2]))
        assert main(["fleet", "collect", fleet, str(tmp_path / "out")]) == 1
    assert copy.read_bytes() == whole[:9]
    assert "expected one from byte 9 on" in capsys.readouterr().err


def test_a_trace_that_another_run_is_copying_is_left_alone(tmp_path: Path, capsys: Any) -> None:
    copy = tmp_path / "out" / "arm-1" / "t.jsonl"
    copy.parent.mkdir(parents=True)
    with (
        copy.open("ab") as other,
        scripted(replies(200, {"traces": [{"name": "t.jsonl", "bytes": 4}]})) as found,
    ):
        fcntl.flock(other.fileno(), fcntl.LOCK_EX)
        fleet = listed(tmp_path, arm_1=int(found.url.rpartition(":")[2]))
        assert main(["fleet", "collect", fleet, str(tmp_path / "out")]) == 1
    assert copy.read_bytes() == b""
    assert "another run is copying it" in capsys.readouterr().err


def test_traces_are_not_sent_to_other_machines_without_a_key(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = record(serve, tmp_path / "records", host="0.0.0.0", insecure=True)
    wait_for(lambda: any((tmp_path / "records").iterdir()))
    for path in ("/traces", f"/traces/{next((tmp_path / 'records').iterdir()).name}"):
        answer = Client(port_of(server)).get(path)
        assert (answer.status, answer.json["error"]) == (403, "key-needed")


def test_a_compressed_trace_is_sent_as_it_is(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = record(serve, tmp_path / "records")
    server.engine.unload()
    [path] = (tmp_path / "records").iterdir()
    answer = server.client.get(f"/traces/{path.name}", Accept_Encoding="gzip")
    assert answer.body == path.read_bytes()
    assert gzip.decompress(answer.body).startswith(b"{")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the first line must be robot_id,cell,address"),
        (HEAD, "there is no server in this list"),
        (HEAD + "arm-1,north\n", ":2: expected 3 columns, got 2"),
        (HEAD + "../arm,north,a:8000\n", ":2: robot_id '../arm': expected letters"),
        (HEAD + "arm-1,north,ftp://a:8000\n", "expected HOST:PORT such as"),
        (HEAD + "arm-1,north,a:70000\n", "expected HOST:PORT such as"),
        (HEAD + "arm-1,north,a:8000\narm-1,north,b:8000\n", "arm-1 stands there 2 times"),
        (HEAD + "arm-1,north,a:8000\narm-2,north,https://a:8000\n", "a:8000 stands there 2 times"),
    ],
)
def test_a_list_that_is_wrong_is_one_sentence(text: str, says: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "fleet.csv").write_text(text)
    assert main(["fleet", "status", str(tmp_path / "fleet.csv")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_name_or_cell_that_is_not_in_the_list_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: Any
) -> None:
    fleet = str(ROOT / "deploy" / "fleet.csv")
    assert main(["fleet", "stop", fleet, "--only", "arm-01"]) == 1
    assert "did you mean arm-001?" in capsys.readouterr().err
    assert main(["fleet", "stop", fleet, "--cell", "nroth"]) == 1
    assert "did you mean north?" in capsys.readouterr().err


def test_the_shipped_list_is_read() -> None:
    servers = read_servers(ROOT / "deploy" / "fleet.csv")
    assert [(one.name, one.cell, one.port) for one in servers[:1]] == [("arm-001", "north", 8000)]
    assert not any(one.secure for one in servers)
