# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking: what the previous chunk does to each denoise step of the next one.

Black et al., Real-Time Execution of Action Chunking Flow Policies, 2506.07339; the Jacobian is taken as the identity,
so that a graph of one step is enough. Trained on fixed prefixes: 2512.05964.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.export.config_schema import GUIDED, PREFIX
from reflex_core.values import Floats

FEWEST_STEPS = 3  # before a guided loop may count as straight: the guidance itself bends its first steps


@dataclass(frozen=True, slots=True)
class Guidance:
    """The rows of the previous chunk that are still to be executed, moved to where the new chunk has them.

    target, weights: (1, horizon, width) float32, the network's own units; weights in 0..1, 0 where nothing guides.
    delay: the first rows, which are executed before the new chunk is there. max_weight: the paper's beta.
    """

    target: Floats
    weights: Floats
    delay: int
    max_weight: float
    mode: str = GUIDED
    clean_time: float = 0.0

    def guided(self, x: Floats, slope: Floats, left: float, stride: float, span: float) -> Floats:
        """Return the velocity that also leads to the target: equations 2 to 4 of the paper.

        A step never corrects more than the whole difference, which matters where it covers all that is left.

        Args:
            x: (horizon, width), the actions at this flow time.
            slope: The network's velocity at x.
            left: Share of noise still in x, 1..0.
            stride: Share of the flow that the coming step covers.
            span: Flow time from noise to actions, in the direction of the network's velocity.
        """
        if self.mode != GUIDED:
            return slope
        ahead = x + np.float32(left * span) * slope
        gain = min(stride * self._weight(left), 1.0)
        return slope + np.float32(gain / (stride * span)) * (self.weights * (self.target - ahead))

    def _weight(self, left: float) -> float:
        done = 1.0 - left
        if done <= 0 or left <= 0:
            return self.max_weight
        return min(self.max_weight, (left**2 + done**2) / (done * left))

    def fixed(self, velocity: Callable[[Floats, float], Floats]) -> Callable[[Floats, float], Floats]:
        """Wrap the velocity of a network that is shown the first `delay` rows without noise, for PREFIX."""
        if self.mode != PREFIX:
            return velocity
        rows = np.arange(self.target.shape[1]) < self.delay

        def call(x: Floats, time: float) -> Floats:
            times = np.where(rows, np.float32(self.clean_time), np.float32(time))
            # a graph that knows fixed rows takes one time per row, and np.full spreads either over its input
            return velocity(self.finished(x), times)  # type: ignore[arg-type]

        return call

    def finished(self, x: Floats) -> Floats:
        """Return x with the fixed rows put back; x itself where guidance fixes nothing."""
        if self.mode != PREFIX or not self.delay:
            return x
        x = x.copy()
        x[:, : self.delay] = self.target[:, : self.delay]
        return x


def soft_mask(delay: int, end: int, horizon: int) -> NDArray[np.float32]:
    """Return (horizon,) 1 before `delay`, falling to 0 at `end`: equation 5 of 2506.07339, where end is horizon - s."""
    index = np.arange(horizon)
    share = np.clip((end - index) / (end - delay + 1.0), 0.0, 1.0)
    falling = share * np.expm1(share) / np.expm1(1.0)
    weights: NDArray[np.float32] = np.where(index < min(delay, end), 1.0, falling).astype(np.float32)
    return weights


def shifted(rows: Floats, elapsed_rows: float) -> Floats:
    """Return (n, width) from `elapsed_rows` on, linear between rows; shorter by the elapsed rows, empty when all are over."""
    whole = int(np.floor(elapsed_rows + 1e-6))
    part = elapsed_rows - whole
    if part < 1e-6:  # a stamp in nanoseconds over a period in float seconds is never quite whole
        return rows[whole:]
    before, after = rows[whole:-1], rows[whole + 1 :]
    between: Floats = before + np.float32(part) * (after - before)
    return between
