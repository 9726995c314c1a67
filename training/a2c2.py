# SPDX-License-Identifier: Apache-2.0
"""Trains the correction head of the embedded policy and measures it on scenes it has not seen. Plain numpy, one thread.

What it learns: a row of a chunk from an old observation, and what is seen and felt now, become what is wanted for the same
moment by who knows what is now: the demonstrator, or the policy itself in a chunk from now. The format is that of
reflex_core/chunks/a2c2/checkpoint.py; the standardisation of the inputs is folded into the first layer.

    python -m training.a2c2 --data train.npz --held-out held_out.npz --out a2c2.npz
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.a2c2.checkpoint import Checkpoint, write_checkpoint
from reflex_core.chunks.a2c2.features import HUES, hue_of
from reflex_core.chunks.a2c2.head import Head, position_encoding
from reflex_core.values import Floats
from reflex_ros.console.terminal import Bar
from training.a2c2_data import Moments, joined, load

RECIPE = "state+state_change+previous+named_hue+named_hue_change"
ACTION_DIM, CHUNK_SIZE, HIDDEN, LAYERS, POSITIONS = 7, 50, 128, 3, 32
PERIOD_MS = 50.0
SATURATION = 3.0
OLDEST = 40
LONGEST_EPISODE = 1 << 32
NOTHING_NEW_SHARE = 0.15
NEAR_SHARE, NEAR_ROWS = 0.5, 4
ITERATIONS, BATCH = 4_000, 1024
RATE, WEIGHT_DECAY = 2e-3, 1e-2
CONSTANT_STD = 1e-4
REPORT_EVERY = 500
OBS_DIM = 3 * ACTION_DIM + 2 * 3
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """inputs: (N, in) as the head takes them. target: (N, 7) the residual that would be right."""

    inputs: Floats
    target: Floats


def named(moments: Moments) -> Floats:
    """(M, 3): of the colours that are seen, the one that each instruction names."""
    texts, text = np.unique(moments.instructions, return_inverse=True)
    bins = np.array([-1 if (bin_ := hue_of(str(one))) is None else bin_ for one in texts])[text]
    found = moments.hues[np.arange(len(bins))[:, None], bins[:, None] + HUES * np.arange(3)]
    return np.where(bins[:, None] < 0, np.float32(0), found)


def observed(moments: Moments, now: Index, seen: Index, hue: Floats, executed: Index | None = None) -> Floats:
    """(N, obs_dim): RECIPE for many pairs of moments at once; test_a2c2_training.py holds it against Features.

    hue: (M, 3) as `named` finds it. executed: when the previous action was executed, `now` where not given.
    """
    state = moments.states[now]
    return np.concatenate([
        state, state - moments.states[seen], moments.previous[now if executed is None else executed],
        hue[now], hue[now] - hue[seen],
    ], axis=1)  # fmt: skip


class Sampler:
    """Draws a moment, an earlier one of its episode that a chunk was made at, and a row of that which is still to come.

    Often it is one of the next rows: where the head acts at every step, the later ones are corrected again before they are due.
    """

    def __init__(self, moments: Moments, seed: int, oldest: int = OLDEST) -> None:
        self._moments = moments
        self._generator = np.random.default_rng(seed)
        self._encoding = position_encoding(CHUNK_SIZE, POSITIONS)
        along = moments.episodes * LONGEST_EPISODE + moments.rows  # ascending, and far apart between episodes
        first = np.maximum(moments.rows - oldest, 0)
        self._earliest = np.searchsorted(along, along - moments.rows + first)
        self._hue = named(moments)

    def draw(self, count: int) -> Batch:
        """Some pairs have nothing newer than the chunk's own observation; there is nothing to correct then."""
        generator, moments = self._generator, self._moments
        now = generator.integers(0, len(moments.rows), count)
        seen = generator.integers(self._earliest[now], now + 1)
        age = moments.rows[now] - moments.rows[seen]
        near = generator.random(count) < NEAR_SHARE
        row = generator.integers(age, np.where(near, np.minimum(age + NEAR_ROWS, CHUNK_SIZE), CHUNK_SIZE))
        base = moments.chunks[seen, row]
        target = moments.wanted[now, row - age] - base
        blind = generator.random(count) < NOTHING_NEW_SHARE
        target[blind | (age == 0)] = 0
        observation = observed(moments, np.where(blind, seen, now), seen, self._hue, executed=now)
        latency_ms = (age * PERIOD_MS).astype(np.float32)[:, None]
        inputs = np.concatenate([base, observation, self._encoding[row], latency_ms], axis=1)
        return Batch(inputs, target)


@dataclass
class Network:
    """Weights (outputs, inputs) and biases of the layers, on standardised inputs."""

    weights: list[Floats]
    biases: list[Floats]

    def parameters(self) -> list[Floats]:
        return [*self.weights, *self.biases]

    def loss(self, inputs: Floats, target: Floats) -> tuple[float, list[Floats]]:
        """Mean squared error, and its gradient for each of `parameters()`."""
        hidden, slopes, entered = inputs, [], []
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            entered.append(hidden)
            hidden = hidden @ weight.T + bias
            if number < len(self.weights) - 1:
                hidden, slope = _gelu(hidden)
                slopes.append(slope)
        bounded = np.tanh(hidden / SATURATION)
        error = bounded * SATURATION - target
        back = 2 / error.size * error * (1 - bounded**2)
        of_weights, of_biases = [], []
        for number in reversed(range(len(self.weights))):
            of_weights.append(back.T @ entered[number])
            of_biases.append(back.sum(0))
            if number:
                back = back @ self.weights[number] * slopes[number - 1]
        return float(np.mean(error**2)), [*reversed(of_weights), *reversed(of_biases)]


def _gelu(x: Floats) -> tuple[Floats, Floats]:
    """The tanh form of GELU and its derivative."""
    scale, cubic = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
    square = x * x
    curve = np.tanh(scale * x * (1 + cubic * square))
    half = np.float32(0.5)
    return half * x * (1 + curve), half * (1 + curve) + half * x * (1 - curve**2) * scale * (
        1 + 3 * cubic * square
    )


def new_network(inputs: int, seed: int) -> Network:
    generator = np.random.default_rng(seed)
    widths = [inputs, *[HIDDEN] * LAYERS, ACTION_DIM]
    weights = [
        generator.normal(0, width**-0.5, (outputs, width)).astype(np.float32)
        for width, outputs in itertools.pairwise(widths)
    ]
    weights[-1] *= np.float32(0.1)  # begin with hardly any correction
    return Network(weights, [np.zeros(width, np.float32) for width in widths[1:]])


class AdamW:
    """Adam with decoupled weight decay on matrices (Loshchilov and Hutter 2019)."""

    def __init__(self, parameters: list[Floats]) -> None:
        self._mean = [np.zeros_like(value) for value in parameters]
        self._square = [np.zeros_like(value) for value in parameters]
        self._steps = 0

    def step(self, parameters: list[Floats], gradients: list[Floats], rate: float) -> None:
        """Change the parameters in place."""
        self._steps += 1
        unbias, unbias_square = 1 - 0.9**self._steps, 1 - 0.99**self._steps
        for index, (value, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            mean, square = self._mean[index], self._square[index]
            mean += 0.1 * (gradient - mean)
            square += 0.01 * (gradient**2 - square)
            change = (mean / unbias) / (np.sqrt(square / unbias_square) + 1e-8)
            decay = WEIGHT_DECAY * value if value.ndim == 2 else 0
            np.subtract(value, np.float32(rate) * (change + decay), out=value)


def train(
    moments: Moments, iterations: int, seed: int, oldest: int = OLDEST
) -> tuple[Network, Floats, Floats]:
    """(average of the weights, mean and std of the inputs); the rate falls like a cosine. oldest: age of a chunk in rows."""
    sampler = Sampler(moments, seed, oldest)
    sample = sampler.draw(20_000).inputs
    mean, std = sample.mean(0), sample.std(0)
    std[std < CONSTANT_STD] = np.inf  # what never changes in training must not matter later
    network = new_network(len(mean), seed)
    average = [value.copy() for value in network.parameters()]
    optimiser = AdamW(average)
    reported, bar = 0.0, Bar()
    for iteration in range(1, iterations + 1):
        batch = sampler.draw(BATCH)
        loss, gradients = network.loss((batch.inputs - mean) / std, batch.target)
        rate = RATE * min(1.0, iteration / 100) * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
        keep = min(0.999, (1 + iteration) / (10 + iteration))
        optimiser.step(network.parameters(), gradients, rate)
        for kept, value in zip(average, network.parameters(), strict=True):
            np.add(kept, np.float32(1 - keep) * (value - kept), out=kept)
        reported += loss / REPORT_EVERY
        bar.draw(iteration / iterations, "training: correction head")
        if iteration % REPORT_EVERY == 0:
            bar.clear()
            print(f"{iteration}/{iterations} cpu {time.process_time():.0f} s loss {reported:.5f}", flush=True)
            reported = 0.0
    return Network(average[: LAYERS + 1], average[LAYERS + 1 :]), mean, std


def checkpoint_of(network: Network, mean: Floats, std: Floats, path: Path) -> Checkpoint:
    """The head on plain inputs: w (x - mean) / std + b is (w / std) x + (b - w mean / std)."""
    scaled = network.weights[0].astype(np.float64) / std
    first, bias = scaled.astype(np.float32), (network.biases[0] - scaled @ mean).astype(np.float32)
    return Checkpoint(
        path, ACTION_DIM, OBS_DIM, CHUNK_SIZE, HIDDEN, LAYERS, POSITIONS,
        (first, *network.weights[1:]), (bias, *network.biases[1:]), SATURATION, RECIPE,
    )  # fmt: skip


@dataclass(frozen=True)
class Error:
    """How far rows are from what a fresh chunk says, RMS over joints in std of the action; one number per episode."""

    plain: NDArray[np.float64]
    corrected: NDArray[np.float64]


def measure(head: Head, moments: Moments, delay: int, rows: int = 25, every: int = 3) -> Error:
    """Chunks that arrive `delay` steps late, corrected once on arrival; the `rows` that would then be executed."""
    plain, corrected, hue = [], [], named(moments)
    for episode in np.unique(moments.episodes):
        own = np.flatnonzero(moments.episodes == episode)
        at = dict(zip(moments.rows[own].tolist(), own.tolist(), strict=True))
        pairs = [(now, at[row - delay]) for row, now in at.items() if row - delay in at][::every]
        if not pairs:
            continue
        now, seen = np.array(pairs).T
        vectors = observed(moments, now, seen, hue)
        late = moments.chunks[seen]
        new = late + [
            head.residual(chunk, vector, delay * PERIOD_MS)
            for chunk, vector in zip(late, vectors, strict=True)
        ]
        wanted, due = moments.chunks[now, :rows], slice(delay, delay + rows)
        plain.append(np.sqrt(np.mean((late[:, due] - wanted) ** 2)))
        corrected.append(np.sqrt(np.mean((new[:, due] - wanted) ** 2)))
    return Error(np.array(plain), np.array(corrected))


def report(head: Head, moments: Moments, seed: int = 0) -> str:
    """A Markdown table: error per delay without and with the head, and a 95 % bootstrap interval of the difference."""
    generator = np.random.default_rng(seed)
    lines = ["| delay, steps | plain | corrected | difference, 95 % |", "|---|---|---|---|"]
    for delay in (0, 1, 2, 4, 6, 8, 10, 12):
        error = measure(head, moments, delay)
        difference = error.corrected - error.plain
        draws = generator.integers(0, len(difference), (2000, len(difference)))
        low, high = np.percentile(difference[draws].mean(1), (2.5, 97.5))
        lines.append(
            f"| {delay} | {error.plain.mean():.4f} | {error.corrected.mean():.4f} | {low:+.4f} to {high:+.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument(
        "--oldest", type=int, default=OLDEST, help="age of the chunks corrected, control steps"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = joined([load(path) for path in arguments.data])
    network, mean, std = train(data, arguments.iterations, arguments.seed, arguments.oldest)
    checkpoint = checkpoint_of(network, mean, std, arguments.out)
    write_checkpoint(checkpoint)
    print(report(Head(checkpoint), load(arguments.held_out)))


if __name__ == "__main__":
    main()
