# SPDX-License-Identifier: Apache-2.0
"""The status summary at the top of the page: one word for the state, one sentence with the reason, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from reflex_core.engine.engine import DEGRADED, FAILED, READY, Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.robot.limits.guard_status import GuardStatus
from reflex_core.text.untrusted import escaped
from reflex_core.values import ROS, TELEOP
from reflex_ros.sidecar import operator_words as words
from reflex_ros.sidecar.next_steps import next_step
from reflex_ros.sidecar.robot_access import RobotSnapshot

CALLERS_NAMED = 3


@dataclass(frozen=True, slots=True)
class StatusSummary:
    """word: one of operator_words.LEVELS. sentence: why. todo: what to do next, empty where nothing. notes: what is unusual all the same."""

    word: str
    sentence: str
    todo: str = ""
    notes: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """The colour of the word."""
        return words.LEVELS[self.word]

    def document(self) -> dict[str, object]:
        """Return what the page gets."""
        return {
            "level": self.level,
            "word": self.word,
            "sentence": self.sentence,
            "todo": self.todo,
            "notes": self.notes,
        }


def status_summary(engine: Engine, snapshot: RobotSnapshot | None) -> StatusSummary:
    """Return the most severe condition that holds, to be read from two metres away."""
    state, loaded = engine.state, engine.loaded
    if state == FAILED:
        reason = engine.reason or "The log says why."
        return StatusSummary(words.FAILED, reason, words.NOT_LOADED)
    if state not in (READY, DEGRADED) or loaded is None:
        if snapshot is not None and snapshot.refusal:
            return StatusSummary(words.FAILED, snapshot.refusal, words.NOT_ACTIVATED)
        return StatusSummary(words.WAITING, *words.LOADING.get(state, ("", "")))
    found = (
        _tripped(loaded, snapshot)
        or _stopped(snapshot)
        or _degraded(state, loaded)
        or _holding(engine, snapshot)
        or _serving(engine, loaded, snapshot)
    )
    return StatusSummary(found.word, found.sentence, found.todo, tuple(_notes(engine, loaded, snapshot)))


def _tripped(loaded: ServingState, snapshot: RobotSnapshot | None) -> StatusSummary | None:
    """Return for whom the guard is tripped: the robot of this process; where there is none, callers over HTTP."""
    status = loaded.guard.status(ROS if snapshot is not None else "")
    if not status.tripped:
        return None
    who = "The robot holds" if snapshot is not None else f"Held: {_named(status)}"
    return StatusSummary(
        words.TRIPPED,
        _sentence(f"{who}: {_reason(status.trip_reason)}"),
        next_step("guard_tripped"),
    )


def _reason(text: str) -> str:
    """Return a reason without the slug that programs read."""
    slug, colon, rest = text.partition(": ")
    return rest if colon and slug.replace("_", "").isalpha() and "_" in slug else text


def _named(status: GuardStatus) -> str:
    names = [escaped(caller) for caller in status.tripped_callers[:CALLERS_NAMED]]
    more = status.tripped_total - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _stopped(snapshot: RobotSnapshot | None) -> StatusSummary | None:
    if snapshot is None or not snapshot.stopped:
        return None
    if snapshot.awaits_goal:
        return StatusSummary(words.WAITING, words.AWAITS_GOAL, next_step("awaiting_goal"))
    return StatusSummary(words.STOPPED, *words.UNTIL_RESUME)


def _degraded(state: str, loaded: ServingState) -> StatusSummary | None:
    if state != DEGRADED:
        return None
    failures = max(
        (slot.breaker.consecutive_failures for slot in loaded.slots.values() if slot.breaker), default=0
    )
    return StatusSummary(
        words.HOLDING,
        words.breaker_open(failures),
        "Wait for the next probe, or read the log and restart or serve the previous export.",
    )


def _holding(engine: Engine, snapshot: RobotSnapshot | None) -> StatusSummary | None:
    """Return that the robot is held, or that no fresh chunk comes: before the first one, and while the last one runs out."""
    if snapshot is None or not (snapshot.hold_reason or snapshot.problem) or snapshot.control == TELEOP:
        return None
    slug = snapshot.problem or snapshot.hold_reason
    why = _sentence(snapshot.problem_text or slug.replace("_", " "))
    begins = snapshot.chunks == 0 and slug in words.NEVER_RECEIVED
    if snapshot.hold_reason and not engine.settings.dry_run and not begins:
        return StatusSummary(words.HOLDING, why, next_step(slug))
    if snapshot.problem == "deadline":
        return StatusSummary(words.READY, why, next_step(slug))
    return StatusSummary(words.WAITING, why, next_step(slug))


def _sentence(text: str) -> str:
    """Return the text with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _serving(engine: Engine, loaded: ServingState, snapshot: RobotSnapshot | None) -> StatusSummary:
    if engine.undrivable:
        return StatusSummary(words.READY, words.no_robot(engine.undrivable))
    if snapshot is not None and snapshot.control == TELEOP and snapshot.node_state == "active":
        return StatusSummary(words.READY, words.PERSON_COMMANDS)
    elsewhere = [slot.policy for slot in loaded.slots.values() if slot.policy.export.address]
    where = " and ".join(policy.export.address for policy in elsewhere)
    infers = f"; {where} infers" if where else ""
    if snapshot is None:
        return StatusSummary(words.READY, f"Requests are answered{infers}.")
    if engine.settings.dry_run:
        return StatusSummary(words.READY, _dry_run(snapshot))
    if snapshot.chunks == 0 and snapshot.node_state == "active":
        return StatusSummary(words.WAITING, words.FIRST_CHUNK, words.NOTHING_TO_DO)
    return StatusSummary(words.READY, f"{words.POLICY_COMMANDS}{infers}.")


def _dry_run(snapshot: RobotSnapshot) -> str:
    if snapshot.first_motion:
        return words.FIRST_MOTION
    return "No robot is commanded; what would be is on ~/dry_run."


def _notes(engine: Engine, loaded: ServingState, snapshot: RobotSnapshot | None) -> list[str]:
    """Return what an operator must know beside the word, most important first."""
    found = []
    if engine.undrivable:
        found.append("NO ROBOT")
    if snapshot is not None and engine.settings.dry_run:
        found.append("FIRST MOTION" if snapshot.first_motion else "DRY RUN")
    if snapshot is not None and snapshot.node_state == "active":
        if snapshot.control == TELEOP:
            found.append("TELEOP")
        elif snapshot.blend < 1.0:
            found.append(f"BLEND {snapshot.blend:.0%}")
    window = loaded.admission.window
    if window is not None and loaded.admission.violated:
        slo = window.slo
        found.append(f"SLOW: {slo.name} {window.measured_ms:.0f} ms, objective {slo.threshold_ms:g} ms")
    status = loaded.guard.status()
    if status.tripped and not loaded.guard.status(ROS if snapshot is not None else "").tripped:
        found.append(f"HELD: {_named(status)}")
    return found
