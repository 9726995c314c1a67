# SPDX-License-Identifier: Apache-2.0
"""The families that can be exported, and why the others cannot: a new family is a file and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from reflex_core.errors import ConfigurationError
from reflex_export.families.base import Family
from reflex_export.options import ExportOptions

# `type` in LeRobot's config.json -> module
FAMILIES: Mapping[str, str] = {
    "act": "reflex_export.families.act",
    "diffusion": "reflex_export.families.diffusion",
    "smolvla": "reflex_export.families.smolvla",
    "pi0": "reflex_export.families.pi",
    "pi05": "reflex_export.families.pi",
    "xvla": "reflex_export.families.xvla",
}

# option -> the families in whose graphs or description it changes anything
CHANGED_BY: Mapping[str, tuple[str, ...]] = {
    "fused": ("smolvla", "pi0", "pi05", "xvla"),
    "bars": ("pi0", "pi05"),
    "resize_cameras": ("act", "diffusion"),
}


def check_options(name: str, options: ExportOptions) -> None:
    """Raise ConfigurationError for an option that would change nothing in this family: its user expects something of it."""
    for option, families in CHANGED_BY.items():
        if getattr(options, option) not in (None, False) and name not in families:
            raise ConfigurationError(
                f"--{option.replace('_', '-')} is for policies of type {', '.join(families)}, and changes nothing in one of type"
                f" {name}: leave it out",
                "option-without-effect",
            )


def family(name: str) -> Family:
    """Import the module of a family. Raises KeyError for a name that is no row."""
    return cast(Family, import_module(FAMILIES[name]))
