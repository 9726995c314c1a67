# SPDX-License-Identifier: Apache-2.0
"""Log lines about trouble that comes and goes: few, and never the wrong last word."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest

from reflex_core.text.rate_limit import KINDS_KEPT, ConditionLog, RateLimitedLog

LOGGER = logging.getLogger("test.rate_limit")
QUIET_S = 60.0


@dataclass
class Clock:
    now_s: float = 1000.0
    ticks: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(caplog: pytest.LogCaptureFixture) -> Clock:
    caplog.set_level(logging.DEBUG, LOGGER.name)
    return Clock()


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_kind_is_logged_once_in_a_while_with_how_many_were_left_out(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = RateLimitedLog(LOGGER, QUIET_S, clock)
    for number in range(100):
        log(logging.WARNING, "clamped", "chunk %d", number)
    log(logging.ERROR, "trip", "tripped")
    clock.now_s += QUIET_S
    log(logging.WARNING, "clamped", "chunk %d", 100)
    assert logged(caplog) == ["chunk 0", "tripped", "chunk 100 (99 more like it in the last 60 s)"]


def test_a_line_may_bring_its_traceback(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    RateLimitedLog(LOGGER, QUIET_S, clock)(logging.ERROR, "odd", "an odd request", error=ValueError("why"))
    assert caplog.records[0].exc_info is not None


def test_the_kinds_that_are_distinguished_are_bounded(clock: Clock) -> None:
    log = RateLimitedLog(LOGGER, QUIET_S, clock)
    for number in range(10 * KINDS_KEPT):
        log(logging.DEBUG, f"kind {number}", "line")
    assert len(log._kinds) == KINDS_KEPT


def test_a_condition_is_logged_when_it_begins_and_when_it_is_over(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    conditions = ConditionLog(LOGGER, QUIET_S, clock)
    for condition in ("", "stale", "stale", "skewed", "skewed", "", ""):
        conditions.note(condition, "why")
    assert logged(caplog) == ["stale: why", "skewed: why", "skewed ended"]


def test_a_condition_that_comes_and_goes_does_not_flood_the_log(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    conditions = ConditionLog(LOGGER, QUIET_S, clock)
    for _ in range(300):  # half a minute at ten cycles a second
        conditions.note("stale", "why")
        conditions.note("")
        clock.now_s += 0.1
    assert logged(caplog) == ["stale: why", "stale ended"]


def test_a_condition_that_came_back_unsaid_and_stays_is_said_once_the_quiet_time_is_over(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    conditions = ConditionLog(LOGGER, QUIET_S, clock)
    for condition in ("stale", "", "stale"):
        conditions.note(condition, "why")
    assert logged(caplog)[-1] == "stale ended"
    clock.now_s += QUIET_S
    conditions.note("stale", "why")
    assert logged(caplog)[-1] == "stale: why"
    clock.now_s += QUIET_S
    conditions.note("")
    assert logged(caplog)[-1] == "stale ended"
