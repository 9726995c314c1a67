# SPDX-License-Identifier: Apache-2.0
"""What the guard says of itself, to people and in the log, and what it refuses to judge."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
from guarded import COLUMNS, FRANKA, FREE, MEASURED, MIDDLE, answering, guard_of, request, rows, spoiled

from reflex_core.errors import InferenceError, ObservationError
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.limits.limits import effective_limits
from reflex_core.robot.limits.safety_config import CLIP
from reflex_core.robot.limits.trips import CallerError
from reflex_core.values import HOLD, POLICY, ROS, ActionChunk, Floats, Request, Served
from reflex_core.wedges.guard import CALLERS_SHOWN, Guard

OUTSIDE, CLEAN = rows(np.full(7, 50.0, np.float32)), rows(MEASURED)


def guard_that_trips_after(clamps: int, metrics: Metrics | None = None) -> Guard:
    limits = effective_limits(FRANKA.joint_names, FRANKA, None)
    return Guard(limits, COLUMNS, metrics or Metrics(), "franka", CLIP, clamps)


def request_by(caller: str, state: Floats | None = MEASURED) -> Request:
    return dataclasses.replace(request(None, state), caller=caller)


def never(_: Request) -> Served:
    raise AssertionError("inference ran although the caller is tripped")


def test_who_is_tripped_and_who_is_counted_are_distinguished() -> None:
    guard = guard_that_trips_after(3)
    for caller, clamps in (("calm", 0), ("worst", 3), ("worse", 2), ("bad", 1)):
        guard(request_by(caller), answering(CLEAN))
        for _ in range(clamps):
            guard(request_by(caller), answering(OUTSIDE))
    status = guard.status()
    assert (status.tripped, status.tripped_total, status.tripped_callers) == (True, 1, ("worst",))
    assert status.consecutive_clamps == 3
    assert status.callers == {"worst": 3, "worse": 2, "bad": 1}
    assert "3 chunks in a row" in status.trip_reason
    counted = guard.status("worse")
    assert (counted.tripped, counted.trip_reason, counted.consecutive_clamps) == (False, "", 2)
    assert guard.status("nobody").consecutive_clamps == 0


def test_who_is_tripped_is_a_metric() -> None:
    metrics = Metrics()
    guard = guard_that_trips_after(1, metrics)

    def shown(caller: str) -> float | None:
        labels = {"embodiment": "franka", "caller": caller}
        return metrics.registry.get_sample_value("reflex_guard_tripped", labels)

    assert (shown(ROS), shown("a")) == (0.0, None)
    guard(request_by("a"), answering(OUTSIDE))
    assert (shown(ROS), shown("a")) == (0.0, 1.0)


def test_the_callers_it_shows_are_bounded() -> None:
    guard = guard_that_trips_after(1)
    for number in range(CALLERS_SHOWN + 3):
        guard(request_by(f"arm-{number}"), answering(OUTSIDE))
    status = guard.status()
    assert status.tripped_total == CALLERS_SHOWN + 3
    assert len(status.tripped_callers) == len(status.callers) == CALLERS_SHOWN


def test_nothing_has_happened_to_a_new_guard() -> None:
    status = guard_that_trips_after(3).status()
    assert (status.tripped, status.consecutive_clamps, status.inference_count) == (False, 0, 0)
    assert (status.violations_total, status.tripped_total, status.callers) == (0, 0, {})


def test_every_line_about_every_chunk_is_counted() -> None:
    guard = guard_that_trips_after(0)
    for _ in range(2):
        lines = len(guard(request_by("a"), answering(OUTSIDE)).guard.violations)
    assert guard.status().violations_total == 2 * lines > 0


def test_a_trip_and_its_reset_are_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    guard = guard_that_trips_after(2)
    with caplog.at_level(logging.INFO):
        for _ in range(4):
            guard(request_by("a"), answering(OUTSIDE))
        assert guard.reset("a")
        assert not guard.reset("a")
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 3
    assert logged[0].startswith("the guard changed a chunk of caller 'a': panda_joint1 above max: 50 > ")
    assert logged[0].count(";") == 2, "three lines are enough"
    assert logged[1].startswith("guard_tripped: caller 'a': consecutive_clamp_limit_exceeded")
    assert logged[2] == "guard_tripped ended for caller 'a': reset"


def test_the_robot_of_this_process_has_log_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """However many invented callers are clamped, theirs are one line together."""
    guard = guard_that_trips_after(0)
    for caller in ("a", "b", ROS, "c"):
        guard(request_by(caller), answering(OUTSIDE))
    logged = [record.getMessage() for record in caplog.records]
    assert [line.split("caller ")[1].split(":")[0] for line in logged] == ["'a'", f"'{ROS}'"]


def test_only_the_first_changed_chunk_in_a_row_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    guard = guard_that_trips_after(0)
    guard(request_by(ROS), answering(CLEAN))
    assert caplog.records == []
    for _ in range(3):
        guard(request_by(ROS), answering(OUTSIDE))
    assert len(caplog.records) == 1


def test_chunks_that_are_clean_and_clamped_by_turns_are_one_log_line_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = guard_that_trips_after(0)
    for _ in range(50):
        guard(request_by(ROS), answering(OUTSIDE))
        guard(request_by(ROS), answering(CLEAN))
    assert len(caplog.records) == 1
    lines = len(guard(request_by(ROS), answering(OUTSIDE)).guard.violations)
    assert guard.status().violations_total == 51 * lines, "the counter is exact"


def test_what_is_not_finite_and_what_cannot_be_checked_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = guard_of(FRANKA)
    guard(request(), answering(spoiled()))
    assert "non_finite: 1 NaN or Inf values for request 'request-1': holding" in caplog.text
    caplog.clear()
    guard(request(), answering(np.zeros((5, 6), np.float32)))
    assert "guard_error: request 'request-1' cannot be checked: holding" in caplog.text
    assert "Traceback" in caplog.text


WRONG: dict[str, Floats] = {
    "double precision": rows(MIDDLE).astype(np.float64),  # type: ignore[dict-item]
    "whole numbers": rows(MIDDLE).astype(np.int32),  # type: ignore[dict-item]
    "a column too few": np.zeros((5, 6), np.float32),
    "a column too many": np.zeros((5, 8), np.float32),
    "no rows": np.zeros((0, 7), np.float32),
    "an axis too many": np.zeros((1, 5, 7), np.float32),
    "an axis too few": MIDDLE,
}


@pytest.mark.parametrize("actions", list(WRONG.values()), ids=list(WRONG))
@pytest.mark.parametrize("limited", [True, False])
def test_what_is_no_chunk_of_this_robot_is_held(actions: Floats, limited: bool) -> None:
    guard = guard_of(FREE if limited else None)
    served = guard(request(), answering(actions))
    assert (served.chunk.source, served.hold_reason) == (HOLD, "guard_error")
    assert served.guard.clamped
    assert served.guard.clamp_count == actions.size
    assert served.guard.violations[0].startswith("guard_error: a chunk must be (horizon, 7) float32, got ")
    assert served.chunk.actions.shape == (max(len(actions), 1), 7)
    np.testing.assert_array_equal(served.chunk.actions[0], MEASURED)


def test_a_hold_is_as_long_as_the_chunk_it_stands_for() -> None:
    for horizon in (1, 3, 40):
        served = guard_of(FRANKA)(request(), answering(np.full((horizon, 7), np.nan, np.float32)))
        assert served.chunk.actions.shape == (horizon, 7)


def test_a_position_of_another_size_is_no_position() -> None:
    """Without limits it is unknown that the state is another robot's, but its size says so."""
    guard = Guard(None, np.arange(5), Metrics())
    with pytest.raises(InferenceError, match="no known position to hold") as caught:
        guard(request(), answering(spoiled()))
    assert caught.value.slug == "non-finite-actions"
    assert guard_of(None)(request(), answering(spoiled())).chunk.source == HOLD


@pytest.mark.parametrize(
    ("numbers", "slug"), [(None, "missing-state"), (6, "state-length"), (0, "state-length")]
)
def test_a_tripped_caller_learns_what_its_state_lacks(numbers: int | None, slug: str) -> None:
    guard = guard_that_trips_after(1)
    with pytest.raises(InferenceError):
        guard(request_by("a", None), answering(spoiled()))
    state = None if numbers is None else MEASURED[:numbers]
    with pytest.raises(ObservationError, match="7 numbers") as caught:
        guard(request_by("a", state), never)
    assert caught.value.slug == slug


def test_a_tripped_caller_is_served_again_only_after_its_own_reset() -> None:
    guard = guard_that_trips_after(1)
    guard(request_by("a"), answering(OUTSIDE))
    with pytest.raises(CallerError):
        guard.reset("b")
    held = guard(request_by("a"), never)
    assert (held.latency_ms, held.fallback.deadline_exceeded, held.trace_seq, held.seed) == (
        0.0,
        False,
        -1,
        0,
    )
    assert (held.fallback.age_ms, held.fallback.request_id, held.injected_latency_ms) == (0.0, "", 0.0)
    assert held.guard.clamp_count == 0
    np.testing.assert_array_equal(held.raw_actions, held.chunk.actions)
    guard.reset("a")
    assert guard(request_by("a"), answering(CLEAN)).chunk.source == POLICY


def test_a_chunk_of_another_rate_is_checked_at_its_own() -> None:
    guard = guard_of(FRANKA)
    fast: Floats = (MEASURED + np.arange(1, 11, dtype=np.float32)[:, None] * 0.1).astype(np.float32)
    for dt_s, clamped in ((0.05, False), (0.02, True), (0.05, False)):
        chunk = ActionChunk(fast, FRANKA.joint_names, dt_s)
        served = guard(
            request_by(f"rate-{dt_s}"),
            lambda request, chunk=chunk: dataclasses.replace(answering(fast)(request), chunk=chunk),
        )
        assert served.guard.clamped is clamped


def test_a_tripped_caller_whose_command_is_known_needs_no_state() -> None:
    guard = guard_that_trips_after(1)
    held = guard(request_by("a"), answering(OUTSIDE, dt_s=3600.0))
    again = guard(request_by("a", None), never)
    np.testing.assert_allclose(again.chunk.actions, held.chunk.actions, atol=1e-6)


@pytest.mark.parametrize("known", [True, False])
def test_a_tripped_answer_is_said_of_the_slot_that_was_to_answer(known: bool) -> None:
    """Where it is unknown which that is, of the one before."""

    def prototype(request: Request) -> Served:
        return dataclasses.replace(answering(CLEAN)(request), slot="shadow", model_version="other@1")

    guard = Guard(None, COLUMNS, Metrics(), "none", CLIP, 1, prototype if known else None)
    guard(request_by("a"), answering(spoiled()))
    held = guard(request_by("a"), never)
    assert (held.slot, held.model_version) == (("shadow", "other@1") if known else ("prod", "test@0"))
    assert held.guard.violations[0].startswith("guard_tripped: ")


def test_a_hold_is_what_was_commanded_and_is_held_on_without_a_measurement() -> None:
    guard = guard_of(FRANKA)
    first = guard(request(), answering(spoiled()))
    again = guard(request(state=None), answering(spoiled()))
    np.testing.assert_array_equal(again.chunk.actions, first.chunk.actions)


def test_a_tripped_caller_with_a_whole_state_that_is_no_position_gets_an_error_of_the_guard() -> None:
    guard = guard_that_trips_after(1)
    nowhere = np.full(7, np.nan, np.float32)
    for proceed in (answering(spoiled()), never):
        with pytest.raises(InferenceError, match="no known position to hold") as caught:
            guard(request_by("a", nowhere), proceed)
        assert caught.value.slug == "guard_tripped"
