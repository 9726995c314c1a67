# SPDX-License-Identifier: Apache-2.0
"""Problems: status, slug and one sentence in place of an answer, before a wire encodes them."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from reflex_core.errors import InferenceError, NotReadyError, ObservationError
from reflex_core.slots.outcomes import OtherRobotsEpisodeError
from reflex_core.text.untrusted import escaped
from reflex_core.values import NOTHING

DEADLINE_EXCEEDED = "deadline-exceeded"
PUBLIC_SLUGS = ("non-finite-actions", "guard_tripped")
MESSAGE_CHARACTERS = 4000


class BodyError(ObservationError):
    """The body is malformed for its wire: for JSON, not JSON."""

    slug = "malformed-json"
    status = 400


class TooLargeError(BodyError):
    """The body, packed or unpacked, exceeds its limit."""

    slug = "body-too-large"
    status = 413


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is no answer. status: of HTTP. more: further fields for programs, by name."""

    status: int
    slug: str
    message: str
    request_id: str
    retry_after_s: float = 1.0
    more: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    def document(self) -> dict[str, Any]:
        """Return the fields of the body, as every wire names them."""
        message = escaped(self.message, MESSAGE_CHARACTERS)
        return {"error": self.slug, "message": message, "request_id": self.request_id, **self.more}

    def headers(self) -> dict[str, str]:
        """Return its headers; Retry-After where the client may try again."""
        headers = {"X-Request-Id": header_safe(self.request_id)}
        if self.status in (429, 503):
            headers["Retry-After"] = str(math.ceil(self.retry_after_s))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def problem_of(error: Exception, request_id: str) -> Problem:
    """Return the problem of an exception. Only sentences written for callers leave; others are logged alone."""
    if isinstance(error, BodyError):
        return Problem(error.status, error.slug, str(error), request_id)
    if isinstance(error, ObservationError):
        status = 403 if isinstance(error, OtherRobotsEpisodeError) else 422
        return Problem(status, error.slug, str(error), request_id)
    if isinstance(error, NotReadyError):
        # a breaker's or an objective's sentence is numbers only; the others may name files
        plain = error.slug != NotReadyError.slug
        message = str(error) if plain else f"the policy is not serving: state is '{error.state}'"
        return Problem(503, error.slug, message, request_id, error.retry_after_s, {"state": error.state})
    if isinstance(error, InferenceError):
        if error.slug == DEADLINE_EXCEEDED:  # a late inference may be making the first chunk just now
            return Problem(503, error.slug, str(error), request_id)
        if error.slug in PUBLIC_SLUGS:  # their messages are numbers only
            return Problem(500, error.slug, str(error), request_id)
        return Problem(
            500, error.slug, "the model failed on this request; the server's log says why", request_id
        )
    return Problem(500, "internal-error", "the server failed on this request; its log says why", request_id)


# of letters and digits as in urllib.parse.quote, and what header_safe leaves
_SAFE = re.compile(r"[A-Za-z0-9_.~!#$&'()*+,/:;=?@\[\] -]*")


def fresh_id() -> str:
    """Return the request id of a reply to a request that brought none."""
    return f"req-{secrets.token_hex(4)}"


def header_safe(text: str) -> str:
    """Return text safe for a header: printable ASCII unchanged, everything else percent-encoded."""
    if _SAFE.fullmatch(text):
        return text  # as usual
    return quote(text, safe="!#$&'()*+,/:;=?@[] ~", encoding="utf-8", errors="replace")
