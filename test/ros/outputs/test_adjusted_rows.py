# SPDX-License-Identifier: Apache-2.0
"""Every row per tick of a chunk passes through what adjusts it; a hold does not, and waits for no call."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from output_scene import output_scene, silent
from ros_world import wait_for
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from reflex_core.chunks.interpolation import Doubles
from reflex_core.robot.groups import JOINTS, POSITION, Group

TOPIC = "/forward_position_controller/commands"
ARM = Group("arm", (0, 1), ("j1", "j2"), JOINTS, POSITION, "forward_command", {"topic": TOPIC})


def rows_of(heard: list[tuple[float, Float64MultiArray]]) -> Doubles:
    return np.array([message.data.tolist() for _, message in heard])


def test_rows_are_adjusted_with_their_group_and_the_moment_they_are_due() -> None:
    other = Group(
        "wrist", (2,), ("w",), JOINTS, POSITION, "joint_trajectory", {"topic": "/wrist/joint_trajectory"}
    )
    with output_scene(ARM, other) as scene:
        heard, trajectories = scene.hear(Float64MultiArray, TOPIC), scene.hear(JointTrajectory, "/wrist/joint_trajectory")  # fmt: skip
        scene.measured = {"j1": 0.0, "j2": 0.0, "w": 0.0}
        given, stamps_ns = list[str](), list[int]()

        def adjust(row: Doubles, now_ns: int) -> Doubles:
            stamps_ns.append(now_ns)
            row += [0.1, -0.1]
            return row

        def adjust_of(group: Group) -> object:
            given.append(group.name)
            return adjust

        scene.outputs.adjust(adjust_of)  # type: ignore[arg-type]
        began_ns = scene.node.get_clock().now().nanoseconds
        scene.chunk([[0.0, 0.0, 0.0]] * 6)
        wait_for(lambda: heard and silent(heard), "it has gone there")
        assert given == ["arm"]  # a trajectory has no ticks
        np.testing.assert_allclose(rows_of(heard)[-1], [0.1, -0.1], atol=1e-6)
        assert began_ns <= min(stamps_ns) <= max(stamps_ns) <= scene.node.get_clock().now().nanoseconds
        assert trajectories[-1][1].points[-1].positions[0] == 0.0
        scene.hold([0.0, 0.0, 0.0])
        wait_for(lambda: rows_of(heard)[-1] == pytest.approx([0.0, 0.0], abs=1e-6), "a hold is no chunk")


@pytest.mark.parametrize("wrong", ["raises", "panics", "nan", "width"])
def test_a_row_that_cannot_be_adjusted_is_sent_as_it_was_counted_and_logged(
    wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Panic(BaseException):
        pass

    def adjust(row: Doubles, _: int) -> Doubles:
        row += 1.0  # whatever it has done to it before
        if wrong == "raises":
            raise RuntimeError("no session")
        if wrong == "panics":
            raise Panic
        return np.full(2, np.nan) if wrong == "nan" else row[:1]

    with output_scene(ARM) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.outputs.adjust(lambda _: adjust)
        scene.chunk([[0.1, 0.2]] * 6)
        wait_for(lambda: heard and silent(heard), "it has gone there")
        assert rows_of(heard)[-1] == pytest.approx([0.1, 0.2], abs=1e-6)
        assert rows_of(heard).max() < 0.3
        (report,) = scene.outputs.reports().values()
        assert report["unadjusted rows"] >= len(heard)  # type: ignore[operator]
        assert caplog.text.count("group 'arm': a row could not be adjusted and was sent as it was") == 1


def test_a_hold_comes_while_a_row_is_adjusted_and_that_row_is_not_sent() -> None:
    inside, ends = threading.Event(), threading.Event()

    def adjust(row: Doubles, _: int) -> Doubles:
        if row[0] > 0.02:
            inside.set()
            ends.wait(30)
            row += 1.0
        return row

    with output_scene(ARM) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.outputs.adjust(lambda _: adjust)
        scene.chunk([[0.01 * at, 0.0] for at in range(1, 51)])
        assert inside.wait(30)
        began_s = time.monotonic()
        scene.hold([0.02, 0.0])
        assert time.monotonic() - began_s < 5.0
        ends.set()
        wait_for(lambda: rows_of(heard)[-1] == pytest.approx([0.02, 0.0], abs=1e-6), "the hold comes")
        assert rows_of(heard).max() < 0.1
