# SPDX-License-Identifier: Apache-2.0
"""Sample by a table of numbers (export/sampler_table.py): DDIM, DDPM, X-VLA's mix, in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.export.sampler_table import SamplerRow, SamplerTable
from reflex_core.policy.adaptive import FEWEST_STEPS
from reflex_core.policy.capabilities import Capabilities
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.network import Network, Tensors, feeds, require_input, require_output
from reflex_core.policy.sampler import Sampling, Velocity, is_straight, relative_change
from reflex_core.policy.session import Session
from reflex_core.values import Floats


def table_network(
    kind: str, export: Export, contract: Contract, table: SamplerTable, last: Session
) -> Network:
    """Return the network of a graph that is one step of the table. Raises ExportError."""
    for key in ("x", "time"):
        require_input(export, contract, last, key)
    require_output(export, contract, last, "velocity")
    names, draws = contract.flow_names, 1 + table.noisy_steps

    def sample(
        arrays: Arrays, made: Tensors, noise: Floats, sampling: Sampling, cancellation: Cancellation | None
    ) -> tuple[Floats, int]:
        fed = feeds(contract, last, arrays, made)
        shape = (len(noise) // draws, *noise.shape[1:])
        step = last.repeated(fed, names["x"], names["time"], names["velocity"], shape, cancellation)
        return sampled(step, noise, table, sampling, contract.action_dim)

    return Network(kind, contract, sample, draws, table_capabilities(kind, table))


def table_capabilities(kind: str, table: SamplerTable) -> Capabilities:
    """Return what a policy can do that samples by this table."""
    policy = f"a {kind} policy with a sampler table"
    return Capabilities(
        guidance=f"{policy} takes no Euler steps of a flow, which is what is guided",
        early_stop=_why_not_early(policy, table),
        fewer_steps=f"{policy} takes the steps of the table, which cannot be thinned",
    )


def _why_not_early(policy: str, table: SamplerTable) -> str:
    if len(table.rows) < FEWEST_STEPS:
        return f"{policy} of {len(table.rows)} step(s) has nothing to save: convergence shows after two"
    if table.noisy_steps:
        return f"{policy} that adds noise in its steps (DDPM) is not done before the last one"
    if not (table.estimates and table.ends_at_estimate):
        return f"{policy} can stop early only where each step estimates the chunk and the last one ends at its estimate"
    return ""


def sampled(
    network: Velocity, noise: Floats, table: SamplerTable, sampling: Sampling, width: int | None = None
) -> tuple[Floats, int]:
    """Return (requests, horizon, width) actions in the policy's units, and the steps taken.

    With `sampling.adaptive` the loop is left at the estimate of the step after which the estimates stand still: what a
    schedule without noise would jump to (Song et al., Denoising Diffusion Implicit Models, 2010.02502, equation 12 with
    sigma 0). `sampling.steps` and `sampling.guidance` do not apply.

    Args:
        network: (actions, time) -> the network's output, both (requests, horizon, width) float32.
        noise: ((1 + noisy steps) * requests, horizon, width) float32: the start of each request, then what the steps add,
            in order.
        table: The schedule.
        sampling: Of this request.
        width: Columns that are actions; padding does not decide when to stop.
    """
    requests = len(noise) // (1 + table.noisy_steps)
    start = x = noise[:requests]
    fresh = (noise[index : index + requests] for index in range(requests, len(noise), requests))
    changes: list[float] = []
    before: Floats | None = None
    for number, row in enumerate(table.rows, start=1):
        made = network(x, row.time)
        estimate = _estimate(row, x, made, table.clip)
        if sampling.watch is not None:
            sampling.watch(estimate, estimate)
        if sampling.adaptive is not None:
            if before is not None:
                changes.append(relative_change(before, estimate, width))
            if is_straight(changes, sampling.adaptive):
                return estimate, number
            before = estimate
        x = _next(row, x, made, estimate, fresh, start)
    return x, len(table.rows)


def _estimate(row: SamplerRow, x: Floats, made: Floats, clip: float | None) -> Floats:
    estimate: Floats = np.float32(row.x0_from_x) * x + np.float32(row.x0_from_network) * made
    return estimate if clip is None else np.clip(estimate, np.float32(-clip), np.float32(clip))


def _next(
    row: SamplerRow, x: Floats, made: Floats, estimate: Floats, fresh: Iterator[Floats], start: Floats
) -> Floats:
    """Return the x of the next step. Terms whose factor is 0 are left out, so that noise is drawn only where it is added."""
    following: Floats = np.float32(row.next_from_x0) * estimate
    if row.next_from_x:
        following = following + np.float32(row.next_from_x) * x
    if row.next_from_network:
        following = following + np.float32(row.next_from_network) * made
    if row.next_from_noise:
        following = following + np.float32(row.next_from_noise) * next(fresh)
    if row.next_from_start:
        following = following + np.float32(row.next_from_start) * start
    return following
