# SPDX-License-Identifier: Apache-2.0
"""What a kind of network brings to a policy: how arrays, a prefix and noise become a chunk, and what it can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import ExportError
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.policy.capabilities import Capabilities
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.sampler import Sampling
from reflex_core.policy.session import Session, Tensor
from reflex_core.values import Floats

Tensors = dict[str, Tensor]
# arrays with a row per request (one, where the graphs take no more), prefix, noise (draws * requests, horizon, width) in the order
# of the draws -> chunks (requests, horizon, width) float32 and the steps taken
Sample = Callable[[Arrays, Tensors, Floats, Sampling, Cancellation | None], tuple[Floats, int]]


@dataclass(frozen=True, slots=True)
class Network:
    """The last graph of an export, as its kind runs it.

    kind: its name in policy/load.py. contract: as it is run. draws: chunks of noise that one inference takes.
    notes: for the log. `sample` raises CancelledError soon after the request's Cancellation is called.
    """

    kind: str
    contract: Contract
    sample: Sample
    draws: int
    capabilities: Capabilities
    notes: tuple[str, ...] = ()


# raises ExportError where the last graph is not one of this kind
OpenNetwork = Callable[[Export, Contract, Session], Network]


def feeds(contract: Contract, session: Session, arrays: Arrays, made: Tensors) -> Tensors:
    """Return the inputs of the last graph that the prefix or the observation gives."""
    found: Tensors = {}
    for name in session.inputs:
        source = contract.links.get(name, name)
        if source in made:
            found[name] = made[source]
        elif name in arrays:
            found[name] = session.tensor(name, arrays[name])
    return found


def require_input(export: Export, contract: Contract, last: Session, key: str) -> None:
    """Raise ExportError where `flow.<key>` names no input of the last graph."""
    name = contract.flow_names.get(key)
    if name not in last.inputs:
        raise ExportError(
            f"{export.config_path}: 'flow.{key}' must be an input of {last.path.name} ({', '.join(last.inputs)}), got"
            f" {name!r}"
        )


def require_output(export: Export, contract: Contract, last: Session, key: str) -> None:
    """Raise ExportError where `flow.<key>` names no output of the last graph, or one of another shape than a chunk's."""
    name = contract.flow_names.get(key, "")
    output = last.outputs.get(name)
    if output is None:
        raise ExportError(
            f"{export.config_path}: 'flow.{key}' must be an output of {last.path.name} ({', '.join(last.outputs)}), got"
            f" {name!r}"
        )
    expected = (1, contract.horizon, contract.width)
    agrees = all(size in (None, want) for size, want in zip(output.shape, expected, strict=False))
    if len(output.shape) != 3 or not agrees:
        raise ExportError(
            f"{last.path}: its output '{output.name}' has shape {output.shape}, expected {expected} as its input has"
        )
