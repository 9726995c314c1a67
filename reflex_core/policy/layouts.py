# SPDX-License-Identifier: Apache-2.0
"""The layouts of exports: what runs once per observation (prefix), and the last graph, which makes the chunk.

decomposed: one prefix graph, then the expert. expert stack: a prefix of several graphs. monolithic: no prefix.
How the last graph makes a chunk is its kind's (network.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import ExportError
from reflex_core.export.contract import Contract, Graphs, read_contract
from reflex_core.export.export import Export
from reflex_core.export.families import Config, with_pictures
from reflex_core.export.layout_defaults import defaults, merged
from reflex_core.export.processed import with_processors
from reflex_core.policy.capabilities import Capabilities
from reflex_core.policy.cuda_graph import StaticSession
from reflex_core.policy.engine_cache import FOUND, keep_manifest
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.load_options import free_horizon, open_sessions, tuned, varied
from reflex_core.policy.network import Network, OpenNetwork, Tensors
from reflex_core.policy.prefix_cache import refusal
from reflex_core.policy.providers import PLAIN_LOAD, TENSORRT, LoadOptions, Placement, place
from reflex_core.policy.session import Session
from reflex_core.policy.vlm_stack import LANGUAGE_MASK, Prefix, vlm_stack
from reflex_core.text.untrusted import escaped

ROLES = frozenset({"prefix", "denoise", "monolithic", "vision", "text", "prefill"})


@dataclass(frozen=True, slots=True)
class Layout:
    """A loaded export: `prefix` once per observation, then the network makes a chunk.

    Both raise CancelledError soon after the request's Cancellation is called.
    capabilities: of network and prefix together. prefix_inputs: what `prefix` reads of the arrays, () where there is none.
    overwritten: its next run writes into the tensors of this one.
    """

    contract: Contract
    prefix: Prefix
    network: Network
    sessions: tuple[Session, ...]
    notes: tuple[str, ...]
    capabilities: Capabilities
    fell_back: bool = False
    free_horizon: bool = False  # the graphs take a chunk of any length
    prefix_inputs: tuple[str, ...] = ()
    overwritten: bool = False
    fp16: bool = True  # what TensorRT computes in


def load_layout(
    open_network: OpenNetwork,
    export: Export,
    device: str,
    intra_op_threads: int,
    options: LoadOptions = PLAIN_LOAD,
) -> Layout:
    """Load the graphs and check that every input is described. Raises ExportError or ConfigurationError.

    open_network: of the export's kind.
    """
    graphs = f"{export.weights_hash} {options.variant}".strip()
    placement = place(device, intra_op_threads, options, export.path, graphs)
    return load_placed(open_network, export, placement, options)


def graph_files(export: Export, variant: str = "") -> dict[str, Path]:
    """Find the file of each graph, by its role. Raises ExportError or ConfigurationError for one that is not there."""
    config = merged(defaults(export.path, export.config), export.config)
    return {
        role: export.file(str(name), f"its {role} graph")
        for role, name in _graph_files(export, varied(export, config, variant)).items()
    }


def load_placed(
    open_network: OpenNetwork, export: Export, placement: Placement, options: LoadOptions = PLAIN_LOAD
) -> Layout:
    """Load as `load_layout` does, on providers that are already chosen."""
    config = merged(defaults(export.path, export.config), export.config)
    files = graph_files(export, options.variant)
    sessions = open_sessions(files, placement, options.graph_metrics)
    built = _engines_built(placement, sessions)
    config = with_pictures(export.path, _without_absent(config, export.config, sessions))
    config = with_processors(
        export, config, {name for session in sessions.values() for name in session.inputs}
    )
    config = tuned(export, config, options, sessions)
    graphs: Graphs = {role: session.inputs for role, session in sessions.items()}
    last = sessions.get("denoise") or sessions["monolithic"]
    contract = read_contract(export, config, graphs, last.outputs)
    notes = [*placement.notes, *built, *(note for session in sessions.values() for note in session.notes)]
    notes += [note for note in (export.ignored_config, export.not_verified) if note]
    if not (contract.images or contract.language):
        notes.append("it takes no image and no instruction")
    if "vision" in sessions:
        prefix, made, more = vlm_stack(export, config, contract, sessions)
        notes += more
        read: tuple[str, ...] = (*sessions["vision"].inputs, *sessions["text"].inputs, LANGUAGE_MASK, "state")
    elif "prefix" in sessions:
        prefix, made = _one_graph(contract, sessions["prefix"]), tuple(sessions["prefix"].outputs)
        read = tuple(sessions["prefix"].inputs)
    else:
        prefix, made, read = _no_prefix, (), ()
    _check_inputs(export, contract, last, made)
    network = open_network(export, contract, last)
    contract = network.contract
    return Layout(
        contract,
        prefix,
        network,
        tuple(sessions.values()),
        (*notes, *network.notes),
        replace(network.capabilities, prefix_cache=refusal(contract, read)),
        placement.fell_back(session.providers for session in sessions.values()),
        free_horizon(config.get("flow") or {}, sessions),
        read,
        any(isinstance(session, StaticSession) for session in sessions.values()),
        placement.engines is None or placement.engines.fp16,
    )


def _engines_built(placement: Placement, sessions: Mapping[str, Session]) -> list[str]:
    """Record the engines that loading has built, so that the next start knows they are whole; return notes for the log."""
    engines = placement.engines
    if engines is None or engines.state == FOUND:
        return []
    if not all(TENSORRT in session.providers for session in sessions.values()):
        return []  # what runs elsewhere has a note of its own
    return list(filter(None, [keep_manifest(engines)]))


def _graph_files(export: Export, config: Config) -> dict[str, object]:
    graphs = config.get("graphs")
    roles = set(graphs) if isinstance(graphs, dict) else set()
    whole = bool({"denoise", "monolithic"} & roles) and len({"vision", "text", "prefill"} & roles) in (0, 3)
    if not isinstance(graphs, dict) or not whole:
        raise ExportError(
            f"{export.config_path}: 'graphs' must name a denoise graph (with a prefix, or with vision, text and"
            f" prefill) or a monolithic graph, got {graphs!r}"
        )
    if unknown := sorted(roles - ROLES):
        raise ExportError(
            f"{export.config_path}: 'graphs' has no role {escaped(unknown[0], 40)!r}: nothing would run it; the roles are"
            f" {', '.join(sorted(ROLES))}"
        )
    return graphs


def _without_absent(config: Config, written: Mapping[str, object], sessions: Mapping[str, Session]) -> Config:
    """Drop default image slots that this export's graphs do not have; what it wrote itself stays and is checked."""
    if "images" in written:
        return config
    known = {name for session in sessions.values() for name in session.inputs}
    images = [dict(slot) for slot in config.get("images", []) if slot["input"] in known]
    for slot in images:
        if slot.get("mask") not in known:
            slot["mask"] = None
    return config | {"images": images}


def _check_inputs(export: Export, contract: Contract, last: Session, made: tuple[str, ...]) -> None:
    own = {contract.flow_names.get(key, "") for key in ("noise", "x", "time")}
    for name in last.inputs:
        source = contract.links.get(name, name)
        if name not in own and source not in made and name not in contract.described:
            raise ExportError(
                f"{last.path}: nothing provides its input '{name}': describe it in {export.config_path.name}"
                " (images, language, state, constants, flow, or links to a prefix output)",
                "undescribed-input",
            )


def _no_prefix(_: Arrays, __: Cancellation | None) -> Tensors:
    return {}


def _one_graph(contract: Contract, session: Session) -> Prefix:
    missing = sorted(set(session.inputs) - contract.described)
    if missing:
        raise ExportError(
            f"{session.path}: nothing provides its input '{missing[0]}': describe it in reflex_config.json",
            "undescribed-input",
        )

    def prefix(arrays: Arrays, cancellation: Cancellation | None) -> Tensors:
        feeds = {name: session.tensor(name, arrays[name]) for name in session.inputs}
        return session.run(feeds, cancellation)

    return prefix
