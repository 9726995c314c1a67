# SPDX-License-Identifier: Apache-2.0
"""Each wedge's fault forced through the real node: what the robot gets and what people see."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import ALWAYS_MISSED, safety_file
from http_client import Client
from reflex_ros.msg import ActionChunk
from ros_world import BEYOND, HOME, JOINTS, REACH_HOME, World, rows, wait_for, world
from servers import ExportDir, Server

from reflex_core.chunks.handover import LEAD_S
from reflex_core.records.audit.chain import audit_files, verify
from reflex_core.records.trace.reader import TraceReader
from reflex_ros.messages.stamps import stamp_ns

POLICY, LAST_KNOWN_GOOD = ActionChunk.SOURCE_POLICY, ActionChunk.SOURCE_LAST_KNOWN_GOOD
CLOUD, HOLD = ActionChunk.SOURCE_CLOUD, ActionChunk.SOURCE_HOLD
OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"


def franka(export: Path, **more: Any) -> dict[str, Any]:
    """Asks for a chunk every 50 ms, unless a test says otherwise."""
    return {"export_dir": str(export), "embodiment": "franka", "execution_horizon": 1} | more


def move(scene: World, positions: list[float]) -> None:
    """Put the robot elsewhere in no time, which no arm does by itself, and let a person say that it is there."""
    scene.robot.positions = list(positions)
    buffer = scene.buffer

    def seen() -> bool:
        measured = buffer.measured(tuple(JOINTS), scene.server.now_ns(), 1e6)
        return measured is not None and np.allclose(measured, positions)

    wait_for(lambda: buffer.fault() is not None or seen(), "the node sees it")
    scene.robot.call("reset_guard")
    wait_for(seen, "the node believes it")


def newest_before(scene: World, chunk: ActionChunk, source: int) -> ActionChunk:
    at = scene.robot.chunks.index(chunk)
    return next(one for one in reversed(scene.robot.chunks[:at]) if one.source == source)


def led(chunk: ActionChunk) -> int:
    """Return the first row that is executed as the policy made it, also where the robot had to get there from rest."""
    return int(chunk.start_index) + round(LEAD_S / chunk.dt_s) + 1


# the guard


def test_a_reset_over_http_believes_the_joints_as_the_service_does(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm"), http=True, port=0)) as scene:
        scene.activate()
        scene.robot.next_chunk()
        sidecar = scene.server.sidecar
        assert sidecar is not None

        def reset() -> object:
            return Client(sidecar.port).ask("POST", "/guard/reset", b'{"caller": "ros"}').json

        scene.robot.positions = [float("nan"), *HOME[1:]]
        wait_for(lambda: scene.robot.status.hold_reason == "state_not_finite", "the robot holds")
        refused = reset()
        assert isinstance(refused, dict)
        assert "still not believed" in refused["problem"]
        assert "not finite" in refused["problem"]
        scene.robot.positions = [HOME[0] + 1.0, *HOME[1:]]
        buffer = scene.buffer
        wait_for(lambda: (fault := buffer.fault()) and fault.reading == HOME[0] + 1.0, "it is seen")
        assert reset() == {"reset": True, "was_tripped": False, "problem": ""}
        moved = scene.robot.next_chunk()
        assert rows(moved)[0][0] > HOME[0] + 0.5, "it begins where the joint is"


# the deadline


def test_the_last_good_chunk_goes_on_where_it_was_when_the_model_is_too_slow(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm_burning"), deadline_ms=250.0, fade_s=0.0)) as scene:
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.positions = list(BEYOND)
        standing_in = scene.robot.next_chunk(LAST_KNOWN_GOOD)
        good = newest_before(scene, standing_in, POLICY)
        assert standing_in.deadline_exceeded
        assert standing_in.fallback_age_ms >= 250.0 * 0.9
        assert standing_in.episode_id == good.episode_id
        dt_ns = round(good.dt_s * 1e9)
        between_ns = stamp_ns(standing_in.header.stamp) - stamp_ns(good.header.stamp)
        elapsed = between_ns // dt_ns
        assert standing_in.horizon == good.horizon - elapsed
        np.testing.assert_allclose(
            rows(standing_in)[led(standing_in) :], rows(good)[elapsed + led(standing_in) :], atol=1e-6
        )


def test_a_fallback_continues_the_motion_that_it_replaces(export_dir: ExportDir) -> None:
    """Over absolute time it is never further from the good chunk than that moves in one period."""
    with world(**franka(export_dir("calm_burning"), deadline_ms=250.0)) as scene:
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.positions = list(BEYOND)
        standing_in = scene.robot.next_chunk(LAST_KNOWN_GOOD)
        good = newest_before(scene, standing_in, POLICY)
        since_s = (stamp_ns(standing_in.header.stamp) - stamp_ns(good.header.stamp)) * 1e-9
        due_s = since_s + (np.arange(standing_in.horizon) + 1) * good.dt_s
        good_due_s = (np.arange(good.horizon) + 1) * good.dt_s
        commanded, planned = rows(standing_in), rows(good)
        most = np.abs(np.diff(planned, axis=0)).max(axis=0)
        for joint in range(good.action_dim):
            there = np.interp(due_s, good_due_s, planned[:, joint])
            assert np.abs(commanded[:, joint] - there)[standing_in.start_index :].max() <= most[joint] + 1e-6


def test_the_robot_holds_once_the_last_good_chunk_is_too_old_and_goes_on_when_the_model_is_fast_again(
    export_dir: ExportDir,
) -> None:
    with world(**franka(export_dir("calm_burning"), deadline_ms=200.0, max_fallback_age_ms=400.0)) as scene:
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.positions = list(BEYOND)
        hold = scene.robot.next_chunk(HOLD)
        assert hold.hold_reason == "deadline"
        assert hold.deadline_exceeded
        np.testing.assert_allclose(rows(hold), np.tile(HOME, (hold.horizon, 1)), atol=0.03)
        wait_for(lambda: scene.robot.status.holding, "status says it holds")
        assert scene.robot.status.hold_reason == "deadline"
        assert scene.robot.status.deadline_misses_total > 0
        assert "deadline missed" in scene.robot.diagnosed("timing", WARN).message
        scene.robot.positions = list(HOME)
        assert scene.robot.next_chunk().source == POLICY
        scene.robot.diagnosed("timing", OK)


def test_a_chunk_from_before_a_stop_is_no_fallback_after_it(export_dir: ExportDir) -> None:
    with world(
        **franka(export_dir("calm_burning"), deadline_ms=150.0, max_fallback_age_ms=60_000.0)
    ) as scene:
        scene.activate()
        scene.robot.next_chunk()
        assert scene.robot.call("stop").success
        move(scene, BEYOND)
        count, misses = len(scene.robot.chunks), scene.robot.status.deadline_misses_total
        assert scene.robot.call("resume").success
        wait_for(lambda: scene.robot.status.deadline_misses_total > misses + 1, "the deadline is missed")
        assert all(chunk.source in (HOLD, POLICY) for chunk in scene.robot.chunks[count:])
        wait_for(lambda: scene.robot.status.holding, "it goes on holding")


# the circuit breaker


def test_a_model_that_keeps_failing_degrades_the_service_until_a_probe_succeeds(
    export_dir: ExportDir,
) -> None:
    with world(
        **franka(export_dir("calm_raise"), max_consecutive_crashes=3, breaker_cooldown_s=0.5)
    ) as scene:
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.positions = list(BEYOND)
        wait_for(lambda: scene.robot.status.state == "degraded", "status says degraded")
        status = wait_for(lambda: scene.robot.status if scene.robot.status.holding else None, "it holds")
        assert status.consecutive_failures >= 3
        assert scene.robot.chunks[-1].source == HOLD
        assert "~/reset_breaker" in scene.robot.diagnosed("circuit breaker", ERROR).message
        scene.robot.diagnosed("policy", ERROR)
        scene.robot.positions = list(HOME)
        scene.robot.next_chunk()
        wait_for(lambda: scene.robot.status.state == "ready", "status says ready")
        scene.robot.diagnosed("circuit breaker", OK)


def test_the_breaker_is_closed_by_hand_without_waiting_for_its_cooldown(export_dir: ExportDir) -> None:
    with world(
        **franka(export_dir("calm_raise"), max_consecutive_crashes=2, breaker_cooldown_s=3600.0)
    ) as scene:
        scene.activate()
        scene.robot.next_chunk()
        assert scene.robot.call("reset_breaker").message == "the breaker was closed"
        scene.robot.positions = list(BEYOND)
        wait_for(lambda: scene.robot.status.state == "degraded", "status says degraded")
        scene.robot.positions = list(HOME)
        answer = scene.robot.call("reset_breaker")
        assert (answer.success, answer.message) == (True, "the breaker was open")
        scene.robot.next_chunk()
        wait_for(lambda: scene.robot.status.state == "ready", "status says ready")


def test_there_is_no_breaker_to_reset_where_there_is_none(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm"), max_consecutive_crashes=0)) as scene:
        scene.activate()
        answer = scene.robot.call("reset_breaker")
        assert not answer.success
        assert "no circuit breaker" in answer.message


# the guard


def test_a_guard_that_trips_holds_until_it_is_reset(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm_nan"), max_consecutive_crashes=0)) as scene:
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.positions = list(BEYOND)
        wait_for(lambda: scene.robot.status.guard_tripped, "status says tripped")
        assert "~/reset_guard" in scene.robot.diagnosed("guard", ERROR).message
        scene.robot.positions = list(HOME)
        hold = scene.robot.next_chunk(HOLD)
        assert hold.hold_reason == "guard_tripped"
        np.testing.assert_allclose(rows(hold), [HOME] * hold.horizon, atol=0.03)
        count = len(scene.robot.statuses)
        wait_for(lambda: len(scene.robot.statuses) > count + 3, "more status messages")
        assert scene.robot.status.guard_tripped, "latched although the model is well again"
        assert all(chunk.source == HOLD for chunk in scene.robot.chunks[-3:])
        answer = scene.robot.call("reset_guard")
        assert (answer.success, answer.message) == (True, "the guard was tripped")
        scene.robot.next_chunk()
        scene.robot.diagnosed("guard", OK)
        assert not wait_for(lambda: scene.robot.status, "status").guard_tripped
        assert scene.robot.call("reset_guard").message == "the guard was not tripped"


def test_the_safety_file_bounds_what_is_commanded(export_dir: ExportDir, tmp_path: Path) -> None:
    low = HOME[3] + 0.001
    limits = safety_file(
        tmp_path, position_min=[rest - (0.3 if i != 3 else -0.001) for i, rest in enumerate(HOME)]
    )
    with world(**franka(export_dir("calm"), safety_config=limits)) as scene:
        scene.activate()
        chunk = scene.robot.next_chunk()
        assert chunk.guard_clamped
        assert chunk.guard_violations[0].startswith("panda_joint4 below min: ")
        assert (rows(chunk)[:, 3] >= low - 1e-6).all()
        wait_for(lambda: scene.robot.status.guard_tripped, "it trips, as every chunk has to be clamped")
        assert scene.robot.next_chunk(HOLD).hold_reason == "guard_tripped"


def test_a_bad_safety_file_is_refused_in_one_sentence(export_dir: ExportDir, tmp_path: Path) -> None:
    limits = Path(safety_file(tmp_path))
    document = json.loads(limits.read_text())
    limits.write_text(json.dumps(document | {"position_min": document["position_max"]}))
    with world(**franka(export_dir("calm"), safety_config=str(limits))) as scene:
        assert not scene.spinner.do(scene.server.start)
        assert str(limits) in scene.server.node.refusal
        assert "\n" not in scene.server.node.refusal


def test_after_a_stop_the_next_chunk_starts_where_the_robot_has_been_moved_to(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm"), execution_horizon=0)) as scene:
        scene.activate()
        scene.robot.next_chunk()
        assert scene.robot.call("stop").success
        moved = [HOME[0] - 0.5, *HOME[1:]]
        move(scene, moved)
        seen = len(
            scene.robot.chunks
        )  # there is one such chunk: this robot stays where it is, and is soon too far off
        assert scene.robot.call("resume").success
        chunk = scene.robot.next_chunk(seen=seen)
        joint = rows(chunk)[:, 0]
        assert chunk.guard_clamped
        assert joint[chunk.start_index] == pytest.approx(moved[0], abs=2.175 * 0.05 + 1e-3)
        assert np.diff(joint).max() <= 2.175 * 0.05 + 1e-6, "at the joint's own speed"
        assert joint[-1] == pytest.approx(HOME[0], abs=0.01), "it gets there"


# latency, objective, steps


def test_injected_latency_delays_the_chunk_and_is_named_in_it(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm"))) as scene:
        scene.activate()
        assert scene.robot.next_chunk().injected_latency_ms == 0.0
        assert scene.robot.set("inject_latency_ms", 120.0).successful
        chunk = wait_for(
            lambda: next((c for c in scene.robot.chunks if c.injected_latency_ms), None), "it is delayed"
        )
        assert chunk.injected_latency_ms == 120.0
        assert chunk.latency_ms >= 120.0
        assert chunk.start_index >= 2, "two rows of 50 ms had elapsed before it was there"


def test_an_objective_that_is_missed_is_seen_and_refuses_only_in_mode_503(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm"), slo_mode="log_only")) as scene:
        scene.activate()
        scene.robot.next_chunk()
        assert scene.robot.set("slo", ALWAYS_MISSED).successful
        wait_for(lambda: scene.robot.status.slo_violated, "status says it is missed")
        assert scene.robot.next_chunk().source == POLICY
        assert "the objective is" in scene.robot.diagnosed("timing", WARN).message
        assert scene.robot.set("slo_mode", "503").successful
        assert scene.robot.next_chunk(HOLD).hold_reason == "slo_violation"
        scene.robot.diagnosed("timing", ERROR)
        assert scene.robot.set("slo", "").successful
        assert scene.robot.next_chunk().source == POLICY
        wait_for(lambda: not scene.robot.status.slo_violated, "no objective, nothing missed")


def test_steps_adapt_and_a_missed_objective_takes_fewer() -> None:
    """On the embedded policy, whose denoise loop is outside of its graph."""
    with world(adaptive_steps=True, embodiment="franka", execution_horizon=1) as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.activate()
        chunk = scene.robot.next_chunk()
        assert chunk.adaptive_enabled
        assert 0 < chunk.denoise_steps <= chunk.denoise_steps_configured
        assert scene.robot.set("adaptive_threshold", 10.0).successful
        wait_for(lambda: scene.robot.chunks[-1].denoise_steps <= 4, "any change is small enough to stop")
        assert scene.robot.set("adaptive_threshold", 1e-9).successful
        wait_for(
            lambda: scene.robot.chunks[-1].denoise_steps == chunk.denoise_steps_configured, "no change is"
        )
        assert scene.robot.set("slo_mode", "degrade").successful
        assert scene.robot.set("slo", ALWAYS_MISSED).successful
        half = chunk.denoise_steps_configured // 2
        wait_for(lambda: scene.robot.chunks[-1].denoise_steps == half, "half of them while it is missed")


# live parameters


def test_time_limits_take_effect_at_once(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm_burning"))) as scene:
        scene.activate()
        scene.robot.next_chunk()
        assert scene.robot.set("deadline_ms", 150.0).successful
        assert scene.robot.set("max_fallback_age_ms", 60_000.0).successful
        scene.robot.next_chunk()
        scene.robot.positions = list(BEYOND)
        assert scene.robot.next_chunk(LAST_KNOWN_GOOD).deadline_exceeded
        assert scene.robot.set("max_fallback_age_ms", 0.0).successful
        assert scene.robot.next_chunk(HOLD).hold_reason == "deadline"


def test_settings_that_cannot_be_kept_are_refused_with_a_reason(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm"), slo_mode="log_only")) as scene:
        scene.activate()
        wrong = scene.robot.set("slo", "fast please")
        assert not wrong.successful
        assert "p99=150ms" in wrong.reason
        assert scene.robot.set("slo", "p99=150ms").successful
        fused = scene.robot.set("slo_mode", "degrade")
        assert not fused.successful
        assert "fused into one graph" in fused.reason
        assert scene.server.engine.settings.slo_mode == "log_only"
        for name, value in (
            ("max_consecutive_crashes", 7), ("cloud_fallback", "http://127.0.0.1:9"), ("safety_config", "none.json"),
            ("adaptive_steps", True), ("record", "traces"), ("audit_log", "audit"),
        ):  # fmt: skip
            answer = scene.robot.set(name, value)
            assert not answer.successful
            assert "takes effect at configure" in answer.reason


# cloud, recorders


def test_another_server_answers_when_the_model_here_fails(
    export_dir: ExportDir, serve: Callable[..., Server]
) -> None:
    other = serve("calm", robot_id="rack")
    url = f"http://127.0.0.1:{other.sidecar.port}"
    with world(**franka(export_dir("calm_raise"), cloud_fallback=url, cloud_timeout_ms=60_000.0)) as scene:
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.diagnosed("cloud fallback", OK)
        scene.robot.positions = list(BEYOND)
        chunk = scene.robot.next_chunk(CLOUD)
        np.testing.assert_allclose(rows(chunk), [HOME] * chunk.horizon, atol=0.03)
        assert chunk.hold_reason == ""
        wait_for(lambda: scene.robot.status.fallbacks_total > 0, "status counts it")
        other.sidecar.stop()
        assert scene.robot.next_chunk(HOLD).horizon >= 1
        scene.robot.diagnosed("cloud fallback", WARN)


def test_what_is_published_is_in_the_trace_and_in_the_audit_log(
    export_dir: ExportDir, tmp_path: Path
) -> None:
    traces, audit = tmp_path / "traces", tmp_path / "audit"
    settings = franka(
        export_dir("calm"), record=str(traces), audit_log=str(audit), robot_id="cell-9", fade_s=0.0
    )
    with world(**settings) as scene:
        scene.activate()
        scene.robot.next_chunk()
        wait_for(lambda: len(scene.robot.chunks) > 5, "some chunks")
        assert scene.robot.diagnosed("recorders", OK).message == "writing"
    published = {chunk.trace_seq: chunk for chunk in scene.robot.chunks if chunk.source == POLICY}
    assert len(published) > 5
    [path] = [found for found in traces.rglob("*") if found.is_file()]
    with TraceReader(path) as trace:
        recorded = {record.seq: record for record in trace}
    assert trace.footer is not None
    assert all(later - earlier >= 1 for earlier, later in pairwise(sorted(published)))
    for seq, chunk in published.items():
        record = recorded[seq]
        assert (record.request_id, record.episode_id, record.seed) == (
            chunk.request_id,
            chunk.episode_id,
            chunk.seed,
        )
        assert record.stamp_ns == stamp_ns(chunk.header.stamp)
        np.testing.assert_array_equal(record.actions[led(chunk) :], rows(chunk)[led(chunk) :])
    files = audit_files(audit)
    assert verify(files).finding is None
    contents = "".join(file.read_text() for file in files)
    assert all(chunk.request_id in contents for chunk in published.values())
