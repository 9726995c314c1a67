# SPDX-License-Identifier: Apache-2.0
"""Lines that show that a start goes on: each with the seconds so far, the last one again while there is no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_S = 4.0


@contextmanager
def startup_lines(first: str, quiet_s: float = QUIET_S) -> Iterator[Callable[[str], None]]:
    """Print `first` and yield a function that prints a line; after `quiet_s` without one the last is repeated.

    Also while a module is imported. Another thread runs inside: `processes.start` belongs before it.
    """
    begun_s = time.monotonic()
    lock, ended = threading.Lock(), threading.Event()
    last, printed_s = first, begun_s

    def show(text: str) -> None:
        nonlocal last, printed_s
        with lock:
            last, printed_s = text, time.monotonic()
            print(f"{printed_s - begun_s:5.1f} s {text}", flush=True)

    def repeat() -> None:
        while not ended.wait(max(0.0, printed_s + quiet_s - time.monotonic())):
            if time.monotonic() - printed_s >= quiet_s:
                show(last)

    show(first)
    thread = threading.Thread(target=repeat, name="startup lines", daemon=True)
    thread.start()
    try:
        yield show
    finally:
        ended.set()
        thread.join()
