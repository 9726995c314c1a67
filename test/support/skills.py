# SPDX-License-Identifier: Apache-2.0
"""A client of ~/run_policy as a behaviour tree is one: goals are sent on its executor, as rclpy needs it."""

from __future__ import annotations

import time
from typing import Any

from rclpy.action import ActionClient
from reflex_ros.action import RunPolicy
from ros_world import PATIENCE_S, Robot, wait_for

Result = RunPolicy.Result


class Run:
    """One goal that was sent. accepted: False where the node rejected it."""

    def __init__(self, skills: Skills, handle: Any, feedback: list[RunPolicy.Feedback]) -> None:
        self._skills, self.handle, self.feedback = skills, handle, feedback
        self.accepted = bool(handle.accepted)
        self._result = skills.do(self._ask_for_result) if self.accepted else None

    async def _ask_for_result(self) -> Any:
        return self.handle.get_result_async()

    @property
    def done(self) -> bool:
        assert self._result is not None
        return bool(self._result.done())

    def result(self) -> Any:
        """Its status and result, once there is one."""
        assert self._result is not None
        wait_for(self._result.done, f"the goal ends; feedback {self.feedback[-1:]}")
        return self._result.result()

    def ended(self) -> tuple[int, int, str]:
        """Status, termination reason and message, once it has ended."""
        found = self.result()
        return found.status, found.result.termination_reason, found.result.message

    def fed(self, count: int = 1) -> RunPolicy.Feedback:
        """The newest feedback once there are so many."""
        wait_for(lambda: len(self.feedback) >= count, f"{count} feedbacks")
        return self.feedback[-1]

    def cancel(self) -> tuple[bool, float]:
        """Whether a cancel is accepted, and the seconds until the node answered."""

        async def send() -> Any:
            return await self.handle.cancel_goal_async()

        began = time.monotonic()
        answer = self._skills.do(send)
        return bool(answer.goals_canceling), time.monotonic() - began


class Skills:
    """Sends goals from the robot's node."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self._client = ActionClient(robot.node, RunPolicy, "reflex/run_policy")
        assert self._client.wait_for_server(PATIENCE_S)

    def do(self, coroutine: Any) -> Any:
        return self.robot.spinner.do(coroutine)

    def run(self, **goal: Any) -> Run:
        """Send a goal and wait until it is accepted or rejected."""
        feedback: list[RunPolicy.Feedback] = []

        async def send() -> Any:
            request = RunPolicy.Goal(**goal)
            return await self._client.send_goal_async(
                request, lambda message: feedback.append(message.feedback)
            )

        return Run(self, self.do(send), feedback)
