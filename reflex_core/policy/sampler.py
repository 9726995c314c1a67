# SPDX-License-Identifier: Apache-2.0
"""From noise to actions: the Euler loop of flow matching, and where the noise comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reflex_core.values import Floats

Velocity = Callable[[Floats, float], Floats]


@dataclass(frozen=True, slots=True)
class Flow:
    """How the network sees time: from `start` (noise) to `end` (actions) in `steps` equal Euler steps.

    sign: +1 when the network's velocity is dx/dt, -1 when it points the other way.
    pi0 and SmolVLA: x_t = t * noise + (1 - t) * actions, velocity noise - actions, start 1, end 0, sign +1.
    """

    start: float = 1.0
    end: float = 0.0
    sign: int = 1
    steps: int = 10


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request wants its chunk sampled. `steps`: Euler steps over the whole interval, None as configured."""

    steps: int | None = None


PLAIN = Sampling()


def start_noise(seed: int, shape: tuple[int, ...]) -> Floats:
    """Standard normal float32 noise that depends on seed and shape alone (numpy Philox)."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)


def euler(velocity: Velocity, noise: Floats, flow: Flow, sampling: Sampling = PLAIN) -> tuple[Floats, int]:
    """Integrate the flow. Returns (horizon, width)-shaped actions in the policy's units and the steps taken.

    x <- x + dt * v(x, t) with dt = (end - start) / steps: Lipman et al., Flow Matching, 2210.02747, explicit Euler.
    """
    steps = sampling.steps or flow.steps
    dt = (flow.end - flow.start) / steps
    stride = np.float32(flow.sign * dt)
    x = noise
    for step in range(steps):
        x = x + stride * velocity(x, flow.start + step * dt)
    return x, steps
