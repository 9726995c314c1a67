# SPDX-License-Identifier: Apache-2.0
"""The goals that an action server may still be at work on, and which of them have to be cancelled now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

ANSWER_S = 2.0  # an answer that has not come by then does not come
AGAIN_S = 0.25  # after a cancellation that was refused: a node that ends waits a second for it
KEPT = 32  # some servers never say how a goal ended that another one has replaced
AT_ONCE = 8  # requests that have no answer yet: a server's queue holds ten

Handle = TypeVar("Handle")


@dataclass(slots=True)
class _Goal(Generic[Handle]):
    """A goal that was accepted. over: it has ended, or will: only how is not known yet. lost: its server has gone."""

    handle: Handle
    over: bool = False
    lost: bool = False
    asking: bool = False  # a cancellation has no answer yet
    not_before_ns: int = 0


@dataclass(frozen=True, slots=True)
class Cancellation(Generic[Handle]):
    """A goal to cancel now. unanswered: the request before this one has had no answer."""

    number: int
    handle: Handle
    unanswered: bool


class GoalsUnderWay(Generic[Handle]):
    """Goals by their number, from 1 on. Times are int ns of one clock. Not thread-safe.

    A goal is kept from its sending until its end is known, whatever becomes of later ones: what a server answers to a goal
    says nothing of the goal before it. The newest KEPT that were accepted are kept.
    """

    def __init__(self) -> None:
        self.count = 0
        self.newest = 0  # of those that were accepted
        self._void = 0  # the newest goal that is not wanted any more
        self._sent_ns: dict[int, int] = {}  # of those that have no answer yet
        self._running: dict[int, _Goal[Handle]] = {}
        self._away = False

    def send(self, now_ns: int) -> int:
        """Note a goal that is sent now. Return its number."""
        self.count += 1
        self._sent_ns[self.count] = now_ns
        return self.count

    def accept(self, number: int, handle: Handle) -> None:
        """Note a goal that was accepted, however late."""
        self._sent_ns.pop(number, None)
        self.newest = max(self.newest, number)
        self._running[number] = _Goal(handle)
        if len(self._running) > KEPT:
            del self._running[min(self._running)]

    def end(self, number: int) -> None:
        """Note that the server is not at work on a goal: it rejected it, does not know it, or has said how it ended."""
        self._sent_ns.pop(number, None)
        self._running.pop(number, None)

    def give_up(self, now_ns: int) -> list[int]:
        """Wait no longer for the answers to goals sent too long ago. Return their numbers."""
        late = [number for number, sent_ns in self._sent_ns.items() if now_ns - sent_ns > ANSWER_S * 1e9]
        for number in late:
            del self._sent_ns[number]
        return late

    def void(self) -> None:
        """Want none of the goals so far any more, nor those of them that are accepted later."""
        self._void = self.count

    def leave(self) -> None:
        """Note that the server has gone: it answers nothing. What it had accepted is kept, as it may only be out of reach."""
        self._away = True
        self._sent_ns.clear()
        for goal in self._running.values():
            goal.lost, goal.asking, goal.not_before_ns = True, False, 0

    def come_back(self) -> None:
        """Note that there is a server."""
        self._away = False

    @property
    def away(self) -> bool:
        """Whether the server has gone."""
        return self._away

    @property
    def moving(self) -> bool:
        """Whether the newest goals say that the gripper moves: a goal before them is taken for replaced."""
        return bool(self._sent_ns) or self._newest_moves()

    @property
    def wanted(self) -> bool:
        """Whether the newest goals say that the gripper moves, and one of them is wanted."""
        running = self.newest > self._void and self._newest_moves()
        return running or any(number > self._void for number in self._sent_ns)

    @property
    def unwanted(self) -> bool:
        """Whether a goal may be under way that is not wanted any more."""
        return bool(self._to_cancel()) or any(number <= self._void for number in self._sent_ns)

    def cancel(self, now_ns: int) -> list[Cancellation[Handle]]:
        """Return what to cancel now, the newest first, and note that it is asked for."""
        due = [(number, goal) for number, goal in self._to_cancel() if goal.not_before_ns <= now_ns]
        due.sort(key=lambda each: each[1].asking)  # one that was never asked for first
        waiting = sum(goal.asking and goal.not_before_ns > now_ns for _, goal in self._to_cancel())
        requests = []
        for number, goal in due[: max(AT_ONCE - waiting, 0)]:
            requests.append(Cancellation(number, goal.handle, goal.asking))
            goal.asking, goal.not_before_ns = True, now_ns + int(ANSWER_S * 1e9)
        return requests

    def refuse(self, number: int, now_ns: int) -> bool:
        """Note that a cancellation was refused: it is due again later. Return whether that goal may be under way."""
        goal = self._running.get(number)
        if goal is None or goal.over:
            return False
        goal.asking, goal.not_before_ns = False, now_ns + int(AGAIN_S * 1e9)
        return True

    def settle(self, number: int) -> bool:
        """Note that a goal has ended or is being cancelled: it is only waited for how it ended. Return whether it is known."""
        if number not in self._running:
            return False
        self._running[number].over = True
        return True

    def _newest_moves(self) -> bool:
        goal = self._running.get(self.newest)
        return goal is not None and not goal.over and not goal.lost

    def _to_cancel(self) -> list[tuple[int, _Goal[Handle]]]:
        return [
            (number, goal)
            for number, goal in sorted(self._running.items(), reverse=True)
            if number <= self._void and not goal.over
        ]
