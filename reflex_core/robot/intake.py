# SPDX-License-Identifier: Apache-2.0
"""Check every observation, from any interface, before any work is done for it.

What is refused here reaches neither the model nor its breaker, neither the guard's count nor another server.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from reflex_core.errors import ObservationError
from reflex_core.robot.plausibility import StateRange
from reflex_core.values import Floats, Observation

MISSING_INSTRUCTION = "missing-instruction"
IMPLAUSIBLE_STATE = "implausible-state"
# separators; control, format, private and unassigned characters; marks, which are nothing without a letter
_INVISIBLE = ("Z", "C", "M")
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a symbol by category, and blank to the eye


def has_words(instruction: str) -> bool:
    """Return whether a text has visible characters: blanks, control characters and invisible ones are none."""
    if instruction.isascii() and instruction[:1].isalnum():
        return True  # as usual
    return any(
        character not in _FILLERS and unicodedata.category(character)[0] not in _INVISIBLE
        for character in instruction
    )


@dataclass(frozen=True, slots=True, eq=False)
class Intake:
    """Refuses observations that no policy can act on.

    reads_language: a policy needs the instruction. states: what the robot's state may hold; state_names: of its columns.
    check_state: raises ObservationError for a state that is missing or has the wrong length; None where no policy reads one.
    """

    reads_language: bool
    states: StateRange
    state_names: tuple[str, ...] = ()
    check_state: Callable[[Floats | None], object] | None = None

    def __call__(self, observation: Observation) -> None:
        """Raise ObservationError for an observation that lacks something or is implausible."""
        if self.reads_language and not has_words(observation.instruction):
            raise ObservationError(
                "no instruction; the policy reads what the robot is to do: put it into 'instruction'",
                MISSING_INSTRUCTION,
            )
        self.check_sensors(observation)

    def check_sensors(self, observation: Observation) -> None:
        """Raise ObservationError for a state that is missing or implausible, whatever the instruction is."""
        if self.check_state is not None:
            self.check_state(observation.state)
        for one in (observation, *observation.history):
            problem = "" if one.state is None else self.states.problem(one.state.tolist(), self.state_names)
            if problem:
                which = "the state" if one is observation else "the state of an earlier observation"
                raise ObservationError(f"{which} cannot be true: {problem}", IMPLAUSIBLE_STATE)
