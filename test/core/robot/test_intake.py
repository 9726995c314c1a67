# SPDX-License-Identifier: Apache-2.0
"""What is refused before any work is done for it: no instruction, no state, a state that cannot be true."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from asking import AT_REST
from guarded import COLUMNS, FRANKA, MIDDLE
from http_client import picture
from servers import MakeEngine

from reflex_core.concurrency.circuit_breaker import CLOSED
from reflex_core.engine.engine import Engine
from reflex_core.errors import ObservationError
from reflex_core.robot.intake import Intake, has_words
from reflex_core.robot.plausibility import StateRange, state_range
from reflex_core.values import Floats, Frame, Observation

NAMES = FRANKA.joint_names
NOTHING = [
    "", " ", "\t\n", "\x00\x07", "\u200b", "\ufeff", "\u3000\u00a0", "\u202e", "\ue000",
    "\u2800", "\u3164", "\u115f\u1160", "\uffa0", "\ufe0f", "\u0301",
]  # fmt: skip
CALLS = 10  # more than open a breaker, as many as trip a guard


def observation(state: Floats | None = MIDDLE, instruction: str = "reach") -> Observation:
    return Observation({}, state, instruction)


def bent(joint: int, value: float) -> Floats:
    state = MIDDLE.copy()
    with np.errstate(over="ignore"):
        state[joint] = np.float32(value)
    return state


@pytest.mark.parametrize("text", NOTHING, ids=ascii)
def test_a_text_without_anything_to_read_is_no_instruction(text: str) -> None:
    assert not has_words(text)
    with pytest.raises(ObservationError, match="no instruction") as caught:
        Intake(True, StateRange())(observation(instruction=text))
    assert caught.value.slug == "missing-instruction"
    Intake(False, StateRange())(observation(instruction=text))


@pytest.mark.parametrize("text", ["pick", " 抓 ", "1", "?", "\u200bpick", "e\u0301", "पकड़ो"])
def test_anything_that_can_be_read_is_one(text: str) -> None:
    assert has_words(text)
    Intake(True, StateRange())(observation(instruction=text))


def test_a_state_of_the_past_that_cannot_be_true_is_refused_too() -> None:
    intake = Intake(False, state_range(FRANKA, NAMES, COLUMNS), NAMES)
    seen = dataclasses.replace(observation(), history=(observation(bent(5, 45.0)),))
    with pytest.raises(
        ObservationError, match="the state of an earlier observation cannot be true: joint 'panda_joint6'"
    ) as caught:
        intake(seen)
    assert caught.value.slug == "implausible-state"


@pytest.mark.parametrize("value", [9.0, 45.0, 2 * np.pi + 2.0, 1e38, -1e38, 1e308, np.inf, np.nan])
def test_a_state_that_cannot_be_true_is_refused_with_the_joint(value: float) -> None:
    intake = Intake(False, state_range(FRANKA, NAMES, COLUMNS), NAMES)
    with pytest.raises(ObservationError, match="'panda_joint6'") as caught:
        intake(observation(bent(5, value)))
    assert caught.value.slug == "implausible-state"


@pytest.mark.parametrize(("value", "right"), [(200.0, True), (1e6, True), (1.1e6, False), (1e38, False)])
def test_without_an_embodiment_only_what_no_robot_measures_is_refused(value: float, right: bool) -> None:
    intake = Intake(False, StateRange())
    if right:
        intake(observation(bent(0, value)))
        return
    with pytest.raises(ObservationError, match="number 0 of the state"):
        intake(observation(bent(0, value)))


def test_a_state_that_is_missing_is_what_the_policy_says_it_is() -> None:
    def needed(state: Floats | None) -> None:
        if state is None:
            raise ObservationError("no robot state", "missing-state")

    with pytest.raises(ObservationError, match="no robot state"):
        Intake(False, StateRange(), check_state=needed)(observation(None))
    Intake(False, StateRange(), check_state=needed)(observation())
    Intake(False, StateRange())(observation(None))


def test_a_state_of_zeros_is_a_state() -> None:
    Intake(False, state_range(FRANKA, NAMES, COLUMNS), NAMES)(observation(np.zeros(7, np.float32)))


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    """Of a policy that raises for a state that it does not know."""
    return make_engine("calm_raise", embodiment="franka")


@pytest.mark.parametrize(
    "spoiled",
    [
        {"state": np.array([1e30, *AT_REST[1:]], np.float32)},
        {"state": np.array([9.0, *AT_REST[1:]], np.float32)},
        {"state": np.array([np.nan, *AT_REST[1:]], np.float32)},
        {"state": None},
        {"state": np.zeros(5, np.float32)},
        {"instruction": " "},
    ],
    ids=["huge", "beyond", "nan", "none", "short", "blank"],
)
def test_what_is_refused_counts_neither_for_the_breaker_nor_for_the_guard(
    engine: Engine, spoiled: dict[str, object]
) -> None:
    pixels = picture()
    seen = Observation(
        {"camera": Frame(pixels.tobytes(), "rgb8", *pixels.shape[:2])}, np.array(AT_REST, np.float32), "reach"
    )
    loaded = engine.loaded
    assert loaded is not None
    for _ in range(CALLS):
        with pytest.raises(ObservationError):
            engine.act(engine.request(dataclasses.replace(seen, **spoiled), caller="arm-1"))  # type: ignore[arg-type]
    status = loaded.guard.status()
    assert (status.inference_count, status.consecutive_clamps, status.tripped) == (0, 0, False)
    assert [(breaker.state, breaker.consecutive_failures) for breaker in loaded.breakers] == [(CLOSED, 0)]
    assert engine.act(engine.request(seen)).chunk.source == "policy"
