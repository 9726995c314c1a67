# SPDX-License-Identifier: Apache-2.0
"""Policies that see several observations get those one control period before each request, of its own episode."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest
from figures import value_of

from reflex_core.errors import InferenceError, ObservationError
from reflex_core.metrics.metrics import Metrics
from reflex_core.values import Frame, Observation, Request, Served
from reflex_core.wedges.observation_history import EPISODES_KEPT, REASONS, ObservationHistory

MS = 1_000_000
PERIOD_S = 0.1


class Scene:
    """A wedge, what has passed it, and how often it filled a history."""

    def __init__(self, steps: int = 3, most_bytes: int = 1 << 30) -> None:
        self._counter = Metrics().history_filled
        self.wedge = ObservationHistory(steps, PERIOD_S, self._counter.labels, most_bytes)
        self.passed: list[Request] = []
        self.error: Exception | None = None

    @property
    def filled(self) -> dict[str, float]:
        counts = {reason: value_of(self._counter.labels(reason)) for reason in REASONS}
        return {reason: count for reason, count in counts.items() if count}

    def ask(self, at_ms: float, number: int, episode: str | None = "ep", **more: object) -> list[int]:
        """A request at this time whose state is `number`; returns the states that the policy would see."""
        request = make_request(at_ms, number, episode, **more)
        with suppress(ObservationError, InferenceError):
            self.wedge(request, self._proceed)
        observation = self.passed[-1].observation
        return [
            round(float(one.state[0])) for one in (*observation.history, observation) if one.state is not None
        ]

    def _proceed(self, request: Request) -> Served:
        self.passed.append(request)
        raise self.error or InferenceError("no policy here")


def make_request(
    at_ms: float,
    number: int,
    episode: str | None,
    history: Sequence[int] = (),
    caller: str = "",
    stamp_ms: float = 0,
) -> Request:
    def seen(value: int, stamp: float = 0.0) -> Observation:
        return Observation({}, np.array([value], np.float32), "reach", int(stamp * MS))

    earlier = tuple(seen(value, stamp_ms and stamp_ms - 50) for value in history)
    observation = Observation(
        {}, np.array([number], np.float32), "reach", int(stamp_ms * MS), history=earlier
    )
    return Request(observation, int((1000 + at_ms) * MS), f"r{number}", episode, caller=caller)


def test_each_request_looks_back_on_the_ones_before_it() -> None:
    scene = Scene()
    seen = [scene.ask(100 * number, number) for number in range(5)]
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert scene.filled == {"start": 2}


def test_the_report_says_what_came_from_where() -> None:
    scene = Scene()
    scene.ask(0, 0)
    scene.ask(90, 1)
    report = scene.passed[-1].history
    assert (report.steps, report.given, report.kept, report.filled) == (3, 0, 1, 1)
    assert report.ages_ms == pytest.approx((90, 90))
    assert report.document()["ages_ms"] == [90.0, 90.0]


def test_a_caller_that_asks_once_per_chunk_is_reported_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(steps=2)
    with caplog.at_level(logging.WARNING):
        assert [scene.ask(at, at) for at in (0, 800, 1600)] == [[0, 0], [800, 800], [1600, 1600]]
    assert scene.filled == {"start": 1, "gap": 2}
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the policy looks back 1 observations of 100 ms each, and of the episode 0 were there" in line
    assert scene.passed[-1].history.ages_ms == (0.0,)


def test_observations_without_inference_are_looked_back_at() -> None:
    scene = Scene(steps=2)
    scene.ask(0, 0)
    assert [scene.wedge.observe(make_request(at, at, "ep")) for at in range(100, 800, 100)][-1] == 3
    assert scene.ask(800, 800) == [700, 800]
    with pytest.raises(ObservationError, match="'observe_only' needs an 'episode_id'"):
        scene.wedge.observe(make_request(0, 0, None))


def test_a_history_that_came_along_is_taken_as_it_is() -> None:
    scene = Scene()
    scene.ask(0, 0)
    assert scene.ask(100, 9, history=[7, 8]) == [7, 8, 9]
    assert scene.passed[-1].history.ages_ms == (None, None)
    assert scene.ask(200, 9, history=[8]) == [8, 8, 9]
    # the one that came with a history was not kept
    assert scene.ask(300, 10)[-2:] == [10, 10]


def test_what_the_nodes_buffer_lacks_is_not_made_up_from_elsewhere() -> None:
    """Its bag has what it looked back at, and nothing else."""
    scene = Scene(steps=2)
    scene.ask(0, 0, stamp_ms=5000, caller="ros")
    assert scene.ask(90, 1, stamp_ms=5090, caller="ros") == [1, 1]
    assert scene.filled == {"start": 1, "gap": 1}
    assert scene.wedge.size_bytes == 0


def test_stamps_count_where_there_are_some() -> None:
    scene = Scene(steps=2)
    scene.ask(0, 0, stamp_ms=5000)
    assert scene.ask(90_000, 1, stamp_ms=5100) == [0, 1]
    assert scene.ask(90_000, 2, stamp_ms=5200, history=[7]) == [7, 2]
    assert scene.passed[-1].history.ages_ms == pytest.approx((50,))


def test_episodes_and_robots_are_kept_apart_and_strangers_share_nothing() -> None:
    scene = Scene(steps=2)
    scene.ask(0, 1, episode="one")
    assert scene.ask(100, 2, episode="other") == [2, 2]
    assert scene.ask(100, 3, episode="one", caller="arm7") == [3, 3]
    assert scene.ask(100, 4, episode="one") == [1, 4]
    assert scene.ask(100, 5, episode=None) == scene.ask(200, 5, episode=None)
    assert scene.filled == {"start": 3, "no_episode": 2}


def test_an_episode_that_begins_anew_is_forgotten() -> None:
    scene = Scene(steps=2)
    scene.ask(0, 1)
    scene.wedge.forget("ep")
    assert scene.ask(100, 2) == [2, 2]


def test_what_was_refused_is_not_looked_back_at() -> None:
    scene = Scene(steps=2)
    scene.error = ObservationError("no good")
    scene.ask(0, 1)
    scene.error = None
    assert scene.ask(100, 2) == [2, 2]
    assert scene.ask(200, 3) == [2, 3], "a model that failed says nothing against the observation"


def test_a_clock_that_is_set_back_begins_anew() -> None:
    scene = Scene(steps=2)
    scene.ask(50_000, 1)
    assert scene.ask(0, 2) == [2, 2]
    assert scene.ask(100, 3) == [2, 3]


def test_memory_is_bounded_in_episodes_and_bytes() -> None:
    scene = Scene(steps=2, most_bytes=1000)
    frame = {"top": Frame(bytes(400), "rgb8", 1, 1)}

    def push(episode: str) -> None:
        request = Request(Observation(frame, None, ""), 1, "r", episode)
        scene.wedge.observe(request)

    for number in range(EPISODES_KEPT + 5):
        push(f"ep{number}")
    assert scene.wedge.size_bytes == 800
    assert len(scene.wedge._episodes) == 2
    many = Scene(steps=2)
    for number in range(EPISODES_KEPT + 5):
        many.ask(0, number, episode=f"ep{number}")
    assert Counter(map(type, many.wedge._episodes)) == {tuple: EPISODES_KEPT}
