# SPDX-License-Identifier: Apache-2.0
"""Reproduces models/reach_panda from seeds: data, training, export, verification. Skips what it finds done.

python -m training.run [--work FOLDER] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAINING_IMAGES, TRAINING_SEED = 14_000, 1
HELD_OUT_IMAGES, HELD_OUT_SEED = 600, 2
MOMENTS_SEED, MOMENTS_EPISODES = 20_000, 160
OWN_SEED, OWN_EPISODES = 21_000, 240
LATER_SEED, LATER_EPISODES = 10_000, 50
OWN_ITERATIONS = 6_000
OLDEST = 28  # control steps: twice the longest delay of the episodes, and some


def run_module(name: str, *arguments: object) -> None:
    command = [sys.executable, "-m", name, *map(str, arguments)]
    print("$", *command, flush=True)
    # with more threads numpy may round differently
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})


def train_correction(work: Path, out: Path) -> None:
    """The correction head: one from episodes of uncorrected chunks, then one from those and episodes of the first."""
    moments, own, later = (work / f"a2c2_{name}.npz" for name in ("train", "own", "held_out"))
    first, data = work / "a2c2_first.npz", "training.a2c2_data"
    if not moments.exists():
        run_module(data, out, "--first-seed", MOMENTS_SEED, "--count", MOMENTS_EPISODES, "--out", moments)
    if not later.exists():
        run_module(data, out, "--first-seed", LATER_SEED, "--count", LATER_EPISODES, "--out", later)
    if not first.exists():
        run_module("training.a2c2", "--data", moments, "--held-out", later, "--out", first)
    if not own.exists():
        run_module(
            data, out, "--first-seed", OWN_SEED, "--count", OWN_EPISODES, "--head", first, "--out", own
        )
    run_module(
        "training.a2c2", "--data", moments, own, "--oldest", OLDEST, "--iterations", OWN_ITERATIONS, "--held-out", later,
        "--out", out / "a2c2.npz",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=ROOT / "training" / "out", help="where images and weights go"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "reach_panda")
    arguments = parser.parse_args()
    work, out = arguments.work.resolve(), arguments.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    images, held_out, weights = work / "train.npz", work / "held_out.npz", work / "policy.pt"
    if not images.exists():
        run_module("training.data", "--count", TRAINING_IMAGES, "--seed", TRAINING_SEED, "--out", images)
    if not held_out.exists():
        run_module("training.data", "--count", HELD_OUT_IMAGES, "--seed", HELD_OUT_SEED, "--out", held_out)
    if not weights.exists():
        run_module("training.train", "--data", images, "--held-out", held_out, "--out", weights)
    run_module("training.export", "--weights", weights, "--out", out)
    run_module("reflex_ros.cli.main", "calibrate-adaptive", out, "--write")
    run_module("benchmarks.prefix_reuse", "--write", out)
    train_correction(work, out)
    run_module("training.parity", out)
    run_module("training.verify", "--weights", weights, "--export", out)


if __name__ == "__main__":
    main()
