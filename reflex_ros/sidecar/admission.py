# SPDX-License-Identifier: Apache-2.0
"""What handlers share, and how many requests are served and wait at a time, whichever way they come."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from reflex_core.engine.engine import Engine
from reflex_ros.sidecar.access import Access, Keyring, token_of
from reflex_ros.sidecar.bodies import BodyMemory
from reflex_ros.sidecar.problems import Problem, fresh_id
from reflex_ros.sidecar.robot_access import Robot

WAITING_REQUESTS = 64
NOTHING_ALLOWED = Access(frozenset())


@dataclass(slots=True)
class Waiting:
    """Requests on /act, and those of them that are whole and not answered. Touched by the event loop only."""

    active: int = 0
    requests: int = 0

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Count a request that came as one message, until it is answered."""
        self.active += 1
        self.requests += 1
        try:
            yield
        finally:
            self.active -= 1
            self.requests -= 1


ENGINE = web.AppKey("engine", Engine)
ROBOT: web.AppKey[Robot | None] = web.AppKey("robot")
RESERVED = web.AppKey("reserved", str)
KEYRING = web.AppKey("keyring", Keyring)
ALONE = web.AppKey("alone", bool)  # only this machine can ask
WAITING = web.AppKey("waiting", Waiting)
MEMORY = web.AppKey("memory", BodyMemory)
WORKERS = web.AppKey("workers", ThreadPoolExecutor)
CLERK = web.AppKey("clerk", ThreadPoolExecutor)
ASSIGNER = web.AppKey("assigner", ThreadPoolExecutor)


def access_of(request: web.BaseRequest) -> Access:
    """Return what the key of a request may do now: while it is open, its key may be revoked or expire."""
    assert isinstance(request, web.Request)
    return request.app[KEYRING].access(token_of(request.headers)) or NOTHING_ALLOWED


def requester(request: web.BaseRequest) -> str:
    """Return how a log line names the sender of a request: its address, and its key where that is one of the file."""
    words = access_of(request).words
    return f"{request.remote} ({words})" if words else str(request.remote)


def too_many(app: web.Application) -> Problem | None:
    """Return why one more request is not served at the same time, None where it is."""
    active, most = app[WAITING].active, app[ENGINE].settings.max_concurrent
    if not most or active < most:
        return None
    message = f"{active} requests are being served and {most} may be; try again"
    return refusal_of(app, 429, "too_many_requests", message, concurrent_requests=active, max_concurrent=most)


def queue_full(app: web.Application) -> Problem | None:
    """Return why a whole request does not wait for its turn, None where it does."""
    waiting = app[WAITING].requests
    if waiting < WAITING_REQUESTS:
        return None
    return refusal_of(app, 503, "queue_full", f"{waiting} requests are waiting; try again")


def refusal_of(app: web.Application, status: int, slug: str, message: str, **more: int) -> Problem:
    """Return a problem that never reached the engine, counted."""
    app[ENGINE].metrics.errors.labels(slug).inc()
    return Problem(status, slug, message, fresh_id(), more=more)
