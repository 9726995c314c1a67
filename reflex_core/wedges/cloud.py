# SPDX-License-Identifier: Apache-2.0
"""The cloud: what the local policy cannot answer, another server may, inside the time that is left."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

import numpy as np

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.concurrency.worker_pool import WorkerPool
from reflex_core.errors import CancelledError, InferenceError, ObservationError
from reflex_core.metrics.latency_window import LatencyWindow
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.cloud_server import (
    BREAKER_OPEN,
    INTERNAL,
    REASONS,
    TIMEOUT,
    CloudAnswer,
    CloudBreaker,
    CloudError,
    CloudServer,
    Expected,
    believed,
)
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import CLOUD, ActionChunk, Floats, Request, Served
from reflex_core.wedges.wedge import Proceed

RETURN_S = 0.002  # what the way back through the outer wedges may take
LEAST_S = 0.001
THREADS = 64  # as many as requests that the server lets wait
WINDOW, WINDOW_S = 32, 60.0

log = logging.getLogger(__name__)


class _NotFiniteError(InferenceError):
    """The local policy answered with NaN or Inf: a failure, but when the cloud cannot help the guard decides on it."""

    def __init__(self, served: Served) -> None:
        super().__init__("the model gave NaN or Inf values", "non-finite-actions")
        self.served = served


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one side of the race ended; neither field is set when the cloud had nothing to give."""

    served: Served | None = None
    error: BaseException | None = None
    local: bool = False


class Cloud:
    """Request another server's answer when `proceed` fails or does not return in time. Without one: as if there were no cloud.

    server: the other one. expected: what its chunk must be. timeout_ms: the longest wait where the request has no
    deadline. hedge_ms: request it as well once the local policy has not answered for this long; 0 never.
    """

    def __init__(
        self,
        server: CloudServer,
        expected: Expected,
        *,
        timeout_ms: float,
        hedge_ms: float,
        metrics: Metrics,
        embodiment: str,
        breaker: CloudBreaker | None = None,
    ) -> None:
        self._server = server
        self._expected = expected
        self._timeout_s = timeout_ms / 1e3
        self._hedge_s = hedge_ms / 1e3
        self._breaker = breaker or CloudBreaker(server.ready)
        self._round_trips = _RoundTrips()
        self._log = RateLimitedLog(log)
        # apart: policies that hang for good must not take the threads that would ask for help
        self._locals, self._askers = WorkerPool(THREADS, "reflex-local"), WorkerPool(THREADS, "reflex-cloud")
        self._used = metrics.fallback_invocations.labels(embodiment, CLOUD)
        self._failures = {reason: metrics.cloud_failures.labels(reason) for reason in REASONS}

    @property
    def reachable(self) -> bool:
        """False while the breaker is open: nothing is sent."""
        return self._breaker.closed

    def close(self) -> None:
        """End the health probe and drop the connections."""
        self._breaker.stop()
        self._server.close()

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        if request.forwarded:  # it comes from another server's cloud wedge: never in circles
            return proceed(request)
        try:
            served = self._any_answer(request, lambda attempt: _finite(proceed(attempt)))
        except _NotFiniteError as error:
            return error.served
        if served.chunk.source == CLOUD:
            self._used.inc()
        return served

    def _any_answer(self, request: Request, proceed: Proceed) -> Served:
        ask_at_s = self._ask_at_s(request) if self._breaker.closed else math.inf
        if ask_at_s < math.inf:
            return self._raced(request, proceed, ask_at_s)
        try:
            return proceed(request)
        except Exception as error:
            return self._instead(request, error)

    def _ask_at_s(self, request: Request) -> float:
        """Return when to request it although the local policy has not failed: seconds of the monotonic clock, inf for never."""
        received_s = request.received_ns * 1e-9
        hedge_s = received_s + self._hedge_s if self._hedge_s > 0 else math.inf
        if request.deadline_ns is None:
            return hedge_s
        deadline_s = request.deadline_ns * 1e-9 - RETURN_S
        half_s = (deadline_s - received_s) / 2
        usual_s = self._round_trips.usual_s(min(half_s, self._timeout_s))
        if usual_s > half_s:  # so far away that nearly every request would have to be sent twice
            return hedge_s
        return min(hedge_s, deadline_s - usual_s)

    def _raced(self, request: Request, proceed: Proceed, ask_at_s: float) -> Served:
        """Return the first valid answer: of the local policy, begun now, or of the cloud, requested when that fails or is late."""
        with _race(request) as race:
            if not race.start(self._locals, proceed, local=True):
                hangs = f"the policy still hangs on {THREADS} earlier requests"
                return self._instead(request, InferenceError(hangs, "local-hang"))
            first = race.next(ask_at_s - time.monotonic())
            if first is None:
                race.start(self._askers, self._answer, local=False)
                return race.first_valid()
        if first.error is not None:
            return self._instead(request, first.error)
        assert first.served is not None  # only the cloud may have nothing to give
        return first.served

    def _instead(self, request: Request, error: BaseException) -> Served:
        """Return the cloud's answer to what failed here, or raise the failure itself."""
        cancelled = request.cancellation is not None and request.cancellation.cancelled
        if cancelled or isinstance(error, ObservationError) or not isinstance(error, Exception):
            raise error
        served = self._answer(request)
        if served is None:
            raise error
        text = "the policy failed (%.200r): the cloud answered request %.80r"
        self._log(logging.WARNING, "answered", text, error, request.request_id)
        return served

    def _answer(self, request: Request) -> Served | None:
        """Return the cloud's answer within the time that is left; None when there is none."""
        if not self._breaker.closed:
            self._failures[BREAKER_OPEN].inc()
            return None
        began_s = time.monotonic()
        left_s = self._timeout_s
        if request.deadline_ns is not None:
            left_s = request.deadline_ns * 1e-9 - RETURN_S - began_s
        try:
            if left_s < LEAST_S:
                raise CloudError(TIMEOUT, "no time is left to ask the cloud")
            answer = self._server.ask(request, left_s)
            actions = believed(answer, self._expected)
        except (CancelledError, ObservationError):
            raise
        except CloudError as error:
            self._failed(request, error, left_s)
            return None
        except Exception as error:
            text = "cloud: request %.80r could not be sent"
            self._log(logging.ERROR, INTERNAL, text, request.request_id, error=error)
            self._failures[INTERNAL].inc()
            return None
        took_s = time.monotonic() - began_s
        self._breaker.succeeded()
        self._round_trips.add(took_s)
        return self._served(request, answer, actions, took_s)

    def _failed(self, request: Request, error: CloudError, left_s: float) -> None:
        self._log(
            logging.WARNING,
            error.reason,
            "cloud: request %.80r: %s: %s",
            request.request_id,
            error.reason,
            error,
        )
        self._failures[error.reason].inc()
        if error.reason == TIMEOUT:
            if left_s < self._round_trips.usual_s(LEAST_S):  # no server could have answered in that time
                return
            # it takes longer than it was given; how much longer is not known
            self._round_trips.add(2 * left_s)
        self._breaker.failed()

    def _served(self, request: Request, answer: CloudAnswer, actions: Floats, took_s: float) -> Served:
        seed = request.seed if answer.seed < 0 and request.seed is not None else answer.seed
        return Served(
            chunk=ActionChunk(actions, self._expected.names, self._expected.dt_s, source=CLOUD),
            raw_actions=actions,
            request_id=request.request_id,
            episode_id=request.episode_id,
            seed=seed,
            slot=CLOUD,
            model_version=f"cloud:{answer.model_version}",
            inference=replace(answer.inference, stages_ms={"cloud_ms": took_s * 1e3}),
            model_hash=answer.model_hash,
            config_hash=answer.config_hash,
        )


def _finite(served: Served) -> Served:
    if not np.isfinite(served.chunk.actions).all():
        raise _NotFiniteError(served)
    return served


class _RoundTrips:
    """How long the cloud usually takes: the 90th percentile of the last 32 answers, none older than a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured_s = LatencyWindow(WINDOW, WINDOW_S)

    def add(self, seconds: float) -> None:
        with self._lock:
            self._measured_s.add(seconds)

    def usual_s(self, unknown_s: float) -> float:
        """Return the usual round trip in seconds, `unknown_s` before the first measurement."""
        with self._lock:
            return self._measured_s.percentile(90) if len(self._measured_s) else unknown_s


class _Race:
    """Two sides that work on one request on threads of their own, and the queue in which they report."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._stops: list[Cancellation] = []

    def start(self, workers: WorkerPool, work: Callable[[Request], Served | None], *, local: bool) -> bool:
        """Start one side on the request, with a cancellation of its own. False when no thread is free."""
        stop = Cancellation()
        attempt = replace(self._request, cancellation=stop)

        def run() -> None:
            try:
                outcome = _Outcome(served=work(attempt), local=local)
            except BaseException as error:  # whatever it is belongs to the thread that waits
                outcome = _Outcome(error=error, local=local)
            self._outcomes.put(outcome)

        if workers.start(run) is None:
            self._outcomes.put(_Outcome(local=local))
            return False
        self._stops.append(stop)
        return True

    def next(self, timeout_s: float) -> _Outcome | None:
        """Return how the next side ended, or None when none did in time."""
        try:
            return self._outcomes.get(timeout=max(timeout_s, 0.0))
        except Empty:
            return None

    def first_valid(self) -> Served:
        """Return the first chunk of the two. Raises the local failure when there is none."""
        failure: BaseException | None = None
        for _ in range(2):
            ended = self._outcomes.get()
            if ended.served is not None:
                return ended.served
            if ended.error is not None and (not ended.local or isinstance(ended.error, ObservationError)):
                raise ended.error  # the client's mistake, or the caller has left
            failure = failure or ended.error
        assert failure is not None  # one of the two is the local policy's
        raise failure

    def give_up(self) -> None:
        """End the wait, whatever the sides do."""
        self._outcomes.put(
            _Outcome(error=CancelledError("the request was cancelled: its deadline has passed"))
        )

    def stop(self) -> None:
        """Cancel the sides that still run."""
        for stop in self._stops:
            stop.cancel()


@contextmanager
def _race(request: Request) -> Iterator[_Race]:
    race = _Race(request)
    with (request.cancellation or Cancellation()).calling(race.give_up):
        try:
            yield race
        finally:
            race.stop()
