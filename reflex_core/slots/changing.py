# SPDX-License-Identifier: Apache-2.0
"""Changing who answers while serving: split, promote, roll back. Nothing is loaded, so it is done at once."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reflex_core.errors import ReflexError, SettingError
from reflex_core.files.json_fields import is_whole
from reflex_core.slots.routing import SLOTS, A, Routing, other

SPLIT, PROMOTE, ROLLBACK = "split", "promote", "rollback"
CHANGES_KEPT = 256

log = logging.getLogger(__name__)


class SwapError(ReflexError):
    """The slots cannot be changed in the requested way."""

    slug = "cannot-swap"


@dataclass(frozen=True, slots=True)
class Swap:
    """One change. kind: split, promote or rollback; splits are percent of episodes for slot a; at_s: wall clock.

    gains: the slot that gets more than before. running: episodes under way were moved too. reason, by: as the caller gave them.
    """

    kind: str
    from_split: int
    to_split: int
    gains: str
    running: bool
    reason: str
    by: str
    at_s: float


class Operating:
    """Which share of the episodes each slot has, and its history. Thread-safe; a change is one assignment.

    routing: moves the episodes under way when a change is for them too. is_out: whether a slot is drained.
    Listeners are called for every change in the thread that requested it, after it has taken effect; they must not raise.
    """

    def __init__(
        self,
        split: int,
        *,
        is_out: Callable[[str], bool] = lambda _: False,
        listeners: Sequence[Callable[[Swap], None]] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._split = _checked(split)
        self._is_out, self._clock = is_out, clock
        self._listeners = list(listeners)
        self._forget: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._before: deque[int] = deque(maxlen=CHANGES_KEPT)
        self._history: deque[Swap] = deque(maxlen=CHANGES_KEPT)

    def split(self) -> int:
        """Return the percent of new episodes that go to slot a."""
        return self._split

    def attach(self, routing: Routing) -> None:
        """Set the routing whose episodes move with a change that is for them too."""
        self._forget = routing.forget

    def listen(self, listener: Callable[[Swap], None]) -> None:
        """Call `listener` at every change from now on."""
        self._listeners.append(listener)

    @property
    def history(self) -> tuple[Swap, ...]:
        """The newest changes, oldest first."""
        with self._lock:
            return tuple(self._history)

    def set_split(self, split: int, reason: str = "", by: str = "") -> Swap | None:
        """Send that percentage of NEW episodes to slot a; None when it was so already. Raises SettingError."""
        return self._change(SPLIT, _checked(split), running=False, reason=reason, by=by)

    def promote(self, slot: str, reason: str = "", by: str = "", *, running: bool = False) -> Swap | None:
        """Send all new episodes to one slot, and those under way too if `running`; None when it was so already.

        Raises SwapError for a slot that is drained, or that there is not.
        """
        if slot not in SLOTS:
            raise SwapError(f"there is no slot {slot!r:.40}; promote {' or '.join(SLOTS)}", "no-such-slot")
        if self._is_out(slot):
            raise SwapError(
                f"slot '{slot}' is drained: it failed too often in a row, wait until it has healed"
            )
        return self._change(
            PROMOTE, 100 if slot == A else 0, running=running, reason=reason, by=by, gains=slot
        )

    def rollback(self, reason: str = "", by: str = "") -> Swap:
        """Take the last change back, for the episodes under way too. Raises SwapError when there is none."""
        with self._lock:
            if not self._before:
                raise SwapError("nothing to roll back: the split is what the server was started with")
            swap = self._apply(ROLLBACK, self._before.pop(), running=True, reason=reason, by=by)
        self._notify(swap)
        return swap

    def _change(
        self, kind: str, split: int, *, running: bool, reason: str, by: str, gains: str = ""
    ) -> Swap | None:
        with self._lock:
            if split == self._split and not running:
                return None
            if split != self._split:  # else only episodes under way move, and there is nothing to go back to
                self._before.append(self._split)
            swap = self._apply(kind, split, running=running, reason=reason, by=by, gains=gains)
        self._notify(swap)
        return swap

    def _apply(self, kind: str, split: int, *, running: bool, reason: str, by: str, gains: str = "") -> Swap:
        gains = gains or (A if split > self._split else other(A))
        swap = Swap(kind, self._split, split, gains, running, reason, by, self._clock())
        self._split = split
        if running:
            self._forget()
        self._history.append(swap)
        return swap

    def _notify(self, swap: Swap) -> None:
        log.warning(
            "%s: share of slot a of new episodes changed from %d %% to %d %%%s%s", swap.kind, swap.from_split, swap.to_split,
            ", running episodes move too" if swap.running else "", f": {swap.reason}" if swap.reason else "",
        )  # fmt: skip
        for listener in tuple(self._listeners):
            listener(swap)


def _checked(split: int) -> int:
    if not is_whole(split, 0, 100):
        raise SettingError(f"split must be a whole number of percent from 0 to 100, got {split!r:.40}")
    return split
