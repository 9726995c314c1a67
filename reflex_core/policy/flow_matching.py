# SPDX-License-Identifier: Apache-2.0
"""Flow matching (SmolVLA, pi0, pi0.5, GR00T): the graph holds the whole Euler loop, or one step of it."""

from __future__ import annotations

from functools import partial

import numpy as np

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import ExportError
from reflex_core.export.config_schema import PREFIX
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.export.families import FLOW_MATCHING
from reflex_core.export.flow import fed_time
from reflex_core.policy.adaptive import FEWEST_STEPS
from reflex_core.policy.capabilities import Capabilities
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.network import Network, Sample, Tensors, feeds, require_input, require_output
from reflex_core.policy.onnx_policy import load_graphs
from reflex_core.policy.sampler import Sampling, euler
from reflex_core.policy.session import Session
from reflex_core.policy.table_sampler import table_network
from reflex_core.policy.time_direction import directed
from reflex_core.values import Floats

KIND = FLOW_MATCHING


def network(export: Export, contract: Contract, last: Session) -> Network:
    """Return the network of a graph that holds the loop or a step of it. Raises ExportError."""
    if contract.sampler is not None:
        return table_network(KIND, export, contract, contract.sampler, last)
    for key in ("noise",) if contract.fused else ("x", "time"):
        require_input(export, contract, last, key)
    require_output(export, contract, last, "actions" if contract.fused else "velocity")
    _check_fixed_rows(export, contract, last)
    contract, notes = directed(contract, last, export.config)
    sample = _fused(contract, last) if contract.fused else _stepped(contract, last)
    return Network(KIND, contract, sample, 1, _capabilities(contract, last.path.name), notes)


load = partial(load_graphs, network)


def _capabilities(contract: Contract, graph: str) -> Capabilities:
    if contract.fused:
        return Capabilities(
            guidance="the denoise loop is fused into the graph, so nothing can guide it",
            early_stop=f"its denoise loop is fused into {graph}, so it cannot stop early; export it with one graph call per step",
            fewer_steps="its denoise loop is fused into one graph, so it cannot take fewer steps",
        )
    steps, guidance, early_stop = contract.flow.steps, "", ""
    if contract.first_row:
        guidance = f"the first {contract.first_row} rows of its chunk are of the past"
    if steps < 2:
        guidance = "the export denoises in one step, which leaves nothing to guide"
    if steps < FEWEST_STEPS:
        early_stop = (
            f"it denoises in {steps} step(s): convergence shows after two, so there is nothing to save"
        )
    return Capabilities(guidance, early_stop)


def _check_fixed_rows(export: Export, contract: Contract, last: Session) -> None:
    """Check that a network trained with fixed rows takes one time per row."""
    if contract.rtc.mode != PREFIX:
        return
    name = contract.flow_names.get("time", "")
    shape = last.inputs[name].shape if name in last.inputs and not contract.fused else ()
    if not shape or shape[-1] != contract.horizon:
        raise ExportError(
            f"{export.config_path}: 'rtc.mode' {PREFIX} needs a denoise graph of one step whose time input has"
            f" {contract.horizon} numbers, one per row; {last.path.name} takes {shape or 'none'}"
        )


def _fused(contract: Contract, session: Session) -> Sample:
    noise_name, output = contract.flow_names["noise"], contract.flow_names["actions"]

    def sample(
        arrays: Arrays, made: Tensors, noise: Floats, _: Sampling, cancellation: Cancellation | None
    ) -> tuple[Floats, int]:
        fed = feeds(contract, session, arrays, made)
        fed[noise_name] = session.tensor(noise_name, noise)
        actions = session.run(fed, cancellation)[output].numpy()
        return np.asarray(actions, dtype=np.float32), contract.flow.steps

    return sample


def _stepped(contract: Contract, session: Session) -> Sample:
    names = contract.flow_names
    state, time, output = names["x"], names["time"], names["velocity"]

    def sample(
        arrays: Arrays, made: Tensors, noise: Floats, sampling: Sampling, cancellation: Cancellation | None
    ) -> tuple[Floats, int]:
        fed = feeds(contract, session, arrays, made)
        step = session.repeated(fed, state, time, output, noise.shape, cancellation)

        def velocity(x: Floats, at: float) -> Floats:
            return step(x, fed_time(contract.flow, at))

        return euler(velocity, noise, contract.flow, sampling, contract.action_dim)

    return sample
