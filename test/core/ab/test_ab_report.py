# SPDX-License-Identifier: Apache-2.0
"""The statistics of the report: intervals, the test that may be looked at any time, the sample ratio, the counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from reflex_core.ab.report import report_document, table
from reflex_core.ab.sequential import (
    PATH_POINTS,
    Rate,
    SequentialTest,
    difference_interval,
    log_evidence,
)
from reflex_core.ab.tally import Latencies, Tally
from reflex_core.metrics.intervals import two_sided_p, wilson
from reflex_core.slots.routing import bucket, slot_of

HEADER: dict[str, Any] = {"kind": "header", "settings": {"split": 50}}


def request_record(
    episode: str | None, slot: str = "a", *, total_ms: float = 10.0, split: int | None = 50, **more: Any
) -> dict[str, Any]:
    """A request record as two slots write it."""
    routing = {"slot": slot, "routing_key": episode or "r", "degraded": episode is None, "cached": False}
    if split is not None:
        routing["split"] = split
    return {
        "kind": "request", "request": {"episode_id": episode}, "response": {"source": "policy"}, "slot": slot,
        "routing": routing, "latency": {"total_ms": total_ms}, "model_version": f"{slot}@1",
    } | more  # fmt: skip


def ended(episode: str, success: object = True, slot: str = "") -> dict[str, Any]:
    return {"kind": "outcome", "episode_id": episode, "success": success, "slot": slot}


def counted(*records: dict[str, Any], header: dict[str, Any] = HEADER, **options: Any) -> dict[str, Any]:
    tally = Tally(**options)
    for record in records:
        tally.add(record, header)
    tally.finish()
    return report_document(tally)


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    low, high = wilson(81, 263)  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson(0, 20)
    assert (low, round(high, 4)) == (0.0, 0.1611)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(20, 20)[1] == 1.0


def test_the_p_value_is_that_of_chi_square_with_one_degree() -> None:
    assert two_sided_p(math.sqrt(3.841459)) == pytest.approx(0.05, abs=1e-6)
    assert two_sided_p(math.sqrt(10.827566)) == pytest.approx(0.001, abs=1e-8)


def test_evidence_is_the_ratio_of_the_two_likelihoods() -> None:
    a, b = Rate(3, 4), Rate(1, 5)

    def mixture(rate: Rate) -> float:  # numerically, with the weight 1 / (pi sqrt(p (1 - p)))
        angles = (np.arange(200_000) + 0.5) / 200_000 * np.pi / 2
        p = np.sin(angles) ** 2
        return float(np.mean(p**rate.successes * (1 - p) ** (rate.trials - rate.successes)))

    pooled = (4 / 9) ** 4 * (5 / 9) ** 5
    assert math.exp(log_evidence(a, b)) == pytest.approx(mixture(a) * mixture(b) / pooled, rel=1e-6)
    assert log_evidence(Rate(), Rate()) == 0.0


@pytest.mark.parametrize(("rate", "share_of_a"), [(0.5, 0.5), (0.9, 0.8), (0.03, 0.5)])
def test_looking_after_every_episode_decides_wrongly_in_fewer_than_one_of_twenty(
    rate: float, share_of_a: float
) -> None:
    random = np.random.default_rng(1)
    runs, episodes = 200, 300
    wrong = 0
    for _ in range(runs):
        test = SequentialTest(0.05)
        for to_a, success in zip(
            random.random(episodes) < share_of_a, random.random(episodes) < rate, strict=True
        ):
            test.add("a" if to_a else "b", bool(success))
        wrong += test.decided_at is not None
    assert wrong / runs <= 0.05


def test_a_real_difference_is_found_and_the_right_slot_named() -> None:
    random = np.random.default_rng(2)
    found = []
    for _ in range(40):
        test = SequentialTest()
        for _ in range(150):
            for slot, rate in (("a", 0.6), ("b", 0.9)):
                test.add(slot, bool(random.random() < rate))
        found.append(test)
    assert sum(test.better == "b" for test in found) >= 36
    assert not any(test.better == "a" for test in found)
    assert np.median([test.decided_at or 300 for test in found]) < 200


def test_a_decision_once_made_stays_made() -> None:
    test = SequentialTest()
    for _ in range(20):
        test.add("a", True)
        test.add("b", False)
    decided, p = test.decided_at, test.p
    assert decided is not None
    for _ in range(100):
        test.add("a", False)
        test.add("b", True)
    assert (test.decided_at, test.better) == (decided, "a")
    assert test.p <= p


@pytest.mark.parametrize(
    ("a", "b"), [(Rate(8, 10), Rate(30, 90)), (Rate(0, 5), Rate(7, 7)), (Rate(3, 3), Rate(3, 3))]
)
def test_the_interval_of_the_difference_holds_what_is_not_excluded(a: Rate, b: Rate) -> None:
    low, high = difference_interval(a, b)
    assert -1 <= low <= a.value - b.value <= high <= 1
    assert (low <= 0 <= high) == (log_evidence(a, b) <= math.log(20))


def test_the_interval_is_the_one_a_grid_finds() -> None:
    a, b = Rate(17, 20), Rate(22, 40)
    rates = np.linspace(1e-6, 1 - 1e-6, 2001)
    grid_a, grid_b = np.meshgrid(rates, rates, indexing="ij")
    log_likelihood = (
        17 * np.log(grid_a) + 3 * np.log1p(-grid_a) + 22 * np.log(grid_b) + 18 * np.log1p(-grid_b)
    )
    kept = log_likelihood >= a.log_mixture() + b.log_mixture() + math.log(0.05)
    differences = (grid_a - grid_b)[kept]
    assert difference_interval(a, b) == pytest.approx((differences.min(), differences.max()), abs=2e-3)


def test_nothing_known_excludes_nothing() -> None:
    assert difference_interval(Rate(5, 5), Rate()) == (-1.0, 1.0)


def test_the_path_is_thinned_out() -> None:
    test = SequentialTest()
    for number in range(5000):
        test.add("ab"[number % 2], number % 3 == 0)
    assert len(test.path) <= PATH_POINTS
    assert test.path[-1][0] > 4900


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_risk_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        SequentialTest(alpha)


def test_percentiles_are_right_to_half_a_per_cent() -> None:
    latencies = Latencies()
    values = np.random.default_rng(3).lognormal(3, 1, 5000)
    for value in (*values, math.nan, math.inf, 0.0, -1.0):
        latencies.add(float(value))
    for percentile in (50, 95, 99):
        exact = np.percentile(values, percentile, method="inverted_cdf")
        assert latencies.percentile(percentile) == pytest.approx(exact, rel=0.006)
    assert Latencies().percentile(50) is None


def test_every_slot_has_its_own_counts() -> None:
    report = counted(
        request_record("1"), request_record("1"), request_record("2", "b", total_ms=40.0, injected_latency_ms=20.0),
        request_record("2", "b", guard={"clamped": True, "violations": ["x", "y"]}, deadline={"exceeded": True}),
        request_record("2", "b", response={"source": "hold"}), request_record("3", "b", error={"slug": "inference-error"}),
    )  # fmt: skip
    a, b = report["slots"]["a"], report["slots"]["b"]
    assert (a["requests"], a["episodes"], a["violations"], a["models"]) == (2, 1, 0, ["a@1"])
    assert (b["requests"], b["episodes"], b["clamped_chunks"], b["violations"], b["late"]) == (3, 1, 1, 2, 1)
    assert (b["sources"], b["errors"], report["errors"]) == ({"policy": 2, "hold": 1}, 1, 1)
    assert a["latency_ms"]["p50"] == pytest.approx(10, rel=0.006)
    assert b["latency_ms"]["p99"] == pytest.approx(20, rel=0.006)


def test_one_policy_alone_is_reported_and_compared_with_nothing() -> None:
    record = request_record("1", "prod")
    del record["routing"]
    report = counted(record, ended("1"))
    assert report["slots"]["prod"]["success_rate"] == 1.0
    assert (report["comparison"], report["sample_ratio"]) == (None, None)


def test_outcomes_go_to_the_slot_that_drove_the_episode() -> None:
    report = counted(
        request_record("1"), request_record("2", "b"), request_record("3", "b"), request_record("4"), ended("1"), ended("2", False), ended("3"),
        ended("5", slot="b"), ended("6"), ended("7", "yes"),
    )  # fmt: skip
    a, b = report["slots"]["a"], report["slots"]["b"]
    assert (a["successes"], a["outcomes"], b["successes"], b["outcomes"]) == (1, 1, 2, 3)
    assert report["left_out"]["episodes_without_outcome"] == 1
    assert report["left_out"]["outcomes_without_slot"] == 1
    assert report["comparison"]["episodes"] == 4


def test_an_episode_that_two_policies_drove_counts_for_none() -> None:
    report = counted(request_record("1"), request_record("1", "b"), ended("1"))
    assert report["left_out"]["episodes_driven_by_two_policies"] == 1
    assert report["slots"]["a"]["outcomes"] == report["slots"]["b"]["outcomes"] == 0


def test_a_chunk_that_stands_in_does_not_make_an_episode_mixed() -> None:
    report = counted(
        request_record("1"), request_record("1", "b", response={"source": "last_known_good"}), ended("1")
    )
    assert report["slots"]["a"]["outcomes"] == 1


def test_the_last_report_of_an_episode_holds_at_the_place_of_the_first() -> None:
    report = counted(request_record("1"), request_record("2", "b"), ended("1"), ended("2"), ended("1", False))
    assert (report["slots"]["a"]["success_rate"], report["outcomes_corrected"]) == (0.0, 1)


def test_requests_without_an_episode_are_counted_apart() -> None:
    report = counted(request_record(None), request_record(None, "b"))
    assert report["left_out"]["requests_without_episode"] == 2
    assert report["slots"]["a"]["episodes"] == 0


def test_memory_is_bounded_and_what_leaves_it_is_counted() -> None:
    tally = Tally(most_episodes=10)
    for number in range(100):
        tally.add(request_record(str(number), "ab"[number % 2]), HEADER)
        tally.add(ended(str(number)), HEADER)
        assert len(tally._episodes) <= 10
    tally.finish()
    assert [tally.slots[slot].outcomes for slot in "ab"] == [Rate(50, 50)] * 2


def test_episodes_shared_as_the_split_says_raise_no_alarm() -> None:
    names = [f"ep_{number}" for number in range(2000)]
    report = counted(*(request_record(name, slot_of(bucket(name), 80), split=80) for name in names))
    ratio = report["sample_ratio"]
    assert (ratio["episodes"], ratio["expected_in_a"]) == (2000, pytest.approx(1600))
    assert not ratio["mismatch"]


def test_a_split_that_was_turned_meanwhile_is_taken_as_it_was() -> None:
    first = [request_record(f"1-{n}", slot_of(bucket(f"1-{n}"), 90), split=90) for n in range(1000)]
    then = [request_record(f"2-{n}", slot_of(bucket(f"2-{n}"), 10), split=10) for n in range(1000)]
    ratio = counted(*first, *then)["sample_ratio"]
    assert ratio["expected_in_a"] == pytest.approx(1000)
    assert not ratio["mismatch"]


def test_a_shifted_ratio_is_an_alarm() -> None:
    ratio = counted(*(request_record(str(n), "a" if n < 600 else "b") for n in range(1000)))["sample_ratio"]
    assert ratio["p"] == pytest.approx(two_sided_p(100 / math.sqrt(250)))
    assert ratio["mismatch"]


@pytest.mark.parametrize(("slot", "mismatch"), [("a", False), ("b", True)])
def test_at_split_100_a_single_episode_elsewhere_is_one(slot: str, mismatch: bool) -> None:
    ratio = counted(request_record("1", split=100), request_record("2", slot, split=100))["sample_ratio"]
    assert (ratio["mismatch"], ratio["p"]) == (mismatch, 0.0 if mismatch else 1.0)


def test_where_the_records_do_not_say_the_split_the_header_does_and_then_the_caller() -> None:
    records = [request_record("1", split=None), request_record("2", "b", split=None)]
    assert counted(*records)["sample_ratio"]["expected_in_a"] == pytest.approx(1.0)
    assert counted(*records, header={}, split=20)["sample_ratio"]["expected_in_a"] == pytest.approx(0.4)
    silent = counted(*records, header={})
    assert silent["sample_ratio"] is None
    assert "give it with --split" in silent["warnings"][0]


def test_a_slot_that_was_two_models_is_warned_of() -> None:
    report = counted(request_record("1"), request_record("2", model_version="a@2"))
    assert report["warnings"] == ["slot a was 2 models in these traces; compare traces of one pair"]


def test_shadows_are_counted_with_their_worst_difference() -> None:
    shadow = {"kind": "shadow", "routing": {"slot": "prod"}}
    first = shadow | {"divergence": {"names": ["j1", "j2"], "max_abs": [0.5, 0.1]}}
    second = shadow | {"divergence": {"names": ["j1", "j2"], "max_abs": [0.2, "NaN"]}}
    found = counted(first, second)["slots"]["prod"]["shadow"]
    assert found == {"compared": 2, "max_abs": {"j1": 0.5, "j2": 0.1}}


def test_the_table_says_it_in_words() -> None:
    records = [request_record(f"{slot}{n}", slot) for n in range(40) for slot in "ab"]
    outcomes = [ended(f"{slot}{n}", slot == "b" or n % 2 == 0) for n in range(40) for slot in "ab"]
    text = table(counted(*records, *outcomes))
    assert "20/40 = 50.0%   35.2% to 64.8%" in text
    assert "b is better" in text
    assert "sample ratio: 40 of 80 episodes in a, expected 40.0, p = 1" in text
    assert max(map(len, text.splitlines())) <= 120
    assert "not decided" in table(counted(*records, *outcomes[:6]))
    assert "nothing to compare" in table(counted(*records))
