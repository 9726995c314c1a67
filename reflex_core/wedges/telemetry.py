# SPDX-License-Identifier: Apache-2.0
"""Latency, metrics, and the finished answer for listeners and recorders."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from reflex_core.errors import NotReadyError, ObservationError, ReflexError
from reflex_core.metrics.episodes import Episodes
from reflex_core.metrics.latency_window import LatencyWindow
from reflex_core.metrics.metrics import Metrics
from reflex_core.metrics.moved_episodes import MOVED, MovedEpisodes
from reflex_core.records.recorder import Recorder
from reflex_core.robot.callers import caller_of
from reflex_core.text.log_lines import request_id
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import HOLD, POLICY, Request, Served, changed
from reflex_core.wedges.wedge import Proceed

WINDOW = 1024
ANSWERED, CLAMPED, HELD, REFUSED, FAILED = "answered", "clamped", "held", "refused", "failed"

log = logging.getLogger(__name__)

Listener = Callable[[Request, Served], None]


@dataclass(frozen=True, slots=True)
class _Slot:
    """The metrics of one policy slot, bound to its labels."""

    latency_s: Callable[[float], None]
    steps: Callable[[float], None]
    cache_hit: Callable[[], None]
    cache_miss: Callable[[], None]
    guided: Callable[[], None]


class Telemetry:
    """Measures every request from its receipt. Listeners (recorders) run last and cannot fail a request."""

    def __init__(
        self,
        embodiment: str,
        models: Mapping[str, str],
        metrics: Metrics,
        listeners: list[Listener] | None = None,
        recorders: Sequence[Recorder] = (),
        next_seq: Callable[[], int] | None = None,
        trackers: Sequence[Listener] = (),
    ) -> None:
        """Start measuring.

        models: model id by slot; an answer without a slot counts for the first. listeners: the caller's own, which may come
        and go. next_seq: the number of the next record in the trace.
        """
        self._metrics = metrics
        self._slots = {
            slot: _Slot(
                metrics.act_latency_s.labels(embodiment, model_id, slot).observe,
                metrics.denoise_steps.labels(embodiment, slot).inc,
                metrics.cache_hits.labels(embodiment, "vlm_prefix", slot).inc,
                metrics.cache_misses.labels(embodiment, "vlm_prefix", slot).inc,
                metrics.chunks_guided.labels(embodiment, slot).inc,
            )
            for slot, model_id in models.items()
        }
        # labels() formats and locks; the labels are bounded, so few are looked up anew
        self._of_caller = lru_cache(maxsize=256)(metrics.caller_requests.labels)
        self._of_wire = lru_cache(maxsize=64)(metrics.wire_requests.labels)
        self._first = next(iter(self._slots.values()))
        self._lock = threading.Lock()
        self._window_ms = LatencyWindow(WINDOW)
        self._recorders = tuple(recorders)
        self._own: tuple[Listener, ...] = (*recorders, *trackers)
        self._next_seq = next_seq
        self._episodes = Episodes()
        self._moved = MovedEpisodes()
        metrics.episodes_active.labels(embodiment).set_function(self._episodes.active)
        self._last_cut: str | None = None
        self._log = RateLimitedLog(log)
        self._listeners = [] if listeners is None else listeners

    def listen(self, listener: Listener) -> None:
        """Call `listener(request, served)` with every finished answer."""
        self._listeners.append(listener)

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        named = request_id.set(request.request_id)
        try:
            return self._measured(request, proceed)
        finally:
            request_id.reset(named)

    def _measured(self, request: Request, proceed: Proceed) -> Served:
        self._episodes.seen(request.episode_id)
        try:
            served = proceed(request)
        except Exception as error:
            slug = error.slug if isinstance(error, ReflexError) else "internal-error"
            self._metrics.errors.labels(slug).inc()
            self._count(request, REFUSED if isinstance(error, ObservationError | NotReadyError) else FAILED)
            log.debug("request %s: %s: %s", request.request_id, slug, error)
            seq = self._seq()
            for recorder in self._recorders:
                recorder.error(request, slug, str(error), seq)
            raise
        latency_ms = (time.monotonic_ns() - request.received_ns) * 1e-6
        served = changed(served, latency_ms=latency_ms, trace_seq=self._seq(), history=request.history)
        if self._moved.answered(
            request.episode_id, request.previous_request_id, request.elapsed_rows, request.request_id
        ):
            served = self._began_elsewhere(request, served)
        self._count(request, _outcome(served))
        slot = self._slots.get(served.slot, self._first)
        slot.latency_s(latency_ms * 1e-3)
        slot.steps(served.inference.denoise_steps)
        if served.cache.status == "hit":
            slot.cache_hit()
        elif served.cache.status == "miss":
            slot.cache_miss()
        if served.rtc.mode and served.chunk.source == POLICY:
            slot.guided()
        if served.inference.tokens_cut:
            self._metrics.instructions_cut.inc()
            self._warn_of_cut(request, served)
        with self._lock:
            self._window_ms.add(latency_ms)
        log.debug("request %s: %s in %.1f ms", request.request_id, _outcome(served), latency_ms)
        self._notify(request, served)
        return served

    def _count(self, request: Request, outcome: str) -> None:
        label = self._metrics.caller_labels.label(caller_of(request))
        self._of_caller(label, outcome).inc()
        self._of_wire(request.wire, outcome).inc()

    def _began_elsewhere(self, request: Request, served: Served) -> Served:
        """Count an episode whose caller goes on from an answer of another server, and return the answer with the reason."""
        self._metrics.episodes_moved.inc()
        text = "episode %.200r goes on here from an answer that this server did not give: its chunk is not guided"
        self._log(logging.WARNING, MOVED, text, request.episode_id)
        return served if served.rtc.mode else replace(served, rtc=replace(served.rtc, reason=MOVED))

    def _seq(self) -> int:
        return -1 if self._next_seq is None else self._next_seq()

    def _warn_of_cut(self, request: Request, served: Served) -> None:
        instruction = request.observation.instruction
        if instruction != self._last_cut:  # a robot sends the same one ten times a second
            self._last_cut = instruction
            text = "the instruction is %d tokens too long and was cut for the policy"
            self._log(logging.WARNING, "cut", text, served.inference.tokens_cut)

    def _notify(self, request: Request, served: Served) -> None:
        for listener in (*self._own, *self._listeners):
            try:
                listener(request, served)
            except Exception as error:
                text = "a listener failed on request %r; the answer is not affected"
                self._log(logging.ERROR, "listener", text, request.request_id, error=error)

    def percentiles_ms(self, *percentiles: float) -> tuple[float, ...]:
        """Return latency percentiles over the newest 1024 answers, linear between them; 0.0 before the first."""
        with self._lock:
            return tuple(self._window_ms.percentile(percentile) for percentile in percentiles)


def _outcome(served: Served) -> str:
    if served.chunk.source == HOLD:
        return HELD
    return CLAMPED if served.guard.clamped else ANSWERED
