# SPDX-License-Identifier: Apache-2.0
"""Deterministic policies (ACT): one run of the graph is the chunk. Seeds are recorded as ever, and change nothing."""

from __future__ import annotations

from functools import partial

import numpy as np

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.export.families import DETERMINISTIC
from reflex_core.policy.capabilities import Capabilities
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.network import Network, Sample, Tensors, feeds, require_output
from reflex_core.policy.onnx_policy import load_graphs
from reflex_core.policy.sampler import Sampling
from reflex_core.policy.session import Session
from reflex_core.values import Floats

KIND = DETERMINISTIC
ONE_RUN = 1  # steps, as replies and metrics count them: 0 is what an answer without inference has
CAPABILITIES = Capabilities(
    guidance=f"a {KIND} policy has no denoise loop, so nothing can guide it",
    early_stop=f"a {KIND} policy has no denoise loop that could stop early",
    fewer_steps=f"a {KIND} policy has no denoise steps",
)


def network(export: Export, contract: Contract, last: Session) -> Network:
    """Return the network of a graph that makes the chunk in one run. Raises ExportError."""
    require_output(export, contract, last, "actions")
    return Network(KIND, contract, _one_run(contract, last), 0, CAPABILITIES)


load = partial(load_graphs, network)


def _one_run(contract: Contract, session: Session) -> Sample:
    output = contract.flow_names["actions"]

    def sample(
        arrays: Arrays, made: Tensors, _: Floats, __: Sampling, cancellation: Cancellation | None
    ) -> tuple[Floats, int]:
        actions = session.run(feeds(contract, session, arrays, made), cancellation)[output].numpy()
        return np.array(actions, dtype=np.float32), ONE_RUN  # a copy: static outputs are overwritten

    return sample
