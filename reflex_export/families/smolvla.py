# SPDX-License-Identifier: Apache-2.0
"""SmolVLA: a prefix graph of the vision-language model and one Euler step of the action expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.base import Floats, Graph
from reflex_export.families.blocks import SIGLIP, euler, language, masked_slots, state_input
from reflex_export.families.entrance import sampled_from
from reflex_export.families.flow_graphs import FlowNetwork, flow_graphs
from reflex_export.families.module import replaced
from reflex_export.families.names import PREFIX
from reflex_export.options import ExportOptions


def picture_size(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return (height, width) in pixels of the graphs' pictures; its config.json has the width first."""
    target = checkpoint.config.get("resize_imgs_with_padding", [512, 512])
    if target is None:
        return checkpoint.cameras[0].height, checkpoint.cameras[0].width
    width, height = target
    return int(height), int(width)


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """Return SmolVLA's part of reflex_config.json: bars left and above the picture, the state beside the words."""
    resized = checkpoint.config.get("resize_imgs_with_padding", True) is not None
    how = dict(SIGLIP) | ({"resize": "letterbox_top_left"} if resized else {"size": "exact"})
    return {
        **euler(checkpoint, options, int(checkpoint.config.get("num_steps", 10))),
        "images": masked_slots(checkpoint, *picture_size(checkpoint), how),
        "language": language(checkpoint),
        **state_input(checkpoint, int(checkpoint.config.get("max_state_dim", 32))),
    }


def describe_policy(policy: Any, checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:  # noqa: ARG001
    """Return nothing: config.json says it all."""
    return {}


def graphs(policy: Any, checkpoint: Checkpoint, _: ExportOptions) -> Iterator[Graph]:
    """Yield the graphs of a loaded SmolVLA."""
    from lerobot.policies.smolvla import smolvlm_with_expert as modeling

    network, config, size = policy.model, policy.config, picture_size(checkpoint)
    vision = network.vlm_with_expert.get_vlm_model().vision_model
    embedded = _with_known_positions(vision.embeddings, vision, size)
    with replaced(vision.embeddings, "forward", embedded), replaced(modeling, "apply_rope", _rotated):
        yield from flow_graphs(
            FlowNetwork(
                network, _prefix(network), _velocity(network), steps=config.num_steps, width=config.max_action_dim,
                state_width=config.max_state_dim, state_enters=PREFIX,
            ),
            checkpoint, size,
        )  # fmt: skip


def noise_shape(policy: Any, checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Return the shape of the start noise, which is as wide as the network."""
    return 1, checkpoint.horizon, policy.config.max_action_dim


def entrance(
    policy: Any, checkpoint: Checkpoint, batch: Mapping[str, Any], _: ExportOptions
) -> Mapping[str, NDArray[Any]]:
    """Return pictures with their bars, tokens and the padded state."""
    return sampled_from(policy, checkpoint, batch)


def chunk(policy: Any, batch: Mapping[str, Any], noise: Floats, _: ExportOptions) -> Floats:
    """Return LeRobot's own normalised chunk, float32 (batch, rows, action_dim). noise: (batch, rows, max_action_dim)."""
    import torch

    policy.reset()
    made: Floats = policy.predict_action_chunk(dict(batch), noise=torch.from_numpy(noise)).numpy()
    return made


def _prefix(network: Any) -> Any:
    from lerobot.policies.smolvla.modeling_smolvla import make_att_2d_masks

    def prefix(pictures: Any, masks: Any, tokens: Any, token_mask: Any, state: Any) -> tuple[Any, Any]:
        embedded, there, blocks = network.embed_prefix(pictures, masks, tokens, token_mask, state=state)
        _, cache = network.vlm_with_expert.forward(
            attention_mask=make_att_2d_masks(there, blocks),
            position_ids=there.cumsum(dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embedded, None],
            use_cache=True,
        )
        return cache, there

    return prefix


def _velocity(network: Any) -> Any:
    def velocity(x: Any, time: Any, cache: Any, there: Any) -> Any:
        return network.denoise_step(prefix_pad_masks=there, past_key_values=cache, x_t=x, timestep=time)

    return velocity


def _with_known_positions(embeddings: Any, vision: Any, size: tuple[int, int]) -> Callable[..., Any]:
    """Return the embeddings of a whole picture of this size.

    Its own look up, in every picture anew, which of the patches are there; all are, and an operator whose result depends on
    data is one that neither CUDA graphs nor TensorRT take.
    """
    import torch

    numbers: list[Any] = []
    hook = embeddings.position_embedding.register_forward_hook(lambda _, given, __: numbers.append(given[0]))
    with torch.no_grad():
        vision(pixel_values=torch.zeros(1, 3, *size), patch_attention_mask=None)
    hook.remove()

    def embedded(*, pixel_values: Any, **_: Any) -> Any:
        patches = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        return patches + embeddings.position_embedding(numbers[0])

    return embedded


def _rotated(x: Any, positions: Any, max_wavelength: float = 10_000) -> Any:
    """Rotate by positions (Su et al., RoFormer, 2104.09864); LeRobot's own writes into slices, a scatter each in ONNX.

    x: (batch, tokens, heads, size). positions: (batch, tokens).
    """
    import torch

    half = x.shape[-1] // 2
    exponents = (2.0 / x.shape[-1]) * torch.arange(half, dtype=torch.float32)
    angles = (positions[..., None].float() / (max_wavelength**exponents)[None, None])[..., None, :]
    sin, cos = angles.sin(), angles.cos()
    first, second = x.float().split(half, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
