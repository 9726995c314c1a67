# SPDX-License-Identifier: Apache-2.0
"""The deadline: an answer is there when its budget is spent, from the inference or in its place."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from reflex_core.chunks.last_good import Good, LastGood, RecentDurations, key_of
from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.concurrency.worker_pool import WorkerPool
from reflex_core.errors import CancelledError, InferenceError
from reflex_core.metrics.counters import Counts
from reflex_core.reports import Fallback, GuardReport
from reflex_core.text.rate_limit import RateLimit
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, ActionChunk, Floats, Request, Served
from reflex_core.wedges.wedge import Proceed

DEADLINE_EXCEEDED = "deadline-exceeded"
KEPT, FAILED, GIVEN_UP = "kept", "failed", "given_up"
LONGEST_S = 10.0  # for which a late inference may go on
FIRST_CHUNK_S = 0.5  # for which a caller that has nothing at all waits for its first chunk
MOST_WORKERS = 32
RESERVE_MS = 1.0  # of the budget, for what follows: the guard, the reply, waking the threads that send it
RESERVE_NS = int(RESERVE_MS * 1e6)
MOST_RESERVED = 0.1  # of a budget so short that a millisecond of it is dear

log = logging.getLogger(__name__)


def reserve_ms(budget_ms: float) -> float:
    """Return how long before the end of the budget the answer must be there, for the reply to be in time."""
    return min(RESERVE_MS, MOST_RESERVED * budget_ms)


class Late:
    """One inference that may outlive its deadline.

    missed: its caller no longer waits for it. ended: the worker has finished it, and notifies waiters through `over`.
    """

    def __init__(self, request: Request) -> None:
        self.cancellation = request.cancellation or Cancellation()
        self.key = key_of(request)
        self.ended = self.left = self.missed = False
        self.began_s = time.monotonic()  # waiting for a worker counts: the next one will wait as well
        self.over = threading.Event()
        self.overdue: threading.Timer | None = None


class Deadline:
    """Wait for the inference until the budget, counted from receipt, is all but spent; then cancel it and answer.

    The fallback is the episode's last good chunk without the rows that are over, so that row 0 is the next one as in any
    chunk; once that is spent or older than `max_age_ms`, a hold. `budget_ms` 0: none but a request's own.

    A late inference whose chunk will be needed (there is no fallback, or it has reached half of `max_age_ms`) is not
    cancelled but left to finish: a model that is always too slow still makes a last good chunk. One at a time, and for as
    long as its chunk could be a fallback, LONGEST_S at most. A caller without a chunk and a position, whose first chunk is
    being finished so, is better served by that chunk a moment late than by another error: it waits for it, for
    FIRST_CHUNK_S at most.
    While none of the newest inferences would have been in time and there is a last good chunk, callers do not wait for the
    next one: the answer comes at once, and an inference runs only where its chunk will be needed. That one also shows when
    the model is quick again.
    prototype: fields of a hold for a request besides its position; its chunk gives the names, dt_s and number of rows.
    fallbacks: a counter for LAST_KNOWN_GOOD and one for HOLD. finished: one for each of KEPT, FAILED and GIVEN_UP, of
    inferences that were left to finish.
    """

    def __init__(
        self,
        budget_ms: Callable[[], float],
        max_age_ms: Callable[[], float],
        hold_position: Callable[[Request], Floats | None],
        prototype: Callable[[Request], Served],
        misses: Counts,
        fallbacks: Mapping[str, Counts],
        holds: Counts,
        most_workers: int = MOST_WORKERS,
        finished: Mapping[str, Counts] | None = None,
    ) -> None:
        self._budget_ms, self._max_age_ms = budget_ms, max_age_ms
        self._hold_position, self._prototype = hold_position, prototype
        self._misses, self._fallbacks, self._holds = misses, fallbacks, holds
        self._good = LastGood()
        self._durations = RecentDurations()
        self._workers = WorkerPool(most_workers, "inference")
        self._miss_log, self._failure_log = RateLimit(), RateLimit()
        self._finished = finished or {}
        self._late = 0
        self._missed = 0
        self._finishing: Late | None = None
        self._closed = False
        self._counting = threading.Lock()

    @property
    def misses(self) -> int:
        """How many requests it had to answer itself."""
        return self._missed

    @property
    def late(self) -> int:
        """How many inferences ended after their callers had left: cancelled, failed or finished."""
        return self._late

    def forget(self, episode_id: str | None) -> None:
        """Drop the newest chunk of an episode that the robot does not follow: it is no fallback for the next one."""
        self._good.forget(episode_id or "")

    def begins(self, episode_id: str | None, robot: str = "") -> None:
        """Drop the chunks of an earlier episode of the same name; robot: whose, "" for any."""
        self._good.begins(episode_id or "", robot)

    @property
    def busy(self) -> int:
        """How many inferences run now, including those without a waiting caller."""
        return self._workers.busy

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        deadline_ns = self._deadline_ns(request)
        if deadline_ns is None:
            return proceed(request)
        left_s = (deadline_ns - time.monotonic_ns()) * 1e-9
        if left_s <= 0:
            aside = self._infer_aside(request, proceed)
            return self._fall_back(request, "its budget was spent before inference began", aside)
        if self._durations.fastest_s(request.max_steps) > left_s and self._last_good(request) is not None:
            aside = self._infer_aside(request, proceed)
            return self._fall_back(request, "none of the newest inferences was as quick as its budget", aside)
        late = Late(request)
        bounded = replace(request, deadline_ns=deadline_ns, cancellation=late.cancellation)
        task = self._workers.start(lambda: self._infer(bounded, proceed, late))
        if task is None:
            return self._fall_back(request, "every worker is busy with an inference that does not stop")
        if task.wait((deadline_ns - time.monotonic_ns()) * 1e-9):
            served = task.outcome()
            # who waits may be given a processor long after the inference has ended; its chunk is the last good one by now
            if time.monotonic_ns() <= deadline_ns + RESERVE_NS:
                return served
            return self._fall_back(request, "the answer was there and this thread was not given a processor")
        late.missed = True
        if not self._left_to_finish(request, late):
            late.cancellation.cancel()
        return self._fall_back(request, "inference took longer", late)

    def _deadline_ns(self, request: Request) -> int | None:
        """Return when the answer must be there: at the end of the budget, or earlier as the request says; None: no deadline."""
        budget_ms = self._budget_ms()
        if budget_ms <= 0:
            return request.deadline_ns
        deadline_ns = request.received_ns + int((budget_ms - reserve_ms(budget_ms)) * 1e6)
        return deadline_ns if request.deadline_ns is None else min(deadline_ns, request.deadline_ns)

    def _infer_aside(self, request: Request, proceed: Proceed) -> Late:
        """Start an inference without a waiting caller: a first chunk for those whose requests always come over budget."""
        late = Late(request)
        late.missed = True
        unbounded = replace(request, deadline_ns=None, cancellation=late.cancellation)
        left = self._left_to_finish(request, late)
        if left and self._workers.start(lambda: self._infer(unbounded, proceed, late)) is None:
            self._ended(late, FAILED)
        return late

    def close(self) -> None:
        """Cancel what is left to finish: its policy is closed."""
        with self._counting:
            self._closed, finishing = True, self._finishing
        if finishing is not None:
            finishing.cancellation.cancel()

    def _left_to_finish(self, request: Request, late: Late) -> bool:
        """Leave the inference running if its chunk will be needed and no other is being waited for."""
        max_age_s = min(self._max_age_ms() * 1e-3, LONGEST_S)
        age_s = (time.monotonic_ns() - request.received_ns) * 1e-9
        if age_s >= max_age_s or not self._needed(request):
            return False
        with self._counting:
            if late.ended:
                return True
            if self._finishing is not None or self._closed:
                return False
            self._finishing, late.left = late, True
            late.overdue = threading.Timer(max_age_s - age_s, late.cancellation.cancel)
            late.overdue.daemon = True
            late.overdue.start()
        return True

    def _needed(self, request: Request) -> bool:
        """Return True when there is no lasting fallback: the next request, or the one after, needs a newer chunk."""
        if not self._may_fall_back(request):
            return False
        good, now_ns = self._good.find(request), time.monotonic_ns()
        if good is None or self._continued(good, request, now_ns) is None:
            return True
        return (now_ns - good.received_ns) * 1e-6 >= self._max_age_ms() / 2

    def _may_fall_back(self, request: Request) -> bool:
        """Return False where no chunk can be the caller's own, or might be another robot's and there is a position to hold at."""
        key = key_of(request)
        return key is not None and not (key.anonymous and self._hold_position(request) is not None)

    def _infer(self, request: Request, proceed: Proceed, late: Late) -> Served:
        outcome = FAILED
        try:
            served = proceed(request)
            self._durations.add(request.max_steps, time.monotonic() - late.began_s)
            # late or not: it is the newest that is known of its episode
            outcome = KEPT if self._good.remember(request, served) else FAILED
            return served
        except Exception as error:
            if late.cancellation.cancelled and isinstance(error, CancelledError):
                outcome = GIVEN_UP
                if late.missed:
                    self._durations.add_cut_off(request.max_steps, time.monotonic() - late.began_s)
                raise
            self._durations.clear()
            if late.cancellation.cancelled or late.left:
                self._log_late(request, error)
            raise
        finally:
            self._ended(late, outcome)

    def _ended(self, late: Late, outcome: str) -> None:
        with self._counting:
            late.ended = True
            if late.left or late.cancellation.cancelled:
                self._late += 1
            if late.left:
                self._finishing = None
        late.over.set()
        if not late.left:
            return
        if late.overdue is not None:
            late.overdue.cancel()
        if outcome in self._finished:
            self._finished[outcome].inc()

    def _log_late(self, request: Request, error: Exception) -> None:
        """Log a late failure, as its caller has left."""
        if times := self._failure_log.times():
            name = request.request_id
            log.warning("%d late inferences failed, the last for request %s: %s", times, name, error)

    def _fall_back(self, request: Request, reason: str, own: Late | None = None) -> Served:
        self._misses.inc()
        with self._counting:
            self._missed += 1
        if times := self._miss_log.times():
            name = request.request_id
            log.warning("the deadline was missed %d times, the last by request %s: %s", times, name, reason)
        served = self._standing_in(request)
        if served is None and self._hold_position(request) is None and self._first_chunk_came(request, own):
            served = self._standing_in(request)
        if served is None:
            served = self._held(request)
        self._fallbacks[served.chunk.source].inc()
        return served

    def _last_good(self, request: Request) -> Served | None:
        good = self._good.find(request) if self._may_fall_back(request) else None
        return None if good is None else self._continued(good, request, time.monotonic_ns())

    def _standing_in(self, request: Request) -> Served | None:
        """Return the last good answer in place of the request's own, and remember from which row on."""
        good = self._good.find(request) if self._may_fall_back(request) else None
        served = None if good is None else self._continued(good, request, time.monotonic_ns())
        if good is not None and served is not None:
            self._good.continues(good, request, len(good.served.chunk.actions) - len(served.chunk.actions))
        return served

    def _first_chunk_came(self, request: Request, own: Late | None) -> bool:
        """Wait for the chunk that an earlier request of this caller left to finish; False where there is none to wait for."""
        finishing = self._finishing
        if finishing is None or finishing is own or finishing.key != key_of(request):
            return False
        return finishing.over.wait(FIRST_CHUNK_S)

    def _continued(self, good: Good, request: Request, now_ns: int) -> Served | None:
        """Return the good answer from the elapsed row on; None when it is too old or nothing is left of it."""
        age_ms = (now_ns - good.received_ns) * 1e-6
        if age_ms > self._max_age_ms():
            return None
        chunk = good.served.chunk
        elapsed = good.elapsed_rows(request)
        if elapsed < 0:
            return None
        actions = chunk.actions[elapsed:]
        waited_s = (now_ns - request.received_ns) * 1e-9
        if chunk.dt_s > 0 and len(actions) * chunk.dt_s <= waited_s:
            return None
        return replace(
            good.served.not_inferred(),
            chunk=replace(chunk, actions=actions, source=LAST_KNOWN_GOOD),
            raw_actions=good.served.raw_actions[elapsed:],
            request_id=request.request_id,
            fallback=Fallback(True, age_ms, good.served.request_id),
        )

    def _held(self, request: Request) -> Served:
        prototype = self._prototype(request)
        position = self._hold_position(request)
        if position is None:
            raise InferenceError(
                "the deadline has passed, and neither a chunk of this episode nor a position to hold is known yet; try again",
                DEADLINE_EXCEEDED,
            )
        self._holds.inc()
        actions = np.tile(position.astype(np.float32), (len(prototype.chunk.actions), 1))
        return replace(
            prototype,
            chunk=ActionChunk(actions, prototype.chunk.names, prototype.chunk.dt_s, source=HOLD),
            raw_actions=actions,
            request_id=request.request_id,
            episode_id=request.episode_id,
            seed=request.seed or 0,
            inference=prototype.inference.not_run(),
            guard=GuardReport(),
            fallback=Fallback(deadline_exceeded=True),
            hold_reason="deadline",
        )
