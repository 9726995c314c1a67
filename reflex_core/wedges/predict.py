# SPDX-License-Identifier: Apache-2.0
"""The innermost wedge: the policy slot's network answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from reflex_core.chunks.rtc import EpisodeGuidance, Rtc, rows_of
from reflex_core.metrics.counters import Gauge, NullGauge
from reflex_core.policy.base import MadeElsewhere, Policy
from reflex_core.policy.prefix_cache import PrefixCache
from reflex_core.policy.sampler import RequestContext, Sampling
from reflex_core.reports import NOT_AVERAGED, NOT_GUIDED, CacheReport, EnsembleReport, RtcReport
from reflex_core.robot.callers import episode_key
from reflex_core.values import ActionChunk, Floats, Inference, Request, Served, changed
from reflex_core.wedges.wedge import Proceed


class Ensemble(Protocol):
    """What averages the chunks of an episode (chunks/temporal_ensemble.py)."""

    def combine(self, request: Request, positions: Floats) -> tuple[Floats, EnsembleReport]:
        """Return the chunk to serve, (horizon, action_dim) in physical units, and how it was averaged."""


def prototype(policy: Policy, slot: str) -> Served:
    """Return the fields that every answer of the policy shares; its chunk is all zeros and is never served."""
    zeros = np.zeros((policy.binding.horizon, len(policy.binding.action_names)), dtype=np.float32)
    return Served(
        chunk=ActionChunk(zeros, policy.binding.action_names, policy.binding.dt_s),
        raw_actions=zeros,
        request_id="",
        episode_id=None,
        seed=0,
        slot=slot,
        model_version=policy.export.model_version,
        inference=Inference(
            policy.inference_mode, policy.contract.flow.steps, masked_cameras=policy.binding.unfed_cameras
        ),
        model_hash=policy.export.model_hash,
        config_hash=policy.export.config_hash,
    )


class Predict:
    """Runs one policy. `next_seed` gives the start noise of requests that bring no seed.

    cache: keeps prefixes of an episode. rtc: lets an episode's previous chunk guide the next one. in_flight: how many
    requests are in here, waiting for the network or in it. ensemble: averages the chunks of an episode.
    """

    def __init__(
        self,
        policy: Policy,
        slot: str,
        next_seed: Callable[[], int],
        sampling: Callable[[Request], Sampling],
        cache: PrefixCache | None = None,
        rtc: Rtc | None = None,
        in_flight: Gauge | None = None,
        ensemble: Ensemble | None = None,
    ) -> None:
        self._policy = policy
        self._prototype = prototype(policy, slot)
        self._next_seed = next_seed
        self._sampling = sampling
        self._cache, self._rtc = cache, rtc
        self._in_flight, self._ensemble = in_flight or NullGauge(), ensemble

    def __call__(self, request: Request, proceed: Proceed) -> Served:  # noqa: ARG002  (innermost: nothing to proceed to)
        self._in_flight.inc()
        try:
            return self._answer(request)
        finally:
            self._in_flight.dec()

    def _answer(self, request: Request) -> Served:
        seed = self._next_seed() if request.seed is None else request.seed
        sampling = self._sampling(request)
        found = EpisodeGuidance() if self._rtc is None else self._rtc.guidance_for(request)
        guidance = found.guidance
        if guidance is None:
            sampling = changed(sampling, context=RequestContext(request))
        else:
            context = RequestContext(request, found.previous, found.elapsed_rows)
            sampling = replace(sampling, guidance=guidance, context=context)
        prediction = self._policy.predict(
            request.observation, seed, sampling, request.cancellation, episode_key(request), self._cache
        )
        if self._rtc is not None:
            self._rtc.produced(request, prediction.normalised)
        actions, averaged = prediction.actions, NOT_AVERAGED
        if self._ensemble is not None and not prediction.unreached:
            positions = self._policy.positions(prediction.normalised, request.observation.state)
            actions, averaged = self._ensemble.combine(request, positions)
        made = changed(
            self._prototype.inference,
            denoise_steps=prediction.denoise_steps,
            adaptive_enabled=sampling.adaptive is not None,
            adaptive_threshold=sampling.adaptive.threshold if sampling.adaptive else 0.0,
            max_steps=request.max_steps,
            tokens_cut=prediction.tokens_cut,
            masked_cameras=prediction.masked_cameras,
            stages_ms=prediction.stages_ms,
            batch_size=prediction.batch_size,
        )
        rtc = RtcReport(reason=found.why) if found.why else NOT_GUIDED
        if guidance is not None:
            rtc = RtcReport(
                guidance.mode, guidance.delay, found.previous, found.elapsed_rows, rows_of(found.executed)
            )
        served = changed(
            self._prototype,
            chunk=changed(self._prototype.chunk, actions=actions),
            raw_actions=actions,
            request_id=request.request_id,
            episode_id=request.episode_id,
            seed=seed,
            inference=made,
            unreached=prediction.unreached,
            cache=CacheReport(prediction.cache.status, prediction.cache.age_ms),
            ensemble=averaged,
            rtc=rtc,
        )
        return served if prediction.elsewhere is None else _as_made(served, prediction.elsewhere)


def _as_made(served: Served, made: MadeElsewhere) -> Served:
    """Return the answer with what another server says of the chunk that it made."""
    rtc = replace(served.rtc, mode=made.rtc_mode, delay=made.rtc_delay) if made.rtc_mode else NOT_GUIDED
    return replace(
        served,
        seed=served.seed if made.seed < 0 else made.seed,
        model_version=made.model_version or served.model_version,
        model_hash=made.model_hash or served.model_hash,
        config_hash=made.config_hash or served.config_hash,
        rtc=rtc,
    )
