# SPDX-License-Identifier: Apache-2.0
"""pi0 and pi0.5: a prefix graph of PaliGemma and one Euler step of the action expert."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.base import Floats, Graph
from reflex_export.families.blocks import SIGLIP, euler, language, masked_slots, state_input
from reflex_export.families.entrance import sampled_from
from reflex_export.families.flow_graphs import FlowNetwork, flow_graphs
from reflex_export.families.module import replaced
from reflex_export.families.names import DENOISE
from reflex_export.options import ExportOptions


def picture_size(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return (height, width) in pixels of the graphs' pictures."""
    height, width = checkpoint.config.get("image_resolution", [224, 224])
    return int(height), int(width)


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """Return the part of pi0 or pi0.5 of reflex_config.json: pictures in the middle of their bars, pi0.5's state in its prompt."""
    how = dict(SIGLIP) | {"resize": "letterbox"}
    if options.bars is not None:
        how["bars"] = _brightness(options.bars)
    if checkpoint.family == "pi05":
        state = {"state": dict(checkpoint.processors.state)}
    else:
        state = state_input(checkpoint, int(checkpoint.config.get("max_state_dim", 32)))
    return {
        **euler(checkpoint, options, int(checkpoint.config.get("num_inference_steps", 10))),
        "images": masked_slots(checkpoint, *picture_size(checkpoint), how),
        "language": language(checkpoint),
        **state,
    }


def describe_policy(policy: Any, checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:  # noqa: ARG001
    """Return nothing: config.json says it all."""
    return {}


def graphs(policy: Any, checkpoint: Checkpoint, _: ExportOptions) -> Iterator[Graph]:
    """Yield the graphs of a loaded pi0 or pi0.5."""
    network, config = policy.model, policy.config
    yield from flow_graphs(
        FlowNetwork(
            network, _prefix(network), _velocity(network), steps=config.num_inference_steps, width=config.max_action_dim,
            state_width=config.max_state_dim, state_enters="" if checkpoint.family == "pi05" else DENOISE,
        ),
        checkpoint, picture_size(checkpoint),
    )  # fmt: skip


def noise_shape(policy: Any, checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Return the shape of the start noise, which is as wide as the network."""
    return 1, checkpoint.horizon, policy.config.max_action_dim


def chunk(policy: Any, batch: Mapping[str, Any], noise: Floats, options: ExportOptions) -> Floats:
    """Return LeRobot's own normalised chunk, float32 (batch, rows, action_dim). noise: (batch, rows, max_action_dim)."""
    import torch

    policy.reset()
    with _bars(policy, options.bars):
        made: Floats = policy.predict_action_chunk(dict(batch), noise=torch.from_numpy(noise)).numpy()
    return made


def entrance(
    policy: Any, checkpoint: Checkpoint, batch: Mapping[str, Any], options: ExportOptions
) -> Mapping[str, NDArray[Any]]:
    """Return pictures with their bars, tokens, and pi0's padded state."""
    with _bars(policy, options.bars):
        return sampled_from(policy, checkpoint, batch)


@contextmanager
def _bars(policy: Any, value: float | None) -> Iterator[None]:
    """Let LeRobot draw bars of this value, in the network's range, around pictures; None: as it does."""
    if value is None:
        yield
        return
    import torch

    modeling = import_module(type(policy).__module__)
    scaled = modeling.resize_with_pad_torch

    def drawn(images: Any, *size: Any) -> Any:
        covered = scaled(torch.ones_like(images), *size) > 0.5
        return torch.where(covered, scaled(images, *size), _brightness(value))

    with replaced(modeling, "resize_with_pad_torch", drawn):
        yield


def _brightness(value: float) -> float:
    """Return what `range` brings to a value of the network: 0 for -1, 1 for 1."""
    return (value + 1) / 2


def _prefix(network: Any) -> Any:
    modeling = import_module(type(network).__module__)
    # as LeRobot's sampler does before each call; the other kernels read the mask in their own ways
    network.paligemma_with_expert.paligemma.model.language_model.set_attn_implementation("eager")

    def prefix(pictures: Any, masks: Any, tokens: Any, token_mask: Any) -> tuple[Any, Any]:
        embedded, there, blocks = network.embed_prefix(pictures, masks, tokens, token_mask)
        attends = modeling.make_att_2d_masks(there, blocks)
        _, cache = network.paligemma_with_expert.forward(
            attention_mask=modeling.prepare_attention_masks_4d(attends),
            position_ids=there.cumsum(dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embedded, None],
            use_cache=True,
        )
        return cache, there

    return prefix


def _velocity(network: Any) -> Any:
    def velocity(x: Any, time: Any, cache: Any, there: Any, *state: Any) -> Any:
        known = {"state": state[0]} if state else {}
        return network.denoise_step(
            prefix_pad_masks=there, past_key_values=cache, x_t=x, timestep=time, **known
        )

    return velocity
