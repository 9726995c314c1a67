# SPDX-License-Identifier: Apache-2.0
"""Simulated controllers that are commanded where an arm's tool goes: MoveIt Servo, and CRISP's and FZI's pose controllers.

True to what was read in their sources (moveit2 jazzy, crisp_controllers of August 2025, FZI cartesian_controllers); what they
have in joints is integrated at the bench's 100 Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rclpy.qos import QoSProfile

from reflex_core.robot.kinematics.tree import Tree
from reflex_core.robot.rotations import (
    axis_angle_of_matrix,
    matrix_of_quaternion,
    quaternion_of_matrix,
    slerp,
)

if TYPE_CHECKING:
    from controller_bench import Bench
    from rclpy.node import Node

Doubles = NDArray[np.float64]

PERIOD_S = 0.01
JOINT_JOG, TWIST = 0, 1
SMOOTHED = 0.5  # of the way to a new velocity in one period, also to a halt


@dataclass(frozen=True)
class ServoOptions:
    """Parameters of moveit_servo, with its defaults."""

    command_in_type: str = "unitless"
    scale_linear: float = 0.4
    scale_rotational: float = 0.8
    scale_joint: float = 0.5
    incoming_command_timeout: float = 0.1
    base_frame: str = "base"


class Arm:
    """Joints of the bench that move a tool."""

    def __init__(self, bench: Bench, tree: Tree, joints: Sequence[str]) -> None:
        self._bench, self._tree, self.joints = bench, tree, tuple(joints)

    def q(self) -> Doubles:
        return np.array([self._bench.joints.get(name, 0.0) for name in self._tree.joints])

    def pose(self) -> tuple[Doubles, Doubles]:
        found = self._tree.poses(self.q()[None])[0, 0]
        return found[:3, 3], found[:3, :3]

    def velocities(self, twist: Doubles) -> Doubles:
        """What of the joints gives a twist, as the pseudo-inverse of the Jacobian has it."""
        columns = [self._tree.joints.index(name) for name in self.joints]
        jacobian = self._tree.jacobians(self.q()[None], self._tree.links[0])[0][:, columns]
        found: Doubles = np.linalg.pinv(jacobian, rcond=1e-3) @ twist
        return found

    def move(self, velocity: Doubles) -> None:
        for name, one in zip(self.joints, velocity.tolist(), strict=True):
            self._bench.joints[name] += one * PERIOD_S


class ServoNode:
    """moveit_servo. received: (seconds since the epoch, message) in order; invalid, ignored, stale, capped: how often each was.

    switchable: moveit_msgs/srv/ServoCommandType; None: it takes what its launch file has chosen.
    """

    def __init__(
        self, bench: Bench, tree: Tree, joints: Sequence[str], options: ServoOptions, *, name: str = "servo_node",
        switchable: Any = None, mode: int | None = None,
    ) -> None:  # fmt: skip
        self._arm, self._options = Arm(bench, tree, joints), options
        self.mode = mode
        self.switches: list[int] = []
        self.received: list[tuple[float, Any]] = []
        self.invalid = self.ignored = self.stale = self.capped = 0
        self.velocity = np.zeros(len(joints))
        self.fastest = 0.0  # m/s of a command, in what Servo takes it for
        self._newest: Any = None
        self.node: Node = bench.make_node(name, {})
        self._now = self.node.get_clock().now
        self.node.create_subscription(TwistStamped, "~/delta_twist_cmds", self._take, QoSProfile(depth=10))
        try:
            from control_msgs.msg import JointJog
        except ImportError:
            pass
        else:
            self.node.create_subscription(JointJog, "~/delta_joint_cmds", self._take, QoSProfile(depth=10))
        if switchable is not None:
            self.node.create_service(switchable, "~/switch_command_type", self._switch)

    def _switch(self, request: Any, response: Any) -> Any:
        self.switches.append(request.command_type)
        self.mode = request.command_type
        response.success = True
        return response

    def _take(self, message: Any) -> None:
        self.received.append((self._now().nanoseconds * 1e-9, message))
        wanted = TWIST if isinstance(message, TwistStamped) else JOINT_JOG
        if self.mode != wanted:
            self.ignored += 1
        elif self._valid(message):
            self._newest = message
        else:
            self.invalid += 1

    def _valid(self, message: Any) -> bool:
        if isinstance(message, TwistStamped):
            return message.header.frame_id == self._options.base_frame and bool(
                np.isfinite(_twist(message)).all()
            )
        known = set(message.joint_names) <= set(self._arm.joints)
        return (
            known
            and len(message.velocities) == len(message.joint_names)
            and bool(np.isfinite(message.velocities).all())
        )

    def update(self, now_ns: int, joints: dict[str, float]) -> None:
        wanted = np.zeros(len(self._arm.joints))
        if self._newest is not None:
            stamp = self._newest.header.stamp
            age_s = (now_ns - stamp.sec * 10**9 - stamp.nanosec) * 1e-9
            if age_s < self._options.incoming_command_timeout:
                wanted = self._wanted(self._newest)
            else:
                self.stale += 1
        self.velocity = self.velocity + SMOOTHED * (wanted - self.velocity)
        self._arm.move(self.velocity)

    def _wanted(self, message: Any) -> Doubles:
        options, unitless = self._options, self._options.command_in_type == "unitless"
        if not isinstance(message, TwistStamped):
            velocities = np.zeros(len(self._arm.joints))
            for name, one in zip(message.joint_names, message.velocities, strict=True):
                velocities[self._arm.joints.index(name)] = one * (options.scale_joint if unitless else 1.0)
            return velocities
        twist = _twist(message)
        for part, most in ((slice(0, 3), options.scale_linear), (slice(3, 6), options.scale_rotational)):
            if unitless:
                twist[part] *= most
            elif (length := float(np.linalg.norm(twist[part]))) > most:
                twist[part] *= most / length
                self.capped += 1
        self.fastest = max(self.fastest, float(np.linalg.norm(twist[:3])))
        return self._arm.velocities(twist)


def _twist(message: TwistStamped) -> Doubles:
    linear, angular = message.twist.linear, message.twist.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


class PoseNode:
    """A controller that brings the tool to the newest pose, and holds the last one for ever. kind: "crisp" or "fzi".

    received: the messages; ignored: how many were, by why.
    """

    GAIN_PER_S = 15.0

    def __init__(
        self, bench: Bench, tree: Tree, joints: Sequence[str], kind: str, *, topic: str, base_frame: str = "base",
        name: str = "pose_controller",
    ) -> None:  # fmt: skip
        self._arm, self._kind, self._base = Arm(bench, tree, joints), kind, base_frame
        self.received: list[PoseStamped] = []
        self.ignored: list[str] = []
        self._target: tuple[Doubles, Doubles] | None = None
        self._followed: tuple[Doubles, Doubles] | None = None
        self.node: Node = bench.make_node(name, {})
        self._topic = topic
        self.node.create_subscription(PoseStamped, topic, self._take, QoSProfile(depth=1))

    def _take(self, message: PoseStamped) -> None:
        self.received.append(message)
        at, about = message.pose.position, message.pose.orientation
        numbers = np.array([at.x, at.y, at.z, about.x, about.y, about.z, about.w])
        if self._kind == "crisp" and self.node.count_publishers(self._topic) > 1:
            self.ignored.append("several publishers")
        elif self._kind == "fzi" and message.header.frame_id != self._base:
            self.ignored.append("frame")
        elif self._kind == "fzi" and not np.isfinite(numbers).all():
            self.ignored.append("not finite")
        else:
            assert abs(np.linalg.norm(numbers[3:]) - 1.0) < 1e-6  # CRISP takes any
            self._target = (numbers[:3], matrix_of_quaternion(numbers[3:]))

    def _filtered(self) -> tuple[Doubles, Doubles]:
        """The target; CRISP's goes there by a tenth of the way in each of its ten cycles of this period."""
        assert self._target is not None
        if self._kind == "fzi":
            return self._target
        place, turn = self._followed or self._arm.pose()
        share = 1.0 - 0.9**10
        ends = (quaternion_of_matrix(turn), quaternion_of_matrix(self._target[1]))
        turned = matrix_of_quaternion(slerp(*ends, share))
        self._followed = (place + share * (self._target[0] - place), turned)
        return self._followed

    def update(self, now_ns: int, joints: dict[str, float]) -> None:
        if self._target is None:
            return
        place, turn = self._arm.pose()
        wanted, about = self._filtered()
        gap = np.concatenate((wanted - place, axis_angle_of_matrix(about @ turn.T)))
        most = (0.1, 0.5) if self._kind == "crisp" else (1.0, 1.0)  # limit_error; of one cycle
        clipped = np.clip(gap, np.repeat([-most[0], -most[1]], 3), np.repeat(most, 3))
        self._arm.move(self._arm.velocities(self.GAIN_PER_S * clipped))
