# SPDX-License-Identifier: Apache-2.0
"""What the layouts of exports leave unsaid: names of graphs, inputs and outputs, for reflex_config.json.

Everything here is a default. What an export writes itself wins, and every name is checked against the graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.export import config_path
from reflex_core.export.families import DETERMINISTIC, DIFFUSION, FAMILIES, LEROBOT, Config, kind_of, row_of
from reflex_core.export.model_hash import MONOLITHIC_FILES

DECOMPOSED, MONOLITHIC, EXPERT_STACK = "decomposed", "monolithic", "expert_stack"


def layout_of(path: Path, config: Mapping[str, Any]) -> str:
    """Return decomposed, monolithic or expert_stack. Raises ExportError when the directory is none of them."""
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
    """Return all keys that an export of this layout and family may leave out."""
    layout = layout_of(path, config)
    family, kind = row_of(config), kind_of(config)
    common: Config = {
        "num_denoising_steps": 10,
        "state": {"input": "state"},
        "language": {
            "tokens": "lang_tokens",
            "mask": "lang_masks",
        },
        "links": {},
    }
    if layout == EXPERT_STACK or family.expert_stack:
        return common | _expert_stack(path, config, layout)
    if family.cameras:
        common["images"] = _image_slots(family.cameras)
    common |= _monolithic(path, config) if layout == MONOLITHIC else _decomposed(path, config)
    if kind == DETERMINISTIC:  # no noise, and no time
        common |= {"flow": {}, "actions_output": "actions", "num_denoising_steps": 1}
    return common


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Config:
    """Merge `over` into `base`, key by key; `over` wins, lists are replaced."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            result[key] = merged(known, value)
        else:
            result[key] = value
    return result


def _image_slots(cameras: tuple[str, ...]) -> list[Config]:
    return [
        {"camera": name, "input": f"img_{name}", "mask": f"mask_{name}", "required": number == 0}
        for number, name in enumerate(cameras)
    ]


def _flow(config: Mapping[str, Any], *, per_step: bool) -> Config:
    """Return the names of a fused loop or of one step of it: by the export's own `flow`, else by its configuration."""
    written = config.get("flow")
    named = set(written) if isinstance(written, Mapping) else set()
    per_step = per_step or kind_of(config) == DIFFUSION
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
            **row_of(config).flow,
        },
    }
    if (path / "vision_encoder.onnx").is_file() or config.get("vlm_prefix_onnx"):
        graphs |= {
            "vision": str(config.get("vlm_prefix_onnx") or "vision_encoder.onnx"),
            "text": str(config.get("text_embedder_onnx") or "text_embedder.onnx"),
            "prefill": str(config.get("decoder_prefill_onnx") or "decoder_prefill.onnx"),
        }
        base["images"] = [
            {
                "camera": "camera",
                "input": "pixel_values",
                "required": True,
                **FAMILIES["smolvla"].trained_by[LEROBOT].images,
            }
        ]
        base["language"] = {"tokens": "input_ids", "mask": None}
    return base
