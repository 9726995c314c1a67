# SPDX-License-Identifier: Apache-2.0
"""The guard: no chunk leaves that breaks a limit or is not finite, whichever wedge made it. It fails closed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from reflex_core.chunks.tool_check import KINDS, ToolCheck, check_of
from reflex_core.errors import InferenceError, ObservationError
from reflex_core.metrics.metrics import Metrics
from reflex_core.reports import Fallback, GuardReport, RoutingReport
from reflex_core.robot.callers import caller_of
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.limits.caller_motion import CallerMotion
from reflex_core.robot.limits.check import LINES_KEPT, Check
from reflex_core.robot.limits.guard_status import GuardStatus
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.reachable import Doubles, Motion
from reflex_core.robot.limits.safety_config import (
    CLIP,
    DEFAULT_MAX_CONSECUTIVE_CLAMPS,
    REJECT,
    SafetyConfig,
    SafetyConfigError,
)
from reflex_core.robot.limits.trips import Trips
from reflex_core.robot.path_tolerance import joints_judged
from reflex_core.robot.plausibility import ANYTHING, MARGIN_RAD, StateRange, state_range
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, ROS, ActionChunk, Columns, Floats, Request, Served
from reflex_core.wedges.wedge import Proceed

VIOLATIONS_KEPT = LINES_KEPT
CALLERS_SHOWN = 100
NON_FINITE, REJECTED, TRIPPED, BROKEN = "non_finite", "rejected", "guard_tripped", "guard_error"
OUT_OF_REACH, UNREACHED = "out_of_reach", "pose_unreached"
SLUGS = {NON_FINITE: "non-finite-actions", TRIPPED: "guard_tripped"}

UNCHANGED = GuardReport()
UNKNOWN = Motion()

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What becomes of a chunk: `actions` None is a hold, for `hold_reason`."""

    actions: Floats | None
    hold_reason: str = ""
    report: GuardReport = UNCHANGED
    kinds: tuple[str, ...] = ()
    motion: Motion = UNKNOWN
    counts: bool = True  # towards the trip


@dataclass(frozen=True, slots=True)
class _First:
    """The first check of a chunk of the stamped robot. requested: as the policy made it; clamped, before: as it was counted."""

    request_id: str
    requested: Floats
    clamped: bool
    before: int


class Guard:
    """Keeps chunks inside the limits; what it cannot repair becomes a hold, zeros for velocities alone. All holds come from here.

    Without limits only finiteness is checked. After `max_consecutive_clamps` chunks in a row of one caller that had to be
    changed it trips for that caller: from then on its every answer is a hold and no inference runs for it, until `reset`.
    0 never trips.
    """

    def __init__(
        self, limits: Limits | None, hold_columns: Columns | None, metrics: Metrics, embodiment: str = "none",
        mode: str = CLIP, max_consecutive_clamps: int = DEFAULT_MAX_CONSECUTIVE_CLAMPS,
        prototype: Callable[[Request], Served] | None = None, plausible: StateRange = ANYTHING,
        tracking_rad: float | Doubles = MARGIN_RAD, monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:  # fmt: skip
        """Make a guard for one robot.

        hold_columns: where in the state each action's measured position is, None when nowhere; any number for a velocity.
        prototype: an answer without inference of the slot that was to answer; None repeats the one before.
        plausible: states outside it are no measurement. tracking_rad: how far from its command a joint of the stamped
        robot may be measured and still follow it.
        """
        self.limits = limits
        self._known = CallerMotion(limits, hold_columns, plausible, tracking_rad, monotonic_ns)
        self.commands = self._known.robot
        self._violations = {
            kind: metrics.safety_violations.labels(embodiment, kind)
            for kind in (NON_FINITE, UNREACHED, *KINDS, REJECTED)
        }
        self._holds = metrics.holds
        self._mode, self._prototype = mode, prototype
        self.trips = Trips(max_consecutive_clamps)
        metrics.trips.watch(embodiment, self.trips.standings)
        self._log = RateLimitedLog(log)
        self._check: tuple[float, Check | ToolCheck] | None = None
        self._lock = threading.Lock()
        self._pattern: Served | None = None
        self._first: _First | None = None
        self._examined = self._lines = 0

    def status(self, caller: str = "") -> GuardStatus:
        """Return the guard's status for one caller, or for all of them together."""
        standings = self.trips.standings()
        requested = [self.trips.standing(caller)] if caller else standings
        with self._lock:
            examined, lines = self._examined, self._lines
        return GuardStatus(
            enabled=self.limits is not None,
            tripped=any(one.tripped for one in requested),
            trip_reason=next((one.trip_reason for one in requested if one.tripped), ""),
            consecutive_clamps=max((one.consecutive_clamps for one in requested), default=0),
            max_consecutive_clamps=self.trips.most,
            inference_count=examined,
            mode=self._mode,
            violations_total=lines,
            tripped_total=sum(one.tripped for one in standings),
            tripped_callers=tuple(one.caller for one in standings if one.tripped)[:CALLERS_SHOWN],
            callers={one.caller: one.consecutive_clamps for one in standings[:CALLERS_SHOWN]},
        )

    def reset(self, caller: str) -> bool:
        """Let the caller's chunks pass again. True when it was tripped. Raises CallerError for an unknown caller."""
        was_tripped = self.trips.reset(caller)
        if was_tripped:
            log.warning("%s ended for caller %r: reset", TRIPPED, caller)
        return was_tripped

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        pattern, reason = self._pattern, self.trips.reason(caller_of(request))
        if reason and pattern is not None:
            return self._while_tripped(request, pattern, reason)
        served = proceed(request)
        judged = self._judge(request, served)
        self._note(judged)
        with self._lock:
            if not served.chunk.of_person:
                self._examined, self._pattern = self._examined + 1, served
        judged = self._count(request, served, judged)
        if judged.actions is None:
            return self._hold(request, served, judged)
        if judged.actions is not served.chunk.actions:
            served = replace(served, chunk=replace(served.chunk, actions=judged.actions), guard=judged.report)
        self._known.remember(request, served.chunk, judged.motion)
        return served

    def rejoined(self, request: Request, served: Served, row: int, led: ActionChunk | None = None) -> Served:
        """Return the stamped robot's chunk as it may be executed from `row` on. Raises InferenceError like a call.

        It may have waited since it was judged, and was joined to the command at the row that was due then.
        Changes made now are reported after the earlier ones, and the chunk counts once towards the trip.
        led: the same chunk, led over from what is executed, which is executed instead: inside the limits like any other. What
        must be changed of it is not the policy's doing, so that the chunk itself is reported and counted.
        """
        anew = led is not None and led is not served.chunk
        if served.chunk.source == HOLD or not (
            anew or (self.limits is not None and self.commands.joined != row)
        ):
            return served
        self.commands.forget()
        ahead = self._judge(request, replace(served, chunk=led), row) if anew and led is not None else None
        if ahead is not None and not ahead.report.clamped:
            return self._taken(request, served, ahead)
        judged = self._judge(request, served, row)
        if judged.report.clamped:
            judged = self._again(request, served, judged)
        if judged.actions is None:
            return self._hold(request, served, judged)
        if judged.report.clamped:
            served = replace(served, guard=judged.report)
        return self._taken(request, served, judged if ahead is None or ahead.actions is None else ahead)

    def _taken(self, request: Request, served: Served, judged: _Judged) -> Served:
        """Return the chunk with the rows that were judged, and remember it."""
        assert judged.actions is not None
        if judged.actions is not served.chunk.actions:
            served = replace(served, chunk=replace(served.chunk, actions=judged.actions))
        self._known.remember(request, served.chunk, judged.motion)
        return served

    def _judge(self, request: Request, served: Served, row: int | None = None) -> _Judged:
        """Check a chunk; on any fault in here, the chunk as the model made it does not leave."""
        try:
            return self._judged(request, served.chunk, row, served.unreached)
        except Exception as error:
            self._log(
                logging.ERROR, BROKEN, "%s: request %r cannot be checked: holding", BROKEN, request.request_id, error=error
            )  # fmt: skip
            report = GuardReport(
                True, int(np.size(served.chunk.actions)), (f"{BROKEN}: {error}: holding position",)
            )
            return _Judged(None, BROKEN, report)

    def _judged(self, request: Request, chunk: ActionChunk, row: int | None, unreached: str) -> _Judged:
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
        known = self._known.motion(request, len(actions), chunk.dt_s, row)
        if bad := actions.size - int(np.count_nonzero(np.isfinite(actions))):
            self._log(
                logging.ERROR, NON_FINITE, "%s: %d NaN or Inf values for request %r: holding", NON_FINITE, bad, request.request_id
            )  # fmt: skip
            line = f"non_finite_action: {bad} NaN or Inf values: holding position"
            return _Judged(None, NON_FINITE, GuardReport(True, bad, (line,)), (NON_FINITE,), known)
        if unreached:
            line = f"{UNREACHED}: {unreached}: holding position"
            return _Judged(None, UNREACHED, GuardReport(True, actions.size, (line,)), (UNREACHED,), known)
        if self.limits is None:
            return _Judged(actions, motion=known)
        if chunk.source == HOLD:
            actions = self._known.braked(request, chunk)
        checked = self._check_for(self.limits, chunk.dt_s)(actions, known, is_hold=chunk.source == HOLD)
        if checked.clean:
            return _Judged(checked.actions, motion=known)
        report = GuardReport(True, checked.changed, checked.violations)
        by_itself = self._breaks_by_itself(self.limits, chunk, request)
        if checked.actions is not None:
            return _Judged(checked.actions, "", report, checked.kinds, known, checked.counts and by_itself)
        if self._mode == REJECT:
            return _Judged(None, REJECTED, report, (*checked.kinds, REJECTED), known, by_itself)
        return _Judged(None, checked.held_for or OUT_OF_REACH, report, checked.kinds, known, by_itself)

    def _breaks_by_itself(self, limits: Limits, chunk: ActionChunk, request: Request) -> bool:
        """Return False for a chunk that only begins where the robot is not: no fault of the policy, as it is old or let through in part.

        One that breaks a limit wherever the robot is counts: a model that is always late answers with nothing else.
        """
        partial = self.commands.partial and request.observation.stamp_ns > 0
        if chunk.source != LAST_KNOWN_GOOD and not partial:
            return True
        return self._check_for(limits, chunk.dt_s)(chunk.actions, UNKNOWN).counts

    def _check_for(self, limits: Limits, dt_s: float) -> Check | ToolCheck:
        made = self._check
        if made is None or made[0] != dt_s:
            made = self._check = (dt_s, check_of(limits, dt_s, self._mode))
        return made[1]

    def _note(self, judged: _Judged) -> None:
        """Count every violation that was found, by whichever check."""
        for kind in judged.kinds:
            self._violations[kind].inc()
        with self._lock:
            self._lines += len(judged.report.violations)

    def _again(self, request: Request, served: Served, judged: _Judged) -> _Judged:
        """Add what a second look at one chunk found to what the first did; a chunk that counted already stays counted."""
        self._note(judged)
        first, between = self._first, served.chunk.actions
        known = first is not None and first.request_id == request.request_id
        changed = judged.report.clamp_count
        if known and first is not None and judged.actions is not None and served.guard.clamped:
            changed = int(((judged.actions != between) & (between == first.requested)).sum())
            changed += served.guard.clamp_count
        both = GuardReport(True, changed, (*served.guard.violations, *judged.report.violations))
        judged = replace(judged, report=both)
        if not known or first is None or first.clamped:
            return judged
        return self._count(request, served, judged, first.before)

    def _count(self, request: Request, served: Served, judged: _Judged, before: int | None = None) -> _Judged:
        """Count the chunk towards the trip of its caller; a hold while the guard is tripped for it.

        before: of a chunk that was counted as clean, the clamped ones in a row before it. While a person commands, none counts.
        """
        report, caller = judged.report, caller_of(request)
        watches = self.commands.of_person and request.observation.stamp_ns > 0
        clamped = report.clamped and judged.counts and not watches
        # only a model's own chunk shows that the model is well again
        well = not clamped and not watches and served.chunk.source not in (HOLD, LAST_KNOWN_GOOD)
        counted = self.trips.count(caller, clamped=clamped, well=well, before=before)
        if request.observation.stamp_ns:
            self._first = _First(request.request_id, served.chunk.actions, clamped, counted.before)
        whose = caller if caller == ROS else "others"  # invented callers must not write a line each
        if counted.began:
            self._log(
                logging.ERROR, f"trip {whose}", "%s: caller %r: %s: holding until it is reset", TRIPPED, caller, counted.reason
            )  # fmt: skip
        elif counted.first:
            lines = "; ".join(report.violations[:3])
            self._log(
                logging.WARNING, f"change {whose}", "the guard changed a chunk of caller %r: %s", caller, lines
            )  # fmt: skip
        if not counted.reason:
            return judged
        report = replace(report, clamped=True, violations=(_line(counted.reason), *report.violations))
        return replace(judged, actions=None, hold_reason=TRIPPED, report=report)

    def _while_tripped(self, request: Request, pattern: Served, reason: str) -> Served:
        """Return a hold without any inference, in the shape of the chunks before, with the slot that was to answer."""
        if self.hold_position(request) is None:
            self._require_state(request)  # no inference will say so
        unrouted = replace(pattern, routing=RoutingReport())
        like = unrouted if self._prototype is None else replace(self._prototype(request), chunk=pattern.chunk)
        held = self._hold(request, like, _Judged(None, TRIPPED, GuardReport(True, 0, (_line(reason),))))
        return replace(
            held.not_inferred(), raw_actions=held.chunk.actions, request_id=request.request_id,
            episode_id=request.episode_id, seed=request.seed or 0, latency_ms=0.0, fallback=Fallback(),
            injected_latency_ms=0.0, trace_seq=-1,
        )  # fmt: skip

    def _hold(self, request: Request, served: Served, judged: _Judged) -> Served:
        """Replace the whole chunk by a hold. Raises InferenceError when there is none: better no chunk than a guess."""
        self._holds.labels(judged.hold_reason).inc()
        dt_s = served.chunk.dt_s
        names = served.chunk.names if self.limits is None else self.limits.names
        held = self._known.hold(request, dt_s)
        if held is None or held.held is not None or len(held.position) != len(names):
            stop = () if held is None or held.held is None else np.array(names)[held.held]
            at_least = f"; {', '.join(stop)} must be commanded 0" if len(stop) else ""
            raise InferenceError(
                f"{'; '.join(judged.report.violations)}: there is no known position to hold{at_least}",
                SLUGS.get(judged.hold_reason, "no-hold-position"),
            )
        count = max(len(served.chunk.actions), 1)
        rows = np.concatenate(
            [held.rows[:count], np.tile(held.position, (max(count - len(held.rows), 0), 1))]
        )
        chunk = ActionChunk(rows, names, dt_s, source=HOLD)
        self._known.remember(request, chunk, judged.motion)
        return replace(served, chunk=chunk, guard=judged.report, hold_reason=judged.hold_reason)

    def _require_state(self, request: Request) -> None:
        """Raise ObservationError where the caller's state gives no position to hold at."""
        state = request.observation.state
        if state is None and self._known.state_dim:
            raise ObservationError(
                f"no robot state: the guard is tripped and needs the state ({self._known.state_dim} numbers or more) to hold at",
                "missing-state",
            )
        if state is not None and len(state) < self._known.state_dim:
            raise ObservationError(
                f"the state must have at least {self._known.state_dim} numbers to hold at, got {len(state)}",
                "state-length",
            )

    def hold_position(self, request: Request) -> Floats | None:
        """Return (action_dim,) where the caller's robot would come to rest if it were held now; None where that is unknown."""
        held = self._known.hold(request, 0.0)
        return None if held is None or held.held is not None else held.position


def guard_for(
    embodiment: Embodiment | None, hold_columns: Columns | None, metrics: Metrics, safety: SafetyConfig | None,
    action_names: tuple[str, ...], dt_s: float, prototype: Callable[[Request], Served] | None = None,
    margin_rad: float = MARGIN_RAD, state_names: tuple[str, ...] = (),
    monotonic_ns: Callable[[], int] = time.monotonic_ns, path_tolerance_rad: float = 0.0,
) -> Guard:  # fmt: skip
    """Make the guard of one robot. Raises SafetyConfigError when the safety file is not this robot's or cannot be kept.

    action_names, dt_s: of the chunks that will come. prototype: an answer without inference of the slot that was to answer.
    margin_rad, path_tolerance_rad: the settings `plausibility_margin_rad` and `path_tolerance_rad`; a joint of the stamped
    robot that is measured within the larger of them follows its command. state_names: of the state's columns, where known.
    """
    judged = joints_judged(embodiment, action_names) if path_tolerance_rad > 0.0 else ()
    tracking_rad = np.array([np.inf if name in judged else margin_rad for name in action_names])
    plausible = state_range(embodiment, state_names, hold_columns, margin_rad)
    limits = effective_limits(action_names, embodiment, safety)
    name = embodiment.name if embodiment is not None else "none"
    if safety is None:
        return Guard(
            limits, hold_columns, metrics, name, prototype=prototype, plausible=plausible, tracking_rad=tracking_rad,
            monotonic_ns=monotonic_ns,
        )  # fmt: skip
    for note in safety.notes:
        log.warning("%s", note)
    if limits is not None:
        try:
            check_of(limits, dt_s, safety.mode)
        except ValueError as error:
            raise SafetyConfigError(f"{safety.path}: {error}", "safety-config-no-rate") from error
    return Guard(
        limits, hold_columns, metrics, name, safety.mode, safety.max_consecutive_clamps, prototype, plausible, tracking_rad,
        monotonic_ns,
    )  # fmt: skip


def _line(reason: str) -> str:
    return f"{TRIPPED}: {reason}: holding position"
