# SPDX-License-Identifier: Apache-2.0
"""The network of the picking policy: that of training/model.py with a pointing token, and an expert of relative motion.

Image tokens attend to each other only, word tokens to both: the image is encoded once for all its instructions. The words
then point: a softmax over the image tokens, each of which says where in space it lies, gives one position. It becomes one
more prefix token, so that the expert need not find millimetres in a picture.

The expert sees each arm joint relative to the state, as the noisy action minus (1 - t) of the state, and the velocity that
it returns is of the absolute action all the same. The finger stays absolute. Flow matching as in training/model.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.demonstrator import CHUNK_SIZE
from training.language import TOKEN_COUNT
from training.model import (
    EXPERT_WIDTH,
    HEAD_SIZE,
    HEADS,
    LAYERS,
    MASKED,
    PREFIX_WIDTH,
    TIME_PERIODS,
    Block,
    RootMeanSquareNorm,
    convolution,
    grid_positions,
)

ACTION_DIM = 8
SIDE = 7
IMAGE_TOKENS = SIDE * SIDE
POINTING_WIDTH, STATE_WIDTH = 64, 128
PHASES_PER_AXIS = 4


class PointingKeys(nn.Module):
    """Key and value [B, heads, 1, head size] of the pointing token for one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = RootMeanSquareNorm(PREFIX_WIDTH)
        self.key = nn.Linear(PREFIX_WIDTH, HEADS * HEAD_SIZE, bias=False)
        self.value = nn.Linear(PREFIX_WIDTH, HEADS * HEAD_SIZE, bias=False)

    def forward(self, token: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.norm(token)
        shape = (token.shape[0], 1, HEADS, HEAD_SIZE)
        return self.key(normed).view(shape).transpose(1, 2), self.value(normed).view(shape).transpose(1, 2)


class PickPrefix(nn.Module):
    """Image [B, 3, 112, 112] in [-1, 1], lang_tokens int64 [B, 24] and lang_masks bool [B, 24] make the cache.

    past_k and past_v are [layers, B, heads, 74, head size]: 49 image tokens, 24 words, the pointing token; prefix_pad
    [B, 74] is 1 where a token counts.
    """

    def __init__(self, vocabulary_size: int, colour_count: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(3, 24, 5), convolution(24, 48, 3), convolution(48, 96, 3), convolution(96, 128, 3)
        )
        self.project = nn.Linear(128, PREFIX_WIDTH)
        self.image_positions = nn.Parameter(0.5 * grid_positions(SIDE, PREFIX_WIDTH))
        self.words = nn.Embedding(vocabulary_size, PREFIX_WIDTH)
        self.word_positions = nn.Parameter(0.02 * torch.randn(1, TOKEN_COUNT, PREFIX_WIDTH))
        self.blocks = nn.ModuleList(Block(PREFIX_WIDTH) for _ in range(LAYERS))
        # Exists only to teach the features; it is not exported.
        self.detection = nn.Linear(PREFIX_WIDTH, 1 + colour_count + 2)
        self.point_norm = RootMeanSquareNorm(PREFIX_WIDTH)
        self.point_query = nn.Linear(PREFIX_WIDTH, POINTING_WIDTH)
        self.point_key = nn.Linear(PREFIX_WIDTH, POINTING_WIDTH)
        self.point_place = nn.Linear(PREFIX_WIDTH, 3)
        self.place_token = nn.Sequential(
            nn.Linear(3 + 6 * PHASES_PER_AXIS, PREFIX_WIDTH), nn.SiLU(), nn.Linear(PREFIX_WIDTH, PREFIX_WIDTH)
        )
        self.place_keys = nn.ModuleList(PointingKeys() for _ in range(LAYERS))
        self.frequencies: Tensor
        self.visible: Tensor
        # 0: the expert attends to the pointing token alone, which is all it knows before the joint stage.
        self.register_buffer("visible", torch.ones(()))
        self.register_buffer("frequencies", math.pi / 2 * 2.0 ** torch.arange(PHASES_PER_AXIS).float())

    def see(self, image: Tensor) -> Tensor:
        """Return image tokens [B, 49, width] before positions are added."""
        return self.project(self.stem(image).flatten(2).transpose(1, 2))

    def keys_of_place(self, place: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return key and value of the pointing token per layer, for normalised places [B, 3]."""
        phase = (place[:, :, None] * self.frequencies).flatten(1)
        token = self.place_token(torch.cat([place, phase.sin(), phase.cos()], dim=1))[:, None]
        return [layer(token) for layer in self.place_keys]

    def read(
        self, seen: Tensor, lang_tokens: Tensor, lang_masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return past_k, past_v, prefix_pad, the place pointed at [B, 3] and the logits over image tokens [B, 49].

        Several instructions an image: B rows of words for B / k rows of `seen`, the k of an image one after the other.
        """
        per_image = lang_tokens.shape[0] // seen.shape[0]

        def for_each(x: Tensor) -> Tensor:
            return x.repeat_interleave(per_image, 0) if per_image > 1 else x

        image = seen + self.image_positions
        words = self.words(lang_tokens) + self.word_positions[:, : lang_tokens.shape[1]]
        counted = lang_masks.to(seen.dtype)
        always = torch.ones_like(words[:, :1, 0])
        pad = torch.cat([always.expand(-1, IMAGE_TOKENS), counted], dim=1)
        bias = ((1 - pad) * MASKED)[:, None, None, :]
        keys, values = [], []
        for block in self.blocks:
            image, image_key, image_value = block(image, None)
            image_key, image_value = for_each(image_key), for_each(image_value)
            words, key, value = block(words, bias, image_key, image_value)
            keys.append(torch.cat([image_key, key], dim=2))
            values.append(torch.cat([image_value, value], dim=2))
        image, words = self.point_norm(image), self.point_norm(words)
        meaning = (words * counted[:, :, None]).sum(1) / counted.sum(1, keepdim=True).clamp(min=1)
        matches = for_each(self.point_key(image)) @ self.point_query(meaning)[:, :, None]
        logits = matches[:, :, 0] / math.sqrt(POINTING_WIDTH)
        place = (logits.softmax(1)[:, :, None] * for_each(self.point_place(image))).sum(1)
        for layer, (key, value) in enumerate(self.keys_of_place(place)):
            keys[layer] = torch.cat([keys[layer], key], dim=2)
            values[layer] = torch.cat([values[layer], value], dim=2)
        return (
            torch.stack(keys),
            torch.stack(values),
            torch.cat([pad * self.visible, always], dim=1),
            place,
            logits,
        )

    def forward(
        self, image: Tensor, lang_tokens: Tensor, lang_masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.read(self.see(image), lang_tokens, lang_masks)[:3]


class PickExpert(nn.Module):
    """x_t [B, 50, 8], timestep [B], cache, state [B, 8] -> velocity v_t [B, 50, 8]; all normalised alike."""

    def __init__(self) -> None:
        super().__init__()
        self.actions_in = nn.Linear(ACTION_DIM, EXPERT_WIDTH)
        self.time_in = nn.Sequential(
            nn.Linear(2 * EXPERT_WIDTH, EXPERT_WIDTH), nn.SiLU(), nn.Linear(EXPERT_WIDTH, EXPERT_WIDTH)
        )
        self.positions = nn.Parameter(0.02 * torch.randn(1, CHUNK_SIZE, EXPERT_WIDTH))
        self.state_in = nn.Sequential(
            nn.Linear(ACTION_DIM, STATE_WIDTH), nn.SiLU(), nn.Linear(STATE_WIDTH, EXPERT_WIDTH)
        )
        # Exists only to teach the state token where the hand is; it is not exported.
        self.hand_place = nn.Linear(EXPERT_WIDTH, 3)
        self.blocks = nn.ModuleList(Block(EXPERT_WIDTH) for _ in range(LAYERS))
        self.norm = RootMeanSquareNorm(EXPERT_WIDTH)
        self.actions_out = nn.Linear(EXPERT_WIDTH, ACTION_DIM)
        shortest, longest = (math.log(period) for period in TIME_PERIODS)
        self.periods: Tensor
        self.relative: Tensor
        self.register_buffer("periods", torch.exp(torch.linspace(shortest, longest, EXPERT_WIDTH // 2)))
        self.register_buffer("relative", torch.tensor([1.0] * 7 + [0.0]))

    def forward(
        self, x_t: Tensor, timestep: Tensor, past_k: Tensor, past_v: Tensor, prefix_pad: Tensor, state: Tensor
    ) -> Tensor:
        base = (state * self.relative)[:, None]
        motion = x_t - (1 - timestep[:, None, None]) * base
        phase = 2 * math.pi * timestep[:, None] / self.periods[None]
        time = torch.cat([phase.sin(), phase.cos()], dim=-1)[:, None].expand(-1, CHUNK_SIZE, -1)
        x = self.time_in(torch.cat([self.actions_in(motion), time], dim=-1)) + self.positions
        x = torch.cat([self.state_in(state)[:, None], x], dim=1)
        bias = torch.cat([(1 - prefix_pad) * MASKED, torch.zeros_like(x[:, :, 0])], dim=1)[:, None, None, :]
        for index, block in enumerate(self.blocks):
            x, _, _ = block(x, bias, past_k[index], past_v[index])
        return self.actions_out(self.norm(x[:, 1:])) - base

    def guess_hand(self, state: Tensor) -> Tensor:
        """Auxiliary: the normalised place [B, 3] of the end effector, from the state token."""
        return self.hand_place(self.state_in(state))


class PickNetwork(nn.Module):
    def __init__(self, vocabulary_size: int, colour_count: int) -> None:
        super().__init__()
        self.prefix = PickPrefix(vocabulary_size, colour_count)
        self.expert = PickExpert()


@torch.no_grad()
def denoise(network: PickNetwork, inputs: dict[str, Tensor], steps: int) -> Tensor:
    """Return the normalised chunk [1, 50, 8] of image, lang_tokens, lang_masks, state and noise: Euler from 1 to 0."""
    cache = network.prefix(inputs["image"], inputs["lang_tokens"], inputs["lang_masks"])
    x, state = inputs["noise"], inputs["state"]
    for step in range(steps):
        timestep = torch.full_like(state[:, 0], 1.0 - step / steps)
        x = x - network.expert(x, timestep, *cache, state) / steps
    return x


def smooth(error: Tensor, wanted: Tensor) -> Tensor:
    """Return the loss of places [B]: squared near zero, linear beyond 3 mm."""
    return functional.smooth_l1_loss(error, wanted, beta=0.03, reduction="none").mean(1)
