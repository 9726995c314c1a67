# SPDX-License-Identifier: Apache-2.0
"""Settings of config.json that graphs and descriptions are made from: numbers, sides of pictures, widths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import JsonFields, is_whole, refusing
from reflex_core.text.untrusted import shown
from reflex_export.folder.features import MOST_SIDE, Features

MOST_STEPS, MOST_WIDTH, MOST_TOKENS, MOST_VIEWS = 1000, 10_000, 100_000, 64
MOST_WEIGHT = 1000.0
MOST_LAYERS = 200  # several times what the largest policies of LeRobot have
# key -> the largest, and whether null means LeRobot's default
_WHOLE: Mapping[str, tuple[int, bool]] = {
    "num_steps": (MOST_STEPS, False),
    "num_inference_steps": (MOST_STEPS, True),
    "num_denoising_steps": (MOST_STEPS, False),
    "max_state_dim": (MOST_WIDTH, False),
    "max_action_dim": (MOST_WIDTH, False),
    "tokenizer_max_length": (MOST_TOKENS, False),
    "num_image_views": (MOST_VIEWS, True),
}
_SIDES: Mapping[str, bool] = {
    "image_resolution": False, "resize_imgs_with_padding": True, "resize_shape": True, "crop_shape": True,
}  # fmt: skip
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "noise_scheduler_type": ("DDPM", "DDIM"), "prediction_type": ("epsilon", "sample"),
}  # fmt: skip


def check_types(file: Path, family: str, config: Mapping[str, Any], features: Features) -> None:
    """Raise ExportError for a setting that is of another kind than LeRobot's, or too narrow for the policy's numbers."""
    fields = JsonFields(
        config, refusing(str(file), lambda message: ExportError(message, "bad-policy-config"))
    )
    for key, (most, optional) in _WHOLE.items():
        null = optional and (key != "num_inference_steps" or family == "diffusion")
        if key in fields and not (null and fields[key] is None):
            fields.whole(key, 1, most)
    for key, optional in _SIDES.items():
        if key in fields and not (optional and fields[key] is None):
            _check_sides(fields, key)
    for key, choices in _CHOICES.items():
        if key in fields:
            fields.choice(key, choices)
    if fields.get("temporal_ensemble_coeff") is not None:
        fields.number("temporal_ensemble_coeff", -MOST_WEIGHT, MOST_WEIGHT)
    rtc = fields.fields("rtc_config", optional=True)
    if rtc.get("max_guidance_weight") is not None:
        rtc.number("max_guidance_weight", 0, MOST_WEIGHT)
    _check_layers(file, config)
    for key, dim in (("max_state_dim", features.state_dim), ("max_action_dim", features.action_dim)):
        if key in fields and fields[key] < dim:
            raise fields.refusal(key, f"at least {dim}, as wide as what is padded to it")


def _check_layers(file: Path, config: Mapping[str, Any]) -> None:
    """Raise ExportError for a network of so many layers that building it, before its weights are compared, takes hours."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            _check_layers(file, value)
        elif "layers" in key and is_whole(value, MOST_LAYERS + 1):
            raise ExportError(
                f"{file}: {shown(key)} must be at most {MOST_LAYERS}, got {shown(value)}", "bad-policy-config"
            )


def _check_sides(fields: JsonFields, key: str) -> None:
    sides = fields[key]
    if (
        not isinstance(sides, list)
        or len(sides) != 2
        or not all(is_whole(side, 1, MOST_SIDE) for side in sides)
    ):
        raise fields.refusal(key, f"two sides in pixels, each from 1 to {MOST_SIDE}")
