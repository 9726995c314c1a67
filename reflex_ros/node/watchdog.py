# SPDX-License-Identifier: Apache-2.0
"""A thread outside the chunk loop that holds the robot, and says so, when the loop or a stream of setpoints is late or gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from reflex_ros.node.holds import GONE, LATE
from reflex_ros.outputs.base import STREAM_GONE, STREAM_LATE

PERIOD_S = 0.05
TEXTS = {
    LATE: "the chunk loop is late: nothing came after the running chunk, so that the watchdog held the robot",
    GONE: "the chunk loop has ended unexpectedly, and the watchdog held the robot: restart the node",
    STREAM_LATE: "a group that is sent row by row got nothing for 0.1 s, and the watchdog held the robot",
    STREAM_GONE: "the thread that sends a group its rows has ended unexpectedly, and the watchdog held the robot: restart the node",
}

log = logging.getLogger(__name__)


class Loop(Protocol):
    """The chunk loop as the watchdog sees it."""

    def overdue(self) -> str:
        """Return why the watchdog must hold the robot, or ""; from any thread, without waiting."""
        ...

    def rescue(self, reason: str, text: str) -> bool:
        """Hold on behalf of the loop; False when that was not possible now."""
        ...


class Watchdog:
    """One per chunk loop. `check` is what its thread does every PERIOD_S.

    count: called once for every time the loop, or a stream of setpoints, was found late or gone.
    """

    def __init__(self, loop: Loop, count: Callable[[str], None], period_s: float = PERIOD_S) -> None:
        self._loop, self._count, self._period_s = loop, count, period_s
        self._closing = threading.Event()
        self._seen = ""
        self._held = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    @property
    def barking(self) -> str:
        """Return why it holds the robot now; empty while all is well."""
        return self._seen

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching. It does not wait for the loop."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Hold, count and log once when the loop is found late or gone; try again where the hold was not possible."""
        reason = self._loop.overdue()
        if not reason:
            if self._seen:
                log.info("%s ended: it runs again", self._seen)
            self._seen, self._held = "", False
            return
        if reason != self._seen:
            self._seen, self._held = reason, False
            self._count(reason)
            log.error("%s: %s", reason, TEXTS[reason])
        if not self._held:
            self._held = self._loop.rescue(reason, TEXTS[reason])

    def _run(self) -> None:
        while not self._closing.wait(self._period_s):
            try:
                self.check()
            except BaseException:  # whatever it was, the next look may hold the robot
                log.exception("the watchdog could not check the chunk loop")
