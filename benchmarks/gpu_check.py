# SPDX-License-Identifier: Apache-2.0
"""What a GPU brings to one export, and whether its answers are still right: CUDA, CUDA graphs, TensorRT, float16.

Every row has its milliseconds and, beside them, its largest difference from the CPU in float32 on two inputs that
differ in everything. A request that is cancelled half way must leave the next one as it was.

Exit status 0: every row ran and agrees. 3: what ran agrees, some rows could not run, each with its reason.
1: a row does not agree (also where others could not run). 2: wrong options, or not even the CPU's row runs.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exports import Measured, embedded
from benchmarks.gpu_rows import (
    FP16_TOLERANCE,
    FP32_TOLERANCE,
    CannotRunError,
    ReplayDiffersError,
    Way,
    chosen,
    prefix_devices,
    preload,
    require_provider_of,
    ways,
)
from benchmarks.measure import finish, parser, percentiles, table
from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError, ConfigurationError, InferenceError
from reflex_core.policy.base import Policy
from reflex_core.policy.gpu import first_gpu
from reflex_core.policy.providers import CPU
from reflex_core.values import Floats

ALL_RAN, DISAGREES, CANNOT_START, SOME_NOT_RUN = 0, 1, 2, 3
WARM_UP_RUNS = 3
NEVER_RUN = (
    "No row of CUDA or TensorRT has run here: their code has never run on a GPU as far as this output shows."
)
FIGURES = (
    "differs by", "allowed", "p50 ms", "p99 ms", "prefix ms", "denoise ms", "load s", "prefix on", "cancelled after ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What one way gave. figures: by FIGURES, empty where it did not run. chunks: normalised, of two inputs."""

    name: str
    figures: dict[str, Any]
    problems: tuple[str, ...] = ()
    why_not: str = ""
    chunks: tuple[Floats, ...] = ()


def run_row(way: Way, reference: Sequence[Floats], rounds: int) -> Row:
    """Load one way, compare it with the reference (() for itself), time and cancel it."""
    began = time.perf_counter()
    try:
        policy = way.open()
        require_provider_of(policy, way.provider)
        chunks = tuple(np.array(policy.trial(number)) for number in (0, 1))
        load_s = time.perf_counter() - began
        return _measured(way, policy, chunks, reference or chunks, rounds, load_s)
    except ReplayDiffersError as error:
        return Row(way.name, {}, (f"{way.name}: {error}",))
    except (CannotRunError, ConfigurationError, InferenceError) as error:
        return Row(way.name, {}, why_not=str(error))
    except Exception as error:  # a driver's failure must not cost the other rows
        return Row(way.name, {}, why_not=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _measured(
    way: Way,
    policy: Policy,
    chunks: tuple[Floats, ...],
    reference: Sequence[Floats],
    rounds: int,
    load_s: float,
) -> Row:
    problems = []
    if np.array_equal(*chunks):
        problems.append(f"{way.name} gives the same chunk for two different inputs: its inputs are stale")
    difference = max(
        float(np.abs(ours - theirs).max()) for ours, theirs in zip(chunks, reference, strict=True)
    )
    if not difference <= way.tolerance:
        problems.append(f"{way.name} is {difference:.3g} away from the CPU, allowed is {way.tolerance:g}")
    total_ms, prefix_ms, denoise_ms = timings(policy, rounds)
    p50_ms, p99_ms = percentiles(total_ms)
    stopped_ms, same = cancelled(policy, p50_ms / 2e3)
    if not same:
        problems.append(f"{way.name} answers differently after a cancelled request")
    values = (
        difference, way.tolerance, p50_ms, p99_ms, percentiles(prefix_ms)[0], percentiles(denoise_ms)[0], load_s,
        prefix_devices(policy), stopped_ms,
    )  # fmt: skip
    return Row(way.name, dict(zip(FIGURES, values, strict=True)), tuple(problems), "", chunks)


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


def examine(known: Sequence[Way], rounds: int) -> list[Row]:
    """Run the ways, one loaded at a time; the first is the reference of all."""
    first = run_row(known[0], (), rounds)
    if first.why_not:
        return [first]
    return [first, *(run_row(way, first.chunks, rounds) for way in known[1:])]


def exit_status(rows: Sequence[Row]) -> int:
    """Return what the rows together mean; see the module's documentation."""
    if rows[0].why_not:
        return CANNOT_START
    if any(row.problems for row in rows):
        return DISAGREES
    return SOME_NOT_RUN if any(row.why_not for row in rows) else ALL_RAN


def shown(rows: Sequence[Row]) -> str:
    """Return one table of all rows, `-` where a row has no figure, and the sentences about rows below it."""
    lines = [
        {"way": row.name} | {name: _cell(name, row.figures.get(name)) for name in FIGURES} for row in rows
    ]
    sentences = [f"not run: {row.name}: {row.why_not}" for row in rows if row.why_not]
    return "\n".join([table(lines), *sentences])


def _cell(name: str, value: object) -> object:
    if value is None:
        return "-"
    return f"{value:.1e}" if name in ("differs by", "allowed") else value


def main(argv: Sequence[str] | None = None) -> int:
    """Run every row that can be run here; return the exit status."""
    options = parser(__doc__ or "")
    options.add_argument("--export-dir", type=Path, help="another export than the embedded policy")
    options.add_argument("--embodiment", default="", help="preset that the other export is served for")
    options.add_argument("--rounds", type=int, default=100, help="timed inferences per row (default 100)")
    options.add_argument(
        "--only", nargs="*", default=[], metavar="ROW", help="rows by how their name begins, such as cuda"
    )
    options.add_argument(
        "--tolerance", type=float, default=FP32_TOLERANCE, help="fp32 rows against the CPU (default 1e-3)"
    )
    options.add_argument(
        "--half-tolerance",
        type=float,
        default=FP16_TOLERANCE,
        help="fp16 rows against the CPU (default 2e-2)",
    )
    arguments = options.parse_args(argv)
    measured = embedded()
    if arguments.export_dir is not None:
        measured = Measured(arguments.export_dir.name, arguments.export_dir, arguments.embodiment)
    preload()
    with tempfile.TemporaryDirectory(prefix="reflex-gpu-check-") as scratch:
        try:
            known = ways(measured, Path(scratch), arguments.tolerance, arguments.half_tolerance)
            rows = examine(chosen(known, arguments.only), arguments.rounds)
        except ConfigurationError as error:
            print(f"gpu_check: {error}", file=sys.stderr)
            return CANNOT_START
    print(shown(rows))
    providers = {way.name: way.provider for way in known}
    on_gpu = [row.name for row in rows if row.figures and providers[row.name] != CPU]
    if not on_gpu:
        print(NEVER_RUN)
    problems = [problem for row in rows for problem in row.problems]
    status = exit_status(rows)
    results = {
        "export": measured.name,
        "gpu": first_gpu(),
        "rows": [
            {"way": row.name, "ran": bool(row.figures), "why_not": row.why_not} | row.figures for row in rows
        ],
        "ran_on_a_gpu": on_gpu,
        "problems": problems,
        "exit_status": status,
    }
    finish("gpu_check", results, arguments.output)
    for problem in problems:
        print(f"gpu_check: {problem}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
