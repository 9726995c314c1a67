# SPDX-License-Identifier: Apache-2.0
"""Diffusion Policy: an encoder graph, one step of the U-Net, and the schedule as a table of numbers."""

from __future__ import annotations

from typing import Any

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.blocks import exact_slots, state_input
from reflex_export.families.names import DENOISE, NOISY, PREFIX, TIME, VELOCITY
from reflex_export.options import ExportOptions

ENCODER_FILE, STEP_FILE = "encoder.onnx", "unet_step.onnx"


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """Return Diffusion Policy's part of reflex_config.json, but for `sampler`, which its scheduler computes.

    Its chunk begins in the past, at the oldest observation: the row of the newest one is `first_row`.
    """
    return {
        "export_kind": "decomposed",
        "policy": "diffusion",
        "graphs": {PREFIX: ENCODER_FILE, DENOISE: STEP_FILE},
        "flow": {"x": NOISY, "time": TIME, "velocity": VELOCITY},
        "images": exact_slots(checkpoint, options),
        "first_row": checkpoint.observation_steps - 1,
        **state_input(checkpoint, checkpoint.state_dim),
    }
