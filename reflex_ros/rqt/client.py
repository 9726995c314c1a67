# SPDX-License-Identifier: Apache-2.0
"""The panel's own ROS node, in a context and a thread of its own. It knows no Qt: what it receives goes to a board.

rqt's node is shared by all plugins and one of them can starve the others; this one is the panel's alone.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_full_topic_name import validate_full_topic_name
from std_msgs.msg import String
from std_srvs.srv import Trigger

from reflex_ros.graph.qos import LATCHED
from reflex_ros.msg import ActionChunk, EpisodeOutcome, ServeStatus
from reflex_ros.node.compat import PublisherEventCallbacks
from reflex_ros.rqt.board import Board
from reflex_ros.rqt.camera_feed import CameraFeed

POLL_S = 1.0
CAMERAS_S = 0.2  # how soon pictures come once the panel is seen
STOP_RETRY_S = 0.05
ANSWER_WITHIN_S = 5.0
STATUS_TYPE = "reflex_ros/msg/ServeStatus"
# A node answers a request for several parameters with nothing when it lacks one of them.
GROUPS = (("deadline_ms", "slo"), ("policy_b",), ("blend",))


class Client:
    """A client of one policy node: subscriptions and service calls. Every method may be called from any thread."""

    def __init__(self, node_name: str, domain_id: int | None = None) -> None:
        """Create it. node_name: of the policy node, such as /reflex. domain_id: None takes ROS_DOMAIN_ID."""
        self.board = Board(node_name)
        self._target = node_name
        self._context = rclpy.Context()
        options = SignalHandlerOptions.NO
        rclpy.init(args=[], context=self._context, domain_id=domain_id, signal_handler_options=options)
        self._node = rclpy.create_node(f"reflex_panel_{os.getpid()}", context=self._context)
        self._lock = threading.Lock()
        self._waiting: dict[Any, tuple[str, float]] = {}
        self._parameters: dict[str, Any] = {}
        self._stop_until_s = 0.0  # until then a stop that found no service is tried again; 0: there is none
        self._cameras = CameraFeed(self._node, self.board)
        self._instruction: Any = None  # a publisher, once the node's topic is known
        self._open()
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="reflex panel", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        node, board, target = self._node, self.board, self._target
        # rclpy inspects callbacks, so that each is a function of one parameter
        node.create_subscription(
            ServeStatus, f"{target}/status", lambda m: board.status(m, time.monotonic()), LATCHED
        )
        node.create_subscription(
            ActionChunk, f"{target}/action_chunk", lambda m: board.chunk(m, time.monotonic()), 10
        )
        node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: board.diagnostics(m, time.monotonic()), 10
        )
        self._triggers = {
            name: node.create_client(Trigger, f"{target}/{name}")
            for name in ("stop", "resume", "reset_guard", "reset_breaker", "new_episode")
        }
        self._outcome = node.create_publisher(EpisodeOutcome, f"{target}/outcome", 10)
        self._setter = node.create_client(SetParameters, f"{target}/set_parameters")
        self._getter = node.create_client(GetParameters, f"{target}/get_parameters")
        node.create_timer(POLL_S, self._poll)
        node.create_timer(STOP_RETRY_S, self._retry_stop)
        node.create_timer(CAMERAS_S, self._cameras.update)

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def stop(self) -> None:
        """Have the robot hold until `resume`; the call is repeated while the node is still being discovered."""
        with self._lock:
            self._stop_until_s = time.monotonic() + ANSWER_WITHIN_S
        if self._triggers["stop"].service_is_ready():
            self._retry_stop()
        else:
            self.board.notify(f"stop: {self._target} does not answer", ok=False)

    def resume(self) -> None:
        """Undo `stop`."""
        with self._lock:
            self._stop_until_s = 0.0
        self._trigger("resume")

    def reset_guard(self) -> None:
        """Take a tripped guard back into service."""
        self._trigger("reset_guard")

    def reset_breaker(self) -> None:
        """Close the circuit breakers."""
        self._trigger("reset_breaker")

    def instruct(self, text: str) -> None:
        """Publish an instruction on the node's topic. It is not latched: a node that starts later does not follow it."""
        with self._lock:  # it may be replaced just now
            publisher = self._instruction
            sent = publisher is not None and publisher.get_subscription_count() > 0
            if sent:
                publisher.publish(String(data=text))
        if not sent:
            self.board.notify(
                f"instruction: {self._target} does not receive it; it is active once it serves", ok=False
            )
            return
        self.board.notify(f"instruction sent: {text}")

    def begin_episode(self) -> None:
        """Begin a new episode, with an id of the node's own."""
        self._trigger("new_episode")

    def end_episode(self, success: bool) -> None:
        """Report how the running episode ended."""
        what = "success" if success else "failure"
        episode = self.board.view(time.monotonic()).figures.episode
        if not episode or self._outcome.get_subscription_count() == 0:
            why = f"{self._target} does not answer" if episode else "no episode runs"
            self.board.notify(f"{what}: {why}", ok=False)
            return
        self._outcome.publish(EpisodeOutcome(episode_id=episode, success=success, note="reported in rqt"))
        self.board.notify(f"{what} of episode {episode} reported")

    def show_cameras(self, shown: bool) -> None:
        """Receive the cameras' pictures from now on, or none."""
        self._cameras.show(shown)

    def set_split(self, percent: int) -> None:
        """Give slot a `percent` of the new episodes."""
        request = SetParameters.Request(parameters=[Parameter("split", value=percent).to_parameter_msg()])
        self._call(self._setter, request, f"split {percent} %")

    def set_blend(self, percent: int) -> None:
        """Let `percent` of the policy's motion through."""
        request = SetParameters.Request(
            parameters=[Parameter("blend", value=percent / 100).to_parameter_msg()]
        )
        self._call(self._setter, request, f"policy's motion {percent} %")

    def _trigger(self, name: str) -> None:
        self._call(self._triggers[name], Trigger.Request(), name.replace("_", " "))

    def _retry_stop(self) -> None:
        if not self._stop_until_s or not self._triggers["stop"].service_is_ready():
            return
        with self._lock:
            until_s, self._stop_until_s = self._stop_until_s, 0.0
        if time.monotonic() < until_s:
            self._trigger("stop")

    def _call(self, client: Any, request: Any, what: str) -> None:
        if not client.service_is_ready():
            self.board.notify(f"{what}: {self._target} does not answer", ok=False)
            return
        future = client.call_async(request)
        with self._lock:
            self._waiting[future] = (what, time.monotonic())
        future.add_done_callback(self._answered)

    def _answered(self, future: Any) -> None:
        with self._lock:
            what, _ = self._waiting.pop(future, ("", 0.0))
        if not what or future.cancelled():
            return
        answer = future.result()
        # set_parameters answers with a list of results, a Trigger with itself
        result = answer.results[0] if hasattr(answer, "results") else answer
        ok = bool(getattr(result, "success", getattr(result, "successful", False)))
        answer = getattr(result, "message", "") or getattr(result, "reason", "")
        self.board.notify(f"{what}: {answer or ('done' if ok else 'refused')}", ok=ok)
        self._request_parameters()

    def _poll(self) -> None:
        """Read nodes and parameters once a second, and drop calls that were never answered."""
        late_s = time.monotonic() - ANSWER_WITHIN_S
        with self._lock:
            lost = [(future, what) for future, (what, since_s) in self._waiting.items() if since_s < late_s]
            for future, _ in lost:
                del self._waiting[future]
        for _, what in lost:
            self.board.notify(f"{what}: no answer from {self._target} in {ANSWER_WITHIN_S:g} s", ok=False)
        topics = self._node.get_topic_names_and_types()
        found = sorted(topic.removesuffix("/status") for topic, types in topics if STATUS_TYPE in types)
        self.board.nodes(tuple(found))
        self._request_parameters()
        view = self.board.view(time.monotonic())
        self._cameras.follow(view.cameras)
        self._offer_instruction(view.topics.get("instruction", ""))

    def _offer_instruction(self, topic: str) -> None:
        """Make the publisher for the topic that the node subscribes to; keep it while the node is inactive."""
        if not topic or (self._instruction is not None and self._instruction.topic_name == topic):
            return
        try:
            validate_full_topic_name(topic)
        except InvalidTopicNameException:
            return
        # it does not match the node's subscription to latched publishers, which needs no warning: the other one receives it
        silent = PublisherEventCallbacks(use_default_callbacks=False)
        with self._lock:
            if self._instruction is not None:
                self._node.destroy_publisher(self._instruction)
            self._instruction = self._node.create_publisher(String, topic, 10, event_callbacks=silent)

    def _request_parameters(self) -> None:
        if not self._getter.service_is_ready():
            return
        for names in GROUPS:
            future = self._getter.call_async(GetParameters.Request(names=list(names)))
            future.add_done_callback(lambda done, names=names: self._learned(names, done))

    def _learned(self, names: tuple[str, ...], future: Any) -> None:
        if future.cancelled() or future.result() is None:
            return
        values = [parameter_value_to_python(value) for value in future.result().values]
        self._parameters |= dict(zip(names, values, strict=False))
        self.board.parameters(self._parameters)

    def close(self) -> None:
        """End the thread and the node; may be called twice."""
        if not self._context.ok():
            return
        self._cameras.close()
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(2.0)
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)
