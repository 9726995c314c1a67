# SPDX-License-Identifier: Apache-2.0
"""The node commands robots of several groups in simulated controllers over DDS: each follows, and a stop holds them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import control_msgs_substitute
import leading_robots as robots
import numpy as np
import pytest
from bags import bags, messages
from controller_bench import Bench
from diagnostic_msgs.msg import DiagnosticStatus
from http_client import Client
from lifecycle_msgs.msg import Transition
from ros_world import World, wait_for, world

from reflex_core.chunks.interpolation import Doubles
from reflex_ros.outputs.gripper_action import GripperActionOutput
from reflex_ros.outputs.streaming import StreamOutput

ROWS = robots.ROWS
RELATIVE = robots.RELATIVE
PERIOD_S = 1.0 / robots.RATE_HZ


@contextmanager
def scene(
    tmp_path: Path, groups: Sequence[dict[str, Any]], columns: dict[str, Any], action_space: Sequence[dict[str, Any]],
    **settings: Any,
) -> Iterator[tuple[World, Bench]]:  # fmt: skip
    """A node that is not active yet, and a bench without controllers that publishes the joints."""
    export = robots.leading(tmp_path / "export", columns, action_space)
    config = robots.embodiment(tmp_path / "robot.json", groups)
    settings = {"export_dir": str(export), "custom_embodiment_config": str(config)} | settings
    with world(**settings) as found:
        found.robot.joints_on = False
        with Bench(found.domain, dict.fromkeys(columns, 0.0)) as bench:
            yield found, bench


def stopped(found: World, bench: Bench, names: Sequence[str]) -> None:
    """Stop, and let no joint move any more once a period is over."""
    assert found.robot.call("stop").success

    def still() -> bool:
        before = [bench.joints[name] for name in names]
        seen = len(bench.controllers[0].commands)  # type: ignore[attr-defined]
        wait_for(lambda: len(bench.controllers[0].commands) > seen + 10, "a tenth of a second")  # type: ignore[attr-defined]
        return bool(np.allclose(before, [bench.joints[name] for name in names], atol=1e-4))

    wait_for(still, "every joint stands still")


def test_an_arm_and_its_gripper_follow_and_are_held(tmp_path: Path) -> None:
    control_msgs_substitute.use()
    from control_msgs.action import ParallelGripperCommand

    arm = [f"j{number}" for number in range(7)]
    groups = [
        robots.joints("arm", arm, topic="/arm_controller/joint_trajectory"),
        robots.gripper("hand", "finger", "parallel_gripper", action="/hand/gripper_cmd"),
    ]
    columns = {name: robots.steadily(0.01) for name in arm} | {"finger": [0.0] * 4 + [0.04] * (ROWS - 4)}
    counted = [RELATIVE | {"columns": arm}, {"columns": ["finger"], "space": "gripper", "mode": "absolute",
        "unit": "m", "gripper": robots.GRIPPER}]  # fmt: skip
    with scene(tmp_path, groups, columns, counted, http=True, port=0) as (found, bench):
        trajectories = bench.trajectory_controller("arm_controller", arm)
        hand = bench.gripper("hand", "finger", ParallelGripperCommand)
        found.activate()
        wait_for(lambda: bench.joints["j6"] > 0.1 and bench.joints["finger"] > 0.03, "both follow")
        assert not trajectories.refused
        assert found.robot.diagnosed("outputs", DiagnosticStatus.OK)
        values = {each.key: each.value for each in found.robot.diagnostics["outputs"].values}
        assert values["arm to"] == "/arm_controller/joint_trajectory (/arm_controller)"
        assert values["hand to"] == "/hand/gripper_cmd (/hand)"
        assert found.server.sidecar is not None
        described = Client(found.server.sidecar.port).get("/config").json["effective"]["groups"]
        assert [group["address"] for group in described] == [
            "/arm_controller/joint_trajectory",
            "/hand/gripper_cmd",
        ]
        stopped(found, bench, [*arm, "finger"])
        goals = len(hand.goals)
        assert found.robot.call("resume").success
        wait_for(lambda: len(hand.goals) > goals, "it goes on")


def test_a_gripper_is_known_to_be_cancelled_before_the_node_is_inactive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control_msgs_substitute.use()
    from control_msgs.action import GripperCommand

    settled: list[bool] = []
    flush = GripperActionOutput.flush

    def noting(output: GripperActionOutput, timeout_s: float) -> None:
        flush(output, timeout_s)
        settled.append(not output._unsettled())

    monkeypatch.setattr(GripperActionOutput, "flush", noting)
    groups = [robots.gripper("hand", "finger", "gripper_command", action="/hand/gripper_cmd")]
    counted = [{"columns": ["finger"], "mode": "absolute", "unit": "m", "gripper": robots.GRIPPER}]
    with scene(tmp_path, groups, {"finger": [0.04] * ROWS}, counted) as (found, bench):
        hand = bench.gripper("hand", "finger", GripperCommand, speed=0.001)
        found.activate()
        wait_for(lambda: hand.goals == [0.04], "the gripper moves")
        assert found.robot.transition(Transition.TRANSITION_DEACTIVATE)
        assert settled[-1]
        wait_for(lambda: [outcome.how for outcome in hand.outcomes] == ["cancelled"], "it is cancelled")


def test_two_arms_follow_one_policy_of_fourteen_columns(tmp_path: Path) -> None:
    left, right = ([f"{side}{number}" for number in range(7)] for side in ("left", "right"))
    groups = [
        robots.joints("left arm", left, topic="/left_controller/joint_trajectory"),
        robots.joints("right arm", right, topic="/right_controller/joint_trajectory"),
    ]
    columns = {name: robots.steadily(0.01) for name in left} | {
        name: robots.steadily(-0.01) for name in right
    }
    with scene(tmp_path, groups, columns, [RELATIVE | {"columns": [*left, *right]}]) as (found, bench):
        arms = [
            bench.trajectory_controller(f"{side}_controller", names)
            for side, names in (("left", left), ("right", right))
        ]
        found.activate()
        wait_for(lambda: bench.joints["left0"] > 0.1 and bench.joints["right6"] < -0.1, "both follow")
        stopped(found, bench, [*left, *right])
        stamps = [[(m.header.stamp.sec, m.header.stamp.nanosec) for m in arm.followed] for arm in arms]
        assert stamps[0] == stamps[1]
        assert not any(arm.refused for arm in arms)


def test_a_forward_controller_follows_from_where_it_is_and_is_held_within_a_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[list[float]] = []
    limit = StreamOutput.limit

    def noting(output: StreamOutput, velocity_max: Doubles) -> None:
        limits.append(velocity_max.tolist())
        limit(output, velocity_max)

    monkeypatch.setattr(StreamOutput, "limit", noting)
    arm = ["a", "b"]
    groups = [robots.joints("arm", arm, "forward_command", topic="/forward_controller/commands")]
    columns = {"a": robots.steadily(0.02), "b": robots.steadily(-0.02)}
    with scene(tmp_path, groups, columns, [RELATIVE | {"columns": arm}]) as (found, bench):
        bench.joints |= {"a": 0.5, "b": -0.5}
        controller = bench.forward_controller("forward_controller", arm)
        found.activate()
        wait_for(lambda: bench.joints["a"] > 0.8, "it follows")
        sent = np.array([values for _, values in controller.received])
        np.testing.assert_allclose(sent[0], [0.5, -0.5], atol=1e-3)
        assert np.abs(np.diff(sent, axis=0)).max() < 0.1  # no jump, also from chunk to chunk
        assert limits == [[5.0, 5.0]]  # the guard's, whatever is missed
        assert found.robot.call("stop").success
        at_stop = bench.joints["a"]
        stopped(found, bench, arm)
        assert bench.joints["a"] - at_stop < 2 * 0.02 + 0.01  # the row on its way, at most


def test_the_control_rate_is_how_often_rows_are_sent(tmp_path: Path) -> None:
    groups = [
        robots.joints("arm", ["a"], "forward_command", topic="/forward_controller/commands"),
    ]
    with scene(
        tmp_path, groups, {"a": robots.steadily(0.01)}, [RELATIVE | {"columns": ["a"]}], control_rate_hz=20.0
    ) as (found, bench):
        controller = bench.forward_controller("forward_controller", ["a"])
        found.activate()
        wait_for(lambda: bench.joints["a"] > 0.1, "it follows")
        times_s = np.array([at_s for at_s, _ in controller.received])
        assert np.median(np.diff(times_s)) == pytest.approx(0.05, abs=0.015)


def test_a_control_rate_for_a_robot_that_is_sent_trajectories_is_said_to_have_no_effect(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    groups = [robots.joints("arm", ["a"], topic="/arm_controller/joint_trajectory")]
    with scene(
        tmp_path, groups, {"a": robots.steadily(0.01)}, [RELATIVE | {"columns": ["a"]}], control_rate_hz=200.0
    ) as (found, bench):
        bench.trajectory_controller("arm_controller", ["a"])
        found.activate()
    assert "control_rate_hz has no effect" in capfd.readouterr().err


def test_an_arm_and_a_base_follow_and_the_base_gets_zeros(tmp_path: Path) -> None:
    groups = [
        robots.joints("arm", ["a", "b"], topic="/arm_controller/joint_trajectory"),
        robots.base("base", {"x": "linear.x", "yaw": "angular.z"}, topic="/cmd_vel"),
    ]
    columns = {
        "a": robots.steadily(0.01),
        "b": robots.steadily(0.01),
        "x": [0.3] * ROWS,
        "yaw": [-0.2] * ROWS,
    }
    counted = [
        RELATIVE | {"columns": ["a", "b"]},
        {"columns": ["x", "yaw"], "space": "base", "mode": "velocity"},
    ]
    with scene(tmp_path, groups, columns, counted) as (found, bench):
        bench.trajectory_controller("arm_controller", ["a", "b"])
        base = bench.base()
        found.activate()
        wait_for(
            lambda: bench.joints["a"] > 0.1 and base.speed == pytest.approx((0.3, 0.0, -0.2), abs=1e-3),
            "both follow",
        )
        stopped(found, bench, ["a", "b"])
        assert base.speed == (0.0, 0.0, 0.0)
        assert [not any(speeds) for _, *speeds in base.received[-3:]] == [True] * 3
        assert found.robot.call("resume").success
        wait_for(lambda: base.speed[0] > 0.29, "it drives again")
        found.spinner.do(found.server.finish)
        wait_for(lambda: base.received[-1][1:] == (0.0, 0.0, 0.0), "it stands at the end of the node")


def test_a_group_without_a_controller_refuses_activation_by_its_name(tmp_path: Path) -> None:
    groups = [
        robots.joints("left arm", ["a"], topic="/left_controller/joint_trajectory"),
        robots.joints("right arm", ["b"], topic="/right_controller/joint_trajectory"),
    ]
    columns = {"a": robots.steadily(0.01), "b": robots.steadily(0.01)}
    counted = [RELATIVE | {"columns": ["a", "b"]}]
    with scene(tmp_path, groups, columns, counted, controller_wait_s=1.0) as (found, bench):
        bench.trajectory_controller("left_controller", ["a"])
        assert not found.spinner.do(found.server.start)
        assert (
            "group 'right arm': nothing subscribes to /right_controller/joint_trajectory"
            in found.server.node.refusal
        )
        assert found.state == "inactive"


def test_a_robot_that_cannot_be_commanded_is_refused_and_nothing_stays_loaded(tmp_path: Path) -> None:
    groups = [robots.joints("wheel", ["a"], "forward_command", topic="/wheel/commands", commands="velocity")]
    counted = [{"columns": ["a"], "mode": "velocity", "unit": "rad", "space": "joints"}]
    with scene(tmp_path, groups, {"a": [0.1] * ROWS}, counted) as (found, _):
        assert not found.spinner.do(found.server.start)
        assert "accept_unattended_velocity" in found.server.node.refusal
        assert found.state == "unconfigured"
        assert found.server.engine.loaded is None


def test_a_bag_has_the_commands_of_every_group(tmp_path: Path) -> None:
    control_msgs_substitute.use()
    from control_msgs.action import GripperCommand

    groups = [
        robots.joints("arm", ["a"], topic="/arm_controller/joint_trajectory"),
        robots.joints("wrist", ["w"], "forward_command", topic="/wrist_controller/commands"),
        robots.gripper("hand", "finger", "gripper_command", action="/hand/gripper_cmd"),
        robots.base("base", {"x": "linear.x"}, topic="/cmd_vel"),
    ]
    columns = {
        "a": robots.steadily(0.01),
        "w": robots.steadily(0.01),
        "finger": [0.04] * ROWS,
        "x": [0.1] * ROWS,
    }
    counted = [
        RELATIVE | {"columns": ["a", "w"]},
        {
            "columns": ["finger"],
            "space": "gripper",
            "mode": "absolute",
            "unit": "m",
            "gripper": robots.GRIPPER,
        },
        {"columns": ["x"], "space": "base", "mode": "velocity"},
    ]
    with scene(tmp_path, groups, columns, counted, record_bag=str(tmp_path / "bags")) as (found, bench):
        bench.trajectory_controller("arm_controller", ["a"])
        bench.forward_controller("wrist_controller", ["w"])
        hand = bench.gripper("hand", "finger", GripperCommand)
        base = bench.base()
        found.activate()
        wait_for(lambda: bench.joints["w"] > 0.1 and base.speed[0] > 0.0 and hand.goals, "all follow")
    (bag,) = bags(tmp_path / "bags")
    topics = {topic for topic, _, _ in messages(bag)}
    assert topics >= {
        "/arm_controller/joint_trajectory", "/wrist_controller/commands", "/reflex/hand/goal", "/cmd_vel",
    }  # fmt: skip
