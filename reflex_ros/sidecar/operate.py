# SPDX-License-Identifier: Apache-2.0
"""What a person at the robot does over HTTP: look at the guard, reset guard and breaker."""

from __future__ import annotations

import dataclasses

import orjson

from reflex_core.engine import Engine
from reflex_core.errors import ReflexError
from reflex_ros.sidecar.reply import Reply, fresh_id, problem


def guard_status(engine: Engine) -> Reply:
    """`enabled` is false before a policy is loaded; everything else as the guard says it."""
    loaded = engine.loaded
    document = {"enabled": False} if loaded is None else dataclasses.asdict(loaded.guard.status())
    return Reply(200, orjson.dumps(document))


def guard_reset(engine: Engine) -> Reply:
    """Whether the guard was tripped; 400 where there is none to reset."""
    try:
        return Reply(200, orjson.dumps({"reset": True, "was_tripped": engine.reset_guard()}))
    except ReflexError:
        message = "no policy is loaded, so there is no guard"
        return problem(400, "guard_not_enabled", message, fresh_id())


def breaker_reset(engine: Engine) -> Reply:
    """Whether the breaker was open; 400 where there is none."""
    try:
        return Reply(200, orjson.dumps({"reset": True, "was_open": engine.reset_breaker()}))
    except ReflexError as error:
        return problem(400, "breaker_not_enabled", str(error), fresh_id())
