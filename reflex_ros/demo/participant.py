# SPDX-License-Identifier: Apache-2.0
"""A third program on the demo's topics: it calls the robot's services and subscribes to robot and policy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_srvs.srv import Trigger

from reflex_ros.demo.processes import DemoError

SPIN_PERIOD_S = 0.05
CALL_TIMEOUT_S = 20.0

Condition = Callable[[], object]


class Participant:
    """A node in a ROS context of its own, spun by the thread that waits on it. `alarm` is called while it waits."""

    def __init__(self, name: str, alarm: Callable[[], None] = lambda: None) -> None:
        self.context = rclpy.Context()
        # Ctrl-C stays with the program: it has processes to stop.
        rclpy.init(args=[], context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(name, context=self.context)
        self._alarm = alarm
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._triggers: dict[str, Any] = {}
        self._parameters: dict[str, Any] = {}  # clients of SetParameters by the node's name

    def __enter__(self) -> Participant:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def spin_for(self, duration_s: float) -> None:
        """Handle messages for `duration_s`."""
        deadline_s = time.monotonic() + duration_s
        while (left_s := deadline_s - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=min(left_s, SPIN_PERIOD_S))
        self._alarm()

    def spin_until(self, condition: Condition, what: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Handle messages until the condition holds. Raises DemoError naming `what` was waited for."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self._alarm()
            if time.monotonic() > deadline_s:
                raise DemoError(f"Waited {timeout_s:.0f} s for {what} in vain.")
            self._executor.spin_once(timeout_sec=SPIN_PERIOD_S)

    def trigger(self, service: str) -> dict[str, Any]:
        """Call a std_srvs/Trigger whose message is JSON. Raises DemoError with its message if it refuses."""
        return dict(json.loads(self.call(service)))

    def call(self, service: str) -> str:
        """Call a std_srvs/Trigger and returns its message. Raises DemoError with it if it refuses."""
        client = self._triggers.get(service)
        if client is None:
            client = self._triggers[service] = self.node.create_client(Trigger, service)
            self.spin_until(client.service_is_ready, f"the service {service}")
        answer = self._result(client.call_async(Trigger.Request()), service)
        if not answer.success:
            raise DemoError(f"{service} refused: {answer.message}")
        return str(answer.message)

    def set_parameters(self, node_name: str, values: Mapping[str, bool | int | float | str]) -> None:
        """Set parameters of another node. Raises DemoError when it refuses one."""
        client = self._parameters.get(node_name)
        if client is None:
            client = self.node.create_client(SetParameters, f"{node_name}/set_parameters")
            self._parameters[node_name] = client
            self.spin_until(client.service_is_ready, f"the parameters of {node_name}")
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParameters.Request(parameters=parameters)
        answer = self._result(client.call_async(request), f"the parameters of {node_name}")
        for name, result in zip(values, answer.results, strict=True):
            if not result.successful:
                raise DemoError(f"{node_name} refused {name}={values[name]!r}: {result.reason}")

    def _result(self, future: Future, what: str) -> Any:
        self.spin_until(future.done, f"an answer of {what}")
        return future.result()
