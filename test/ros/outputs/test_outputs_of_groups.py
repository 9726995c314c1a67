# SPDX-License-Identifier: Apache-2.0
"""A hold reaches every group in its own way, and only the groups that it is a hold of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reflex_core.chunks.interpolation import Spline
from reflex_core.robot.groups import BASE, VELOCITY, Group
from reflex_core.robot.limits.hold import MEASURED, ZERO, Hold
from reflex_ros.node.driving import end_outputs
from reflex_ros.outputs.base import Command
from reflex_ros.outputs.outputs import Outputs

GROUPS = (Group("arm", (0, 1), ("a", "b")), Group("base", (2,), ("linear.x",), BASE, VELOCITY))
ROWS = np.float32([[1, 2, 0.2], [1, 2, 0.1], [1, 2, 0.0]])


class Heard:
    """An output that notes its holds."""

    topics = ()

    def __init__(self) -> None:
        self.holds: list[Command] = []

    def hold(self, command: Command) -> None:
        self.holds.append(command)


@pytest.fixture
def heard() -> dict[str, Heard]:
    return {group.name: Heard() for group in GROUPS}


def outputs(heard: Mapping[str, Any]) -> tuple[Outputs, list[Any]]:
    sent: list[Any] = []
    publisher = SimpleNamespace(
        publish=sent.append, topic_name="~/action_chunk", on_deactivate=lambda _: None
    )
    node: Any = SimpleNamespace(
        create_lifecycle_publisher=lambda *_, **__: publisher, create_publisher=lambda *_: publisher
    )
    return Outputs(node, "", GROUPS, lambda group: lambda *_: heard[group.name]), sent  # type: ignore[arg-type,return-value]


LIKE: Any = SimpleNamespace(action_names=("a", "b", "linear.x"))


def test_a_velocity_is_braked_from_the_first_row_while_the_arm_needs_time(heard: dict[str, Heard]) -> None:
    out, sent = outputs(heard)
    motion = Spline(np.array([10**18]), ROWS[-1:].astype(np.float64), np.zeros((1, 3)))
    out.hold(
        Hold(ROWS, 0.05, 2, MEASURED, np.float64([0, 0, 0.3])), LIKE, 10**18, "pick", 1, "stopped", motion
    )
    (arm,), (base,) = heard["arm"].holds, heard["base"].holds
    assert (arm.start, base.start) == (2, 0)
    np.testing.assert_array_equal(base.chunk.actions, ROWS[:, 2:])
    np.testing.assert_allclose(base.motion.positions[:, 0], [0.3, 0.2, 0.1, 0.0], atol=1e-6)
    assert base.motion.end_ns == 10**18 + 150_000_000
    assert list(sent[0].names) == ["a", "b", "linear.x"]


def test_what_is_not_held_gets_nothing_and_no_message_holds_it(heard: dict[str, Heard]) -> None:
    out, sent = outputs(heard)
    rows = np.where([False, False, True], ROWS, np.nan).astype(np.float32)
    held = Hold(rows, 0.05, 0, ZERO, np.zeros(3), np.array([False, False, True]))
    out.hold(held, LIKE, 10**18, "pick", 1, "stopped", None)
    assert heard["arm"].holds == []
    assert len(heard["base"].holds) == 1
    assert list(sent[0].names) == ["linear.x"]
    assert np.isfinite(np.array(sent[0].data)).all()


class Ending:
    """An output that notes on which thread it is disabled."""

    topics = ()

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def flush(self, timeout_s: float) -> None:
        """Have nothing to wait for."""

    def disable(self) -> None:
        self.threads.append(threading.current_thread())


class EndingAction(Ending):
    actions = ("/hand/gripper_cmd",)


class OffExecutor:
    """A node whose slow calls run in another thread; the caller's stands for the executor's."""

    async def off_executor(self, call: Any) -> None:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()


def test_what_commands_by_actions_is_disabled_on_the_executors_thread_and_the_rest_before_off_it() -> None:
    ends = {"arm": Ending(), "base": EndingAction()}
    out, _ = outputs(ends)
    node: Any = OffExecutor()
    asyncio.run(end_outputs(node, out))
    executor = threading.current_thread()
    assert [thread is executor for thread in ends["arm"].threads] == [False, True]
    assert ends["base"].threads == [executor]
