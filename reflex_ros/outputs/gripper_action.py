# SPDX-License-Identifier: Apache-2.0
"""Goals for a gripper's action server: control_msgs/GripperCommand and control_msgs/ParallelGripperCommand."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Float64

from reflex_core.errors import ConfigurationError
from reflex_core.robot.goals_under_way import ANSWER_S, GoalsUnderWay
from reflex_core.robot.gripper_goals import GripperGoals
from reflex_core.robot.groups import POSITION, Group
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.graph.endpoints import STATUS
from reflex_ros.outputs.base import Command, Publish
from reflex_ros.outputs.joint_trajectory import COMMANDS

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode
    from rclpy.task import Future

log = logging.getLogger(__name__)

PERIOD_S = 0.05
AGAIN_S = 1.0  # after a goal that was not accepted
MOVING, REACHED, STALLED, CANCELLED = "moving", "reached", "stalled", "cancelled"
ENDED = {GoalStatus.STATUS_SUCCEEDED: REACHED, GoalStatus.STATUS_CANCELED: CANCELLED}


def gripper_command(node: LifecycleNode, publish: Publish, group: Group) -> GripperActionOutput:
    """Return the output for control_msgs/action/GripperCommand. Raises ConfigurationError without control_msgs."""
    kind = _action_type("gripper_command", "GripperCommand")

    def goal_of(position: float) -> Any:
        goal = kind.Goal()
        goal.command.position = position
        goal.command.max_effort = float(group.options.get("max_effort", 0.0))
        return goal

    return GripperActionOutput(node, publish, group, kind, goal_of)


def parallel_gripper(node: LifecycleNode, publish: Publish, group: Group) -> GripperActionOutput:
    """Return the output for control_msgs/action/ParallelGripperCommand. Raises ConfigurationError without control_msgs.

    Such a server rejects a goal with any other number of positions than one.
    """
    kind = _action_type("parallel_gripper", "ParallelGripperCommand")

    def goal_of(position: float) -> Any:
        goal = kind.Goal()
        goal.command.name, goal.command.position = list(group.names), [position]
        for field, option in (("velocity", "max_velocity"), ("effort", "max_effort")):
            if option in group.options:
                setattr(goal.command, field, [float(group.options[option])])
        return goal

    return GripperActionOutput(node, publish, group, kind, goal_of)


def _action_type(output: str, name: str) -> Any:
    """Return a type of control_msgs, which is imported where a robot needs it: no ROS wheel brings it."""
    try:
        from control_msgs import action
    except ImportError as error:
        raise ConfigurationError(
            f"output {output} needs the ROS package control_msgs, which is not installed and not on PyPI: install it"
            " (apt install ros-$ROS_DISTRO-control-msgs) and source ROS, or command the gripper by gripper_topic",
            "no-control-msgs",
        ) from error
    if not hasattr(action, name):
        raise ConfigurationError(
            f"output {output} needs control_msgs/action/{name}, and the control_msgs that is installed has no such action:"
            " take gripper_command, or ROS 2 Jazzy or later",
            "no-control-msgs",
        )
    return getattr(action, name)


class GripperActionOutput:
    """Send a goal where the wish has changed, and never wait for how it ends.

    A hold sends nothing new and cancels every goal that is still under way, so that the gripper stays where it is. One that has
    ended is left alone: to command a gripper that has closed on an object to where it is measured would let the object go.
    Goals leave from the executor's thread alone: rclpy loses answers to those of other threads (rclpy#1123).
    """

    def __init__(
        self, node: LifecycleNode, publish: Publish, group: Group, kind: Any, goal_of: Callable[[float], Any]
    ) -> None:
        """Create the client. goal_of: makes the goal for a position in rad or m. Raises ConfigurationError."""
        if len(group.columns) != 1 or group.commands != POSITION:
            raise ConfigurationError(
                f"group '{group.name}' of output {group.output} must command the position of one joint, got"
                f" {len(group.columns)} that command {group.commands}",
                "bad-output",
            )
        self._node, self._publish, self._group, self._goal_of = node, publish, group, goal_of
        self._goals = GripperGoals(group.gripper, group.options.get("dead_band"))
        self._changed = threading.Condition()
        self._enabled = self._destroyed = False
        self._under_way: GoalsUnderWay[Any] = GoalsUnderWay()  # with rclpy's handles
        self._limited_log = RateLimitedLog(log)
        self._refused, self._uncancelled = 0, ""  # cancellations
        self._state, self._problem, self._position = "", "", float("nan")
        own = re.sub(r"\W|^(?=\d)", "_", group.name or "gripper", flags=re.ASCII)
        self._action = str(group.options.get("action", f"~/{own}/gripper_cmd"))
        # in the usual group nothing would be heard of a cancellation while the node goes through a transition
        heard = ReentrantCallbackGroup()
        self._client = ActionClient(node, kind, self._action, callback_group=heard)
        self._sent = node.create_lifecycle_publisher(
            Float64, f"~/{own}/goal", COMMANDS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )  # fmt: skip
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD_S, self._tick, callback_group=heard, clock=self._steady)
        self._timer.cancel()

    @property
    def topics(self) -> tuple[str, ...]:
        """No topic: the goals on ~/<group>/goal are for observers and records."""
        return ()

    @property
    def actions(self) -> tuple[str, ...]:
        """The action, after remapping: of its topics, as rclpy remaps no action as a whole."""
        status = str(self._node.resolve_topic_name(self._action + STATUS))
        return (status.removesuffix(STATUS),)

    def report(self) -> dict[str, object]:
        """Return for diagnostics the gripper's goal, and what its server reports of it."""
        unknown = "unknown" if self._under_way.count else "no goal yet"
        values: dict[str, object] = {"goals": self._under_way.count, "gripper": self._state or unknown}
        if self._goals.goal is not None:
            values["goal"] = f"{self._goals.goal:.4g}"
        if self._position == self._position:
            values["position"] = f"{self._position:.4g}"
        if self._refused:
            values["cancellations refused"] = self._refused
        problems = "; ".join(filter(None, (self._uncancelled, self._problem)))
        return values | ({"problem": problems} if problems else {})

    def enable(self) -> None:
        """Let goals out: the node becomes active. The first wish is sent whatever it is."""
        with self._changed:
            self._goals.stop()
            self._goals.forget()
            self._enabled = True
        self._sent.on_activate(None)
        self._timer.reset()

    def disable(self) -> None:
        """Cancel what is under way, then send nothing: the node is not active. What is not cancelled yet is seen to until it is."""
        with self._changed:
            self._goals.stop()
            self._under_way.void()
            self._enabled = False
        self._cancel()
        self._sent.on_deactivate(None)

    def send(self, command: Command) -> None:
        """Wish for what is due of the rows, from the next tick on."""
        now_ns = int(self._node.get_clock().now().nanoseconds)
        with self._changed:
            zero_ns = command.stamp_ns - now_ns + self._now_ns()
            self._goals.follow(command.chunk.actions[:, 0], zero_ns, command.start, command.chunk.dt_s)

    def hold(self, command: Command) -> None:  # noqa: ARG002 - where a hold leads is no goal
        """Wish for nothing, and cancel what is under way."""
        self.halt()

    def halt(self) -> None:
        """Wish for nothing, and cancel what is under way."""
        with self._changed:
            self._goals.stop()
            self._under_way.void()
        if (executor := self._node.executor) is not None:
            executor.create_task(self._tick)

    def flush(self, timeout_s: float) -> None:
        """Wait until the server has every cancellation. Not on the executor's thread, which sends them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unsettled(), timeout_s)

    def _unsettled(self) -> bool:
        """Return whether a goal that is not wanted may still be under way, where there is a server to be asked."""
        return self._under_way.unwanted and not self._under_way.away

    def destroy(self) -> None:
        """Destroy what was created on the node, and log where a goal that was not cancelled may go on."""
        with self._changed:
            self._destroyed = True
            if self._under_way.unwanted:
                log.error(
                    "the gripper may still move: %s had not cancelled every goal when the node gave it up",
                    self.actions[0],
                )
        self._node.destroy_timer(self._timer)
        self._client.destroy()
        self._node.destroy_lifecycle_publisher(self._sent)

    def _now_ns(self) -> int:
        return int(self._steady.now().nanoseconds)

    def _tick(self) -> None:
        """Cancel or send what is due. On the executor's thread."""
        with self._changed:
            if self._destroyed:
                return
            goal = self._goals.next_goal(self._now_ns()) if self._enabled else None
            if not self._enabled and not self._under_way.unwanted:
                self._timer.cancel()
                return
        self._await_server()
        self._cancel()
        self._await_answer()
        if goal is not None:
            self._send_goal(goal)

    def _cancel(self) -> None:
        """Cancel the goals under way that are not wanted any more. On the executor's thread."""
        with self._changed:
            if self._destroyed or self._under_way.away:
                return
            due = self._under_way.cancel(self._now_ns())
            if any(each.number == self._under_way.count for each in due):
                self._goals.forget()
        for each in due:
            if each.unanswered:
                self._not_cancelled(f"{self.actions[0]} has not answered a cancellation for {ANSWER_S:g} s")
            each.handle.cancel_goal_async().add_done_callback(partial(self._cancelled, each.number))

    def _cancelled(self, number: int, future: Future) -> None:
        with self._changed:
            answer = future.result()
            if answer.return_code == CancelGoal.Response.ERROR_UNKNOWN_GOAL_ID:
                self._under_way.end(number)  # this server never had it
            elif answer.return_code == CancelGoal.Response.ERROR_GOAL_TERMINATED:
                self._under_way.settle(number)  # its result says how
            elif answer.return_code != CancelGoal.Response.ERROR_NONE or not answer.goals_canceling:
                if self._under_way.refuse(number, self._now_ns()):
                    self._not_cancelled(
                        f"{self.actions[0]} refused to cancel a goal, and the gripper may still move: expected return code"
                        f" 0 and the goal, got {answer.return_code} and {len(answer.goals_canceling)} goals"
                    )
            elif self._under_way.settle(number) and not self._under_way.wanted:
                self._state = CANCELLED
            self._settled()
        self._cancel()

    def _not_cancelled(self, problem: str) -> None:
        self._refused, self._uncancelled = self._refused + 1, problem
        self._limited_log(logging.ERROR, self.actions[0], "%s; it is asked again", problem)

    def _settled(self) -> None:
        """Tell who waits, and take back that a goal was not cancelled where none is left."""
        if not self._under_way.unwanted:
            self._uncancelled = ""
        self._changed.notify_all()

    def _await_answer(self) -> None:
        """Give a server up that does not answer: the next wish is a new goal."""
        with self._changed:
            late = self._under_way.give_up(self._now_ns())
            if self._under_way.count in late:
                self._not_taken(f"{self.actions[0]} has not answered a goal for {ANSWER_S:g} s")
            elif late:
                self._changed.notify_all()

    def _await_server(self) -> None:
        """Note that a server has gone: one that serves the action next may not know its goals."""
        ready = self._client.server_is_ready()
        with self._changed:
            if ready:
                self._under_way.come_back()
                return
            if self._under_way.away:
                return
            moving = self._under_way.moving
            self._under_way.leave()
            if moving or self._goals.goal is not None:
                self._not_taken(
                    f"the server of {self.actions[0]} has gone{' while the gripper moved' if moving else ''}"
                )

    def _not_taken(self, problem: str) -> None:
        """Report why the newest goal is none, and have the next wish sent. A goal before it may be under way."""
        self._problem, self._state = problem, MOVING if self._under_way.moving else ""
        self._goals.forget(self._now_ns() + int(AGAIN_S * 1e9))
        self._changed.notify_all()

    def _send_goal(self, goal: float) -> None:
        if not self._client.server_is_ready():
            self._problem = f"nothing serves the action {self.actions[0]}: the gripper is not commanded"
            return
        with self._changed:
            now_ns = self._now_ns()
            number = self._under_way.send(now_ns)
            self._goals.sent(goal, now_ns)
            self._state = MOVING
        future = self._client.send_goal_async(self._goal_of(goal), lambda heard: self._heard(number, heard))
        future.add_done_callback(lambda done: self._accepted(number, done))
        self._publish(self._sent, Float64(data=goal))

    def _heard(self, number: int, heard: Any) -> None:
        if number == self._under_way.count:
            self._position = _position(heard.feedback)

    def _accepted(self, number: int, future: Future) -> None:
        with self._changed:
            if self._destroyed:
                return
            handle = future.result()
            if handle is None or not handle.accepted:
                self._under_way.end(number)
                if number == self._under_way.count:
                    self._not_taken(f"{self.actions[0]} rejected a goal: is its controller active?")
                self._changed.notify_all()
                return
            self._under_way.accept(number, handle)
            if number == self._under_way.count:
                self._problem, self._state = "", MOVING
            self._changed.notify_all()
        handle.get_result_async().add_done_callback(lambda done: self._ended(number, done))
        self._cancel()

    def _ended(self, number: int, future: Future) -> None:
        """Note how a goal ended. A grasp is a stall, which most servers call an abort: no error."""
        with self._changed:
            self._under_way.end(number)
            self._settled()
            last = self._under_way.count
            if number < self._under_way.newest or (number != last and self._under_way.moving):
                return  # another goal has replaced it
            if self._state == CANCELLED:
                return
            answer = future.result()
            self._position = _position(answer.result)
            self._state = STALLED if answer.result.stalled else ENDED.get(answer.status, "")
            if number == last and self._state:
                self._problem = ""
            elif number == last:
                self._not_taken(f"{self.actions[0]} aborted a goal that it had not reached")


def _position(message: Any) -> float:
    """Return the position of a feedback or result of either action, rad or m; NaN where it holds none."""
    if not hasattr(message, "state"):
        return float(message.position)
    return float(message.state.position[0]) if message.state.position else float("nan")
