# SPDX-License-Identifier: Apache-2.0
"""Before the node commands a robot it asks the controllers that would take the commands, and refuses what cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from controller_bench import Bench
from diagnostic_msgs.msg import DiagnosticStatus
from ros_world import JOINTS, REACH_HOME, World, wait_for, world

from reflex_core.files.share import embedded_policy
from reflex_ros.demo.controllers.options import BLEND, ControllerOptions

START = dict(zip(JOINTS, REACH_HOME, strict=True))
REMAPPED = ["--ros-args", "-r", "~/joint_trajectory:=/arm_controller/joint_trajectory"]


def bench_for(running: World) -> Bench:
    """The controllers of the world's robot, whose joints it publishes itself."""
    running.robot.positions = list(REACH_HOME)
    return Bench(running.domain, {**START, "extra": 0.0}, publish_joints=False)


def activated(running: World) -> bool:
    running.robot.say("reach the red block")
    done: bool = running.spinner.do(running.server.start)
    return done


def seen(running: World, name: str) -> None:
    """Wait until the node of the policy knows the controller."""
    wait_for(lambda: name in running.server.node.get_node_names(), f"{name} is discovered")


def test_a_controller_that_would_refuse_every_trajectory_keeps_the_node_from_becoming_active() -> None:
    with world(cli_args=REMAPPED) as running, bench_for(running) as bench:
        bench.trajectory_controller("arm_controller", [*JOINTS, "extra"])
        seen(running, "arm_controller")
        assert not activated(running)
        assert running.state == "inactive"
        assert "the policy does not command extra of its joints" in running.server.node.refusal
        assert "`allow_partial_joints_goal: true`" in running.server.node.refusal
        wait_for(
            lambda: "extra" in running.robot.diagnostics.get("policy", DiagnosticStatus()).message,
            "the refusal in the diagnostics",
        )


@pytest.mark.parametrize("joints", [JOINTS[:6], JOINTS[::-1]], ids=["one too few", "another order"])
def test_a_forward_controller_of_other_joints_keeps_the_node_from_becoming_active(
    tmp_path: Path, joints: list[str]
) -> None:
    robot: dict[str, Any] = json.loads((embedded_policy() / "embodiment.json").read_text())
    robot.pop("gripper", None)
    output = {"kind": "forward_command", "topic": "/forward_controller/commands"}
    arm = {"name": "arm", "space": "joints", "joints": JOINTS, "output": output}
    file = tmp_path / "robot.json"
    file.write_text(json.dumps(robot | {"schema_version": 2, "groups": [arm]}))
    with world(custom_embodiment_config=str(file)) as running, bench_for(running) as bench:
        forward = bench.forward_controller("forward_controller", joints)
        seen(running, "forward_controller")
        assert not activated(running)
        assert "controller /forward_controller: it takes" in running.server.node.refusal
        assert forward.received == []


def warning_of(running: World) -> DiagnosticStatus | None:
    """Return the diagnostic of the controllers once it is a warning; the first one comes before they were asked."""
    status = running.robot.diagnostics.get("controllers")
    return status if status is not None and status.level == DiagnosticStatus.WARN else None


def test_a_controller_that_joins_trajectories_is_named_and_gets_no_anchor() -> None:
    with world(cli_args=REMAPPED) as running, bench_for(running) as bench:
        arm = bench.trajectory_controller("arm_controller", JOINTS, ControllerOptions(era=BLEND))
        seen(running, "arm_controller")
        assert activated(running), running.server.node.refusal
        status = wait_for(lambda: warning_of(running), "the warning about the controllers")
        assert "allow_trajectory_replacement is true" in status.message
        wait_for(lambda: len(arm.followed) > 3, "trajectories")
        chunks = [message for message in arm.followed if message.header.stamp.sec]
        firsts = [message.points[0].time_from_start for message in chunks]
        assert firsts
        assert all(first.sec or first.nanosec for first in firsts)


def test_a_driver_that_is_no_controller_is_commanded_as_before() -> None:
    with world() as running:
        running.robot.positions = list(REACH_HOME)
        assert activated(running), running.server.node.refusal
        wait_for(lambda: running.robot.trajectories, "a trajectory")
        status = wait_for(
            lambda: running.robot.diagnostics.get("controllers"), "the diagnostic of the controllers"
        )
        assert status.level == DiagnosticStatus.OK
