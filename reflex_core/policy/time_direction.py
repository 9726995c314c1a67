# SPDX-License-Identifier: Apache-2.0
"""Detect the time direction of a GR00T step where its export does not declare it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from reflex_core.errors import InferenceError
from reflex_core.export.contract import Contract
from reflex_core.export.families import row_of
from reflex_core.export.flow import Flow, fed_time
from reflex_core.policy.session import Session


def directed(
    contract: Contract, step: Session, config: Mapping[str, Any]
) -> tuple[Contract, tuple[str, ...]]:
    """Return the contract with the time direction of the graph, and notes for the log.

    GR00T runs from 0 to 1. Exports of its action head for the loop of other families (reflex 0.x: 1 to 0) look the same
    from outside, but some divide by the time and are not finite at 0. Only where the export does not declare it, the network
    reads nothing of an observation, and one step at 0 is not finite while one at 1 is, the loop is reversed.
    config: what the export itself wrote.
    """
    names, flow = contract.flow_names, contract.flow
    written = config.get("flow")
    says = isinstance(written, Mapping) and bool({"start", "end"} & set(written))
    known = {names.get(key) for key in ("x", "time", "positions")}
    if (
        says
        or contract.fused
        or flow.whole_times
        or row_of(config).time_buckets is None
        or set(step.inputs) - known
    ):
        return contract, ()
    if (
        (flow.start, flow.end) != (0.0, 1.0)
        or _finite(contract, step, flow.start)
        or not _finite(contract, step, flow.end)
    ):
        return contract, ()
    turned = Flow(1.0, 0.0, flow.sign, flow.steps, flow.time_scale, flow.whole_times)
    note = (
        f"its {step.path.name} gives no number at time 0, where GR00T begins, so that time runs from 1 to 0: write"
        " flow.start and flow.end into its description to say which"
    )
    return replace(contract, flow=turned), (note,)


def _finite(contract: Contract, step: Session, at: float) -> bool:
    names = contract.flow_names
    fixed = {}
    if (positions := names.get("positions", "")) in step.inputs:
        fixed[positions] = step.tensor(positions, np.arange(contract.horizon)[None])
    shape = (1, contract.horizon, contract.width)
    run = step.repeated(fixed, names["x"], names["time"], names["velocity"], shape)
    try:
        velocity = run(np.full(shape, 0.5, np.float32), fed_time(contract.flow, at))
    except InferenceError:
        return False
    return bool(np.isfinite(velocity).all())
