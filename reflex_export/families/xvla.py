# SPDX-License-Identifier: Apache-2.0
"""X-VLA: a prefix graph of Florence-2 and one step of the action head, mixed by a table of numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from reflex_core.export.processed import DOMAIN
from reflex_core.normalization.read import IMAGENET
from reflex_export.checkpoint import Checkpoint
from reflex_export.families.blocks import euler, language, masked_slots, state_input
from reflex_export.options import ExportOptions

COLUMNS = (
    "time", "x0_from_x", "x0_from_network",
    "next_from_x0", "next_from_x", "next_from_network", "next_from_noise", "next_from_start",
)  # fmt: skip


def picture_size(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return (height, width) in pixels of the graphs' pictures; its config.json has the height first."""
    target = checkpoint.config.get("resize_imgs_with_padding")
    if target is None:
        return checkpoint.cameras[0].height, checkpoint.cameras[0].width
    height, width = target
    return int(height), int(width)


def sampler(steps: int) -> dict[str, Any]:
    """Return the table of its sampler: the network answers with actions, and less of the start noise remains step by step."""
    times = [1.0 - step / steps for step in range(steps + 1)]
    rows = [[time, 0.0, 1.0, 1.0 - after, 0.0, 0.0, 0.0, after] for time, after in pairwise(times)]
    return {"columns": list(COLUMNS), "rows": rows, "clip": None}


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """Return X-VLA's part of reflex_config.json. It normalises by ImageNet before it resizes, so its bars have the mean colour."""
    mean, std = IMAGENET.shift.tolist(), IMAGENET.scale.tolist()
    resized = checkpoint.config.get("resize_imgs_with_padding") is not None
    how: dict[str, Any] = {"mean": mean, "std": std, "fill": 0.0}
    how |= (
        {"resize": "letterbox_top_left", "filter": "bilinear", "bars": mean} if resized else {"size": "exact"}
    )
    steps = int(checkpoint.config.get("num_denoising_steps", 10))
    described = euler(checkpoint, options, steps) | {"rtc": {"mode": "off"}}
    domain = checkpoint.processors.domain_id
    return {
        **described,
        **({} if domain is None else {"constants": {DOMAIN: [domain]}}),
        **({} if options.fused else {"sampler": sampler(steps)}),
        "images": masked_slots(checkpoint, *picture_size(checkpoint), how),
        "language": language(checkpoint),
        **state_input(checkpoint, int(checkpoint.config.get("max_state_dim", 32))),
    }
