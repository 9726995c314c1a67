# SPDX-License-Identifier: Apache-2.0
"""`reflex replay --publish` and who else is there: no live sensor is mixed in, no arm moves by recorded pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import control_msgs_substitute
import pytest
from domains import free_domain
from geometry_msgs.msg import Twist
from rclpy.action import ActionClient, ActionServer
from rclpy.node import Node
from reflex_ros.msg import ActionChunk
from replays import Outcome, command, written
from ros_world import Spinner
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from reflex_ros.node.subscriptions import SENSOR
from reflex_ros.playing import player

Output = pytest.CaptureFixture[str]
COMMANDS = {
    "/reflex/joint_trajectory": JointTrajectory, "/reflex/action_chunk": ActionChunk,
    "/forward_controller/commands": Float64MultiArray, "/cmd_vel": Twist,
}  # fmt: skip


class Domain:
    """A domain with a policy's node (it receives joints and commands), and the nodes that a test adds."""

    def __init__(self) -> None:
        self.domain = free_domain()
        self.spinner = Spinner(self.domain)
        self.heard = threading.Event()
        self.joins: Callable[[], object] = lambda: None
        self.nodes: list[Node] = []
        policy = self.add("reflex")
        for topic, kind in COMMANDS.items():
            policy.create_publisher(kind, topic, 1)
        policy.create_subscription(JointState, "/joint_states", self._received, SENSOR)
        self.spinner.start(policy)

    def add(self, name: str) -> Node:
        self.nodes.append(Node(name, context=self.spinner.context, start_parameter_services=False))
        return self.nodes[-1]

    def listens(self, name: str, topic: str) -> None:
        self.add(name).create_subscription(COMMANDS[topic], topic, lambda _: None, 1)

    def _received(self, _: JointState) -> None:
        if not self.heard.is_set():
            self.heard.set()
            self.joins()

    def close(self) -> None:
        self.spinner.close()
        for node in self.nodes:
            node.destroy_node()


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Domain]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    found = Domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(found.domain))
    yield found
    found.close()


def trace_of(path: Path, seconds: int) -> Path:
    """A trace with one state a second, and nothing else."""
    documents: list[dict[str, Any]] = [{"kind": "header", "schema_version": 1, "state_names": ["a", "b"]}]
    documents += [
        {
            "kind": "request", "schema_version": 1, "seq": seq, "response": {"actions": []},
            "request": {"instruction": "pick", "state": [0.5, 1.0], "stamp_ns": (seq + 1) * 10**9},
        }
        for seq in range(seconds)
    ]  # fmt: skip
    return written(path, documents)


def refused(done: Outcome, *words: str) -> None:
    assert done.status == 2
    last = done.err.splitlines()[-1]
    assert last.startswith("reflex replay: ")
    assert [word for word in words if word not in last] == []


@pytest.mark.parametrize("topic", COMMANDS)
def test_an_arm_behind_the_node_is_not_moved_by_a_recording(
    domain: Domain, tmp_path: Path, topic: str, capsys: Output
) -> None:
    domain.listens("arm_controller", topic)
    done = command(capsys, trace_of(tmp_path / "t.jsonl", 2), "--publish")
    refused(done, f"/arm_controller listens to {topic}, the commands of /reflex", "--with-controller")
    assert not domain.heard.is_set()


def test_a_gripper_behind_the_node_is_not_moved_by_a_recording(
    domain: Domain, tmp_path: Path, capsys: Output
) -> None:
    control_msgs_substitute.use()
    from control_msgs.action import GripperCommand

    client = ActionClient(domain.nodes[0], GripperCommand, "/hand/gripper_cmd")
    server = ActionServer(domain.add("gripper"), GripperCommand, "/hand/gripper_cmd", lambda _: None)
    done = command(capsys, trace_of(tmp_path / "t.jsonl", 2), "--publish")
    refused(done, "/gripper listens to /hand/gripper_cmd, the commands of /reflex", "--with-controller")
    assert not domain.heard.is_set()
    client.destroy()
    server.destroy()


def test_it_plays_to_an_arm_that_may_move_and_to_tools_that_only_look(
    domain: Domain, tmp_path: Path, capsys: Output
) -> None:
    domain.listens("_ros2cli_daemon", "/reflex/joint_trajectory")
    trace = trace_of(tmp_path / "t.jsonl", 2)
    assert command(capsys, trace, "--publish", "--rate", 20).status == 0
    domain.listens("arm_controller", "/reflex/joint_trajectory")
    assert command(capsys, trace, "--publish", "--rate", 20, "--with-controller").status == 0
    assert domain.heard.is_set()


def test_an_arm_that_has_nothing_to_do_with_the_played_topics_does_not_matter(
    domain: Domain, tmp_path: Path, capsys: Output
) -> None:
    domain.add("planner").create_publisher(JointTrajectory, "/other_arm/joint_trajectory", 1)
    domain.add("other_arm").create_subscription(
        JointTrajectory, "/other_arm/joint_trajectory", lambda _: None, 1
    )
    done = command(capsys, trace_of(tmp_path / "t.jsonl", 2), "--publish", "--rate", 20)
    assert done.status == 0, done.err


@pytest.mark.parametrize(
    ("comes", "says"),
    [
        (
            lambda domain: domain.listens("arm_controller", "/reflex/joint_trajectory"),
            "/arm_controller listens to /reflex/joint_trajectory",
        ),
        (
            lambda domain: domain.add("driver").create_publisher(JointState, "/joint_states", SENSOR),
            "/joint_states is published by /driver too",
        ),
    ],
    ids=["a controller", "a live robot"],
)
def test_who_comes_while_it_plays_ends_it(
    domain: Domain, tmp_path: Path, comes: Callable[[Domain], object], says: str, capsys: Output
) -> None:
    domain.joins = lambda: comes(domain)
    done = command(capsys, trace_of(tmp_path / "t.jsonl", 600), "--publish")
    refused(done, says)
    assert "published " in done.out  # how far it came


def test_it_gives_the_others_time_to_be_found() -> None:
    assert player.DISCOVERY_S >= 2.0
