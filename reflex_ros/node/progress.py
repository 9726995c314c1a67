# SPDX-License-Identifier: Apache-2.0
"""Settings of the chunk loop that change while it runs, and its counters."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from reflex_core.text.rate_limit import ConditionLog, RateLimitedLog
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, POLICY, Served
from reflex_ros.node.observation_buffer import Gates

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The settings that may change while the loop runs."""

    gates: Gates
    execution_horizon: int
    margin_s: float
    fade_s: float = 0.0
    blend: float = 1.0
    blend_s: float = 0.0
    takeover_release_s: float = 0.0
    takeover_button: int = -1


@dataclass(slots=True)
class Progress:
    """What the loop has done since it was made; read by status and diagnostics.

    unheld: how often there was nothing to hold at; unheld_text: why, until a hold is possible again. first_motion: the robot is
    moved in a dry run, on request. control: who commands the robot, one of CONTROLS. blend: how much of the policy's motion is let
    through. takeovers: how often a person took the commands; watched: answers that were not executed meanwhile;
    takeover_problem: why what a person commands is not followed; takeover_pace: the share of the usual speed at which the robot goes
    where a person wants it, so that its tool keeps its limits.
    """

    chunks: int = 0
    holds: int = 0
    errors: int = 0
    refused: int = 0
    clamped: int = 0
    fallbacks: int = 0
    discarded: int = 0
    latency_ms: float = 0.0
    age_ms: float = 0.0
    problem: str = ""
    problem_text: str = ""
    hold_reason: str = ""
    slot: str = ""
    source: str = ""
    unheld: int = 0
    unheld_text: str = ""
    first_motion: bool = False
    control: str = POLICY
    blend: float = 1.0
    takeovers: int = 0
    watched: int = 0
    takeover_problem: str = ""
    takeover_pace: float = 1.0
    limited_log: RateLimitedLog = field(default_factory=lambda: RateLimitedLog(log), repr=False)
    conditions: ConditionLog = field(default_factory=lambda: ConditionLog(log), repr=False)

    def note(self, problem: str, text: str) -> None:
        """Log a problem once, when it begins, and once when it is over; one that comes and goes, once in a while."""
        self.conditions.note(problem, text)
        self.problem, self.problem_text = problem, text

    def judge(self, served: Served, *, executed: bool = True) -> None:
        """Take note whether the chunk is fresh, and why not. executed: it was published."""
        source, reason = served.chunk.source, served.hold_reason
        text = "; ".join(served.guard.violations[:1]) or "this request was answered with a hold"
        if source == HOLD:
            reason = reason or HOLD
        problem = reason
        if source == LAST_KNOWN_GOOD:
            problem = "deadline"
            text = f"inference was too slow, the chunk of {served.fallback.age_ms:.0f} ms ago goes on"
        self.note(problem, text)
        if executed:
            self.hold_reason = reason

    def count(self, served: Served, age_ms: float) -> None:
        """Count what was published. age_ms: of its observation."""
        if served.chunk.source == HOLD:
            self.holds += 1
        else:
            self.chunks += 1
        self.clamped += served.guard.clamped
        self.fallbacks += served.chunk.source in (LAST_KNOWN_GOOD, CLOUD)
        self.latency_ms, self.slot, self.source = served.latency_ms, served.slot, served.chunk.source
        self.age_ms = age_ms
