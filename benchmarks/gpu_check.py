# SPDX-License-Identifier: Apache-2.0
"""Is the GPU really used, are CUDA graphs right, and what do they bring? For a machine with CUDA and onnxruntime-gpu.

Loads an export on the CPU, on CUDA and on CUDA with graphs. On two inputs that differ in everything, CUDA must agree
with the CPU and the graphs with eager CUDA; a request that is cancelled half way must leave the next one as it was.
Exit status 1 with one sentence where there is no usable GPU, or where something does not hold.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.exports import Measured, embedded, policy_of
from benchmarks.measure import finish, parser, percentiles, table
from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError, ConfigurationError
from reflex_core.policy.base import Policy
from reflex_core.policy.providers import CUDA, LoadOptions

CPU_ROW, EAGER_ROW, GRAPH_ROW = "cpu", "cuda eager", "cuda graphs"
WARM_UP_RUNS = 3


class Counted:
    """GraphMetrics that counts."""

    def __init__(self) -> None:
        self.captures: list[str] = []
        self.failures: list[str] = []
        self.replays = 0

    def captured(self, session: str, seconds: float) -> None:
        self.captures.append(f"{session} in {seconds * 1e3:.0f} ms")

    def replayed(self, session: str, seconds: float) -> None:
        del session, seconds
        self.replays += 1

    def eager_fallback(self, reason: str) -> None:
        self.failures.append(reason)

    def capture_failed(self, session: str, reason: str) -> None:
        self.failures.append(f"{session}: {reason}")


@dataclass(frozen=True, slots=True)
class Findings:
    """What is printed and written; `problems` is empty when everything holds."""

    rows: list[dict[str, object]]
    problems: list[str]


def examine(
    policies: Mapping[str, Policy], references: Mapping[str, tuple[str, float]], rounds: int
) -> Findings:
    """Compare, time and cancel. references: which row a row must agree with, and how closely (normalised actions)."""
    chunks = {name: [policy.trial(number) for number in (0, 1)] for name, policy in policies.items()}
    problems = [
        f"{name} gives the same chunk for two different inputs: its inputs are stale"
        for name, (first, second) in chunks.items()
        if np.array_equal(first, second)
    ]
    rows: list[dict[str, object]] = []
    for name, policy in policies.items():
        reference, allowed = references.get(name, (name, 0.0))
        difference = max(
            float(np.abs(ours - theirs).max())
            for ours, theirs in zip(chunks[name], chunks[reference], strict=True)
        )
        if not difference <= allowed:
            problems.append(f"{name} is {difference:.3g} away from {reference}, allowed is {allowed:g}")
        total_ms, prefix_ms, denoise_ms = timings(policy, rounds)
        p50_ms, p99_ms = percentiles(total_ms)
        stopped_ms, same = cancelled(policy, p50_ms / 2e3)
        if not same:
            problems.append(f"{name} answers differently after a cancelled request")
        rows.append({
            "where": name, "p50 ms": p50_ms, "p99 ms": p99_ms, "prefix ms": percentiles(prefix_ms)[0],
            "denoise ms": percentiles(denoise_ms)[0], "differs by": f"{difference:.1e}", "from": reference,
            "cancelled after": f"{stopped_ms:.2f} ms" if stopped_ms is not None else "(it was done)",
        })  # fmt: skip
    return Findings(rows, problems)


def timings(policy: Policy, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """(total, prefix, denoise) in ms of each inference after the warm-up."""
    observation = policy.canary()
    total_ms: list[float] = []
    prefix_ms: list[float] = []
    denoise_ms: list[float] = []
    for number in range(rounds + WARM_UP_RUNS):
        began = time.perf_counter()
        stages = policy.predict(observation, 0).stages_ms
        if number >= WARM_UP_RUNS:
            total_ms.append((time.perf_counter() - began) * 1e3)
            prefix_ms.append(stages["vlm_prefix_ms"])
            denoise_ms.append(stages["expert_denoise_ms"])
    return total_ms, prefix_ms, denoise_ms


def cancelled(policy: Policy, after_s: float) -> tuple[float | None, bool]:
    """(ms from cancelling to the end of the inference, or None where it was done before; next answer the same)."""
    observation = policy.canary()
    expected = policy.predict(observation, 0).actions
    cancellation = Cancellation()
    called: list[float] = []

    def cancel() -> None:
        called.append(time.perf_counter())
        cancellation.cancel()

    timer = threading.Timer(after_s, cancel)
    timer.start()
    stopped_ms = None
    try:
        policy.predict(observation, 0, cancellation=cancellation)
    except CancelledError:
        stopped_ms = (time.perf_counter() - called[0]) * 1e3
    timer.cancel()
    timer.join()
    return stopped_ms, bool(np.array_equal(policy.predict(observation, 0).actions, expected))


def off_the_gpu(policy: Policy) -> list[str]:
    """The graphs whose first provider is not CUDA."""
    return [
        f"{session.path.name} runs on {session.providers[0]}, not on {CUDA}"
        for session in policy._layout.sessions
        if session.providers[0] != CUDA
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """0: the GPU is used and everything holds. 1: no GPU, or something does not hold."""
    options = parser(__doc__ or "")
    options.add_argument("--export-dir", type=Path, help="another export than the embedded policy")
    options.add_argument("--embodiment", default="", help="preset that the other export is served for")
    options.add_argument("--rounds", type=int, default=100, help="timed inferences per row (default 100)")
    options.add_argument(
        "--tolerance", type=float, default=1e-3, help="CUDA against CPU, normalised actions (default 1e-3)"
    )
    options.add_argument(
        "--graph-tolerance", type=float, default=1e-4, help="graphs against eager CUDA (default 1e-4)"
    )
    arguments = options.parse_args(argv)
    measured = embedded()
    if arguments.export_dir is not None:
        measured = Measured(arguments.export_dir.name, arguments.export_dir, arguments.embodiment)
    counted = Counted()
    try:
        eager = policy_of(measured, "cuda")
        graphs = policy_of(measured, "cuda", 1, LoadOptions(cuda_graphs=True, graph_metrics=counted))
    except ConfigurationError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 1
    notes = [*graphs.notes, *graphs.capture_graphs()]
    found = examine(
        {CPU_ROW: policy_of(measured, "cpu"), EAGER_ROW: eager, GRAPH_ROW: graphs},
        {EAGER_ROW: (CPU_ROW, arguments.tolerance), GRAPH_ROW: (EAGER_ROW, arguments.graph_tolerance)},
        arguments.rounds,
    )
    problems = [*off_the_gpu(eager), *counted.failures, *found.problems]
    if not counted.replays:
        problems.append("no CUDA graph was replayed")
    print(table(found.rows))
    print(f"captured: {', '.join(counted.captures) or 'nothing'}; replays: {counted.replays}")
    for note in notes:
        print(f"note: {note}")
    results = {"rows": found.rows, "captured": counted.captures, "replays": counted.replays, "notes": notes}
    finish("gpu_check", results | {"problems": problems}, arguments.output)
    for problem in problems:
        print(f"gpu_check: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
