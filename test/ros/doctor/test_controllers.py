# SPDX-License-Identifier: Apache-2.0
"""Controllers that run are asked what they are over DDS, by the node before it moves anything and by `reflex doctor`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import control_msgs_substitute
import pytest
from controller_bench import Bench
from domains import free_domain
from rclpy.node import Node
from ros_world import Spinner, wait_for

from reflex_core.doctor.finding import FAIL, OK, WARN
from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import Group
from reflex_ros.demo.controllers.options import BLEND, ControllerOptions
from reflex_ros.doctor.controller_rules import Sent
from reflex_ros.doctor.controllers import Address, Answers, Wanted, ask_all, running_controllers

JOINTS = ("a", "b")
ARM = Sent(Group("arm", (0, 1), JOINTS), "joint_trajectory")
FORWARD = Sent(Group("lift", (2,), ("c",)), "forward_command")


class Asker:
    """A node that asks on its own executor."""

    def __init__(self, domain: int) -> None:
        self.spinner = Spinner(domain)
        self.node = Node("asker", context=self.spinner.context)
        self.ticks = 0
        self.node.create_timer(0.01, self._tick)
        self.spinner.start(self.node)

    def _tick(self) -> None:
        self.ticks += 1

    def ask(self, *wanted: Wanted, patience_s: float = 10.0) -> Answers:
        found: Answers = self.spinner.do(ask_all, self.node, wanted, patience_s)
        return found


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    domain = free_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    return domain


@pytest.fixture
def bench(domain: int) -> Iterator[Bench]:
    with Bench(domain, {"a": 0.0, "b": 0.0, "c": 0.0, "finger": 0.0}) as bench:
        yield bench


@pytest.fixture
def asker(domain: int) -> Iterator[Asker]:
    asker = Asker(domain)
    yield asker
    asker.spinner.close()


def levels(found: Sequence[Any]) -> list[tuple[str, str]]:
    return [(one.name, one.level) for one in found]


def test_each_controller_is_asked_and_what_does_not_fit_refuses(bench: Bench, asker: Asker) -> None:
    bench.trajectory_controller("arm_controller", JOINTS)
    bench.forward_controller("lift_controller", ["c", "d"])
    found = asker.ask(Wanted(ARM, ("/arm_controller",)), Wanted(FORWARD, ("/lift_controller",)))
    assert levels(found.findings) == [
        ("controller /arm_controller", OK),
        ("controller /lift_controller", FAIL),
    ]
    assert found.eras == {"arm": "legacy"}
    with pytest.raises(ConfigurationError, match="/lift_controller: it takes 2 values"):
        found.require_fit()


def test_a_controller_says_that_it_joins_trajectories(bench: Bench, asker: Asker) -> None:
    bench.trajectory_controller("arm_controller", JOINTS, ControllerOptions(era=BLEND))
    found = asker.ask(Wanted(ARM, ("/arm_controller",)))
    assert levels(found.findings) == [("controller /arm_controller", WARN)]
    assert (
        "`allow_trajectory_replacement: false` under ros__parameters of /arm_controller"
        in found.findings[0].do
    )
    assert found.eras == {"arm": "blend"}
    found.require_fit()


@pytest.mark.parametrize("shift_s", [0.0, 0.3])
def test_a_controller_whose_clock_is_off_is_named(bench: Bench, asker: Asker, shift_s: float) -> None:
    control_msgs_substitute.use()
    from control_msgs.msg import JointTrajectoryControllerState

    arm = bench.trajectory_controller("arm_controller", JOINTS, state_type=JointTrajectoryControllerState)
    arm.state_shift_ns = round(shift_s * 1e9)

    def named() -> set[str]:
        return {one.name for one in asker.ask(Wanted(ARM, ("/arm_controller",))).findings}

    wait_for(lambda: ("clock of /arm_controller" in named()) is (shift_s > 0.0), "the clock is judged")


def test_recorders_and_tools_on_the_topic_are_not_asked(bench: Bench, asker: Asker) -> None:
    bench.trajectory_controller("arm_controller", JOINTS)
    takers = ("/arm_controller", "/rosbag2_recorder", "/_ros2cli_123", "_NODE_NAME_UNKNOWN_", "/bench")
    found = asker.ask(Wanted(ARM, takers))
    assert levels(found.findings) == [("controller /arm_controller", OK)]


def test_who_does_not_answer_is_waited_for_no_longer_than_the_patience_and_the_node_goes_on(
    asker: Asker,
) -> None:
    ticks, began = asker.ticks, time.monotonic()
    silent = (Wanted(ARM, ("/gone",)), Wanted(FORWARD, ("/gone_too",)))
    found = asker.ask(*silent, patience_s=0.5)
    assert time.monotonic() - began < 5.0
    assert asker.ticks > ticks + 10
    assert levels(found.findings) == [("controller /gone", WARN), ("controller /gone_too", WARN)]


@pytest.mark.parametrize(
    "parameters",
    [{"joints": 7}, {"joints": "all"}, {"joints": [1, 2]}, {"joint": 3}, {"joints": True, "joint": 0.5}],
    ids=str,
)
def test_a_node_that_calls_something_else_joints_is_no_controller(
    bench: Bench, asker: Asker, parameters: dict[str, Any]
) -> None:
    bench.spinner.executor.add_node(bench.make_node("viewer", parameters))
    bench.spinner.executor.wake()
    (finding,) = asker.ask(Wanted(ARM, ("/viewer",))).findings
    assert (finding.level, "no controller of ros2_control" in finding.said) == (OK, True)


def test_nothing_running_says_so(asker: Asker) -> None:
    (found,) = asker.ask(Wanted(ARM, ())).findings
    assert (found.name, found.level) == ("controller of arm", OK)
    assert "could not be asked" in found.said


def test_doctor_finds_the_controllers_behind_topics_actions_and_remappings(bench: Bench) -> None:
    bench.trajectory_controller("arm_controller", JOINTS)
    bench.forward_controller("lift_controller", ["d"])
    hand = bench.make_node("hand", {"joint": "finger"})  # its parameters are all that is asked for
    bench.spinner.executor.add_node(hand)
    gripper = Sent(Group("hand", (3,), ("thumb",)), "gripper_command")
    named = Sent(Group("lift", (2,), ("c",), options={"controller": "lift_controller"}), "forward_command")
    wait_for(lambda: len(bench.node.get_node_names()) >= 4, "the nodes")
    found = list(
        running_controllers(
            [
                Address(ARM, ("reflex/arm/joint_trajectory", "~/arm/joint_trajectory")),
                Address(named, ("somewhere/commands",)),
                Address(gripper, ("/hand/gripper_cmd",), is_action=True),
            ],
            ["--ros-args", "-r", "reflex/arm/joint_trajectory:=/arm_controller/joint_trajectory"],
            look_s=30.0,
        )
    )
    assert levels(found) == [
        ("controller /arm_controller", OK), ("controller /lift_controller", FAIL), ("controller /hand", FAIL),
    ]  # fmt: skip


def test_doctor_without_a_robot_says_that_nothing_could_be_asked(domain: int) -> None:
    found = list(running_controllers([Address(ARM, ("/arm_controller/joint_trajectory",))], look_s=0.1))
    assert levels(found) == [("controller of arm", OK)]
