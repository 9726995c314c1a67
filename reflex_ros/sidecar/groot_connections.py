# SPDX-License-Identifier: Apache-2.0
"""Bounds for the connections of a ZeroMQ socket, which has none itself: how many are open, and what each sends unasked.

ZeroMQ keeps the parts of a message until its last one is there, however many come. What the kernel has received on a
connection since its last whole message is therefore bounded here, and connections beyond a bound are shut down.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket as sockets
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reflex_ros.sidecar.bodies import MOST_BYTES

if TYPE_CHECKING:
    import zmq

MOST_CONNECTIONS = 128  # each takes two file descriptors, of which HTTP needs some
MOST_MESSAGE_BYTES = 256 << 20
SLACK_BYTES = 16 << 20  # of messages that wait behind one that is served
LOOKED_EVERY_MS = 200  # while connections are open
RECEIVED = slice(128, 136)  # tcpi_bytes_received in Linux' struct tcp_info

TOO_MANY, TOO_LARGE = "too-many-connections", "body-too-large"


@dataclass(slots=True)
class _Open:
    """One connection, by a descriptor of our own. counted: bytes that had come with its last whole message."""

    connection: sockets.socket
    counted: int = 0

    @property
    def unfinished(self) -> int:
        """Bytes that came since; 0 where the kernel counts none."""
        return max(_received(self.connection) - self.counted, 0)

    def end(self) -> None:
        """Reset it, whatever is still on its way; ZeroMQ then closes it."""
        nowhere = sockets.AF_UNSPEC.to_bytes(2, sys.byteorder) + bytes(14)
        if ctypes.CDLL(None).connect(self.connection.fileno(), nowhere, len(nowhere)) != 0:
            with contextlib.suppress(OSError):
                self.connection.shutdown(sockets.SHUT_RDWR)


class OpenConnections:
    """Connections as ZeroMQ reports them, by its own file descriptors. For the thread that owns the socket."""

    def __init__(self, zmq: Any, router: zmq.Socket[bytes], port: int) -> None:
        self._zmq, self._router, self._port = zmq, router, port
        self._open: dict[int, _Open] = {}
        self.monitor = router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)

    @property
    def wait_ms(self) -> int | None:
        """How long the socket may be waited for before the next look; None for without end."""
        return LOOKED_EVERY_MS if self._open else None

    def delivered(self, descriptor: int) -> None:
        """Note that a whole message of a connection was taken."""
        if (found := self._open.get(descriptor)) is not None:
            found.counted = _received(found.connection)

    def look(self) -> list[str]:
        """Shut down what is beyond a bound; return a slug for each. The newest of too many go: those before are served on."""
        ended = [slug for slug in iter(self._event, None) if slug]
        unfinished = {descriptor: one.unfinished for descriptor, one in self._open.items()}
        total = sum(unfinished.values())
        for descriptor, size in sorted(unfinished.items(), key=lambda pair: -pair[1]):
            if size <= MOST_MESSAGE_BYTES + SLACK_BYTES and total <= MOST_BYTES:
                break
            self._open[descriptor].end()
            total -= size
            ended.append(TOO_LARGE)
        return ended

    def close(self) -> None:
        """Stop the reports."""
        self._router.disable_monitor()
        self.monitor.close(linger=0)
        for one in self._open.values():
            one.connection.close()

    def _event(self) -> str | None:
        """Take the next report; return the slug of a connection that is refused, "" for others, None where there is none."""
        try:
            happened, _ = self.monitor.recv_multipart(self._zmq.NOBLOCK)
        except self._zmq.Again:
            return None
        event, descriptor = struct.unpack("=HI", happened)
        if event == self._zmq.EVENT_DISCONNECTED:
            if (gone := self._open.pop(descriptor, None)) is not None:
                gone.connection.close()
            return ""
        return self._admit(descriptor)

    def _admit(self, descriptor: int) -> str:
        try:
            connection = sockets.socket(fileno=os.dup(descriptor))
        except OSError:  # it has gone already
            return ""
        if connection.getsockname()[1:2] != (self._port,):  # its descriptor is another's by now
            connection.close()
            return ""
        if len(self._open) < MOST_CONNECTIONS:
            self._open[descriptor] = _Open(connection)
            return ""
        _Open(connection).end()
        connection.close()
        return TOO_MANY


def _received(connection: sockets.socket) -> int:
    """Return how many bytes the kernel has received; 0 where it does not count."""
    try:
        info = connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, RECEIVED.stop)
    except (OSError, AttributeError):
        return 0
    return int.from_bytes(info[RECEIVED], sys.byteorder)
