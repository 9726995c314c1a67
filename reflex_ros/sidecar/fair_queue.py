# SPDX-License-Identifier: Apache-2.0
"""The order in which requests of several robots are served: round robin between them, first come first served within one.

A session is a name that its sender makes up, and one sender can make up thousands. So the sender (key or address) has one
turn in the round, and its sessions take turns in that.

Belongs to the event loop. It bounds how many requests are under way and how many wait, of one robot and of all; it refuses
those that would be late, before any work is done on them; and it measures how long a request takes, for Retry-After.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from reflex_core.concurrency.lru import Lru
from reflex_ros.sidecar.problems import Problem, fresh_id
from reflex_ros.sidecar.worker_threads import Job

WAITING_REQUESTS = 64
ROBOT_AT_A_TIME = 2  # of one robot: one is inferred while the next is decoded
SHARE = 0.1  # of the newest request in the running means
FIRST_GUESS_S = 0.05
LONGEST_RETRY_S = 60.0
MOST_COMING = 1024
COMING_S = 10.0  # after which a client that was refused has gone


@dataclass(frozen=True, slots=True)
class Line:
    """Whose requests wait in one line. name: of the robot, session or address; known: it names itself by a key or a session.

    sender: the key or address that named the session; "" where the name itself is one that cannot be made up.
    """

    name: str
    known: bool = False
    sender: str = ""

    @property
    def sent_by(self) -> str:
        """Whose turn in the round its requests take."""
        return self.sender or self.name


@dataclass(eq=False, slots=True)
class _Ticket:
    """One request that waits. deadline_s: when its answer is of no more use; granted: its turn, or why it gets none."""

    line: Line
    deadline_s: float
    granted: asyncio.Future[Problem | None]


@dataclass(frozen=True, slots=True)
class Turn:
    """One request under way. finish: called on the event loop once it is over, with when it began."""

    began_s: float
    finish: Callable[[float], None]

    def end(self, work: Job | None) -> None:
        """Pass the turn on: now, or once the worker is done, which cannot be stopped when its client leaves."""
        if work is None or work.over:
            self.finish(self.began_s)
            return
        loop = asyncio.get_running_loop()
        work.when_over(partial(_soon, loop, partial(self.finish, self.began_s)))


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call it on the loop, from a worker; at the end of the server there is none any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


@dataclass(slots=True)
class _Robot:
    waiting: deque[_Ticket] = field(default_factory=deque)
    under_way: int = 0


class FairQueue:
    """So many turns at a time, fair between robots."""

    def __init__(
        self,
        width: int,
        robot_waiting: Callable[[], int],
        count: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        most_waiting: int | None = None,
    ) -> None:
        """width: requests under way at a time. robot_waiting: bound of one known robot. count: called with the slug of a refusal.

        most_waiting: of all robots, those under way included; None: WAITING_REQUESTS.
        """
        self._width, self._robot_waiting, self._count = width, robot_waiting, count
        self._clock = clock
        self._most_waiting = WAITING_REQUESTS if most_waiting is None else most_waiting
        self._robots: dict[Line, _Robot] = {}  # in the order of their turns
        self._senders: dict[str, int] = {}  # so are these; how many lines each has
        # those that were refused and will come again: sent back at once, they would cost more than the work itself
        self._coming: Lru[Line, float] = Lru(MOST_COMING)
        self._coming_of: Counter[str] = Counter()  # by sender
        self._waiting = self._under_way = 0
        self._finished_s = 0.0
        self.pace_s = self.service_s = FIRST_GUESS_S

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._waiting

    @property
    def under_way(self) -> int:
        """Requests whose turn it is."""
        return self._under_way

    @property
    def full(self) -> bool:
        """Whether one more request would have to wait while as many as may be are here."""
        return self._waiting + self._under_way >= self._most_waiting

    async def turn(self, line: Line, deadline_s: float = math.inf) -> Turn | Problem:
        """Wait for a turn and return it, to be ended; or return why there is none: then nothing must be done.

        deadline_s: on this queue's clock, when an answer is of no more use.
        """
        problem = self._refusal(line, deadline_s)
        if problem is not None:
            return problem
        robot = self._robots.get(line)
        if robot is None:
            robot = self._robots[line] = _Robot()
            self._senders[line.sent_by] = self._senders.get(line.sent_by, 0) + 1
        ticket = _Ticket(line, deadline_s, asyncio.get_running_loop().create_future())
        robot.waiting.append(ticket)
        self._waiting += 1
        self._dispatch()
        try:
            problem = await ticket.granted
        except asyncio.CancelledError:
            self._give_up(ticket)
            raise
        return Turn(self._clock(), partial(self._finish, line)) if problem is None else problem

    def wait_s(self, line: Line) -> float:
        """Return how long a new request of a robot would wait for its answer."""
        own = self._robots.get(line)
        mine = len(own.waiting) if own is not None else 0
        of_sender, others = mine, Counter[str]()
        for name, other in self._robots.items():
            if name.sent_by != line.sent_by:
                others[name.sent_by] += len(other.waiting)
            elif name != line:
                of_sender += min(len(other.waiting), mine + 1)
        before = self._under_way + of_sender + sum(min(count, of_sender + 1) for count in others.values())
        return before * self.pace_s + self.service_s if before else 0.0

    def _refusal(self, line: Line, deadline_s: float) -> Problem | None:
        """Return why a new request does not wait, None where it does."""
        own = self._robots.get(line)
        mine = len(own.waiting) if own is not None else 0
        most = self._robot_waiting()
        if line.known and most and mine >= most:
            message = f"{mine} requests of this robot are waiting and {most} may be; send one at a time"
            return self._problem(line, 429, "robot_queue_full", message, mine * self.pace_s)
        wait_s = self.wait_s(line)
        left_s = deadline_s - self._clock()
        if wait_s > left_s:
            return self._late(line, wait_s, left_s)
        if self.full and not self._made_room(line, mine):
            message = f"{self._waiting} requests are waiting; try again"
            return self._problem(line, 503, "queue_full", message, self._waiting * self.pace_s)
        return None

    def _made_room(self, line: Line, mine: int) -> bool:
        """Send away the newest request of the sender that has most, or of the same sender's robot that has.

        It must have two more than the one that comes.
        """
        counts = Counter[str]()
        for name, robot in self._robots.items():
            counts[name.sent_by] += len(robot.waiting)
        most = max(counts, key=counts.__getitem__)
        if counts[most] >= counts[line.sent_by] + 2:
            mine = -1  # any of its lines
        else:
            most = line.sent_by
        lines = [name for name in reversed(self._robots) if name.sent_by == most]
        longest = max(lines, key=lambda name: len(self._robots[name].waiting), default=None)
        if longest is None or len(self._robots[longest].waiting) < mine + 2:
            return False
        waiting = self._robots[longest].waiting
        ticket = waiting.pop()
        self._waiting -= 1
        self._forget_idle(longest)
        message = f"{self._most_waiting} requests are waiting, most of them of this client; try again"
        if not ticket.granted.done():
            ticket.granted.set_result(
                self._problem(ticket.line, 503, "queue_full", message, len(waiting) * self.pace_s)
            )
        return True

    def _dispatch(self) -> None:
        """Give turns to those that wait, sender after sender and robot after robot, while there are any."""
        while self._under_way < self._width:
            line = self._next()
            if line is None:
                return
            robot = self._robots[line]
            self._others_first(line)
            ticket = robot.waiting.popleft()
            self._waiting -= 1
            if ticket.granted.done():  # its client has gone
                self._forget_idle(line)
                continue
            left_s = ticket.deadline_s - self._clock()
            if left_s <= 0.0 or (self._under_way and self.service_s > left_s):
                ticket.granted.set_result(self._late(line, self.service_s, left_s))
                self._forget_idle(line)
                continue
            robot.under_way += 1
            self._under_way += 1
            self._came(line)
            ticket.granted.set_result(None)

    def _next(self) -> Line | None:
        """Return whose turn it is, None where none may go."""
        ready: dict[str, Line] = {}
        for line, robot in self._robots.items():
            if line.sent_by not in ready and self._may_go(line, robot):
                ready[line.sent_by] = line
        return next((ready[sender] for sender in self._senders if sender in ready), None) if ready else None

    def _others_first(self, line: Line) -> None:
        """Put a robot and its sender at the end of the round."""
        self._robots[line] = self._robots.pop(line)
        self._senders[line.sent_by] = self._senders.pop(line.sent_by)

    def _may_go(self, line: Line, robot: _Robot) -> bool:
        return bool(robot.waiting) and not (line.known and robot.under_way >= ROBOT_AT_A_TIME)

    def _finish(self, line: Line, began_s: float) -> None:
        """End a turn, measure it, and pass it on."""
        now_s = self._clock()
        self.service_s += SHARE * (now_s - began_s - self.service_s)
        self.pace_s += SHARE * (now_s - max(began_s, self._finished_s) - self.pace_s)
        self._finished_s = now_s
        self._others_first(line)  # behind those that came meanwhile
        robot = self._robots[line]
        robot.under_way -= 1
        self._under_way -= 1
        self._forget_idle(line)
        self._dispatch()

    def _give_up(self, ticket: _Ticket) -> None:
        """Take a request out whose client has gone, or pass its turn on if it has just got one."""
        robot = self._robots.get(ticket.line)
        if robot is None:
            return
        if ticket in robot.waiting:
            robot.waiting.remove(ticket)
            self._waiting -= 1
        elif ticket.granted.done() and not ticket.granted.cancelled() and ticket.granted.result() is None:
            robot.under_way -= 1
            self._under_way -= 1
            self._dispatch()
        self._forget_idle(ticket.line)

    def _forget_idle(self, line: Line) -> None:
        robot = self._robots.get(line)
        if robot is not None and not robot.waiting and not robot.under_way:
            del self._robots[line]
            self._senders[line.sent_by] -= 1
            if not self._senders[line.sent_by]:
                del self._senders[line.sent_by]

    def _late(self, line: Line, wait_s: float, left_s: float) -> Problem:
        message = f"the answer would take about {wait_s * 1e3:.0f} ms, and the request's deadline is in {max(left_s, 0.0) * 1e3:.0f} ms"
        return self._problem(line, 503, "deadline-unreachable", message, wait_s)

    def _problem(self, line: Line, status: int, slug: str, message: str, retry_s: float) -> Problem:
        """Return a refusal that is counted. Retry-After counts whole seconds; `retry_after_ms` is what was measured.

        Not sooner than all that were refused could be served once in their turns: so many come again.
        """
        self._count(slug)
        now_s = self._clock()
        self._came(line)
        self._coming_of[line.sent_by] += 1
        if (dropped := self._coming.put(line, now_s)) is not None:
            self._no_longer(dropped[0])
        while (oldest := self._coming.oldest()) is not None and now_s - oldest > COMING_S:
            self._no_longer(self._coming.pop_oldest()[0])
        own = self._coming_of[line.sent_by]
        coming = sum(min(count, own) for count in self._coming_of.values())
        retry_s = min(max(retry_s, self.pace_s, coming * self.pace_s), LONGEST_RETRY_S)
        return Problem(status, slug, message, fresh_id(), retry_s, {"retry_after_ms": round(retry_s * 1e3)})

    def _came(self, line: Line) -> None:
        if self._coming.pop(line) is not None:
            self._no_longer(line)

    def _no_longer(self, line: Line) -> None:
        self._coming_of[line.sent_by] -= 1
        if not self._coming_of[line.sent_by]:
            del self._coming_of[line.sent_by]
