# SPDX-License-Identifier: Apache-2.0
"""Micro-batching: requests that wait for the network anyway are run as one batch, each answer as near to its single run as stated.

No request waits for a batch to fill, and none is overtaken: the one that has the turn takes along those behind it that may share its run.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.concurrency.fifo_lock import FifoLock
from reflex_core.errors import CancelledError, ConfigurationError, InferenceError
from reflex_core.policy.cuda_graph import StaticSession
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.layouts import Layout
from reflex_core.policy.prefix_cache import NOTHING_KEPT, Found
from reflex_core.policy.providers import BatchMetrics
from reflex_core.policy.sampler import PLAIN, Sampling
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import Floats

FLAG = "--max-batch"
TOLERANCE = 1e-4  # of the largest number of the single run's chunk, or of 1, in the network's own units
# runs of a size at warm-up, with other requests in its rows each time; the quickest counts, as others may use the machine
TRIALS = 3
FEWEST_REQUESTS = 4  # that are compared, so that every input differs between some of them
# of the time of single runs that a batch may take: those who share one also come back at the same moment, while the network waits
WORTH = 0.8
# after a batch that failed: a robot that fails every batch must not cost the others two runs each
REST_NS = 10**9
SHARE = 0.1  # of the newest run in the running mean of a size
SHRINK = 0.98  # of a mean that kept a batch small: one slow run must not do so for ever

GUIDED, ADAPTIVE, PREFIX_CACHE = "guided", "adaptive_steps", "prefix_cache"
DIFFERS, DEADLINE, RESTS = "differs", "deadline", "after_failure"
FAILED, NOT_FINITE, OVER_TOLERANCE, NO_GAIN = "failed", "not_finite", "over_tolerance", "no_gain"

log = logging.getLogger(__name__)


class Unmeasured:
    """BatchMetrics that counts nothing."""

    def ran(self, requests: int) -> None:
        """Do nothing."""

    def alone(self, reason: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run of the graphs made, for one request or several.

    normalised: (requests, horizon, width) float32. entered, prefixed, denoised: when it began, when its prefix and when its chunk
    was there, in seconds of perf_counter. cache: what the episode cache reports. batch: requests that shared the run.
    """

    normalised: Floats
    steps: int
    entered: float
    prefixed: float
    denoised: float
    cache: Found = NOTHING_KEPT
    batch: int = 1

    @property
    def took_s(self) -> float:
        """How long it took."""
        return self.denoised - self.entered


# arrays with one row per request, noise (draws * requests, horizon, width); the caller has the turn
Run = Callable[[Arrays, Floats, Sampling, Cancellation | None], Ran]


@dataclass(eq=False, slots=True)
class Waiting:
    """One request that waits for the network.

    key: requests of the same one may share a run; None: it runs alone. deadline_ns: on the monotonic clock. leave: ends the wait
    for the turn, because the request was cancelled or because another request's turn has answered it. ran: that answer.
    """

    arrays: Arrays
    noise: Floats
    sampling: Sampling
    cancellation: Cancellation | None = None
    key: Hashable = None
    deadline_ns: int | None = None
    leave: Cancellation = field(default_factory=Cancellation)
    ran: Ran | None = None

    @property
    def cancelled(self) -> bool:
        """True when its caller no longer waits."""
        return self.cancellation is not None and self.cancellation.cancelled


@dataclass(frozen=True, slots=True)
class Batching:
    """What micro-batching does, for /config.

    max_batch: as set. sizes: batches that are run; () where `off` says why there are none. largest_difference: between a batch
    and its single runs at warm-up, as a share of the largest number of the single run's chunk, or of 1.
    """

    max_batch: int
    sizes: tuple[int, ...]
    largest_difference: float
    off: str


def sizes_up_to(most: int) -> tuple[int, ...]:
    """Return the batches that are checked and run: the powers of two, and the largest."""
    return tuple(sorted({*(2**power for power in range(1, most.bit_length()) if 2**power <= most), most}))


def require_batches(layout: Layout, where: str, max_batch: int) -> None:
    """Raise ConfigurationError where the graphs cannot run several requests at once.

    The flow time may have one value for all: every request of a batch is at the same step.
    """
    time_name = layout.contract.flow_names.get("time")
    for session in layout.sessions:
        if isinstance(session, StaticSession):
            raise ConfigurationError(
                f"{where}: {FLAG} {max_batch} and --cuda-graphs exclude each other: a captured graph has one batch size; leave one out",
                "batch-cuda-graphs",
            )
        for name, info in session.inputs.items():
            if name != time_name and (not info.shape or info.shape[0] is not None):
                raise ConfigurationError(
                    f"{where}: {FLAG} {max_batch} needs graphs with a dynamic batch axis, and the input '{name}' of"
                    f" {session.path.name} has shape {info.shape}; leave the flag out, or export it with one",
                    "batch-fixed",
                )


def _key_of(one: Waiting) -> Hashable:
    """Return what requests must have in common to share a run: the steps, and the shape of every input."""
    return one.sampling.steps, tuple((name, array.shape[1:]) for name, array in one.arrays.items())


def _deadline_ns(one: Waiting) -> int | None:
    """Return when the answer must be there: at the deadline, or as long as it is of use to its caller."""
    if one.sampling.context is None:
        return None
    request = one.sampling.context.request
    return min((at for at in (request.deadline_ns, request.useful_until_ns) if at is not None), default=None)


def why_alone(sampling: Sampling, *, cached: bool) -> str:
    """Return why a request never shares a run; empty where it may.

    cached: it looks into the prefix cache of its episode.
    """
    if sampling.guidance is not None:
        return GUIDED
    if sampling.adaptive is not None or sampling.watch is not None:
        return ADAPTIVE
    return PREFIX_CACHE if cached else ""


class MicroBatches:
    """The turns of one policy's network, with batches. Thread-safe.

    A batch is made by the thread of the request whose turn it is. Where a batch fails, or gives NaN or Inf for any of its
    requests, each of them runs alone, in its own turn, and none is batched for a while. A cancelled request leaves its batch,
    which goes on for the others; it is terminated once all have left.
    """

    def __init__(
        self,
        turns: FifoLock,
        run: Run,
        max_batch: int,
        metrics: BatchMetrics | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Run nothing together until `verify` has found that batches are right."""
        self._turns, self._run, self._max_batch = turns, run, max_batch
        self._metrics: BatchMetrics = metrics or Unmeasured()
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._waiting: list[Waiting] = []
        self._took_s: dict[int, float] = {}  # by number of requests
        self._rests_until_ns = 0
        self._log = RateLimitedLog(log)
        self.state = Batching(max_batch, (), 0.0, "not checked yet: the policy has not been warmed up")

    def answer(self, one: Waiting, alone: Callable[[], Ran], why: str = "") -> Ran:
        """Return what the network makes of a request, once it is its turn or in the turn of one before it.

        alone: runs it by itself. why: it never shares a run (`why_alone`); empty where it may.
        Raises what `alone` raises, and CancelledError.
        """
        if why:
            self._metrics.alone(why)
        elif self.state.sizes:
            one.key, one.deadline_ns = _key_of(one), _deadline_ns(one)
        with self._lock:
            self._waiting.append(one)
        heard: AbstractContextManager[None] = nullcontext()
        if one.cancellation is not None:
            heard = one.cancellation.calling(one.leave.cancel)
        try:
            with heard, self._turns.turn(one.leave):
                if one.ran is None:
                    self._take_turn(one, alone)
        except CancelledError:
            if one.ran is None:
                raise
        finally:
            with self._lock:
                if one in self._waiting:
                    self._waiting.remove(one)
        assert one.ran is not None
        return one.ran

    def verify(self, trial: Callable[[int], tuple[Arrays, Floats]]) -> tuple[str, ...]:
        """Compare batches with single runs of the same requests; from then on run the sizes that save time.

        The caller has the turn. trial: arrays and noise of a request, another one for each number. Returns notes for the log:
        none when every row of every batch is within TOLERANCE of its single run and a size saves time, else why batching is off.
        """
        self.state = Batching(self._max_batch, (), 0.0, "it is being checked")
        made = [Waiting(*trial(number), PLAIN) for number in range(max(self._max_batch, FEWEST_REQUESTS))]
        # a tokenizer that does not pad makes inputs of several shapes, which share no run in service either
        requests = [one for one in made if _key_of(one) == _key_of(made[0])]
        largest, sizes = 0.0, sizes_up_to(self._max_batch)
        try:
            single = [self._together([one], None).normalised for one in requests]
            self._compared(requests, single, 1)
        except InferenceError as error:
            return self._off(FAILED, f"a single run fails: {error}")
        for size in sizes:
            try:
                found = self._compared(requests, single, size)
            except (InferenceError, ValueError) as error:
                return self._off(FAILED, f"a batch of {size} fails: {error}")
            if not found <= TOLERANCE:
                words = f"a batch of {size} differs from single runs by {found:.1e} of the largest number, {TOLERANCE:g} may be"
                return self._off(OVER_TOLERANCE, words)
            largest = max(largest, found)
        worth = tuple(size for size in sizes if self._took_s[size] <= WORTH * size * self._took_s[1])
        if not worth:
            took = ", ".join(f"{size}: {self._took_s[size] * 1e3:.2f} ms" for size in (1, *sizes))
            return self._off(
                NO_GAIN, f"no batch takes less than {WORTH:.0%} of its single runs' time ({took})"
            )
        self.state = Batching(self._max_batch, worth, largest, "")
        return ()

    def _compared(self, requests: Sequence[Waiting], single: Sequence[Floats], size: int) -> float:
        """Return the largest difference of batches of a size from single runs; learn how long they take."""
        largest, took_s = 0.0, math.inf
        for first in range(TRIALS):
            rows = [(first + row) % len(requests) for row in range(size)]
            ran = self._together([requests[number] for number in rows], None)
            differences = [
                _difference(ran.normalised[row : row + 1], single[number]) for row, number in enumerate(rows)
            ]
            largest, took_s = float(np.max([largest, *differences])), min(took_s, ran.took_s)
        self._took_s[size] = took_s
        return largest

    def _off(self, reason: str, why: str) -> tuple[str, ...]:
        self.state = Batching(self._max_batch, (), 0.0, why)
        self._metrics.alone(reason)
        return (f"{FLAG} {self._max_batch} is off: {why}",)

    def _take_turn(self, one: Waiting, alone: Callable[[], Ran]) -> None:
        """Answer the request whose turn it is, and those that may share its run."""
        group = self._group(one)
        if len(group) > 1 and self._ran_together(group):
            return
        one.ran = alone()
        if self.state.sizes:
            self._metrics.ran(1)
            if one.key is not None:
                self._measured(1, one.ran.took_s)

    def _group(self, first: Waiting) -> list[Waiting]:
        """Return the request and those that go with it, taken out of those that wait."""
        now_ns = self._clock_ns()
        with self._lock:
            others = [one for one in self._waiting if one is not first and not one.cancelled]
            if not others or first.key is None or not self.state.sizes:
                return [first]
            if now_ns < self._rests_until_ns:
                self._metrics.alone(RESTS)
                return [first]
            same = [first]
            for one in others[: self.state.sizes[-1] - 1]:
                if one.key != first.key:
                    self._metrics.alone(DIFFERS)
                    break
                same.append(one)
            fitting = [size for size in self.state.sizes if size <= len(same)]
            kept = [size for size in fitting if self._in_time(same[:size], now_ns)]
            if kept != fitting:
                self._metrics.alone(DEADLINE)
                for size in set(fitting) - set(kept):
                    self._took_s[size] *= SHRINK
            group = same[: kept[-1]] if kept else [first]
            self._waiting = [one for one in self._waiting if one not in group]
            return group

    def _in_time(self, group: Sequence[Waiting], now_ns: int) -> bool:
        """Return whether a batch keeps every deadline in it that one run after another would keep."""
        took_ns, one_ns = self._took_s[len(group)] * 1e9, self._took_s[1] * 1e9
        return all(
            one.deadline_ns is None
            or now_ns + took_ns <= one.deadline_ns
            or now_ns + one_ns * (place + 1) > one.deadline_ns
            for place, one in enumerate(group)
        )

    def _ran_together(self, group: list[Waiting]) -> bool:
        """Answer them all by one run; False where it failed, and each of them is to run alone."""
        try:
            with _cancelled_by_all(group) as cancellation:
                ran = self._together(group, cancellation)
            self._measured(len(group), ran.took_s)
        except CancelledError:
            raise  # all of them have left, the one whose turn it is among them
        except Exception as error:
            self._to_run_alone(group, FAILED, f"{type(error).__name__}: {error}")
            return False
        if not np.isfinite(ran.normalised).all():
            self._to_run_alone(group, NOT_FINITE, "it gave NaN or Inf")
            return False
        self._metrics.ran(len(group))
        for row, one in enumerate(group):
            # rows of their own: a robot's chunk must not keep those of all others in memory
            own = ran.normalised[row : row + 1].copy()
            one.ran = Ran(own, ran.steps, ran.entered, ran.prefixed, ran.denoised, batch=len(group))
            one.leave.cancel()
        return True

    def _to_run_alone(self, group: Sequence[Waiting], reason: str, why: str) -> None:
        self._rests_until_ns = self._clock_ns() + REST_NS
        for one in group:
            one.key = None
            self._metrics.alone(reason)
        self._log(
            logging.WARNING,
            reason,
            "a batch of %d requests failed, so each runs alone: %s",
            len(group),
            why,
        )

    def _together(self, group: Sequence[Waiting], cancellation: Cancellation | None) -> Ran:
        """Run requests together. Raises InferenceError, CancelledError; ValueError for arrays that are not of one row each."""
        arrays = {name: np.concatenate([one.arrays[name] for one in group]) for name in group[0].arrays}
        # in the order of the draws: (draws, requests, horizon, width)
        noise = np.stack([one.noise for one in group], axis=1).reshape(-1, *group[0].noise.shape[1:])
        ran = self._run(arrays, noise, Sampling(group[0].sampling.steps), cancellation)
        if len(ran.normalised) != len(group):
            raise InferenceError(f"a run of {len(group)} requests gave {len(ran.normalised)} chunks")
        return ran

    def _measured(self, requests: int, took_s: float) -> None:
        self._took_s[requests] += SHARE * (took_s - self._took_s[requests])


@contextmanager
def _cancelled_by_all(group: Sequence[Waiting]) -> Iterator[Cancellation]:
    """Give a cancellation that is called once every request of the batch is cancelled."""
    shared = Cancellation()

    def one_left() -> None:
        if all(one.cancelled for one in group):
            shared.cancel()

    with ExitStack() as heard:
        for one in group:
            if one.cancellation is not None:
                heard.enter_context(one.cancellation.calling(one_left))
        yield shared


def _difference(batched: Floats, single: Floats) -> float:
    """Return the largest difference of two chunks, as a share of the single run's largest number, or of 1; NaN where one has it."""
    largest = float(np.abs(batched.astype(np.float64) - single).max(initial=0.0))
    return largest / max(1.0, float(np.abs(single).max(initial=0.0)))
