# SPDX-License-Identifier: Apache-2.0
"""A/B pair over HTTP: read the slots, change the split, promote, roll back, report outcomes of episodes."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import orjson

from reflex_core.engine.engine import Engine
from reflex_core.errors import NotReadyError, ObservationError, ReflexError, SettingError
from reflex_core.files.json_fields import is_number
from reflex_core.slots.changing import SwapError
from reflex_core.slots.outcomes import OtherRobotsEpisodeError
from reflex_core.slots.pair import Pair
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar.problems import fresh_id
from reflex_ros.sidecar.replies import Reply, problem
from reflex_ros.sidecar.wires.schema import FLAG, NUMBER, TEXT, Schema, or_null

_refused = RateLimitedLog(logging.getLogger(__name__))

LARGEST_BODY = 64 << 10
TEXT_LENGTH = 500
BY = "http"
ACTIONS: dict[str, Schema] = {
    "split": {
        "type": "integer",
        "minimum": 0,
        "maximum": 100,
        "description": "percent of episodes for slot a",
    },
    "promote": {**TEXT, "description": "the slot that takes every episode: a or b"},
    "rollback": {"const": True, "description": "undo the last change"},
}
CHANGE: dict[str, Schema] = {
    **ACTIONS,
    "reason": {**TEXT, "maxLength": TEXT_LENGTH},
    "running": {**FLAG, "description": "promote: running episodes change too"},
}
OUTCOME: dict[str, Schema] = {
    "success": FLAG,
    "score": or_null(NUMBER),
    "note": {**TEXT, "maxLength": TEXT_LENGTH},
}


def policies(engine: Engine) -> Reply:
    """GET /policies: every slot, and where there are two the split, its history and its monitor."""
    return Reply(200, orjson.dumps(engine.policies()))


def change_policies(engine: Engine, body: bytes) -> Reply:
    """POST /policies: one of split, promote, rollback; replies with the resulting state."""
    try:
        document = _object(body)
        _change(engine.pair(), document, _text(document, "reason"))
    except Exception as error:
        return _refusal(error)
    return policies(engine)


def report_outcome(engine: Engine, episode_id: str, body: bytes, robot_id: str = "") -> Reply:
    """POST /episodes/<id>/outcome: how an episode ended, and which slot drove it. robot_id: as of Engine.report_outcome."""
    try:
        document = _object(body)
        unknown = sorted(set(document) - set(OUTCOME))
        if unknown:
            raise ObservationError(
                f"an outcome has success, score and note, got {', '.join(unknown)[:80]}", "bad-outcome"
            )
        score = document.get("score")
        if score is not None and not is_number(score):
            raise ObservationError(f"score must be a number, got {score!r:.40}", "bad-outcome")
        success: Any = document.get("success")
        kept = engine.report_outcome(
            episode_id, success, None if score is None else float(score), _text(document, "note"), robot_id
        )
    except OtherRobotsEpisodeError as error:
        engine.metrics.errors.labels(error.slug).inc()
        _refused(logging.WARNING, error.slug, "an outcome is refused: %s", error)
        return problem(403, error.slug, str(error), fresh_id())
    except Exception as error:
        return _refusal(error)
    return Reply(200, orjson.dumps(dataclasses.asdict(kept)))


def _change(pair: Pair, document: dict[str, Any], reason: str) -> None:
    named = [name for name in ACTIONS if name in document]
    unknown = sorted(set(document) - set(CHANGE))
    if len(named) != 1 or unknown:
        raise ObservationError(
            f"give one of {', '.join(ACTIONS)}, and reason if you like; got {', '.join(sorted(document))[:80] or 'nothing'}",
            "bad-change",
        )
    value, running = document[named[0]], document.get("running", False)
    if not isinstance(running, bool):
        raise ObservationError(f"running must be true or false, got {running!r:.40}", "bad-change")
    if running and named[0] != "promote":
        raise ObservationError("running goes with promote alone: a split is for new episodes", "bad-change")
    if named[0] == "split":
        pair.operating.set_split(value, reason, BY)
    elif named[0] == "promote":
        pair.operating.promote(str(value), reason, BY, running=running)
    elif value is True:
        pair.operating.rollback(reason, BY)
    else:
        raise ObservationError(f"rollback must be true, got {value!r:.40}", "bad-change")


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ObservationError(f"the body is not JSON: {error.msg}", "bad-body") from error
    if not isinstance(document, dict):
        raise ObservationError("the body must be a JSON object", "bad-body")
    return document


def _text(document: dict[str, Any], field: str) -> str:
    value = document.get(field, "")
    if not isinstance(value, str) or len(value) > TEXT_LENGTH or not all(map(str.isprintable, value)):
        raise ObservationError(
            f"{field} must be a printable text of at most {TEXT_LENGTH} characters", "bad-text"
        )
    return value


def _refusal(error: Exception) -> Reply:
    """Return 409 for what the slots cannot do now, 422 for an invalid request, 503 while nothing is loaded."""
    request_id = fresh_id()
    if isinstance(error, NotReadyError):
        return problem(503, error.slug, str(error), request_id, error.retry_after_s)
    if isinstance(error, SwapError):
        return problem(409, error.slug, str(error), request_id)
    if isinstance(error, (ObservationError, SettingError)):
        return problem(422, error.slug, str(error), request_id)
    if isinstance(error, ReflexError):
        return problem(400, error.slug, str(error), request_id)
    raise error
