# SPDX-License-Identifier: Apache-2.0
"""The simulated robot with a hand as its own process: eight joints, two controllers, and its score."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from domains import free_domain
from rcl_interfaces.srv import GetParameters
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from reflex_ros.demo.participant import Participant
from reflex_ros.demo.pick_scene import FINGER_NAME, FINGER_OPEN_M, PICK_JOINT_NAMES, make_pick_scene
from reflex_ros.demo.processes import Child, check_alive, ros_environment, start, stop
from reflex_ros.demo.robot import GRIPPER_TOPIC


@dataclass
class HandWorld:
    """The robot process, its joint states, and a publisher of finger positions."""

    participant: Participant
    child: Child
    states: list[JointState] = field(default_factory=list)

    def __post_init__(self) -> None:
        node = self.participant.node
        node.create_subscription(JointState, "joint_states", self.states.append, QoSProfile(depth=100))
        self.gripper = node.create_publisher(Float64MultiArray, GRIPPER_TOPIC, QoSProfile(depth=1))

    @property
    def finger_m(self) -> float:
        state = self.states[-1]
        return float(state.position[list(state.name).index(FINGER_NAME)])

    def wait_for_finger(self, wanted_m: float) -> None:
        self.participant.spin_until(
            lambda: abs(self.finger_m - wanted_m) < 1e-3, f"the finger at {wanted_m} m"
        )


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HandWorld]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(free_domain()))
        for name, value in ros_environment(os.environ).items():
            patch.setenv(name, value)
        log: Path = tmp_path_factory.mktemp("robot") / "robot.log"
        command = [
            sys.executable,
            "-m",
            "reflex_ros.demo.robot",
            "--task",
            "pick",
            "--ros-args",
            "-p",
            "scene_seed:=3",
        ]
        child = start("robot", command, log, os.environ)
        try:
            with Participant("test_hand", lambda: check_alive([child])) as participant:
                world = HandWorld(participant, child)
                participant.spin_until(lambda: world.states, "joint states", 60.0)
                participant.spin_until(world.gripper.get_subscription_count, "the gripper's controller", 60.0)
                yield world
        finally:
            stop([child])


def test_joint_states_name_the_arm_and_the_finger(hand: HandWorld) -> None:
    state = hand.states[-1]
    assert tuple(state.name) == PICK_JOINT_NAMES
    assert len(state.position) == len(state.velocity) == len(PICK_JOINT_NAMES)


def test_the_finger_follows_its_controller_and_opens_with_a_reset(hand: HandWorld) -> None:
    hand.gripper.publish(Float64MultiArray(data=[0.012]))
    hand.wait_for_finger(0.012)
    scene = hand.participant.trigger("robot/reset")
    assert scene["instruction"] == make_pick_scene(3).instruction
    hand.wait_for_finger(FINGER_OPEN_M)


def test_the_score_names_the_cube_and_how_far_it_is_up(hand: HandWorld) -> None:
    hand.participant.trigger("robot/reset")
    score = hand.participant.trigger("robot/score")
    assert score["target"] == make_pick_scene(3).target_colour
    assert (score["succeeded"], score["wrong_cube"]) == (False, False)
    assert score["measure_m"] == pytest.approx(0.0, abs=2e-3)
    assert score["note"] == f"the {score['target']} cube is 0.00 m up"


def test_the_hand_has_a_controller_of_its_own(hand: HandWorld) -> None:
    client = hand.participant.node.create_client(GetParameters, "gripper_controller/get_parameters")
    hand.participant.spin_until(client.service_is_ready, "the controller's parameters")
    future = client.call_async(GetParameters.Request(names=["joints", "interface_name"]))
    hand.participant.spin_until(future.done, "the parameters")
    joints, interface = future.result().values
    assert list(joints.string_array_value) == [FINGER_NAME]
    assert interface.string_value == "position"
