# SPDX-License-Identifier: Apache-2.0
"""What the well-known exporters leave unsaid: defaults for reflex_config.json by layout and model family.

Everything here is a default. What an export writes itself wins, and every name is checked against the graphs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.export import config_path
from reflex_core.export.model_hash import MONOLITHIC_FILES
from reflex_core.export.processors import PI05_TEMPLATE
from reflex_core.policy.language import CLEAN
from reflex_core.policy.resize import BILINEAR, BILINEAR_ANTIALIAS, LETTERBOX, LETTERBOX_TOP_LEFT

Config = dict[str, Any]

DECOMPOSED, MONOLITHIC, EXPERT_STACK = "decomposed", "monolithic", "expert_stack"
PADDED_WIDTH = 32  # SmolVLA, pi0 and pi0.5 pad states and actions to this many dimensions

# What each family's training code does to a picture, for every image slot of its exports that does not say otherwise.
# SigLIP takes [-1, 1]; a camera the robot lacks is -1 everywhere with its mask false (openpi, LeRobot).
_SIGLIP: Config = {"range": [-1.0, 1.0], "filter": BILINEAR, "resize": LETTERBOX}
_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_PICTURES: Mapping[str, Config] = {
    "smolvla": _SIGLIP | {"resize": LETTERBOX_TOP_LEFT},
    "pi0": _SIGLIP,
    "pi05": _SIGLIP,
    # pads and stands in with zeros after normalisation, so its bars have the mean colour
    "xvla": {
        "mean": _IMAGENET_MEAN, "std": _IMAGENET_STD, "bars": _IMAGENET_MEAN, "fill": 0.0,
        "filter": BILINEAR, "resize": LETTERBOX_TOP_LEFT,
    },
}  # fmt: skip
# openpi's client shrinks pictures with Pillow, LeRobot with torch
_OPENPI_PICTURES: Mapping[str, Config] = {
    family: _SIGLIP | {"filter": BILINEAR_ANTIALIAS} for family in ("pi0", "pi05")
}
# What each family's training code makes of an instruction: LeRobot's steps, openpi's tokenizers.
_CLEANED: Config = {"strip": True, "replace": dict(CLEAN)}
_LANGUAGE: Mapping[str, Config] = {
    "smolvla": {"newline": True},
    "pi0": {"newline": True},
    "pi05": {"template": PI05_TEMPLATE} | _CLEANED,
}
_OPENPI_LANGUAGE: Mapping[str, Config] = {
    "pi0": {"newline": True} | _CLEANED,
    "pi05": {"template": PI05_TEMPLATE} | _CLEANED,
}
# Isaac GR00T N1 runs from noise at 0 to actions at 1 and was trained on whole-number times
_GR00T_TIMES: Config = {"start": 0.0, "end": 1.0, "sign": 1}
_GR00T_BUCKETS = 1000

LEROBOT, OPENPI = "lerobot", "openpi"


def layout_of(path: Path, config: Mapping[str, Any]) -> str:
    """decomposed, monolithic or expert_stack. Raises ExportError when the directory is none of them."""
    kind = config.get("export_kind")
    if kind in (DECOMPOSED, MONOLITHIC, EXPERT_STACK):
        return str(kind)
    if kind is not None:
        raise ExportError(
            f"{config_path(path)}: 'export_kind' must be {DECOMPOSED}, {MONOLITHIC} or {EXPERT_STACK}, got {kind!r}"
        )
    if (path / "expert_stack.onnx").is_file() or "expert" in config:
        return EXPERT_STACK
    raise ExportError(f"{config_path(path)}: names no 'export_kind' and there is no expert_stack.onnx")


def defaults(path: Path, config: Mapping[str, Any]) -> Config:
    """The whole description that an export of this layout and family may leave out."""
    layout = layout_of(path, config)
    family = family_of(config)
    common: Config = {
        "num_denoising_steps": 10,
        "state": {"input": "state"},
        "language": {
            "tokens": "lang_tokens",
            "mask": "lang_masks",
        },
        "links": {},
    }
    if layout == EXPERT_STACK or family == "gr00t":
        return common | _expert_stack(path, config, layout)
    if family in ("smolvla", "pi0", "pi05"):
        common |= _family_defaults(family)
    if layout == MONOLITHIC:
        return common | _monolithic(path, config)
    return common | _decomposed(path, config)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Config:
    """`over` wins; objects are merged key by key, lists are replaced."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            result[key] = merged(known, value)
        else:
            result[key] = value
    return result


def trained_by(path: Path, config: Mapping[str, Any]) -> str:
    """The library whose inputs the policy was trained on: lerobot, or openpi where `source` says so.

    Raises ExportError for any other name, and for openpi where that library has no such family.
    """
    source = config.get("source", LEROBOT)
    if not isinstance(source, str):  # an exporter's note of where the weights come from
        return LEROBOT
    if source not in (LEROBOT, OPENPI):
        raise ExportError(
            f"{config_path(path)}: 'source' must be {LEROBOT} or {OPENPI}, got {source[:120]!r}"
        )
    if source == OPENPI and family_of(config) not in _OPENPI_PICTURES:
        raise ExportError(
            f"{config_path(path)}: 'source' {OPENPI} goes with 'model_type' {' or '.join(_OPENPI_PICTURES)}, got"
            f" {str(config.get('model_type', 'smolvla'))[:120]!r}"
        )
    return source


def with_pictures(path: Path, config: Config) -> Config:
    """The same description, its image slots filled in with what their family does to pictures. Raises ExportError."""
    rows = _OPENPI_PICTURES if trained_by(path, config) == OPENPI else _PICTURES
    images = config.get("images")
    if not isinstance(images, list):
        return config
    return config | {"images": [_with_pictures(slot, rows.get(family_of(config), {})) for slot in images]}


def _with_pictures(slot: Any, row: Config) -> Any:
    if not isinstance(slot, dict):  # refused where slots are read
        return slot
    if {"range", "mean", "std"} & set(slot):  # its own numbers, and so its own value of a missing camera
        row = {key: value for key, value in row.items() if key not in ("range", "mean", "std", "fill")}
    return row | slot


def language_row(path: Path, config: Mapping[str, Any], *, takes_state: bool) -> Config:
    """What the family does to an instruction. takes_state: the graphs take the state, which the prompt then leaves out."""
    rows = _OPENPI_LANGUAGE if trained_by(path, config) == OPENPI else _LANGUAGE
    row = {"template": "{instruction}"} | rows.get(family_of(config), {})
    if takes_state and row["template"] == PI05_TEMPLATE:
        row["template"] = PI05_TEMPLATE.replace(", State: {state}", "")
    return row


def time_buckets(config: Mapping[str, Any]) -> int | None:
    """The scale of a family's whole-number times; None where it has none."""
    return _GR00T_BUCKETS if family_of(config) == "gr00t" else None


def is_padded(config: Mapping[str, Any], width: int) -> bool:
    """True where a family pads its actions at the end to this width, so that the first dimensions are the robot's."""
    return width == PADDED_WIDTH and family_of(config) in ("smolvla", "pi0", "pi05")


def family_of(config: Mapping[str, Any]) -> str:
    """smolvla, pi0, pi05, xvla, gr00t, or the model type as written.

    Exporters append _decomposed, _student; people write GR00T-N1.7, pi0.5, lerobot/smolvla_base; LeRobot says groot.
    """
    written = str(config.get("model_type", "smolvla")).lower().rsplit("/", 1)[-1]
    model_type = re.sub(r"[^a-z0-9]+", "_", written).replace("pi0_5", "pi05").replace("groot", "gr00t")
    model_type = model_type.replace("x_vla", "xvla")
    for family in ("smolvla", "pi05", "pi0", "xvla", "gr00t"):
        if model_type == family or model_type.startswith(family + "_"):
            return family
    return written


def _family_defaults(family: str) -> Config:
    names = ["cam1", "cam2", "cam3"] if family == "smolvla" else ["base", "wrist_l", "wrist_r"]
    images = [
        {"camera": name, "input": f"img_{name}", "mask": f"mask_{name}", "required": number == 0}
        for number, name in enumerate(names)
    ]
    return {"images": images}


def _flow(config: Mapping[str, Any], *, per_step: bool) -> Config:
    """Names of a loop that is baked in or of one step of it: as the export writes its own flow, else as told."""
    written = config.get("flow")
    named = set(written) if isinstance(written, Mapping) else set()
    if "x" in named or (per_step and "noise" not in named):
        return {"x": "x_t", "time": "t", "velocity": "v_t"}
    return {"noise": "noise", "actions": "actions"}


def _monolithic(path: Path, config: Mapping[str, Any]) -> Config:
    file = next((name for name in MONOLITHIC_FILES if (path / name).is_file()), MONOLITHIC_FILES[0])
    return {"graphs": {"monolithic": file}, "flow": _flow(config, per_step=False)}


def _decomposed(path: Path, config: Mapping[str, Any]) -> Config:
    block = config.get("decomposed") or {}
    if not isinstance(block, Mapping):
        raise ExportError(f"{config_path(path)}: 'decomposed' must be an object, got {block!r}")
    graphs = {
        "prefix": block.get("vlm_prefix_onnx", "vlm_prefix.onnx"),
        "denoise": block.get("expert_denoise_onnx", "expert_denoise.onnx"),
    }
    return {"graphs": graphs, "flow": _flow(config, per_step=bool(block.get("per_step_expert", False)))}


def _expert_stack(path: Path, config: Mapping[str, Any], layout: str) -> Config:
    expert = "model.onnx" if layout == MONOLITHIC else "expert_stack.onnx"
    graphs = {"denoise": expert}
    base: Config = {
        "graphs": graphs,
        "flow": {
            "x": "noisy_actions",
            "time": "timestep",
            "velocity": "velocity",
            "positions": "position_ids",
            **(_GR00T_TIMES if family_of(config) == "gr00t" else {}),
        },
    }
    if (path / "vision_encoder.onnx").is_file() or config.get("vlm_prefix_onnx"):
        graphs |= {
            "vision": str(config.get("vlm_prefix_onnx") or "vision_encoder.onnx"),
            "text": str(config.get("text_embedder_onnx") or "text_embedder.onnx"),
            "prefill": str(config.get("decoder_prefill_onnx") or "decoder_prefill.onnx"),
        }
        base["images"] = [
            {"camera": "camera", "input": "pixel_values", "required": True, **_PICTURES["smolvla"]}
        ]
        base["language"] = {"tokens": "input_ids", "mask": None}
    return base
