# SPDX-License-Identifier: Apache-2.0
"""Convert recorded times to times of the playback."""

from __future__ import annotations

CLOCK_JUMP_NS = 1_000_000_000  # messages overtake each other by less; further back a simulation began again


class Pace:
    """Times on the recorded clock as seconds since the first one, at `rate` times the recorded speed."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._latest_ns: int | None = None
        self._elapsed_ns = 0

    def due_s(self, time_ns: int) -> float:
        """Return when to play a message recorded at that time: never before an earlier one.

        After a jump back of the recorded clock it goes on from there, without a pause.
        """
        latest_ns = time_ns if self._latest_ns is None else self._latest_ns
        if time_ns < latest_ns - CLOCK_JUMP_NS:
            latest_ns = time_ns
        self._elapsed_ns += max(0, time_ns - latest_ns)
        self._latest_ns = max(latest_ns, time_ns)
        return self.elapsed_s / self._rate

    @property
    def elapsed_s(self) -> float:
        """The recorded time that has been played so far, in seconds."""
        return self._elapsed_ns * 1e-9

    def clock_ns(self, left_s: float) -> int:
        """Return the recorded clock in ns, `left_s` seconds of playback before the time last passed to `due_s`."""
        return (self._latest_ns or 0) - max(0, int(left_s * self._rate * 1e9))
