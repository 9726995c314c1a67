# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of ROS: each turns yellow or red when the thing it looks at is broken."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from domains import free_domain
from rclpy.context import Context
from rclpy.node import Node
from repository import ROOT
from trajectory_msgs.msg import JointTrajectory

from reflex_core.doctor.finding import FAIL, OK, WARN
from reflex_ros.doctor import ros
from reflex_ros.doctor.dds import image_transport, loopback
from reflex_ros.doctor.interface_files import PARTS, differences, fields
from reflex_ros.doctor.other_servers import other_servers
from reflex_ros.graph.dds_profile import OWN_FILES, PROFILE_VARIABLES, TRANSPORTS_VARIABLE

SHIPPED = ROOT / "config" / "fastdds_shm.xml"


@pytest.fixture(autouse=True)
def own_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment with the ROS wheels, whatever this one has."""
    monkeypatch.setattr(ros, "WHEEL", "numpy")


def test_wheels_alone_are_ok(wheels: None) -> None:
    found = ros.distribution({})
    assert (found.level, "wheels" in found.said) == (OK, True)


def test_wheels_and_a_sourced_distribution_fail(tmp_path: Path, wheels: None) -> None:
    (tmp_path / "share" / "rclpy").mkdir(parents=True)
    found = ros.distribution({"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": str(tmp_path)})
    assert found.level == FAIL
    assert f"jazzy sourced from {tmp_path}" in found.said
    assert ros.distribution({"ROS_DISTRO": "jazzy"}).level == FAIL  # an odd shell: still two of them


def test_a_workspace_on_top_of_the_wheels_is_no_second_ros(tmp_path: Path, wheels: None) -> None:
    (tmp_path / "share" / "my_robot").mkdir(parents=True)
    assert ros.distribution({"AMENT_PREFIX_PATH": str(tmp_path)}).level == OK


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a robot with a ROS 2 install, whatever this environment has."""
    monkeypatch.setattr(ros, "WHEEL", "no-such-wheel")


def test_one_sourced_distribution_is_ok_and_two_fail(tmp_path: Path, no_wheels: None) -> None:
    for name in ("humble", "jazzy"):
        (tmp_path / name / "share" / "rclpy").mkdir(parents=True)
    one = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": str(tmp_path / "jazzy")}
    assert ros.distribution(one).level == OK
    both = f"{tmp_path / 'jazzy'}:{tmp_path / 'humble'}"
    found = ros.distribution(one | {"AMENT_PREFIX_PATH": both})
    assert (found.level, "several are sourced" in found.said) == (FAIL, True)


def test_the_middleware_of_this_machine_starts() -> None:
    found = ros.middleware()
    assert (found.level, "rmw_" in found.said) == (OK, True)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RMW_IMPLEMENTATION": "rmw_nowhere_cpp"}, "RMW_IMPLEMENTATION=rmw_nowhere_cpp cannot be loaded"),
        ({"ROS_DOMAIN_ID": "kitchen"}, "ROS_DOMAIN_ID is not an integral number"),
    ],
)
def test_a_middleware_that_does_not_start_fails(variables: dict[str, str], says: str) -> None:
    found = ros.middleware(dict(os.environ) | variables)
    assert found.level == FAIL
    assert says in found.said


@pytest.mark.parametrize(
    ("number", "level"), [("", OK), ("42", OK), ("150", WARN), ("233", FAIL), ("-1", FAIL), ("kitchen", FAIL)]
)
def test_a_domain_must_be_a_small_number(number: str, level: str) -> None:
    assert ros.domain({"ROS_DOMAIN_ID": number}).level == level


@pytest.mark.parametrize(
    ("reach", "level"),
    [("", OK), ("SUBNET", OK), ("LOCALHOST", OK), ("OFF", OK), ("SYSTEM_DEFAULT", OK), ("banana", FAIL), ("off", FAIL)],
)  # fmt: skip
def test_a_discovery_range_must_be_one_that_ros_knows(reach: str, level: str) -> None:
    found = ros.domain({"ROS_AUTOMATIC_DISCOVERY_RANGE": reach})
    assert found.level == level
    assert (f"ROS_AUTOMATIC_DISCOVERY_RANGE={reach}" in found.said) == (level == FAIL)


@pytest.fixture
def domain_context(monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A context in a domain of its own, in which the doctor looks too."""
    domain, context = free_domain(), Context()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    rclpy.init(context=context, domain_id=domain)
    yield context
    rclpy.try_shutdown(context=context)


def test_a_graph_without_others_is_fine(domain_context: Context) -> None:
    found = other_servers(look_s=0.5)
    assert (found.level, "no other node is /reflex" in found.said) == (OK, True)


def test_a_server_that_runs_already_warns(domain_context: Context) -> None:
    node = Node("reflex", context=domain_context)
    found = other_servers()
    assert found.level == WARN
    assert "a node /reflex runs" in found.said
    assert "end it before you serve" in found.do
    elsewhere = ["--ros-args", "-r", "__ns:=/arm_2"]
    assert other_servers(elsewhere, look_s=1.0).level == OK
    node.destroy_node()


@pytest.mark.parametrize(
    "remap",
    [
        "reflex/joint_trajectory:=/arm/joint_trajectory", "~/joint_trajectory:=/arm/joint_trajectory",
        "__node:=arm",
    ],
)  # fmt: skip
def test_another_commander_of_the_robot_is_named(domain_context: Context, remap: str) -> None:
    planner = Node("planner", context=domain_context)
    planner.create_publisher(JointTrajectory, "/arm/joint_trajectory", 1)
    found = other_servers(["--ros-args", "-r", remap])
    assert found.level == WARN
    assert "planner publishes on /arm/joint_trajectory" in found.said
    planner.destroy_node()


def test_unknown_ros_arguments_fail(domain_context: Context) -> None:
    found = other_servers(["--ros-args", "-r", "nonsense"])
    assert (found.level, "other servers could not be checked" in found.said) == (FAIL, True)


def test_the_compiled_messages_match_their_files() -> None:
    found = ros.messages()
    assert found.level == OK, found
    assert differences(ROOT, {kind: importlib.import_module(f"reflex_ros.{kind}") for kind in PARTS}) == []


@pytest.fixture
def interfaces(tmp_path: Path) -> Path:
    """A copy of msg/, srv/ and action/ that a test may change."""
    for kind in PARTS:
        shutil.copytree(ROOT / kind, tmp_path / kind)
    return tmp_path


def test_messages_that_were_not_compiled_again_fail(interfaces: Path) -> None:
    with (interfaces / "msg/ServeStatus.msg").open("a") as stream:
        stream.write("float64 battery_v  # new\n")
    found = ros.messages(interfaces)
    assert found.level == FAIL
    assert "ServeStatus differs in battery_v" in found.said
    (interfaces / "msg/Extra.msg").write_text("bool on\n")
    assert "Extra is not compiled" in ros.messages(interfaces).said
    chunk = (interfaces / "msg/ActionChunk.msg").read_text()
    (interfaces / "msg/ActionChunk.msg").write_text(chunk.replace("float32[] data", "float64[] data"))
    assert "ActionChunk differs in data" in ros.messages(interfaces).said


@pytest.mark.parametrize(
    ("file", "field", "name"),
    [
        ("srv/GetActionChunk.srv", "bool new_episode", "new_episode"),
        ("srv/GetActionChunk.srv", "ActionChunk details", "details"),
        ("action/RunPolicy.action", "float64 max_duration_s", "max_duration_s"),
        ("action/RunPolicy.action", "uint8 termination_reason", "termination_reason"),
        ("action/RunPolicy.action", "uint32 queue_depth", "queue_depth"),
    ],
)
def test_services_and_actions_that_were_not_compiled_again_fail(
    interfaces: Path, file: str, field: str, name: str
) -> None:
    path = interfaces / file
    path.write_text(path.read_text().replace(field, f"float32 {name}"))
    found = ros.messages(interfaces)
    assert (found.level, f"{path.stem} differs in {name}" in found.said) == (FAIL, True)


def test_a_service_without_its_answer_cannot_be_compared(interfaces: Path) -> None:
    (interfaces / "srv/GetActionChunk.srv").write_text("bool on\n")
    found = ros.messages(interfaces)
    assert (found.level, "expected 2 parts divided by ---, got 1" in found.said) == (WARN, True)


def test_message_files_that_cannot_be_read_warn(tmp_path: Path, interfaces: Path) -> None:
    assert ros.messages(tmp_path / "nothing").level == WARN
    (interfaces / "msg/ServeStatus.msg").write_text("!!\n")
    assert "cannot read '!!'" in ros.messages(interfaces).said


def test_every_kind_of_field_is_spelled_as_ros_spells_it(tmp_path: Path) -> None:
    file = tmp_path / "All.msg"
    file.write_text(
        "uint8 LIMIT=3  # a constant\nfloat64[3] xyz\nstring[<=4] words\nstd_msgs/Header[] heads\nbyte b\n"
        "float32 share 0.5\nActionChunk[2] chunks\n---\nint64 seed -1\n"
    )
    assert fields(file) == [
        {
            "xyz": "double[3]",
            "words": "sequence<string, 4>",
            "heads": "sequence<std_msgs/Header>",
            "b": "octet",
            "share": "float",
            "chunks": "reflex_ros/ActionChunk[2]",
        },
        {"seed": "int64"},
    ]


def test_ros_time_is_the_time_of_the_system() -> None:
    assert ros.ros_clock().level == OK
    found = ros.ros_clock(ros_s=1000.0, system_s=1060.0)
    assert (found.level, "-60.000 s off" in found.said) == (FAIL, True)


def test_a_message_goes_from_one_participant_to_another() -> None:
    assert loopback().level == OK


def test_the_loopback_does_not_read_what_the_doctor_was_called_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["reflex doctor", "--ros-args", "--nonsense"])
    assert loopback().level == OK


def test_participants_that_may_not_find_each_other_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    found = loopback(bound_s=0.5)
    assert (found.level, "no message arrived within 0.5 s" in found.said) == (FAIL, True)


def test_a_domain_that_no_participant_can_have_fails_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "kitchen")
    assert "no DDS participant can be made" in loopback().said


def test_the_shipped_profile_is_large_enough() -> None:
    for variable in PROFILE_VARIABLES:
        found = image_transport({variable: str(SHIPPED)})
        assert (found.level, "16 MB" in found.said) == (OK, True)


def test_without_a_profile_serve_sets_the_shipped_one_and_the_doctor_says_so(tmp_path: Path) -> None:
    found = image_transport({}, tmp_path)
    assert found.level == OK
    assert f"sets FASTRTPS_DEFAULT_PROFILES_FILE={SHIPPED} itself" in found.said


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({PROFILE_VARIABLES[0]: ""}, "FASTRTPS_DEFAULT_PROFILES_FILE is set to nothing"),
        ({TRANSPORTS_VARIABLE: "UDPv4"}, "FASTDDS_BUILTIN_TRANSPORTS=UDPv4"),
    ],
)
def test_a_choice_without_room_for_images_warns(tmp_path: Path, variables: dict[str, str], says: str) -> None:
    found = image_transport(variables, tmp_path)
    assert (found.level, found.said) == (WARN, f"{says}: raw camera images may get lost")
    assert found.do.endswith(f"or export FASTRTPS_DEFAULT_PROFILES_FILE={SHIPPED}")


def test_the_default_file_of_the_working_directory_is_the_users(tmp_path: Path) -> None:
    for name, level in zip(OWN_FILES, (OK, WARN), strict=True):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(
            SHIPPED.read_text().replace("16777216", "16777216" if level == OK else "1000")
        )
        found = image_transport({}, folder)
        assert (found.level, str(folder / name) in found.said) == (level, True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("<dds>", "no element found"),
        ("<dds></dds>", "segment of 0 bytes"),
        (SHIPPED.read_text().replace("16777216", "524288"), "segment of 524288 bytes"),
        (SHIPPED.read_text().replace("16777216", "large"), "invalid literal"),
    ],
)
def test_a_profile_that_loses_images_warns(tmp_path: Path, content: str | None, says: str) -> None:
    profile = tmp_path / "profile.xml"
    if content is not None:
        profile.write_text(content)
    found = image_transport({PROFILE_VARIABLES[0]: str(profile)})
    assert found.level == WARN
    assert says in found.said


def test_another_middleware_needs_no_fast_dds_profile() -> None:
    assert image_transport({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}).level == OK
    assert (
        image_transport({"RMW_IMPLEMENTATION": "rmw_fastrtps_dynamic_cpp", PROFILE_VARIABLES[0]: ""}).level
        == WARN
    )
