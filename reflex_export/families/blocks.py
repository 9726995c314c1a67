# SPDX-License-Identifier: Apache-2.0
"""Blocks of reflex_config.json (docs/reference/exports.md) that several families write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reflex_export.checkpoint import CameraFeature, Checkpoint
from reflex_export.families.names import (
    ACTIONS,
    DENOISE,
    MONOLITHIC,
    NOISE,
    NOISY,
    PREFIX,
    STATE,
    TIME,
    TOKENS,
    TOKENS_MASK,
    VELOCITY,
)
from reflex_export.options import ExportOptions

Block = dict[str, Any]

TOKENIZER_FILE = "tokenizer.json"
PREFIX_FILE, DENOISE_FILE, FUSED_FILE = "vlm_prefix.onnx", "expert_denoise.onnx", "model.onnx"
SIGLIP: Mapping[str, Any] = {"range": [-1.0, 1.0], "filter": "bilinear", "bars": 0.0, "fill": -1.0}


def fed_cameras(checkpoint: Checkpoint) -> tuple[CameraFeature, ...]:
    """Return the cameras whose pictures the graphs of a family with masks take: not those that were empty in training.

    Their tokens are masked in every layer and take no position, so that the same comes out without them, for less work. Tokens
    that SmolVLA may have around its pictures are not masked with them.
    """
    around = checkpoint.config.get("add_image_special_tokens", False)
    return tuple(camera for camera in checkpoint.cameras if around or not camera.empty)


def masked_slots(checkpoint: Checkpoint, height: int, width: int, how: Mapping[str, Any]) -> list[Block]:
    """Return the picture slots of a family with masks. how: the preprocessing that all of them share.

    A camera that was there in training is required: without it the policy does something else.
    """
    return [
        _slot(camera, height, width, how) | {"mask": camera.mask, "required": not camera.empty}
        for camera in fed_cameras(checkpoint)
    ]


def exact_slots(checkpoint: Checkpoint, options: ExportOptions) -> list[Block]:
    """Return the picture slots of a family that neither scales pictures nor knows a missing one."""
    scaled: Block = {"resize": "stretch", "filter": "bilinear"}
    how: Block = {"range": [0.0, 1.0]} | (scaled if options.resize_cameras else {"size": "exact"})
    return [_slot(camera, camera.height, camera.width, how) | {"mask": None} for camera in checkpoint.cameras]


def _slot(camera: CameraFeature, height: int, width: int, how: Mapping[str, Any]) -> Block:
    named: Block = (
        {"camera": None} if camera.empty else {"camera": camera.camera, "feature": camera.observation}
    )
    return named | {"input": camera.input, "height": height, "width": width, "layout": "nchw", **how}


def state_input(checkpoint: Checkpoint, width: int) -> Block:
    """Return the key `state` of a policy that reads it as numbers, padded to `width`; {} for one that reads none."""
    return {"state": {"input": STATE, "width": width}} if checkpoint.state_dim else {}


def token_length(checkpoint: Checkpoint) -> int:
    """Return how many tokens the graphs take: what the tokenizer step pads and cuts to."""
    return int(
        checkpoint.processors.language.get("max_length", checkpoint.config.get("tokenizer_max_length", 48))
    )


def language(checkpoint: Checkpoint) -> Block:
    """Return the block `language`: the inputs, the tokenizer, and what the pipeline does to an instruction."""
    steps = {
        key: dict(value) if isinstance(value, Mapping) else value
        for key, value in checkpoint.processors.language.items()
    }
    return {
        "tokens": TOKENS, "mask": TOKENS_MASK, "length": token_length(checkpoint), "tokenizer": TOKENIZER_FILE, **steps,
    }  # fmt: skip


def euler(checkpoint: Checkpoint, options: ExportOptions, steps: int) -> Block:
    """Return layout, flow and real-time chunking of a flow from noise at 1 to actions at 0 in equal steps."""
    flow: Block = {"x": NOISY, "time": TIME, "velocity": VELOCITY, "start": 1.0, "end": 0.0, "sign": 1}
    graphs = {PREFIX: PREFIX_FILE, DENOISE: DENOISE_FILE}
    if options.fused:
        flow, graphs = {"noise": NOISE, "actions": ACTIONS}, {MONOLITHIC: FUSED_FILE}
    return {
        "export_kind": "monolithic" if options.fused else "decomposed",
        "graphs": graphs,
        "flow": flow,
        "num_denoising_steps": steps,
        "rtc": _rtc(checkpoint),
    }


def _rtc(checkpoint: Checkpoint) -> Block:
    written = checkpoint.config.get("rtc_config")
    weight = written.get("max_guidance_weight") if isinstance(written, Mapping) else None
    return {"mode": "guided_identity"} | ({} if weight is None else {"max_guidance_weight": weight})
