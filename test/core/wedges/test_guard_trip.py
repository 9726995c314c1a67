# SPDX-License-Identifier: Apache-2.0
"""The guard trips, stays tripped and is reset."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from guarded import COLUMNS, FRANKA, HIGH, HORIZON, MEASURED, MIDDLE, answering, count, request, rows, spoiled

from reflex_core.errors import InferenceError, ObservationError
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.limits.limits import effective_limits
from reflex_core.robot.limits.safety_config import CLIP, REJECT
from reflex_core.values import EPISODE, HOLD, LAST_KNOWN_GOOD, POLICY, Request, Served
from reflex_core.wedges.guard import Guard
from reflex_core.wedges.wedge import Proceed

OUTSIDE = rows(np.full(7, 50.0, np.float32))
CLEAN = rows(MEASURED)
PICK = f"{EPISODE}pick"  # who asks in the requests of these tests


def guard_that_trips_after(clamps: int, metrics: Metrics | None = None, mode: str = CLIP) -> Guard:
    limits = effective_limits(FRANKA.joint_names, FRANKA, None)
    return Guard(limits, COLUMNS, metrics or Metrics(), "franka", mode, clamps)


def never(_: Request) -> Served:
    raise AssertionError("inference ran although the guard is tripped")


def from_source(source: str, proceed: Proceed) -> Proceed:
    def answer(request: Request) -> Served:
        served = proceed(request)
        return dataclasses.replace(served, chunk=dataclasses.replace(served.chunk, source=source))

    return answer


def tripped(metrics: Metrics | None = None) -> Guard:
    guard = guard_that_trips_after(1, metrics)
    guard(request(), answering(OUTSIDE))
    return guard


def test_the_last_of_n_clamped_chunks_is_held_already() -> None:
    guard = guard_that_trips_after(3)
    for _ in range(2):
        assert guard(request(), answering(OUTSIDE)).chunk.source == POLICY
    served = guard(request(), answering(OUTSIDE))
    assert (served.chunk.source, served.hold_reason) == (HOLD, "guard_tripped")
    assert (served.chunk.actions <= HIGH).all()
    assert served.guard.violations[0].startswith(
        "guard_tripped: consecutive_clamp_limit_exceeded: 3 chunks in a row"
    )
    assert any("above max" in line for line in served.guard.violations)


def test_a_tripped_guard_holds_without_inference() -> None:
    guard = tripped()
    held = guard(request(), never)
    again = guard(request(), never)
    assert (held.chunk.source, held.hold_reason) == (HOLD, "guard_tripped")
    assert held.guard.clamped
    np.testing.assert_array_equal(held.chunk.actions, again.chunk.actions)
    np.testing.assert_array_equal(held.chunk.actions, np.tile(held.chunk.actions[0], (HORIZON, 1)))


def test_a_tripped_answer_is_of_the_request_that_was_asked() -> None:
    guard = tripped()
    incoming = dataclasses.replace(request(), request_id="request-2", seed=77)
    served = guard(incoming, never)
    assert (served.request_id, served.episode_id, served.seed) == ("request-2", "pick", 77)
    assert (served.inference.denoise_steps, served.latency_ms, served.slot) == (0, 0.0, "prod")
    np.testing.assert_array_equal(served.chunk.actions, rows(MEASURED))


def test_a_tripped_guard_without_a_known_position_gives_an_error_and_never_zeros() -> None:
    guard = guard_that_trips_after(1)
    with pytest.raises(InferenceError, match="no known position to hold"):
        guard(request(state=None), answering(spoiled()))
    for _ in range(2):
        with pytest.raises(ObservationError, match="the guard is tripped and needs the state") as caught:
            guard(request(state=None), never)
        assert caught.value.slug == "missing-state"


def test_a_tripped_guard_of_a_robot_whose_state_says_no_position_gives_an_error() -> None:
    guard = Guard(None, None, Metrics(), "none", CLIP, 1)
    for _ in range(2):
        with pytest.raises(InferenceError, match="no known position to hold") as caught:
            guard(request(), answering(spoiled()))
    assert caught.value.slug == "guard_tripped"


def test_a_clean_chunk_begins_the_count_anew() -> None:
    guard = guard_that_trips_after(2)
    for actions in (OUTSIDE, CLEAN, OUTSIDE, CLEAN, OUTSIDE):
        guard(request(None), answering(actions))
    assert not guard.status().tripped
    assert guard.status().consecutive_clamps == 1


@pytest.mark.parametrize("source", [HOLD, LAST_KNOWN_GOOD])
def test_a_clean_fallback_neither_counts_nor_begins_the_count_anew(source: str) -> None:
    """A deadline that is missed every other time must not hide a model that breaks limits every time it answers."""
    guard = guard_that_trips_after(2)
    guard(request(None), answering(OUTSIDE))
    guard(request(None), from_source(source, answering(CLEAN)))
    assert guard.status().consecutive_clamps == 1
    guard(request(None), answering(OUTSIDE))
    assert guard.status().tripped


ELSEWHERE = rows((MIDDLE + 0.5).astype(np.float32))  # a robot in the middle cannot be there within a row


@pytest.mark.parametrize("mode", [CLIP, REJECT])
def test_a_fallback_that_begins_where_the_robot_is_not_any_more_does_not_count(mode: str) -> None:
    """It held meanwhile, because a sensor blipped: the policy has done nothing wrong."""
    guard = guard_that_trips_after(2, mode=mode)
    for _ in range(5):
        served = guard(request(state=MIDDLE), from_source(LAST_KNOWN_GOOD, answering(ELSEWHERE)))
        assert served.guard.clamped
    assert guard.status().consecutive_clamps == 0
    for _ in range(2):
        guard(request(state=MIDDLE), answering(ELSEWHERE))
    assert guard.status().tripped, "a policy's own chunk does"


@pytest.mark.parametrize("mode", [CLIP, REJECT])
def test_a_fallback_that_breaks_a_limit_wherever_the_robot_is_counts(mode: str) -> None:
    """A model that is always late answers with nothing else."""
    guard = guard_that_trips_after(2, mode=mode)
    for _ in range(2):
        guard(request(), from_source(LAST_KNOWN_GOOD, answering(OUTSIDE)))
    assert guard.status().tripped


def test_chunks_that_are_not_finite_trip_the_guard() -> None:
    guard = guard_that_trips_after(2)
    for _ in range(2):
        guard(request(), answering(spoiled()))
    assert guard.status().tripped


def test_chunks_that_are_not_finite_count_even_where_nothing_can_be_held() -> None:
    guard = guard_that_trips_after(2)
    for slug in ("non-finite-actions", "guard_tripped"):
        with pytest.raises(InferenceError) as caught:
            guard(request(state=None), answering(spoiled()))
        assert caught.value.slug == slug
    assert guard.status(PICK).tripped


def test_rejected_chunks_trip_the_guard() -> None:
    guard = guard_that_trips_after(2, mode=REJECT)
    for _ in range(2):
        guard(request(), answering(OUTSIDE))
    assert guard.status().tripped


def test_zero_never_trips() -> None:
    guard = guard_that_trips_after(0)
    for _ in range(30):
        guard(request(None), answering(OUTSIDE))
    assert not guard.status().tripped
    assert guard.status().consecutive_clamps == 30


def test_a_failed_inference_does_not_count() -> None:
    def failing(_: Request) -> Served:
        raise InferenceError("the graph exploded")

    guard = guard_that_trips_after(1)
    with pytest.raises(InferenceError, match="exploded"):
        guard(request(), failing)
    assert not guard.status().tripped


def test_a_reset_lets_chunks_pass_and_says_whether_it_was_needed() -> None:
    guard = tripped()
    assert guard.reset(PICK)
    assert not guard.reset(PICK)
    served = guard(request(), answering(CLEAN))
    assert (served.chunk.source, served.guard.clamped) == (POLICY, False)
    assert guard.status().trip_reason == ""


def test_the_status_says_how_the_guard_stands() -> None:
    guard = guard_that_trips_after(2)
    guard(request(None), answering(CLEAN))
    guard(request(None), answering(OUTSIDE))
    status = guard.status()
    assert (status.enabled, status.tripped, status.mode) == (True, False, "clip")
    assert (status.consecutive_clamps, status.max_consecutive_clamps, status.inference_count) == (1, 2, 2)
    assert status.violations_total >= 7
    guard(request(None), answering(OUTSIDE))
    guard(request(None), never)
    status = guard.status()
    assert (status.tripped, status.inference_count) == (True, 3)
    assert "limit 2" in status.trip_reason


def test_a_guard_without_limits_says_so_and_still_trips_on_nan() -> None:
    guard = Guard(None, COLUMNS, Metrics(), "none", CLIP, 1)
    assert not guard.status().enabled
    assert guard(request(), answering(spoiled())).hold_reason == "guard_tripped"


def test_holds_of_a_tripped_guard_are_counted() -> None:
    metrics = Metrics()
    guard = tripped(metrics)
    guard(request(), never)
    assert count(metrics, "reflex_holds_total", reason="guard_tripped") == 2


def test_a_chunk_that_was_under_way_when_the_guard_tripped_is_held() -> None:
    guard = guard_that_trips_after(1)
    inside, release = threading.Event(), threading.Event()
    answers: list[Served] = []

    def slow(request: Request) -> Served:
        inside.set()
        release.wait(10)
        return answering(CLEAN)(request)

    thread = threading.Thread(target=lambda: answers.append(guard(request(), slow)))
    thread.start()
    inside.wait(10)
    guard(request(), answering(OUTSIDE))
    release.set()
    thread.join(10)
    assert answers[0].hold_reason == "guard_tripped"


def test_trips_and_resets_from_many_threads_never_let_a_bad_chunk_out() -> None:
    guard = guard_that_trips_after(3)
    driving = threading.Event()
    driving.set()
    problems: list[str] = []
    resets: list[bool] = []

    def drive(episode_id: str) -> None:
        proceed = answering(OUTSIDE)
        for _ in range(100):
            served = guard(request(episode_id), proceed)
            if not (served.chunk.actions <= HIGH).all():
                problems.append("outside its range")
            if not served.guard.clamped:
                problems.append("passed as clean")

    def reset() -> None:
        while driving.is_set():
            resets.extend(guard.reset(caller) for caller in guard.status().tripped_callers)

    drivers = [threading.Thread(target=drive, args=(f"episode-{number}",)) for number in range(3)]
    resetter = threading.Thread(target=reset)
    for thread in (*drivers, resetter):
        thread.start()
    for thread in drivers:
        thread.join(30)
    driving.clear()
    resetter.join(10)
    assert problems == []
    assert any(resets)
    for _ in range(3):
        guard(request(), answering(OUTSIDE))
    assert guard.status().tripped


def test_the_robot_is_held_where_its_command_was_when_the_guard_tripped() -> None:
    guard = guard_that_trips_after(1)
    # an hour a row: what is commanded does not move on while the test runs
    limits_free = Guard(None, COLUMNS, Metrics(), "none", CLIP, 1)
    for tested in (limits_free, guard):
        tested(request("pick"), answering(rows(MIDDLE), dt_s=3600.0))
        held = tested(request("pick"), answering(spoiled(), dt_s=3600.0))
        np.testing.assert_array_equal(held.chunk.actions, rows(MIDDLE))
