# SPDX-License-Identifier: Apache-2.0
"""The word of the banner, its colour, and the sentences with it."""

from __future__ import annotations

from typing import Any

import pytest
from panel_messages import chunk, diagnosed, status

from reflex_ros.rqt.board import SILENT_AFTER_S, Board
from reflex_ros.rqt.operator_state import OperatorState, operator_state
from reflex_ros.rqt.panel_theme import BANNER, DARK, LIGHT, SIGNS, contrast
from reflex_ros.sidecar.operator_words import LEVELS


def state_of(
    *, concern: tuple[str, bytes, str] | None = None, later_s: float = 0.0, **fields: Any
) -> OperatorState:
    """The banner of a robot that has had chunks, with a status of these fields."""
    board = Board("/reflex")
    board.status(status(**{"chunks_total": 9} | fields), 0.0)
    if concern is not None:
        name, level, message = concern
        found = diagnosed(name, level)
        found.status[0].message = message
        board.diagnostics(found, 0.0)
    return operator_state(board.view(later_s))


HELD = {"holding": True, "hold_reason": "stale", "problem": "stale: camera 'front' is 812 ms old"}


@pytest.mark.parametrize(
    ("fields", "word", "sentence"),
    [
        ({}, "READY", "The policy commands the robot."),
        ({"state": "loading"}, "WAITING", "being loaded"),
        ({"state": "warming"}, "WAITING", "first time"),
        ({"state": "inactive"}, "WAITING", "does not serve"),
        ({"chunks_total": 0}, "WAITING", "first chunk"),
        ({"chunks_total": 0, "problem": "no_instruction: no instruction yet: publish one"}, "WAITING", "No instruction yet"),
        ({"chunks_total": 0, "problem": "camera_missing: no image from camera 'c'"}, "WAITING", "No image from camera 'c'"),
        ({"problem": "stale: camera 'front' is 300 ms old"}, "WAITING", "Camera 'front' is 300 ms old (stale)"),
        (HELD, "HOLDING", "Camera 'front' is 812 ms old (stale)"),
        ({"holding": True, "hold_reason": "deadline"}, "HOLDING", "deadline"),
        ({"state": "degraded", "consecutive_failures": 5}, "HOLDING", "failed 5 times in a row"),
        ({"stopped": True, "problem": "stopped: call ~/resume to go on"}, "STOPPED", "until Resume"),
        ({"stopped": True, "problem": "awaiting_goal: send a goal"}, "WAITING", "until a goal comes"),
        ({"guard_tripped": True, "stopped": True, **HELD}, "TRIPPED", "The guard holds the robot."),
        ({"state": "failed", "problem": "no export in /exports"}, "FAILED", "No export in /exports"),
        ({"problem": "deadline: inference was too slow, the chunk of 80 ms ago goes on"}, "READY", "too slow"),
        ({"control": "teleop", **HELD}, "READY", "A person commands"),
        ({"problem": "dry_run: no robot is commanded"}, "READY", "No robot is commanded"),
        ({"state": "inactive", "problem": "undrivable: no embodiment"}, "READY", "no robot is commanded: no embodiment"),
    ],
)  # fmt: skip
def test_each_condition_has_one_word_and_a_sentence(fields: dict[str, Any], word: str, sentence: str) -> None:
    found = state_of(**fields)
    assert found.word == word
    assert sentence in found.sentence
    assert found.level == LEVELS[word]


def test_what_is_not_all_well_names_what_to_do_next() -> None:
    for fields in (
        {"state": "inactive"},
        HELD,
        {"stopped": True},
        {"guard_tripped": True},
        {"state": "failed"},
        {"state": "degraded"},
    ):
        assert state_of(**fields).todo, fields


def test_a_silent_node_is_no_connection_whatever_it_was_before() -> None:
    found = state_of(guard_tripped=True, later_s=SILENT_AFTER_S + 0.1)
    assert (found.word, found.level) == ("NO CONNECTION", "lost")
    assert "silent for more than 3 s" in found.sentence
    assert "old" in found.todo
    never = operator_state(Board("/reflex").view(0.0))
    assert (never.word, never.sentence) == ("NO CONNECTION", "Nothing was received from /reflex.")


def test_chunks_without_a_status_are_a_connection() -> None:
    board = Board("/reflex")
    board.chunk(chunk(), 0.0)
    assert operator_state(board.view(0.0)).word == "WAITING"


def test_why_the_guard_tripped_comes_from_its_diagnostic() -> None:
    message = "tripped, the robot holds: clamp_limit: 10 chunks in a row were clamped; see what the policy does, then call x"
    found = state_of(guard_tripped=True, concern=("guard", b"\x02", message))
    assert found.sentence == "The guard holds the robot: 10 chunks in a row were clamped."


def test_a_node_that_refused_to_become_active_has_failed_and_says_why() -> None:
    found = state_of(state="inactive", concern=("policy", b"\x02", "the controller is not running"))
    assert (found.word, found.sentence) == ("FAILED", "The controller is not running")


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"slo_violated": True}, "SLOW"), ({"policy_verdict": "drain-a"}, "SLOT A FAILS"), ({"blend": 0.25}, "BLEND 25 %"),
        ({"control": "teleop"}, "TELEOP"), ({"problem": "dry_run: no robot is commanded"}, "DRY RUN"),
    ],
)  # fmt: skip
def test_what_is_unusual_is_a_note_and_leaves_the_word_and_its_colour(
    fields: dict[str, Any], note: str
) -> None:
    found = state_of(**{"blend": 1.0} | fields)
    assert (found.word, found.level) == ("READY", "good")
    assert any(each.startswith(note) for each in found.notes)


def test_every_word_has_a_colour_and_a_sign_of_its_own_and_can_be_read() -> None:
    assert set(LEVELS.values()) == set(BANNER) == set(SIGNS)
    grounds = [ground for ground, _ in BANNER.values()]
    assert len(set(grounds)) == len(grounds)
    assert len(set(SIGNS.values())) == len(SIGNS)
    assert {level: contrast(*colours) for level, colours in BANNER.items() if contrast(*colours) < 4.5} == {}


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_and_lines_can_be_seen_on_both_palettes(theme: Any) -> None:
    for name in ("text", "soft", "blue", "amber", "red", "green", "violet"):
        assert contrast(getattr(theme, name), theme.ground) >= 4.5, name
