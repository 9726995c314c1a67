# SPDX-License-Identifier: Apache-2.0
"""When the chunk loop says what: until when it rests, when the first row is due, how soon it asks again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from loop_scene import Scene

from benchmarks.robot_world import DT_S, EXECUTED, MAX_AGE_MS, TICK_S, TINY_S
from reflex_core.chunks.handover import LEAD_S
from reflex_core.errors import InferenceError, NotReadyError
from reflex_core.reports import Fallback
from reflex_core.values import LAST_KNOWN_GOOD, Request
from reflex_ros.node.chunk_loop import HANGING_S, JOIN_S, LOCK_S, POLL_S, ChunkLoop
from reflex_ros.node.execution import AT_REST_S
from reflex_ros.node.holds import LATE


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
    end_ns = scene.loop.execution.running.end_ns  # type: ignore[union-attr]
    clock.monotonic_ns += 3 * 10**9
    clock.offset_ns -= 3 * 10**9
    assert scene.loop.late() == "", "the simulator is paused"
    for over_ms, late in ((MAX_AGE_MS - 5.0, ""), (MAX_AGE_MS + 5.0, LATE)):
        clock.offset_ns = end_ns - clock.monotonic_ns + int(over_ms * 1e6)
        assert scene.loop.late() == late


@pytest.mark.parametrize("set_by_s", [0.0, 1.0, -1.0])
def test_a_hold_begins_with_the_running_motion_unless_the_clock_was_set(
    scene: Scene, set_by_s: float
) -> None:
    """Its times are of the clock of before."""
    scene.run(0.2)
    scene.world.clock.offset_ns += int(set_by_s * 1e9)
    before = len(scene.sent)
    if set_by_s:
        scene.loop.cycle()
    else:
        scene.loop.stop()
    command = scene.sent[before]
    assert command.is_hold
    anchored = bool(abs(command.due_s[0] - scene.world.clock.seconds) < TINY_S)
    assert anchored is (set_by_s == 0.0)


@pytest.mark.parametrize("latency_s", [0.02, 0.17, 0.4])
def test_the_gate_learns_all_rows_and_when_each_is_due_that_is_sent(
    latency_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rows of a robot at rest are not sent: its controller has the time for the way to the one after them."""
    scene = Scene()
    gated: list[tuple[float, int]] = []
    commanded = scene.world.buffer.commanded

    def noting(names: tuple[str, ...], rows: np.ndarray, first_in_ns: int, now_ns: int, dt_s: float) -> None:
        gated.append((scene.world.clock.seconds + first_in_ns * 1e-9, len(rows)))
        commanded(names, rows, first_in_ns, now_ns, dt_s)

    monkeypatch.setattr(scene.world.buffer, "commanded", noting)
    scene.engine.latency_s = latency_s
    scene.run(0.5 + latency_s)
    (first_s, rows), (command,) = gated[0], scene.sent
    assert len(gated) == 1
    due_s = first_s + np.arange(rows) * DT_S
    assert command.due_s[0] - first_s >= LEAD_S - DT_S - 1e-6
    np.testing.assert_allclose(command.due_s, due_s[-len(command.due_s) :], atol=1e-5)


def test_an_answer_is_thrown_away_only_after_a_rescue_and_twice_what_is_usual_and_then_it_is_learned(
    scene: Scene,
) -> None:
    loop = scene.loop
    loop.scheduler.learn(0.5)
    usual_s = 0.5 + MAX_AGE_MS * 1e-3
    assert not loop._hung(9.0), "the robot had not to be held meanwhile"
    loop._rescued = True
    assert not loop._hung(2.0 * usual_s - 0.01)
    assert loop.scheduler.latency_s == 0.5
    assert loop._hung(2.0 * usual_s + 0.01)
    assert loop.scheduler.latency_s == pytest.approx(2.0 * usual_s + 0.01)


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


def another(scene: Scene, **loaded: Any) -> ChunkLoop:
    """The loop of another activation in the same world, on a clock that says itself when it jumps."""
    before, clock = scene.loop, scene.world.clock
    found: Any = SimpleNamespace(**{**vars(before._loaded), **loaded})
    scene.loop = scene.world.loop = ChunkLoop(
        before._engine, found, scene.world.buffer, before._outputs, clock.wall_ns, before._tuning, before.progress,
        monotonic_ns=before._monotonic_ns,
    )  # fmt: skip
    return scene.loop


def test_only_a_clock_that_people_may_set_is_seen_to_be_set(scene: Scene) -> None:
    """A simulator says itself when it jumps, and may run as it likes besides."""
    loop = another(scene)
    scene.run(0.3)
    scene.world.clock.offset_ns += 10**8
    loop.cycle()
    assert scene.progress.problem == ""
    assert not scene.sent[-1].is_hold


def test_without_a_setting_as_many_rows_are_executed_as_the_loaded_policy_and_its_robot_say(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = another(scene, execution_horizon=8)
    row_counts: list[int] = []
    due_ns = loop.scheduler.due_ns
    monkeypatch.setattr(
        loop.scheduler, "due_ns", lambda rows, margin_s: row_counts.append(rows) or due_ns(rows, margin_s)
    )
    loop.cycle()
    tuning = replace(loop._tuning(), execution_horizon=0)
    monkeypatch.setattr(loop, "_tuning", lambda: tuning)
    loop.cycle()
    assert row_counts == [EXECUTED, 8]


def test_what_remembers_an_episode_learns_of_the_new_one(scene: Scene) -> None:
    begun: list[str] = []
    loop = another(scene, begins=begun.append)
    loop.new_episode("place")
    assert (begun, loop.execution.episode_id) == (["place"], "place")


def test_how_long_others_wait_is_short_beside_what_a_robot_does_meanwhile() -> None:
    assert POLL_S <= 0.02
    assert LOCK_S <= 0.5, "the services of the node answer within a second"
    assert 2.0 < HANGING_S <= 5.0
    assert JOIN_S <= 10.0


def test_when_a_simulator_begins_again_nothing_of_before_counts(scene: Scene) -> None:
    """The robot may be anywhere: no hold leads it back, and no chunk goes on."""
    forgotten: list[str | None] = []
    loop = another(scene, not_executed=forgotten.append)
    scene.run(0.3)
    assert scene.world.guard.commands.recall() is not None
    loop.new_episode("pick")
    scene.run(0.3)
    forgotten.clear()
    loop.clock_jumped_back()
    assert scene.world.guard.commands.recall() is None
    assert forgotten == ["pick"]
    assert scene.progress.problem == "clock_jump"
    assert scene.progress.problem_text == "the clock jumped back: what was known before was dropped"
    assert scene.world.buffer.peek(scene.world.clock.wall_ns(), loop._tuning().gates) is None
    assert scene.world.buffer.believed(scene.world.buffer._joint_names) is None
    assert loop.scheduler.running is None, "the next chunk is due at once"
    sent = len(scene.sent)
    scene.world.camera = False
    scene.world.clock.monotonic_ns += 4 * 10**9
    assert loop.late() == ""
    scene.run(1.0)
    assert len(scene.sent) == sent
    scene.world.camera = True
    assert [command.is_hold for command in scene.run(0.3)] == [False]


@pytest.mark.parametrize("age_ms", [0.0, 500.0])
def test_after_a_simulator_began_again_no_chunk_from_before_stands_in(scene: Scene, age_ms: float) -> None:
    loop, act = another(scene), scene.engine.act
    scene.run(1.0)

    def late(request: Request) -> object:
        served = act(request)
        return replace(
            served, chunk=replace(served.chunk, source=LAST_KNOWN_GOOD), fallback=Fallback(age_ms=age_ms)
        )

    scene.engine.act = late  # type: ignore[method-assign, assignment]
    loop.clock_jumped_back()
    sent = scene.run(0.3)
    assert (sent == []) is (age_ms > 0.0)


@pytest.mark.parametrize("then", ["stop", "jump", "set"])
def test_a_chunk_under_way_while_an_episode_begins_and_the_robot_is_stopped_goes_nowhere(
    scene: Scene, then: str
) -> None:
    loop, act = scene.loop, scene.engine.act

    def meanwhile(request: Request) -> object:
        served = act(request)
        loop.new_episode("place")
        if then == "stop":
            loop.stop()
        elif then == "jump":
            loop.clock_jumped_back()
        else:
            scene.world.clock.offset_ns += 30 * 10**9
        return served

    loop.restart()
    scene.engine.act = meanwhile  # type: ignore[method-assign, assignment]
    discarded = scene.progress.discarded
    sent = scene.run(TICK_S)
    assert [command.reason for command in sent] == {"stop": ["stopped"], "jump": [], "set": ["clock_jump"]}[
        then
    ]
    assert scene.progress.discarded == discarded + 1


def test_a_clock_that_is_set_makes_no_lie_true(scene: Scene) -> None:
    scene.world.clock.offset_ns -= 30 * 10**9
    scene.world.lie = lambda position, _: position + 1.0
    sent = scene.run(2.0)
    assert [command.is_hold for command in sent] == [True]
    assert scene.progress.problem == "implausible_state"


def test_where_a_clock_is_set_back_while_a_chunk_is_overdue_the_robot_still_holds_in_time(
    scene: Scene,
) -> None:
    """Nothing could be held at when it was set; how long the chunk is overdue is counted anew on the clock of now."""
    scene.world.camera, refused = False, scene.progress.refused
    while scene.progress.refused == refused:
        scene.run(TICK_S)
    scene.world.lie = lambda *_: None
    scene.world.guard.commands.end()
    scene.world.clock.offset_ns -= 30 * 10**9
    assert scene.run(0.1) == []
    assert scene.progress.unheld > 0
    scene.world.lie = lambda position, _: position
    sent = scene.run(MAX_AGE_MS * 1e-3 + 0.2)
    assert [command.is_hold for command in sent] == [True]
