# SPDX-License-Identifier: Apache-2.0
"""Robots: what one is (values), how its file is read (file), and which come with the package (presets)."""

from reflex_core.embodiment.presets import load_embodiment, load_preset, preset_names
from reflex_core.embodiment.values import Camera, Embodiment, Statistics, TwoEnded

__all__ = [
    "Camera", "Embodiment", "Statistics", "TwoEnded", "load_embodiment", "load_preset", "preset_names",
]  # fmt: skip
