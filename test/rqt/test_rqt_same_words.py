# SPDX-License-Identifier: Apache-2.0
"""The operator page and the rqt panel show the same word for the same condition, each from what it is given."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import BEYOND
from http_client import picture
from panel_messages import diagnosed, status
from repository import ROOT
from servers import MakeEngine

from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_core.values import ROS, TELEOP, Frame, Observation
from reflex_ros.rqt import panel_theme
from reflex_ros.rqt.board import Board
from reflex_ros.rqt.operator_state import OperatorState, operator_state
from reflex_ros.sidecar import operator_words
from reflex_ros.sidecar.next_steps import STEPS
from reflex_ros.sidecar.robot_access import RobotSnapshot
from reflex_ros.sidecar.status_summary import StatusSummary, status_summary

ACTIVE = RobotSnapshot("active", chunks=9)
PAGE = ROOT / "reflex_ros" / "sidecar" / "page"


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    return make_engine("calm", embodiment="franka")


def panel(engine: Engine, snapshot: RobotSnapshot, *, refused: str = "", **fields: Any) -> OperatorState:
    """The banner of the panel, of the status that a node with this snapshot publishes."""
    board = Board("/reflex")
    problem = f"{snapshot.problem}: {snapshot.problem_text}" if snapshot.problem else ""
    if engine.settings.dry_run:
        problem = "dry_run: no robot is commanded" + (f"; {problem}" if problem else "")
    given = {
        "state": engine.state, "chunks_total": snapshot.chunks, "stopped": snapshot.stopped, "control": snapshot.control,
        "blend": snapshot.blend, "holding": bool(snapshot.hold_reason), "hold_reason": snapshot.hold_reason, "problem": problem,
    }  # fmt: skip
    board.status(status(**given | fields), 0.0)
    if refused:
        found = diagnosed("policy", b"\x02")
        found.status[0].message = refused
        board.diagnostics(found, 0.0)
    return operator_state(board.view(0.0))


def assert_same(page: StatusSummary, shown: OperatorState, word: str) -> None:
    assert (page.word, page.level) == (shown.word, shown.level)
    assert page.word == word


@pytest.mark.parametrize(
    ("snapshot", "word"),
    [
        (ACTIVE, "READY"),
        (replace(ACTIVE, chunks=0), "WAITING"),
        (replace(ACTIVE, control=TELEOP, hold_reason="stale"), "READY"),
        (replace(ACTIVE, stopped=True, hold_reason="stopped", problem="stopped", problem_text="call ~/resume"), "STOPPED"),
        (
            replace(ACTIVE, stopped=True, awaits_goal=True, hold_reason="goal_ended", problem="goal_ended", problem_text="send one"),
            "WAITING",
        ),
    ],
)  # fmt: skip
def test_a_robot_that_is_driven(engine: Engine, snapshot: RobotSnapshot, word: str) -> None:
    page, shown = status_summary(engine, snapshot), panel(engine, snapshot)
    assert_same(page, shown, word)
    assert (page.sentence, page.todo) == (shown.sentence, shown.todo)


@pytest.mark.parametrize("chunks", [0, 9])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("slug", [*STEPS, "brand_new"])
def test_a_reason_why_no_fresh_chunk_comes(engine: Engine, slug: str, held: bool, chunks: int) -> None:
    snapshot = replace(
        ACTIVE, chunks=chunks, problem=slug, problem_text="it is so", hold_reason=slug if held else ""
    )
    page, shown = status_summary(engine, snapshot), panel(engine, snapshot)
    assert_same(page, shown, page.word)
    assert page.word in ("HOLDING", "WAITING", "READY")
    assert page.todo == shown.todo


def test_a_dry_run(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", embodiment="franka", dry_run=True)
    assert_same(status_summary(engine, ACTIVE), panel(engine, ACTIVE), "READY")
    stale = replace(ACTIVE, problem="stale", problem_text="too old", hold_reason="stale")
    assert_same(status_summary(engine, stale), panel(engine, stale), "WAITING")


def test_a_policy_on_its_way(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", ready=False, embodiment="franka")
    inactive = RobotSnapshot("inactive")
    assert_same(status_summary(engine, inactive), panel(engine, inactive), "WAITING")
    engine.load()
    assert engine.state == "inactive"
    assert_same(status_summary(engine, inactive), panel(engine, inactive), "WAITING")
    refused = replace(inactive, refusal="the controller is not running")
    assert_same(status_summary(engine, refused), panel(engine, refused, refused=refused.refusal), "FAILED")


def test_a_node_that_can_command_no_robot(make_engine: MakeEngine) -> None:
    engine = make_engine("calm")
    engine.undrivable = "no embodiment is set"
    inactive = RobotSnapshot("inactive", refusal=engine.undrivable)
    shown = panel(engine, inactive, state="inactive", problem=f"undrivable: {engine.undrivable}")
    page = status_summary(engine, inactive)
    assert_same(page, shown, "READY")
    assert (page.sentence, page.notes) == (shown.sentence, shown.notes)


def test_a_policy_that_failed(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", ready=False, embodiment="no-such-robot")
    with pytest.raises(ReflexError):
        engine.load()
    page = status_summary(engine, RobotSnapshot("unconfigured"))
    shown = panel(engine, RobotSnapshot("unconfigured"), problem=engine.reason)
    assert_same(page, shown, "FAILED")
    assert page.todo == shown.todo


def test_a_tripped_guard(engine: Engine) -> None:
    pixels = picture()
    for _ in range(10):
        seen = Observation(
            {"camera": Frame(pixels.tobytes(), "rgb8", *pixels.shape[:2])},
            np.asarray(BEYOND, np.float32),
            "reach",
        )
        engine.act(engine.request(seen, caller=ROS))
    snapshot = replace(ACTIVE, stopped=True, hold_reason="guard_tripped", problem="guard_tripped")
    assert_same(status_summary(engine, snapshot), panel(engine, snapshot, guard_tripped=True), "TRIPPED")


def test_both_have_every_word_and_every_colour() -> None:
    levels = set(operator_words.LEVELS.values())
    assert set(panel_theme.BANNER) == set(panel_theme.SIGNS) == levels
    terms = (PAGE / "terms.js").read_text(encoding="utf-8")
    glossary = re.search(r"const STATES = \{(.*?)\n\};", terms, re.DOTALL)
    assert glossary is not None
    explained = set(re.findall(r'^ {2}"?([A-Z ]+)"?:', glossary[1], re.MULTILINE))
    assert explained == set(operator_words.LEVELS) | {"KEY NEEDED"}
    style = (PAGE / "page.css").read_text(encoding="utf-8")
    coloured = set(re.findall(r'^#top\[data-level="(\w+)"\]', style, re.MULTILINE))
    assert coloured == levels - {operator_words.WAIT}, "the neutral colour is that of the banner as it is"


def test_what_the_states_of_loading_are_called_is_what_a_node_reports() -> None:
    assert set(operator_words.LOADING) == {"initializing", "loading", "inactive", "warming"}
