# SPDX-License-Identifier: Apache-2.0
"""The families that can be exported, and why the others cannot: a new family is a file and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from reflex_export.families.base import Family

# `type` in LeRobot's config.json -> module
FAMILIES: Mapping[str, str] = {
    "act": "reflex_export.families.act",
    "diffusion": "reflex_export.families.diffusion",
    "smolvla": "reflex_export.families.smolvla",
    "pi0": "reflex_export.families.pi",
    "pi05": "reflex_export.families.pi",
    "xvla": "reflex_export.families.xvla",
}


def family(name: str) -> Family:
    """Import the module of a family. Raises KeyError for a name that is no row."""
    return cast(Family, import_module(FAMILIES[name]))
