# SPDX-License-Identifier: Apache-2.0
"""HTTP by hand, over a socket that the test holds."""

from __future__ import annotations

import json
import socket
from typing import Any

from http_client import good


def act_bytes(**fields: Any) -> bytes:
    """A whole POST /act as it goes over the wire."""
    body = json.dumps(good(**fields)).encode()
    return b"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def answered(connection: socket.socket) -> bytes:
    """One whole reply."""
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += connection.recv(65536)
    head, _, body = reply.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
