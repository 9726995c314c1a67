# SPDX-License-Identifier: Apache-2.0
"""When two chunks, latencies and cache states count as the same, and what a whole replay comes to."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.records.trace.parse import Recorded, recorded
from reflex_core.replay.comparison import MODES, Replayed, Tolerances
from reflex_core.replay.diffs import actions_diff, diff
from reflex_core.replay.summary import KEPT, Median, Sample, median, verdict
from reflex_core.values import Floats

USUAL = Tolerances()
NAMES = ("shoulder", "elbow", "finger")


def chunk(finger: float = 4e-4) -> Floats:
    """Two joints of about a radian, and a finger that moves by less than the tolerance of a chunk."""
    along = np.linspace(-1, 1, 20)
    return np.stack([along, np.cos(along), finger * np.sin(3 * along)], axis=1).astype(np.float32)


def passes(before: Floats, after: Floats) -> bool:
    return actions_diff(before, after, NAMES, USUAL).passed


def request(**changes: object) -> Recorded:
    document = {
        "seq": 3,
        "request": {"instruction": "pick", "state": [0.5]},
        "response": {"actions": [[0.5, 0.25]]},
        "latency": {"total_ms": 100.0, "stages": {"vlm_prefix_ms": 60.0}},
        "denoise": {"steps_used": 10},
    }
    return recorded(document | changes, "here")


def replayed(total_ms: float = 100.0, **changes: object) -> Replayed:
    actions = np.array([[0.5, 0.25]], np.float32)
    return Replayed(actions, ("a", "b"), 10, total_ms, {"vlm_prefix_ms": 61.0}, **changes)  # type: ignore[arg-type]


def test_the_same_chunk_passes_with_no_difference() -> None:
    made = actions_diff(chunk(), chunk(), NAMES, USUAL)
    assert (made.passed, made.max_abs) == (True, 0.0)
    assert made.cosine == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [-1.0, 1.3, 0.0, 1.02])
def test_a_small_joint_of_wrong_sign_or_scale_fails_although_cosine_and_max_abs_pass(factor: float) -> None:
    other = chunk()
    other[:, 2] *= factor
    made = actions_diff(chunk(), other, NAMES, USUAL)
    assert made.cosine is not None
    assert made.max_abs is not None
    assert made.cosine >= USUAL.min_cosine
    assert made.max_abs < USUAL.max_abs
    assert not made.passed
    assert [joint.name for joint in made.joints if not joint.passed] == ["finger"]


def test_rounding_of_another_machine_passes() -> None:
    noise = np.random.default_rng(0).normal(size=(20, 3)) * [1e-6, 1e-6, 1e-9]
    assert passes(chunk(), (chunk() + noise).astype(np.float32))


def test_a_scaled_chunk_fails_although_its_direction_is_the_same() -> None:
    assert not passes(chunk(), chunk() * np.float32(1.3))


def test_two_chunks_of_zeros_are_the_same_and_one_is_not() -> None:
    nothing = np.zeros((20, 3), np.float32)
    assert passes(nothing, nothing.copy())
    assert not passes(nothing, chunk())
    assert not passes(chunk(), nothing)


def test_nan_in_the_same_place_is_no_difference_and_elsewhere_is_one() -> None:
    before, after = chunk(), chunk()
    before[3, 1] = after[3, 1] = np.nan
    before[4, 0] = after[4, 0] = np.inf
    assert passes(before, after)
    after[5, 0] = np.nan
    made = actions_diff(before, after, NAMES, USUAL)
    assert (made.passed, made.max_abs) == (False, np.inf)
    after = chunk()
    after[3, 1] = np.nan
    after[4, 0] = -np.inf
    assert not passes(before, after)
    all_nan = np.full((2, 3), np.nan, np.float32)
    assert passes(all_nan, all_nan.copy())


@pytest.mark.parametrize("shape", [(19, 3), (20, 2), (0, 0)])
def test_another_shape_fails(shape: tuple[int, int]) -> None:
    made = actions_diff(chunk(), np.zeros(shape, np.float32), NAMES, USUAL)
    assert (made.passed, made.cosine, made.max_abs) == (False, None, None)


def test_two_empty_chunks_are_no_success() -> None:
    nothing = np.zeros((0, 0), np.float32)
    assert not passes(nothing, nothing)


@pytest.mark.parametrize(("total_ms", "passed"), [(95.0, True), (105.0, True), (94.9, False), (105.1, False)])
def test_latency_passes_within_5_per_cent(total_ms: float, passed: bool) -> None:
    made = diff(request(), replayed(total_ms), MODES, USUAL).latency
    assert made is not None
    assert made.passed is passed
    assert made.stages_ms == {"vlm_prefix_ms": (60.0, 61.0)}


def test_injected_latency_does_not_count() -> None:
    made = diff(request(injected_latency_ms=60.0), replayed(40.0), MODES, USUAL).latency
    assert made is not None
    assert (made.recorded_ms, made.passed) == (40.0, True)


def test_a_latency_that_was_not_recorded_passes_without_a_percentage() -> None:
    made = diff(request(latency=None), replayed(40.0), MODES, USUAL).latency
    assert made is not None
    assert (made.pct, made.passed) == (None, True)


@pytest.mark.parametrize(("now", "passed"), [("hit", True), ("miss", False), ("n/a", False)])
def test_the_cache_status_is_that_of_the_replay(now: str, passed: bool) -> None:
    made = diff(request(cache={"status": "hit"}), replayed(cache_status=now), MODES, USUAL).cache
    assert made is not None
    assert (made.recorded, made.replayed, made.passed) == ("hit", now, passed)


def test_modes_that_were_not_asked_for_are_not_made() -> None:
    made = diff(request(), replayed(), ("cache",), USUAL)
    assert (made.actions, made.latency) == (None, None)


def test_few_values_have_no_interval() -> None:
    assert median([1.0, 9.0, 2.0]) == Median(2.0, None, None)
    assert median([float(n) for n in range(6)]) == Median(2.5, 0.0, 5.0)


@pytest.mark.parametrize("count", [6, 15, 50, 51, 200])
def test_the_interval_holds_the_median_in_95_of_100_samples(count: int) -> None:
    rng = np.random.default_rng(count)
    held = 0
    for _ in range(1000):
        found = median(rng.lognormal(size=count).tolist())  # its median is 1
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.0 <= found.high
    assert held >= 930


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(5.1, 9.0, "slower"), (-9.0, -5.1, "faster"), (-5.0, 5.0, "same"), (2.0, 8.0, "unclear"), (None, None, "unclear")],
)  # fmt: skip
def test_an_interval_decides_only_where_it_lies_on_one_side(
    low: float | None, high: float | None, message: str
) -> None:
    assert verdict(Median(0.0, low, high), 5.0) == message


def test_a_sample_of_a_long_trace_stays_small_and_fair() -> None:
    sample = Sample()
    for number in range(5 * KEPT):
        sample.add(float(number), 0.0, 0.0)
    assert len(sample.values) == KEPT
    middle = median([row[0] for row in sample.values]).value
    assert middle == pytest.approx(2.5 * KEPT, rel=0.05)
