# SPDX-License-Identifier: Apache-2.0
"""One request with its retries: the part that Policy and AsyncPolicy share."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from reflex_client.errors import OutOfTimeError, ReflexClientError
from reflex_client.reply import document_of
from reflex_client.transport.connection import Call, Server
from reflex_client.transport.retries import Deadline, Retries
from reflex_client.version import __version__

DEFAULT_TIMEOUT_S = 5.0
DEFAULT_RETRIES = Retries()
DEADLINE_HEADER = "X-Reflex-Deadline-Ms"
LONGEST_DEADLINE_S = 600.0  # that a server accepts


@dataclass(frozen=True)
class Exchanger:
    """Sends requests to one server. timeout_s: of a request with all its retries, unless the request brings its own."""

    server: Server
    key: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    retries: Retries = DEFAULT_RETRIES

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        episode_id: str | None = None,
        timeout_s: float | None = None,
        call: Call | None = None,
    ) -> tuple[dict[str, Any], float]:
        """Return the reply's JSON object and the milliseconds that it took. Raises ReflexClientError.

        What is temporary is asked again until the time is used up; a pause that would outlast it is not begun. Each request for
        a chunk states the time that is left, so that the server makes no answer that would come too late.
        """
        call = call or Call()
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        deadline, began_s, attempt = Deadline(limit_s), time.perf_counter(), 0
        headers = self._headers(body, episode_id)
        while True:
            if path == "/act" and 0.0 < deadline.remaining_s <= LONGEST_DEADLINE_S:
                headers[DEADLINE_HEADER] = f"{max(deadline.remaining_s * 1e3, 0.001):.3f}"
            try:
                response = self.server.exchange(method, path, body, headers, deadline, call)
                return document_of(response), (time.perf_counter() - began_s) * 1e3
            except OutOfTimeError as error:
                raise OutOfTimeError(f"no reply from {self.server.url}{path} within {limit_s:g} s") from error
            except ReflexClientError as error:
                if not error.temporary or call.aborted.is_set():
                    raise
                pause_s = self.retries.pause_s(attempt, error.retry_after_s)
                if pause_s is None or pause_s >= deadline.remaining_s:
                    raise
            if call.aborted.wait(pause_s):
                raise OutOfTimeError("the request was given up", "aborted")
            attempt += 1

    def _headers(self, body: bytes | None, episode_id: str | None) -> dict[str, str]:
        headers = {"User-Agent": f"reflex_client/{__version__}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        if episode_id and episode_id.isascii() and episode_id.isprintable():
            headers["X-Session-Id"] = episode_id  # a balancer keeps an episode on one server by it
        return headers


def require_key(key: str | None) -> str | None:
    """Return a key without the line break of its file. Raises ReflexClientError for what no header can have."""
    if key is None:
        return None
    plain = key.strip()
    if not plain.isascii() or not plain.isprintable():
        raise ReflexClientError("the key must be printable ASCII", "bad-key")
    return plain


def outcome_body(*, success: bool, score: float | None, note: str) -> bytes:
    """Return the body of a report of how an episode ended."""
    return json.dumps({"success": success, "score": score, "note": note}).encode()
