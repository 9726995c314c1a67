# SPDX-License-Identifier: Apache-2.0
"""The header by which a balancer keeps an episode on one server; it replaces a missing `episode_id`.

What routes a request and what the engine stores its state under must be the same name: where header and body name two
different episodes, the request is refused. A websocket is routed once, by its upgrade: there the header names the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reflex_core.metrics.episodes import ID_CHARACTERS, usable_id
from reflex_core.text.untrusted import shown
from reflex_ros.sidecar.problems import BodyError, header_safe

if TYPE_CHECKING:  # comes with aiohttp
    from multidict import CIMultiDictProxy

SESSION_HEADER = "X-Session-Id"


class SessionError(BodyError):
    """The session header is unusable."""

    slug = "bad-session-id"


class SessionMismatchError(BodyError):
    """Header and request name two different episodes."""

    slug = "session-mismatch"
    status = 422


def session_of(headers: CIMultiDictProxy[str]) -> str:
    """Return the session that a request names in its header, "" for none. Raises SessionError for one that cannot be an id."""
    if SESSION_HEADER not in headers:
        return ""
    found = headers.getall(SESSION_HEADER)
    if len(found) > 1:
        raise SessionError(f"a request must name one {SESSION_HEADER}, got {len(found)}")
    if found[0] and not usable_id(found[0]):
        raise SessionError(
            f"{SESSION_HEADER} must have at most {ID_CHARACTERS} printable characters, got {shown(found[0])}"
        )
    return found[0]


def episode_for(episode_id: str | None, session: str) -> str | None:
    """Return the episode of a request: of its body, else of its header. Raises SessionMismatchError where they differ.

    Blanks around an id do not count: HTTP drops those of a header.
    """
    if not episode_id:
        return session or None
    require_same(episode_id, session)
    return episode_id


def require_same(episode_id: str, session: str) -> None:
    """Raise SessionMismatchError where a header names another episode."""
    if session and episode_id.strip() != session.strip():
        raise SessionMismatchError(
            f"the request is of episode {shown(episode_id)} and its header {SESSION_HEADER} is {shown(session)}:"
            " give both the same value, or leave one out"
        )


def echo(session: str) -> Mapping[str, str]:
    """Return the header of an answer to a request with a session; none without."""
    return {SESSION_HEADER: header_safe(session)} if session else {}


def session_header(episode_id: str | None) -> Mapping[str, str]:
    """Return the header of a request to another server, behind which a balancer may stand; none for an id that no header can have."""
    usable = episode_id and episode_id.isascii() and episode_id.isprintable()
    return {SESSION_HEADER: episode_id} if usable and episode_id else {}
