# SPDX-License-Identifier: Apache-2.0
"""What rclpy of Humble lacks is asked for in one place, and the node works without it.

No Humble was at hand: humble_rclpy.txt names what its source has, and what it lacks is taken away from the rclpy here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rclpy.node import Node
from repository import ROOT
from ros_world import wait_for, world

from reflex_ros.node import compat, node

LISTED = Path(__file__).with_name("humble_rclpy.txt").read_text(encoding="utf-8").splitlines()
HUMBLE = {
    module: set(names.split())
    for module, _, names in (line.partition(": ") for line in LISTED if line[0] != "#")
}
COMPILED = {"RCLError", "UnknownROSArgsError"}  # of rclpy._rclpy_pybind11, which is no Python
GUARDED = "reflex_ros/node/compat.py"


def rclpy_imports() -> Iterator[tuple[str, str, str]]:
    """(file, module, name) of what the package takes from rclpy; name is empty for the module itself."""
    for path in sorted((ROOT / "reflex_ros").rglob("*.py")):
        for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(found, ast.ImportFrom) and (found.module or "").split(".")[0] == "rclpy":
                yield from (
                    (str(path.relative_to(ROOT)), str(found.module), alias.name) for alias in found.names
                )
            if isinstance(found, ast.Import):
                names = [alias.name for alias in found.names if alias.name.split(".")[0] == "rclpy"]
                yield from ((str(path.relative_to(ROOT)), name, "") for name in names)


def humble_has(module: str, name: str) -> bool:
    if module == "rclpy._rclpy_pybind11":
        return name in COMPILED
    return module in HUMBLE and (not name or name in HUMBLE[module] or f"{module}.{name}" in HUMBLE)


def test_only_one_file_imports_what_humble_lacks() -> None:
    lacking = {(path, module) for path, module, name in rclpy_imports() if not humble_has(module, name)}
    assert lacking == {(GUARDED, "rclpy.event_handler")}
    assert humble_has("rclpy.qos_event", "SubscriptionEventCallbacks")


def test_events_come_from_where_humble_has_them() -> None:
    code = (
        "import sys, rclpy.node, rclpy.qos_event\n"
        "sys.modules['rclpy.event_handler'] = None\n"
        "from reflex_ros.node.compat import SubscriptionEventCallbacks as found\n"
        "print(found is rclpy.qos_event.SubscriptionEventCallbacks)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_a_node_receives_words_once_and_takes_parameters_where_rclpy_is_that_of_humble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = Node.__init__

    def made(self: Any, name: str, **options: Any) -> None:
        assert "enable_logger_service" not in options
        make(self, name, **options)

    monkeypatch.setattr(Node, "__init__", made)
    monkeypatch.delattr(Node, "add_post_set_parameters_callback")
    monkeypatch.setattr(node, "NODE_OPTIONS", {})
    monkeypatch.setattr(compat, "HAS_INFO", False)
    with world() as scene:
        scene.activate("reach the red cube")
        assert scene.robot.next_chunk().horizon > 0
        scene.robot.say("reach the blue cube")
        wait_for(lambda: scene.buffer.instruction == "reach the blue cube", "the instruction is heard")
        scene.robot.begin("second")
        wait_for(lambda: scene.robot.status.episode_id == "second", "the episode begins")
        assert scene.robot.set("max_age_ms", 400.0).successful
        assert scene.server.settings.max_age_ms == 400.0
