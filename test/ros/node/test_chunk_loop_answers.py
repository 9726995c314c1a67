# SPDX-License-Identifier: Apache-2.0
"""What becomes of an answer, and what learns of it: recorders, the guard and what remembers the episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from loop_scene import Scene

from benchmarks.robot_world import DT_S, HORIZON, TICK_S
from reflex_core.errors import InferenceError, NotReadyError
from reflex_core.records.trace.schema import Failure
from reflex_core.reports import Fallback
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, POLICY, Request, Served
from reflex_ros.node.chunk_loop import RETRY_S, ChunkLoop


class Commanded(Scene):
    """A scene in which all that is notified of an answer keeps it."""

    def __init__(self) -> None:
        super().__init__()
        before, clock = self.loop, self.world.clock
        self.forgotten: list[str | None] = []
        self.executed: list[tuple[str | None, int]] = []
        self.recorded: list[tuple[Request, Served | Failure, Any]] = []
        commands = self.world.guard.commands

        def executed(episode: str | None, row: int) -> None:
            self.executed.append((episode, row))
            commands.executed()

        def not_executed(episode: str | None) -> None:
            self.forgotten.append(episode)
            commands.forget()

        listeners = {"executed": executed, "not_executed": not_executed}
        loaded: Any = SimpleNamespace(**{**vars(before._loaded), **listeners})
        recorder_hook: Any = SimpleNamespace(answered=lambda *answer: self.recorded.append(answer))
        self.loop = self.world.loop = ChunkLoop(
            before._engine, loaded, self.world.buffer, before._outputs, clock.wall_ns, before._tuning, self.progress, recorder_hook,
            monotonic_ns=before._monotonic_ns, wall_clock=True,
        )  # fmt: skip

    def answers(self, change: Any) -> None:
        """Let `change` make what comes of each answer."""
        act: Any = self.engine.act
        self.engine.act = lambda request: change(act(request))  # type: ignore[method-assign]

    def restart(self) -> None:
        """Have the next chunk made at once."""
        self.loop.restart()
        self.forgotten.clear()
        self.executed.clear()
        self.recorded.clear()
        self.run(TICK_S)


@pytest.fixture
def scene() -> Commanded:
    scene = Commanded()
    scene.run(0.3)
    assert [command.is_hold for command in scene.sent] == [False]
    return scene


@pytest.mark.parametrize(("named", "known"), [("", None), ("pick", "pick")])
def test_a_chunk_that_is_sent_is_of_its_episode_and_begins_with_the_row_that_is_due(
    scene: Commanded, named: str, known: str | None
) -> None:
    scene.engine.latency_s = 0.17
    scene.loop.execution.episode_id = named
    scene.restart()
    request, served, consumed = scene.recorded[0]
    assert request.episode_id == known
    assert isinstance(served, Served)
    assert consumed is scene.world.buffer.consumed
    assert len(consumed.states) == 1
    assert scene.executed == [(known, 3)]
    assert scene.forgotten == []


def test_a_failure_is_recorded_and_an_engine_that_is_not_ready_says_nothing_of_the_model(
    scene: Commanded,
) -> None:
    scene.fails_with(InferenceError("it raised"))
    scene.restart()
    ((_, failure, consumed),) = scene.recorded
    assert isinstance(failure, Failure)
    assert (failure.slug, failure.message) == ("inference-error", "it raised")
    assert consumed is scene.world.buffer.consumed
    scene.fails_with(NotReadyError("degraded"))
    scene.restart()
    assert scene.recorded == []


def test_an_answer_that_is_thrown_away_is_recorded_and_not_taken_for_executed(scene: Commanded) -> None:
    executes = scene.world.guard.commands.recall()

    def overtaken(served: Served) -> Served:
        scene.loop.restart()
        return served

    scene.answers(overtaken)
    scene.restart()
    assert len(scene.recorded) == 1
    assert (scene.executed, scene.forgotten) == ([], [None])
    assert scene.world.guard.commands.recall() is executes


def test_a_first_chunk_that_is_over_before_it_comes_is_not_taken_for_executed() -> None:
    scene = Commanded()
    scene.engine.latency_s = HORIZON * DT_S + 0.1
    while not scene.calls:
        scene.run(TICK_S)
    assert scene.progress.problem == "chunk_expired"
    assert scene.sent == []
    assert (scene.executed, scene.forgotten) == ([], [None])
    assert scene.world.guard.commands.recall() is None


def test_a_fallback_from_before_a_hold_is_not_taken_for_executed(scene: Commanded) -> None:
    scene.loop._hold("stale")
    scene.answers(
        lambda served: replace(
            served, chunk=replace(served.chunk, source=LAST_KNOWN_GOOD), fallback=Fallback(age_ms=3000.0)
        )
    )
    sent = len(scene.sent)
    scene.restart()
    assert scene.progress.problem == "deadline"
    assert len(scene.sent) == sent
    assert (scene.executed, scene.forgotten) == ([], [None])


def test_an_answer_that_is_a_hold_where_nothing_can_be_held_at_counts_for_nothing(
    scene: Commanded, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, chunks = scene.loop.execution.chunk_id, scene.progress.chunks
    for known in ("measured", "believed"):
        monkeypatch.setattr(scene.world.buffer, known, lambda *_: None)

    def lost(served: Served) -> Served:
        scene.world.guard.commands.end()
        return replace(served, chunk=replace(served.chunk, source=HOLD), hold_reason="rejected")

    scene.answers(lost)
    sent = len(scene.sent)
    scene.restart()
    assert (len(scene.sent), scene.progress.unheld) == (sent, 1)
    assert (scene.loop.execution.chunk_id, scene.progress.chunks, scene.progress.holds) == (number, chunks, 0)
    calls, scene.engine.latency_s = scene.calls, 0.0
    scene.run(1.0)
    assert 8 <= scene.calls - calls <= 1.0 / RETRY_S, "it is asked again soon, and not at once"


def aged(
    age_ms: float, injected_ms: float = 0.0, source: str = LAST_KNOWN_GOOD
) -> Callable[[Served], Served]:
    """What makes of an answer one that is so old."""
    return lambda served: replace(
        served,
        chunk=replace(served.chunk, source=source),
        fallback=Fallback(age_ms=age_ms),
        injected_latency_ms=injected_ms,
    )


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (aged(900.0), True), (aged(1100.0), False), (aged(600.0, 600.0), False),
        (aged(0.0, 1100.0, POLICY), True),
    ],
)  # fmt: skip
def test_a_second_after_a_hold_only_what_is_younger_stands_in(
    scene: Commanded, answer: Callable[[Served], Served], sent: bool
) -> None:
    """A fresh chunk is fresh however long it was made to wait."""
    scene.fails_with(InferenceError("it raised"))
    scene.run(0.1)
    scene.loop._hold("stale")
    scene.run(0.99)
    scene.engine.model = lambda request: np.tile(request.observation.state, (HORIZON, 1)).astype(np.float32)
    scene.engine.latency_s = 0.0
    scene.answers(answer)
    before = len(scene.sent)
    scene.loop._retry_at = 0.0
    scene.run(TICK_S)
    assert [command.is_hold for command in scene.sent[before:]] == [False] * sent


def test_a_first_hold_of_the_deadline_outdates_what_was_made_before_it(scene: Commanded) -> None:
    scene.run(1.0)
    scene.loop._hold("deadline")
    scene.answers(aged(500.0))
    scene.restart()
    assert scene.executed == []
    assert scene.progress.problem_text == "the last good chunk is from before the robot held"


def test_after_a_hold_nothing_of_before_goes_on_and_the_next_chunk_is_asked_for_at_once(
    scene: Commanded,
) -> None:
    calls = scene.calls
    assert scene.loop._hold("stale")
    assert scene.forgotten[-1:] == [None]
    scene.run(TICK_S)
    assert scene.calls == calls + 1
