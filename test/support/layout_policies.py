# SPDX-License-Identifier: Apache-2.0
"""Policies of every layout, and an observation that each of them takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.values import Frame, Observation, Pixels


def policy_of(path: Path) -> Policy:
    return load_policy(open_export(path), None, "cpu", 1)


def picture(colour: tuple[int, int, int] = (255, 51, 102), height: int = 32, width: int = 32) -> Frame:
    pixels: Pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = colour
    return Frame(pixels, "rgb8", height, width)


def observation(
    policy: Policy, instruction: str = "reach the red cube", colour: int = 200, shift: float = 0.0
) -> Observation:
    """Something that every policy takes; the arguments change image, instruction and state."""
    plain = policy.canary()
    frames = {name: picture((colour, 20, 20)) for name in plain.frames}
    state = None if plain.state is None else (plain.state + np.float32(shift)).astype(np.float32)
    return Observation(frames, state, instruction)
