# SPDX-License-Identifier: Apache-2.0
"""What computes beside the answers and never delays them: the shadow, and the comparison after a change of split."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from reflex_core.assembly.loaded import PolicySlot, Surroundings
from reflex_core.loading import load
from reflex_core.metrics import Metrics
from reflex_core.policy.policy import Policy
from reflex_core.policy.sampler import PLAIN, Sampling
from reflex_core.settings import Settings
from reflex_core.slots.choice import Choice
from reflex_core.slots.pair import Pair
from reflex_core.slots.records import shadow_record
from reflex_core.slots.routing import other
from reflex_core.slots.shadow import Divergence, Shadow
from reflex_core.trace.writer import TraceWriter
from reflex_core.values import Request, Served
from reflex_core.wedges.predict import Predict
from reflex_core.wedges.telemetry import Listener

SHADOW = "shadow"


def build_shadow(
    settings: Settings, choice: Choice, trace: TraceWriter | None, around: Surroundings,
    opened: ExitStack,
) -> tuple[Shadow | None, Policy | None]:  # fmt: skip
    """(the shadow, its policy) of --shadow-policy, or (None, None). What it cannot compare it counts as failed."""
    if not choice.shadow:
        return None, None
    metrics = around.metrics
    found = load(replace(settings, export_dir=choice.shadow, auto_calibrate=False), metrics)
    policy = found.policy

    def tell(divergence: Divergence) -> None:
        for name, rms in zip(divergence.names, divergence.rms.tolist(), strict=True):
            metrics.shadow_divergence.labels(name).observe(rms)
        metrics.shadow_compared.inc()
        if trace is not None:
            trace.note(lambda timestamp: shadow_record(divergence, timestamp))

    shadow = Shadow(
        alone(policy, SHADOW), policy.export.model_id, [tell],
        on_dropped=metrics.shadow_dropped.inc, on_failed=metrics.shadow_failed.inc,
    )  # fmt: skip
    opened.callback(shadow.close)
    return shadow, policy


def alone(policy: Policy, slot: str) -> Callable[[Request], Served]:
    """A policy without anything around it, for requests that bring their own seed."""
    return partial(Predict(policy, slot, lambda: 0, _steps), proceed=_nobody)


def _steps(request: Request) -> Sampling:
    return PLAIN if request.max_steps is None else Sampling(request.max_steps)


def _nobody(_: Request) -> Served:
    raise AssertionError("the policy is the innermost")


def watch_divergence(
    settings: Settings, slots: dict[str, PolicySlot], pair: Pair, metrics: Metrics, opened: ExitStack
) -> Listener | None:
    """While a slot is on trial after a change, the other one answers the same requests in its shadow.

    None without --rollback-divergence: comparing costs a second inference.
    """
    if settings.rollback_divergence <= 0:
        return None
    monitor = pair.monitor
    asked = {name: alone(slot.policy, name) for name, slot in slots.items()}
    shadows = {
        name: Shadow(
            asked[other(name)], slots[other(name)].policy.export.model_id,
            [lambda found: monitor.diverged(float(found.rms.max()))],
            on_dropped=metrics.shadow_dropped.inc, on_failed=metrics.shadow_failed.inc,
        )
        for name in slots
    }  # fmt: skip
    for shadow in shadows.values():
        opened.callback(shadow.close)

    def watch(request: Request, served: Served) -> None:
        if served.slot in shadows and monitor.watching == served.slot:
            shadows[served.slot](request, served)

    return watch
