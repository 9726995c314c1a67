# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the operator page and of the rqt panel: words for the state, their colours, and the sentences that both show."""

from __future__ import annotations

from collections.abc import Mapping

READY, WAITING, HOLDING, STOPPED, TRIPPED, FAILED, NO_CONNECTION = (
    "READY", "WAITING", "HOLDING", "STOPPED", "TRIPPED", "FAILED", "NO CONNECTION",
)  # fmt: skip
# the colours of IEC 60073: normal, neutral, abnormal, an action of the operator is needed, danger; and none, for what is old
GOOD, WAIT, HOLD, STOP, BAD, LOST = "good", "wait", "hold", "stop", "bad", "lost"
LEVELS: Mapping[str, str] = {  # each word has one colour, so that they cannot disagree
    READY: GOOD, WAITING: WAIT, HOLDING: HOLD, STOPPED: STOP, TRIPPED: BAD, FAILED: BAD, NO_CONNECTION: LOST,
}  # fmt: skip
# reasons that are no fault while no chunk was made yet: nothing came of the stream so far
NEVER_RECEIVED = ("camera_missing", "state_missing", "joint_names", "no_instruction")

# why, and what to do next, by the state of the lifecycle or of the engine
NOTHING_TO_DO = "Nothing to do: it takes some seconds."
LOADING: Mapping[str, tuple[str, str]] = {
    "initializing": ("No policy is loaded yet.", "Configure the node, or wait until it has been."),
    "loading": ("The policy is being loaded.", NOTHING_TO_DO),
    "warming": ("The network runs for the first time.", NOTHING_TO_DO),
    "inactive": ("A policy is loaded and does not serve.", "Activate the node."),
}
AWAITS_GOAL = "The robot holds until a goal comes."
UNTIL_RESUME = ("The robot holds until Resume is pressed.", "Press Resume when it is safe.")
NOT_LOADED = "Correct it, then configure the node again or restart it."
NOT_ACTIVATED = "Correct it, then activate the node again."
PERSON_COMMANDS = "A person commands the robot; the policy goes on watching."
FIRST_CHUNK = "The first chunk is being computed."
FIRST_MOTION = "The first motion moves the robot; Stop ends it."
POLICY_COMMANDS = "The policy commands the robot"


def breaker_open(failures: int) -> str:
    """Return why nothing is inferred while the circuit breaker is open."""
    return f"The circuit breaker is open: the model failed {failures} times in a row."


def no_robot(why: str) -> str:
    """Return that the node answers and commands nothing."""
    return f"Requests are answered, no robot is commanded: {why}"
