# SPDX-License-Identifier: Apache-2.0
"""The substitutes for control_msgs and moveit_msgs: built once, found by tests alone, and a real package wins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import control_msgs_substitute as substitute
import pytest
from rclpy.serialization import deserialize_message, serialize_message


def test_its_messages_go_through_the_middleware_and_it_is_built_once() -> None:
    substitute.use()
    from control_msgs.action import GripperCommand, ParallelGripperCommand

    goal = GripperCommand.Goal()
    goal.command.position, goal.command.max_effort = 0.04, 20.0
    assert deserialize_message(serialize_message(goal), GripperCommand.Goal) == goal
    assert (
        ParallelGripperCommand.Goal().command.get_fields_and_field_types()["position"] == "sequence<double>"
    )
    assert not substitute.build()


def test_servos_service_is_one_of_another_package_and_goes_through_the_middleware() -> None:
    substitute.use(substitute.MOVEIT_MSGS)
    from moveit_msgs.srv import ServoCommandType

    request = ServoCommandType.Request(command_type=ServoCommandType.Request.TWIST)
    assert deserialize_message(serialize_message(request), ServoCommandType.Request).command_type == 1
    assert not substitute.build(substitute.MOVEIT_MSGS)


def test_no_other_program_of_the_environment_finds_it() -> None:
    substitute.use()
    look = [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('control_msgs'))"]
    found = subprocess.run(look, capture_output=True, text=True, check=True).stdout
    assert str(substitute.CONTROL_MSGS.prefix) not in found


def test_a_real_package_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "control_msgs"
    real.mkdir()
    (real / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "control_msgs", raising=False)
    before = list(sys.path)
    assert not substitute.build()
    substitute.use.__wrapped__()
    assert sys.path == before
