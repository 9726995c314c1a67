# SPDX-License-Identifier: Apache-2.0
"""~/first_motion over DDS: a right robot passes, and one with joints swapped or a sign flipped is named; nothing leaves otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import control_msgs_substitute
import leading_robots as robots
import numpy as np
import pytest
from controller_bench import Bench
from lifecycle_msgs.msg import Transition
from ros_world import World, wait_for, world
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from reflex_ros.demo.controllers.gripper_controller import GripperOptions
from reflex_ros.node import first_motion
from reflex_ros.outputs.streaming import StreamOutput

ARM = ["a", "b", "c"]
TRAJECTORY, FORWARD = "/arm/joint_trajectory", "/arm/commands"
BY_TRAJECTORY = robots.joints("arm", ARM, topic=TRAJECTORY)
BY_FORWARD = robots.joints("arm", ARM, "forward_command", topic=FORWARD)
SHARE = 0.06  # of its range that a person moves each joint


class Miswired(Bench):
    """Joints that a driver moves in place of others, or the other way round."""

    wired: Mapping[str, tuple[str, float]] = {}
    one_way: Mapping[str, float] = {}  # the lowest that each of these was, from where they do not come back

    def follow(self, joint: str, command: float) -> None:
        other, sign = self.wired.get(joint, (joint, 1.0))
        if other in self.one_way:
            command = self.one_way[other] = min(self.one_way[other], command)  # type: ignore[index]
        super().follow(other, sign * command)


@contextmanager
def scene(
    tmp_path: Path, groups: Sequence[dict[str, Any]], at: Mapping[str, float], *, moved: bool = True, **settings: Any
) -> Iterator[tuple[World, Miswired]]:  # fmt: skip
    """An active node in a dry run, and its robot, whose joints a person has moved."""
    arm = [name for name in at if name != "finger"]
    counted: list[dict[str, Any]] = [{"columns": arm, **robots.RELATIVE}]
    if "finger" in at:
        counted.append({"columns": ["finger"], "space": "gripper", "mode": "absolute", "unit": "m",
            "gripper": robots.GRIPPER})  # fmt: skip
    columns = {name: robots.steadily(0.0) for name in at}
    export = robots.leading(tmp_path / "export", columns, counted)
    config = robots.embodiment(tmp_path / "robot.json", groups)
    given = {"export_dir": str(export), "custom_embodiment_config": str(config), "dry_run": True} | settings
    with world(**given) as found:
        found.robot.joints_on = False
        with Miswired(found.domain, at) as bench:
            found.activate()
            if moved:
                ranges = {name: 0.04 if name == "finger" else 6.0 for name in at}
                for share in (*np.linspace(0.0, SHARE, 10), *np.linspace(SHARE, 0.0, 10)):
                    place(found, bench, {name: at[name] - share * ranges[name] for name in at})
                wait_for(lambda: not found.buffer.motion_left(), "every joint was moved")
            yield found, bench


def place(found: World, bench: Bench, at: Mapping[str, float]) -> None:
    """Move the joints, and wait until the node has read it."""
    bench.joints.update(at)

    def read() -> bool:
        measured = found.buffer.measured([*at], found.server.now_ns(), 500.0)
        return measured is not None and bool(np.allclose(measured, [*at.values()], atol=1e-6))

    wait_for(read, f"the joints are read at {at}")


def arm_only(tmp_path: Path, group: dict[str, Any], **how: Any) -> Any:
    return scene(tmp_path, [group], dict.fromkeys(ARM, 0.5), **how)


def test_a_right_robot_passes_and_is_commanded_by_nothing_before_and_after(tmp_path: Path) -> None:
    with arm_only(tmp_path, BY_TRAJECTORY) as (found, bench):
        arm = bench.trajectory_controller("arm_controller", ARM, topic=TRAJECTORY)
        found.robot.next_chunk()
        wait_for(
            lambda: any(
                "; always moved with " in each.value for each in found.robot.diagnostics["commands"].values
            ),
            "the person has moved all at once",
        )
        assert found.robot.node.count_publishers(TRAJECTORY) == 0
        began = len(found.robot.statuses)
        answer = found.robot.call("first_motion")
        problems = {status.problem for status in found.robot.statuses[began:]}
        assert "dry_run: the first motion moves the robot" in problems
        assert (answer.message, answer.success) == (
            "a moved as commanded; b moved as commanded; c moved as commanded", True,
        )  # fmt: skip
        wait_for(lambda: found.robot.node.count_publishers(TRAJECTORY) == 0, "nothing commands any more")
        assert len(arm.followed) == 6
        went = np.array([positions for _, positions, _ in arm.commands])
        assert np.abs(went - 0.5).max(axis=0) == pytest.approx(np.full(3, 0.1), abs=1e-3)
        speeds = np.abs([velocities for _, _, velocities in arm.commands])
        assert speeds.max() <= 0.1 * 1.01
        assert went[-1] == pytest.approx(np.full(3, 0.5), abs=1e-3)


@pytest.mark.parametrize(
    ("group", "wired", "message"),
    [
        (BY_TRAJECTORY, {"a": ("b", 1.0), "b": ("a", 1.0)}, "b moved instead of a; held: a joint left its way; not tried: b, c"),
        (BY_FORWARD, {"b": ("b", -1.0)}, "a moved as commanded; b moved the other way; held: a joint left its way; not tried: c"),
    ],
)  # fmt: skip
def test_what_is_swapped_or_flipped_is_named_and_held(
    tmp_path: Path, group: dict[str, Any], wired: dict[str, tuple[str, float]], message: str
) -> None:
    at = dict.fromkeys(ARM, 0.5) | ({"b": 0.0} if group is BY_FORWARD else {})
    with scene(tmp_path, [group], at) as (found, bench):
        bench.wired = wired
        if group is BY_TRAJECTORY:
            bench.trajectory_controller("arm_controller", ARM, topic=TRAJECTORY)
        else:
            bench.forward_controller("arm_controller", ARM, topic=FORWARD)
        answer = found.robot.call("first_motion")
        assert (answer.message, answer.success) == (message, False)
        assert max(abs(bench.joints[name] - at[name]) for name in ARM) <= 0.1


def test_an_arm_and_its_gripper_by_action(tmp_path: Path) -> None:
    control_msgs_substitute.use()
    from control_msgs.action import ParallelGripperCommand

    groups = [
        robots.joints("arm", ["a"], topic=TRAJECTORY),
        robots.gripper("hand", "finger", "parallel_gripper", action="/hand/gripper_cmd"),
    ]
    with scene(tmp_path, groups, {"a": 0.5, "finger": 0.03}) as (found, bench):
        bench.trajectory_controller("arm_controller", ["a"], topic=TRAJECTORY)
        hand = bench.gripper(
            "hand", "finger", ParallelGripperCommand, GripperOptions(), action="/hand/gripper_cmd"
        )
        answer = found.robot.call("first_motion")
        assert answer.message == "a moved as commanded; finger moved as commanded"
        assert hand.goals == pytest.approx([0.028, 0.03], abs=1e-5)


def test_a_stop_and_the_end_of_the_activation_hold_it(tmp_path: Path) -> None:
    ways: list[tuple[Callable[[World], Any], str]] = [
        (lambda found: found.robot.call("stop"), "held: ~/stop was called; not tried: b, c"),
        (lambda found: found.robot.transition(Transition.TRANSITION_DEACTIVATE), "held: the node was deactivated; not tried: b, c"),
    ]  # fmt: skip
    with arm_only(tmp_path, BY_TRAJECTORY) as (found, bench):
        arm = bench.trajectory_controller("arm_controller", ARM, topic=TRAJECTORY)
        for end, message in ways:
            begin = bench.joints["a"]
            future = requested(found)
            wait_for(lambda begin=begin: abs(bench.joints["a"] - begin) > 0.01, "it moves")
            end(found)
            wait_for(future.done, "the answer")
            assert future.result().message == message
            assert arm.followed[-1].header.stamp.sec == 0, "a hold begins on arrival"
            assert abs(bench.joints["a"] - begin) < 0.09
            if found.state == "active":
                assert found.robot.call("resume").success
                found.robot.next_chunk()


def steps_of(bench: Bench, joint: str) -> list[float]:
    """Return a list that grows by how far each command moves a joint from the one before."""
    steps, follow, last = list[float](), bench.follow, [bench.joints[joint]]

    def follow_and_note(name: str, command: float) -> None:
        if name == joint:
            steps.append(abs(command - last[0]))
            last[0] = command
        follow(name, command)

    bench.follow = follow_and_note  # type: ignore[method-assign]
    return steps


@pytest.mark.parametrize("group", [BY_TRAJECTORY, BY_FORWARD], ids=["trajectory", "forward"])
def test_it_begins_where_the_joints_are_once_the_controller_is_there(
    tmp_path: Path, group: dict[str, Any]
) -> None:
    """A person goes on moving the robot by hand while the service waits for the controller."""
    with arm_only(tmp_path, group) as (found, bench):
        future = requested(found)
        wait_for(
            lambda: found.robot.node.count_publishers(group["output"]["topic"]) > 0,
            "it waits for the controller",
        )
        place(found, bench, {"a": 0.5, "b": 0.5, "c": 1.3})
        steps = steps_of(bench, "c")
        if group is BY_TRAJECTORY:
            bench.trajectory_controller("arm_controller", ARM, topic=TRAJECTORY)
        else:
            bench.forward_controller("arm_controller", ARM, topic=FORWARD)
        wait_for(future.done, "the answer")
        assert future.result().message == "a moved as commanded; b moved as commanded; c moved as commanded"
        assert max(steps) < 0.02
        assert abs(bench.joints["c"] - 1.3) < 0.02


def test_a_joint_that_does_not_come_back_is_named(tmp_path: Path) -> None:
    with arm_only(tmp_path, BY_TRAJECTORY) as (found, bench):
        bench.one_way = {"c": 0.5}
        bench.trajectory_controller("arm_controller", ARM, topic=TRAJECTORY)
        assert refused(found) == (
            "a moved as commanded; b moved as commanded; c moved as commanded; held: c did not come back"
        )


@pytest.mark.parametrize("by_s", [-10, 10])
@pytest.mark.parametrize("group", [BY_TRAJECTORY, BY_FORWARD], ids=["trajectory", "forward"])
def test_a_clock_that_is_set_makes_no_hold_jump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: dict[str, Any], by_s: int
) -> None:
    shift_ns, now_ns = [0], first_motion._Robot.now_ns
    monkeypatch.setattr(first_motion._Robot, "now_ns", lambda robot: now_ns(robot) + shift_ns[0])
    with arm_only(tmp_path, group) as (found, bench):
        if group is BY_TRAJECTORY:
            bench.trajectory_controller("arm_controller", ARM, topic=TRAJECTORY)
        else:
            bench.forward_controller("arm_controller", ARM, topic=FORWARD)
        steps = steps_of(bench, "a")
        future = requested(found)
        wait_for(lambda: abs(bench.joints["a"] - 0.5) > 0.05, "it is on its way")
        shift_ns[0] = by_s * 1_000_000_000
        wait_for(future.done, "the answer")
        assert "held: " in future.result().message
        assert max(steps) < 0.02


def test_its_streams_keep_to_the_limit_of_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Any] = []
    monkeypatch.setattr(StreamOutput, "limit", lambda _, velocity_max: limits.append(velocity_max))
    with arm_only(tmp_path, BY_FORWARD) as (found, bench):
        bench.forward_controller("arm_controller", ARM, topic=FORWARD)
        assert found.robot.call("first_motion").success
    assert [limit.tolist() for limit in limits] == [[5.0] * len(ARM)]


class PanicError(BaseException):
    """What an extension written in Rust raises."""


@pytest.mark.parametrize("kind", [ValueError, PanicError])
def test_what_fails_on_the_way_is_held_and_the_node_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def broken(*_: Any) -> bool:
        raise kind("broken")

    with arm_only(tmp_path, BY_TRAJECTORY) as (found, bench):
        arm = bench.trajectory_controller("arm_controller", ARM, topic=TRAJECTORY)
        monkeypatch.setattr("reflex_core.chunks.first_motion.deviates", broken)
        assert refused(found) == "the first motion failed, and the robot was held: see the log"
        assert arm.followed[-1].header.stamp.sec == 0, "a hold begins on arrival"
        assert abs(bench.joints["a"] - 0.5) < 0.05
        wait_for(lambda: found.robot.node.count_publishers(TRAJECTORY) == 0, "nothing commands any more")
        assert refused(found) == "the first motion failed, and the robot was held: see the log"
        found.robot.next_chunk()


def requested(found: World) -> Any:
    client = found.robot.node.create_client(Trigger, "reflex/first_motion")
    assert client.wait_for_service(60.0)
    return client.call_async(Trigger.Request())


def refused(found: World) -> str:
    answer = found.robot.call("first_motion")
    assert not answer.success
    return str(answer.message)


def test_it_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with arm_only(tmp_path, BY_TRAJECTORY, moved=False) as (found, bench):
        assert refused(found).startswith("move every joint by hand once: a, b, c have not moved, or what")
        for share in (*np.linspace(0.0, 0.4, 10), *np.linspace(0.4, 0.0, 10)):
            place(found, bench, {"a": 0.5 + share, "b": 0.5 + share, "c": 0.5 - share})
        other = found.robot.node.create_publisher(JointTrajectory, TRAJECTORY, 10)
        assert refused(found) == f"/robot can command this robot too, on {TRAJECTORY}: end it first"
        found.robot.node.destroy_publisher(other)
        wait_for(lambda: found.robot.node.count_publishers(TRAJECTORY) == 0, "it is gone")
        assert refused(found).startswith(f"nothing takes the commands on {TRAJECTORY}: start the controller")
        assert found.robot.call("stop").success
        assert refused(found) == "the robot is stopped: call ~/resume first"
        assert found.robot.transition(Transition.TRANSITION_DEACTIVATE)
        assert refused(found) == "the node is inactive, not active"


def test_it_is_refused_outside_a_dry_run(tmp_path: Path) -> None:
    with arm_only(tmp_path, BY_TRAJECTORY, moved=False, dry_run=False, controller_wait_s=0.0) as (found, _):
        assert refused(found) == "the first motion is part of a dry run: start with dry_run"
