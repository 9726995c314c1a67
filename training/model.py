# SPDX-License-Identifier: Apache-2.0
"""A small flow-matching VLA with the structure of pi0 and SmolVLA.

Prefix: image tokens and language tokens attend to each other; every layer hands its keys and values on.
Action expert: one state token and one token per action; each layer attends to the prefix keys and values of
the same layer and to its own. Flow matching: x_t = t * noise + (1 - t) * action, velocity = noise - action,
t runs from 1 to 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.demonstrator import CHUNK_SIZE
from training.language import TOKEN_COUNT

JOINTS = 7
IMAGE_TOKENS_PER_SIDE = 6
LAYERS = 3
HEADS = 4
HEAD_SIZE = 32
PREFIX_WIDTH = 128
EXPERT_WIDTH = 96
MASKED = -1e4
TIME_PERIODS = (4e-3, 4.0)


class RootMeanSquareNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Block(nn.Module):
    """Attention and MLP; returns its own keys and values [B, heads, tokens, head size] beside the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_SIZE
        self.attention_norm = RootMeanSquareNorm(width)
        self.mlp_norm = RootMeanSquareNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, width)
        )

    def forward(
        self, x: Tensor, bias: Tensor | None, past_key: Tensor | None = None, past_value: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        normed = self.attention_norm(x)
        query, key, value = (self._heads(layer(normed)) for layer in (self.query, self.key, self.value))
        all_keys = key if past_key is None else torch.cat([past_key, key], dim=2)
        all_values = value if past_value is None else torch.cat([past_value, value], dim=2)
        attended = functional.scaled_dot_product_attention(query, all_keys, all_values, attn_mask=bias)
        x = x + self.output(attended.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))
        return x + self.mlp(self.mlp_norm(x)), key, value

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], HEADS, HEAD_SIZE).transpose(1, 2)


def convolution(channels_in: int, channels_out: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, 2, kernel // 2), nn.GroupNorm(8, channels_out), nn.SiLU()
    )


def grid_positions(side: int, width: int) -> Tensor:
    """Sine and cosine position code [1, side * side, width] of a square grid, row by row."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    frequencies = 3.0 * 2 ** torch.linspace(0, 4, width // 4)
    phases = [axis.reshape(-1, 1) * frequencies for axis in (columns, rows)]
    return torch.cat([wave(phase) for phase in phases for wave in (torch.sin, torch.cos)], dim=1)[None]


class Prefix(nn.Module):
    """Image [B, 3, 96, 96] in [-1, 1], lang_tokens int64 [B, 24] and lang_masks bool [B, 24] make the cache.

    past_k and past_v are [layers, B, heads, 60, head size]; prefix_pad [B, 60] is 1 where a token counts.
    """

    def __init__(self, vocabulary_size: int, colour_count: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(3, 24, 5), convolution(24, 48, 3), convolution(48, 96, 3), convolution(96, 128, 3)
        )
        self.project = nn.Linear(128, PREFIX_WIDTH)
        self.image_positions = nn.Parameter(0.5 * grid_positions(IMAGE_TOKENS_PER_SIDE, PREFIX_WIDTH))
        self.words = nn.Embedding(vocabulary_size, PREFIX_WIDTH)
        self.word_positions = nn.Parameter(0.02 * torch.randn(1, TOKEN_COUNT, PREFIX_WIDTH))
        self.blocks = nn.ModuleList(Block(PREFIX_WIDTH) for _ in range(LAYERS))
        # Both heads exist only to teach the features; they are not exported.
        self.detection = nn.Linear(PREFIX_WIDTH, 1 + colour_count + 2)
        self.target_position = nn.Linear(PREFIX_WIDTH, 2)

    def see(self, image: Tensor) -> Tensor:
        """Image tokens [B, 36, width] before positions are added."""
        return self.project(self.stem(image).flatten(2).transpose(1, 2))

    def read(
        self, seen: Tensor, lang_tokens: Tensor, lang_masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns past_k, past_v, prefix_pad and the word tokens of the last layer."""
        x = torch.cat([seen + self.image_positions, self.words(lang_tokens) + self.word_positions], dim=1)
        prefix_pad = torch.cat([torch.ones_like(seen[:, :, 0]), lang_masks.to(seen.dtype)], dim=1)
        bias = ((1 - prefix_pad) * MASKED)[:, None, None, :]
        keys, values = [], []
        for block in self.blocks:
            x, key, value = block(x, bias)
            keys.append(key)
            values.append(value)
        return torch.stack(keys), torch.stack(values), prefix_pad, x[:, -TOKEN_COUNT:]

    def forward(
        self, image: Tensor, lang_tokens: Tensor, lang_masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        past_k, past_v, prefix_pad, _ = self.read(self.see(image), lang_tokens, lang_masks)
        return past_k, past_v, prefix_pad

    def guess_target(self, words: Tensor, lang_masks: Tensor) -> Tensor:
        """Auxiliary: the normalised table position [B, 2] of the named block, from the mean word token."""
        weight = lang_masks.to(words.dtype)[:, :, None]
        return self.target_position((words * weight).sum(1) / weight.sum(1).clamp(min=1))


class ActionExpert(nn.Module):
    """x_t [B, 50, 7], timestep [B], cache, state [B, 7] -> velocity v_t [B, 50, 7]; actions normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.actions_in = nn.Linear(JOINTS, EXPERT_WIDTH)
        self.time_in = nn.Sequential(
            nn.Linear(2 * EXPERT_WIDTH, EXPERT_WIDTH), nn.SiLU(), nn.Linear(EXPERT_WIDTH, EXPERT_WIDTH)
        )
        self.positions = nn.Parameter(0.02 * torch.randn(1, CHUNK_SIZE, EXPERT_WIDTH))
        self.state_in = nn.Linear(JOINTS, EXPERT_WIDTH)
        self.blocks = nn.ModuleList(Block(EXPERT_WIDTH) for _ in range(LAYERS))
        self.norm = RootMeanSquareNorm(EXPERT_WIDTH)
        self.actions_out = nn.Linear(EXPERT_WIDTH, JOINTS)
        shortest, longest = (math.log(period) for period in TIME_PERIODS)
        self.periods: Tensor
        self.register_buffer("periods", torch.exp(torch.linspace(shortest, longest, EXPERT_WIDTH // 2)))

    def forward(
        self, x_t: Tensor, timestep: Tensor, past_k: Tensor, past_v: Tensor, prefix_pad: Tensor, state: Tensor
    ) -> Tensor:
        phase = 2 * math.pi * timestep[:, None] / self.periods[None]
        time = torch.cat([phase.sin(), phase.cos()], dim=-1)[:, None].expand(-1, CHUNK_SIZE, -1)
        x = self.time_in(torch.cat([self.actions_in(x_t), time], dim=-1)) + self.positions
        x = torch.cat([self.state_in(state)[:, None], x], dim=1)
        bias = torch.cat([(1 - prefix_pad) * MASKED, torch.zeros_like(x[:, :, 0])], dim=1)[:, None, None, :]
        for index, block in enumerate(self.blocks):
            x, _, _ = block(x, bias, past_k[index], past_v[index])
        return self.actions_out(self.norm(x[:, 1:]))


class ReachPolicy(nn.Module):
    def __init__(self, vocabulary_size: int, colour_count: int) -> None:
        super().__init__()
        self.prefix = Prefix(vocabulary_size, colour_count)
        self.expert = ActionExpert()


class Monolithic(nn.Module):
    """image, lang_tokens, lang_masks, state, noise -> actions, with the Euler loop unrolled."""

    def __init__(self, policy: ReachPolicy, steps: int) -> None:
        super().__init__()
        self.policy = policy
        self.steps = steps

    def forward(
        self, image: Tensor, lang_tokens: Tensor, lang_masks: Tensor, state: Tensor, noise: Tensor
    ) -> Tensor:
        past_k, past_v, prefix_pad = self.policy.prefix(image, lang_tokens, lang_masks)
        x = noise
        for step in range(self.steps):
            timestep = torch.full_like(state[:, 0], 1.0 - step / self.steps)
            x = x - self.policy.expert(x, timestep, past_k, past_v, prefix_pad, state) / self.steps
        return x
