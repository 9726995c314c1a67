# SPDX-License-Identifier: Apache-2.0
"""What a correction costs: the head alone on chunks of 50 x 7, one control step, the features of one moment; and at every
step, what a new observation costs (features, head, course of what is added) and what a tick does.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from reflex_core.chunks.a2c2.checkpoint import Checkpoint
from reflex_core.chunks.a2c2.correction import Correction
from reflex_core.chunks.a2c2.features import Features, Moment, Robot
from reflex_core.chunks.a2c2.head import Head
from reflex_core.chunks.a2c2.steps import Running, StepCorrection
from reflex_core.chunks.interpolation import Bounds, through
from reflex_core.export.binding import Binding
from reflex_core.values import Floats, Frame, Observation

CHUNK, ACTIONS, POSITIONS = 50, 7, 32
SMALL = np.float32(0.1)  # corrections that are not refused for their size
RECIPES = ("runtime256", "state+state_change+previous+named_hue+named_hue_change")


def random_head(obs_dim: int, hidden: int, layers: int) -> Head:
    """A head with weights of a usual size."""
    generator = np.random.default_rng(0)
    widths = [ACTIONS + obs_dim + POSITIONS + 1, *[hidden] * layers, ACTIONS]
    weights = tuple(
        generator.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        for inputs, outputs in itertools.pairwise(widths)
    )
    weights[-1][:] *= SMALL
    biases = tuple(np.zeros(width, np.float32) for width in widths[1:])
    return Head(Checkpoint(Path(), ACTIONS, obs_dim, CHUNK, hidden, layers, POSITIONS, weights, biases))


def observation(seed: int, side: int = 224) -> Observation:
    """An image of random blocks of colour, as raw pixels, and a state."""
    generator = np.random.default_rng(seed)
    pixels = np.repeat(np.repeat(generator.integers(0, 256, (8, 8, 3), np.uint8), side // 8, 0), side // 8, 1)
    state = generator.normal(size=ACTIONS).astype(np.float32)
    return Observation({"camera": Frame(pixels, "rgb8", side, side)}, state, "reach the red block")


def every_step(head: Head, features: Features, actions: Floats) -> dict[str, Callable[[], object]]:
    """A new observation of a chunk that is followed, and a tick in the midst of it."""
    free, dt_s = np.full(ACTIONS, np.inf), 0.05
    binding = Binding(
        {"camera": "camera"}, (), ACTIONS, None, tuple(f"j{n}" for n in range(ACTIONS)), None, np.arange(ACTIONS), None, CHUNK, dt_s
    )  # fmt: skip
    steps = StepCorrection(Correction(head, features, binding), -free, free, np.ones(ACTIONS, np.bool_))
    begin_ns, tick_ns, seen = 10**18, 10_000_000, replace(observation(1), stamp_ns=10**18)
    times_ns = begin_ns + np.arange(CHUNK + 1) * round(dt_s * 1e9)
    rows = np.concatenate([actions[:1], actions]).astype(np.float64)
    motion = through(times_ns, rows, np.zeros(ACTIONS), Bounds.unlimited(ACTIONS), anchored=True)
    steps.follow(Running(actions, actions, motion, begin_ns, dt_s, 0, seen), begin_ns)
    now, stamps = observation(0), itertools.count(begin_ns + 10**8, 1000)
    adjust, row = steps.adjust(slice(None)), actions[5].astype(np.float64)
    return {
        "every step: an observation": lambda: steps.observe(
            replace(now, stamp_ns=next(stamps)), begin_ns + 10**8
        ),
        "every step: a tick": partial(adjust, row, begin_ns + 10**8 + tick_ns),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--calls", type=int, default=2000)
    options.add_argument("--hidden", type=int, default=128)
    options.add_argument("--layers", type=int, default=3)
    given = options.parse_args(arguments)
    generator = np.random.default_rng(1)
    actions = generator.normal(size=(CHUNK, ACTIONS)).astype(np.float32)
    robot = Robot(ACTIONS, ACTIONS)
    moment = Moment(observation(0), observation(1), actions[0])
    rows = []
    for recipe in RECIPES:
        features = Features(recipe, robot)
        head = random_head(features.dim, given.hidden, given.layers)
        vector = features.vector(moment)
        measured: dict[str, Callable[[], object]] = {
            "chunk": partial(head.residual, actions, vector, 100.0),
            "one step": partial(head.residual, actions[:1], vector, 100.0),
            "features, 224x224": partial(features.vector, moment),
        }
        if recipe == RECIPES[1]:
            measured |= every_step(head, features, actions)
        for name, call in measured.items():
            for _ in range(50):
                call()
            p50, p99 = percentiles([milliseconds(call) for _ in range(given.calls)])
            rows.append({"features": recipe, "what": name, "p50 us": p50 * 1e3, "p99 us": p99 * 1e3})
    print(table(rows))
    finish("a2c2_cost", {"hidden": given.hidden, "layers": given.layers, "rows": rows}, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
