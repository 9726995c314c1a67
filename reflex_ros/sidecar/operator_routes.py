# SPDX-License-Identifier: Apache-2.0
"""Operator actions over HTTP: read the guard's status, reset guard and breaker."""

from __future__ import annotations

import dataclasses

import orjson

from reflex_core.engine.engine import Engine
from reflex_core.errors import ObservationError, ReflexError
from reflex_core.robot.callers import CALLER_CHARACTERS
from reflex_core.robot.limits.trips import CallerError
from reflex_core.text.untrusted import shown
from reflex_core.values import ROS
from reflex_ros.sidecar.problems import BodyError, fresh_id
from reflex_ros.sidecar.replies import Reply, problem
from reflex_ros.sidecar.robot_access import Robot
from reflex_ros.sidecar.wires.json import document as json_document
from reflex_ros.sidecar.wires.schema import TEXT, Schema, or_null

RESET: dict[str, Schema] = {
    "caller": or_null({**TEXT, "minLength": 1, "maxLength": CALLER_CHARACTERS, "description": "whose guard"})
}


def guard_status(engine: Engine) -> Reply:
    """Return the guard's status for all callers; `enabled` is false before a policy is loaded."""
    loaded = engine.loaded
    document = {"enabled": False} if loaded is None else dataclasses.asdict(loaded.guard.status())
    return Reply(200, orjson.dumps(document))


def guard_reset(engine: Engine, body: bytes = b"", robot: Robot | None = None) -> Reply:
    """Return whether the caller named in the body was tripped; without a body, the only caller that is.

    robot: of this process; a reset of its guard also trusts its joints' present readings, as ~/reset_guard does.
    404 for an unknown caller, 422 where the caller is ambiguous, 400 where there is no guard.
    """
    try:
        caller = _caller(body)
        was_tripped = engine.reset_guard(caller)
    except CallerError as error:
        return problem(404 if error.slug == CallerError.slug else 422, error.slug, str(error), fresh_id())
    except ObservationError as error:
        return problem(400 if isinstance(error, BodyError) else 422, error.slug, str(error), fresh_id())
    except ReflexError:
        message = "no policy is loaded, so there is no guard"
        return problem(400, "guard_not_enabled", message, fresh_id())
    document: dict[str, object] = {"reset": True, "was_tripped": was_tripped}
    if caller == ROS and robot is not None:
        document["problem"] = robot.believe()
    return Reply(200, orjson.dumps(document))


def _caller(body: bytes) -> str | None:
    """Return the caller named in the body, or None. Raises ObservationError for other keys: a typo must reset no other guard."""
    document = json_document(body) if body.strip() else {}
    unknown = sorted(set(document) - set(RESET))
    if unknown:
        raise ObservationError(
            f"the body must be {{}} or {{'caller': NAME}}, got the key {shown(unknown[0])}", "bad-body"
        )
    caller = document.get("caller")
    if caller is not None and (not isinstance(caller, str) or not 0 < len(caller) <= CALLER_CHARACTERS):
        raise ObservationError(
            f"'caller' must be a string of 1 to {CALLER_CHARACTERS} characters, got {shown(caller)}",
            "bad-caller",
        )
    return caller


def breaker_reset(engine: Engine) -> Reply:
    """Return whether the breaker was open; 400 where there is none."""
    try:
        return Reply(200, orjson.dumps({"reset": True, "was_open": engine.reset_breaker()}))
    except ReflexError as error:
        return problem(400, "breaker_not_enabled", str(error), fresh_id())
