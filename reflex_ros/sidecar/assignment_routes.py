# SPDX-License-Identifier: Apache-2.0
"""What the robot of this process does next, over HTTP: another instruction, the next episode."""

from __future__ import annotations

import logging
from collections.abc import Callable

import orjson

from reflex_core.errors import ObservationError, ReflexError
from reflex_core.metrics.episodes import ID_CHARACTERS
from reflex_core.robot.intake import has_words
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.text.untrusted import shown
from reflex_ros.sidecar.problems import BodyError, fresh_id
from reflex_ros.sidecar.replies import Reply, problem
from reflex_ros.sidecar.robot_access import Robot
from reflex_ros.sidecar.wires.json import document as json_document
from reflex_ros.sidecar.wires.schema import TEXT, Schema, or_null

INSTRUCTION_CHARACTERS = 1000
INSTRUCTION: dict[str, Schema] = {
    "instruction": {**TEXT, "minLength": 1, "maxLength": INSTRUCTION_CHARACTERS, "description": "what to do"}
}
EPISODE: dict[str, Schema] = {
    "episode_id": or_null({**TEXT, "maxLength": ID_CHARACTERS, "description": "its id; one is made without"})
}
NO_ROBOT = "this server runs without a robot: its callers send instruction and episode_id with each request"
STATUS = {"bad-instruction": 422, "bad-episode-id": 422, "not-answered": 503}  # 409 else: not now

# a person's clicks are all logged, a program that posts a thousand a second costs a line a second
LOG_QUIET_S = 1.0

log = logging.getLogger(__name__)
_line = RateLimitedLog(log, LOG_QUIET_S)


def instruct(robot: Robot | None, body: bytes, caller: str | None) -> Reply:
    """POST /instruction: the robot follows it from its next chunk on."""
    return _commanded(robot, body, INSTRUCTION, caller, lambda robot, text: robot.instruct(text))


def begin_episode(robot: Robot | None, body: bytes, caller: str | None) -> Reply:
    """POST /episodes: begin an episode; the reply has its id. A stopped robot stays stopped."""
    return _commanded(robot, body, EPISODE, caller, lambda robot, name: robot.begin_episode(name))


def _commanded(
    robot: Robot | None,
    body: bytes,
    fields: dict[str, Schema],
    caller: str | None,
    command: Callable[[Robot, str], str],
) -> Reply:
    (field,) = fields
    if robot is None:
        return problem(409, "no-robot", NO_ROBOT, fresh_id())
    try:
        text = _only(body, field)
        _line(
            logging.WARNING, f"{field} {caller}", "%s requested over HTTP from %s: %s", field, caller, shown(text)
        )  # fmt: skip
        answer = command(robot, text)
    except ObservationError as error:
        return problem(400 if isinstance(error, BodyError) else 422, error.slug, str(error), fresh_id())
    except ReflexError as error:
        slug = error.slug if error.slug in STATUS else "not-active"
        return problem(STATUS.get(slug, 409), slug, str(error), fresh_id())
    document = {"instruction": text} if field == "instruction" else {"episode_id": answer}
    return Reply(200, orjson.dumps(document | {"message": answer}))


def _only(body: bytes, field: str) -> str:
    """Return the text of the one field, "" where it is left out. Raises ObservationError for another body."""
    document = json_document(body) if body.strip() else {}
    value = document.get(field)
    if set(document) - {field} or not isinstance(value, str | None):
        raise ObservationError(f"the body must be {{'{field}': TEXT}}, got {shown(document)}", "bad-body")
    if field == "instruction" and not has_words(value or ""):
        raise ObservationError(
            f"the body must be {{'{field}': TEXT}} with a word in it, got {shown(document)}",
            "bad-instruction",
        )
    return value or ""
