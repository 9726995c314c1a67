# SPDX-License-Identifier: Apache-2.0
"""Is the GPU really used, and does it give the same actions? For a machine with CUDA and onnxruntime-gpu.

Loads an export on the CPU and on CUDA, compares the action chunks of a few seeds and times both.
Exit status 1 with one sentence where there is no usable GPU, or where the chunks differ by more than --tolerance.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.exports import Measured, embedded, policy_of
from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from reflex_core.errors import ConfigurationError
from reflex_core.policy.policy import Policy

CUDA = "CUDAExecutionProvider"


def providers_of(policy: Policy) -> dict[str, tuple[str, ...]]:
    """The providers that onnxruntime started for each graph; that CUDA is first is what `device cuda` promises."""
    return {session.path.name: session.providers for session in policy._layout.sessions}


def compare(cpu: Policy, gpu: Policy, seeds: Sequence[int]) -> float:
    """Largest absolute difference of the actions, in the policy's units. Another seed must give another chunk."""
    observation = cpu.canary()
    chunks = [
        (cpu.predict(observation, seed).actions, gpu.predict(observation, seed).actions) for seed in seeds
    ]
    if len(seeds) > 1 and np.array_equal(chunks[0][1], chunks[1][1]):
        raise ConfigurationError("the GPU gives the same chunk for different noise: its inputs are stale")
    return max(float(np.abs(ours - theirs).max()) for ours, theirs in chunks)


def main(argv: Sequence[str] | None = None) -> int:
    """0: CUDA is used and agrees. 1: no GPU, or it does not agree."""
    options = parser(__doc__ or "")
    options.add_argument("--export-dir", type=Path, help="another export than the embedded policy")
    options.add_argument("--embodiment", default="", help="preset that the other export is served for")
    options.add_argument("--rounds", type=int, default=50, help="timed inferences per device (default 50)")
    options.add_argument(
        "--tolerance", type=float, default=1e-3, help="largest difference allowed (default 1e-3)"
    )
    asked = options.parse_args(argv)
    measured = embedded()
    if asked.export_dir is not None:
        measured = Measured(asked.export_dir.name, asked.export_dir, asked.embodiment)
    cpu = policy_of(measured, "cpu")
    try:
        gpu = policy_of(measured, "cuda")
        difference = compare(cpu, gpu, (0, 1, 2))
    except ConfigurationError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 1
    observation = cpu.canary()
    durations: dict[str, list[float]] = {"cpu": [], "cuda": []}
    for number in range(asked.rounds + 3):
        for name, policy in (("cpu", cpu), ("cuda", gpu)):
            took_ms = milliseconds(lambda policy=policy: policy.predict(observation, 0))  # type: ignore[misc]
            if number >= 3:
                durations[name].append(took_ms)
    rows = [
        {"device": name, "p50 ms": percentiles(values)[0], "p99 ms": percentiles(values)[1]}
        for name, values in durations.items()
    ]
    print(table(rows))
    providers = providers_of(gpu)
    for graph, started in providers.items():
        print(f"{graph}: {', '.join(started)}")
    print(f"largest difference of the actions: {difference:.3g}")
    finish("gpu_check", {"devices": rows, "providers": providers, "difference": difference}, asked.output)
    if difference > asked.tolerance:
        print(
            f"gpu_check: the chunks differ by {difference:.3g}, allowed is {asked.tolerance:g}",
            file=sys.stderr,
        )
        return 1
    if any(started[0] != CUDA for started in providers.values()):
        print(f"gpu_check: not every graph runs on {CUDA}: {providers}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
