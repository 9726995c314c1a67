# SPDX-License-Identifier: Apache-2.0
"""SmolVLA: a prefix graph of the vision-language model and one Euler step of the action expert."""

from __future__ import annotations

from typing import Any

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.blocks import SIGLIP, euler, language, masked_slots, state_input
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
