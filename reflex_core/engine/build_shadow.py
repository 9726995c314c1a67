# SPDX-License-Identifier: Apache-2.0
"""Build what computes next to the answers and never delays them: the shadow, and the comparison after a change of split."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np

from reflex_core.chunks.temporal_ensemble import RecordedEnsemble
from reflex_core.concurrency.lru import Lru
from reflex_core.engine.build_slot import sampling_of
from reflex_core.engine.load_policy import load
from reflex_core.engine.serving_state import EngineContext, PolicySlot
from reflex_core.engine.which_exports import Choice
from reflex_core.errors import ConfigurationError
from reflex_core.policy.base import Policy
from reflex_core.policy.recorded_guidance import Key, RecordedGuidance
from reflex_core.policy.sampler import Sampling
from reflex_core.records.trace.notes import shadow_record
from reflex_core.records.trace.writer import TraceWriter
from reflex_core.reports import NOT_AVERAGED, EnsembleReport
from reflex_core.settings.table import Settings
from reflex_core.slots.pair import Pair
from reflex_core.slots.routing import other
from reflex_core.slots.shadow import Divergence, Shadow
from reflex_core.values import Floats, Request, Served
from reflex_core.wedges.predict import Predict
from reflex_core.wedges.telemetry import Listener

SHADOW = "shadow"
ANSWERS_KEPT = 64  # the shadow has one waiting at most; older ones are never read

log = logging.getLogger(__name__)


def build_shadow(
    settings: Settings, choice: Choice, trace: TraceWriter | None, around: EngineContext,
    opened: ExitStack,
) -> tuple[Shadow | None, Policy | None, Listener | None]:  # fmt: skip
    """Return the shadow of --shadow-policy, its policy, and the listener for every answer; or three times None."""
    if not choice.shadow:
        return None, None, None
    metrics = around.metrics
    shadowed = replace(settings, export_dir=choice.shadow, auto_calibrate=False, max_batch=1)
    found = load(shadowed, metrics, around.connect_remote)
    opened.callback(found.close)
    policy = found.policy

    def log_divergence(divergence: Divergence) -> None:
        for name, rms in zip(divergence.names, divergence.rms.tolist(), strict=True):
            metrics.shadow_divergence.labels(name).observe(rms)
        metrics.shadow_compared.inc()
        if trace is not None:
            trace.note(lambda timestamp: shadow_record(divergence, timestamp))

    guided = ShadowGuidance(policy, steps_of(found.settings, policy, around.live))
    averaged = ShadowEnsemble(policy)
    shadow = Shadow(
        alone(policy, SHADOW, guided.sampling, averaged), policy.export.model_id, [log_divergence],
        on_dropped=metrics.shadow_dropped.inc, on_failed=metrics.shadow_failed.inc,
    )  # fmt: skip
    opened.callback(shadow.close)

    def watch(request: Request, served: Served) -> None:
        guided.answered(request, served)
        averaged.answered(request, served)
        shadow(request, served)

    return shadow, policy, watch


def steps_of(
    settings: Settings, policy: Policy, live: Callable[[], Settings]
) -> Callable[[Request], Sampling]:
    """Return the shadow's sampling: as in service, but all steps where its export cannot stop early."""
    try:
        return sampling_of(settings, policy, live)
    except ConfigurationError as error:
        log.warning("the shadow policy takes all denoise steps: %s", error)
        return sampling_of(replace(settings, adaptive_steps=False), policy, live)


class ShadowGuidance:
    """Guide a shadow by what guided the answer: otherwise the comparison would show that difference alone.

    `answered` is called on the request path and only remembers; `sampling` on the shadow's thread.
    """

    def __init__(self, policy: Policy, steps: Callable[[Request], Sampling]) -> None:
        self._guidance, self._steps = RecordedGuidance(policy), steps
        self._names = policy.binding.action_names
        self._lock = threading.Lock()
        self._answers: Lru[Key, Served] = Lru(ANSWERS_KEPT)

    def answered(self, request: Request, served: Served) -> None:
        """Keep the answer, for its own comparison and because it may guide the next one."""
        if served.chunk.names != self._names or request.episode_id is None:
            return
        key = (request.episode_id, request.request_id)
        with self._lock:
            self._guidance.keep(key, served.raw_actions, served.chunk.actions, request.observation.state)
            self._answers.put(key, served)

    def sampling(self, request: Request) -> Sampling:
        """Return how the shadow samples its chunk for a request that was answered before."""
        sampling, key = self._steps(request), (request.episode_id or "", request.request_id)
        with self._lock:
            served = self._answers.pop(key)
        if served is None or not served.rtc.previous:
            return sampling
        # not under the lock: this thread has low priority, and an answer must not wait for it
        before = (key[0], served.rtc.previous)
        guidance = self._guidance.guidance(
            before, served.rtc.elapsed_rows, served.rtc.delay, request.observation.state,
            np.array(served.rtc.executed, np.float32) if served.rtc.executed else None,
        )  # fmt: skip
        return replace(sampling, guidance=guidance)


class ShadowEnsemble:
    """Average a shadow's chunks where the answers were averaged: each with its own earlier ones.

    `answered` is called on the request path and only remembers; `combine` on the shadow's thread.
    """

    def __init__(self, policy: Policy) -> None:
        self._ensemble = RecordedEnsemble(policy.binding)
        self._lock = threading.Lock()
        self._reports: Lru[Key, EnsembleReport] = Lru(ANSWERS_KEPT)

    def answered(self, request: Request, served: Served) -> None:
        """Keep how the answer was averaged, for its own comparison."""
        if served.ensemble.present:
            with self._lock:
                self._reports.put(_key(request), served.ensemble)

    def combine(self, request: Request, positions: Floats) -> tuple[Floats, EnsembleReport]:
        """Return the chunk, (horizon, action_dim) in physical units, and how the answer was averaged."""
        with self._lock:
            report = self._reports.pop(_key(request)) or NOT_AVERAGED
        state = request.observation.state
        return self._ensemble.combine(_key(request), report, positions, state)[0], report


def _key(request: Request) -> Key:
    return request.episode_id or "", request.request_id


def alone(
    policy: Policy, slot: str, sampling: Callable[[Request], Sampling], ensemble: ShadowEnsemble
) -> Callable[[Request], Served]:
    """Wrap a policy without any wedge around it, for requests that bring their own seed."""
    return partial(Predict(policy, slot, lambda: 0, sampling, ensemble=ensemble), proceed=_no_inner)


def _no_inner(_: Request) -> Served:
    raise AssertionError("the policy is the innermost")


def watch_divergence(
    settings: Settings, slots: dict[str, PolicySlot], pair: Pair, around: EngineContext, opened: ExitStack
) -> Listener | None:
    """Run the same requests on the other slot as a shadow while a slot is on trial after a change.

    None without --rollback-divergence: comparing costs a second inference.
    """
    if settings.rollback_divergence <= 0:
        return None
    monitor, metrics = pair.monitor, around.metrics
    ensembles = {name: ShadowEnsemble(slot.policy) for name, slot in slots.items()}
    compared = {
        name: alone(slot.policy, name, sampling_of(slot.settings, slot.policy, around.live), ensembles[name])
        for name, slot in slots.items()
    }
    shadows = {
        name: Shadow(
            compared[other(name)], slots[other(name)].policy.export.model_id,
            [lambda found: monitor.diverged(float(found.rms.max()))],
            on_dropped=metrics.shadow_dropped.inc, on_failed=metrics.shadow_failed.inc,
        )
        for name in slots
    }  # fmt: skip
    for shadow in shadows.values():
        opened.callback(shadow.close)

    def watch(request: Request, served: Served) -> None:
        if served.slot in shadows and monitor.watching == served.slot:
            ensembles[other(served.slot)].answered(request, served)
            shadows[served.slot](request, served)

    return watch
