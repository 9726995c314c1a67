# SPDX-License-Identifier: Apache-2.0
"""The whole program as people start it: `reflex serve` as a process, a robot that dies, signals, refusals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from children import WITHOUT_SHARED_MEMORY, end
from domains import free_domain
from http_client import Client
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.parameter import parameter_value_to_python
from reflex_ros.msg import ActionChunk
from ros_world import REACH_HOME, Robot, Spinner, wait_for
from servers import ExportDir

from reflex_ros.cli.main import main
from reflex_ros.console.ros_args import ROS_ARGS
from reflex_ros.graph.dds_profile import PROFILE_VARIABLES
from reflex_ros.settings_sources import given

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def domain() -> int:
    return free_domain()


@pytest.fixture
def start(domain: int) -> Iterator[Start]:
    """`start("module", "argument", FASTDDS_BUILTIN_TRANSPORTS="UDPv4")`: a process in the domain of the test."""
    processes: list[subprocess.Popen[str]] = []

    def run(*command: str, **changes: str) -> subprocess.Popen[str]:
        environment = dict(os.environ, ROS_DOMAIN_ID=str(domain), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
        for name in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", *PROFILE_VARIABLES):
            environment.pop(name, None)
        found = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment | changes, stderr=subprocess.PIPE, text=True
        )
        processes.append(found)
        return found

    yield run
    for process in processes:
        end(process)


@pytest.fixture
def outsider(domain: int) -> Iterator[Robot]:
    """Listens, and speaks the instruction; publishes neither camera nor joints."""
    found = Robot(domain)
    found.camera_on = found.joints_on = False
    found.positions = list(REACH_HOME)
    yield found
    found.spinner.close()
    found.node.destroy_node()


def largest_segment(pid: int) -> int:
    """Bytes of the largest shared-memory segment that Fast DDS has made in a process."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    segments = set(re.findall(r"/dev/shm/fast(?:rtps|dds)_[0-9a-f]+$", maps, re.MULTILINE))
    return max((Path(segment).stat().st_size for segment in segments), default=0)


def serve(start: Start, *arguments: str) -> subprocess.Popen[str]:
    return start("reflex_ros.cli.main", "serve", "--port", "0", "--intra-op-threads", "1", *arguments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_robot_holding_and_ends_with_status_0(
    start: Start, outsider: Robot, number: signal.Signals
) -> None:
    process = serve(start, "demo")
    outsider.camera_on = outsider.joints_on = True
    outsider.say("reach the red block")
    outsider.next_chunk()
    process.send_signal(number)
    assert process.wait(60) == 0
    wait_for(lambda: outsider.chunks[-1].source == ActionChunk.SOURCE_HOLD, "the last word is a hold")


def test_the_node_survives_the_death_of_the_robot_process(start: Start, outsider: Robot) -> None:
    def robot() -> subprocess.Popen[str]:
        remap = "joint_trajectory:=/reflex/joint_trajectory"
        return start("reflex_ros.demo.robot", "--ros-args", "-r", remap, **WITHOUT_SHARED_MEMORY)

    first = robot()
    process = serve(start, "demo")
    outsider.say("reach the red block")
    outsider.next_chunk()
    first.kill()
    outsider.next_chunk(ActionChunk.SOURCE_HOLD)
    wait_for(lambda: outsider.status.holding, "status says it holds")
    robot()
    assert outsider.next_chunk().source == ActionChunk.SOURCE_POLICY
    assert process.poll() is None


def test_a_bad_export_ends_an_autostarted_process_with_one_sentence(
    start: Start, export_copy: ExportDir
) -> None:
    export: Path = export_copy("mono_pi0_7")
    (export / "model.onnx").unlink()
    process = serve(start, str(export), "--embodiment", "franka")
    _, output = process.communicate(timeout=60)
    assert process.returncode == 78
    sentences = [line for line in output.splitlines() if line.startswith("reflex serve:")]
    assert len(sentences) == 1
    assert "model.onnx" in sentences[0]
    assert "Traceback" not in output


def test_a_parameter_file_reaches_the_node_of_its_namespace_and_its_dump_is_one_again(
    start: Start, outsider: Robot, tmp_path: Path
) -> None:
    file = tmp_path / "robot.yaml"
    names = [f"panda_joint{number}" for number in range(1, 8)]
    file.write_text(
        "/**: {ros__parameters: {autostart: false, http: off, robot_id: far, deadline_ms: 500, use_sim_time: true}}\n"
        f"/robot1/reflex: {{ros__parameters: {{robot_id: near, max_age_ms: 250, joint_names: {names}, providers: []}}}}\n"
        "/robot2/reflex: {ros__parameters: {robot_id: other, safety_config: other.json}}\n"
    )
    process = serve(
        start, "demo", "--ros-args", "-r", "__ns:=/robot1", "--params-file", str(file), "-p", "margin_ms:=90"
    )
    dump = dumped(outsider, "/robot1/reflex")
    assert process.poll() is None
    wanted = {
        "export_dir": "demo", "robot_id": "near", "safety_config": "", "deadline_ms": 500.0, "max_age_ms": 250.0,
        "margin_ms": 90.0, "joint_names": names, "providers": [], "http": False, "use_sim_time": True,
    }  # fmt: skip
    assert {name: dump[name] for name in wanted} == wanted
    file.write_text(yaml.dump({"/robot1/reflex": {"ros__parameters": nested(dump)}}))
    again = given({}, [ROS_ARGS, "-r", "__ns:=/robot1", "--params-file", str(file)])
    assert {name: again.ros_parameters.get(name, again.written.get(name)) for name in wanted} == {
        **wanted, "joint_names": tuple(names), "providers": (),
    }  # fmt: skip


def dumped(outsider: Robot, node: str) -> dict[str, Any]:
    """What `ros2 param dump` gets from a node: every parameter, in Python's kinds."""
    there = outsider.node.create_client(ListParameters, f"{node}/list_parameters")
    names = list(outsider.read(there, ListParameters.Request()).result.names)
    values = outsider.node.create_client(GetParameters, f"{node}/get_parameters")
    found = outsider.read(values, GetParameters.Request(names=names)).values
    return {name: parameter_value_to_python(value) for name, value in zip(names, found, strict=True)}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """`a.b` as a mapping in a mapping, as the dump writes it."""
    root: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        place = root
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return root


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-r", "nonsense"], "ROS does not start the node"),
        (["-r", "__ns:=/1robot"], "ROS does not start the node"),
        (["--log-level", "loud"], "ROS does not start the node"),
        (["-p", "qos_overrides.a:=[1, b]"], "ROS has no such kind"),
    ],
)
def test_what_ros_refuses_itself_is_one_sentence(
    words: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "demo", "--port", "0", "--ros-args", *words]) == 1
    output = capfd.readouterr().err
    [sentence] = [line for line in output.splitlines() if line.startswith("reflex serve:")]
    assert says in sentence
    assert "Traceback" not in output


def test_an_export_for_no_robot_is_served_over_http_and_ends_with_status_0(
    start: Start, outsider: Robot, export_dir: ExportDir
) -> None:
    """The seed's first command, `reflex serve ./my-export/`, where there is ROS."""
    process = serve(start, str(export_dir("calm")))
    assert process.stderr is not None
    output, ports = "", list[str]()
    while not ports:
        line = process.stderr.readline()
        assert line, output
        output += line
        ports = re.findall(r"serving .* at http://127\.0\.0\.1:(\d+)", line)
    assert "the node stays inactive, HTTP requests are answered: a robot needs an embodiment" in output
    assert Client(int(ports[0])).act().status == 200
    assert largest_segment(process.pid) >= 16 << 20, "Fast DDS runs with the profile for raw images"
    outsider.camera_on = outsider.joints_on = True
    outsider.say("reach the red cube")
    wait_for(lambda: outsider.status.state == "inactive" and outsider.status.problem, "the status says why")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert outsider.trajectories == []


def test_two_nodes_live_side_by_side_in_their_namespaces(start: Start, domain: int) -> None:
    for name in ("left", "right"):
        serve(start, "demo", "--robot-id", name, "--ros-args", "-r", f"__ns:=/{name}")
    spinner = Spinner(domain)
    from rclpy.node import Node

    node = Node("looker", context=spinner.context)
    spinner.start(node)
    try:
        for name in ("left", "right"):
            topic = f"/{name}/reflex/action_chunk"
            wait_for(lambda t=topic: node.count_publishers(t) == 1, topic)
            wait_for(lambda n=name: node.count_subscribers(f"/{n}/camera/image_raw") == 1, "its camera")
    finally:
        spinner.close()
        node.destroy_node()
