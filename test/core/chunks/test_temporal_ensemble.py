# SPDX-License-Identifier: Apache-2.0
"""Temporal ensembling: the mean that LeRobot takes, what it goes on with, and when it begins anew."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds import JOINTS, act
from numpy.typing import NDArray

from reflex_core.chunks.temporal_ensemble import Average, RecordedEnsemble, TemporalEnsemble, averaged
from reflex_core.export.binding import Binding
from reflex_core.export.export import open_export
from reflex_core.policy.load import load_policy
from reflex_core.reports import EnsembleReport, Fallback
from reflex_core.robot.gripper import End
from reflex_core.values import (
    CLOUD,
    HOLD,
    LAST_KNOWN_GOOD,
    ActionChunk,
    Floats,
    Inference,
    Observation,
    Request,
    Served,
)

ROWS, DIM, DT_S = 12, 7, 0.05
START_NS = 1_700_000_000_000_000_000
_numbers = itertools.count()


@pytest.fixture(scope="module")
def binding(tmp_path_factory: pytest.TempPathFactory) -> Binding:
    path: Path = tmp_path_factory.mktemp("act")
    act(chunk=ROWS, temporal_ensemble_coeff=0.01)(path)
    return load_policy(open_export(path), None, "cpu", 1).binding


def chunks(count: int) -> list[Floats]:
    random = np.random.default_rng(4)
    return [random.normal(size=(ROWS, DIM)).astype(np.float32) for _ in range(count)]


def weighted(predictions: list[NDArray[Any]], coefficient: float) -> NDArray[Any]:
    """The definition: w_i = exp(-c i), i = 0 the oldest, normalised."""
    weights = np.exp(-coefficient * np.arange(len(predictions)))
    return np.asarray(np.tensordot(weights / weights.sum(), np.stack(predictions), 1))


@pytest.mark.parametrize("coefficient", [0.01, 0.0, 1.0, -0.2, 10.0])
def test_each_moment_is_the_weighted_mean_of_all_chunks_that_cover_it(coefficient: float) -> None:
    made, mean = chunks(30), None
    for step, chunk in enumerate(made):
        mean = averaged(chunk, mean, 1.0 if step else 0.0, coefficient)
        for row in range(ROWS):
            covering = [
                made[first][step + row - first] for first in range(step + 1) if step + row - first < ROWS
            ]
            np.testing.assert_allclose(mean.rows[row], weighted(covering, coefficient), atol=2e-6)
            assert mean.counts[row] == len(covering)


def test_the_rows_between_two_are_linear_and_as_sure_as_the_later_one() -> None:
    old, new = chunks(2)
    earlier = Average(old, np.array([3] * 6 + [1] * 6))
    found = averaged(new, earlier, 2.5, 0.0)
    np.testing.assert_allclose(found.rows[0], 0.75 * (old[2] + old[3]) / 2 + 0.25 * new[0], atol=1e-6)
    assert found.counts.tolist() == [4, 4, 4, 2, 2, 2, 2, 2, 2, 1, 1, 1]
    np.testing.assert_array_equal(found.rows[9:], new[9:])


class Robot:
    """One episode after another through one slot; every answer is delivered unless served otherwise."""

    def __init__(self, binding: Binding, coefficient: float = 0.5) -> None:
        self.ensemble, self.binding = TemporalEnsemble(coefficient, binding), binding

    def request(self, rows: float, episode: str | None = "pick", **changes: Any) -> Request:
        seen = Observation({}, None, changes.pop("instruction", "reach"), START_NS + round(rows * DT_S * 1e9))
        made = Request(seen, time.monotonic_ns(), f"request-{next(_numbers)}", episode)
        return replace(made, **changes)

    def ask(
        self, chunk: Floats, rows: float, change: Callable[[Served], Served] = lambda served: served, **changes: Any
    ) -> Served:  # fmt: skip
        request = self.request(rows, **changes)
        actions, report = self.ensemble.combine(request, chunk)
        served = Served(
            ActionChunk(actions, tuple(JOINTS), DT_S), actions, request.request_id, request.episode_id, 0, "prod", "m@1",
            Inference("onnx_cpu", 1), ensemble=report,
        )  # fmt: skip
        self.ensemble.delivered(request, change(served))
        return served


def test_the_first_chunk_is_the_networks_own_and_the_next_goes_on_with_it(binding: Binding) -> None:
    robot, (one, two, three) = Robot(binding), chunks(3)
    first, second = robot.ask(one, 0), robot.ask(two, 1)
    assert first.chunk.actions.tobytes() == one.tobytes()
    assert (first.ensemble.chunks, first.ensemble.previous) == (1, "")
    np.testing.assert_allclose(second.chunk.actions[0], weighted([one[1], two[0]], 0.5), atol=1e-6)
    assert (second.ensemble.chunks, second.ensemble.previous) == (2, first.request_id)
    third = robot.ask(three, 2)
    np.testing.assert_allclose(third.chunk.actions[0], weighted([one[2], two[1], three[0]], 0.5), atol=1e-6)
    assert robot.ensemble.counts == {"first": 1, "averaged": 2}


def test_a_caller_may_say_how_many_rows_are_over(binding: Binding) -> None:
    robot, (one, two) = Robot(binding), chunks(2)
    robot.ask(one, 0)
    served = robot.ask(two, 0, elapsed_rows=3.0)
    np.testing.assert_allclose(served.chunk.actions[0], weighted([one[3], two[0]], 0.5), atol=1e-6)
    assert served.ensemble.elapsed_rows == 3.0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"instruction": "push"}, "instruction"),
        ({"previous_request_id": "another"}, "other_chunk"),
        ({"elapsed_rows": -1.0}, "stale"),
        ({"elapsed_rows": 12.0}, "stale"),
        ({"episode": "place"}, "first"),
    ],
)
def test_a_mean_begins_anew_where_it_does_not_fit(
    binding: Binding, changes: dict[str, Any], why: str
) -> None:
    robot, (one, two) = Robot(binding), chunks(2)
    robot.ask(one, 0)
    served = robot.ask(two, 1, **changes)
    assert served.chunk.actions.tobytes() == two.tobytes()
    assert (served.ensemble.chunks, served.ensemble.previous) == (1, "")
    assert robot.ensemble.counts[why] >= 1
    assert "averaged" not in robot.ensemble.counts


def test_without_stamps_it_is_not_known_how_many_rows_are_over(binding: Binding) -> None:
    robot, (one, two) = Robot(binding), chunks(2)
    robot.ask(one, 0)
    unstamped = replace(robot.request(1), observation=Observation({}, None, "reach"))
    actions, report = robot.ensemble.combine(unstamped, two)
    assert (actions.tobytes(), report.chunks) == (two.tobytes(), 1)
    assert robot.ensemble.counts["unknown_rows"] == 1


@pytest.mark.parametrize(
    "ended",
    [
        lambda served: replace(served, chunk=replace(served.chunk, source=HOLD), hold_reason="non_finite"),
        lambda served: replace(served, chunk=replace(served.chunk, source=CLOUD)),
        lambda served: replace(served, chunk=replace(served.chunk, source=LAST_KNOWN_GOOD), fallback=Fallback(request_id="?")),
    ],
    ids=["hold", "cloud", "another chunk"],
)  # fmt: skip
def test_after_what_is_no_chunk_of_this_policy_a_mean_begins_anew(
    binding: Binding, ended: Callable[[Served], Served]
) -> None:
    robot, (one, two, three) = Robot(binding), chunks(3)
    robot.ask(one, 0)
    robot.ask(two, 1, ended)
    assert robot.ask(three, 2).ensemble.chunks == 1


def test_the_tail_of_the_executing_chunk_leaves_the_mean_as_it_is(binding: Binding) -> None:
    robot, (one, two, three) = Robot(binding), chunks(3)
    first = robot.ask(one, 0)

    def tail(served: Served) -> Served:
        chunk = replace(served.chunk, source=LAST_KNOWN_GOOD)
        return replace(served, chunk=chunk, fallback=Fallback(request_id=first.request_id))

    robot.ask(two, 1, tail)
    third = robot.ask(three, 2)
    np.testing.assert_allclose(third.chunk.actions[0], weighted([one[2], three[0]], 0.5), atol=1e-6)


def test_rows_that_are_counted_of_a_fallback_are_those_of_the_mean_that_it_goes_on_with(
    binding: Binding,
) -> None:
    robot, (one, two, three) = Robot(binding), chunks(3)
    first = robot.ask(one, 0)

    def tail(served: Served) -> Served:
        chunk = replace(served.chunk, actions=one[1:], source=LAST_KNOWN_GOOD)
        return replace(served, chunk=chunk, fallback=Fallback(request_id=first.request_id))

    late = robot.ask(two, 1, tail)
    third = robot.ask(three, 3, elapsed_rows=2.0, previous_request_id=late.request_id)
    np.testing.assert_allclose(third.chunk.actions[0], weighted([one[3], three[0]], 0.5), atol=1e-6)


def test_an_episode_that_begins_anew_or_was_stopped_is_forgotten(binding: Binding) -> None:
    robot, (one, two) = Robot(binding), chunks(2)
    robot.ask(one, 0)
    robot.ensemble.forget("pick")
    robot.ensemble.forget(None)
    assert robot.ask(two, 1).ensemble.chunks == 1


def test_the_answer_to_an_older_observation_that_comes_late_changes_nothing(binding: Binding) -> None:
    robot, (one, two, three) = Robot(binding), chunks(3)
    old = robot.request(0)
    actions, _ = robot.ensemble.combine(old, one)
    newer = robot.ask(two, 1)
    late = replace(newer, request_id=old.request_id, chunk=replace(newer.chunk, actions=actions))
    robot.ensemble.delivered(old, late)
    assert robot.ask(three, 2).ensemble.previous == newer.request_id


def test_requests_without_an_episode_and_chunks_with_nan_are_not_averaged(binding: Binding) -> None:
    robot, (one, two) = Robot(binding), chunks(2)
    robot.ask(one, 0)
    assert not robot.ask(two, 1, episode=None).ensemble.present
    broken = two.copy()
    broken[0, 0] = np.nan
    assert not robot.ensemble.combine(robot.request(1), broken)[1].present


def test_a_gripper_goes_to_its_ends_after_the_mean_and_not_before(binding: Binding) -> None:
    ends = (End(6, np.float32(0.0), np.float32(1.0), np.float32(0.5), inverted=False),)
    robot, (one, two) = Robot(replace(binding, ends=ends), 0.0), chunks(2)
    one[:, 6], two[:, 6] = 0.4, 0.7  # of one alone it is closed
    assert robot.ask(one, 0).chunk.actions[0, 6] == 0.0
    served = robot.ask(two, 1)
    assert served.chunk.actions[0, 6] == 1.0
    assert served.chunk.actions.flags.c_contiguous


def test_a_recording_is_averaged_to_the_same_bits(binding: Binding) -> None:
    robot, again = Robot(binding), RecordedEnsemble(binding)
    for step, chunk in enumerate(chunks(8)):
        served = robot.ask(chunk, 1.03 * step)
        actions, found = again.combine(("pick", served.request_id), served.ensemble, chunk, None)
        assert (actions.tobytes(), found) == (served.chunk.actions.tobytes(), True)
    orphan = EnsembleReport(5, "gone", 1.0, 0.5)
    chunk = chunks(1)[0]
    actions, found = again.combine(("pick", "x"), orphan, chunk, None)
    assert (actions.tobytes(), found) == (chunk.tobytes(), False)
