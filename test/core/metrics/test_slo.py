# SPDX-License-Identifier: Apache-2.0
"""The latency objective: how it is written, when it is missed, when it is met again."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from reflex_core.errors import SettingError
from reflex_core.metrics.slo import LEAST_SAMPLES, MOST_SAMPLES, Slo, SloWindow, parse_slo


@dataclass
class Bench:
    """A window for p90=100ms on a clock that the test turns."""

    now: float = 1000.0

    def __post_init__(self) -> None:
        self.window = SloWindow(Slo(90, 100), clock=lambda: self.now)

    def add(self, latency_ms: float, times: int = LEAST_SAMPLES, every_s: float = 0.0) -> None:
        for _ in range(times):
            self.now += every_s
            self.window.add(latency_ms)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("text", "percentile", "threshold_ms", "name"),
    [
        ("p99=150ms", 99, 150, "p99"),
        ("P99.9 = 33.3 MS", 99.9, 33.3, "p99.9"),
        ("p50= 5ms", 50, 5, "p50"),
        ("p100=1000ms", 100, 1000, "p100"),
        (" p95=20ms ", 95, 20, "p95"),
    ],
)
def test_objectives_are_read(text: str, percentile: float, threshold_ms: float, name: str) -> None:
    slo = parse_slo(text)
    assert (slo.percentile, slo.threshold_ms, slo.name) == (percentile, threshold_ms, name)


@pytest.mark.parametrize(
    "text",
    [
        "", "p99", "99=150ms", "p99=150", "p99=150s", "p99=-1ms", "p99:150ms", "p0=150ms", "p100.1=150ms", "p99=0ms",
        "p.5=10ms", "p99=1e3ms", "p99=150ms,p50=10ms", "p99=150ms\nx", "p٩٩=150ms", "mean=3ms",
    ],
)  # fmt: skip
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingError, match="p99=150ms") as caught:
        parse_slo(text)
    assert caught.value.slug == "bad-setting"


def test_nothing_is_said_before_there_are_enough_latencies(bench: Bench) -> None:
    bench.add(500, LEAST_SAMPLES - 1)
    assert not bench.window.violated
    bench.add(500, 1)
    assert bench.window.violated


def test_it_is_missed_when_the_percentile_exceeds_the_threshold(bench: Bench) -> None:
    bench.add(100, 100)
    assert not bench.window.violated
    bench.add(101, 12)
    assert bench.window.violated
    assert bench.window.measured_ms > 100


def test_a_few_outliers_do_not_miss_it(bench: Bench) -> None:
    bench.add(10, 100)
    bench.add(5000, 9)
    assert not bench.window.violated


def test_it_is_met_again_after_three_rounds_well_below_the_threshold(bench: Bench) -> None:
    bench.add(200)
    bench.now += 50
    bench.add(70, 1000)
    seen = []
    for _ in range(5):
        seen.append(bench.window.violated)
        bench.now += 1
    assert seen == [True, True, True, False, False]


def test_a_latency_just_below_the_threshold_is_no_recovery(bench: Bench) -> None:
    bench.add(200)
    bench.add(90, 5000, every_s=0.1)
    assert bench.window.violated
    bench.add(70, 700, every_s=0.1)
    assert not bench.window.violated


def test_a_round_in_between_that_is_not_calm_starts_the_count_again(bench: Bench) -> None:
    bench.add(200)
    bench.now += 50
    bench.add(70, 1000)
    bench.now += 1
    assert bench.window.violated
    bench.add(90, 1000)
    bench.now += 1
    assert bench.window.violated
    bench.add(70, MOST_SAMPLES)
    seen = []
    for _ in range(3):
        bench.now += 1
        seen.append(bench.window.violated)
    assert seen == [True, True, False]


def test_when_nothing_is_measured_any_more_it_is_met_again(bench: Bench) -> None:
    bench.add(200)
    bench.now += 59
    assert bench.window.violated
    bench.now += 2
    assert not bench.window.violated
    bench.add(200, LEAST_SAMPLES - 1)
    assert not bench.window.violated


def test_the_few_old_latencies_do_not_condemn_the_first_new_one(bench: Bench) -> None:
    bench.add(200)
    bench.add(200, 31, every_s=1.0)
    bench.now += 30
    assert not bench.window.violated
    bench.add(10, 1)
    assert not bench.window.violated
    assert bench.window.measured_ms == 10


def test_latencies_grow_old(bench: Bench) -> None:
    bench.add(99, 100)
    bench.now += 61
    bench.add(1, 32)
    assert bench.window.measured_ms == 1


def test_the_latencies_it_keeps_are_bounded(bench: Bench) -> None:
    bench.add(99, MOST_SAMPLES)
    bench.add(1, MOST_SAMPLES)
    assert bench.window.measured_ms == 1


def test_many_threads_may_add_at_once(bench: Bench) -> None:
    threads = [threading.Thread(target=lambda: bench.add(10, 500)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(bench.window._latencies_ms) == 4000
