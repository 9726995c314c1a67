# SPDX-License-Identifier: Apache-2.0
"""Do the same on every server at the same time; one that hangs keeps no other waiting, and is reported as failed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from reflex_core.errors import ReflexError
from reflex_ros.fleet.servers import Server

STACK_BYTES = 512 << 10  # of a thread that sends one request
AGAIN_S = 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What came of one server: a value, or why there is none."""

    server: Server
    value: T | None = None
    failure: str = ""


def fan_out(servers: Sequence[Server], work: Callable[[Server], T], timeout_s: float) -> Iterator[Result[T]]:
    """Yield the result of each server as it comes, each exactly once, within `timeout_s` of the call.

    A thread per server, and none of them waits for another: a name that does not resolve or an answer that trickles
    cannot be interrupted, so what is not back in time is left behind in a thread that ends with the process.
    """
    until_s = time.monotonic() + timeout_s
    results: queue.SimpleQueue[Result[T]] = queue.SimpleQueue()

    def one(server: Server) -> None:
        try:
            results.put(Result(server, work(server)))
        except ReflexError as error:
            results.put(Result(server, failure=str(error)))
        except Exception as error:
            results.put(Result(server, failure=f"{type(error).__name__}: {error}"))

    starter = threading.Thread(target=_start_all, args=(servers, one, until_s), daemon=True)
    starter.start()
    left = {server.name: server for server in servers}
    while left:
        try:
            result = results.get(timeout=max(until_s - time.monotonic(), 0.0))
        except queue.Empty:
            break
        if left.pop(result.server.name, None) is not None:
            yield result
    for server in left.values():
        yield Result(server, failure=f"no answer within {timeout_s:g} s")


def _start_all(servers: Sequence[Server], one: Callable[[Server], None], until_s: float) -> None:
    """Start a thread for each; where the system permits no more of them now, go on when some have ended."""
    before = threading.stack_size(STACK_BYTES)
    try:
        for server in servers:
            while time.monotonic() < until_s:
                try:
                    threading.Thread(target=one, args=(server,), daemon=True).start()
                    break
                except RuntimeError:
                    time.sleep(AGAIN_S)
    finally:
        threading.stack_size(before)
