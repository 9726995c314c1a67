# SPDX-License-Identifier: Apache-2.0
"""What a denoise step of a per-step export costs besides its graph: processor time of this thread, in turns.

The loop as a policy runs it (binding, clock, Euler step, cancellation), against the same graph run as often on tensors that
were bound once and never change. Each twice, so that the second pair is a null run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

from benchmarks.exports import ROOT
from benchmarks.measure import finish, parser, table
from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.export.export import open_export
from reflex_core.export.tensor import TensorInfo
from reflex_core.policy.flow_matching import network
from reflex_core.policy.layouts import load_layout
from reflex_core.policy.sampler import PLAIN, start_noise

LOOPS = 200  # per measurement: one loop alone is near the resolution of the clock


def loops(folder: Path) -> tuple[int, Callable[[], object], Callable[[], object]]:
    """The number of steps, the graph alone, run once for each step, and the loop that the policy runs. Both on one thread, of equal inputs."""
    sys.path.append(str(ROOT / "test" / "support"))
    from exports import decomposed  # the tests are no package

    decomposed(per_step=True, chunk=50)(folder)
    layout = load_layout(network, open_export(folder), "cpu", 1)
    contract, (prefix, denoise) = layout.contract, layout.sessions
    made = prefix.run({name: prefix.tensor(name, array) for name, array in _zeros(prefix.inputs).items()})
    arrays = _zeros(denoise.inputs)
    noise = start_noise(0, (1, contract.horizon, contract.width))
    session = denoise._ort  # type: ignore[attr-defined]
    fed = {name: denoise.tensor(name, array) for name, array in arrays.items()}
    linked = {name: contract.links.get(name, name) for name in fed}
    fed |= {name: made[source] for name, source in linked.items() if source in made}
    fed[contract.flow_names["x"]] = denoise.tensor(contract.flow_names["x"], noise)
    velocity = contract.flow_names["velocity"]
    result = denoise.tensor(contract.flow_names["x"], np.empty_like(noise))
    binding = denoise.bound(fed, {velocity: result})  # type: ignore[attr-defined]
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")

    kept = fed, result  # onnxruntime only borrows the arrays

    def graph_alone() -> object:
        for _ in range(contract.flow.steps):
            session.run_with_iobinding(binding, options)
        return kept

    def as_served() -> object:
        return layout.network.sample(arrays, made, noise, PLAIN, Cancellation())

    return contract.flow.steps, graph_alone, as_served


def _zeros(inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    return {name: np.zeros(info.sized(), info.dtype) for name, info in inputs.items()}


def cpu_us(call: Callable[[], object]) -> float:
    """Processor time of this thread for one call, the mean of LOOPS."""
    began = time.thread_time_ns()
    for _ in range(LOOPS):
        call()
    return (time.thread_time_ns() - began) / LOOPS / 1e3


def main(argv: Sequence[str] | None = None) -> int:
    """Print the loop, the graph alone, and the difference per step."""
    options = parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=15, help="measurements of each (default %(default)s)")
    arguments = options.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        steps, graph_alone, as_served = loops(Path(folder))
        calls = {"graph": graph_alone, "loop": as_served, "graph, null": graph_alone, "loop, null": as_served}
        found: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(arguments.rounds + 1):
            for name, call in calls.items():
                took_us = cpu_us(call)
                if number:  # the first round fills caches
                    found[name].append(took_us)
    middle = {name: median(values) for name, values in found.items()}
    rows = [
        {
            "run": run.strip(", ") or "measured",
            "loop us": middle[f"loop{run}"],
            "graph alone us": middle[f"graph{run}"],
            "own us per step": (middle[f"loop{run}"] - middle[f"graph{run}"]) / steps,
        }
        for run in ("", ", null")
    ]
    print(table(rows))
    finish("step_cost", {"steps": steps, "rows": rows}, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
