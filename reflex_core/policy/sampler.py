# SPDX-License-Identifier: Apache-2.0
"""Integrate flow matching from noise to actions with explicit Euler, and make the start noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reflex_core.chunks.guidance import FEWEST_STEPS, Guidance
from reflex_core.export.flow import Adaptive, Flow
from reflex_core.values import Floats, Request

Velocity = Callable[[Floats, float], Floats]
EPSILON = 1e-8  # a velocity of zero has no relative change


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The request that a chunk is for, for a policy that another server runs.

    previous_request_id: of the chunk that the robot executes now, empty where that cannot guide the next one. elapsed_rows: how
    many of its rows are over at the observation, None where that is not known.
    """

    request: Request
    previous_request_id: str = ""
    elapsed_rows: float | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the chunk of one request is sampled.

    steps: Euler steps over the whole interval, None as configured. adaptive: stop when the flow is straight.
    watch: called in each step with the chunk if the loop were left there, and with what convergence is judged on, both
    (1, horizon, width) float32.
    guidance: by the previous chunk, None without. context: None outside of a request.
    """

    steps: int | None = None
    adaptive: Adaptive | None = None
    watch: Callable[[Floats, Floats], None] | None = None
    guidance: Guidance | None = None
    context: RequestContext | None = None


PLAIN = Sampling()


def start_noise(seed: int, shape: tuple[int, ...]) -> Floats:
    """Return standard normal float32 noise that depends on seed and shape alone (numpy Philox)."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)


def euler(
    velocity: Velocity, noise: Floats, flow: Flow, sampling: Sampling = PLAIN, width: int | None = None
) -> tuple[Floats, int]:
    """Integrate the flow with explicit Euler steps.

    x <- x + dt * v(x, t) with dt = (end - start) / steps: Lipman et al., Flow Matching, 2210.02747.
    With `sampling.guidance` v is the guided velocity, and convergence is judged on that.
    With `sampling.adaptive` the last stride covers all the time that is left, so the noise is always gone.

    Args:
        velocity: (actions, flow time) -> velocity, both (1, horizon, width) float32.
        noise: (1, horizon, width) float32.
        flow: Direction and steps.
        sampling: Of this request.
        width: Columns that are actions; padding does not decide when to stop.

    Returns:
        (1, horizon, width) actions in the policy's units, and the steps taken.
    """
    steps = sampling.steps or flow.steps
    dt = (flow.end - flow.start) / steps
    span = flow.sign * (flow.end - flow.start)
    guidance, adaptive = sampling.guidance, sampling.adaptive
    if guidance is not None:
        velocity = guidance.fixed(velocity)
        if adaptive is not None:
            adaptive = replace(adaptive, min_steps=max(adaptive.min_steps, FEWEST_STEPS))
    changes: list[float] = []
    before: Floats | None = None
    x = noise
    for step in range(steps):
        bare = velocity(x, flow.at(step, steps))
        left = 1 - step / steps
        slope = bare if guidance is None else guidance.guided(x, bare, left, 1 / steps, span)
        if sampling.watch is not None:
            sampling.watch(x + np.float32(flow.sign * dt * (steps - step)) * slope, slope)
        strides = 1
        if adaptive is not None:
            if before is not None:
                changes.append(relative_change(before, slope, width))
            if is_straight(changes, adaptive):
                strides = steps - step
        if strides > 1 and guidance is not None:
            slope = guidance.guided(x, bare, left, strides / steps, span)
        x = x + np.float32(flow.sign * dt * strides) * slope
        if strides > 1:
            return _finished(x, guidance), step + 1
        before = slope
    return _finished(x, guidance), steps


def _finished(x: Floats, guidance: Guidance | None) -> Floats:
    return x if guidance is None else guidance.finished(x)


def relative_change(before: Floats, after: Floats, width: int | None = None) -> float:
    """Return |after - before| / |before| (Euclidean norms over the whole chunk) of the first `width` columns."""
    difference = float(np.linalg.norm(after[..., :width] - before[..., :width]))
    return difference / (float(np.linalg.norm(before[..., :width])) + EPSILON)


def is_straight(changes: Sequence[float], adaptive: Adaptive) -> bool:
    """Return whether to stop now: `changes` are the relative changes so far, one fewer than there were steps."""
    enough = len(changes) + 1 >= adaptive.min_steps and len(changes) >= adaptive.patience
    return enough and all(change < adaptive.threshold for change in changes[-adaptive.patience :])
