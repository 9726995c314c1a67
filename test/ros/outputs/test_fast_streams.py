# SPDX-License-Identifier: Apache-2.0
"""Streams of more than 100 rows per second: by a thread of real-time priority, or not at all."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from output_scene import OutputScene, output_scene
from ros_world import wait_for
from std_msgs.msg import Float64MultiArray

from reflex_core.concurrency.real_time import ORDINARY_HZ, PRIORITY, refusal
from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import BASE, JOINTS, POSITION, VELOCITY, Group
from reflex_core.settings.table import settings_from
from reflex_ros.outputs.interfaces import with_defaults
from reflex_ros.outputs.streaming import StreamOutput

TOPIC = "/forward_position_controller/commands"


def arm(rate_hz: float) -> Group:
    options = {"topic": TOPIC, "rate_hz": rate_hz}
    return Group("arm", (0,), ("j",), JOINTS, POSITION, "forward_command", options)


def stream_of(scene: OutputScene) -> StreamOutput:
    (part,) = scene.outputs._parts
    assert isinstance(part.output, StreamOutput)
    return part.output


def scheduled(stream: StreamOutput) -> tuple[int, int]:
    """Policy and priority of the thread that ticks."""
    thread = stream.ticks._thread.native_id
    assert thread is not None
    return os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority


def denied(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("by_setting", [True, False])
@pytest.mark.parametrize("kind", ["forward_command", "twist"])
def test_a_fast_rate_is_refused_without_real_time_priority_by_setting_and_by_group(
    by_setting: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", denied)
    base = Group("arm", (0,), ("linear.x",), BASE, VELOCITY, "twist", {"topic": "/cmd_vel", "rate_hz": 101})
    group = arm(101.0) if kind == "forward_command" else base
    if by_setting:
        slow = replace(group, options={**group.options, "rate_hz": 50})
        group = with_defaults(slow, settings_from({"control_rate_hz": 101}))
    wrong = r"group 'arm': 101 rows per second need real-time priority .* \(Operation not permitted\): .*rtprio.*SYS_NICE.* 100 at most$"
    with pytest.raises(ConfigurationError, match=wrong):
        OutputScene((group,))


def test_an_ordinary_rate_needs_no_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", denied)
    with output_scene(arm(ORDINARY_HZ)) as scene:
        assert scheduled(stream_of(scene)) == (os.SCHED_OTHER, 0)


def test_the_thread_of_a_fast_stream_alone_has_real_time_priority_while_it_is_enabled() -> None:
    if refusal():
        with pytest.raises(ConfigurationError, match="real-time priority"):
            OutputScene((arm(250.0),))
        return
    with output_scene(arm(250.0)) as scene:
        stream, heard = stream_of(scene), scene.hear(Float64MultiArray, TOPIC)
        assert scheduled(stream) == (os.SCHED_FIFO, PRIORITY)
        others = [each.native_id for each in threading.enumerate() if each is not stream.ticks._thread]
        assert {os.sched_getscheduler(other) for other in others if other is not None} == {os.SCHED_OTHER}
        scene.measured = {"j": 0.0}
        scene.chunk([[0.01 * at] for at in range(1, 21)])
        wait_for(lambda: len(heard) > 100, "rows come")
        gaps_s = np.diff([at_s for at_s, _ in heard])
        assert np.median(gaps_s) == pytest.approx(0.004, rel=0.3)
        scene.on_executor(scene.outputs.disable)
        assert scheduled(stream) == (os.SCHED_OTHER, 0)
        scene.on_executor(scene.outputs.enable)
        assert scheduled(stream) == (os.SCHED_FIFO, PRIORITY)


def test_a_priority_that_is_not_permitted_any_more_is_said_and_the_robot_is_commanded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as permitted:
        permitted.setattr(os, "sched_setscheduler", lambda *_: None)
        scene = OutputScene((arm(200.0),))
    monkeypatch.setattr(os, "sched_setscheduler", denied)
    try:
        scene.on_executor(scene.outputs.enable)
        assert "group 'arm': its thread gets no real-time priority any more" in caplog.text
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j": 0.0}
        scene.chunk([[0.01]] * 8)
        wait_for(lambda: len(heard) > 10, "rows come")
    finally:
        scene.close()


def test_a_rate_that_is_not_kept_is_logged_once_each_time_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with output_scene(arm(100.0)) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j": 0.0}
        for _ in range(300):
            stream_of(scene).ticks.cadence.tick(0.05, 1)
        scene.chunk([[0.01]] * 8)
        wait_for(lambda: len(heard) > 20, "rows come")
    assert caplog.text.count("group 'arm': 100 Hz is not kept on this machine, 300 ticks were left out") == 1
