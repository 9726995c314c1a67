# SPDX-License-Identifier: Apache-2.0
"""Diagnostics of the robot interfaces: where each group's commands go, who receives them, and what a gripper reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reflex_ros.node.diagnostics import OK, WARN, Finding
from reflex_ros.outputs.channels import absent
from reflex_ros.outputs.outputs import Outputs

if TYPE_CHECKING:
    from rclpy.node import Node


def outputs_finding(node: Node, outputs: Outputs) -> Finding:
    """Report whether every group is commanded."""
    values: dict[str, object] = {}
    problems = absent(node, outputs.channels)
    for channel in outputs.channels:
        receivers = channel.receivers(node)
        values[_called(channel.group, "to")] = f"{channel.name} ({', '.join(receivers) or 'no receiver'})"
    for group, report in outputs.reports().items():
        if problem := report.pop("problem", None):
            problems.append(f"group '{group}': {problem}")
        values |= {_called(group, name): value for name, value in report.items()}
    if problems:
        return Finding("outputs", WARN, "; ".join(problems), values)
    return Finding("outputs", OK, "every group has its controller", values)


def _called(group: str, name: str) -> str:
    return f"{group} {name}" if group else name
