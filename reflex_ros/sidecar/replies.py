# SPDX-License-Identifier: Apache-2.0
"""Replies before they are sent, and JSON replies of all routes that belong to no wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from reflex_ros.sidecar.problems import Problem

JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, body, extra headers, and the media type of the body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = JSON_TYPE


def problem(
    status: int, slug: str, message: str, request_id: str, retry_after_s: float = 1.0, **more: Any
) -> Reply:
    """Return a problem as a JSON reply."""
    return json_problem(Problem(status, slug, message, request_id, retry_after_s, more))


def json_problem(found: Problem) -> Reply:
    """Return a problem as a JSON reply."""
    return Reply(found.status, orjson.dumps(found.document()), found.headers())


def response(reply: Reply) -> web.Response:
    """Return the aiohttp response of a reply."""
    return web.Response(
        body=reply.body, status=reply.status, headers=reply.headers, content_type=reply.content_type
    )
