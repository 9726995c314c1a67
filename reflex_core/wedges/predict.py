# SPDX-License-Identifier: Apache-2.0
"""The innermost wedge: the policy slot's network answers."""

from __future__ import annotations

from collections.abc import Callable

from reflex_core.policy.policy import Policy
from reflex_core.values import ActionChunk, Request, Served
from reflex_core.wedges.wedge import Proceed


class Predict:
    """Runs one policy. `next_seed` gives the start noise of requests that bring no seed."""

    def __init__(self, policy: Policy, slot: str, next_seed: Callable[[], int]) -> None:
        self._policy = policy
        self._slot = slot
        self._next_seed = next_seed

    def __call__(self, request: Request, proceed: Proceed) -> Served:  # noqa: ARG002  (innermost: nobody to proceed to)
        policy = self._policy
        seed = self._next_seed() if request.seed is None else request.seed
        prediction = policy.predict(request.observation, seed)
        return Served(
            chunk=ActionChunk(prediction.actions, policy.fit.action_names, policy.fit.dt_s),
            raw_actions=prediction.actions,
            request_id=request.request_id,
            episode_id=request.episode_id,
            seed=seed,
            slot=self._slot,
            model_version=policy.export.model_version,
            inference_mode=policy.inference_mode,
            denoise_steps=prediction.denoise_steps,
            denoise_steps_configured=policy.contract.flow.steps,
            tokens_cut=prediction.tokens_cut,
            stages_ms=prediction.stages_ms,
            model_hash=policy.export.model_hash,
            config_hash=policy.export.config_hash,
        )
