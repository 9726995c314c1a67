# SPDX-License-Identifier: Apache-2.0
"""The layouts of exports: what runs once per observation (prefix) and what makes actions of noise (denoise).

decomposed: one prefix graph, then the expert. expert stack: a prefix of several graphs. monolithic: no prefix.
The denoise graph holds the whole loop (fused) or is one step of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import ExportError
from reflex_core.export.config_schema import PREFIX
from reflex_core.export.contract import Contract, Graphs, read_contract
from reflex_core.export.export import Export
from reflex_core.export.families import PADDED_WIDTH, Config, with_pictures
from reflex_core.export.flow import fed_time
from reflex_core.export.layout_defaults import defaults, merged
from reflex_core.export.processed import with_processors
from reflex_core.files.arrays import ArrayError, read_array
from reflex_core.policy.cuda_graph import StaticSession
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.load_options import free_horizon, open_sessions, tuned, varied
from reflex_core.policy.providers import PLAIN_LOAD, LoadOptions, Placement, place
from reflex_core.policy.sampler import Sampling, euler
from reflex_core.policy.session import Session, Tensor
from reflex_core.policy.time_direction import directed
from reflex_core.text.untrusted import escaped
from reflex_core.values import Floats

Tensors = dict[str, Tensor]
Prefix = Callable[[Arrays, Cancellation | None], Tensors]
Denoise = Callable[[Arrays, Tensors, Floats, Sampling, Cancellation | None], tuple[Floats, int]]

ROLES = frozenset({"prefix", "denoise", "monolithic", "vision", "text", "prefill"})
LANGUAGE_MASK = "language mask"  # not a graph input: what the vlm stack builds its attention mask from


@dataclass(frozen=True, slots=True)
class Layout:
    """A loaded export: `prefix` once per observation, then `denoise` makes its noise into actions.

    Both raise CancelledError soon after the request's Cancellation is called.
    prefix_inputs: what `prefix` reads of the arrays, () where there is none. overwritten: its next run writes into the
    tensors of this one.
    """

    contract: Contract
    prefix: Prefix
    denoise: Denoise
    sessions: tuple[Session, ...]
    notes: tuple[str, ...]
    denoise_graph: str  # file name
    fell_back: bool = False
    free_horizon: bool = False  # the graphs take a chunk of any length
    prefix_inputs: tuple[str, ...] = ()
    overwritten: bool = False


def load_layout(
    export: Export, device: str, intra_op_threads: int, options: LoadOptions = PLAIN_LOAD
) -> Layout:
    """Load the graphs and check that every input is described. Raises ExportError or ConfigurationError."""
    return load_placed(export, place(device, intra_op_threads, options, export.path), options)


def graph_files(export: Export, variant: str = "") -> dict[str, Path]:
    """Find the file of each graph, by its role. Raises ExportError or ConfigurationError for one that is not there."""
    config = merged(defaults(export.path, export.config), export.config)
    return {
        role: export.file(str(name), f"its {role} graph")
        for role, name in _graph_files(export, varied(export, config, variant)).items()
    }


def load_placed(export: Export, placement: Placement, options: LoadOptions = PLAIN_LOAD) -> Layout:
    """Load as `load_layout` does, on providers that are already chosen."""
    config = merged(defaults(export.path, export.config), export.config)
    files = graph_files(export, options.variant)
    sessions = open_sessions(files, placement, options.graph_metrics)
    config = with_pictures(export.path, _without_absent(config, export.config, sessions))
    config = with_processors(
        export, config, {name for session in sessions.values() for name in session.inputs}
    )
    config = tuned(export, config, options, sessions)
    graphs: Graphs = {role: session.inputs for role, session in sessions.items()}
    contract = read_contract(export, config, graphs)
    last = sessions.get("denoise") or sessions["monolithic"]
    notes = [*placement.notes, *(note for session in sessions.values() for note in session.notes)]
    notes += [export.ignored_config] if export.ignored_config else []
    if not (contract.images or contract.language):
        notes.append("it takes no image and no instruction")
    if "vision" in sessions:
        prefix, made, more = _vlm_stack(export, config, contract, sessions)
        notes += more
        read: tuple[str, ...] = (*sessions["vision"].inputs, *sessions["text"].inputs, LANGUAGE_MASK, "state")
    elif "prefix" in sessions:
        prefix, made = _one_graph(contract, sessions["prefix"]), tuple(sessions["prefix"].outputs)
        read = tuple(sessions["prefix"].inputs)
    else:
        prefix, made, read = _no_prefix, (), ()
    _check_inputs(export, contract, last, made)
    _check_fixed_rows(export, contract, last)
    contract, turned = directed(contract, last, export.config)
    notes += turned
    denoise = _fused(contract, last) if contract.fused else _stepped(contract, last)
    fell_back = placement.fell_back(session.providers for session in sessions.values())
    return Layout(
        contract, prefix, denoise, tuple(sessions.values()), tuple(notes), last.path.name, fell_back,
        free_horizon(config.get("flow") or {}, sessions),
        read, any(isinstance(session, StaticSession) for session in sessions.values()),
    )  # fmt: skip


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


def described(contract: Contract) -> set[str]:
    """Return the graph inputs that are made from an observation."""
    names = {slot.input for slot in contract.images}
    names |= {slot.mask for slot in contract.images if slot.mask}
    if contract.language is not None:
        names |= {contract.language.tokens, contract.language.mask or contract.language.tokens}
    if contract.state is not None and contract.state.input:
        names.add(contract.state.input)
    if "positions" in contract.flow_names:
        names.add(contract.flow_names["positions"])
    return names


def _check_inputs(export: Export, contract: Contract, last: Session, made: tuple[str, ...]) -> None:
    own = {contract.flow_names.get(key, "") for key in ("noise", "x", "time")}
    for name in last.inputs:
        source = contract.links.get(name, name)
        if name not in own and source not in made and name not in described(contract):
            raise ExportError(
                f"{last.path}: nothing provides its input '{name}': describe it in {export.config_path.name}"
                " (images, language, state, flow, or links to a prefix output)",
                "undescribed-input",
            )
    _check_flow(export, contract, last)


def _check_flow(export: Export, contract: Contract, last: Session) -> None:
    """Check that the names of the flow are in the graph, and that its output has the shape of its input."""
    config = export.config_path
    keys = ("noise",) if contract.fused else ("x", "time")
    for key in keys:
        if contract.flow_names.get(key) not in last.inputs:
            raise ExportError(
                f"{config}: 'flow.{key}' must be an input of {last.path.name} ({', '.join(last.inputs)}), got"
                f" {contract.flow_names.get(key)!r}"
            )
    key = "actions" if contract.fused else "velocity"
    output = last.outputs.get(contract.flow_names.get(key, ""))
    if output is None:
        raise ExportError(
            f"{config}: 'flow.{key}' must be an output of {last.path.name} ({', '.join(last.outputs)}), got"
            f" {contract.flow_names.get(key)!r}"
        )
    expected = (1, contract.horizon, contract.width)
    agrees = all(size in (None, want) for size, want in zip(output.shape, expected, strict=False))
    if len(output.shape) != 3 or not agrees:
        raise ExportError(
            f"{last.path}: its output '{output.name}' has shape {output.shape}, expected {expected} as its input has"
        )


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


def _no_prefix(_: Arrays, __: Cancellation | None) -> Tensors:
    return {}


def _one_graph(contract: Contract, session: Session) -> Prefix:
    missing = sorted(set(session.inputs) - described(contract))
    if missing:
        raise ExportError(
            f"{session.path}: nothing provides its input '{missing[0]}': describe it in reflex_config.json",
            "undescribed-input",
        )

    def prefix(arrays: Arrays, cancellation: Cancellation | None) -> Tensors:
        feeds = {name: session.tensor(name, arrays[name]) for name in session.inputs}
        return session.run(feeds, cancellation)

    return prefix


def _feeds(contract: Contract, session: Session, arrays: Arrays, made: Tensors) -> Tensors:
    feeds: Tensors = {}
    for name in session.inputs:
        source = contract.links.get(name, name)
        if source in made:
            feeds[name] = made[source]
        elif name in arrays:
            feeds[name] = session.tensor(name, arrays[name])
    return feeds


def _fused(contract: Contract, session: Session) -> Denoise:
    noise_name, output = contract.flow_names["noise"], contract.flow_names["actions"]

    def denoise(
        arrays: Arrays, made: Tensors, noise: Floats, _: Sampling, cancellation: Cancellation | None
    ) -> tuple[Floats, int]:
        feeds = _feeds(contract, session, arrays, made)
        feeds[noise_name] = session.tensor(noise_name, noise)
        actions = session.run(feeds, cancellation)[output].numpy()
        return np.asarray(actions, dtype=np.float32), contract.flow.steps

    return denoise


def _stepped(contract: Contract, session: Session) -> Denoise:
    names = contract.flow_names
    state, time, output = names["x"], names["time"], names["velocity"]
    shape = (1, contract.horizon, contract.width)

    def denoise(
        arrays: Arrays, made: Tensors, noise: Floats, sampling: Sampling, cancellation: Cancellation | None
    ) -> tuple[Floats, int]:
        feeds = _feeds(contract, session, arrays, made)
        step = session.repeated(feeds, state, time, output, shape, cancellation)

        def velocity(x: Floats, at: float) -> Floats:
            return step(x, fed_time(contract.flow, at))

        return euler(velocity, noise, contract.flow, sampling, contract.action_dim)

    return denoise


def _vlm_stack(
    export: Export, config: Config, contract: Contract, sessions: Mapping[str, Session]
) -> tuple[Prefix, tuple[str, ...], list[str]]:
    """Load vision encoder, text embedder, state projection and prefill: SmolVLA exported piece by piece."""
    vision, text, prefill = (sessions[role] for role in ("vision", "text", "prefill"))
    image_name, text_name = _only_input(vision), _only_input(text)
    _check_vlm_stack(export, contract, image_name, text_name, prefill)
    weight, bias, notes = _state_projection(export)
    root = np.float32(np.sqrt(config.get("vlm_hidden_size") or len(weight)))  # SmolVLM scales its embeddings

    def prefix(arrays: Arrays, cancellation: Cancellation | None) -> Tensors:
        images = vision.run({image_name: vision.tensor(image_name, arrays[image_name])}, cancellation)
        words = text.run({text_name: text.tensor(text_name, arrays[text_name])}, cancellation)
        pixels = next(iter(images.values())).numpy() * root
        tokens = next(iter(words.values())).numpy() * root
        state = (arrays["state"] @ weight.T + bias)[:, None]
        embeds = np.concatenate([pixels, tokens, state], axis=1)
        seen = np.ones((1, embeds.shape[1]), dtype=bool)
        seen[:, pixels.shape[1] : -1] = arrays[LANGUAGE_MASK]
        feeds = {"inputs_embeds": prefill.tensor("inputs_embeds", embeds)}
        feeds["attention_mask"] = prefill.tensor("attention_mask", seen)
        made = prefill.run(feeds, cancellation)
        for name, value in (("prefix_offset", seen.sum(axis=1, keepdims=True)), ("kv_mask", seen)):
            if name in sessions["denoise"].inputs:
                made[name] = sessions["denoise"].tensor(name, value)
        return made

    return prefix, (*prefill.outputs, "prefix_offset", "kv_mask"), notes


def _only_input(session: Session) -> str:
    if len(session.inputs) != 1:
        raise ExportError(f"{session.path}: must have one input, has {', '.join(session.inputs)}")
    return next(iter(session.inputs))


def _check_vlm_stack(export: Export, contract: Contract, image: str, text: str, prefill: Session) -> None:
    config = export.config_path
    cameras = [slot.input for slot in contract.images]
    if cameras != [image]:
        raise ExportError(
            f"{config}: 'images' must describe the vision graph's input '{image}', got {cameras}"
        )
    if contract.language is None or contract.language.tokens != text:
        raise ExportError(f"{config}: 'language.tokens' must be the text graph's input '{text}'")
    if set(prefill.inputs) != {"inputs_embeds", "attention_mask"}:
        raise ExportError(
            f"{prefill.path}: must take inputs_embeds and attention_mask, takes {', '.join(prefill.inputs)}"
        )


def _state_projection(export: Export) -> tuple[Floats, Floats, list[str]]:
    path = export.file("state_proj_weight.npy", "the projection of the robot state")
    weight = _array(path)
    if weight.ndim != 2 or weight.shape[1] != PADDED_WIDTH:
        raise ExportError(f"{path}: must be (hidden, {PADDED_WIDTH}), got shape {weight.shape}")
    bias_path = export.path / "state_proj_bias.npy"
    if not bias_path.is_file():
        note = "it brings no state_proj_bias.npy, so its state projection has no bias"
        return weight, np.zeros(len(weight), np.float32), [note]
    bias = _array(bias_path)
    if bias.shape != (len(weight),):
        raise ExportError(f"{bias_path}: must be ({len(weight)},), got shape {bias.shape}")
    return weight, bias, []


def _array(path: Path) -> Floats:
    try:
        array: Floats = read_array(path).astype(np.float32)
    except OSError as error:
        raise ExportError(f"{path}: not readable as a numpy array: {error.strerror or error}") from error
    except ArrayError as error:
        raise ExportError(f"{path}: {error}") from error
    except ValueError as error:  # texts
        raise ExportError(f"{path}: not readable as a numpy array of plain numbers") from error
    if not np.isfinite(array).all():
        raise ExportError(f"{path}: holds NaN or Inf")
    return array
