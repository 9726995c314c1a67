# SPDX-License-Identifier: Apache-2.0
"""The guard: no chunk leaves that breaks a limit or is not made of numbers, whoever made it. It fails closed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np

from reflex_core.embodiment import Embodiment
from reflex_core.errors import InferenceError, ObservationError
from reflex_core.limits.check import KINDS, LINES_KEPT, Check
from reflex_core.limits.config import (
    CLIP,
    DEFAULT_MAX_CONSECUTIVE_CLAMPS,
    REJECT,
    SafetyConfig,
    SafetyConfigError,
)
from reflex_core.limits.history import CommandHistory, Told, moment_of
from reflex_core.limits.motion import Motion, motion
from reflex_core.limits.values import Limits, effective_limits
from reflex_core.metrics import Metrics
from reflex_core.policy.fit import Columns
from reflex_core.rate_limit import RateLimitedLog
from reflex_core.robot.callers import ROS, caller_of, robot_of
from reflex_core.robot.limits.trips import Trips
from reflex_core.values import (
    HOLD,
    LAST_KNOWN_GOOD,
    NOT_INFERRED,
    NOTHING,
    ActionChunk,
    Floats,
    GuardReport,
    Request,
    Served,
)
from reflex_core.wedges.wedge import Proceed

VIOLATIONS_KEPT = LINES_KEPT
CALLERS_SHOWN = 100
NON_FINITE, REJECTED, TRIPPED, BROKEN = "non_finite", "rejected", "guard_tripped", "guard_error"
OUT_OF_REACH = "out_of_reach"
SLUGS = {NON_FINITE: "non-finite-actions", TRIPPED: "guard_tripped"}
ROBOT = "\0robot"  # whose chunks are stamped: one robot on its own clock, whatever episode it is in

UNCHANGED = GuardReport()
UNKNOWN = Motion()

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """For people and doors. enabled: there are limits to check. inference_count: chunks examined so far.

    tripped, trip_reason, consecutive_clamps: of the caller that was asked about; else whether anybody is tripped, the
    first one's reason, the highest count. tripped_callers: who is tripped; callers: clamped chunks in a row of those that
    are tripped or counted; both cut to CALLERS_SHOWN. tripped_total: how many are tripped.
    """

    enabled: bool
    tripped: bool
    trip_reason: str
    consecutive_clamps: int
    max_consecutive_clamps: int
    inference_count: int
    mode: str
    violations_total: int
    tripped_total: int = 0
    tripped_callers: tuple[str, ...] = ()
    callers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What becomes of a chunk: `actions` None is a hold, for `hold_reason`."""

    actions: Floats | None
    hold_reason: str = ""
    report: GuardReport = UNCHANGED
    kinds: tuple[str, ...] = ()
    motion: Motion = UNKNOWN
    counts: bool = True  # towards the trip


class Guard:
    """Keeps chunks inside the limits; what it cannot repair becomes a hold, never zeros.

    Without limits only finiteness is checked. After `max_consecutive_clamps` chunks in a row of one caller that had to be
    changed it trips for that caller: from then on its every answer is a hold and no inference runs for it, until `reset`.
    0 never trips.
    """

    def __init__(
        self, limits: Limits | None, hold_columns: Columns | None, metrics: Metrics, embodiment: str = "none",
        mode: str = CLIP, max_consecutive_clamps: int = DEFAULT_MAX_CONSECUTIVE_CLAMPS,
        said: Callable[[Request], Served] | None = None,
    ) -> None:  # fmt: skip
        """hold_columns: where in the state each action's measured position is, None when nowhere.

        said: what an answer without inference says of who was to answer; None repeats the one before.
        """
        self.limits = limits
        self._hold_columns = hold_columns
        self._state_dim = 1 + int(hold_columns.max()) if hold_columns is not None else 0
        self._violations = {
            kind: metrics.safety_violations.labels(embodiment, kind)
            for kind in (NON_FINITE, *KINDS, REJECTED)
        }
        self._holds = metrics.holds
        self._mode, self._said = mode, said
        self.trips = Trips(max_consecutive_clamps)
        metrics.trips.watch(embodiment, self.trips.standings)
        self._log = RateLimitedLog(log)
        self._history = CommandHistory()
        self._check: tuple[float, Check] | None = None
        self._lock = threading.Lock()
        self._pattern: Served | None = None
        self._examined = self._lines = 0

    def status(self, caller: str = "") -> GuardStatus:
        """How the guard stands towards one caller, or towards all of them together."""
        standings = self.trips.standings()
        asked = [self.trips.standing(caller)] if caller else standings
        with self._lock:
            examined, lines = self._examined, self._lines
        return GuardStatus(
            enabled=self.limits is not None,
            tripped=any(one.tripped for one in asked),
            trip_reason=next((one.trip_reason for one in asked if one.tripped), ""),
            consecutive_clamps=max((one.consecutive_clamps for one in asked), default=0),
            max_consecutive_clamps=self.trips.most,
            inference_count=examined,
            mode=self._mode,
            violations_total=lines,
            tripped_total=sum(one.tripped for one in standings),
            tripped_callers=tuple(one.caller for one in standings if one.tripped)[:CALLERS_SHOWN],
            callers={one.caller: one.consecutive_clamps for one in standings[:CALLERS_SHOWN]},
        )

    def reset(self, caller: str) -> bool:
        """Let the caller's chunks pass again. True when it was tripped. Raises CallerError for one that never asked."""
        was_tripped = self.trips.reset(caller)
        if was_tripped:
            log.warning("%s is over for caller %r: it was reset", TRIPPED, caller)
        return was_tripped

    def forget(self) -> None:
        """The robot whose observations are stamped does not execute the newest chunk: it counts from where it is."""
        self._history.forget(ROBOT)

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        pattern, reason = self._pattern, self.trips.reason(caller_of(request))
        if reason and pattern is not None:
            return self._while_tripped(request, pattern, reason)
        served = proceed(request)
        judged = self._judge(request, served)
        reason = self._count(request, served, judged)
        if reason:
            report = replace(
                judged.report, clamped=True, violations=(_line(reason), *judged.report.violations)
            )
            judged = replace(judged, actions=None, hold_reason=TRIPPED, report=report)
        if judged.actions is None:
            return self._hold(request, served, judged)
        if judged.actions is not served.chunk.actions:
            served = replace(served, chunk=replace(served.chunk, actions=judged.actions), guard=judged.report)
        self._remember(request, served.chunk, judged.motion)
        return served

    def _judge(self, request: Request, served: Served) -> _Judged:
        """Whatever goes wrong in here, the chunk as the model gave it does not leave."""
        try:
            return self._judged(request, served.chunk)
        except Exception as error:
            self._log(
                logging.ERROR, BROKEN, "%s: request %r cannot be checked: holding", BROKEN, request.request_id, error=error
            )  # fmt: skip
            report = GuardReport(
                True, int(np.size(served.chunk.actions)), (f"{BROKEN}: {error}: holding position",)
            )
            return _Judged(None, BROKEN, report)

    def _judged(self, request: Request, chunk: ActionChunk) -> _Judged:
        actions = chunk.actions
        if (
            actions.ndim != 2
            or not actions.size
            or actions.dtype != np.float32
            or actions.shape[1] != len(chunk.names)
        ):
            raise ValueError(
                f"a chunk must be (horizon, {len(chunk.names)}) float32, got {actions.shape} {actions.dtype}"
            )
        if self.limits is not None and chunk.names != self.limits.names:
            raise ValueError(
                f"the limits are for {', '.join(self.limits.names)}, the chunk has {', '.join(chunk.names)}"
            )
        known = self._motion(request, len(actions), chunk.dt_s)
        if not np.isfinite(actions).all():
            bad = int((~np.isfinite(actions)).sum())
            self._log(
                logging.ERROR, NON_FINITE, "%s: %d NaN or Inf values for request %r: holding", NON_FINITE, bad, request.request_id
            )  # fmt: skip
            line = f"non_finite_action: {bad} NaN or Inf values: holding position"
            return _Judged(None, NON_FINITE, GuardReport(True, bad, (line,)), (NON_FINITE,), known)
        if self.limits is None:
            return _Judged(actions, motion=known)
        checked = self._check_for(self.limits, chunk.dt_s)(actions, known, is_hold=chunk.source == HOLD)
        if checked.clean:
            return _Judged(checked.actions, motion=known)
        report = GuardReport(True, checked.changed, checked.violations)
        if checked.actions is not None:
            return _Judged(checked.actions, "", report, checked.kinds, known, checked.counts)
        if self._mode == REJECT:
            return _Judged(None, REJECTED, report, (*checked.kinds, REJECTED), known)
        return _Judged(None, OUT_OF_REACH, report, checked.kinds, known)

    def _check_for(self, limits: Limits, dt_s: float) -> Check:
        made = self._check
        if made is None or made[0] != dt_s:
            made = self._check = (dt_s, Check(limits, dt_s, self._mode))
        return made[1]

    def _motion(self, request: Request, horizon: int, dt_s: float) -> Motion:
        if self.limits is None:
            return UNKNOWN
        told, moment = self._history.recall(_owner(request)), moment_of(request)
        measured = self._measured(request)
        same = told is None or told.episode_id == request.episode_id
        now_ns = time.monotonic_ns()
        return motion(told, measured, moment, now_ns, self.limits, horizon, dt_s, same_episode=same)

    def _count(self, request: Request, served: Served, judged: _Judged) -> str:
        """Why the guard is tripped for this caller after this chunk; empty while it is not."""
        report, caller = judged.report, caller_of(request)
        for kind in judged.kinds:
            self._violations[kind].inc()
        with self._lock:
            self._examined += 1
            self._lines += len(report.violations)
            self._pattern = served
        clamped = report.clamped and judged.counts
        # only a model's own chunk shows that the model is well again
        well = not clamped and served.chunk.source not in (HOLD, LAST_KNOWN_GOOD)
        counted = self.trips.count(caller, clamped=clamped, well=well)
        whose = caller if caller == ROS else "others"  # invented callers must not write a line each
        if counted.began:
            self._log(
                logging.ERROR, f"trip {whose}", "%s: caller %r: %s: holding until it is reset", TRIPPED, caller, counted.reason
            )  # fmt: skip
        elif counted.first:
            lines = "; ".join(report.violations[:3])
            self._log(
                logging.WARNING,
                f"change {whose}",
                "the guard changed a chunk of caller %r: %s",
                caller,
                lines,
            )
        return counted.reason

    def _while_tripped(self, request: Request, pattern: Served, reason: str) -> Served:
        """A hold without any inference, in the shape of the chunks before, said of the slot that was to answer."""
        if self.hold_position(request) is None:
            self._require_state(request)  # no inference will say so
        said = replace(pattern, routing=NOTHING) if self._said is None else self._said(request)
        like = replace(said, chunk=pattern.chunk)
        held = self._hold(request, like, _Judged(None, TRIPPED, GuardReport(True, 0, (_line(reason),))))
        return replace(
            held, raw_actions=held.chunk.actions, request_id=request.request_id, episode_id=request.episode_id,
            seed=request.seed or 0, latency_ms=0.0, deadline_exceeded=False, fallback_age_ms=0.0,
            fallback_request_id="", injected_latency_ms=0.0, trace_seq=-1, **NOT_INFERRED,
        )  # fmt: skip

    def _hold(self, request: Request, served: Served, judged: _Judged) -> Served:
        """The whole chunk at one position. Raises InferenceError when none is known: better no chunk than a guess."""
        self._holds.labels(judged.hold_reason).inc()
        position = self.hold_position(request)
        dt_s = served.chunk.dt_s
        names = served.chunk.names if self.limits is None else self.limits.names
        if position is None or len(position) != len(names):
            raise InferenceError(
                f"{'; '.join(judged.report.violations)}: there is no known position to hold",
                SLUGS.get(judged.hold_reason, "no-hold-position"),
            )
        if self.limits is not None and dt_s > 0.0:
            position = self._check_for(self.limits, dt_s).inside(position)
        rows = np.tile(position.astype(np.float32), (max(len(served.chunk.actions), 1), 1))
        chunk = ActionChunk(rows, names, dt_s, source=HOLD)
        self._remember(request, chunk, judged.motion)
        return replace(served, chunk=chunk, guard=judged.report, hold_reason=judged.hold_reason)

    def _require_state(self, request: Request) -> None:
        """Raise ObservationError where it is the caller's state that says nothing of where to hold."""
        state = request.observation.state
        if state is None and self._state_dim:
            raise ObservationError(
                f"no robot state: the guard is tripped and needs the state ({self._state_dim} numbers or more) to hold at",
                "missing-state",
            )
        if state is not None and len(state) < self._state_dim:
            raise ObservationError(
                f"the state must have at least {self._state_dim} numbers to hold at, got {len(state)}",
                "state-length",
            )

    def hold_position(self, request: Request) -> Floats | None:
        """(action_dim,) what the robot is being told, for the joints that do it, else where it measures itself."""
        told, measured, moment = (
            self._history.recall(_owner(request)),
            self._measured(request),
            moment_of(request),
        )
        since_s = moment.seconds_since(told.moment) if told is not None else 0.0
        if told is None or (since_s < 0.0 and measured is not None):
            return measured
        target = told.target(since_s + (time.monotonic_ns() - moment.zero_ns) * 1e-9)
        if measured is None:
            return target
        try:
            trusted = self._motion(request, 1, told.dt_s).trusted
        except Exception as error:
            self._log(
                logging.ERROR, "compare", "%s: measured and commanded position cannot be compared", BROKEN, error=error
            )  # fmt: skip
            return target
        if trusted is None:
            return target if told.episode_id == request.episode_id else measured
        held: Floats = np.where(trusted, target, measured)
        return held

    def _measured(self, request: Request) -> Floats | None:
        state, columns = request.observation.state, self._hold_columns
        if columns is None or state is None or len(state) < self._state_dim:
            return None
        measured: Floats = state[columns]
        return measured if all(map(isfinite, measured.tolist())) else None

    def _remember(self, request: Request, chunk: ActionChunk, known: Motion) -> None:
        rows = np.empty((len(chunk.actions) + 1, chunk.actions.shape[1]), np.float32)
        rows[0], rows[1:] = chunk.actions[0], chunk.actions
        if known.start is not None:
            rows[0] = np.minimum(np.maximum(rows[0], known.start.low), known.start.high)
        self._history.remember(
            _owner(request), Told(rows, chunk.dt_s, moment_of(request), request.episode_id)
        )


def guard_for(
    embodiment: Embodiment | None, hold_columns: Columns | None, metrics: Metrics, safety: SafetyConfig | None,
    action_names: tuple[str, ...], dt_s: float, said: Callable[[Request], Served] | None = None,
) -> Guard:  # fmt: skip
    """The guard of one robot. Raises SafetyConfigError when the safety file is not this robot's or cannot be kept.

    action_names, dt_s: of the chunks that will come. said: what an answer without inference says of who was to answer.
    """
    limits = effective_limits(action_names, embodiment, safety)
    name = embodiment.name if embodiment is not None else "none"
    if safety is None:
        return Guard(limits, hold_columns, metrics, name, said=said)
    for note in safety.notes:
        log.warning("%s", note)
    if limits is not None:
        try:
            Check(limits, dt_s, safety.mode)
        except ValueError as error:
            raise SafetyConfigError(f"{safety.path}: {error}", "safety-config-no-rate") from error
    return Guard(limits, hold_columns, metrics, name, safety.mode, safety.max_consecutive_clamps, said)


def _owner(request: Request) -> str | None:
    """Whose command history it is: the ROS robot's, that of the robot which names itself, else the episode's."""
    if request.observation.stamp_ns:
        return ROBOT
    robot = robot_of(request)
    return f"{ROBOT}:{robot}" if robot else request.episode_id


def _line(reason: str) -> str:
    return f"{TRIPPED}: {reason}: holding position"
