# SPDX-License-Identifier: Apache-2.0
"""The status summary at the top of the page: one word for the state, one sentence with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from reflex_core.engine.engine import DEGRADED, FAILED, READY, Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.robot.limits.guard_status import GuardStatus
from reflex_core.text.untrusted import escaped
from reflex_core.values import ROS, TELEOP
from reflex_ros.sidecar.robot_access import RobotSnapshot

CALLERS_NAMED = 3
GOOD, WAIT, WARN, BAD = "good", "wait", "warn", "bad"

_SENTENCES = {
    "initializing": "No policy is loaded yet.",
    "loading": "The policy is being loaded.",
    "inactive": "A policy is loaded and does not serve: activate the node.",
    "warming": "The network runs for the first time.",
}


@dataclass(frozen=True, slots=True)
class StatusSummary:
    """level: good, wait, warn or bad; the page gives each a colour and a sign."""

    level: str
    word: str
    sentence: str


def status_summary(engine: Engine, snapshot: RobotSnapshot | None) -> StatusSummary:
    """Return the most severe condition that holds, to be read from two metres away."""
    state, loaded = engine.state, engine.loaded
    if state == FAILED:
        return StatusSummary(BAD, "FAILED", engine.reason or "The log says why.")
    if state not in (READY, DEGRADED) or loaded is None:
        if snapshot is not None and snapshot.refusal:
            return StatusSummary(BAD, "REFUSED", snapshot.refusal)
        return StatusSummary(WAIT, state.upper(), _SENTENCES.get(state, ""))
    return (
        _tripped(loaded, snapshot)
        or _stopped(snapshot)
        or _degraded(state, loaded)
        or _undrivable(engine)
        or _dry_run(engine, snapshot)
        or _commanded(snapshot)
        or _holding(snapshot)
        or _held_callers(loaded)
        or _serving(loaded)
    )


def _tripped(loaded: ServingState, snapshot: RobotSnapshot | None) -> StatusSummary | None:
    """Return for whom the guard is tripped: the robot of this process; where there is none, callers over HTTP."""
    status = loaded.guard.status(ROS if snapshot is not None else "")
    if not status.tripped:
        return None
    who = "The robot holds" if snapshot is not None else f"Held: {_named(status)}"
    return StatusSummary(BAD, "GUARD TRIPPED", f"{who}: {status.trip_reason}")


def _held_callers(loaded: ServingState) -> StatusSummary | None:
    status = loaded.guard.status()
    if not status.tripped:
        return None
    return StatusSummary(WARN, "READY", f"Held until their guard is reset: {_named(status)}.")


def _named(status: GuardStatus) -> str:
    names = [escaped(caller) for caller in status.tripped_callers[:CALLERS_NAMED]]
    more = status.tripped_total - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _stopped(snapshot: RobotSnapshot | None) -> StatusSummary | None:
    if snapshot is None or not snapshot.stopped:
        return None
    if snapshot.awaits_goal:
        return StatusSummary(
            WAIT, "IDLE", "The robot holds until a goal of ~/run_policy comes, or Resume is pressed."
        )
    return StatusSummary(WARN, "STOPPED", "The robot holds until Resume is pressed.")


def _degraded(state: str, loaded: ServingState) -> StatusSummary | None:
    if state != DEGRADED:
        return None
    failures = max(
        (slot.breaker.consecutive_failures for slot in loaded.slots.values() if slot.breaker), default=0
    )
    return StatusSummary(
        BAD, "DEGRADED", f"The circuit breaker is open: the model failed {failures} times in a row."
    )


def _undrivable(engine: Engine) -> StatusSummary | None:
    if not engine.undrivable:
        return None
    return StatusSummary(WARN, "NO ROBOT", f"Requests are answered: {engine.undrivable}")


def _dry_run(engine: Engine, snapshot: RobotSnapshot | None) -> StatusSummary | None:
    if snapshot is None or not engine.settings.dry_run:
        return None
    if snapshot.first_motion:
        return StatusSummary(WARN, "DRY RUN", "The first motion moves the robot; Stop ends it.")
    held = f" It would hold: {snapshot.hold_reason}." if snapshot.hold_reason else ""
    return StatusSummary(WARN, "DRY RUN", f"No robot is commanded; what would be is on ~/dry_run.{held}")


def _commanded(snapshot: RobotSnapshot | None) -> StatusSummary | None:
    """Return that another than the policy commands the robot, or the policy not with all of its motion."""
    if snapshot is None or snapshot.node_state != "active":
        return None
    if snapshot.control == TELEOP:
        return StatusSummary(WAIT, "TELEOP", "A person commands the robot; the policy goes on watching.")
    if snapshot.hold_reason or snapshot.problem or snapshot.blend >= 1.0:
        return None
    return StatusSummary(WAIT, "READY", f"{snapshot.blend:.0%} of the policy's motion is let through.")


def _holding(snapshot: RobotSnapshot | None) -> StatusSummary | None:
    if snapshot is None or not (snapshot.hold_reason or snapshot.problem):
        return None
    why = f"{snapshot.problem}: {snapshot.problem_text}" if snapshot.problem else snapshot.hold_reason
    if snapshot.hold_reason:
        return StatusSummary(BAD, "HOLDING", why)
    return StatusSummary(WARN, "READY", f"In trouble: {why}")


def _serving(loaded: ServingState) -> StatusSummary:
    window = loaded.admission.window
    if window is not None and loaded.admission.violated:
        message = f"{window.slo.name} is {window.measured_ms:.0f} ms, the objective is {window.slo.threshold_ms:g} ms."
        return StatusSummary(WARN, "SLOW", message)
    elsewhere = [slot.policy for slot in loaded.slots.values() if slot.policy.export.address]
    if not elsewhere:
        return StatusSummary(GOOD, "READY", "A policy is serving.")
    where = " and ".join(policy.export.address for policy in elsewhere)
    return StatusSummary(GOOD, "READY", f"A policy is serving; {where} infers.")
