# SPDX-License-Identifier: Apache-2.0
"""`reflex serve --no-ros` as a process: what it prints, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from first_version import MADE
from http_client import PATIENCE_S, Background, Client, jpeg, wait_for
from repository import ROOT

from reflex_core.records.audit.chain import audit_files, verify
from reflex_ros.cli.main import main

ExportDir = Callable[[str], Path]
Process = subprocess.Popen[str]
Start = Callable[..., Process]

COMMAND = ["-m", "reflex_ros.cli.main", "serve", "--port", "0", "--device", "cpu", "--intra-op-threads", "1"]
WITHOUT_RCLPY = (
    "import sys; sys.modules['rclpy'] = None; from reflex_ros.cli.main import main; sys.exit(main())"
)


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(export, "--no-ros")`: a serving process that does not outlive the test."""
    processes: list[Process] = []

    def run(*arguments: object, command: list[str] = COMMAND) -> Process:
        words = [sys.executable, *command, *map(str, arguments)]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(words, cwd=ROOT, stdout=pipe, stderr=pipe, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def client_of(process: Process) -> Client:
    """The client of the address that the process prints once it listens."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
            return Client(int(found[1]))
    raise AssertionError(f"it never listened: {process.communicate()[1]}")


def ended(process: Process) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) once it has ended."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def ready(client: Client) -> bool:
    return client.get("/health").status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(start: Start, export_dir: ExportDir, number: signal.Signals) -> None:
    process = start(export_dir("mono_pi0_7"), "--embodiment", "franka", "--no-ros")
    client = client_of(process)
    wait_for(lambda: ready(client))
    assert client.act().json["action_names"][0] == "panda_joint1"
    process.send_signal(number)
    status, out, err = ended(process)
    assert status == 0
    assert "Traceback" not in err
    assert re.search(r"serving pi0-mono@[0-9a-f]{16} for franka on CPUExecutionProvider at http://127", out)


@pytest.mark.parametrize("name", ["serve.yaml", "every_node.yaml"])
def test_a_parameter_file_of_the_first_version_is_served_with(start: Start, name: str) -> None:
    export = ("--export-dir", MADE / "exports" / "calm")  # its path in the file is relative
    process = start("--config", MADE / "settings" / name, *export, "--no-ros")
    client = client_of(process)
    wait_for(lambda: ready(client))
    assert client.act().status == 200
    assert client.get("/config").json["effective"]["embodiment"] == "franka"


def test_every_answer_before_kill_minus_nine_is_in_the_audit_log(
    start: Start, export_dir: ExportDir, tmp_path: Path
) -> None:
    process = start(export_dir("mono_pi0_7"), "--no-ros", "--audit-log", tmp_path)
    client = client_of(process)
    wait_for(lambda: ready(client))
    for number in range(60):
        assert client.act(request_id=f"r-{number}").status == 200
    process.kill()
    process.wait(PATIENCE_S)
    records = [
        record for path in audit_files(tmp_path) for record in map(json.loads, path.read_text().splitlines())
    ]
    answered = [record["request_id"] for record in records if record["kind"] == "act"]
    assert [name for name in answered if name.startswith("r-")] == [f"r-{number}" for number in range(60)]
    assert verify(audit_files(tmp_path)).finding is None


def test_a_reply_in_flight_is_finished_first(start: Start, export_dir: ExportDir) -> None:
    process = start(export_dir("slow"), "--no-ros")
    client = client_of(process)
    wait_for(lambda: ready(client))
    act = Background(lambda: client.act(image=None, images={"base": jpeg()}))
    wait_for(lambda: b'slot="prod"} 1.0' in in_flight_lines(client))
    process.send_signal(signal.SIGTERM)
    assert act.result().status == 200
    assert ended(process)[0] == 0


def test_a_server_that_drains_answers_and_asks_for_no_more_until_a_second_signal(
    start: Start, export_dir: ExportDir
) -> None:
    process = start(export_dir("mono_pi0_7"), "--no-ros", "--drain-s", "600")
    client = client_of(process)
    wait_for(lambda: ready(client))
    assert "connection" not in client.act().headers
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: client.get("/health").json["status"] == "draining")
    assert (client.get("/health").status, client.get("/healthz").status) == (503, 503)
    acted = client.act()
    assert (acted.status, acted.headers["connection"]) == (200, "close")
    process.send_signal(signal.SIGTERM)
    status, out, _ = ended(process)
    assert status == 0
    assert "draining for 600 s: /health says 503, requests are answered" in out


def test_a_server_that_drains_ends_by_itself(start: Start, export_dir: ExportDir) -> None:
    process = start(export_dir("mono_pi0_7"), "--no-ros", "--drain-s", "0.3")
    client = client_of(process)
    wait_for(lambda: ready(client))
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0


def in_flight_lines(client: Client) -> bytes:
    lines = client.get("/metrics").body.splitlines()
    return b"\n".join(line for line in lines if line.startswith(b"reflex_in_flight_requests{"))


def test_a_signal_while_it_loads_ends_it_with_status_0(start: Start, export_dir: ExportDir) -> None:
    process = start(export_dir("heavy"), "--no-ros")
    client = client_of(process)
    wait_for(lambda: client.get("/health").json["state"] in ("loading", "warming"))
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0


def test_without_rclpy_it_says_so_and_serves_http(start: Start, export_dir: ExportDir) -> None:
    process = start("serve", export_dir("mono_pi0_7"), "--port", "0", command=["-c", WITHOUT_RCLPY])
    assert process.stdout is not None
    assert process.stdout.readline().endswith(
        " INFO reflex: serving HTTP alone, without ROS: rclpy cannot be imported here\n"
    )
    client = client_of(process)
    wait_for(lambda: ready(client))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/nowhere", "--no-ros"], "/nowhere: no such export directory"),
        (["pik", "--no-ros"], "pik: no such export directory; did you mean pick, an embedded policy?"),
        (["{export}", "--no-ros", "--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines"),
        (
            ["{export}", "--no-ros", "--api-key-file", "/nowhere/key"],
            "setting 'api_key_file': /nowhere/key: No such file",
        ),
    ],
)
def test_what_it_cannot_serve_is_one_sentence(
    start: Start, export_dir: ExportDir, arguments: list[str], says: str
) -> None:
    status, _, err = ended(start(*(word.format(export=export_dir("mono_pi0_7")) for word in arguments)))
    assert status == (78 if says.startswith(("/nowhere", "pik", "no embodiment")) else 1)
    assert f"reflex serve: {says}" in err
    assert "Traceback" not in err


def test_a_file_of_settings_serves_without_ros_and_the_default_mode_fits_any_export(
    start: Start, export_dir: ExportDir, tmp_path: Path
) -> None:
    """README's `--slo p99=150ms`, on an export whose loop cannot take fewer steps."""
    file = tmp_path / "robot.yaml"
    file.write_text("robot_id: from file\nembodiment: franka\nslo: p99=150ms\ndeadline_ms: 500\n")
    process = start(export_dir("mono_pi0_7"), "--no-ros", "--config", file, "--robot-id", "option")
    client = client_of(process)
    wait_for(lambda: ready(client))
    reply = client.get("/config").json["effective"]
    assert (reply["robot_id"], reply["embodiment"]) == ("option", "franka")
    assert reply["slo"] == {"objective": "p99=150ms", "mode": "log_only"}


def test_a_taken_port_ends_it_with_a_sentence(start: Start, export_dir: ExportDir) -> None:
    first = client_of(start(export_dir("mono_pi0_7"), "--no-ros"))
    status, _, err = ended(start(export_dir("mono_pi0_7"), "--no-ros", "--port", first.port))
    assert status == 1
    assert f"cannot listen on 127.0.0.1:{first.port}" in err


def test_a_warm_up_that_fails_ends_it_without_draining(start: Start, export_dir: ExportDir) -> None:
    status, _, err = ended(start(export_dir("always_nan"), "--no-ros", "--drain-s", "600"))
    assert status == 1
    assert "reflex serve: warm-up: the model gave NaN or Inf" in err


def test_a_server_whose_output_is_closed_serves_on(start: Start, export_dir: ExportDir) -> None:
    """`reflex serve | head -1`"""
    process = start(export_dir("mono_pi0_7"), "--embodiment", "franka", "--no-ros")
    client = client_of(process)
    assert process.stdout is not None
    process.stdout.close()
    wait_for(lambda: ready(client))
    assert client.act().status == 200
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    output = process.stderr.read()
    assert process.wait(PATIENCE_S) == 0
    assert "Traceback" not in output
    assert "BrokenPipe" not in output


def test_the_key_is_read_once(start: Start, export_dir: ExportDir, tmp_path: Path) -> None:
    """From a pipe, as `--api-key-file <(pass show robot)` gives it."""
    pipe = tmp_path / "key"
    os.mkfifo(pipe)
    process = start(export_dir("mono_pi0_7"), "--embodiment", "franka", "--no-ros", "--api-key-file", pipe)
    pipe.write_text("open sesame")
    client = client_of(process)
    wait_for(lambda: ready(client))
    assert client.get("/config").status == 401
    assert client.get("/config", Authorization="Bearer open sesame").status == 200
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 0


def test_a_taken_port_says_that_another_server_may_be_driving_the_robot(
    start: Start, export_dir: ExportDir
) -> None:
    first = start(export_dir("mono_pi0_7"), "--embodiment", "franka", "--no-ros")
    port = client_of(first).port
    status, _, output = ended(start(export_dir("mono_pi0_7"), "--no-ros", "--port", port))
    assert status == 1
    assert f"cannot listen on 127.0.0.1:{port}: another program does; `ss -ltnp` names it" in output
    assert output.count("127.0.0.1") == 1


CTRL_C_AFTER = """
import os, signal, sys, threading
from reflex_ros.cli.main import main
threading.Timer({wait_s}, os.kill, (os.getpid(), signal.SIGINT)).start()
sys.exit(main(["serve", "--port", "0", "--device", "cpu", "--no-ros", *sys.argv[1:]]))
"""


HEAD = "/**:\n  ros__parameters:\n"


@pytest.mark.parametrize(
    ("content", "words", "says"),
    [
        (HEAD + "    safety_confg: x.json\n", [], "did you mean safety_config?"),
        ("arm:\n  ros__parameters:\n    deadline_ms: 33.0\n", [], "nothing is for the node /reflex"),
        (
            "reflex: {ros__parameters: {}}\n",
            ["-r", "__ns:=/robot1"],
            "nothing is for the node /robot1/reflex",
        ),
        (HEAD + "    joint_names: [a, 1]\n", [], "takes a list of names"),
        (HEAD + "    export_dir: /nope\n", [], "/nope: no such export directory"),
        (HEAD + "    slo: 150ms\n", [], "slo: expected p<percentile>"),
        ("{", [], "is not YAML"),
        ("", [], "is empty"),
        (HEAD, ["--params-file", "/nope.yaml"], "/nope.yaml: No such file"),
        (HEAD, ["-p", "deadlin_ms:=33.0"], "did you mean deadline_ms?"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_parameter_file_that_is_wrong_is_one_sentence_of_every_command(
    command: str,
    content: str,
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a node nor a model is started for it."""
    node = ModuleType("reflex_ros.node.process")
    node.run = lambda *_: pytest.fail("a node was started")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reflex_ros.node.process", node)
    file = tmp_path / "robot.yaml"
    file.write_text(content)
    ros = ["--ros-args", "--params-file", str(file), *words]
    quick = {"serve": [], "doctor": ["--json", "--no-ros"]}[command]
    assert main([command, *quick, *ros]) == {"serve": 78, "doctor": 1}[command]
    captured = capsys.readouterr()
    assert "100%" not in captured.err + captured.out
    if command == "serve":
        assert captured.err.startswith("reflex serve: ")
        assert says in captured.err
        assert captured.err.count("\n") == 1
        return
    wrong = {
        each["name"]: each["said"] for each in json.loads(captured.out)["findings"] if each["level"] == "fail"
    }
    assert any(says in each for each in wrong.values()), wrong


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_an_option_that_there_is_not_costs_two_lines(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--deadlin-ms", "33"])
    output = capsys.readouterr().err
    assert (ended.value.code, output.count("\n")) == (2, 2)
    assert "did you mean --deadline-ms?" in output


@pytest.mark.parametrize("wait_s", [0.03, 0.1, 0.3, 0.6, 1.0])
def test_ctrl_c_at_any_moment_of_the_start_ends_without_a_traceback(
    start: Start, export_dir: ExportDir, wait_s: float
) -> None:
    """While libraries are imported, the socket is opened, or the policy is loaded: the moment is what is tried."""
    command = ["-c", CTRL_C_AFTER.format(wait_s=wait_s)]
    status, _, output = ended(start(export_dir("mono_pi0_7"), command=command))
    assert status in (0, 130, -signal.SIGINT)
    assert "Traceback" not in output
    assert "initialization failed" not in output
