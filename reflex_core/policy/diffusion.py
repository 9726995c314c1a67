# SPDX-License-Identifier: Apache-2.0
"""Diffusion policies: the graph is one step, the schedule (DDIM, DDPM) is the export's table of numbers."""

from __future__ import annotations

from functools import partial

from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.export.families import DIFFUSION
from reflex_core.policy.network import Network
from reflex_core.policy.onnx_policy import load_graphs
from reflex_core.policy.session import Session
from reflex_core.policy.table_sampler import table_network

KIND = DIFFUSION


def network(export: Export, contract: Contract, last: Session) -> Network:
    """Return the network of a graph that is one step of a schedule. Raises ExportError."""
    assert contract.sampler is not None, "the contract of this kind has one"
    return table_network(KIND, export, contract, contract.sampler, last)


load = partial(load_graphs, network)
