# SPDX-License-Identifier: Apache-2.0
"""What each model family leaves unsaid: one row per family. A new family is a row here.

Everything in a row is a default. What an export writes itself wins, and every name is checked against the graphs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.export import config_path
from reflex_core.export.processors import PI05_TEMPLATE
from reflex_core.export.prompt import CLEAN
from reflex_core.images.resize import BILINEAR, BILINEAR_ANTIALIAS, LETTERBOX, LETTERBOX_TOP_LEFT

Config = dict[str, Any]

LEROBOT, OPENPI = "lerobot", "openpi"
FLOW_MATCHING, DIFFUSION, DETERMINISTIC = "flow_matching", "diffusion", "deterministic"  # kinds of networks
PADDED_WIDTH = 32  # SmolVLA, pi0 and pi0.5 pad states and actions to this many dimensions

# SigLIP takes [-1, 1]; a camera the robot lacks is -1 everywhere with its mask false (openpi, LeRobot).
_SIGLIP: Config = {"range": [-1.0, 1.0], "filter": BILINEAR, "resize": LETTERBOX}
# openpi's client shrinks pictures with Pillow, LeRobot with torch
_OPENPI_SIGLIP: Config = _SIGLIP | {"filter": BILINEAR_ANTIALIAS}
_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# trained on pictures as the camera gave them, each camera with statistics of its own
_UNSCALED: Config = {"range": [0.0, 1.0], "filter": BILINEAR, "size": "exact"}
_CLEANED: Config = {"strip": True, "replace": dict(CLEAN)}


@dataclass(frozen=True, slots=True)
class Training:
    """The preprocessing of one training library.

    Attributes:
        images: Of an image, unless its slot overrides it; keys of `images` in reflex_config.json.
        language: Of an instruction; keys of `language` in reflex_config.json.
    """

    images: Config = field(default_factory=dict)
    language: Config = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """One row.

    Attributes:
        trained_by: Preprocessing of images and instructions, by the library that trained the policy.
        policy: The kind of network, by its name in policy/load.py.
        cameras: Image slots of an export that lists none: img_<camera> and mask_<camera>, the first one required.
        padded_width: Actions are padded at the end to this width, so that the first dimensions are the robot's; 0: never.
        flow: Which way time runs; keys of `flow` in reflex_config.json.
        time_buckets: The scale of integer times; None where it has none.
        expert_stack: Its graphs have the names of an expert stack, whatever the layout.
        aliases: Other prefixes of its `model_type`.
    """

    trained_by: Mapping[str, Training] = field(default_factory=dict)
    policy: str = FLOW_MATCHING
    cameras: tuple[str, ...] = ()
    padded_width: int = 0
    flow: Config = field(default_factory=dict)
    time_buckets: int | None = None
    expert_stack: bool = False
    aliases: tuple[str, ...] = ()


_PI_CAMERAS = ("base", "wrist_l", "wrist_r")
# a name that begins with another one comes first
FAMILIES: Mapping[str, Family] = {
    "act": Family({LEROBOT: Training(_UNSCALED)}, policy=DETERMINISTIC),
    "diffusion": Family({LEROBOT: Training(_UNSCALED)}, policy=DIFFUSION, aliases=("diffusion_policy",)),
    "smolvla": Family(
        {LEROBOT: Training(_SIGLIP | {"resize": LETTERBOX_TOP_LEFT}, {"newline": True})},
        cameras=("cam1", "cam2", "cam3"), padded_width=PADDED_WIDTH,
    ),
    "pi05": Family(
        {
            LEROBOT: Training(_SIGLIP, {"template": PI05_TEMPLATE} | _CLEANED),
            OPENPI: Training(_OPENPI_SIGLIP, {"template": PI05_TEMPLATE} | _CLEANED),
        },
        cameras=_PI_CAMERAS, padded_width=PADDED_WIDTH, aliases=("pi0_5",),
    ),
    "pi0": Family(
        {
            LEROBOT: Training(_SIGLIP, {"newline": True}),
            OPENPI: Training(_OPENPI_SIGLIP, {"newline": True} | _CLEANED),
        },
        cameras=_PI_CAMERAS, padded_width=PADDED_WIDTH,
    ),
    # pads and replaces missing cameras with zeros after normalisation, so its bars have the mean colour
    "xvla": Family(
        {LEROBOT: Training({
            "mean": _IMAGENET_MEAN, "std": _IMAGENET_STD, "bars": _IMAGENET_MEAN, "fill": 0.0,
            "filter": BILINEAR, "resize": LETTERBOX_TOP_LEFT,
        })},
        aliases=("x_vla",),
    ),
    # Isaac GR00T N1 runs from noise at 0 to actions at 1 and was trained on whole-number times
    "gr00t": Family(
        flow={"start": 0.0, "end": 1.0, "sign": 1}, time_buckets=1000, expert_stack=True, aliases=("groot",),
    ),
}  # fmt: skip
UNKNOWN = Family()


def family_of(config: Mapping[str, Any]) -> str:
    """Return the name of the row for a `model_type`, or the model type as written where there is none.

    Exporters append _decomposed, _student; people write GR00T-N1.7, pi0.5, lerobot/smolvla_base; LeRobot says groot.
    """
    written = str(config.get("model_type", "smolvla")).lower().rsplit("/", 1)[-1]
    model_type = re.sub(r"[^a-z0-9]+", "_", written)
    for family, row in FAMILIES.items():
        if any(model_type == name or model_type.startswith(f"{name}_") for name in (family, *row.aliases)):
            return family
    return written


def row_of(config: Mapping[str, Any]) -> Family:
    """Return the family's row; an empty one for an unknown model type."""
    return FAMILIES.get(family_of(config), UNKNOWN)


def kind_of(config: Mapping[str, Any]) -> str:
    """Return the kind of network, by its name in policy/load.py: `policy` as written, else the family's."""
    return str(config.get("policy") or row_of(config).policy)


def trained_by(path: Path, config: Mapping[str, Any]) -> str:
    """Return the library that trained the policy: lerobot, or openpi where `source` names it.

    Raises ExportError for any other name, and for openpi where that library has no such family.
    """
    source = config.get("source", LEROBOT)
    if not isinstance(source, str):  # an exporter's note of where the weights come from
        return LEROBOT
    if source not in (LEROBOT, OPENPI):
        raise ExportError(
            f"{config_path(path)}: 'source' must be {LEROBOT} or {OPENPI}, got {source[:120]!r}"
        )
    if source == OPENPI and OPENPI not in row_of(config).trained_by:
        known = sorted(family for family, row in FAMILIES.items() if OPENPI in row.trained_by)
        raise ExportError(
            f"{config_path(path)}: 'source' {OPENPI} goes with 'model_type' {' or '.join(known)}, got"
            f" {str(config.get('model_type', 'smolvla'))[:120]!r}"
        )
    return source


def _training(path: Path, config: Mapping[str, Any]) -> Training:
    return row_of(config).trained_by.get(trained_by(path, config), Training())


def with_pictures(path: Path, config: Config) -> Config:
    """Return the configuration with the family's image preprocessing in its image slots. Raises ExportError."""
    defaults = _training(path, config).images
    images = config.get("images")
    if not isinstance(images, list):
        return config
    return config | {"images": [_with_pictures(slot, defaults) for slot in images]}


def _with_pictures(slot: Any, row: Config) -> Any:
    if not isinstance(slot, dict):  # refused where slots are read
        return slot
    if {"range", "mean", "std"} & set(slot):  # its own numbers, and so its own value of a missing camera
        row = {key: value for key, value in row.items() if key not in ("range", "mean", "std", "fill")}
    return row | slot


def language_row(path: Path, config: Mapping[str, Any], *, takes_state: bool) -> Config:
    """Return the family's preprocessing of an instruction. takes_state: the graphs take the state, so that the prompt omits it."""
    row = {"template": "{instruction}"} | _training(path, config).language
    if takes_state and row["template"] == PI05_TEMPLATE:
        row["template"] = PI05_TEMPLATE.replace(", State: {state}", "")
    return row


def is_padded(config: Mapping[str, Any], width: int) -> bool:
    """Return True where a family pads its actions at the end to this width, so that the first dimensions are the robot's."""
    return width == row_of(config).padded_width
