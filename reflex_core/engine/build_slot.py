# SPDX-License-Identifier: Apache-2.0
"""One policy slot: its network, and the wedges that are about it alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from reflex_core.chunks.a2c2.correction import load_correction
from reflex_core.chunks.rtc import Rtc
from reflex_core.chunks.temporal_ensemble import FLAG as ENSEMBLING
from reflex_core.chunks.temporal_ensemble import TemporalEnsemble
from reflex_core.concurrency.circuit_breaker import CLOSED
from reflex_core.engine.load_policy import LoadedPolicy
from reflex_core.engine.serving_state import EngineContext, PolicySlot
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.base import Policy
from reflex_core.policy.sampler import PLAIN, Sampling
from reflex_core.reports import A2C2Report
from reflex_core.settings.table import Settings
from reflex_core.slots.health import Prober
from reflex_core.values import Floats, Request
from reflex_core.wedges.a2c2 import A2C2
from reflex_core.wedges.breaker import STATE_NUMBERS, Breaker
from reflex_core.wedges.order import middleware_chain
from reflex_core.wedges.predict import Predict
from reflex_core.wedges.wedge import Wedge

Position = Callable[[Request], Floats | None]

log = logging.getLogger(__name__)


def build_slot(
    name: str, found: LoadedPolicy, robot: str, commanded: Position, around: EngineContext, opened: ExitStack
) -> PolicySlot:
    """Build the slot of a loaded policy.

    Args:
        name: Of the slot.
        found: The loaded policy.
        robot: The embodiment's name.
        commanded: Returns the position a request's robot was commanded to.
        around: The engine context.
        opened: Closes the slot's prober.

    Raises:
        ConfigurationError: The export does not support a requested setting.
    """
    policy, settings = found.policy, found.settings
    breaker = _breaker(settings, name, around.metrics)
    cache = policy.prefix_cache(settings.prefix_cache_max_age_ms) if settings.prefix_cache else None
    ensemble = _ensemble(settings, policy)
    rtc = _rtc(policy) if settings.rtc and ensemble is None else None
    a2c2 = _a2c2(settings, policy, commanded, around)
    wedges: dict[str, Wedge | None] = {
        "breaker": breaker,
        "a2c2": a2c2,
        "policy": Predict(
            policy, name, around.next_seed, sampling_of(settings, policy, around.live), cache, rtc,
            around.metrics.in_flight.labels(robot, name), ensemble,
        ),
    }  # fmt: skip
    built = {place: wedge for place, wedge in wedges.items() if wedge is not None}
    act = middleware_chain(built)
    if breaker is not None:
        # the canary says nothing about latency, which the correction learns from
        alone = middleware_chain({place: wedge for place, wedge in built.items() if place != "a2c2"})
        prober = Prober(name, breaker, alone, policy.canary())
        prober.start()
        opened.callback(prober.close)
    return PolicySlot(
        name, policy, settings, act, built, breaker, cache, rtc, a2c2, found.first_latency_s, ensemble
    )


def _breaker(settings: Settings, slot: str, metrics: Metrics) -> Breaker | None:
    gauge = metrics.breaker_state.labels(slot)
    gauge.set(STATE_NUMBERS[CLOSED])
    if settings.max_consecutive_crashes == 0:
        return None
    return Breaker(
        settings.max_consecutive_crashes,
        settings.breaker_cooldown_s,
        slot,
        lambda state: gauge.set(STATE_NUMBERS[state]),
    )


def _rtc(policy: Policy) -> Rtc:
    rtc = policy.rtc()
    if rtc.note:
        log.info("%s: %s", policy.export.where, rtc.note)
    return rtc


def _ensemble(settings: Settings, policy: Policy) -> TemporalEnsemble | None:
    """Return the averaging of an episode's chunks, None where the export or the setting does not want it."""
    coefficient, path = policy.contract.temporal_ensemble_coeff, policy.export.where
    if coefficient is None or settings.temporal_ensemble == "off":
        return None
    if policy.binding.dt_s <= 0:
        log.warning(
            "%s: %s has no effect: the rate of the actions is not known, so rows cannot be aligned",
            path,
            ENSEMBLING,
        )
        return None
    if settings.rtc and not policy.capabilities.guidance:
        log.info("%s: real-time chunking is off: %s averages its chunks", path, ENSEMBLING)
    return TemporalEnsemble(coefficient, policy.binding)


def _a2c2(settings: Settings, policy: Policy, commanded: Position, around: EngineContext) -> A2C2 | None:
    if not settings.a2c2_checkpoint:
        return None
    metrics = around.metrics

    def count(outcome: A2C2Report) -> None:
        family = metrics.a2c2_applied if outcome.applied else metrics.a2c2_skipped
        family.labels(outcome.reason).inc()

    return A2C2(
        load_correction(Path(settings.a2c2_checkpoint), policy.binding),
        latency_threshold_ms=settings.a2c2_latency_threshold_ms,
        success_threshold=settings.a2c2_success_threshold,
        newest=lambda request: request.newest() if request.newest else None,
        previous=commanded,
        injected_ms=lambda: around.live().inject_latency_ms,
        on_outcome=count,
        every_step=settings.a2c2_every_step,
    )


def sampling_of(
    settings: Settings, policy: Policy, live: Callable[[], Settings]
) -> Callable[[Request], Sampling]:
    """Return how each request is sampled: all steps, fewer while the service is degraded, or until it converges."""
    if not settings.adaptive_steps:
        return lambda request: PLAIN if request.max_steps is None else Sampling(request.max_steps)
    calibrated = policy.adaptive(settings.adaptive_threshold)

    def sampling(request: Request) -> Sampling:
        threshold = live().adaptive_threshold or calibrated.threshold
        return Sampling(request.max_steps, replace(calibrated, threshold=threshold))

    return sampling
