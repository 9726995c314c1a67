# SPDX-License-Identifier: Apache-2.0
"""One word for what the node does, its colour, the reason, and what to do next: the banner. Pure: a view in, words out.

Words, colours and common sentences are those of the operator page.
"""

from __future__ import annotations

from dataclasses import dataclass

from reflex_core.values import TELEOP
from reflex_ros.rqt.panel_view import NO_ANSWER, NO_STATUS, View
from reflex_ros.sidecar import operator_words as words
from reflex_ros.sidecar.next_steps import next_step

GOAL_SLUGS = ("awaiting_goal", "goal_ended")

_LOADING = {
    **words.LOADING,
    NO_STATUS: ("Chunks are received, and no status yet.", "Nothing to do: it is published every second."),
}


@dataclass(frozen=True, slots=True)
class OperatorState:
    """word: one of operator_words.LEVELS. sentence: why. todo: what to do next; empty where nothing. notes: what is unusual all the same."""

    word: str
    sentence: str
    todo: str = ""
    notes: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """The colour of the word."""
        return words.LEVELS[self.word]


def operator_state(view: View) -> OperatorState:
    """Return the most severe condition that holds."""
    if not view.heard or view.state == NO_ANSWER:
        return _silent(view)
    found = (
        _not_serving(view)
        or _tripped(view)
        or _stopped(view)
        or _breaker(view)
        or _held(view)
        or _serving(view)
    )
    return OperatorState(found.word, found.sentence, found.todo, tuple(_notes(view)))


def problem_of(view: View) -> tuple[str, str]:
    """Return slug and sentence of why no fresh chunk comes; empty where one does. A dry run is no problem."""
    text = view.figures.problem
    if text.startswith("dry_run: "):
        text = text.partition("; ")[2]
    slug, colon, sentence = text.partition(": ")
    return (slug, sentence) if colon and " " not in slug else ("", text)


def in_dry_run(view: View) -> bool:
    """Return whether no robot is commanded."""
    return view.figures.problem.startswith("dry_run")


def _silent(view: View) -> OperatorState:
    check = "check that it runs, ROS_DOMAIN_ID and the network"
    if not view.ever:
        return OperatorState(
            words.NO_CONNECTION, f"Nothing was received from {view.node}.", f"{_capital(check)}."
        )
    todo = f"What is below is old: {check}; STOP is still sent."
    return OperatorState(words.NO_CONNECTION, f"{view.node} has been silent for more than 3 s.", todo)


def _not_serving(view: View) -> OperatorState | None:
    slug, sentence = problem_of(view)
    policy = view.concern("policy")
    if view.state == "failed":
        why = sentence or (policy.message if policy else "") or "The log of the node has the reason."
        return OperatorState(words.FAILED, _capital(why), words.NOT_LOADED)
    if slug == "undrivable":
        return OperatorState(words.READY, words.no_robot(sentence))
    if view.state not in _LOADING:
        return None
    if policy is not None and policy.level == 2:  # the node refused a change of its state
        return OperatorState(words.FAILED, _capital(policy.message), words.NOT_ACTIVATED)
    return OperatorState(words.WAITING, *_LOADING[view.state])


def _tripped(view: View) -> OperatorState | None:
    if not view.figures.guard_tripped:
        return None
    guard = view.concern("guard")
    reason = (
        guard.message.partition("tripped, the robot holds: ")[2].partition("; see what")[0] if guard else ""
    )
    slug, _, sentence = reason.partition(": ")
    reason = sentence if sentence and " " not in slug else reason  # what the slug means is in the sentence
    why = f"The guard holds the robot: {reason}." if reason else "The guard holds the robot."
    return OperatorState(words.TRIPPED, why, next_step("guard_tripped"))


def _stopped(view: View) -> OperatorState | None:
    if not view.figures.stopped:
        return None
    if problem_of(view)[0] in GOAL_SLUGS:
        return OperatorState(words.WAITING, words.AWAITS_GOAL, next_step("awaiting_goal"))
    return OperatorState(words.STOPPED, *words.UNTIL_RESUME)


def _breaker(view: View) -> OperatorState | None:
    if view.state != "degraded":
        return None
    why = words.breaker_open(view.figures.failures)
    return OperatorState(
        words.HOLDING, why, "Wait for the next probe, or read the log, correct it and reset the breaker."
    )


def _held(view: View) -> OperatorState | None:
    """Return that the robot is held, or that no fresh chunk comes: before the first one, and while the last one runs out."""
    figures = view.figures
    slug, sentence = problem_of(view)
    if not (figures.hold_reason or slug or sentence) or figures.control == TELEOP:
        return None
    slug = slug or figures.hold_reason
    why = _with_slug(sentence, slug)
    begins = figures.chunks == 0 and slug in words.NEVER_RECEIVED
    if figures.hold_reason and not begins and not in_dry_run(view):
        return OperatorState(words.HOLDING, why, next_step(slug))
    if slug == "deadline":
        return OperatorState(words.READY, why, next_step(slug))
    return OperatorState(words.WAITING, why, next_step(slug))


def _with_slug(sentence: str, slug: str) -> str:
    """Return the sentence with the slug, which documents explain, behind it."""
    if not sentence:
        return f"The robot is held: {slug}."
    return f"{_capital(sentence)} ({slug})" if slug else _capital(sentence)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _serving(view: View) -> OperatorState:
    if view.figures.control == TELEOP:
        return OperatorState(words.READY, words.PERSON_COMMANDS)
    if in_dry_run(view):
        moving = "first motion" in view.figures.problem
        what = words.FIRST_MOTION if moving else "No robot is commanded."
        return OperatorState(words.READY, what, "" if moving else "What would be commanded is on ~/dry_run.")
    if view.figures.chunks == 0 and view.chunk is None:
        return OperatorState(words.WAITING, words.FIRST_CHUNK, words.NOTHING_TO_DO)
    return OperatorState(words.READY, f"{words.POLICY_COMMANDS}.")


def _notes(view: View) -> list[str]:
    """Return what an operator must know beside the word, most important first."""
    figures, found = view.figures, []
    if problem_of(view)[0] == "undrivable":
        found.append("NO ROBOT")
    if in_dry_run(view):
        found.append("DRY RUN")
    if figures.control == TELEOP:
        found.append("TELEOP")
    elif figures.share < 100:
        found.append(f"BLEND {figures.share} %")
    if figures.slo_violated:
        found.append(f"SLOW: the objective {view.slo} is missed")
    if figures.verdict.startswith("drain-"):
        found.append(f"SLOT {figures.verdict[6:].upper()} FAILS: all episodes go to the other policy")
    return found
