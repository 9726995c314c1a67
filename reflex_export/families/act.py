# SPDX-License-Identifier: Apache-2.0
"""ACT: one deterministic graph from pictures and state to a chunk."""

from __future__ import annotations

from typing import Any

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.blocks import exact_slots, state_input
from reflex_export.families.names import ACTIONS, MONOLITHIC
from reflex_export.options import ExportOptions

FILE = "policy.onnx"


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """Return ACT's part of reflex_config.json: no noise, no loop, pictures as large as in training."""
    coefficient = checkpoint.config.get("temporal_ensemble_coeff")
    return {
        "export_kind": "monolithic",
        "policy": "deterministic",
        "graphs": {MONOLITHIC: FILE},
        "actions_output": ACTIONS,
        "images": exact_slots(checkpoint, options),
        **({} if coefficient is None else {"temporal_ensemble_coeff": coefficient}),
        **state_input(checkpoint, checkpoint.state_dim),
    }
