# SPDX-License-Identifier: Apache-2.0
"""What becomes of an answer, and who hears of it: recorders, the guard and whoever remembers the episode."""

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
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, POLICY, Fallback, Request, Served
from reflex_ros.node.chunk_loop import RETRY_S, ChunkLoop


class Commanded(Scene):
    """A scene in which everybody who is told of an answer keeps it."""

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

        told = {"executed": executed, "not_executed": not_executed}
        loaded: Any = SimpleNamespace(**{**vars(before._loaded), **told})
        recorder_hook: Any = SimpleNamespace(answered=lambda *answer: self.recorded.append(answer))
        self.loop = self.world.loop = ChunkLoop(
            before._engine, loaded, self.world.buffer, before._outputs, clock.wall_ns, before._tuning, self.progress, recorder_hook,
            monotonic_ns=before._monotonic_ns, wall_clock=True,
        )  # fmt: skip

    def answers(self, change: Any) -> None:
        """Let `change` make what comes of each answer."""
        act: Any = self.engine.act
        self.engine.act = lambda request: change(act(request))  # type: ignore[method-assign]

    def asks_again(self) -> None:
        """Have the next chunk made at once."""
        self.loop.restart()
        self.forgotten.clear()
        self.executed.clear()
        self.recorded.clear()
        self.run(TICK_S)


@pytest.fixture
def told() -> Commanded:
    told = Commanded()
    told.run(0.3)
    assert [command.is_hold for command in told.sent] == [False]
    return told


@pytest.mark.parametrize(("named", "known"), [("", None), ("pick", "pick")])
def test_a_chunk_that_is_sent_is_of_its_episode_and_begins_with_the_row_that_is_due(
    told: Commanded, named: str, known: str | None
) -> None:
    told.engine.latency_s = 0.17
    told.loop.episode_id = named
    told.asks_again()
    request, served, consumed = told.recorded[0]
    assert request.episode_id == known
    assert isinstance(served, Served)
    assert consumed is told.world.buffer.consumed
    assert len(consumed.states) == 1
    assert told.executed == [(known, 3)]
    assert told.forgotten == []


def test_a_failure_is_recorded_and_an_engine_that_is_not_ready_says_nothing_of_the_model(
    told: Commanded,
) -> None:
    told.fails_with(InferenceError("it raised"))
    told.asks_again()
    ((_, failure, consumed),) = told.recorded
    assert isinstance(failure, Failure)
    assert (failure.slug, failure.message) == ("inference-error", "it raised")
    assert consumed is told.world.buffer.consumed
    told.fails_with(NotReadyError("degraded"))
    told.asks_again()
    assert told.recorded == []


def test_an_answer_that_is_thrown_away_is_recorded_and_nobody_takes_it_for_executed(told: Commanded) -> None:
    executes = told.world.guard.commands.recall()

    def overtaken(served: Served) -> Served:
        told.loop.restart()
        return served

    told.answers(overtaken)
    told.asks_again()
    assert len(told.recorded) == 1
    assert (told.executed, told.forgotten) == ([], [None])
    assert told.world.guard.commands.recall() is executes


def test_a_first_chunk_that_is_over_before_it_comes_is_not_taken_for_executed() -> None:
    told = Commanded()
    told.engine.latency_s = HORIZON * DT_S + 0.1
    while not told.calls:
        told.run(TICK_S)
    assert told.progress.problem == "chunk_expired"
    assert told.sent == []
    assert (told.executed, told.forgotten) == ([], [None])
    assert told.world.guard.commands.recall() is None


def test_a_stand_in_from_before_a_hold_is_not_taken_for_executed(told: Commanded) -> None:
    told.loop._hold("stale")
    told.answers(
        lambda served: replace(
            served, chunk=replace(served.chunk, source=LAST_KNOWN_GOOD), fallback=Fallback(age_ms=3000.0)
        )
    )
    sent = len(told.sent)
    told.asks_again()
    assert told.progress.problem == "deadline"
    assert len(told.sent) == sent
    assert (told.executed, told.forgotten) == ([], [None])


def test_an_answer_that_is_a_hold_where_nothing_can_be_held_at_counts_for_nothing(
    told: Commanded, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, chunks = told.loop._chunk_id, told.progress.chunks
    for known in ("measured", "believed"):
        monkeypatch.setattr(told.world.buffer, known, lambda *_: None)

    def lost(served: Served) -> Served:
        told.world.guard.commands.end()
        return replace(served, chunk=replace(served.chunk, source=HOLD), hold_reason="rejected")

    told.answers(lost)
    sent = len(told.sent)
    told.asks_again()
    assert (len(told.sent), told.progress.unheld) == (sent, 1)
    assert (told.loop._chunk_id, told.progress.chunks, told.progress.holds) == (number, chunks, 0)
    calls, told.engine.latency_s = told.calls, 0.0
    told.run(1.0)
    assert 8 <= told.calls - calls <= 1.0 / RETRY_S, "it is asked again soon, and not at once"


def stand_in(
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
        (stand_in(900.0), True), (stand_in(1100.0), False), (stand_in(600.0, 600.0), False),
        (stand_in(0.0, 1100.0, POLICY), True),
    ],
)  # fmt: skip
def test_a_second_after_a_hold_only_what_is_younger_stands_in(
    told: Commanded, answer: Callable[[Served], Served], sent: bool
) -> None:
    """A fresh chunk is fresh however long it was made to wait."""
    told.fails_with(InferenceError("it raised"))
    told.run(0.1)
    told.loop._hold("stale")
    told.run(0.99)
    told.engine.model = lambda request: np.tile(request.observation.state, (HORIZON, 1)).astype(np.float32)
    told.engine.latency_s = 0.0
    told.answers(answer)
    before = len(told.sent)
    told.loop._retry_at = 0.0
    told.run(TICK_S)
    assert [command.is_hold for command in told.sent[before:]] == [False] * sent


def test_a_first_hold_of_the_deadline_outdates_what_was_made_before_it(told: Commanded) -> None:
    told.run(1.0)
    told.loop._hold("deadline")
    told.answers(stand_in(500.0))
    told.asks_again()
    assert told.executed == []
    assert told.progress.problem_text == "the last good chunk is from before the robot held"


def test_after_a_hold_nothing_of_before_goes_on_and_the_next_chunk_is_asked_for_at_once(
    told: Commanded,
) -> None:
    calls = told.calls
    assert told.loop._hold("stale")
    assert told.forgotten[-1:] == [None]
    told.run(TICK_S)
    assert told.calls == calls + 1
