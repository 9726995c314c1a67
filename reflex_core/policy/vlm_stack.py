# SPDX-License-Identifier: Apache-2.0
"""The prefix of SmolVLA that was exported piece by piece: vision encoder, text embedder, state projection, prefill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import ExportError
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.export.families import PADDED_WIDTH, Config
from reflex_core.files.arrays import ArrayError, read_array
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.network import Tensors
from reflex_core.policy.session import Session
from reflex_core.values import Floats

Prefix = Callable[[Arrays, Cancellation | None], Tensors]

LANGUAGE_MASK = "language mask"  # not a graph input: what the attention mask is built from


def vlm_stack(
    export: Export, config: Config, contract: Contract, sessions: Mapping[str, Session]
) -> tuple[Prefix, tuple[str, ...], list[str]]:
    """Return the prefix, the names of what it makes, and notes for the log. Raises ExportError."""
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
        seen = np.ones(embeds.shape[:2], dtype=bool)
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
