# SPDX-License-Identifier: Apache-2.0
"""What handlers share, and how many requests are served and wait at a time, whichever way they come."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web

from reflex_core.engine.engine import Engine
from reflex_core.metrics.episodes import usable_id
from reflex_core.text.untrusted import shown
from reflex_ros.sidecar.access import Access, Keyring, token_of
from reflex_ros.sidecar.bodies import Body, BodyMemory, worked
from reflex_ros.sidecar.fair_queue import FairQueue, Line
from reflex_ros.sidecar.problems import BodyError, Problem, fresh_id
from reflex_ros.sidecar.robot_access import Robot
from reflex_ros.sidecar.worker_threads import WorkerThreads

SESSION_HEADER = "X-Session-Id"
DEADLINE_HEADER = "X-Reflex-Deadline-Ms"
LONGEST_DEADLINE_MS = 600_000.0
# float() takes 1_0, 1e3, nan and digits of other scripts as well, which a proxy in between may read in another way
_MILLISECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?")

T = TypeVar("T")


class DeadlineError(BodyError):
    """The header with the deadline is no number."""

    slug = "bad-deadline"


NOTHING_ALLOWED = Access(frozenset())


@dataclass(slots=True)
class Waiting:
    """Requests on /act, and those of them that are whole and not answered. Touched by the event loop only.

    draining: the server is about to end: it answers, and asks for no more.
    """

    active: int = 0
    requests: int = 0
    draining: bool = False

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
FAIR = web.AppKey("fair", FairQueue)
MEMORY = web.AppKey("memory", BodyMemory)
WORKERS = web.AppKey("workers", WorkerThreads)
CLERK = web.AppKey("clerk", WorkerThreads)
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


def queue_full(app: web.Application) -> bool:
    """Return whether a whole request would not wait for its turn."""
    return app[FAIR].full


def line_of(request: web.BaseRequest, access: Access) -> Line:
    """Return whose turns a request takes: the robot's of its key, else its session's, else its address's."""
    if access.robot_id:
        return Line(f"robot:{access.robot_id}", known=True)
    session = request.headers.get(SESSION_HEADER, "")
    if session and usable_id(session):
        sender = f"key:{access.key_id}" if access.key_id else f"peer:{request.remote}"
        return Line(f"session:{session}", known=True, sender=sender)
    return Line(f"peer:{request.remote}")


def deadline_of(request: web.BaseRequest, received_ns: int) -> float:
    """Return when an answer is of no more use, on the monotonic clock in seconds; infinity where the request does not say.

    Raises DeadlineError for a header that is no number of milliseconds, and for two of them.
    """
    found = request.headers.getall(DEADLINE_HEADER, [])
    if not found:
        return math.inf
    if len(found) > 1:
        raise DeadlineError(f"a request must state one {DEADLINE_HEADER}, got {len(found)}")
    [text] = found
    milliseconds = float(text) if _MILLISECONDS.fullmatch(text) else math.nan
    if not 0.0 < milliseconds <= LONGEST_DEADLINE_MS:
        raise DeadlineError(
            f"{DEADLINE_HEADER} must be a decimal number of milliseconds from 0 to {LONGEST_DEADLINE_MS:g}, got {shown(text)}"
        )
    return received_ns * 1e-9 + milliseconds * 1e-3


async def in_turn(
    app: web.Application,
    room: Body,
    line: Line,
    deadline_s: float,
    work: Callable[..., T],
    *arguments: object,
) -> T | Problem:
    """Run `work` in a worker once it is the robot's turn; return why it is not run, where it is refused."""
    turn = await app[FAIR].turn(line, deadline_s)
    if isinstance(turn, Problem):
        return turn
    try:
        return await worked(app[WORKERS], room, work, *arguments)
    finally:
        turn.end(room.work)


def refusal_of(app: web.Application, status: int, slug: str, message: str, **more: int) -> Problem:
    """Return a problem that never reached the engine, counted."""
    app[ENGINE].metrics.errors.labels(slug).inc()
    return Problem(status, slug, message, fresh_id(), more=more)
