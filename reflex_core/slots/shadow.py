# SPDX-License-Identifier: Apache-2.0
"""The shadow: a second policy sees what the first one saw, and only the difference is written down."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.values import POLICY, ActionChunk, Floats, Request, Served

NICENESS = 10  # of 19: the shadow computes when nothing else needs the core
FLAT = 1e-9

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far the shadow's chunk is from the one that was served, before any guard.

    names: the joints both have. max_abs, rms: (len(names),) float32 over the rows both have, physical units.
    actions: (horizon, action_dim) float32, what the shadow would have done. seq: of the answer in the trace, -1.
    """

    seq: int
    request_id: str
    episode_id: str | None
    slot: str
    seed: int
    shadow_model_id: str
    shadow_model_version: str
    names: tuple[str, ...]
    max_abs: Floats
    rms: Floats
    actions: Floats
    latency_ms: float


def difference(
    served: ActionChunk, raw: Floats, shadow: ActionChunk
) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return (joints, max-abs, RMS) of two chunks over the rows and the joints that both have.

    raw: the served chunk before its guard, with the names and the rate of `served`. Raises ValueError when the chunks
    have no joint in common, another rate, or NaN or Inf.
    """
    names = tuple(name for name in served.names if name in shadow.names)
    if not names:
        raise ValueError(f"no joint in common: {', '.join(served.names)} and {', '.join(shadow.names)}")
    if abs(served.dt_s - shadow.dt_s) > FLAT:
        raise ValueError(f"rows are {served.dt_s:g} s apart in one chunk and {shadow.dt_s:g} s in the other")
    rows = min(len(raw), len(shadow.actions))
    ours = raw[:rows, [served.names.index(name) for name in names]]
    theirs = shadow.actions[:rows, [shadow.names.index(name) for name in names]]
    between = theirs.astype(np.float64) - ours
    if rows == 0 or not np.isfinite(between).all():
        raise ValueError("one of the chunks is empty or holds NaN or Inf")
    worst, mean = np.abs(between).max(axis=0), np.sqrt(np.square(between).mean(axis=0))
    return names, worst.astype(np.float32), mean.astype(np.float32)


class Shadow:
    """A listener of the engine: hands every fresh answer's request to a worker, and is done.

    act: the shadow policy alone, without breaker, guard or deadline; it gets the observation, the seed and the step
    limit of the answer. One request at a time runs; of those that come meanwhile the newest waits and the others are
    dropped and counted. Failures are counted and logged once. Listeners are called with every comparison on the worker.
    """

    def __init__(
        self,
        act: Callable[[Request], Served],
        model_id: str,
        listeners: Sequence[Callable[[Divergence], None]] = (),
        *,
        on_dropped: Callable[[], None] = lambda: None,
        on_failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._act, self._model_id = act, model_id
        self._listeners = tuple(listeners)
        self._on_dropped, self._on_failed = on_dropped, on_failed
        self._condition = threading.Condition()
        self._waiting: tuple[Request, Served] | None = None
        self._running: Cancellation | None = None
        self._closing = False
        self._compared = self._dropped = self._failed = 0
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    @property
    def compared(self) -> int:
        """Answers that were compared with the shadow's."""
        return self._compared

    @property
    def dropped(self) -> int:
        """Answers the shadow had no time for."""
        return self._dropped

    @property
    def failed(self) -> int:
        """Requests on which the shadow failed, or whose answers cannot be compared."""
        return self._failed

    def __call__(self, request: Request, served: Served) -> None:
        """Hand over the request without waiting. A hold or a fallback was not made from this observation: nothing to compare."""
        if served.chunk.source != POLICY or served.fallback.deadline_exceeded:
            return
        with self._condition:
            if self._closing:
                return
            lost = self._waiting is not None
            self._dropped += lost
            self._waiting = (request, served)
            self._condition.notify()
        if lost:
            self._on_dropped()

    def close(self, timeout_s: float = 2.0) -> None:
        """Cancel what runs and end the worker. May be called again."""
        with self._condition:
            self._closing, self._waiting = True, None
            running = self._running
            self._condition.notify()
        if running is not None:
            running.cancel()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        with suppress(OSError):  # only Linux gives threads a niceness of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            with self._condition:
                while self._waiting is None and not self._closing:
                    self._condition.wait()
                if self._closing or self._waiting is None:
                    return
                (request, served), self._waiting = self._waiting, None
                cancellation = self._running = Cancellation()
            try:
                self._compare(request, served, cancellation)
            except Exception as error:
                if not cancellation.cancelled:
                    self._fail(request, error)
            finally:
                self._running = None
                del request, served  # or the worker would keep the last pictures while it waits

    def _compare(self, request: Request, served: Served, cancellation: Cancellation) -> None:
        began = time.perf_counter()
        alone = replace(request, seed=served.seed, deadline_ns=None, cancellation=cancellation)
        shadow = self._act(alone)
        latency_ms = (time.perf_counter() - began) * 1e3
        names, max_abs, rms = difference(served.chunk, served.raw_actions, shadow.chunk)
        self._compared += 1
        found = Divergence(
            served.trace_seq, request.request_id, request.episode_id, served.slot, served.seed, self._model_id,
            shadow.model_version, names, max_abs, rms, shadow.chunk.actions, latency_ms,
        )  # fmt: skip
        for listener in self._listeners:
            listener(found)

    def _fail(self, request: Request, error: Exception) -> None:
        self._failed += 1
        if self._failed == 1:
            log.warning(
                "the shadow failed on request %s, serving is not affected; later failures are only counted: %s",
                request.request_id, error,
            )  # fmt: skip
        self._on_failed()
