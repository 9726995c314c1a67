# SPDX-License-Identifier: Apache-2.0
"""The guard: what it changes, what it says about it, and where a robot holds when the model has no answer."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from guarded import (
    FRANKA,
    HIGH,
    HORIZON,
    LOW,
    MEASURED,
    MIDDLE,
    answering,
    count,
    guard_of,
    ramp,
    request,
    rows,
    spoiled,
)

from reflex_core.errors import InferenceError
from reflex_core.metrics.metrics import Metrics
from reflex_core.values import (
    HOLD,
    POLICY,
    Floats,
    Request,
    Served,
)
from reflex_core.wedges.guard import Guard, guard_for


def test_a_clean_chunk_passes_as_the_same_object(guard: Guard) -> None:
    proceed = answering(rows(MIDDLE))
    inner = proceed(request())
    served = guard(request(), lambda _: inner)
    assert served is inner
    assert not served.guard.clamped


def test_actions_on_the_limits_are_clean(guard: Guard) -> None:
    for edge in (LOW, HIGH):
        assert not guard(request(), answering(rows(edge))).guard.clamped


def test_what_is_outside_is_clamped_to_inside_the_float64_range(guard: Guard) -> None:
    for far in (100.0, -100.0):
        served = guard(request(), answering(rows(np.full(7, far, np.float32))))
        exact = served.chunk.actions.astype(np.float64)
        assert (exact >= FRANKA.action_min).all()
        assert (exact <= FRANKA.action_max).all()
        assert served.chunk.actions.dtype == np.float32


def test_a_float32_limit_never_lies_outside_the_float64_limit() -> None:
    """2.8973 as float32 is larger than 2.8973: a robot that checks in double precision would refuse it."""
    assert float(np.float32(2.8973)) > 2.8973
    low, high = LOW, HIGH
    assert (low.astype(np.float64) >= FRANKA.action_min).all()
    assert (high.astype(np.float64) <= FRANKA.action_max).all()
    np.testing.assert_allclose(low, FRANKA.action_min, rtol=2e-7)
    np.testing.assert_allclose(high, FRANKA.action_max, rtol=2e-7)


def test_only_what_is_outside_is_changed(guard: Guard) -> None:
    actions = ramp()
    actions[4, 5] = 9.0
    served = guard(request(), answering(actions))
    changed = served.chunk.actions != actions
    assert changed.sum() == 1
    assert changed[4, 5]


def test_a_violation_names_joint_bound_value_and_limit(guard: Guard) -> None:
    actions = ramp()
    actions[2, 3], actions[7, 0] = 0.5, -4.0
    report = guard(request(), answering(actions)).guard
    assert report.clamped
    assert report.clamp_count == 2
    below, above = sorted(report.violations)
    assert below.startswith("panda_joint1 below min: -4")
    assert "-2.897" in below
    assert above.startswith("panda_joint4 above max: 0.5")
    assert "-0.069" in above


def test_a_violation_by_a_hair_shows_two_different_numbers(guard: Guard) -> None:
    actions = rows(MIDDLE)
    actions[0, 0] = 2.8974
    (line,) = guard(request(), answering(actions)).guard.violations
    value, limit = line.split(": ")[1].split(" > ")
    assert float(value) > float(limit)


def test_the_worst_value_of_a_joint_stands_for_all_its_rows(guard: Guard) -> None:
    actions = rows(MIDDLE)
    actions[:, 6] = np.linspace(3, 5, HORIZON)
    report = guard(request(), answering(actions)).guard
    assert report.clamp_count == HORIZON
    assert len(report.violations) == 1
    assert "5" in report.violations[0]


def test_a_joint_that_leaves_at_both_ends_is_named_twice(guard: Guard) -> None:
    actions = rows(MIDDLE)
    actions[0, 6], actions[1, 6] = 4.0, -4.0
    assert len(guard(request(), answering(actions)).guard.violations) == 2


def test_the_raw_actions_stay_as_the_model_gave_them(guard: Guard) -> None:
    actions = rows(np.full(7, 50.0, np.float32))
    np.testing.assert_array_equal(guard(request(), answering(actions)).raw_actions, actions)
    np.testing.assert_array_equal(actions, rows(np.full(7, 50.0, np.float32)))


def test_a_clamped_chunk_keeps_its_names_rate_and_source(guard: Guard) -> None:
    chunk = guard(request(), answering(rows(np.full(7, 50.0, np.float32)))).chunk
    assert (chunk.names, chunk.dt_s, chunk.source) == (FRANKA.joint_names, 0.05, POLICY)


def test_clamped_chunks_are_counted(guard: Guard, metrics: Metrics) -> None:
    for _ in range(3):
        guard(request(), answering(rows(np.full(7, 50.0, np.float32))))
    guard(request(), answering(rows(MIDDLE)))
    name = "reflex_safety_violations_total"
    assert count(metrics, name, embodiment="franka", violation_kind="joint_clamp") == 3
    assert count(metrics, name, embodiment="franka", violation_kind="non_finite") == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_none_makes_the_whole_chunk_a_hold_where_the_robot_is(
    guard: Guard, value: float
) -> None:
    served = guard(request(), answering(spoiled(value)))
    np.testing.assert_array_equal(served.chunk.actions, rows(MEASURED))
    assert served.chunk.source == HOLD
    assert served.chunk.names == FRANKA.joint_names
    assert served.chunk.dt_s == 0.05
    assert served.chunk.actions.dtype == np.float32
    assert served.chunk.actions.flags.c_contiguous


def test_a_hold_says_why_and_is_counted(guard: Guard, metrics: Metrics) -> None:
    report = guard(request(), answering(spoiled())).guard
    assert report.clamped
    assert report.clamp_count == 1
    assert report.violations == ("non_finite_action: 1 NaN or Inf values: holding position",)
    assert count(metrics, "reflex_holds_total", reason="non_finite") == 1
    assert (
        count(metrics, "reflex_safety_violations_total", embodiment="franka", violation_kind="non_finite")
        == 1
    )


def test_poses_that_are_not_reached_are_a_hold_that_counts_towards_the_trip(
    guard: Guard, metrics: Metrics
) -> None:
    def unreached(request: Request) -> Served:
        return replace(answering(rows(MEASURED))(request), unreached="row 3: the tool stays 80 mm away")

    served = guard(request(), unreached)
    assert (served.chunk.source, served.hold_reason) == (HOLD, "pose_unreached")
    np.testing.assert_array_equal(served.chunk.actions, rows(MEASURED))
    assert served.guard.violations == ("pose_unreached: row 3: the tool stays 80 mm away: holding position",)
    assert count(metrics, "reflex_holds_total", reason="pose_unreached") == 1
    kind = {"embodiment": "franka", "violation_kind": "pose_unreached"}
    assert count(metrics, "reflex_safety_violations_total", **kind) == 1
    assert guard.status().consecutive_clamps == 1


def test_the_raw_actions_of_a_hold_still_show_the_nan(guard: Guard) -> None:
    assert np.isnan(guard(request(), answering(spoiled())).raw_actions[3, 2])


@pytest.mark.parametrize(("elapsed_s", "row"), [(0, 0), (5 * 61, 5), (3600, HORIZON - 1)])
def test_holds_at_what_was_last_commanded_at_this_moment(guard: Guard, elapsed_s: int, row: int) -> None:
    received_ns = time.monotonic_ns() - elapsed_s * 10**9
    guard(request(received_ns=received_ns), answering(ramp(), dt_s=60.0))
    served = guard(request(), answering(spoiled()))
    np.testing.assert_array_equal(served.chunk.actions, rows(ramp()[row]))


def test_a_hold_follows_a_hold(guard: Guard) -> None:
    guard(request(), answering(ramp(), dt_s=1000.0))
    first = guard(request(), answering(spoiled()))
    second = guard(request(state=None), answering(spoiled()))
    np.testing.assert_array_equal(second.chunk.actions, first.chunk.actions)


def test_holds_where_the_robot_was_commanded_to_be_after_a_clamp(guard: Guard) -> None:
    guard(request(), answering(rows(np.full(7, 50.0, np.float32)), dt_s=1000.0))
    served = guard(request(), answering(spoiled()))
    np.testing.assert_array_equal(served.chunk.actions, rows(HIGH))


def test_another_episodes_history_is_not_used(guard: Guard) -> None:
    guard(request("pick"), answering(ramp()))
    served = guard(request("place"), answering(spoiled()))
    np.testing.assert_array_equal(served.chunk.actions, rows(MEASURED))


def test_requests_without_an_episode_hold_where_the_robot_is(guard: Guard) -> None:
    guard(request(None), answering(ramp()))
    served = guard(request(None), answering(spoiled()))
    np.testing.assert_array_equal(served.chunk.actions, rows(MEASURED))


def test_the_measured_position_is_taken_by_column(metrics: Metrics) -> None:
    state = np.array([9, 8, *MEASURED[::-1]], np.float32)
    columns = np.array([8, 7, 6, 5, 4, 3, 2])
    guard = guard_for(FRANKA, columns, metrics, None, FRANKA.joint_names, 0.05)
    served = guard(request(state=state), answering(spoiled()))
    np.testing.assert_array_equal(served.chunk.actions, rows(MEASURED))


def test_a_measured_position_a_little_outside_is_held_at_the_edge(fast: Guard) -> None:
    state = MEASURED.copy()
    state[1] = 1.8
    held = fast(request(state=state), answering(spoiled())).chunk.actions
    assert (held.astype(np.float64) <= FRANKA.action_max).all()
    np.testing.assert_allclose(held[0, 1], 1.7628, rtol=1e-6)


def test_a_hold_is_inside_the_limits_wherever_the_robot_is_measured(fast: Guard) -> None:
    """A robot may rest past its soft limit: it is held at the edge, and never commanded to be outside."""
    state = MEASURED.copy()
    state[1] = 2.05
    held = fast(request(state=state), answering(spoiled())).chunk.actions.astype(np.float64)
    assert (held >= FRANKA.action_min).all()
    assert (held <= FRANKA.action_max).all()
    np.testing.assert_allclose(held, rows(np.clip(state, LOW, HIGH)))


@pytest.mark.parametrize("value", [2.5, -45.0, 3e38])
def test_a_position_no_robot_can_have_is_no_position_to_hold(fast: Guard, value: float) -> None:
    state = MEASURED.copy()
    state[1] = value
    with pytest.raises(InferenceError, match="no known position to hold"):
        fast(request(state=state), answering(spoiled()))


UNKNOWN: dict[str, Floats | None] = {
    "no state": None,
    "a short state": MEASURED[:3],
    "an empty state": np.empty(0, np.float32),
    "a state with NaN": np.full(7, np.nan, np.float32),
}


@pytest.mark.parametrize("state", list(UNKNOWN.values()), ids=list(UNKNOWN))
def test_without_a_known_position_there_is_an_error_and_never_zeros(
    guard: Guard, state: Floats | None
) -> None:
    with pytest.raises(InferenceError, match="no known position to hold") as caught:
        guard(request(state=state), answering(spoiled()))
    assert caught.value.slug == "non-finite-actions"


def test_a_state_that_is_no_joint_position_is_never_held(metrics: Metrics) -> None:
    guard = guard_for(FRANKA, None, metrics, None, FRANKA.joint_names, 0.05)
    with pytest.raises(InferenceError, match="no known position to hold"):
        guard(request(), answering(spoiled()))


def test_a_failed_request_leaves_no_history(guard: Guard) -> None:
    with pytest.raises(InferenceError):
        guard(request(state=None), answering(spoiled()))
    np.testing.assert_array_equal(guard(request(), answering(spoiled())).chunk.actions, rows(MEASURED))


def test_without_an_embodiment_nothing_is_clamped_but_nan_is_still_held(metrics: Metrics) -> None:
    guard = guard_of(None, metrics)
    wild = rows(np.full(7, 1e6, np.float32))
    assert guard(request(), answering(wild)).chunk.actions is wild
    np.testing.assert_array_equal(guard(request("other"), answering(spoiled())).chunk.actions, rows(MEASURED))


def test_an_error_from_inside_passes_unchanged(guard: Guard) -> None:
    def failing(_: Request) -> Served:
        raise InferenceError("the graph exploded")

    with pytest.raises(InferenceError, match="the graph exploded"):
        guard(request(), failing)
