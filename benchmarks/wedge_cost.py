# SPDX-License-Identifier: Apache-2.0
"""What each wedge adds to a request, and all of them together: microseconds on the caller's clock.

Each wedge of an engine that has all of them on is put alone around a policy that answers at once with a clean chunk, and then all
of them in their order; the variants take turns so that noise hits all alike. What background threads do with the record
afterwards is not on the caller's clock, but takes its core: the records are really written.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from reflex_core.engine.engine import Engine
from reflex_core.settings.table import settings_from
from reflex_core.values import Request, Served
from reflex_core.wedges.order import ORDER, middleware_chain
from reflex_core.wedges.wedge import Proceed, Wedge
from reflex_ros.sidecar.server_connections import connect_cloud

DRAIN_S = 1.3  # recorders write once a second: on a robot that is between requests, so it is here
BATCH = 20  # requests per measurement: one alone is near the resolution of the clock


def everything_on(folder: Path) -> Engine:
    """The embedded policy, ready, with every wedge that runs on a CPU."""
    safety = folder / "limits.json"
    safety.write_text(json.dumps(LIMITS))
    engine = Engine(settings_from({
        "device": "cpu", "intra_op_threads": 1, "embodiment": "franka", "safety_config": str(safety),
        "adaptive_steps": True, "deadline_ms": 10_000.0, "cloud_fallback": "http://127.0.0.1:9",
        "slo": "p99=150ms", "record": str(folder / "traces"), "audit_log": str(folder / "audit"),
        "robot_id": "benchmark",
    }), connect_cloud)  # fmt: skip
    engine.load()
    engine.warm_up()
    return engine


LIMITS = {
    "joint_names": [f"panda_joint{number}" for number in range(1, 8)],
    "position_min": [-2.8, -1.7, -2.8, -3.0, -2.8, 0.0, -2.8],
    "position_max": [2.8, 1.7, 2.8, -0.1, 2.8, 3.7, 2.8],
    "velocity_max": [2.0, 2.0, 2.0, 2.0, 2.5, 2.5, 2.5],
    "acceleration_max": [15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0],
}


def at_rest(served: Served, request: Request) -> Served:
    """The answer with a chunk that breaks no limit: what repairs cost is in benchmarks.guard_cost."""
    state = request.observation.state
    assert state is not None
    actions = np.tile(state, (len(served.chunk.actions), 1))
    return replace(served, chunk=replace(served.chunk, actions=actions), raw_actions=actions)


def variants(engine: Engine, request: Request) -> Mapping[str, Proceed]:
    """The bare answer, each wedge around it, and all wedges around it."""
    loaded = engine.loaded
    assert loaded is not None
    served = at_rest(engine.act(request), request)
    policy: dict[str, Wedge] = {"policy": lambda _, proceed: served}  # noqa: ARG005
    around = {name: loaded.wedges[name] for name in ORDER if name in loaded.wedges and name != "policy"}
    alone = {name: middleware_chain({name: wedge} | policy) for name, wedge in around.items()}
    telemetry = alone.pop("telemetry")  # last with the whole: both leave records behind
    return (
        {"nothing": middleware_chain(policy)}
        | alone
        | {"telemetry": telemetry, "all": middleware_chain(around | policy)}
    )


def measure(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per request, by variant."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds + 3):
            time.sleep(DRAIN_S)
            for name, call in calls.items():
                took_ms = milliseconds(lambda call=call: [call() for _ in range(BATCH)]) / BATCH  # type: ignore[misc]
                if number >= 3:
                    found[name].append(took_ms)
    finally:
        gc.enable()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row per wedge and the sum of all."""
    options = parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=30, help="measurements per wedge (default 30)")
    arguments = options.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        engine = everything_on(Path(folder))
        loaded = engine.loaded
        assert loaded is not None

        def call(act: Proceed) -> Callable[[], object]:
            return lambda: act(engine.request(observation, episode_id="benchmark", seed=1))

        observation = loaded.policy.canary()
        request = engine.request(observation, episode_id="benchmark", seed=1)
        calls = {name: call(act) for name, act in variants(engine, request).items()}
        durations = measure(calls, arguments.rounds)
        engine.unload()
    nothing = percentiles(durations["nothing"])[0]
    rows = [
        {"wedge": name, "p50 us": (percentiles(values)[0] - nothing) * 1e3,
         "p99 us": (percentiles(values)[1] - nothing) * 1e3}
        for name, values in durations.items() if name != "nothing"
    ]  # fmt: skip
    print(f"added to a request of {nothing * 1e3:.1f} us that is answered at once")
    print(table(rows))
    finish("wedge_cost", {"wedges": rows, "nothing_us": nothing * 1e3}, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
