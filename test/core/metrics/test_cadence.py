# SPDX-License-Identifier: Apache-2.0
"""How punctual ticks are: percentiles of the newest, what was left out, and whether the rate is kept."""

from __future__ import annotations

import math

import pytest

from reflex_core.metrics.cadence import LEAST_S, NEWEST, Cadence, worst
from reflex_core.metrics.metrics import Metrics

RATE_HZ = 100.0


def ticked(count: int, late_s: float = 0.001, skipped: int = 0, cadence: Cadence | None = None) -> Cadence:
    found = cadence or Cadence(RATE_HZ)
    for _ in range(count):
        found.tick(late_s, skipped)
    return found


def test_percentiles_are_of_the_newest_ticks() -> None:
    cadence = ticked(50, late_s=9.0)
    for number in range(NEWEST):
        cadence.tick(number * 1e-3, 0)
    found = cadence.figures("arm")
    assert found.group == "arm"
    assert found.ticks == NEWEST
    assert (found.late_p50_s, found.late_p99_s) == (pytest.approx(0.4995), pytest.approx(0.98901))
    assert found.late_max_s == pytest.approx(0.999)


def test_without_ticks_nothing_is_measured_and_the_rate_counts_as_kept() -> None:
    found = Cadence(RATE_HZ).figures("")
    assert all(math.isnan(value) for value in (found.late_p50_s, found.late_p99_s, found.late_max_s))
    assert (found.ticks, found.skipped, found.unkept, found.keeps) == (0, 0, 0, True)


def test_a_rate_is_not_kept_where_more_than_a_twentieth_of_the_newest_ticks_is_left_out() -> None:
    cadence = ticked(190)
    assert cadence.figures("").keeps
    ticked(1, skipped=12, cadence=cadence)
    found = cadence.figures("")
    assert (found.keeps, found.unkept, found.skipped) == (False, 1, 12)
    ticked(300, cadence=cadence)
    assert not cadence.figures("").keeps  # 12 of 503: neither
    ticked(200, cadence=cadence)
    assert cadence.figures("").keeps
    ticked(NEWEST, cadence=cadence)
    ticked(1, skipped=80, cadence=cadence)
    found = cadence.figures("")
    assert (found.keeps, found.unkept, found.skipped) == (False, 2, 92)


def test_a_stall_at_the_very_beginning_does_not_decide() -> None:
    cadence = ticked(1, skipped=20)
    ticked(int(LEAST_S * RATE_HZ) - 22, cadence=cadence)
    assert cadence.figures("").keeps
    ticked(2, cadence=cadence)
    assert not cadence.figures("").keeps


def test_the_worst_of_several_groups_is_the_latest_and_counts_are_added() -> None:
    one, other = ticked(3, late_s=0.001, skipped=1), ticked(3, late_s=0.002, skipped=2)
    found = worst([one.figures("a", 4), Cadence(50.0).figures("b"), other.figures("c", 1)])
    assert (found.late_p50_s, found.late_max_s) == (pytest.approx(0.002), pytest.approx(0.002))
    assert (found.ticks, found.skipped, found.unadjusted, found.keeps) == (6, 9, 5, True)
    assert math.isnan(worst([]).late_p99_s)


def test_metrics_have_the_figures_of_every_group() -> None:
    metrics = Metrics()
    metrics.ticks.figures = lambda: [ticked(2, late_s=0.003, skipped=1).figures("arm", 5)]
    value = metrics.registry.get_sample_value
    for quantile in ("0.5", "0.99", "1"):
        assert value("reflex_tick_lateness_seconds", {"group": "arm", "quantile": quantile}) == pytest.approx(0.003)  # fmt: skip
    assert value("reflex_ticks_skipped_total", {"group": "arm"}) == 2
    assert value("reflex_rates_unkept_total", {"group": "arm"}) == 0
    assert value("reflex_rows_unadjusted_total", {"group": "arm"}) == 5
