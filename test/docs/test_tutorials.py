# SPDX-License-Identifier: Apache-2.0
"""The tutorials, followed to the letter."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from domains import free_domain
from foreign_export import foreign_export
from launch_double import Context, described
from rerun_files import opens_in_rerun
from robot_commands import Graph as NodeGraph
from robot_commands import check_reflex, lines
from ros_world import REACH_HOME, Robot, Spinner, wait_for
from sensor_msgs.msg import Image
from trajectory_msgs.msg import JointTrajectory
from tutorial import ROBOT, TUTORIALS, Block, blocks, reader
from urdfs import urdf
from walk_pages import INSTALL

from reflex_core.doctor.export_files import hashes
from reflex_core.doctor.finding import OK
from reflex_core.settings.table import TABLE
from reflex_ros.launch_args import OWN_ARGUMENTS
from reflex_ros.node.node import ReflexNode
from reflex_ros.node.subscriptions import SENSOR

# the last one is followed in test/export, as it needs torch and LeRobot
PAGES = [
    "first_robot",
    "bring_your_export",
    "ab_rollout",
    "from_trace_to_fix",
    "without_ros",
    "from_lerobot_checkpoint",
]
CAMERA, CONTROLLER = "/camera/color/image_raw", "/joint_trajectory_controller/joint_trajectory"


def test_from_trace_to_fix(tmp_path: Path) -> None:
    with reader(tmp_path) as tutorial:
        tutorial.follow(blocks("from_trace_to_fix"))
    assert "grasp-17: failed (stopped short); first event: CLAMPED" in (tmp_path / "grasp.html").read_text()
    assert opens_in_rerun(tmp_path / "grasp.rrd")


def test_without_ros(tmp_path: Path) -> None:
    with reader(tmp_path) as tutorial:
        tutorial.follow([block for block in blocks("without_ros") if block.kind != INSTALL])
        assert "[PASS]" in tutorial.printed


def test_ab_rollout(tmp_path: Path) -> None:
    with reader(tmp_path) as tutorial:
        tutorial.follow(blocks("ab_rollout"))
        assert '"split":50' in tutorial.printed.replace(" ", ""), "rolled back"
    report = json.loads((tmp_path / "report.json").read_text())
    assert {slot["episodes"] > 0 for slot in report["slots"].values()} == {True}


def test_bring_your_export(tmp_path: Path) -> None:
    foreign_export(tmp_path / "other")
    with reader(tmp_path) as tutorial:
        tutorial.follow(blocks("bring_your_export"))
    with np.load(tmp_path / "my_export" / "parity.npz") as fixture:
        assert str(fixture["instruction"]) == "reach the red block"
    assert hashes(tmp_path / "my_export").level == OK
    measured = json.loads((tmp_path / "my_export" / "reflex_config.json").read_text())["prefix_cache"][
        "measured"
    ]
    assert (measured["still_pairs"], measured["noise"] < measured["least_change"]) == (2, True)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who has followed the first page, and whose robot is a Panda."""
    folder = tmp_path_factory.mktemp("arm")
    urdf(folder).rename(folder / "robot.urdf")
    with reader(folder) as tutorial:
        tutorial.follow(blocks("first_robot"))
    return folder


def launched(folder: Path) -> Any:
    """The node that the page launches on the controller."""
    [line] = [
        line
        for block in blocks("first_robot")
        for line in lines(block.code)
        if f"trajectory:={CONTROLLER}" in line
    ]
    given = dict(word.split(":=", 1) for word in shlex.split(line) if ":=" in word)
    entities = described("serve").entities
    known = {each.name: each.default_value for each in entities if each.kind == "argument"}
    [function] = [each.function for each in entities if each.kind == "function"]
    given["params_file"] = str(folder / given["params_file"])
    [node] = function(Context(launch_configurations=known | given))
    return node


@contextmanager
def node_of_the_page(folder: Path) -> Iterator[tuple[ReflexNode, Robot, list[JointTrajectory], Spinner]]:
    """The node as the page launches it on the controller, a robot, and what the controller receives."""
    launch = launched(folder)
    [file] = launch.parameters
    settings = yaml.safe_load(Path(file).read_text())["/**"]["ros__parameters"]
    paths = ("export_dir", "custom_embodiment_config", "safety_config")
    settings = settings | {name: str(folder / settings[name]) for name in paths}
    quick = {"http": False, "device": "cpu", "intra_op_threads": 1, "execution_horizon": 2}
    remap = [word for name, target in launch.remappings for word in ("-r", f"{name}:={target}")]
    domain = free_domain()
    robot, spinner = Robot(domain), Spinner(domain)
    robot.positions = list(REACH_HOME)
    robot._image = robot.node.create_publisher(Image, CAMERA, SENSOR)
    heard: list[JointTrajectory] = []
    robot.node.create_subscription(JointTrajectory, CONTROLLER, heard.append, 10)
    server = ReflexNode(settings | quick, context=spinner.context, cli_args=["--ros-args", *remap])
    spinner.start(server.node)
    try:
        yield server, robot, heard, spinner
    finally:
        spinner.do(server.finish)
        spinner.close()
        server.destroy()
        robot.spinner.close()
        robot.node.destroy_node()


def test_first_robot_holds_until_resumed_moves_slowly_and_trips(arm: Path) -> None:
    with node_of_the_page(arm) as (server, robot, heard, spinner):
        assert spinner.do(server.start), server.node.refusal
        wait_for(
            lambda: robot.status.observation_age_ms >= 0 and robot.status.state == "ready", "it is ready"
        )
        assert heard == [], "nothing before there is an instruction"
        assert robot.call("stop").success
        robot.say("reach the red block")
        wait_for(lambda: robot.status.stopped and robot.status.instruction, "stopped, with an instruction")
        assert robot.status.chunks_total == 0
        assert all(len(hold.points) == 1 for hold in heard)
        assert robot.call("resume").success
        wait_for(lambda: robot.status.guard_tripped, "three chunks were slowed down")
        moving = [each.points for each in heard if len(each.points) > 1]
        assert moving
        for points in moving:
            positions = np.array([point.positions for point in points])
            times_s = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in points]
            assert (np.abs(np.diff(positions, axis=0)) <= 0.1 * 1.001 * np.diff(times_s)[:, None]).all()
        assert robot.call("reset_guard").message == "the guard was tripped"
        check_robot_commands(server)


def check_robot_commands(server: ReflexNode) -> None:
    """Everything that the pages say to a robot, against the node that runs."""
    node = server.node
    there = {name: kinds[0] for name, kinds in node.get_topic_names_and_types()}
    there["/reflex/joint_trajectory"] = there[CONTROLLER]
    services = {name: kinds[0] for name, kinds in node.get_service_names_and_types()}
    declared = frozenset(row.name for row in TABLE if node.has_parameter(row.name))
    own = frozenset(name for name, _, _ in OWN_ARGUMENTS)
    files = {"serve.launch.py": own | {row.name for row in TABLE}}
    graph = NodeGraph(there, services, declared, files)
    found = [
        line for page in PAGES for block in blocks(page) if block.kind == ROBOT for line in lines(block.code)
    ]
    assert len(found) > 10
    for line in found:
        graph.check(line)
    check_ros_page(there, services)


def check_ros_page(topics: dict[str, str], services: dict[str, str]) -> None:
    """The reference of the ROS interface has the services and the topics of the node that runs."""
    page = (TUTORIALS.parent / "reference" / "ros.md").read_text(encoding="utf-8")
    own = {
        name.removeprefix("/reflex/")
        for name, kind in services.items()
        if kind == "std_srvs/srv/Trigger" or kind.startswith("reflex_ros/srv/")
    }
    assert set(re.findall(r"`~/(\w+)`", page[page.index("## Services") : page.index("## Launch")])) == own
    for name, package, kind in re.findall(r"^\| \w+ \| `~/(\w+)`.* \| (\w+)/(\w+) \|$", page, re.MULTILINE):
        assert topics[f"/reflex/{name}"] == f"{package}/msg/{kind}"


@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_is_short(page: str) -> None:
    assert len((TUTORIALS / f"{page}.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_every_tutorial_is_followed_by_a_test() -> None:
    assert sorted(PAGES) == sorted(path.stem for path in TUTORIALS.glob("*.md"))


@pytest.mark.parametrize(
    "line",
    [
        "ros2 topic echo --once /reflex/state",
        "ros2 topic pub --once /instruction std_msgs/msg/Bool '{data: true}'",
        "ros2 topic pub --once /instruction std_msgs/msg/String '{text: reach}'",
        "ros2 service call /reflex/stop std_srvs/srv/Empty",
        "ros2 param set /reflex spilt 50",
        "ros2 launch reflex_ros serve.launch.py trajectories:=/x",
        "ros2 bag record /instruction",
        "rqt_plot /reflex/debug/processing_ms/data",
        "roslaunch serve.launch.py",
    ],
)
def test_a_command_that_names_what_is_not_there_is_found(line: str) -> None:
    topics, services = {"/instruction": "std_msgs/msg/String"}, {"/reflex/stop": "std_srvs/srv/Trigger"}
    launch = {"serve.launch.py": frozenset({"trajectory"})}
    with pytest.raises((AssertionError, KeyError)):
        NodeGraph(topics, services, frozenset({"split"}), launch).check(line)


@pytest.mark.parametrize("words", ["serve --deadline 33", "replay --publsh x", "guard init"])
def test_an_option_that_does_not_exist_is_found(words: str) -> None:
    with pytest.raises(SystemExit):
        check_reflex(words.split())


def test_output_that_is_not_printed_and_a_command_that_should_fail_are_found(tmp_path: Path) -> None:
    with reader(tmp_path) as tutorial:
        tutorial.follow([Block("bash", "echo one two\n", ""), Block("text", "one...\n", "")])
        for wrong in (
            Block("text", "two\n", ""),
            Block("bash fails", "true\n", ""),
            Block("yaml", "a: 1\n", ""),
        ):
            with pytest.raises(AssertionError):
                tutorial.follow([wrong])
