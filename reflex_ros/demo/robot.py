# SPDX-License-Identifier: Apache-2.0
"""The simulated robot as a ROS node: camera, joint states and joint trajectory controller, as a real arm.

    python -m reflex_ros.demo.robot --task pick --ros-args -p scene_seed:=7

It knows nothing of policies: it publishes no instruction and scores an episode only on request.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from reflex_ros.console.stop_signals import StopRequest, request_on_signals
from reflex_ros.demo.controllers.from_message import trajectory_of
from reflex_ros.demo.controllers.options import BLEND, LEGACY, ControllerOptions
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.demo.controllers.validate import TrajectoryNotFinite, TrajectoryRefused
from reflex_ros.demo.goals import PICK_UP, REACH
from reflex_ros.demo.opengl import RenderingUnavailable
from reflex_ros.demo.pick_task import PickTask
from reflex_ros.demo.reach_task import ReachTask
from reflex_ros.demo.robot_messages import (
    CHANNELS,
    SENSOR_QOS,
    Frame,
    compressed_message,
    image_message,
    joint_state_message,
)
from reflex_ros.demo.scene import JOINT_NAMES
from reflex_ros.demo.task import Task
from reflex_ros.graph.dds_profile import take_profile

CAMERA_RATE_HZ = 30.0
JOINT_RATE_HZ = 100.0
CONTROL_PERIOD_NS = 10_000_000
MAX_CATCH_UP_NS = 500_000_000
STOP_CHECK_PERIOD_S = 0.2
PICTURE_SIZE = (640, 480)
JOINT_STATE_QOS = QoSProfile(depth=10)
TRAJECTORY_QOS = QoSProfile(depth=1)
GRIPPER_TOPIC = "gripper_controller/commands"
TASKS: dict[str, Callable[[], ReachTask | PickTask]] = {PICK_UP.name: PickTask, REACH.name: ReachTask}

# name, default, description, largest value of an integer
PARAMETERS: tuple[tuple[str, bool | int | str, str, int], ...] = (
    ("scene_seed", 0, "The scene that ~/reset sets up.", 2**62),
    ("pictures_dir", "", "~/save_picture writes inside this directory only. Empty: it refuses.", 0),
    ("picture_path", "view.png", "Where ~/save_picture writes, below pictures_dir; a PNG.", 0),
    ("camera_enabled", True, "Fault for tests: false stops the camera.", 0),
    ("freeze_camera_stamps", False, "Fault for tests: the camera repeats its last frame, stamp included.", 0),
    ("camera_encoding", "rgb8", f"Encoding of the raw image: {', '.join(CHANNELS)}.", 0),
    ("camera_row_padding", 0, "Bytes after each image row, as some drivers have them.", 4096),
    ("joint_order_reversed", False, "Joint states name the last joint first.", 0),
    ("joint_names_wrong", False, "Fault for tests: joint states name joints that the arm does not have.", 0),
    # of the controller, by the real one's names; read when the robot starts
    (
        "allow_trajectory_replacement",
        False,
        "A new trajectory is joined to the running one instead of replacing it.",
        0,
    ),
    (
        "interpolate_from_desired_state",
        False,
        "A trajectory begins at the last command instead of where the arm is.",
        0,
    ),
)


class PictureError(ValueError):
    """The image cannot be written to the requested path."""


def picture_path(pictures_dir: str, path: str) -> Path:
    """Return the absolute path of an image. Raises PictureError when it is no PNG inside `pictures_dir`."""
    if not pictures_dir:
        raise PictureError("No picture saved: the parameter pictures_dir is empty.")
    directory = Path(pictures_dir).resolve()
    wanted = (directory / path).resolve()
    if not wanted.is_relative_to(directory) or wanted.suffix != ".png":
        raise PictureError(f"No picture saved: expected a .png file inside {directory}, got '{path}'.")
    return wanted


class Robot(Node):
    """The arm on its topics. Physics runs when a timer fires, up to the time on the node's clock."""

    def __init__(self, task: Task, **options: Any) -> None:
        super().__init__("robot", **options)
        for name, default, description, maximum in PARAMETERS:
            self.declare_parameter(name, default, _descriptor(default, description, maximum))
        self.add_on_set_parameters_callback(_check_parameters)
        self._options = self._controller_options()
        self._task = task
        self._resets = 0
        self._reset_stamp_ns = self._physics_time_ns = 0
        self._trajectories_followed = self._trajectories_refused = self._trajectories_not_finite = 0
        self._command_rad = task.arm.joint_positions_rad
        self._frame: Frame | None = None
        self._reset_scene()

        self._image_publisher = self.create_publisher(Image, "camera/image_raw", SENSOR_QOS)
        self._jpeg_publisher = self.create_publisher(
            CompressedImage, "camera/image_raw/compressed", SENSOR_QOS
        )
        self._joint_publisher = self.create_publisher(JointState, "joint_states", JOINT_STATE_QOS)
        self.create_subscription(JointTrajectory, "joint_trajectory", self._on_trajectory, TRAJECTORY_QOS)
        self.create_service(Trigger, "~/reset", self._answering(self._reset))
        self.create_service(Trigger, "~/score", self._answering(self._score))
        self.create_service(Trigger, "~/save_picture", self._answering(self._save_picture))
        self.create_timer(1.0 / JOINT_RATE_HZ, self._publish_joint_states)
        self.create_timer(1.0 / CAMERA_RATE_HZ, self._publish_camera)

    def _controller_options(self) -> ControllerOptions:
        """Return what the parameters say of the controller, and declare its other parameters, which can only be read."""
        options = ControllerOptions(
            era=BLEND if self._value("allow_trajectory_replacement") else LEGACY,
            interpolate_from_desired_state=self._value("interpolate_from_desired_state"),
        )
        for name, value in options.parameters(JOINT_NAMES).items():
            if not self.has_parameter(name):
                self.declare_parameter(name, value, ParameterDescriptor(read_only=True))
        return options

    def _controller_at_rest(self) -> JointTrajectoryController:
        return JointTrajectoryController(JOINT_NAMES, self._command_rad, CONTROL_PERIOD_NS, self._options)

    def _advance(self) -> Time:
        """Advance the physics to the node's clock and return that time."""
        now = self.get_clock().now()
        now_ns = now.nanoseconds
        behind_ns = now_ns - self._physics_time_ns
        if behind_ns < 0:
            self.get_logger().warning(f"The clock jumped back by {-behind_ns * 1e-9:.3f} s; the arm holds.")
            self._controller = self._controller_at_rest()
            self._reset_stamp_ns = min(self._reset_stamp_ns, now_ns)
            self._physics_time_ns = now_ns
            return now
        if behind_ns > MAX_CATCH_UP_NS:
            self.get_logger().warning(
                f"The simulation stalled for {behind_ns * 1e-9:.1f} s and skips some of it."
            )
            self._physics_time_ns = now_ns - MAX_CATCH_UP_NS
        while self._physics_time_ns < now_ns:
            self._update(min(CONTROL_PERIOD_NS, now_ns - self._physics_time_ns))
        return now

    def _update(self, period_ns: int) -> None:
        """Do one update of the controller and move the arm to what it commands, `period_ns` later."""
        task = self._task
        self._command_rad, _ = self._controller.sample(
            self._physics_time_ns, task.arm.joint_positions_rad, task.arm.joint_velocities_rad_s, period_ns
        )
        task.step(self._command_rad, period_ns * 1e-9)
        self._physics_time_ns += period_ns

    def _publish_joint_states(self) -> None:
        stamp = self._advance().to_msg()
        positions, velocities = self._task.state
        self._joint_publisher.publish(
            joint_state_message(
                stamp,
                self._task.state_names,
                positions,
                velocities,
                order_reversed=self._value("joint_order_reversed"),
                names_wrong=self._value("joint_names_wrong"),
            )
        )

    def _publish_camera(self) -> None:
        if not self._value("camera_enabled"):
            return
        if self._frame is None or not self._value("freeze_camera_stamps"):
            stamp = self._advance().to_msg()
            self._frame = Frame(self._task.arm.image(), stamp)
        encoding, padding = self._value("camera_encoding"), self._value("camera_row_padding")
        self._image_publisher.publish(image_message(self._frame, encoding, padding))
        if self._jpeg_publisher.get_subscription_count() > 0:
            self._jpeg_publisher.publish(compressed_message(self._frame))

    def _on_trajectory(self, message: JointTrajectory) -> None:
        now_ns = self._advance().nanoseconds
        trajectory = trajectory_of(message)
        if 0 < trajectory.stamp_ns < self._reset_stamp_ns:
            self.get_logger().info("Ignored a trajectory made for the scene before the reset.")
            return
        try:
            self._controller.set(now_ns, trajectory)
            self._trajectories_followed += 1
        except TrajectoryRefused as error:
            self._trajectories_refused += 1
            self._trajectories_not_finite += isinstance(error, TrajectoryNotFinite)
            self.get_logger().error(f"Trajectory refused, the arm follows the previous one: {error}")

    def _reset(self) -> dict[str, object]:
        self._reset_scene()
        self._resets += 1
        # The caller of the service finds sensor data of the new scene.
        self._publish_joint_states()
        self._publish_camera()
        episode = f"scene-{self._seed}-{self._resets}"
        return {"seed": self._seed, "instruction": self._instruction, "episode": episode}

    def _reset_scene(self) -> None:
        self._seed: int = self._value("scene_seed")
        self._instruction = self._task.reset(self._seed)
        self._command_rad = self._task.arm.joint_positions_rad
        self._controller = self._controller_at_rest()
        self._reset_stamp_ns = self._physics_time_ns = self.get_clock().now().nanoseconds

    def _score(self) -> dict[str, object]:
        self._advance()
        return {
            "seed": self._seed,
            **self._task.score(),
            "speed_rad_s": float(np.abs(self._task.arm.joint_velocities_rad_s).max()),
            "trajectories_followed": self._trajectories_followed,
            "trajectories_refused": self._trajectories_refused,
            "trajectories_not_finite": self._trajectories_not_finite,
        }

    def _save_picture(self) -> dict[str, object]:
        path = picture_path(self._value("pictures_dir"), self._value("picture_path"))
        self._advance()
        pixels = self._task.arm.image("view", *PICTURE_SIZE)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)):
            raise PictureError(f"No picture saved: {path} cannot be written.")
        return {"path": str(path)}

    def _answering(self, work: Callable[[], dict[str, object]]) -> Callable[..., Trigger.Response]:
        """Return a service callback that answers with the work's result as JSON, or with why there is none."""

        def answer(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                response.message = json.dumps(work())
                response.success = True
            except (PictureError, OSError) as error:
                self.get_logger().error(str(error))
                response.message = str(error)
            return response

        return answer

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


def _descriptor(default: bool | int | str, description: str, maximum: int) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=description)
    if isinstance(default, int) and not isinstance(default, bool):
        descriptor.integer_range = [IntegerRange(from_value=0, to_value=maximum, step=1)]
    return descriptor


def _check_parameters(parameters: Sequence[Parameter]) -> SetParametersResult:
    for parameter in parameters:
        if parameter.name == "camera_encoding" and parameter.value not in CHANNELS:
            reason = f"camera_encoding takes one of {', '.join(CHANNELS)}, got '{parameter.value}'"
            return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def gripper_node(task: PickTask) -> Node:
    """Return the controller of the hand, a node of its own; GRIPPER_TOPIC takes one finger position in m."""
    node = rclpy.create_node("gripper_controller")
    for name, value in task.gripper.parameters().items():
        node.declare_parameter(name, value, ParameterDescriptor(read_only=True))
    node.create_subscription(
        Float64MultiArray, GRIPPER_TOPIC, lambda message: task.gripper.set(message.data), TRAJECTORY_QOS
    )
    return node


def _serve(task: ReachTask | PickTask, arguments: Sequence[str], stopping: StopRequest) -> None:
    take_profile()
    # rclpy's own handlers take the context away in the middle of a callback, whose publisher then raises.
    rclpy.init(args=list(arguments), signal_handler_options=SignalHandlerOptions.NO)
    robot = Robot(task)
    nodes = [robot, *([gripper_node(task)] if isinstance(task, PickTask) else [])]
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    robot.get_logger().info("The simulated robot is ready.")
    while not stopping.requested:
        executor.spin_once(timeout_sec=STOP_CHECK_PERIOD_S)
    executor.shutdown()
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the robot until SIGINT or SIGTERM. `argv`: --task, and ROS arguments. Return the exit status."""
    stopping = StopRequest()
    request_on_signals(stopping)
    parser = argparse.ArgumentParser(
        prog="demo_robot", description="The simulated arm of the demo.", allow_abbrev=False
    )
    parser.add_argument("--task", choices=TASKS, default=REACH.name, help="what there is to do [reach]")
    options, others = parser.parse_known_args(argv)
    try:
        task = TASKS[options.task]()
        with contextlib.closing(task.arm):
            task.arm.image()  # opens the renderer: seconds that no timer should wait for
            _serve(task, [sys.argv[0], *others], stopping)
    except RenderingUnavailable as error:
        print(f"reflex demo robot: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
