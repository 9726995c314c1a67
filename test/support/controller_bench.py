# SPDX-License-Identifier: Apache-2.0
"""A robot of simulated controllers over DDS: one node per controller, with its parameters, and the joints they move.

    with Bench(domain, {"a": 0.0, "finger": 0.04}) as bench:
        arm = bench.trajectory_controller("arm_controller", ["a"])     # ~/joint_trajectory
        hand = bench.gripper("hand", "finger", GripperCommand)         # ~/gripper_cmd

Every 10 ms the controllers are updated, the joints follow, and joint_states says where they are. Attributes may be read
from other threads; what changes the bench once it runs goes through `bench.spinner.do`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from geometry_msgs.msg import Twist, TwistStamped
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from ros_world import Spinner
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from tool_controllers import PoseNode, ServoNode, ServoOptions
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from reflex_core.robot.kinematics.tree import Tree
from reflex_ros.demo.controllers.forward_controller import POSITION, ForwardCommandController
from reflex_ros.demo.controllers.from_message import trajectory_of
from reflex_ros.demo.controllers.gripper_controller import (
    CANCELLED,
    Finger,
    GripperController,
    GripperOptions,
    Outcome,
)
from reflex_ros.demo.controllers.options import ControllerOptions
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.demo.controllers.validate import TrajectoryNotFinite, TrajectoryRefused

PERIOD_S = 0.01
PERIOD_NS = 10_000_000
COMMANDS = QoSProfile(depth=10)
BASE_TIMEOUT_S = 0.5  # cmd_vel_timeout of diff_drive_controller


class Controller(Protocol):
    """One node of the bench."""

    node: Node

    def update(self, now_ns: int, joints: dict[str, float]) -> None:
        """Move the joints to where they are one period later."""


class Bench:
    """The joints, and the controllers that move them. lag_s: how far they trail their commands; 0: not at all."""

    def __init__(
        self, domain: int, joints: Mapping[str, float], *, lag_s: float = 0.0, publish_joints: bool = True
    ) -> None:  # fmt: skip
        self.spinner = Spinner(domain)
        self.joints = dict(joints)
        self.lag_s = lag_s
        self.controllers: list[Controller] = []
        self.node = Node("bench", context=self.spinner.context)
        self._states = self.node.create_publisher(JointState, "joint_states", QoSProfile(depth=10))
        self._publishes = publish_joints
        self.node.create_timer(PERIOD_S, self._tick)
        self.spinner.start(self.node)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every node."""
        self.spinner.close()

    def trajectory_controller(
        self, name: str, joints: Sequence[str], options: ControllerOptions | None = None, **how: Any
    ) -> TrajectoryNode:  # fmt: skip
        """Add a joint_trajectory_controller. how: topic, state_type (control_msgs' JointTrajectoryControllerState)."""
        return self._added(TrajectoryNode(self, name, joints, options or ControllerOptions(), **how))

    def forward_controller(
        self, name: str, joints: Sequence[str], interface: str = POSITION, topic: str = "~/commands"
    ) -> ForwardNode:  # fmt: skip
        """Add a forward_command_controller."""
        return self._added(ForwardNode(self, name, joints, interface, topic))

    def gripper(
        self, name: str, joint: str, action_type: Any, options: GripperOptions | None = None, **how: Any
    ) -> GripperNode:  # fmt: skip
        """Add a gripper action server, of GripperCommand or ParallelGripperCommand. how: action, low, high, speed."""
        return self._added(GripperNode(self, name, joint, action_type, options or GripperOptions(), **how))

    def put_between(self, gripper: GripperNode, finger: Finger) -> None:
        """Let an object stop a gripper's finger; on the executor, as an update there would overwrite it."""
        self.spinner.do(setattr, gripper.controller, "finger", finger)

    def base(
        self, topic: str = "/cmd_vel", *, stamped: bool = False, name: str = "base_controller"
    ) -> BaseNode:
        """Add a base that is driven by Twist or TwistStamped, and stands still when that stops."""
        return self._added(BaseNode(self, name, topic, stamped))

    def servo(
        self, tree: Tree, joints: Sequence[str], options: ServoOptions | None = None, **how: Any
    ) -> ServoNode:
        """Add a Servo node. tree: its first link is the tool. how: name, switchable (moveit_msgs' ServoCommandType), mode."""
        return self._added(ServoNode(self, tree, joints, options or ServoOptions(), **how))

    def pose_controller(self, tree: Tree, joints: Sequence[str], kind: str, **how: Any) -> PoseNode:
        """Add a controller of poses, "crisp" or "fzi". how: topic, base_frame, name."""
        return self._added(PoseNode(self, tree, joints, kind, **how))

    def make_node(self, name: str, parameters: Mapping[str, Any]) -> Node:
        """Return a node with these parameters, which its own parameter services answer."""
        node = Node(name, context=self.spinner.context)
        for parameter, value in parameters.items():
            node.declare_parameter(parameter, value)
        return node

    def follow(self, joint: str, command: float) -> None:
        """Move one joint towards its command for one period."""
        share = 1.0 if self.lag_s == 0.0 else min(1.0, PERIOD_S / self.lag_s)
        self.joints[joint] += (command - self.joints[joint]) * share

    def _added(self, controller: Any) -> Any:
        self.controllers.append(controller)
        self.spinner.executor.add_node(controller.node)
        self.spinner.executor.wake()
        return controller

    def _tick(self) -> None:
        now = self.node.get_clock().now()
        for controller in list(self.controllers):
            controller.update(now.nanoseconds, self.joints)
        if self._publishes:
            message = JointState(name=list(self.joints), position=list(self.joints.values()))
            message.header.stamp = now.to_msg()
            self._states.publish(message)


class TrajectoryNode:
    """joint_trajectory_controller. commands: (time_ns, positions, velocities) of every update."""

    def __init__(
        self, bench: Bench, name: str, joints: Sequence[str], options: ControllerOptions,
        topic: str = "~/joint_trajectory", state_type: Any = None,
    ) -> None:  # fmt: skip
        self.joints = tuple(joints)
        self.followed: list[JointTrajectory] = []
        self.refused: list[str] = []
        self.not_finite = 0
        self.commands: list[tuple[int, list[float], list[float]]] = []
        self.state_shift_ns = 0  # of its clock against ours
        self._bench = bench
        self.controller = JointTrajectoryController(
            self.joints, [bench.joints[joint] for joint in self.joints], PERIOD_NS, options
        )
        self.node = bench.make_node(name, options.parameters(self.joints))
        self.node.create_subscription(JointTrajectory, topic, self._take, COMMANDS)
        self._state_type = state_type
        self._state = state_type and self.node.create_publisher(state_type, "~/controller_state", COMMANDS)

    def _take(self, message: JointTrajectory) -> None:
        try:
            self.controller.set(self.node.get_clock().now().nanoseconds, trajectory_of(message))
            self.followed.append(message)
        except TrajectoryRefused as refused:
            self.refused.append(str(refused))
            self.not_finite += isinstance(refused, TrajectoryNotFinite)

    def update(self, now_ns: int, joints: dict[str, float]) -> None:
        measured = [joints[joint] for joint in self.joints]
        positions, velocities = self.controller.sample(now_ns, measured)
        self.commands.append((now_ns, positions.tolist(), velocities.tolist()))
        for joint, position in zip(self.joints, positions.tolist(), strict=True):
            self._bench.follow(joint, position)
        if self._state is not None:
            self._publish_state(now_ns, measured, positions.tolist(), velocities.tolist())

    def _publish_state(
        self, now_ns: int, measured: list[float], positions: list[float], velocities: list[float]
    ) -> None:  # fmt: skip
        message = self._state_type(joint_names=list(self.joints), speed_scaling_factor=1.0)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns + self.state_shift_ns, 10**9)
        message.reference = JointTrajectoryPoint(positions=positions, velocities=velocities)
        message.feedback = JointTrajectoryPoint(positions=measured)
        self._state.publish(message)


class ForwardNode:
    """forward_command_controller. commands: (time_ns, values) of every update while it is active."""

    def __init__(self, bench: Bench, name: str, joints: Sequence[str], interface: str, topic: str) -> None:
        self.controller = ForwardCommandController(joints, interface)
        self.received: list[tuple[float, list[float]]] = []  # seconds of time.monotonic
        self.commands: list[tuple[int, list[float]]] = []
        self._bench = bench
        self.node = bench.make_node(name, self.controller.parameters())
        self.node.create_subscription(Float64MultiArray, topic, self._take, COMMANDS)

    def _take(self, message: Float64MultiArray) -> None:
        self.received.append((time.monotonic(), list(message.data)))
        self.controller.set(message.data)

    def update(self, now_ns: int, joints: dict[str, float]) -> None:
        values = self.controller.sample()
        if values is None:
            return
        self.commands.append((now_ns, values.tolist()))
        for joint, value in zip(self.controller.joints, values.tolist(), strict=True):
            if self.controller.interface == POSITION:
                self._bench.follow(joint, value)
            else:
                joints[joint] += value * PERIOD_S


class GripperNode:
    """A gripper's action server. goals: the positions asked for; outcomes: how goals ended, by the controller's numbers.

    answers_replaced: Whether a replaced goal's result ever arrives; of the real ones that is not certain.
    """

    def __init__(
        self, bench: Bench, name: str, joint: str, action_type: Any, options: GripperOptions, *,
        action: str = "~/gripper_cmd", low: float = 0.0, high: float = 0.04, speed: float = 0.1,
        answers_replaced: bool = True,
    ) -> None:  # fmt: skip
        self.joint = joint
        self.controller = GripperController(Finger(bench.joints[joint], low, high, speed), options)
        self.goals: list[float] = []
        self.efforts: list[float] = []
        self.outcomes: list[Outcome] = []
        self.rejected = 0
        self.answers_replaced = answers_replaced
        self._action_type = action_type
        self._parallel = hasattr(action_type.Goal().command, "name")
        self._waiting: dict[int, Future] = {}
        self.node = bench.make_node(name, options.parameters(joint))
        self._server = ActionServer(
            self.node, action_type, action, self._execute, goal_callback=self._judge,
            cancel_callback=self._cancel,
        )  # fmt: skip

    def _judge(self, goal: Any) -> GoalResponse:
        if self._parallel and len(goal.command.position) != 1:
            self.rejected += 1
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _cancel(self, _handle: Any) -> CancelResponse:
        self.controller.cancel()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> Any:
        command = handle.request.command
        position = float(command.position[0] if self._parallel else command.position)
        effort = [*command.effort, 0.0][0] if self._parallel else command.max_effort
        number = self.controller.goal(self.node.get_clock().now().nanoseconds, position)
        self._waiting[number] = future = Future(executor=self.node.executor)
        self.goals.append(position)
        self.efforts.append(float(effort))
        outcome = await future
        if self.controller.succeeds(outcome):
            handle.succeed()
        elif outcome.how == CANCELLED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return self._result(outcome)

    def _result(self, outcome: Outcome) -> Any:
        result = self._action_type.Result(
            stalled=outcome.how == "stalled", reached_goal=outcome.how == "reached"
        )
        if self._parallel:
            result.state = JointState(name=[self.joint], position=[outcome.position])
        else:
            result.position = outcome.position
        return result

    def update(self, now_ns: int, joints: dict[str, float]) -> None:
        for outcome in self.controller.update(now_ns):
            self.outcomes.append(outcome)
            future = self._waiting.pop(outcome.goal)
            if outcome.how != "replaced" or self.answers_replaced:
                future.set_result(outcome)
        joints[self.joint] = self.controller.finger.position


class BaseNode:
    """A mobile base. received: (seconds of time.monotonic, vx, vy, wz); speed: what it drives now."""

    def __init__(self, bench: Bench, name: str, topic: str, stamped: bool) -> None:
        self.received: list[tuple[float, float, float, float]] = []
        self.frames: list[str] = []
        self.speed = (0.0, 0.0, 0.0)
        self.driven = [0.0, 0.0, 0.0]
        self.node = bench.make_node(name, {"use_stamped_vel": stamped, "cmd_vel_timeout": BASE_TIMEOUT_S})
        take = self._take_stamped if stamped else self._take
        self.node.create_subscription(TwistStamped if stamped else Twist, topic, take, COMMANDS)

    def _take_stamped(self, message: TwistStamped) -> None:
        self.frames.append(message.header.frame_id)
        self._take(message.twist)

    def _take(self, twist: Twist) -> None:
        self.received.append((time.monotonic(), twist.linear.x, twist.linear.y, twist.angular.z))

    def update(self, now_ns: int, joints: dict[str, float]) -> None:
        fresh = self.received and time.monotonic() - self.received[-1][0] <= BASE_TIMEOUT_S
        self.speed = self.received[-1][1:] if fresh else (0.0, 0.0, 0.0)
        self.driven = [way + speed * PERIOD_S for way, speed in zip(self.driven, self.speed, strict=True)]
