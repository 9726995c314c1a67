# SPDX-License-Identifier: Apache-2.0
"""The type of command that a Servo node takes: switched before anything is sent, and again for one that was started anew."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType

from reflex_core.text.rate_limit import RateLimitedLog

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode
    from rclpy.task import Future

JOINT_JOG, TWIST = 0, 1  # of moveit_msgs/srv/ServoCommandType
NAMES = {JOINT_JOG: "joint jog", TWIST: "twist"}
PERIOD_S = 0.5
ANSWER_S = 1.0  # so long nothing is sent where the first answer is awaited
AGAIN_S = 5.0  # so long without an answer, and it is asked for once more

log = logging.getLogger(__name__)


class ServoMode:
    """Ask a Servo node to take our type of command. Where that cannot be asked, commands are sent, and diagnostics say what to do.

    Without the type of the service, or without the service, the launch file has to switch: Servo drops everything before.
    """

    def __init__(self, node: LifecycleNode, service: str, mode: int) -> None:
        """Create the client, where the type of the service can be imported. mode: JOINT_JOG or TWIST."""
        self._node, self._mode, self._service = node, mode, service
        self.slowed = 0  # commands that Servo would have cut, in another direction
        self._enabled = False
        self._requested_s: float | None = None  # monotonic; None: no answer is awaited
        self._late = False  # whether one was awaited for too long
        self._request: Any = None  # the newest: a Future
        self._switched = False
        self._problem = ""
        self._limited_log = RateLimitedLog(log)
        self._type = _service_type()
        self._client: Any = None
        if self._type is None:
            self._problem = (
                f"the ROS package moveit_msgs is not installed, so that {service} cannot be called: have the launch file switch Servo to"
                f" {NAMES[mode]} (command_type: {mode})"
            )
            return
        # in the usual group nothing would be heard of an answer while the node goes through a transition
        heard = ReentrantCallbackGroup()
        self._client = node.create_client(self._type, service, callback_group=heard)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD_S, self._look, callback_group=heard, clock=steady)
        self._timer.cancel()

    def enable(self) -> None:
        """Switch now, and whenever a Servo node comes. On the executor's thread."""
        self._enabled = True
        if self._client is None:
            self._limited_log(logging.WARNING, "switch", "%s", self._problem)
            return
        self._forget_request()
        self._look()
        self._timer.reset()

    def disable(self) -> None:
        """Switch nothing any more."""
        self._enabled = False

    def awaited(self) -> bool:
        """Return whether an answer may still come: what is sent before is dropped by Servo."""
        requested_s = self._requested_s
        return requested_s is not None and not self._late and time.monotonic() - requested_s < ANSWER_S

    def report(self) -> dict[str, object]:
        """Return whether Servo takes our commands."""
        how = "switched" if self._switched else "not switched"
        return {
            "command type": f"{NAMES[self._mode]}, {how}",
            "slowed": self.slowed,
            **({"problem": self._problem} if self._problem else {}),
        }

    def destroy(self) -> None:
        """Destroy client and timer."""
        self._enabled = False
        if self._client is not None:
            self._node.destroy_timer(self._timer)
            self._node.destroy_client(self._client)

    def _look(self) -> None:
        """Ask a Servo node that has not been asked. On the executor's thread."""
        if not self._enabled:
            self._timer.cancel()
            return
        if not self._client.service_is_ready():
            self._forget_request()
            self._warn(
                f"nothing serves {self._service}: start Servo, or have its launch file switch the type of command"
            )
            return
        if self._switched or self.awaited():
            return
        if self._requested_s is not None:
            self._late = True
            self._warn(
                f"{self._service} has not answered within {ANSWER_S:g} s: Servo drops what is sent until it has switched to"
                f" {NAMES[self._mode]}"
            )
            if time.monotonic() - self._requested_s < AGAIN_S:
                return
            self._client.remove_pending_request(self._request)
        self._requested_s = time.monotonic()
        self._request = self._client.call_async(self._type.Request(command_type=self._mode))
        self._request.add_done_callback(self._answered)

    def _forget_request(self) -> None:
        """Await nothing: there is no Servo, or another one."""
        if self._request is not None:
            self._client.remove_pending_request(self._request)
        self._switched, self._late, self._requested_s, self._request = False, False, None, None

    def _answered(self, future: Future) -> None:
        if future is not self._request:
            return
        self._requested_s, self._late = None, False
        answer = future.result()
        self._switched = bool(answer is not None and answer.success)
        if self._switched:
            self._problem = ""
        else:
            self._warn(f"{self._service} did not switch to {NAMES[self._mode]}: Servo drops what is sent")

    def _warn(self, problem: str) -> None:
        self._problem = problem
        self._limited_log(logging.WARNING, "switch", "%s", problem)


def _service_type() -> Any:
    """Return moveit_msgs/srv/ServoCommandType; None where it cannot be imported: no ROS wheel brings it."""
    try:
        from moveit_msgs.srv import ServoCommandType
    except ImportError:
        return None
    return ServoCommandType
