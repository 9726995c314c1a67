# SPDX-License-Identifier: Apache-2.0
"""When the chunk loop says what: until when it rests, when the first row is due, how soon it asks again."""

from __future__ import annotations

import numpy as np
import pytest
from test_chunk_loop_states import Scene

from benchmarks.robot_world import DT_S, MAX_AGE_MS, TICK_S
from reflex_core.errors import InferenceError, NotReadyError
from reflex_ros.node.chunk_loop import AT_REST_S, LATE


@pytest.fixture
def scene() -> Scene:
    """A robot that executes a chunk."""
    scene = Scene()
    scene.run(0.3)
    return scene


def test_a_stop_counts_as_rest_when_its_hold_is_over_and_the_arm_has_caught_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[int] = []
    monkeypatch.setattr(scene.world.buffer, "released", rests.append)
    clock = scene.world.clock
    assert scene.loop.stop() == ""
    began_s, holds = clock.seconds, len(scene.sent)
    assert (rests[0] * 1e-9 - began_s) == pytest.approx(DT_S + AT_REST_S, abs=1e-4)
    clock.monotonic_ns += 10**7
    assert scene.loop.stop() == "", "it is on its way there"
    assert scene.loop._hold("stale")
    assert (rests[1], len(scene.sent)) == (rests[0], holds)
    clock.monotonic_ns = rests[0]
    assert scene.loop.stop() == ""
    assert (rests[2] - rests[0]) * 1e-9 == pytest.approx(DT_S + AT_REST_S, abs=1e-4)
    assert len(scene.sent) == holds + 1


def test_in_simulated_time_a_chunk_is_over_when_the_simulator_says_so(scene: Scene) -> None:
    scene.loop._steps = None
    clock = scene.world.clock
    end_ns = scene.loop._executing.end_ns  # type: ignore[union-attr]
    clock.monotonic_ns += 3 * 10**9
    clock.offset_ns -= 3 * 10**9
    assert scene.loop.late() == "", "the simulator is paused"
    for over_ms, late in ((MAX_AGE_MS - 5.0, ""), (MAX_AGE_MS + 5.0, LATE)):
        clock.offset_ns = end_ns - clock.monotonic_ns + int(over_ms * 1e6)
        assert scene.loop.late() == late


@pytest.mark.parametrize("latency_s", [0.02, 0.17, 0.4])
def test_the_gate_is_told_when_the_first_row_that_is_sent_is_due(
    latency_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene()
    told: list[tuple[float, int]] = []
    commanded = scene.world.buffer.commanded

    def noting(names: tuple[str, ...], rows: np.ndarray, first_in_ns: int, now_ns: int, dt_s: float) -> None:
        told.append((scene.world.clock.seconds + first_in_ns * 1e-9, len(rows)))
        commanded(names, rows, first_in_ns, now_ns, dt_s)

    monkeypatch.setattr(scene.world.buffer, "commanded", noting)
    scene.engine.latency_s = latency_s
    scene.run(0.5 + latency_s)
    sent = [(command.due_s[0], len(command.rows)) for command in scene.sent]
    assert [rows for _, rows in told] == [rows for _, rows in sent]
    np.testing.assert_allclose([due for due, _ in told], [due for due, _ in sent], atol=1e-5)


def test_an_answer_is_thrown_away_only_after_a_rescue_and_twice_what_is_usual_and_then_it_is_learned(
    scene: Scene,
) -> None:
    loop = scene.loop
    loop.pacing.learn(0.5)
    usual_s = 0.5 + MAX_AGE_MS * 1e-3
    assert not loop._hung(9.0), "nobody had to hold the robot meanwhile"
    loop._rescued = True
    assert not loop._hung(2.0 * usual_s - 0.01)
    assert loop.pacing.latency_s == 0.5
    assert loop._hung(2.0 * usual_s + 0.01)
    assert loop.pacing.latency_s == pytest.approx(2.0 * usual_s + 0.01)


def test_after_a_chunk_that_is_well_nothing_waits_before_it_asks_again(scene: Scene) -> None:
    for _ in range(2):
        calls = scene.calls
        scene.loop.restart()
        scene.run(TICK_S)
        assert scene.calls == calls + 1


@pytest.mark.parametrize("error", [InferenceError("it raised"), NotReadyError("degraded")])
def test_an_answer_that_failed_is_one_error(scene: Scene, error: Exception) -> None:
    scene.fails_with(error)
    scene.loop.restart()
    scene.run(TICK_S)
    assert scene.progress.errors == 1
