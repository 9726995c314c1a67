# SPDX-License-Identifier: Apache-2.0
"""Reproduces models/reach_panda from seeds: data, training, export, verification. Skips what it finds done.

python -m training.run [--work FOLDER] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAINING_IMAGES, TRAINING_SEED = 14_000, 1
HELD_OUT_IMAGES, HELD_OUT_SEED = 600, 2


def run_module(name: str, *arguments: object) -> None:
    command = [sys.executable, "-m", name, *map(str, arguments)]
    print("$", *command, flush=True)
    subprocess.run(command, cwd=ROOT, check=True)


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
    moments, later = work / "a2c2_train.npz", work / "a2c2_held_out.npz"
    if not moments.exists():
        run_module("training.a2c2_data", out, "--first-seed", 20_000, "--count", 600, "--out", moments)
    if not later.exists():
        run_module("training.a2c2_data", out, "--first-seed", 10_000, "--count", 50, "--out", later)
    run_module("training.a2c2", "--data", moments, "--held-out", later, "--out", out / "a2c2.npz")
    run_module("training.parity", out)
    run_module("training.verify", "--weights", weights, "--export", out)


if __name__ == "__main__":
    main()
