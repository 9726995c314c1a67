# SPDX-License-Identifier: Apache-2.0
"""A robot that is sent row by row: how punctual that is is said everywhere, and where no rows come the watchdog holds it."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leading_robots as robots
import numpy as np
import pytest
from controller_bench import Bench
from lifecycle_msgs.msg import Transition
from reflex_ros.msg import ActionChunk
from ros_world import World, wait_for, world

from reflex_core.chunks.interpolation import Doubles
from reflex_core.concurrency.real_time import refusal
from reflex_ros.node.watchdog import TEXTS
from reflex_ros.outputs.base import STREAM_GONE, STREAM_LATE
from reflex_ros.outputs.outputs import Outputs
from reflex_ros.outputs.streaming import StreamOutput

ARM = ["a", "b"]
ERROR, WARN, OK = b"\x02", b"\x01", b"\x00"


def embodied(folder: Path) -> dict[str, Any]:
    """The settings of an arm that is sent row by row."""
    columns = dict.fromkeys(ARM, robots.steadily(0.0005))
    export = robots.leading(folder / "export", columns, [robots.RELATIVE | {"columns": ARM}])
    groups = [robots.joints("arm", ARM, "forward_command", topic="/forward_controller/commands")]
    config = robots.embodiment(folder / "robot.json", groups)
    return {"export_dir": str(export), "custom_embodiment_config": str(config)}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(**embodied(tmp_path_factory.mktemp("streams"))) as found:
        found.robot.joints_on = False
        with Bench(found.domain, dict.fromkeys(ARM, 0.0)) as bench:
            bench.forward_controller("forward_controller", ARM)
            found.activate()
            found.robot.next_chunk()
            yield found


def outputs_of(scene: World) -> Outputs:
    outputs = scene.server._outputs
    assert outputs is not None
    return outputs


def sampled(scene: World, name: str, **labels: str) -> float:
    registry = scene.server.engine.metrics.registry
    return registry.get_sample_value(name, labels) or 0.0


def test_how_punctual_rows_are_is_in_status_metrics_and_diagnostics(scene: World) -> None:
    wait_for(lambda: not math.isnan(scene.robot.status.tick_late_max_ms), "status has it")
    status = scene.robot.status
    assert 0.0 <= status.tick_late_p50_ms <= status.tick_late_p99_ms <= status.tick_late_max_ms
    assert sampled(scene, "reflex_tick_lateness_seconds", group="arm", quantile="1") > 0.0
    assert scene.server.engine.metrics.registry.get_sample_value("reflex_ticks_skipped_total", {"group": "arm"}) is not None  # fmt: skip
    wanted = {f"arm lateness {name} ms" for name in ("p50", "p99", "max")} | {"arm late ticks"}
    wait_for(lambda: "outputs" in scene.robot.diagnostics, "it is diagnosed")
    wait_for(
        lambda: wanted <= {value.key for value in scene.robot.diagnostics["outputs"].values},
        f"diagnostics have it; now {scene.robot.diagnostics.get('outputs')}",
    )


def test_a_stream_that_gets_no_rows_out_is_held_by_the_watchdog_and_said(scene: World) -> None:
    inside, ends = threading.Event(), threading.Event()

    def hangs(row: Doubles, _: int) -> Doubles:
        inside.set()
        ends.wait(60)
        return row

    outputs = outputs_of(scene)
    outputs.adjust(lambda _: hangs)
    try:
        held = scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
        assert inside.is_set()
        assert held.hold_reason == STREAM_LATE
        wait_for(
            lambda: scene.robot.status.problem == f"{STREAM_LATE}: {TEXTS[STREAM_LATE]}", "status says so"
        )
        assert STREAM_LATE in scene.robot.diagnosed("chunk loop", ERROR).message
        assert sampled(scene, "reflex_watchdog_interventions_total", reason=STREAM_LATE) >= 1
        chunks = scene.robot.status.chunks_total
        wait_for(lambda: scene.robot.status.errors_total > 0, "a chunk is not executed")
        assert scene.robot.status.chunks_total == chunks
        assert scene.robot.status.holding
    finally:
        outputs.adjust(lambda _: None)
        ends.set()
    scene.robot.next_chunk()
    scene.robot.diagnosed("chunk loop", OK)
    wait_for(lambda: not scene.robot.status.problem, "nothing is wrong any more")


def test_a_rate_that_is_not_kept_is_seen_by_a_person(scene: World, capfd: pytest.CaptureFixture[str]) -> None:
    """In the log once, in a metric, in status how late rows are, in diagnostics what to do."""
    message, late_s = "group 'arm': 100 Hz is not kept on this machine", 0.03
    outputs = outputs_of(scene)
    outputs.adjust(lambda _: lambda row, _: (time.sleep(late_s), row)[1])
    try:
        wait_for(lambda: sampled(scene, "reflex_rates_unkept_total", group="arm"), "the metric moves")
        wait_for(
            lambda: "100 Hz is not kept" in scene.robot.diagnosed("outputs", WARN).message, "diagnostics"
        )
    finally:
        outputs.adjust(lambda _: None)
    assert scene.robot.status.tick_late_max_ms > 0.0
    assert capfd.readouterr().err.count(message) == 1


def test_a_robot_is_sent_250_rows_per_second_by_a_thread_of_real_time_priority_or_not_at_all(
    tmp_path: Path,
) -> None:
    with world(**embodied(tmp_path), control_rate_hz=250.0) as scene:
        scene.robot.joints_on = False
        with Bench(scene.domain, dict.fromkeys(ARM, 0.0)) as bench:
            controller = bench.forward_controller("forward_controller", ARM)
            if refusal():
                assert not scene.robot.transition(Transition.TRANSITION_CONFIGURE)
                assert "need real-time priority" in scene.server.node.refusal
                return
            scene.activate()
            wait_for(lambda: len(controller.received) > 500, "rows come")
            (part,) = outputs_of(scene)._parts
            assert isinstance(part.output, StreamOutput)
            thread = part.output.ticks._thread.native_id
            assert thread is not None
            assert os.sched_getscheduler(thread) == os.SCHED_FIFO
            gaps_s = np.diff([at_s for at_s, _ in controller.received[-400:]])
            assert np.median(gaps_s) < 0.008  # more often than without that priority, whatever else runs here
            assert scene.robot.call("stop").success


def test_a_node_is_not_configured_for_a_rate_that_the_system_does_not_permit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", denied)
    with world(**embodied(tmp_path), control_rate_hz=250.0) as scene:
        assert not scene.robot.transition(Transition.TRANSITION_CONFIGURE)
        assert "250 rows per second need real-time priority" in scene.server.node.refusal
        assert "SYS_NICE" in scene.server.node.refusal


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stream_that_is_gone_is_held_by_the_watchdog_and_said(scene: World) -> None:
    """Whatever ends its thread; the last test of this scene."""
    (part,) = outputs_of(scene)._parts
    assert isinstance(part.output, StreamOutput)

    def ends() -> bool:
        raise SystemExit

    scene.robot.next_chunk()  # a robot that is held already keeps that reason
    wait_for(lambda: not scene.robot.status.hold_reason, "it moves")
    part.output.ticks._tick = ends
    wait_for(lambda: scene.robot.status.hold_reason == STREAM_GONE, "it is held")
    wait_for(
        lambda: "restart the node" in scene.robot.diagnosed("chunk loop", ERROR).message, "diagnostics say so"
    )
    assert "restart the node" in scene.robot.diagnosed("outputs", WARN).message
    assert sampled(scene, "reflex_watchdog_interventions_total", reason=STREAM_GONE) == 1
    before = scene.robot.status.chunks_total
    wait_for(lambda: scene.robot.status.errors_total > 3, "it goes on trying")
    assert scene.robot.status.chunks_total == before
    assert scene.robot.call("stop").success, "and the services answer"
