# SPDX-License-Identifier: Apache-2.0
"""What is added to the row that is due: from the newest observation, without a jump, and nothing on any doubt."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guarded import FRANKA, MIDDLE, ramp
from heads import HORIZON, JOINTS, constant, contents, correction_of, observation, picture, written

from reflex_core.chunks.a2c2 import steps as module
from reflex_core.chunks.a2c2.features import Moment
from reflex_core.chunks.a2c2.steps import Running, StepCorrection
from reflex_core.chunks.interpolation import Bounds, Spline, through
from reflex_core.reports import A2C2Report
from reflex_core.values import Floats, Observation

DT_NS, STAMP_NS = 50_000_000, 1_000_000_000
TICK_NS = 1_000_000
RESIDUAL_RAD = math.tanh(0.1) * 3 * 0.25  # of `constant(z=0.3)` by the statistics of `heads`
EVERYWHERE = np.ones(JOINTS, np.bool_)


def at(row: float) -> int:
    """The moment at which that row is due; row -1 is the observation's."""
    return STAMP_NS + round((row + 1) * DT_NS)


def seen(at_row: float, colour: tuple[int, int, int] = (200, 20, 20)) -> Observation:
    return observation(picture(colour, 48, 48), stamp_ns=at(at_row))


def motion_of(led: Floats, start: int, now_ns: int, place: Floats | None = None) -> Spline:
    times = np.concatenate([[now_ns], [at(row) for row in range(start, len(led))]])
    rows = np.concatenate([(led[start] if place is None else place)[None], led[start:]]).astype(np.float64)
    return through(times, rows, np.zeros(JOINTS), Bounds.unlimited(JOINTS), anchored=True)


def running(rows: Floats | None = None, start: int = 0, **other: Any) -> Running:
    rows = ramp() if rows is None else rows
    led = other.pop("led", rows)
    values: dict[str, Any] = {
        "rows": rows, "led": led, "motion": motion_of(led, start, at(start - 1)), "stamp_ns": STAMP_NS, "dt_s": 0.05,
        "start": start, "seen": seen(-1), "request_id": "one",
    }  # fmt: skip
    return Running(**(values | other))


def steps_of(path: Path, z: float = 0.3, **other: Any) -> StepCorrection:
    """Corrections by a head that says the same of every row."""
    return steps_by(constant(path / "head.npz", z), **other)


def steps_by(path: Path, **other: Any) -> StepCorrection:
    values: dict[str, Any] = {"low": FRANKA.action_min, "high": FRANKA.action_max, "streamed": EVERYWHERE}
    return StepCorrection(correction_of(path), **(values | other))


def added(steps: StepCorrection, now_ns: int) -> Floats:
    found = steps.added(now_ns)
    return np.zeros(JOINTS, np.float32) if found is None else found[0].astype(np.float32)


def sent(steps: StepCorrection, chunk: Running, moments: Iterable[int]) -> Floats:
    """What leaves at these moments, before the limit of speed."""
    adjust = steps.adjust(slice(None))
    return np.array([adjust(chunk.motion.at(now)[0], now) for now in moments])


def test_the_row_that_is_due_is_corrected_by_the_newest_observation(tmp_path: Path) -> None:
    steps = steps_of(tmp_path)
    steps.follow(running(), at(-1))
    outcome = steps.observe(seen(3), at(3))
    assert outcome is not None
    assert (outcome.applied, outcome.reason) == (True, "applied")
    np.testing.assert_allclose(added(steps, at(5)), RESIDUAL_RAD, rtol=0.02)


def test_what_it_says_of_a_row_is_what_the_head_says_of_that_step(tmp_path: Path) -> None:
    path = written(tmp_path / "head.npz", contents(obs_dim=7 + 7, features="state_change+previous", seed=5))
    steps, chunk, correction = steps_by(path), running(), correction_of(path)
    steps.follow(chunk, at(-1))
    now = replace(seen(3), state=MIDDLE + np.float32(0.1))
    steps.observe(now, at(3))
    reported = chunk.motion.at(at(3))[0].astype(np.float32)
    vector = correction.features_of(Moment(now, chunk.seen, reported))
    for row in (6, 8):
        expected = correction.step(chunk.rows[row], vector, row, 200.0) - chunk.rows[row]
        np.testing.assert_allclose(added(steps, at(row)), expected, atol=2e-3)


@pytest.mark.parametrize("moment", [3.0, 3.3, 3.7])
def test_neither_an_observation_nor_a_chunk_makes_the_command_jump(tmp_path: Path, moment: float) -> None:
    """Position and velocity just before and just after are the same, though head and rows say something else."""
    path = written(tmp_path / "head.npz", contents(obs_dim=7 + 36, features="state+hues12", seed=5))
    steps, chunk = steps_by(path), running()
    steps.follow(chunk, at(-1))
    steps.observe(seen(1), at(1))
    now_ns = at(moment)
    before = sent(steps, chunk, (now_ns - 2 * TICK_NS, now_ns - TICK_NS, now_ns))
    steps.observe(seen(moment - 0.5, (20, 20, 200)), now_ns)
    after = sent(steps, chunk, (now_ns, now_ns + TICK_NS, now_ns + 2 * TICK_NS))
    np.testing.assert_allclose(after[0], before[2], atol=1e-9)
    np.testing.assert_allclose(after[1] - after[0], before[2] - before[1], atol=2e-4)
    other = ramp() + np.float32(0.03)
    start = math.ceil(moment + 0.01)
    place = chunk.motion.at(now_ns)[0]
    led = other.copy()
    led[start] = place  # faded in
    new = running(other, start, led=led, motion=motion_of(led, start, now_ns, place), request_id="two")
    steps.follow(new, now_ns)
    np.testing.assert_allclose(sent(steps, new, [now_ns])[0], after[0], atol=1e-6)


def test_once_led_over_corrected_rows_are_not_the_faded_ones(tmp_path: Path) -> None:
    """Corrected chunks agree, so that the fade into them would only make them late."""
    steps, rows = steps_of(tmp_path), ramp()
    led = rows + np.float32(0.05)
    chunk = running(rows, 4, led=led, seen=seen(-1))
    steps.observe(seen(3), at(3))
    steps.follow(chunk, at(3))
    np.testing.assert_allclose(sent(steps, chunk, [at(6)])[0], rows[6] + RESIDUAL_RAD, atol=2e-3)


def test_rows_led_from_rest_are_added_to_and_stay_led(tmp_path: Path) -> None:
    steps, rows = steps_of(tmp_path), ramp()
    led = rows + np.float32(0.05)
    chunk = running(rows, 4, led=led, joined=False)
    steps.observe(seen(3), at(3))
    steps.follow(chunk, at(3))
    np.testing.assert_allclose(sent(steps, chunk, [at(6)])[0], led[6] + RESIDUAL_RAD, atol=2e-3)


@pytest.mark.parametrize("rows_newer", [0.0, 0.5])
def test_nothing_is_added_where_nothing_newer_is_known(tmp_path: Path, rows_newer: float) -> None:
    steps = steps_of(tmp_path)
    steps.observe(seen(-1 + rows_newer), at(-1 + rows_newer))
    assert steps.follow(running(), at(-0.5)) == A2C2Report(False, "low_latency")
    assert steps.added(at(4)) is None
    row = np.arange(JOINTS, dtype=np.float64)
    assert steps.adjust(slice(None))(row, at(4)) is row


def test_a_correction_that_is_too_large_is_refused(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, z=30.0)
    steps.follow(running(), at(-1))
    outcome = steps.observe(seen(3), at(3))
    assert outcome is not None
    assert (outcome.applied, outcome.reason) == (False, "magnitude_safety_skip")
    assert steps.added(at(4)) is None


def test_a_missing_image_is_an_error_that_is_reported_and_the_rows_go_on_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path / "head.npz", contents(obs_dim=36, features="hues12"))
    reported: list[Exception] = []
    steps = steps_by(path, on_error=reported.append)
    steps.follow(running(), at(-1))
    outcome = steps.observe(replace(seen(3), frames={}), at(3))
    assert outcome == A2C2Report(False, "error:ObservationError")
    assert len(reported) == 1
    assert steps.added(at(4)) is None


def test_rows_that_the_guard_would_hold_are_not_sent_and_what_was_added_is_taken_back(tmp_path: Path) -> None:
    let = [True]
    steps = steps_of(tmp_path, admitted=lambda _, rows, __: rows if let[0] else None)
    chunk = running()
    steps.follow(chunk, at(-1))
    steps.observe(seen(1), at(1))
    let[0] = False
    outcome = steps.observe(seen(2), at(2))
    assert outcome is not None
    assert (outcome.applied, outcome.reason) == (False, "guard")
    np.testing.assert_allclose(added(steps, at(2)), RESIDUAL_RAD, rtol=0.15)
    np.testing.assert_allclose(added(steps, at(6)), 0.0, atol=1e-4)


def test_what_the_guard_changes_is_what_is_sent(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, admitted=lambda running, _, __: running.rows + np.float32(0.01))
    chunk = running()
    steps.follow(chunk, at(-1))
    steps.observe(seen(1), at(1))
    np.testing.assert_allclose(added(steps, at(5)), 0.01, rtol=0.02)


def test_a_chunk_that_is_not_to_be_corrected_fades_what_was_added(tmp_path: Path) -> None:
    steps = steps_of(tmp_path)
    steps.follow(running(), at(-1))
    steps.observe(seen(1), at(1))
    assert steps.follow(running(start=3, skip="not_a_policy_chunk"), at(2)).reason == "not_a_policy_chunk"
    np.testing.assert_allclose(added(steps, at(2)), RESIDUAL_RAD, rtol=0.15)
    np.testing.assert_allclose(added(steps, at(6)), 0.0, atol=1e-4)


def test_no_corrected_row_leaves_the_range_and_one_that_is_outside_goes_no_further(tmp_path: Path) -> None:
    steps = steps_of(tmp_path)
    steps.follow(running(), at(-1))
    steps.observe(seen(1), at(1))
    adjust = steps.adjust(np.array([0, 2]))
    high = FRANKA.action_max[[0, 2]]
    np.testing.assert_array_equal(adjust(high - 0.01, at(5)), high)
    np.testing.assert_array_equal(adjust(high + 0.01, at(5)), high + 0.01)


def test_only_streamed_columns_are_corrected(tmp_path: Path) -> None:
    streamed = EVERYWHERE.copy()
    streamed[4:] = False
    admissible: list[Floats] = []

    def admitted(_: Running, rows: Floats, __: int) -> Floats:
        admissible.append(rows)
        return rows

    steps, chunk = steps_of(tmp_path, streamed=streamed, admitted=admitted), running()
    steps.follow(chunk, at(-1))
    steps.observe(seen(1), at(1))
    np.testing.assert_array_equal(admissible[0][:, 4:], chunk.rows[:, 4:])
    assert (added(steps, at(5))[:4] > 0.05).all()
    assert not added(steps, at(5))[4:].any()


def test_what_is_added_is_taken_back_once_the_observation_is_too_old(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, max_age_s=lambda: 0.1)
    steps.follow(running(), at(-1))
    steps.observe(seen(1), at(1))
    until_ns, gone_ns = at(3), at(3) + round(module.WITHDRAWN_S * 1e9)
    np.testing.assert_allclose(added(steps, until_ns), RESIDUAL_RAD, rtol=0.02)
    assert not added(steps, gone_ns).any()
    values = np.array([added(steps, now_ns)[0] for now_ns in range(until_ns, gone_ns + 1, TICK_NS)])
    assert np.diff(values).max() < 2e-5
    assert np.abs(np.diff(values)).max() < 1.6 * RESIDUAL_RAD * TICK_NS * 1e-9 / module.WITHDRAWN_S


def test_a_hold_ends_it_at_once_and_old_observations_count_no_more(tmp_path: Path) -> None:
    steps = steps_of(tmp_path)
    steps.follow(running(), at(-1))
    steps.observe(seen(3), at(3))
    steps.end()
    assert steps.added(at(4)) is None
    assert steps.executed() is None
    assert steps.observe(seen(4), at(4)) is None
    assert steps.follow(running(start=5), at(4)).reason == "applied"


def test_a_clock_that_was_set_leaves_what_is_added(tmp_path: Path) -> None:
    steps = steps_of(tmp_path)
    steps.follow(running(), at(-1))
    steps.observe(seen(1), at(1))
    before = added(steps, at(3))
    steps.freeze()
    assert steps.observe(seen(400), at(3)) is None
    np.testing.assert_array_equal(added(steps, at(3)), before)


def test_an_observation_counts_once_and_none_after_the_chunk_is_over(tmp_path: Path) -> None:
    outcomes: list[A2C2Report] = []
    steps = steps_of(tmp_path, on_outcome=outcomes.append)
    steps.follow(running(), at(-1))
    steps.observe(seen(1), at(1))
    assert steps.observe(seen(1), at(1.5)) is None
    assert steps.observe(seen(0.5), at(1.6)) is None
    assert steps.observe(seen(HORIZON - 1), at(HORIZON - 1)) is None
    assert [outcome.reason for outcome in outcomes] == ["low_latency", "applied"]


def test_the_chunk_is_known_as_it_is_executed(tmp_path: Path) -> None:
    steps, chunk = steps_of(tmp_path), running()
    assert steps.executed() is None
    steps.follow(chunk, at(-1))
    steps.observe(seen(1), at(1))
    found = steps.executed()
    assert found is not None
    assert found.request_id == "one"
    assert found.rows.dtype == np.float32
    np.testing.assert_allclose(found.rows[2:], chunk.rows[2:] + RESIDUAL_RAD, atol=1e-5)
