# SPDX-License-Identifier: Apache-2.0
"""Reproduces models/pick_panda from seeds: data, training, export, verification. Skips what it finds done.

    python -m training.pick_run [--work FOLDER] [--out FOLDER]

At most two processes at a time, each on one thread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from training.pick_demonstrator import GRID_FOLDER
from training.run import ROOT, run_module

SEED = 0
EPISODES, OWN_EPISODES = 700, 220  # of the demonstrator and of the policy itself, by each of two processes
SEE_ITERATIONS, ACT_ITERATIONS, JOINT_ITERATIONS = 900, 1500, 600
HALVES = (1, 2)


def run_beside(*commands: tuple[str, tuple[object, ...]]) -> None:
    """Run modules at the same time. Raises CalledProcessError when one fails, after all have ended."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    processes = []
    for name, arguments in commands:
        command = [sys.executable, "-m", name, *map(str, arguments)]
        print("$", *command, flush=True)
        processes.append((command, subprocess.Popen(command, cwd=ROOT, env=environment)))
    for command, process in [(command, process) for command, process in processes if process.wait() != 0]:
        raise subprocess.CalledProcessError(process.returncode, command)


def collect(paths: list[Path], episodes: int, first_seed: int, policy: Path | None = None) -> None:
    """Make the frames of each path that is not there yet."""
    acting = () if policy is None else ("--policy", policy)
    missing = [(half, path) for half, path in zip(HALVES, paths, strict=True) if not path.exists()]
    run_beside(
        *(
            (
                "training.pick_data",
                ("--episodes", episodes, "--seed", first_seed + half, "--out", path, *acting),
            )
            for half, path in missing
        )
    )


def train_halves(data: list[Path], see: Path, act: Path) -> None:
    stages = (("see", see, SEE_ITERATIONS), ("act", act, ACT_ITERATIONS))
    run_beside(
        *(
            (
                "training.pick_train",
                (stage, "--data", *data, "--iterations", iterations, "--seed", SEED, "--out", out),
            )
            for stage, out, iterations in stages
            if not out.exists()
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=ROOT / "training" / "out", help="where frames and weights go"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "pick_panda")
    arguments = parser.parse_args()
    work, out = arguments.work.resolve(), arguments.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ[GRID_FOLDER] = str(work)
    data = [work / f"demonstrated{half}.npz" for half in HALVES]
    own = [work / f"own{half}.npz" for half in HALVES]
    see, act, merged, joint = (work / f"{name}.pt" for name in ("see", "act", "merged", "joint"))
    collect(data, EPISODES, 100)
    train_halves(data, see, act)
    if not merged.exists():
        run_module("training.pick_train", "merge", "--start", see, act, "--out", merged)
    if not joint.exists():
        run_module("training.pick_export", "--weights", merged, "--out", work / "merged")
        collect(own, OWN_EPISODES, 300, work / "merged")
        stage = ("joint", "--data", *data, "--own", *own, "--start", merged, "--iterations", JOINT_ITERATIONS)
        run_beside(("training.pick_train", (*stage, "--seed", SEED + 1, "--out", joint)))
    run_module("training.pick_export", "--weights", joint, "--out", out)
    run_module("training.pick_verify", "--weights", joint, "--see", see, "--export", out)


if __name__ == "__main__":
    main()
