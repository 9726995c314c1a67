# SPDX-License-Identifier: Apache-2.0
"""A person takes the commands of the real node over DDS, of an arm with a trajectory controller at 1 kHz."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from delivered import at_their_stamps, fastest
from following_arm import FollowingArm
from leading_robots import embodiment, leading
from reflex_ros.msg import ActionChunk
from ros_world import HOME, JOINTS, World, wait_for, world
from sensor_msgs.msg import JointState, Joy
from servers import ExportDir
from std_msgs.msg import Float32
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from reflex_core.records.trace.executed import EXECUTED, executed_of
from reflex_core.records.trace.reader import TraceReader
from reflex_core.robot.presets import load_preset
from reflex_ros.graph.qos import SENSOR

RELEASE_S = 0.3
PERIOD_NS = 1_000_000
FASTER = 1.01
ARM = {"name": "arm", "joints": ["a", "b"], "space": "joints", "output": {"kind": "joint_trajectory"}}
WARN, OK = b"\x01", b"\x00"


def fastest_of(arm: FollowingArm) -> float:
    """The largest step of 1 ms, as a share of the limits of speed, of a controller that gets every message at its stamp."""
    limits = load_preset("franka").without_gripper().velocity_max
    assert limits is not None
    return fastest(at_their_stamps(arm.sent), HOME, limits)


class Person:
    """Publishes where they want the joints, a hundred times a second, while `wanted` says so."""

    def __init__(self, scene: World) -> None:
        node = scene.robot.node
        self.wanted: dict[str, float] | None = None
        self.joints = node.create_publisher(JointState, "reflex/takeover", SENSOR)
        self.trajectories = node.create_publisher(JointTrajectory, "reflex/takeover_trajectory", SENSOR)
        self.blend = node.create_publisher(Float32, "reflex/blend", 10)
        node.create_timer(0.01, self._tick)
        wait_for(
            lambda: self.joints.get_subscription_count() and self.blend.get_subscription_count(),
            "the node listens",
        )

    def _tick(self) -> None:
        if (wanted := self.wanted) is not None:
            self.joints.publish(JointState(name=list(wanted), position=list(wanted.values())))


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def scene(export_dir: ExportDir, traces: Path) -> Iterator[World]:
    with world(
        export_dir=str(export_dir("calm")),
        embodiment="franka",
        takeover_release_s=RELEASE_S,
        blend_s=0.5,
        record=str(traces),
    ) as found:
        found.activate()
        found.robot.next_chunk()
        yield found


@pytest.fixture(scope="module")
def arm(scene: World) -> FollowingArm:
    return FollowingArm(scene, HOME)


@pytest.fixture(scope="module")
def person(scene: World) -> Person:
    return Person(scene)


def labels_of(scene: World, since: int) -> list[str]:
    """Who commands, by each ~/action_chunk of a time without repetitions."""
    labels = [chunk.control for chunk in scene.robot.chunks[since:]]
    return [label for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]


def test_a_person_takes_the_commands_and_hands_them_back_over_dds_without_a_step(
    scene: World, arm: FollowingArm, person: Person
) -> None:
    draw, seen = np.random.default_rng(7), len(scene.robot.chunks)
    for number in range(12):
        goal = np.array(HOME) + draw.uniform(-0.04, 0.04, 7)
        person.wanted = dict(zip(JOINTS, goal.tolist(), strict=True))
        wait_for(lambda: scene.robot.chunks[-1].control == "teleop", "the person commands")
        threading.Event().wait(draw.uniform(0.0, 0.4))
        person.wanted = None
        wait_for(lambda: scene.robot.chunks[-1].control == "policy", "the policy commands again")
        assert wait_for(
            lambda counted=number + 1: scene.robot.status.takeovers_total == counted, "it was counted"
        )
    assert labels_of(scene, seen - 1) == ["policy", *["teleop", "hand-back", "policy"] * 12]
    sources = {(chunk.control, chunk.source) for chunk in scene.robot.chunks[seen:]}
    assert sources == {
        ("policy", ActionChunk.SOURCE_POLICY),
        ("teleop", ActionChunk.SOURCE_TELEOP),
        ("hand-back", ActionChunk.SOURCE_HOLD),
    }
    assert fastest_of(arm) <= FASTER


def test_it_is_reported_everywhere_who_commands_and_the_robot_goes_where_it_is_wanted(
    scene: World, arm: FollowingArm, person: Person
) -> None:
    person.wanted = {JOINTS[0]: HOME[0] + 0.1}
    wait_for(lambda: scene.robot.status.control == "teleop", "the status says so")
    assert scene.robot.diagnosed("takeover", OK).message
    wait_for(lambda: abs(scene.robot.positions[0] - HOME[0] - 0.1) < 1e-4, "the arm is there")
    wait_for(lambda: "person" in scene.robot.diagnosed("takeover", OK).message, "diagnostics say so")
    assert scene.server.engine.description()["control"] == "teleop"
    assert scene.server._snapshot().control == "teleop"
    answer = scene.robot.call("hand_back")
    assert (answer.success, answer.message) == (True, "the policy goes on from where the robot is")
    wait_for(lambda: scene.robot.status.control == "policy", "the status says so, though the person goes on")
    wait_for(lambda: "pause" in scene.loop.progress.takeover_problem, "a pause is awaited")
    person.wanted = None
    wait_for(lambda: not scene.loop.progress.takeover_problem, "there was a pause")
    wait_for(lambda: abs(scene.robot.positions[0] - HOME[0]) < 1e-3, "the policy has led it back")
    assert fastest_of(arm) <= FASTER


def test_a_trajectory_is_followed_to_its_last_point(scene: World, arm: FollowingArm, person: Person) -> None:
    seen = len(scene.robot.chunks)
    points = [JointTrajectoryPoint(positions=[HOME[1] + away]) for away in (0.3, 0.02)]
    wait_for(
        lambda: (
            person.trajectories.publish(JointTrajectory(joint_names=[JOINTS[1]], points=points))
            or threading.Event().wait(0.02)
            or [chunk for chunk in scene.robot.chunks[seen:] if chunk.source == ActionChunk.SOURCE_TELEOP]
        ),
        "the person commands",
    )
    found = scene.robot.next_chunk(ActionChunk.SOURCE_TELEOP, seen)
    assert found.data[-6] == pytest.approx(HOME[1] + 0.02, abs=1e-6)
    wait_for(lambda: scene.robot.status.control == "policy", "the policy commands again")
    assert fastest_of(arm) <= FASTER


def test_a_command_for_another_robot_is_refused_in_a_sentence(scene: World, person: Person) -> None:
    wait_for(lambda: scene.robot.chunks[-1].control == "policy", "nobody commands any more")
    seen = len(scene.robot.chunks)
    person.wanted = {"elbow": 0.0}
    message = scene.robot.diagnosed("takeover", WARN).message
    assert "got elbow" in message
    person.wanted = None
    scene.robot.next_chunk()
    assert labels_of(scene, seen - 1) == ["policy"]


def test_the_policy_s_motion_is_let_through_as_the_topic_says(
    scene: World, arm: FollowingArm, person: Person
) -> None:
    person.blend.publish(Float32(data=0.0))
    wait_for(lambda: scene.robot.status.blend == 0.0, "nothing of it is let through")
    assert scene.server.node.get_parameter("blend").value == 0.0
    person.blend.publish(Float32(data=1.5))
    person.blend.publish(Float32(data=0.5))
    wait_for(lambda: scene.robot.status.blend == 0.5, "half of it is, and no nonsense")
    person.blend.publish(Float32(data=1.0))
    wait_for(lambda: scene.robot.chunks[-1].blend == 1.0, "all of it is again")
    assert fastest_of(arm) <= FASTER


def test_every_executed_command_is_in_the_trace_with_who_gave_it(scene: World, traces: Path) -> None:
    """The last test of the scene: it ends the recording."""
    scene.spinner.do(scene.server._deactivate)
    scene.spinner.do(scene.server._clean_up)
    (path,) = traces.glob("*.jsonl*")
    with TraceReader(path) as trace:
        recorded = [executed_of(document, where) for where, document in trace.notes(EXECUTED)]
    with TraceReader(path) as trace:
        requests = {record.request_id: record for record in trace}
        assert trace.damage == []
    chunks = scene.robot.chunks
    assert [found.control for found in recorded] == [chunk.control for chunk in chunks][-len(recorded) :]
    assert len(recorded) >= len(chunks) - 2, "a message may come before the listener is there"
    for found in recorded:
        if found.control == "policy" and found.request_id:
            assert found.request_id in requests
        if found.control == "teleop":
            assert found.request_id not in requests
    assert all(a.began_ns <= b.began_ns for a, b in itertools.pairwise(recorded))


def test_with_a_button_a_person_commands_while_it_is_pressed(export_dir: ExportDir) -> None:
    with world(
        export_dir=str(export_dir("calm")),
        embodiment="franka",
        takeover_release_s=RELEASE_S,
        takeover_button=2,
    ) as found:
        found.activate()
        found.robot.next_chunk()
        person = Person(found)
        joystick = found.robot.node.create_publisher(Joy, "reflex/takeover_joy", SENSOR)
        wait_for(joystick.get_subscription_count, "the node listens")
        person.wanted = dict(zip(JOINTS, HOME, strict=True))
        pressed = 1
        found.robot.node.create_timer(0.02, lambda: joystick.publish(Joy(buttons=[0, 0, pressed])))
        wait_for(lambda: found.robot.status.control == "teleop", "the person commands")
        pressed = 0
        wait_for(lambda: found.robot.status.control == "policy", "the policy commands again")
        assert found.robot.status.takeovers_total == 1


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_robot_that_no_person_could_command_is_refused_in_a_sentence(tmp_path: Path, dry_run: bool) -> None:
    robot = embodiment(tmp_path / "robot.json", [ARM])
    document: dict[str, Any] = json.loads(robot.read_text())
    del document["velocity_max"]
    robot.write_text(json.dumps(document))
    export = leading(tmp_path / "export", {"a": [0.0] * 40, "b": [0.0] * 40}, [])
    with world(
        export_dir=str(export), custom_embodiment_config=str(robot), takeover_release_s=0.5, dry_run=dry_run
    ) as found:
        assert not found.spinner.do(found.server.start)
        assert found.server.node.refusal == (
            "takeover_release_s: no person can take the commands of this robot: it needs a limit of speed for every joint, and a, b"
            " has none"
        )
