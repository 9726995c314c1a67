# SPDX-License-Identifier: Apache-2.0
"""Admission: what a missed latency objective does to the requests that come."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import pytest
from prometheus_client import Counter
from servers import ExportDir
from wedge_requests import Arm, answer, count, counters, request

from reflex_core.errors import InferenceError, NotReadyError, SettingError
from reflex_core.metrics.slo import LEAST_SAMPLES
from reflex_core.values import Request, Served
from reflex_core.wedges.admission import (
    AUTO,
    DEGRADE,
    LOG_ONLY,
    REFUSE,
    Admission,
    degraded_steps_of,
    mode_of,
)


@dataclass
class Bench:
    """Admission for p99=150ms whose settings and clock the test turns. Latency is how long ago a request came."""

    mode: str = LOG_ONLY
    slo: str = "p99=150ms"
    now: float = 1000.0
    seen: list[Request] = field(default_factory=list)
    counted: dict[str, Counter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.admission = Admission(
            lambda: self.slo, lambda: self.mode, 5, self._violations, clock=lambda: self.now
        )

    def _violations(self, kind: str) -> Counter:
        return self.counted.setdefault(kind, counters(kind.replace(".", "_"))[kind.replace(".", "_")])

    def ask(self, latency_ms: float = 0.0) -> Served:
        incoming = request(received_ns=time.monotonic_ns() - int(latency_ms * 1e6))
        return self.admission(incoming, self._answer)

    def _answer(self, request: Request) -> Served:
        self.seen.append(request)
        return answer(request)

    def miss(self) -> None:
        for _ in range(LEAST_SAMPLES):
            self.ask(300.0)
        self.seen.clear()

    def violations(self, kind: str = "p99_exceeded") -> float:
        return count(self.counted[kind])


@pytest.mark.parametrize(
    ("requested", "fixed", "mode"),
    [(AUTO, False, DEGRADE), (AUTO, True, LOG_ONLY), (REFUSE, True, REFUSE), (LOG_ONLY, False, LOG_ONLY), (DEGRADE, True, DEGRADE)],
)  # fmt: skip
def test_auto_takes_fewer_steps_where_there_are_steps_to_save(requested: str, fixed: bool, mode: str) -> None:
    assert mode_of(requested, fixed) == mode


def test_while_the_objective_is_met_requests_pass_as_they_are() -> None:
    bench = Bench(mode=REFUSE)
    incoming = request()
    assert bench.admission(incoming, answer).request_id == incoming.request_id
    for _ in range(100):
        bench.ask()
    assert all(seen.max_steps is None for seen in bench.seen)
    assert bench.violations() == 0


def test_without_an_objective_nothing_is_measured() -> None:
    bench = Bench(slo="", mode=REFUSE)
    bench.miss()
    bench.ask(300.0)
    assert bench.admission.window is None


def test_log_only_counts_and_serves() -> None:
    bench = Bench(mode=LOG_ONLY)
    bench.miss()
    for _ in range(3):
        bench.ask()
    assert len(bench.seen) == 3
    assert bench.seen[0].max_steps is None
    assert bench.violations() == 3


def test_503_refuses_before_inference_and_says_what_is_measured() -> None:
    bench = Bench(mode=REFUSE)
    bench.miss()
    with pytest.raises(NotReadyError, match=r"^p99 is 3\d\d ms, the SLO is 150 ms$") as caught:
        bench.ask()
    assert (caught.value.state, caught.value.slug, caught.value.retry_after_s) == (
        "ready",
        "slo_violation",
        1,
    )
    assert bench.seen == []
    assert bench.violations() == 1


def test_503_serves_again_when_the_slow_answers_have_grown_old() -> None:
    bench = Bench(mode=REFUSE)
    bench.miss()
    for _ in range(60):
        with pytest.raises(NotReadyError):
            bench.ask()
        bench.now += 1
    bench.now += 1
    bench.ask()
    assert len(bench.seen) == 1


def test_refusals_are_not_measured() -> None:
    bench = Bench(mode=REFUSE)
    bench.miss()
    window = bench.admission.window
    assert window is not None
    before = window.measured_ms
    for _ in range(10):
        with pytest.raises(NotReadyError):
            bench.ask(900.0)
    assert window.measured_ms == before


def test_requests_that_failed_are_not_measured() -> None:
    bench = Bench(mode=REFUSE)

    def fail(_: Request) -> Served:
        raise InferenceError("broken")

    for _ in range(2 * LEAST_SAMPLES):
        with pytest.raises(InferenceError):
            bench.admission(request(received_ns=0), fail)
    bench.ask()


def test_degrade_allows_fewer_denoise_steps_and_recovers() -> None:
    bench = Bench(mode=DEGRADE)
    bench.miss()
    bench.ask()
    assert bench.seen[-1].max_steps == 5
    assert bench.violations() == 1
    bench.now += 58
    for _ in range(200):
        bench.ask()
    for _ in range(5):
        bench.now += 1
        bench.ask()
    assert bench.seen[-1].max_steps is None


def test_degrade_never_raises_the_limit_that_a_request_brings() -> None:
    bench = Bench(mode=DEGRADE)
    bench.miss()
    for wanted, allowed in ((3, 3), (8, 5)):
        incoming = request()
        bench.admission(
            Request(incoming.observation, incoming.received_ns, "own", max_steps=wanted), bench._answer
        )
        assert bench.seen[-1].max_steps == allowed


@pytest.mark.parametrize(("configured", "steps"), [(10, 5), (5, 2), (4, 2), (3, 2), (2, 2), (1, 1)])
def test_degraded_service_takes_half_of_the_steps_but_two(configured: int, steps: int) -> None:
    assert degraded_steps_of(configured) == steps


def test_mode_and_objective_may_change_between_requests() -> None:
    bench = Bench(mode=LOG_ONLY)
    bench.miss()
    bench.ask()
    bench.mode = REFUSE
    with pytest.raises(NotReadyError):
        bench.ask()
    bench.slo = "p50 = 1000 ms"
    bench.miss()
    bench.ask()
    bench.slo = "p99.9=100ms"
    bench.miss()
    with pytest.raises(NotReadyError, match=r"^p99\.9 is"):
        bench.ask()
    assert bench.violations("p99.9_exceeded") == 1
    bench.slo = ""
    bench.ask()


def test_an_objective_that_cannot_be_read_is_refused_at_the_start_and_logged_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(SettingError, match="expected p<percentile>"):
        Bench(slo="fast please")
    bench = Bench(mode=REFUSE)
    bench.miss()
    bench.slo = "fast please"
    for _ in range(3):
        with pytest.raises(NotReadyError):
            bench.ask()
    assert caplog.text.count("the objective is unchanged") == 1


def test_each_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reflex_core.wedges.admission")
    bench = Bench()
    bench.miss()
    for _ in range(5):
        bench.ask(300.0)
    bench.now += 61
    for _ in range(5):
        bench.ask()
    assert [record.message for record in caplog.records][1:] == ["p99 is met again"]
    assert caplog.records[0].message.startswith("p99 is 3")
    assert caplog.records[0].message.endswith("the SLO is 150 ms (mode log_only)")


def test_a_policy_with_its_own_loop_really_takes_fewer_steps(export_dir: ExportDir) -> None:
    bench = Bench(mode=DEGRADE)
    arm = Arm(export_dir("decomposed_per_step"), None)
    act = arm.middleware_chain(admission=bench.admission)
    assert act(arm.request()).inference.denoise_steps == 10
    bench.miss()
    served = act(arm.request())
    assert (served.inference.denoise_steps, served.inference.denoise_steps_configured) == (5, 10)
