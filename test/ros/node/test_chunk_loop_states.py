# SPDX-License-Identifier: Apache-2.0
"""What the chunk loop is at any time: late, stopped, refusing, waiting; on a clock that the test moves."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import numpy as np
import pytest
from loop_scene import Scene

from benchmarks.robot_world import DT_S, EXECUTED, HOME, HORIZON, MAX_AGE_MS, TICK_S
from reflex_core.errors import InferenceError, NotReadyError
from reflex_core.reports import Fallback
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, Request
from reflex_ros.node.chunk_loop import HANGING_S, RETRY_S
from reflex_ros.node.diagnostics import observation_finding, trouble
from reflex_ros.node.holds import GONE, LATE
from reflex_ros.node.watchdog import TEXTS
from reflex_ros.outputs.base import STREAM_LATE

CHUNK_S = HORIZON * DT_S


@pytest.fixture
def scene() -> Scene:
    """A robot that executes a chunk."""
    scene = Scene()
    scene.run(0.3)
    assert [command.is_hold for command in scene.sent] == [False]
    return scene


def test_the_next_chunk_is_asked_for_after_the_execution_horizon(scene: Scene) -> None:
    calls = scene.calls
    rest_s = EXECUTED * DT_S - 0.3
    scene.run(rest_s - 0.1)
    assert scene.calls == calls
    scene.run(0.2)
    assert scene.calls == calls + 1
    assert scene.progress.chunks == 2


def test_a_loop_that_answers_is_never_late(scene: Scene) -> None:
    for _ in range(60):
        scene.run(0.1)
        assert scene.loop.late() == ""


def test_it_is_late_when_nothing_followed_a_chunk_for_the_longest_age(scene: Scene) -> None:
    end_ns = scene.loop.execution.running.end_ns  # type: ignore[union-attr]
    for over_ms, late in ((0.0, ""), (MAX_AGE_MS - 5.0, ""), (MAX_AGE_MS + 5.0, LATE)):
        scene.world.clock.monotonic_ns = end_ns - scene.world.clock.offset_ns + int(over_ms * 1e6)
        assert scene.loop.late() == late, over_ms


def test_a_clock_that_was_set_ends_no_chunk(scene: Scene) -> None:
    scene.world.clock.offset_ns += 30 * 10**9
    assert scene.loop.late() == ""
    scene.world.clock.offset_ns -= 60 * 10**9
    assert scene.loop.late() == ""
    scene.world.clock.monotonic_ns += int((CHUNK_S + 1.0) * 1e9)
    assert scene.loop.late() == LATE, "nor does it make one last for ever"


def test_it_is_late_when_a_cycle_does_not_end_whatever_the_robot_does() -> None:
    scene = Scene()
    began_ns = scene.world.clock.monotonic_ns
    for seconds, late in ((HANGING_S - 0.1, ""), (HANGING_S + 0.1, LATE)):
        scene.world.clock.monotonic_ns = began_ns + int(seconds * 1e9)
        assert scene.loop.late() == late


def test_a_model_that_is_slow_by_nature_is_given_three_times_what_is_usual() -> None:
    scene = Scene()
    scene.loop.scheduler.learn(4.0)
    began_ns = scene.world.clock.monotonic_ns
    for seconds, late in ((11.9, ""), (12.1, LATE)):
        scene.world.clock.monotonic_ns = began_ns + int(seconds * 1e9)
        assert scene.loop.late() == late


def test_neither_a_stopped_nor_a_held_robot_waits_for_a_chunk(scene: Scene) -> None:
    scene.world.camera = False
    scene.run(CHUNK_S + 2.0)
    assert scene.sent[-1].is_hold
    scene.run(4.0)
    assert scene.loop.late() == ""
    scene.loop.stop()
    scene.world.clock.monotonic_ns += int(60e9)
    assert scene.loop.stopped
    assert scene.loop.late() == ""
    scene.loop.resume()
    assert not scene.loop.stopped


def test_only_a_thread_that_began_can_be_gone(scene: Scene) -> None:
    assert scene.loop.overdue() == "", "not started"
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    scene.loop._thread = ended
    assert scene.loop.overdue() == GONE
    scene.loop.close("deactivated")
    assert scene.loop.overdue() == "", "it was asked to"


def test_a_loop_whose_thread_lives_is_late_or_not(scene: Scene) -> None:
    release = threading.Event()
    scene.loop._thread = threading.Thread(target=release.wait, args=(30,), daemon=True)
    scene.loop._thread.start()
    assert scene.loop.overdue() == ""
    scene.world.clock.monotonic_ns += int((CHUNK_S + 1.0) * 1e9)
    assert scene.loop.overdue() == LATE
    release.set()


def test_a_rescue_holds_a_robot_that_moves_and_says_why(scene: Scene) -> None:
    assert scene.loop.rescue(LATE, "because")
    assert [command.reason for command in scene.sent[1:]] == [LATE]
    assert (scene.progress.problem, scene.progress.problem_text) == (LATE, "because")
    assert scene.loop.rescue(LATE, "because")
    assert len(scene.sent) == 2, "it is held already"


def test_a_rescue_of_a_robot_that_does_not_move_publishes_nothing() -> None:
    scene = Scene()
    assert scene.loop.rescue(LATE, "because")
    assert scene.sent == []
    scene.run(0.3)
    scene.loop.stop()
    sent = len(scene.sent)
    assert scene.loop.rescue(LATE, "because")
    assert len(scene.sent) == sent


def test_a_rescue_where_nothing_can_be_held_at_says_so(scene: Scene) -> None:
    scene.loop._end_commands()
    scene.world.buffer.clear()
    assert not scene.loop.rescue(LATE, "because")
    assert len(scene.sent) == 1


def test_a_rescue_does_not_wait_for_ever_for_the_lock(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflex_ros.node.chunk_loop.LOCK_S", 0.01)
    locked, release = threading.Event(), threading.Event()

    def sit_on_it() -> None:
        with scene.loop._lock:
            locked.set()
            release.wait(30)

    sitter = threading.Thread(target=sit_on_it)
    sitter.start()
    assert locked.wait(10)
    assert not scene.loop.rescue(LATE, "because")
    release.set()
    sitter.join()
    assert scene.loop.rescue(LATE, "because")


def test_after_a_rescue_the_loop_is_late_until_its_cycle_has_ended(scene: Scene) -> None:
    """Else the watchdog would find it well and late again, and count and log it each time."""
    assert scene.loop.rescue(LATE, "because")
    assert scene.loop.late() == LATE
    scene.loop.stop()
    assert scene.loop.late() == LATE
    scene.loop.cycle()
    assert scene.loop.late() == ""


def test_while_a_stream_of_setpoints_is_overdue_the_robot_is_held_and_no_chunk_is_executed(
    scene: Scene,
) -> None:
    scene.world.outputs.overdue_reason = STREAM_LATE
    assert scene.loop.rescue(STREAM_LATE, TEXTS[STREAM_LATE])
    assert scene.loop.late() == ""  # the loop itself is well
    sent = len(scene.sent)
    scene.run(1.0)
    assert scene.sent[sent - 1].reason == STREAM_LATE
    assert all(command.is_hold for command in scene.sent[sent - 1 :])
    assert scene.loop.progress.problem == STREAM_LATE
    scene.world.outputs.overdue_reason = ""
    scene.run(1.0)
    assert not scene.sent[-1].is_hold


def test_a_rescue_leaves_the_loop_its_lock(scene: Scene) -> None:
    watchdog = threading.Thread(target=scene.loop.rescue, args=(LATE, "because"))
    watchdog.start()
    watchdog.join(10)
    assert scene.loop._lock.acquire(timeout=5.0)
    scene.loop._lock.release()


def test_a_robot_that_never_moved_is_not_held_when_the_loop_ends() -> None:
    scene = Scene()
    scene.world.camera = False
    scene.run(0.5)
    scene.loop.close("deactivated")
    assert scene.sent == []


def test_a_robot_that_moves_is_held_when_the_loop_ends(scene: Scene) -> None:
    scene.loop.close("deactivated")
    assert scene.sent[-1].reason == "deactivated"
    assert scene.world.guard.commands.recall() is None


@pytest.mark.parametrize("words", ["", "  ", "\u200b\n"])
def test_without_words_nothing_is_inferred(words: str) -> None:
    scene = Scene()
    scene.world.buffer.instruction = words
    scene.world.buffer.topics = {"instruction": "/arm/say"}
    scene.run(0.5)
    assert (scene.calls, scene.sent, scene.progress.problem) == (0, [], "no_instruction")
    assert "publish one on the topic /arm/say" in scene.progress.problem_text
    value = scene.engine.metrics.registry.get_sample_value
    first, then = (
        value("reflex_observations_refused_total", {"reason": reason})
        for reason in ("camera_missing", "no_instruction")
    )
    assert first == 1
    assert then is not None
    assert first + then == scene.progress.refused > 3
    scene.world.buffer.instruction = "reach"
    scene.run(0.3)
    assert scene.progress.chunks == 1
    assert scene.progress.problem == ""


def test_a_refused_observation_is_looked_at_again_soon_and_not_at_once() -> None:
    scene = Scene()
    scene.world.buffer.instruction = ""
    scene.run(0.2)
    refused = scene.progress.refused
    scene.run(10 * RETRY_S)
    assert refused + 8 <= scene.progress.refused <= refused + 11


@pytest.mark.parametrize("error", [InferenceError("it raised"), NotReadyError("degraded")])
def test_a_model_that_fails_is_asked_again_soon_and_not_at_once(scene: Scene, error: Exception) -> None:
    scene.fails_with(error)
    scene.engine.latency_s = 0.0
    scene.loop.restart()
    scene.run(0.02)
    calls = scene.calls
    scene.run(1.0)
    assert 8 <= scene.calls - calls <= 1.0 / RETRY_S
    assert scene.progress.errors >= 8


def test_a_model_that_fails_is_a_hold_at_once_and_one_that_is_not_ready_is_bridged(scene: Scene) -> None:
    for error, holds in (
        (NotReadyError("degraded"), []),
        (InferenceError("it raised"), ["inference-failed"]),
    ):
        scene.fails_with(error)
        scene.loop.restart()
        sent = scene.run(0.2)
        assert [command.is_hold for command in sent] == [True] * len(holds)
    assert scene.progress.problem_text == "it raised"


def test_what_is_not_ready_is_bridged_for_the_longest_age_and_then_the_robot_holds(scene: Scene) -> None:
    scene.fails_with(NotReadyError("degraded"))
    scene.loop.restart()
    assert scene.run(MAX_AGE_MS * 1e-3 - 0.02) == []
    assert [command.is_hold for command in scene.run(0.25)] == [True]


def test_a_fallback_is_soon_replaced(scene: Scene) -> None:
    """It is published, and the problem is said; the next answer is asked for without waiting for the horizon."""
    act = scene.engine.act

    def late(request: Request) -> object:
        served = act(request)
        chunk = replace(served.chunk, source=LAST_KNOWN_GOOD)
        return replace(served, chunk=chunk, fallback=Fallback(age_ms=10.0))

    scene.engine.act = late  # type: ignore[method-assign, assignment]
    scene.loop.restart()
    calls = scene.calls
    sent = scene.run(1.0)
    assert 5 <= scene.calls - calls <= 1.0 / RETRY_S
    assert len(sent) >= 5
    assert not any(command.is_hold for command in sent)
    assert scene.progress.problem == "deadline"
    assert scene.progress.fallbacks >= 5


def test_a_fallback_from_before_the_hold_is_not_executed(scene: Scene) -> None:
    """It would lead the robot to where it might have been by now."""
    act = scene.engine.act
    ages_ms = [3000.0]

    def late(request: Request) -> object:
        served = act(request)
        return replace(
            served, chunk=replace(served.chunk, source=LAST_KNOWN_GOOD), fallback=Fallback(age_ms=ages_ms[0])
        )

    scene.world.camera = False
    scene.run(CHUNK_S + 1.0)
    assert scene.sent[-1].is_hold
    scene.engine.act = late  # type: ignore[method-assign, assignment]
    scene.world.camera = True
    assert scene.run(0.3) == []
    assert scene.progress.problem == "deadline"
    ages_ms[0] = 0.0
    assert [command.is_hold for command in scene.run(0.1)] == [False]


def test_a_model_that_is_always_late_moves_the_robot_with_the_chunk_for_which_it_waited() -> None:
    """Every answer is the deadline's: a hold while there is no chunk, else what the request before was answered too late."""
    scene = Scene()
    act = scene.engine.act
    requested_ns: list[int] = []

    def late(request: Request) -> object:
        requested_ns.append(scene.world.clock.monotonic_ns)
        served = act(request)
        if len(requested_ns) % 2:
            return replace(served, chunk=replace(served.chunk, source=HOLD), hold_reason="deadline")
        chunk = replace(served.chunk, source=LAST_KNOWN_GOOD)
        age_ms = (scene.world.clock.monotonic_ns - requested_ns[-2]) * 1e-6
        return replace(served, chunk=chunk, fallback=Fallback(age_ms=age_ms))

    scene.engine.act = late  # type: ignore[method-assign, assignment]
    sent = scene.run(1.0)
    assert sent[0].reason == "deadline", "nothing can stand in yet"
    assert not all(command.is_hold for command in sent), "what it was asked for while it waited"


def test_an_answer_that_is_a_hold_is_published_as_one_with_its_reason(scene: Scene) -> None:
    act = scene.engine.act

    def held(request: Request) -> object:
        served = act(request)
        return replace(served, chunk=replace(served.chunk, source=HOLD), hold_reason="rejected")

    scene.engine.act = held  # type: ignore[method-assign, assignment]
    scene.loop.restart()
    sent = scene.run(0.15)
    assert [command.reason for command in sent] == ["rejected"] * len(sent)
    assert sent
    assert scene.progress.problem == "rejected"
    assert scene.progress.holds == len(sent)


def test_chunks_are_numbered_from_the_beginning_of_their_episode(scene: Scene) -> None:
    numbers: list[int] = []
    chunk = scene.loop._outputs.chunk

    def noting(
        served: object, stamp_ns: int, age_ms: float, chunk_id: int, start: int, motion: object
    ) -> None:
        numbers.append(chunk_id)
        chunk(served, stamp_ns, age_ms, chunk_id, start, motion)  # type: ignore[arg-type]

    scene.loop._outputs.chunk = noting  # type: ignore[method-assign]
    scene.loop.restart()
    scene.run(0.2)
    scene.loop.restart()
    scene.run(0.2)
    scene.loop.new_episode("place")
    scene.run(0.2)
    assert numbers == [1, 2, 0]


def test_the_lag_of_an_answer_is_learnt_from_when_its_observation_was_taken(scene: Scene) -> None:
    scene.engine.latency_s = 0.4
    scene.loop.restart()
    scene.run(0.6)
    assert scene.loop.scheduler.latency_s == pytest.approx(0.4, abs=0.02)


def test_a_step_that_fails_is_logged_and_the_robot_holds(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError("odd")

    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(scene.loop, "_tuning", broken)
        patched.setattr(scene.loop._holds, "publish", broken)
        scene.loop._retry_at = 0.0
        scene.loop.cycle()
    assert "the chunk loop failed on a step" in caplog.text
    assert "could not hold the robot after a failed step" in caplog.text
    assert scene.sent[1:] == []
    scene.run(0.5)
    scene.fails_with(ZeroDivisionError("odd"))
    scene.loop.restart()
    assert [command.reason for command in scene.run(0.1)] == ["internal-error"]
    assert scene.progress.problem_text == "ZeroDivisionError: see the log"


def test_where_no_hold_is_possible_it_is_tried_again_soon_and_not_in_every_cycle(scene: Scene) -> None:
    scene.world.lie = lambda *_: None
    scene.loop._end_commands()
    scene.world.buffer.clear()
    scene.loop._hold_instead("stale")
    unheld = scene.progress.unheld
    assert unheld == 1
    scene.loop._hold_instead("stale")
    assert scene.progress.unheld == 1
    scene.world.clock.monotonic_ns += int((RETRY_S + TICK_S) * 1e9)
    scene.loop._hold_instead("stale")
    assert scene.progress.unheld == 2
    assert scene.loop._outputs.halts == 2  # nothing of the chunk goes on row by row


def test_a_moving_robot_that_cannot_be_held_is_reported_everywhere_and_seldom_in_the_log(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again all the time, and the reading in the sentence is another one every time."""
    scene.loop._commands.end()
    readings = iter(range(1000))
    scene.world.lie = lambda position, _: position + 1.0 + next(readings) * 1e-4
    assert scene.run(1.0) == []
    assert scene.progress.unheld > 5
    lines = [line for line in caplog.messages if "nothing was published" in line]
    assert len(lines) == 1
    message = trouble(scene.loop)
    assert message.startswith("implausible_state: joint 'panda_joint1' reads")
    assert "nothing was published for 'implausible_state'" in message
    assert "nothing was published" in observation_finding(scene.loop, {}).message
    scene.world.lie = lambda position, _: position
    scene.run(2.0)
    assert trouble(scene.loop) == ""
    assert scene.progress.unheld_text == ""


def test_after_a_stop_that_could_not_hold_resuming_clears_what_was_said() -> None:
    scene = Scene()
    scene.world.lie = lambda *_: None
    scene.run(0.2)
    assert scene.loop.stop()
    assert scene.progress.unheld_text
    scene.loop.resume()
    assert scene.progress.unheld_text == ""


def test_a_stopped_robot_is_asked_for_no_chunk(scene: Scene) -> None:
    scene.loop.stop()
    calls, sent = scene.calls, len(scene.sent)
    scene.run(3.0)
    assert (scene.calls, len(scene.sent)) == (calls, sent)
    np.testing.assert_allclose(scene.world.arm.position, HOME, atol=1e-3)
