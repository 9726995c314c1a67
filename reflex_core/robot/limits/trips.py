# SPDX-License-Identifier: Apache-2.0
"""Who is tripped: clamped chunks in a row are counted, and held against, the robot they were made for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from reflex_core.errors import ReflexError
from reflex_core.values import PREFIXES, ROS

CALLERS_KEPT = (
    1024  # of each: those with nothing against them, those that are counted, those that are tripped
)
NAMED = 5  # callers named in a sentence


class CallerError(ReflexError):
    """A reset that names no caller, or one that is unknown to the guard."""

    slug = "unknown-caller"


@dataclass(frozen=True, slots=True)
class Standing:
    """How the guard stands towards one caller. trip_reason: empty while it is not tripped."""

    caller: str
    consecutive_clamps: int = 0
    trip_reason: str = ""

    @property
    def tripped(self) -> bool:
        """True from the trip to the reset: every answer is a hold."""
        return bool(self.trip_reason)


@dataclass(frozen=True, slots=True)
class Counted:
    """The result of counting one chunk. reason: why its caller is tripped, empty if it is not; began: it was not before.

    before: how many clamped chunks in a row there were without it.
    """

    reason: str = ""
    first: bool = False
    began: bool = False
    before: int = 0


class Trips:
    """Counts clamped chunks in a row per caller; at `most` the caller is tripped until it is reset. 0 never trips.

    Bounded and thread-safe. Many invented callers evict neither the tripped ones, nor counted ones by those that are
    not, nor the ROS robot. Once `kept` callers are tripped, a new caller's first clamped chunk is held: it fails closed.
    """

    def __init__(self, most: int, kept: int = CALLERS_KEPT) -> None:
        self.most = most
        self._kept = kept
        self._lock = threading.Lock()
        self._clean: dict[str, None] = {ROS: None}
        self._counts: dict[str, int] = {}
        self._tripped: dict[str, Standing] = {}

    def reason(self, caller: str) -> str:
        """Return why the caller is tripped, "" while it is not."""
        found = self._tripped.get(caller)
        return found.trip_reason if found is not None else ""

    def count(self, caller: str, *, clamped: bool, well: bool, before: int | None = None) -> Counted:
        """Count one chunk. clamped: it had to be changed; well: a model's own chunk that had not, which ends the row.

        before: the earlier count of the same chunk, which this one replaces.
        """
        with self._lock:
            tripped = self._tripped.get(caller)
            if tripped is not None:  # it was under way when the trip came
                return Counted(tripped.trip_reason)
            known = caller in self._counts or caller in self._clean
            so_far = self._counts.pop(caller, 0)
            before = so_far if before is None else before
            self._clean.pop(caller, None)
            after = before + 1 if clamped else 0 if well else before
            if self.most and clamped and len(self._tripped) >= self._kept and not known and caller != ROS:
                return Counted(
                    f"too_many_tripped_callers: {len(self._tripped)} are tripped: reset them", True
                )
            if self.most and after >= self.most:
                reason = (
                    f"consecutive_clamp_limit_exceeded: {after} chunks in a row had to be changed or were not finite"
                    f" (limit {self.most})"
                )
                if len(self._tripped) < self._kept or caller == ROS:
                    self._tripped[caller] = Standing(caller, after, reason)
                else:
                    self._remember(caller, after)
                return Counted(reason, began=True, before=before)
            self._remember(caller, after)
            return Counted("", clamped and after == 1, before=before)

    def _remember(self, caller: str, count: int) -> None:
        """Store the newest of its kind and evict the oldest. Needs the lock."""
        if count:
            self._counts[caller] = count
        else:
            self._clean[caller] = None
        for table in (self._counts, self._clean):
            if len(table) > self._kept:
                oldest = next(name for name in table if name != ROS)
                del table[oldest]

    def forgive(self, caller: str) -> None:
        """Begin a new row of clamped chunks with the caller, unless it is tripped: a person has moved the robot elsewhere."""
        with self._lock:
            if self._counts.pop(caller, 0):
                self._remember(caller, 0)

    def reset(self, caller: str) -> bool:
        """Begin anew with the caller. True when it was tripped. Raises CallerError for an unknown caller."""
        with self._lock:
            self._require(caller)
            was_tripped = self._tripped.pop(caller, None) is not None
            self._counts.pop(caller, None)
            self._remember(caller, 0)
            return was_tripped

    def named(self, name: str) -> str:
        """Return the caller with this name: a whole name, or an episode, session or address without its prefix.

        Raises CallerError where there is none.
        """
        with self._lock:
            if self._knows(name):
                return name
            found = [prefix + name for prefix in PREFIXES if self._knows(prefix + name)]
            if len(found) != 1:
                self._require(name)
            return found[0]

    def only(self) -> str:
        """Return the one caller over HTTP that is tripped, "" where none is.

        The ROS robot must be named. Raises CallerError where it is ambiguous.
        """
        with self._lock:
            tripped = list(self._tripped)
        others = [caller for caller in tripped if caller != ROS]
        if len(others) == 1:
            return others[0]
        if not tripped:
            return ""
        raise CallerError(
            f"say in 'caller' whose guard is to be reset: {_listed(tripped)} tripped", "caller-needed"
        )

    def standing(self, caller: str) -> Standing:
        """Return how the guard stands towards one caller."""
        with self._lock:
            return self._tripped.get(caller) or Standing(caller, self._counts.get(caller, 0))

    def standings(self) -> tuple[Standing, ...]:
        """Return the tripped and the counted callers, in this order, each by age."""
        with self._lock:
            return (*self._tripped.values(), *self._counted())

    def _counted(self) -> Iterator[Standing]:
        for caller, count in self._counts.items():
            yield Standing(caller, count)

    def _knows(self, caller: str) -> bool:
        return caller in self._tripped or caller in self._counts or caller in self._clean

    def _require(self, caller: str) -> None:
        if not self._knows(caller):
            tripped = f"; {_listed(list(self._tripped))} tripped" if self._tripped else ""
            raise CallerError(f"no caller {caller!r:.80} has requested a chunk{tripped}")


def _listed(callers: list[str]) -> str:
    """Return some names and how many more there are, with the verb that follows."""
    shown = ", ".join(f"{caller!r:.80}" for caller in callers[:NAMED])
    more = f" and {len(callers) - NAMED} more" if len(callers) > NAMED else ""
    return f"{shown}{more} {'is' if len(callers) == 1 else 'are'}"
