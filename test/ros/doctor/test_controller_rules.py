# SPDX-License-Identifier: Apache-2.0
"""What a running controller's parameters mean for what we send: refusals and warnings, with the line to write."""

from __future__ import annotations

from typing import Any

import pytest

from reflex_core.doctor.finding import FAIL, OK, WARN
from reflex_core.robot.groups import VELOCITY, Group
from reflex_core.settings.table import BLEND, LEGACY
from reflex_ros.demo.controllers.options import ControllerOptions
from reflex_ros.doctor.controller_rules import Running, Sent, era_of, judged, judged_clock

NAME = "/arm_controller"
JOINTS = ("a", "b")


def sent(output: str = "joint_trajectory", *, joints: tuple[str, ...] = JOINTS, **how: Any) -> Sent:
    commands = how.pop("commands", "position")
    group = Group("arm", tuple(range(len(joints))), joints, commands=commands, output=output)
    return Sent(group, output, **how)


def running(**parameters: Any) -> Running:
    """A joint_trajectory_controller of JOINTS with its defaults, but for these; dots are written __."""
    given = {name.replace("__", "."): value for name, value in parameters.items()}
    return Running(NAME, {**ControllerOptions().parameters(JOINTS), **given})


def only(*found: Any) -> Any:
    (one,) = judged(*found)
    return one


def test_a_controller_of_our_joints_with_its_defaults_fits() -> None:
    found = only(sent(), running())
    assert (found.level, found.name) == (OK, "controller /arm_controller")
    assert "replaces the running one and begins at the measured positions" in found.said


@pytest.mark.parametrize(
    ("joints", "partial", "level", "says", "line"),
    [
        (("a", "x"), False, FAIL, "group 'arm' commands x too: it refuses every trajectory", "joints: [a, x]"),
        (("a", "x"), True, FAIL, "group 'arm' commands x too", "joints: [a, x]"),
        (("a",), False, FAIL, "does not command b of its joints", "allow_partial_joints_goal: true"),
        (("a",), True, OK, "moves the 2 joints", ""),
        (("b", "a"), False, OK, "moves the 2 joints", ""),
    ],
)  # fmt: skip
def test_other_joints_than_the_controllers_are_refused(
    joints: tuple[str, ...], partial: bool, level: str, says: str, line: str
) -> None:
    found = only(sent(joints=joints), running(allow_partial_joints_goal=partial))
    assert found.level == level
    assert says in found.said
    assert line in found.do
    assert NAME in found.do or not line


@pytest.mark.parametrize(
    ("parameters", "how", "says", "line"),
    [
        ({"allow_trajectory_replacement": True}, {}, "plays a late one late", "`allow_trajectory_replacement: false`"),
        ({}, {"era": BLEND}, "it behaves like legacy", "set trajectory_era to auto"),
        ({}, {"era": BLEND}, "jumps back to the measured position", "`interpolate_from_desired_state: true`"),
        (
            {"positions_upsampling__enable": True}, {},
            "sends velocities: it leaves those trajectories as they are", "`positions_upsampling.enable: false`",
        ),
        (
            {"positions_upsampling__enable": True}, {"velocities": False},
            "every chunk begins and ends at rest", "`positions_upsampling.enable: false`",
        ),
        ({"command_interfaces": ["effort"]}, {}, "commands effort and no position", "command_interfaces: [position]"),
    ],
)  # fmt: skip
def test_a_setting_that_makes_the_arm_jerk_is_named_with_the_line_to_write(
    parameters: dict[str, Any], how: dict[str, Any], says: str, line: str
) -> None:
    found = [one for one in judged(sent(**how), running(**parameters)) if says in one.said]
    assert [one.level for one in found] == [WARN]
    assert line in found[0].do


def test_with_an_anchor_measured_state_is_no_warning_and_desired_state_never_is() -> None:
    assert only(sent(era=LEGACY), running()).level == OK
    found = judged(sent(era=BLEND), running(interpolate_from_desired_state=True))
    assert not [one for one in found if "jumps back" in one.said]
    found = judged(sent(era=BLEND), running(open_loop_control=True))
    assert not [one for one in found if "jumps back" in one.said]


@pytest.mark.parametrize(
    ("parameters", "era"),
    [({}, LEGACY), ({"allow_trajectory_replacement": False}, LEGACY), ({"allow_trajectory_replacement": True}, BLEND)],
)  # fmt: skip
def test_the_controller_says_which_era_it_is_of(parameters: dict[str, Any], era: str) -> None:
    assert era_of(running(**parameters)) == era


def test_what_is_no_controller_has_no_era() -> None:
    assert era_of(Running("/robot", {})) is None
    assert era_of(Running("/robot", None)) is None


@pytest.mark.parametrize(
    ("joints", "level", "says"),
    [
        (("a", "b"), OK, "takes 2 values"),
        (("b", "a"), FAIL, "values carry no names"),
        (("a",), FAIL, "it takes 2 values, of [a, b], and group 'arm' sends 1: the first one deactivates it"),
        (("a", "b", "c"), FAIL, "sends 3: the first one deactivates it"),
    ],
)
def test_a_forward_controller_needs_our_joints_in_our_order(
    joints: tuple[str, ...], level: str, says: str
) -> None:
    forward = Running(NAME, {"joints": ["a", "b"], "interface_name": "position"})
    found = only(sent("forward_command", joints=joints), forward)
    assert found.level == level
    assert says in found.said


def test_a_forward_controller_of_another_interface_is_refused() -> None:
    forward = Running(NAME, {"joints": ["a", "b"], "interface_name": "velocity"})
    assert only(sent("forward_command", commands=VELOCITY), forward).level == OK
    found = only(sent("forward_command"), forward)
    assert (found.level, found.said) == (
        FAIL, "it takes its values for velocity and group 'arm' sends position",
    )  # fmt: skip


@pytest.mark.parametrize("output", ["gripper_command", "parallel_gripper"])
def test_the_gripper_of_another_joint_is_refused(output: str) -> None:
    gripper = Running("/hand", {"joint": "finger", "allow_stalling": False})
    assert only(sent(output, joints=("thumb",)), gripper).level == FAIL
    found = only(sent(output, joints=("finger",)), gripper)
    assert found.level == OK
    assert "holding an object ends the goal as aborted" in found.said


def test_a_node_that_does_not_answer_is_a_warning_and_one_that_is_no_controller_is_not() -> None:
    silent = only(sent(), Running("/arm_controller", None))
    assert (silent.level, "did not say its parameters" in silent.said) == (WARN, True)
    assert only(sent(), Running("/my_driver", {})).level == OK


@pytest.mark.parametrize(
    ("delay_s", "says"),
    [(None, ""), (0.009, ""), (-0.01, ""), (0.03, "30 ms behind ours: trajectories begin that much too late"), (-0.03, "30 ms ahead of ours")],
)  # fmt: skip
def test_a_controllers_clock_may_be_ten_milliseconds_off(delay_s: float | None, says: str) -> None:
    found = judged_clock(NAME, delay_s)
    assert (found is None) == (not says)
    assert found is None or (found.level == WARN and says in found.said)


def test_a_robot_that_is_one_group_is_called_the_policy() -> None:
    found = only(Sent(Group("", (0,), ("x",)), "joint_trajectory"), running())
    assert "the policy commands x too" in found.said
