# SPDX-License-Identifier: Apache-2.0
"""A small ROS world for node tests: the real node, a robot that can misbehave, and an outsider that listens.

Node and robot have contexts and executors of their own and talk over DDS on loopback.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from domains import free_domain
from exports import PANDA_MEAN
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from reflex_ros.msg import ActionChunk, ServeStatus
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from reflex_ros.graph.qos import LATCHED, SENSOR
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.node import ReflexNode
from reflex_ros.node.observation_buffer import ObservationBuffer

AGAIN_S = 5.0
PATIENCE_S = 60.0  # a bound for machines under load, never a measure
JOINTS = [f"panda_joint{number}" for number in range(1, 8)]
REACH_HOME = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]  # where the embedded policy's arm begins
HOME = list(PANDA_MEAN)  # where the calm exports stay
BEYOND = [0.02, *HOME[1:]]  # where they raise, burn or give NaN: as near as a robot trails behind its command


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of a condition; fails with `what` when it never comes."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        threading.Event().wait(0.005)
    # an executor that waits or has ended is seen in it
    faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
    raise AssertionError(f"never happened: {what}")


def rows(chunk: ActionChunk) -> Any:
    """(horizon, action_dim) float32."""
    return np.array(chunk.data, np.float32).reshape(chunk.horizon, chunk.action_dim)


class Spinner:
    """A context and an executor in a thread."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.executor = SingleThreadedExecutor(context=self.context)
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def start(self, node: Node) -> None:
        self.executor.add_node(node)
        self._thread.start()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self.executor.spin()

    def do(self, coroutine: Callable[..., Any], *arguments: Any) -> Any:
        """Run a coroutine on the executor and wait for its result."""
        task = self.executor.create_task(coroutine, *arguments)
        wait_for(task.done, f"{coroutine} ends")
        return task.result()

    def close(self) -> None:
        self.executor.shutdown(timeout_sec=5)
        self._thread.join(5)
        rclpy.try_shutdown(context=self.context)


class Robot:
    """Publishes a camera and joints at 50 Hz; every attribute may be changed while it runs."""

    def __init__(self, domain: int) -> None:
        self.spinner = Spinner(domain)
        self.node = Node("robot", context=self.spinner.context)
        self.camera_on = self.joints_on = True
        self.frozen_stamp: Any = None
        self.camera_shift_ns = 0
        self.encoding = "rgb8"
        self.padding = 0
        self.rgb = (200, 30, 30)
        self.file: tuple[str, bytes] | None = (
            None  # format and data of the compressed image in place of its own
        )
        self.names, self.positions = list(JOINTS), list(HOME)
        self.clock_ns: int | None = None
        self.chunks: list[ActionChunk] = []
        self.trajectories: list[JointTrajectory] = []
        self.statuses: list[ServeStatus] = []
        self.diagnostics: dict[str, DiagnosticStatus] = {}
        node = self.node
        self._image = node.create_publisher(Image, "camera/image_raw", SENSOR)
        self._compressed = node.create_publisher(CompressedImage, "camera/image_raw/compressed", SENSOR)
        self._joints = node.create_publisher(JointState, "joint_states", SENSOR)
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._instruction = node.create_publisher(String, "instruction", LATCHED)
        self._episode = node.create_publisher(String, "episode", LATCHED)
        node.create_subscription(ActionChunk, "reflex/action_chunk", lambda m: self.chunks.append(m), 10)
        node.create_subscription(
            JointTrajectory, "reflex/joint_trajectory", lambda m: self.trajectories.append(m), 10
        )
        node.create_subscription(ServeStatus, "reflex/status", lambda m: self.statuses.append(m), LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 10)
        node.create_timer(0.02, self._tick)
        self.spinner.start(node)

    @property
    def status(self) -> ServeStatus:
        """The newest status; an empty one before the first."""
        return self.statuses[-1] if self.statuses else ServeStatus()

    def _diagnosed(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name.split(": ", 1)[1]] = status

    def stamp(self, shift_ns: int = 0) -> Any:
        now_ns = self.node.get_clock().now().nanoseconds if self.clock_ns is None else self.clock_ns
        return rclpy.time.Time(nanoseconds=now_ns + shift_ns).to_msg()

    def _tick(self) -> None:
        if self.clock_ns is not None:
            self.clock_ns += 20_000_000
            self._clock.publish(Clock(clock=self.stamp()))
        if self.camera_on:
            self._image.publish(self.image())
            if self._compressed.get_subscription_count():
                self._compressed.publish(self.compressed())
        if self.joints_on:
            message = JointState(name=self.names, position=self.positions)
            message.header.stamp = self.stamp()
            self._joints.publish(message)

    def image(self) -> Image:
        """A 64x48 picture of one colour in the present encoding, with `padding` bytes after each row."""
        colour = {
            "rgb8": self.rgb,
            "bgr8": self.rgb[::-1],
            "rgba8": (*self.rgb, 255),
            "mono8": (sum(self.rgb) // 3,),
        }
        pixels = np.empty((48, 64, len(colour[self.encoding])), np.uint8)
        pixels[:] = colour[self.encoding]
        rows = np.pad(pixels.reshape(48, -1), ((0, 0), (0, self.padding)), constant_values=77)
        message = Image(height=48, width=64, encoding=self.encoding, step=rows.shape[1])
        message.header.stamp = self.frozen_stamp or self.stamp(self.camera_shift_ns)
        message.data.frombytes(memoryview(np.ascontiguousarray(rows)).cast("B"))
        return message

    def compressed(self) -> CompressedImage:
        picture = np.full((48, 64, 3), self.rgb[::-1], np.uint8)
        format_, data = self.file or ("jpeg", cv2.imencode(".jpg", picture)[1].tobytes())
        message = CompressedImage(format=format_, data=array("B", data))
        message.header.stamp = self.frozen_stamp or self.stamp(self.camera_shift_ns)
        return message

    def say(self, text: str) -> None:
        self._instruction.publish(String(data=text))

    def begin(self, episode: str) -> None:
        self._episode.publish(String(data=episode))

    def next_chunk(self, source: int = ActionChunk.SOURCE_POLICY, seen: int | None = None) -> ActionChunk:
        """The first chunk of a source that is published from now on, or after the first `seen` chunks."""
        seen = len(self.chunks) if seen is None else seen
        return wait_for(
            lambda: next((chunk for chunk in self.chunks[seen:] if chunk.source == source), None),
            f"a chunk of source {source}; diagnostics {[(k, v.message) for k, v in self.diagnostics.items()]}",
        )

    def diagnosed(self, concern: str, level: bytes) -> DiagnosticStatus:
        """The newest diagnostic of a concern once it is of that level."""
        return wait_for(
            lambda: next(
                (found for found in [self.diagnostics.get(concern)] if found and found.level == level), None
            ),
            f"{concern} is diagnosed as {level!r}; now {self.diagnostics.get(concern)}",
        )

    def set(self, name: str, value: Any) -> Any:
        """What `ros2 param set /reflex name value` does; the answer says whether it was taken, and why not."""
        client = self.node.create_client(SetParameters, "reflex/set_parameters")
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self._request(client, request).results[0]

    def call(self, name: str) -> Trigger.Response:
        return self._request(self.node.create_client(Trigger, f"reflex/{name}"), Trigger.Request())

    def begin_transition(self, number: int) -> None:
        """Request a transition and do not wait: an answer that comes at once may find no reader yet."""
        client = self.node.create_client(ChangeState, "reflex/change_state")
        assert client.wait_for_service(PATIENCE_S)
        request = ChangeState.Request()
        request.transition.id = number
        client.call_async(request)

    def transition(self, number: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = number
        return bool(
            self._request(self.node.create_client(ChangeState, "reflex/change_state"), request).success
        )

    def _request(self, client: Any, request: Any) -> Any:
        assert client.wait_for_service(PATIENCE_S)
        future = client.call_async(request)
        wait_for(future.done, f"{client.srv_name} answers")
        return future.result()

    def read(self, client: Any, request: Any) -> Any:
        """The answer to a request that changes nothing, sent again every few seconds until there is one.

        A server that has not found the client's reader yet answers into the void: rarely, on a busy machine.
        """
        assert client.wait_for_service(PATIENCE_S)
        futures: list[Any] = []
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            futures.append(client.call_async(request))
            again_s = time.monotonic() + AGAIN_S
            while time.monotonic() < again_s:
                if done := [future for future in futures if future.done()]:
                    return done[0].result()
                threading.Event().wait(0.005)
        raise AssertionError(f"never happened: {client.srv_name} answers")


class World:
    """The node under test and its robot."""

    def __init__(
        self, settings: dict[str, Any], parameters: list[rclpy.Parameter], cli_args: list[str] | None = None
    ) -> None:
        self.domain = domain = free_domain()
        self.robot = Robot(domain)
        self.spinner = Spinner(domain)
        self.server = ReflexNode(
            settings, context=self.spinner.context, parameter_overrides=parameters, cli_args=cli_args
        )
        self.spinner.start(self.server.node)

    @property
    def state(self) -> str:
        return self.server.node.state

    @property
    def buffer(self) -> ObservationBuffer:
        """What the node has heard of the robot, once it is configured."""
        assert self.server._buffer is not None
        return self.server._buffer

    @property
    def loop(self) -> ChunkLoop:
        """What infers and publishes, while the node is active."""
        assert self.server._loop is not None
        return self.server._loop

    def activate(self, instruction: str = "reach the red cube") -> None:
        if instruction:
            self.robot.say(instruction)
        assert self.spinner.do(self.server.start), self.server.node.refusal

    def close(self) -> None:
        self.spinner.do(self.server.finish)
        self.spinner.close()
        self.server.destroy()
        self.robot.spinner.close()
        self.robot.node.destroy_node()


@contextmanager
def world(
    parameters: list[rclpy.Parameter] | None = None, cli_args: list[str] | None = None, **settings: Any
) -> Iterator[World]:
    """A world that is taken down again; without HTTP unless asked, with the embedded policy where no export is named."""
    named = {} if "policy_a" in settings else {"export_dir": "demo"}
    values = {"http": False, "device": "cpu", "intra_op_threads": 1} | named | settings
    found = World(values, parameters or [], cli_args)
    try:
        yield found
    finally:
        found.close()
