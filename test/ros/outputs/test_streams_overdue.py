# SPDX-License-Identifier: Apache-2.0
"""Streams whose thread is late or gone: said from outside, and held by the caller of a hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from output_scene import OutputScene, output_scene, silent
from ros_world import wait_for
from std_msgs.msg import Float64MultiArray

from reflex_core.chunks.interpolation import Doubles
from reflex_core.chunks.setpoints import REPEATS
from reflex_core.robot.groups import JOINTS, POSITION, VELOCITY, Group
from reflex_ros.outputs.base import STREAM_GONE, STREAM_LATE
from reflex_ros.outputs.streaming import StreamOutput

TOPIC = "/forward_position_controller/commands"


def group(commands: str) -> Group:
    options = {"topic": TOPIC, "accept_unattended_velocity": True}
    return Group("arm", (0,), ("j",), JOINTS, commands, "forward_command", options)


def stream_of(scene: OutputScene) -> StreamOutput:
    (part,) = scene.outputs._parts
    assert isinstance(part.output, StreamOutput)
    return part.output


@contextmanager
def moving(commands: str) -> Iterator[tuple[OutputScene, list[tuple[float, Any]]]]:
    """A stream that goes on for a while."""
    with output_scene(group(commands)) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j": 0.0}
        rows = [[0.01 * at if commands == POSITION else 0.3] for at in range(1, 200)]
        scene.chunk(rows)
        wait_for(lambda: len(heard) > 10 and heard[-1][1].data[0] > 0.01, "it moves")
        yield scene, heard


@pytest.mark.parametrize("commands", [POSITION, VELOCITY])
def test_a_stream_whose_tick_does_not_end_is_late_and_held_from_outside(commands: str) -> None:
    inside, ends = threading.Event(), threading.Event()

    def adjust(row: Doubles, _: int) -> Doubles:
        inside.set()
        ends.wait(30)
        return row

    with moving(commands) as (scene, heard):
        assert scene.outputs.overdue() == ""
        scene.outputs.adjust(lambda _: adjust)
        assert inside.wait(30)
        wait_for(lambda: scene.outputs.overdue() == STREAM_LATE, "it is late")
        (report,) = scene.outputs.reports().values()
        assert report["problem"] == "its setpoints are late"
        assert silent(heard)
        last = heard[-1][1].data[0]
        scene.hold([1.0])
        wait_for(lambda: len(heard) > 10 and silent(heard), "it is held")
        held = last if commands == POSITION else 0.0
        np.testing.assert_allclose([message.data[0] for _, message in heard[-1:]], [held], atol=1e-9)
        ends.set()
        wait_for(lambda: scene.outputs.overdue() == "", "it is in time again")
        assert silent(heard)  # what hung is not sent any more
        assert heard[-1][1].data[0] == pytest.approx(held, abs=1e-9)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("commands", [POSITION, VELOCITY])
def test_a_stream_whose_thread_has_ended_is_gone_held_from_outside_and_takes_no_rows(commands: str) -> None:
    def ends() -> bool:
        raise SystemExit

    with moving(commands) as (scene, heard):
        stream_of(scene).ticks._tick = ends
        wait_for(lambda: scene.outputs.overdue() == STREAM_GONE, "it is gone")
        assert silent(heard)
        last = heard[-1][1].data[0]
        scene.hold([1.0])
        wait_for(lambda: silent(heard), "it is held")
        held = last if commands == POSITION else 0.0
        assert heard[-1][1].data[0] == pytest.approx(held, abs=1e-9)
        with pytest.raises(RuntimeError, match="group 'arm': the thread .* has ended unexpectedly"):
            scene.chunk([[0.5]] * 4)
        (report,) = scene.outputs.reports().values()
        assert "restart the node" in str(report["problem"])
        scene.on_executor(scene.outputs.disable)
        assert scene.outputs.overdue() == ""


def test_an_idle_stream_is_never_late_and_reports_how_punctual_it_was() -> None:
    with output_scene(group(POSITION)) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j": 0.0}
        (report,) = scene.outputs.reports().values()
        assert "lateness p50 ms" not in report
        scene.chunk([[0.01]] * 8)
        wait_for(lambda: len(heard) > REPEATS and silent(heard), "it is there")
        assert scene.outputs.overdue() == ""
        (report,) = scene.outputs.reports().values()
        p50, p99, most = (float(str(report[f"lateness {name} ms"])) for name in ("p50", "p99", "max"))
        assert 0.0 <= p50 <= p99 <= most
        (figures,) = scene.outputs.ticks()
        assert figures.late_max_s * 1e3 == pytest.approx(most, abs=0.06)


def test_a_rate_that_is_not_kept_is_a_problem_with_a_counter() -> None:
    with output_scene(group(POSITION)) as scene:
        for _ in range(300):
            stream_of(scene).ticks.cadence.tick(0.05, 1)
        (report,) = scene.outputs.reports().values()
        assert report["rate not kept"] == 1
        assert "100 Hz is not kept on this machine, 300 ticks were left out" in str(report["problem"])
