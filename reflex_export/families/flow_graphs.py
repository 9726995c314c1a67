# SPDX-License-Identifier: Apache-2.0
"""The graphs of SmolVLA, pi0 and pi0.5: a prefix of pictures and words, and one velocity.

What the prefix hands on are keys and values of all layers, each (batch, layers, heads, tokens, head size) float32, and which
tokens are there, (batch, tokens) bool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.base import Graph
from reflex_export.families.blocks import DENOISE_FILE, PREFIX_FILE, fed_cameras, token_length
from reflex_export.families.fused_loop import euler
from reflex_export.families.module import module_of
from reflex_export.families.names import (
    DENOISE,
    NOISY,
    PREFIX,
    STATE,
    TIME,
    TOKENS,
    TOKENS_MASK,
    VELOCITY,
)

CACHE = ("past_k", "past_v", "prefix_pad")

Tensors = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FlowNetwork:
    """What a family gives of its loaded network; arguments and results are torch tensors, batch axis first.

    Attributes:
        weights: torch.nn.Module that holds every parameter which the two functions use.
        prefix: (pictures, their masks, tokens, token mask, state) -> transformers cache, (batch, tokens) bool.
        velocity: (x, flow time, cache, (batch, tokens) bool, state) -> (batch, rows, width).
        steps: Euler steps of the whole loop.
        width: Columns of an action in the network, padding included.
        state_width: Numbers of the padded state. state_enters: PREFIX, DENOISE, or "" where the state is in the prompt.
    """

    weights: Any
    prefix: Callable[..., tuple[Any, Any]]
    velocity: Callable[..., Any]
    steps: int
    width: int
    state_width: int
    state_enters: str


def flow_graphs(network: FlowNetwork, checkpoint: Checkpoint, size: tuple[int, int]) -> Iterator[Graph]:
    """Yield the prefix graph and the graph of one velocity.

    size: (height, width) of the pictures in pixels.
    """
    import torch

    noise = torch.randn(1, checkpoint.horizon, network.width)
    seen = _seen(checkpoint, size)
    state = {STATE: torch.randn(1, network.state_width)}
    first, later = (state if network.state_enters == role else {} for role in (PREFIX, DENOISE))
    module = module_of(network.weights, _prefix(network, len(fed_cameras(checkpoint))))
    yield Graph(PREFIX, PREFIX_FILE, module, seen | first, CACHE)
    with torch.no_grad():
        made = dict(zip(CACHE, module(*(seen | first).values()), strict=True))
    step = module_of(network.weights, _velocity(network))
    times = torch.ones(1)
    given = {NOISY: noise, TIME: times} | made | later
    yield Graph(DENOISE, DENOISE_FILE, step, given, (VELOCITY,), loop=euler(network.steps))


def _seen(checkpoint: Checkpoint, size: tuple[int, int]) -> Tensors:
    """Return example pictures, masks and tokens by the names of their inputs."""
    import torch

    there, cameras = torch.ones(1, dtype=torch.bool), fed_cameras(checkpoint)
    pictures = {camera.input: torch.rand(1, 3, *size) * 2 - 1 for camera in cameras}
    masks = {camera.mask: there & (not camera.empty) for camera in cameras}
    length = token_length(checkpoint)
    tokens = torch.ones(1, length, dtype=torch.int64)
    return pictures | masks | {TOKENS: tokens, TOKENS_MASK: there[:, None].repeat(1, length)}


def _prefix(network: FlowNetwork, cameras: int) -> Callable[..., tuple[Any, Any, Any]]:
    def prefix(*tensors: Any) -> tuple[Any, Any, Any]:
        import torch

        pictures, masks = list(tensors[:cameras]), list(tensors[cameras : 2 * cameras])
        tokens, token_mask, *state = tensors[2 * cameras :]
        cache, there = network.prefix(pictures, masks, tokens, token_mask, *state)
        keys, values = (torch.stack(of_layers, dim=1) for of_layers in _layers(cache))
        return keys, values, there

    return prefix


def _layers(cache: Any) -> tuple[list[Any], list[Any]]:
    return [layer.keys for layer in cache.layers], [layer.values for layer in cache.layers]


def _velocity(network: FlowNetwork) -> Callable[..., Any]:
    def velocity(x: Any, time: Any, keys: Any, values: Any, there: Any, *state: Any) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache()  # a new one, as a step appends its own keys and values
        for layer in range(keys.shape[1]):
            cache.update(keys[:, layer], values[:, layer], layer)
        return network.velocity(x, time, cache, there, *state)

    return velocity
