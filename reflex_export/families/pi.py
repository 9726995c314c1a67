# SPDX-License-Identifier: Apache-2.0
"""pi0 and pi0.5: a prefix graph of PaliGemma and one Euler step of the action expert."""

from __future__ import annotations

from typing import Any

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.blocks import SIGLIP, euler, language, masked_slots, state_input
from reflex_export.options import ExportOptions


def picture_size(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return (height, width) in pixels of the graphs' pictures."""
    height, width = checkpoint.config.get("image_resolution", [224, 224])
    return int(height), int(width)


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """Return the part of pi0 or pi0.5 of reflex_config.json: pictures in the middle of their bars, pi0.5's state in its prompt."""
    how = dict(SIGLIP) | {"resize": "letterbox"}
    if options.bars is not None:
        how["bars"] = (options.bars + 1) / 2  # as a brightness, which `range` brings to [-1, 1]
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
