# SPDX-License-Identifier: Apache-2.0
"""What a correction costs: the head alone on chunks of 50 x 7, one control step, and the features of one moment."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from reflex_core.chunks.a2c2.checkpoint import Checkpoint
from reflex_core.chunks.a2c2.features import Features, Moment, Robot
from reflex_core.chunks.a2c2.head import Head
from reflex_core.values import Frame, Observation

CHUNK, ACTIONS, POSITIONS = 50, 7, 32
RECIPES = ("runtime256", "state+state_change+previous+hues12+hues12_change+words32")


def random_head(obs_dim: int, hidden: int, layers: int) -> Head:
    """A head with weights of a usual size."""
    generator = np.random.default_rng(0)
    widths = [ACTIONS + obs_dim + POSITIONS + 1, *[hidden] * layers, ACTIONS]
    weights = tuple(
        generator.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        for inputs, outputs in itertools.pairwise(widths)
    )
    biases = tuple(np.zeros(width, np.float32) for width in widths[1:])
    return Head(Checkpoint(Path(), ACTIONS, obs_dim, CHUNK, hidden, layers, POSITIONS, weights, biases))


def observation(seed: int, side: int = 224) -> Observation:
    """An image of random blocks of colour, as raw pixels, and a state."""
    generator = np.random.default_rng(seed)
    pixels = np.repeat(np.repeat(generator.integers(0, 256, (8, 8, 3), np.uint8), side // 8, 0), side // 8, 1)
    state = generator.normal(size=ACTIONS).astype(np.float32)
    return Observation({"camera": Frame(pixels, "rgb8", side, side)}, state, "reach the red block")


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
