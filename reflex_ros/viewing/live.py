# SPDX-License-Identifier: Apache-2.0
"""A live server in the viewer: its newest answers, polled from GET /history."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from reflex_core.errors import ConfigurationError
from reflex_core.records.trace.parse import recorded
from reflex_core.review.bounds import bounds_of
from reflex_core.review.moments import moments
from reflex_ros.viewing.rerun_log import RerunLog

POLL_S = 0.5
PATIENCE_S = 10.0
MOST_BYTES = 64 << 20
KEY = "REFLEX_API_KEY"  # as the server reads it


def is_address(text: str) -> bool:
    """Return whether this is the address of a server and no path."""
    return str(text).startswith(("http://", "https://"))


def view_live(
    address: str, out: Path | None, *, most: int, longest_side: int, warn: Callable[[str], None]
) -> int:
    """Log what the server answers from now on, until Ctrl-C or until there are `most`; return the number of records.

    out: a file instead of the viewer's window. Raises ConfigurationError where the server
    cannot be reached, or its answer is no history.
    """
    found = _history(address, "")
    count = 0
    with closing(RerunLog(f"reflex {address}", bounds := bounds_of(_header(found, address)))) as log:
        if out is None:
            log.spawn()
        else:
            log.save(out)
        if bounds.note:
            log.note(bounds.note, "WARN")
        try:
            while True:
                count += _add(log, found, address, longest_side, warn, most - count)
                if count >= most:
                    return count
                time.sleep(POLL_S)
                found = _history(address, str(found.get("next", "")))
        except KeyboardInterrupt:
            return count


def _add(
    log: RerunLog, found: Mapping[str, Any], address: str, longest_side: int, warn: Callable[[str], None], most: int
) -> int:  # fmt: skip
    if missed := found.get("missed"):
        warn(f"{address}: {missed} answers came faster than they were polled and are left out")
    documents = found.get("records")
    documents = (
        [document for document in documents if isinstance(document, dict)]
        if isinstance(documents, list)
        else []
    )
    records = [recorded(document, address) for document in documents[:most]]
    for moment in moments(records, _header(found, address), longest_side):
        log.add(moment)
    log.flush()
    return len(records)


def _header(found: Mapping[str, Any], address: str) -> Mapping[str, Any]:
    header = found.get("header")
    if not isinstance(header, dict):
        raise ConfigurationError(
            f"{address}: GET /history has no 'header': is it a reflex server of this version?"
        )
    return header


def _history(address: str, after: str) -> Mapping[str, Any]:
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(KEY)) else {}
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE_S)
        with closing(connection):
            connection.request("GET", f"{parts.path.rstrip('/')}/history?after={after}", headers=headers)
            answer = connection.getresponse()
            body = answer.read(MOST_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ConfigurationError(
            f"{address}: cannot be reached: {error}; is `reflex serve` running there?"
        ) from error
    if answer.status in (401, 403):
        raise ConfigurationError(f"{address}: the API key is missing or wrong: set {KEY}")
    if answer.status != http.client.OK or len(body) > MOST_BYTES:
        raise ConfigurationError(
            f"{address}: GET /history answered {answer.status}: is it a reflex server of this version?"
        )
    try:
        found = orjson.loads(body)
    except ValueError as error:
        raise ConfigurationError(f"{address}: GET /history is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(
            f"{address}: GET /history is no object: is it a reflex server of this version?"
        )
    return found
