# SPDX-License-Identifier: Apache-2.0
"""What each stage of a request costs on its own: medians, the stages taking turns so that noise hits all alike.

Each stage finds the caches as the others left them, as in service, so the figures do not add up exactly.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.exports import Measured, bare_inference, embedded, made_export
from benchmarks.measure import finish, milliseconds, motion_of, parser, percentiles, table
from benchmarks.server import post_act
from reflex_core.engine.engine import Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.images.raw_encodings import rgb
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.inputs import image_array
from reflex_core.policy.sampler import start_noise
from reflex_core.settings.table import settings_from
from reflex_core.values import Frame, Observation, Request, Served
from reflex_core.wedges.guard import guard_for
from reflex_core.wedges.telemetry import WINDOW, Telemetry
from reflex_ros.messages.chunks import chunk_message, trajectory_message
from reflex_ros.sidecar.act import Call, answer, cameras_of
from reflex_ros.sidecar.bodies import BodyMemory
from reflex_ros.sidecar.wires.json import JsonWire, decode_object, document
from reflex_ros.sidecar.wires.wire import Answered, Readable

STAMP_NS = 1_700_000_000_000_000_000

Stages = dict[str, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Bench:
    """One engine and what its stages take."""

    engine: Engine
    loaded: ServingState
    body: bytes
    observation: Observation
    request: Request
    served: Served


def bench_of(measured: Measured, height: int, width: int, kind: str) -> Bench:
    """An engine that is ready, a request for it and its answer."""
    settings = {"export_dir": str(measured.path), "embodiment": measured.embodiment, "device": "cpu"}
    engine = Engine(settings_from(settings | {"intra_op_threads": 1}))
    engine.load()
    engine.warm_up()
    loaded = engine.loaded
    assert loaded is not None
    policy = loaded.policy
    canary = policy.canary()
    camera = policy.binding.cameras[policy.contract.images[0].camera]
    state = [] if canary.state is None else canary.state.tolist()
    body = post_act(camera, state, height, width, kind).partition(b"\r\n\r\n")[2]
    readable = Readable(cameras_of(loaded), engine.settings.max_pixels)
    observation = decode_object(document(body), readable).observation
    request = engine.request(observation, seed=1)
    return Bench(engine, loaded, body, observation, request, engine.act(request))


def stages_of(bench: Bench, bare: Callable[[], object]) -> Stages:
    """The stages in the order in which a request meets them."""
    engine, loaded, served = bench.engine, bench.loaded, bench.served
    policy = loaded.policy
    wire, readable = JsonWire(), Readable(cameras_of(loaded), engine.settings.max_pixels)
    answered, parsed = Answered(served, loaded, "robot", "peer:127.0.0.1"), document(bench.body)
    [picture] = bench.observation.frames.values()
    pixels = rgb(picture)
    decoded = Frame(np.ascontiguousarray(pixels), "rgb8", *pixels.shape[:2])
    slot = policy.contract.images[0]
    language, contract = policy._language, policy.contract
    assert language is not None
    telemetry, full = (
        Telemetry("bench", {"prod": "bench"}, Metrics()),
        Telemetry("bench", {"prod": "bench"}, Metrics()),
    )
    for _ in range(WINDOW):
        full(bench.request, lambda _: served)
    outside = replace(served, chunk=replace(served.chunk, actions=served.chunk.actions + np.float32(10)))
    binding = policy.binding
    guard = guard_for(
        loaded.embodiment, binding.hold_columns, Metrics(), None, binding.action_names, binding.dt_s
    )
    names, motion = served.chunk.names, motion_of(served.chunk, STAMP_NS)
    return {
        "parse JSON": lambda: document(bench.body),
        "base64 and checks": lambda: decode_object(parsed, readable),
        "decode the frame": lambda: rgb(picture),
        "resize and normalise": lambda: image_array(decoded, slot),
        "instruction to tokens (cached)": lambda: language.tokens(language.prompt("reach the red cube")),
        "all inputs of the graphs": lambda: policy.arrays(bench.observation),
        "start noise": lambda: start_noise(1, (1, contract.horizon, contract.width)),
        "bare session": bare,
        "Policy.predict": lambda: policy.predict(bench.observation, 1),
        "guard, clean chunk": lambda: guard(bench.request, lambda _: served),
        "guard, every value clamped": lambda: guard(bench.request, lambda _: outside),
        "telemetry": lambda: telemetry(bench.request, lambda _: served),
        "percentiles over 1024 answers": lambda: full.percentiles_ms(50, 95, 99),
        "JSON reply": lambda: wire.encode(answered),
        "/act without the socket": lambda: answer(
            engine, wire, BodyMemory().whole(bench.body), Call(bench.request.received_ns)
        ),
        "ActionChunk message": lambda: chunk_message(served, STAMP_NS, 1.0, 0, 0),
        "motion through a chunk": lambda: motion_of(served.chunk, STAMP_NS),
        "JointTrajectory message": lambda: trajectory_message(names, motion, STAMP_NS, anchor=False),
    }


def measure(stages: Stages, rounds: int) -> dict[str, list[float]]:
    """Durations in ms by stage, one of each per round."""
    found: dict[str, list[float]] = {name: [] for name in stages}
    gc.collect()
    gc.disable()  # else one stage pays for the garbage of all
    try:
        for number in range(rounds + 3):
            for name, call in stages.items():
                took_ms = milliseconds(call)
                if number >= 3:  # the first rounds fill caches
                    found[name].append(took_ms)
    finally:
        gc.enable()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table per export and picture; times in microseconds."""
    options = parser(__doc__ or "")
    options.add_argument(
        "--rounds", type=int, default=100, help="how often each stage is measured (default 100)"
    )
    arguments = options.parse_args(argv)
    results: dict[str, list[dict[str, object]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for measured in (made_export(Path(folder)), embedded()):
            bare = bare_inference(measured)
            for height, width, kind in ((224, 224, "jpeg"), (480, 640, "jpeg"), (480, 640, "raw")):
                bench = bench_of(measured, height, width, kind)
                durations = measure(stages_of(bench, bare), arguments.rounds)
                title = f"{measured.name}, {width}x{height} {kind}"
                results[title] = [
                    {
                        "stage": name,
                        "p50 us": percentiles(values)[0] * 1e3,
                        "p99 us": percentiles(values)[1] * 1e3,
                    }
                    for name, values in durations.items()
                ]
                print(f"{title}\n{table(results[title])}\n")
    finish("hot_path", {"stages": results}, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
