# SPDX-License-Identifier: Apache-2.0
"""The correction head: a residual network over every action of a chunk at once (arXiv 2509.23224).

    z         = network(action, observation, position encoding, latency in ms)
    residual  = tanh(z / s) * s
    corrected = action + residual

The observation and the latency are the same for all rows, and the position encoding is known beforehand, so their share
of the first layer is computed once and not per row.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.a2c2.checkpoint import Checkpoint
from reflex_core.values import Floats

_GELU_SCALE = np.float32(math.sqrt(2 / math.pi))
_GELU_CUBIC = np.float32(0.044715)
_HALF, _ONE = np.float32(0.5), np.float32(1)


def position_encoding(count: int, dim: int) -> Floats:
    """Return (count, dim) float32: column i holds sin(p / 10000^(i / dim)), column i + 1 its cosine, for even i."""
    positions = np.arange(count, dtype=np.float64)[:, None]
    even = np.arange(0, dim, 2)
    angles = positions / 10000.0 ** (even / dim)
    encoding = np.zeros((count, dim), dtype=np.float32)
    encoding[:, 0::2] = np.sin(angles)
    encoding[:, 1::2] = np.cos(angles)[:, : dim // 2]
    return encoding


def gelu(x: Floats) -> Floats:
    """Return 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), Hendrycks and Gimpel 2016; `x` is overwritten."""
    inner = x * x
    inner *= _GELU_CUBIC
    inner += _ONE
    inner *= x
    inner *= _GELU_SCALE
    np.tanh(inner, out=inner)
    inner += _ONE
    x *= _HALF
    x *= inner
    return x


class Head:
    """The network of one checkpoint. Stateless: called from several threads at once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._scale = np.float32(checkpoint.output_saturation_scale)
        first = checkpoint.weights[0].T
        ends = np.cumsum((checkpoint.action_dim, checkpoint.obs_dim, checkpoint.position_encoding_dim))
        of_action, of_observation, of_position, of_latency = np.split(first, ends)
        self._of_action = np.ascontiguousarray(of_action)
        self._of_observation = np.ascontiguousarray(of_observation)
        self._of_latency = of_latency[0]
        encoding = position_encoding(checkpoint.chunk_size, checkpoint.position_encoding_dim)
        self._of_row = encoding @ of_position + checkpoint.biases[0]
        self._rest = [
            (np.ascontiguousarray(weight.T), bias)
            for weight, bias in zip(checkpoint.weights[1:], checkpoint.biases[1:], strict=True)
        ]

    def residual(
        self,
        actions: Floats,
        observation: Floats,
        latency_ms: float,
        positions: NDArray[np.intp] | None = None,
    ) -> Floats:
        """Return what to add to `actions`, (rows, action_dim) float32 in their units.

        Args:
            actions: (rows, action_dim).
            observation: (obs_dim,).
            latency_ms: Age of the chunk's observation.
            positions: (rows,) index of each row in its chunk, 0, 1, 2, ... where not given; those beyond the head's chunk
                size count as its last.
        """
        last = self.checkpoint.chunk_size - 1
        rows = np.arange(len(actions)) if positions is None else positions
        hidden = actions @ self._of_action
        hidden += self._of_row[np.minimum(rows, last)]
        hidden += observation @ self._of_observation + self._of_latency * np.float32(latency_ms)
        for weight, bias in self._rest:
            hidden = gelu(hidden) @ weight
            hidden += bias
        residual: Floats = np.tanh(hidden / self._scale) * self._scale
        return residual
