# SPDX-License-Identifier: Apache-2.0
"""One request to one server of a fleet, and its answer as JSON or as a file."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reflex_core import __version__
from reflex_core.errors import ReflexError
from reflex_core.text.untrusted import escaped
from reflex_ros.fleet.servers import Server, key_of

LARGEST_ANSWER = 4 << 20
MESSAGE_CHARACTERS = 300


class FleetError(ReflexError):
    """A server did not do it; the message is one sentence."""

    slug = "fleet"


@dataclass(frozen=True, slots=True)
class Access:
    """How servers are reached. keys: folder with a key by name. silence_s: a server that sends nothing for so long is given up."""

    keys: Path | None = None
    ca: Path | None = None
    silence_s: float = 5.0


def document(
    server: Server,
    access: Access,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    most_bytes: int = LARGEST_ANSWER,
) -> Any:
    """Return the JSON object of an answer of at most so many bytes.

    Raises FleetError for a refusal and for what is no answer, ConfigurationError for its key.
    """
    sent = None if body is None else json.dumps(body).encode()
    with exchange(server, access, method, path, sent, {}) as response:
        try:
            data = response.read(most_bytes + 1)
            found = json.loads(data) if len(data) <= most_bytes else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise FleetError(f"{path} was answered {response.status} with no JSON object")
        if response.status != http.client.OK:
            raise FleetError(refusal(response.status, found))
        return found


def refusal(status: int, found: Mapping[str, Any]) -> str:
    """Return the sentence of a refusal, safe for a terminal."""
    message = found.get("message") or found.get("error") or "without a reason"
    return f"{status} {escaped(str(message), MESSAGE_CHARACTERS)}"


@contextmanager
def exchange(
    server: Server, access: Access, method: str, path: str, body: bytes | None, more: Mapping[str, str]
) -> Iterator[http.client.HTTPResponse]:
    """Send a request and yield its answer. Raises FleetError where there is no connection or the answer is broken."""
    headers = {"User-Agent": f"reflex_ros/{__version__}", "Accept-Encoding": "identity", **more}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if key := key_of(server, access.keys):
        headers["Authorization"] = f"Bearer {key}"
    connection = _connection(server, access)
    try:
        connection.request(method, path, body, headers)
        yield connection.getresponse()
    except TimeoutError as error:
        raise FleetError(f"no answer within {access.silence_s:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FleetError(f"{server.host}:{server.port}: {escaped(str(why), MESSAGE_CHARACTERS)}") from error
    finally:
        connection.close()


def _connection(server: Server, access: Access) -> http.client.HTTPConnection:
    if not server.secure:
        return http.client.HTTPConnection(server.host, server.port, timeout=access.silence_s)
    try:
        context = ssl.create_default_context(cafile=None if access.ca is None else str(access.ca))
    except OSError as error:
        raise FleetError(f"{access.ca}: {error.strerror or error}") from error
    return http.client.HTTPSConnection(server.host, server.port, timeout=access.silence_s, context=context)
