# SPDX-License-Identifier: Apache-2.0
"""While the demo runs: /diagnostics is read, a live parameter is changed and a read-only one refused, and the page shows both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from demos import Demo
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_world import Spinner, wait_for

from benchmarks.chromium import browser


class Visitor:
    """Another participant in the demo's ROS domain."""

    def __init__(self, domain: int) -> None:
        self.spinner = Spinner(domain)
        self.node = Node("visitor", context=self.spinner.context)
        self.findings: dict[str, DiagnosticStatus] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._heard, 10)
        self.parameters = self.node.create_client(SetParameters, "/reflex/set_parameters")
        self.spinner.start(self.node)

    def _heard(self, message: DiagnosticArray) -> None:
        self.findings |= {status.name: status for status in message.status}

    def set(self, name: str, value: Any) -> Any:
        assert self.parameters.wait_for_service(60.0)
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        future = self.parameters.call_async(request)
        wait_for(future.done, f"{name} is answered")
        return future.result().results[0]

    def close(self) -> None:
        self.spinner.close()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.spinner.context)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path / "out", "--episodes", "200", "--port", "0")
    yield running
    running.process.terminate()
    running.end()


def test_what_people_change_while_the_demo_runs_is_seen_everywhere(demo: Demo) -> None:
    demo.wait_for("first chunk followed")
    found = re.search(r"ROS_DOMAIN_ID=(\d+)", demo.printed)
    assert found
    visitor = Visitor(int(found[1]))
    try:
        wait_for(lambda: "reflex: policy" in visitor.findings, "/diagnostics")
        assert visitor.findings["reflex: policy"].hardware_id == "demo"
        assert {"reflex: guard", "reflex: timing", "reflex: observations"} <= set(visitor.findings)
        with browser() as chromium:
            page = chromium.open(f"http://127.0.0.1:{demo.port}/")
            page.wait_text("tr[data-name=deadline_ms]", "live")
            assert visitor.set("deadline_ms", 4567.0).successful
            page.wait_text("tr[data-name=deadline_ms]", "4567")
            refused = visitor.set("robot_id", "somebody-else")
            assert not refused.successful
            assert "takes effect at configure" in refused.reason
            assert "fixed" in page.wait_text("tr[data-name=robot_id]", "demo")
            timing = "reflex: timing"
            wait_for(
                lambda: "4567.0" in [value.value for value in visitor.findings[timing].values],
                "/diagnostics says the deadline",
            )
    finally:
        visitor.close()
