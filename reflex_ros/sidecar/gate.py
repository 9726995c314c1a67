# SPDX-License-Identifier: Apache-2.0
"""Which HTTP requests are let in: by their key and its rights, or without a key by where they come from."""

from __future__ import annotations

import logging
from collections.abc import Collection

from aiohttp import web

from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar.access import needed_rights, token_of
from reflex_ros.sidecar.admission import ALONE, KEYRING, refusal_of, requester
from reflex_ros.sidecar.csrf import refusal
from reflex_ros.sidecar.problems import Problem

NO_KEY = "this needs the API key: Authorization: Bearer <key>"
METRICS = "/metrics"  # with keys of robots it takes one, as it names the robots

_line = RateLimitedLog(logging.getLogger(__name__))


def shut_out(request: web.Request, open_paths: Collection[str], *, upgrade: bool) -> Problem | None:
    """Return 401 or 403 if the caller is not authorised or, without a key, a browser sends it for another site; else None."""
    app, keyring = request.app, request.app[KEYRING]
    if not upgrade and request.path in open_paths and not (request.path == METRICS and keyring.has_file):
        return None
    if keyring.required:
        access = keyring.access(token_of(request.headers))
        if access is None:
            return refusal_of(app, 401, "unauthorized", NO_KEY)
        needed = needed_rights(request.method, request.path, upgrade=upgrade)
        if access.may(needed):
            return None
        rights = " or ".join(map(repr, needed))
        text = "%s %.200r refused: %s has not the right %s"
        _line(
            logging.WARNING,
            f"right {access.key_id}",
            text,
            request.method,
            request.path,
            requester(request),
            rights,
        )
        message = (
            f"this needs a key with the right {rights}, and this one has {', '.join(sorted(access.rights))}"
        )
        return refusal_of(app, 403, "missing-right", message)
    # a browser names the page of an upgrade as it does with a POST, and programs may use any name: ws://gpu-box:8000
    method = "POST" if upgrade else request.method
    found = refusal(method, request.path, request.headers, alone=app[ALONE])
    return refusal_of(app, 403, *found) if found is not None else None
