# SPDX-License-Identifier: Apache-2.0
"""The exports that are measured, and the bare ONNX Runtime inference that a served one is compared with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from reflex_core.export.export import open_export
from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.providers import PLAIN_LOAD, LoadOptions
from reflex_core.policy.sampler import start_noise
from reflex_core.policy.session import providers_for, session_options
from reflex_core.robot.presets import load_preset
from reflex_core.values import Floats

ROOT = Path(__file__).resolve().parents[1]

Bare = Callable[[], Floats]


@dataclass(frozen=True, slots=True)
class Measured:
    """One export on disk. embodiment: the preset that serves it; empty for the one it brings."""

    name: str
    path: Path
    embodiment: str


def made_export(folder: Path, *, size: int = 224, run_work: int = 0) -> Measured:
    """A pi0-like monolithic export, 50x7, three cameras of `size` pixels, made of the tests' small graphs.

    run_work: how many 384x384 matrix products one inference costs on top.
    """
    sys.path.append(str(ROOT / "test" / "support"))
    from exports import monolithic  # the tests are no package

    name = f"pi0-like {size}" + (f" +{run_work}" if run_work else "")
    path = folder / name.replace(" ", "_")
    monolithic("pi0", size=size, chunk=50, robot=True, run_work=run_work, spread=0.002)(path)
    return Measured(name, path, "franka")


def batched_export(folder: Path, *, weights: int, tokens: int) -> Measured:
    """A pi0-like monolithic export that runs any number of requests at once, 50x7, three cameras of 32 pixels.

    weights, tokens: how many 384x384 matrices the tokens of one request go through.
    """
    sys.path.append(str(ROOT / "test" / "support"))
    from exports import monolithic  # the tests are no package

    path = folder / f"batched_{weights}x{tokens}"
    monolithic("pi0", chunk=50, robot=True, spread=0.002, weights=weights, tokens=tokens, free_batch=True)(
        path
    )
    return Measured(f"{weights} matrices, {tokens} token{'s' * (tokens > 1)}", path, "franka")


def embedded() -> Measured:
    """The policy in models/: one prefix, ten denoise steps."""
    return Measured("embedded", embedded_policy(), "")


def policy_of(
    measured: Measured, device: str = "cpu", threads: int = 1, options: LoadOptions = PLAIN_LOAD
) -> Policy:
    """The export as the engine loads it."""
    embodiment = load_preset(measured.embodiment) if measured.embodiment else None
    return load_policy(open_export(measured.path), embodiment, device, threads, (), options)


def bare_inference(measured: Measured, device: str = "cpu", threads: int = 1) -> Bare:
    """A call that runs the same graphs with nothing around them: prepared inputs in, raw actions out.

    Session options and threads are those of the server; the Euler loop of a per-step export is its only Python.
    """
    policy = policy_of(measured)
    contract = policy.contract
    arrays, _ = policy.arrays(policy.canary())
    noise = start_noise(0, (1, contract.horizon, contract.width))
    files = sorted(measured.path.glob("*.onnx"), key=lambda path: "denoise" in path.name)
    sessions = [_session(path, device, threads) for path in files]
    names = contract.flow_names
    last = sessions[-1]
    feeds = _known(last, arrays)

    def whole_loop() -> Floats:
        made = _run_all(sessions[:-1], arrays)
        return np.asarray(last.run([names["actions"]], {**feeds, **made, names["noise"]: noise})[0])

    def step_by_step() -> Floats:
        made = _run_all(sessions[:-1], arrays)
        linked = {
            node.name: made[contract.links.get(node.name, node.name)]
            for node in last.get_inputs()
            if contract.links.get(node.name, node.name) in made
        }
        flow, x = contract.flow, noise
        stride = np.float32(flow.sign * (flow.end - flow.start) / flow.steps)
        for step in range(flow.steps):
            now = np.full(1, flow.start + step * (flow.end - flow.start) / flow.steps, np.float32)
            x = (
                x
                + stride
                * last.run([names["velocity"]], {**feeds, **linked, names["x"]: x, names["time"]: now})[0]
            )
        return x

    return whole_loop if contract.fused else step_by_step


def _session(path: Path, device: str, threads: int) -> Any:
    return ort.InferenceSession(str(path), session_options(threads), providers=providers_for(device))


def _known(session: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    return {node.name: arrays[node.name] for node in session.get_inputs() if node.name in arrays}


def _run_all(sessions: list[Any], arrays: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for session in sessions:
        outputs = session.run(None, _known(session, arrays))
        made |= {node.name: value for node, value in zip(session.get_outputs(), outputs, strict=True)}
    return made
