# SPDX-License-Identifier: Apache-2.0
"""What the controllers that take our commands say of themselves: asked as the node is configured, and before it is active."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reflex_core.doctor.finding import FAIL, OK
from reflex_ros.doctor.controllers import Answers, Wanted, ask_all, named_controller, sent_for
from reflex_ros.node import diagnostics
from reflex_ros.outputs.outputs import Outputs

if TYPE_CHECKING:
    from rclpy.node import Node

CONCERN = "controllers"
LEVELS = {OK: diagnostics.OK, FAIL: diagnostics.ERROR}


class ControllerChecks:
    """Asks, logs what is new, and keeps the newest answers for /diagnostics."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._answers = Answers((), {})

    async def ask(self, outputs: Outputs) -> Answers:
        """Ask the controllers of every group, log what does not fit, and tell the outputs how each takes a new trajectory."""
        answers = await ask_all(
            self._node, [self._wanted(outputs, index) for index in range(len(outputs.groups))]
        )
        outputs.found_eras(answers.eras)
        for finding in answers.findings:
            if finding.level != OK and finding not in self._answers.findings:
                log = (
                    self._node.get_logger().error
                    if finding.level == FAIL
                    else self._node.get_logger().warning
                )
                log(f"{finding.name}: {finding.said}; {finding.do}")
        self._answers = answers
        return answers

    def _wanted(self, outputs: Outputs, index: int) -> Wanted:
        group = outputs.groups[index]
        if controller := named_controller(group):
            return Wanted(sent_for(group), (controller,))
        channels = [channel for channel in outputs.channels if channel.group == group.name]
        receivers = tuple(name for channel in channels for name in channel.receivers(self._node))
        return Wanted(sent_for(group), receivers)

    def findings(self) -> list[diagnostics.Finding]:
        """Return the newest answers as a finding; none before the first question."""
        found = self._answers.findings
        if not found:
            return []
        wrong = [f"{one.name}: {one.said}" for one in found if one.level != OK]
        level = max((LEVELS.get(one.level, diagnostics.WARN) for one in found), default=diagnostics.OK)
        message = "; ".join(wrong) or "as far as they answered, they fit what is sent"
        return [diagnostics.Finding(CONCERN, level, message, {one.name: one.said for one in found})]
