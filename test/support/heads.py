# SPDX-License-Identifier: Apache-2.0
"""Correction heads with known weights, and the policy they fit, for the tests of A2C2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from guarded import FRANKA, MIDDLE

from reflex_core.chunks.a2c2.correction import Correction, load_correction
from reflex_core.export.binding import Binding
from reflex_core.export.export import Affine
from reflex_core.values import Floats, Frame, Observation

HORIZON, JOINTS = 10, 7
STATISTICS = Affine(MIDDLE.astype(np.float64), np.full(JOINTS, 0.25))


def fit_of(**other: Any) -> Binding:
    """A policy of 10 rows for the Franka arm, with statistics for states and actions."""
    values: dict[str, Any] = {
        "cameras": {"camera": "camera"}, "state_names": FRANKA.joint_names, "state_dim": JOINTS,
        "state_statistics": STATISTICS, "action_names": FRANKA.joint_names, "action_statistics": STATISTICS,
        "columns": np.arange(JOINTS), "hold_columns": np.arange(JOINTS), "horizon": HORIZON, "dt_s": 0.05,
    }  # fmt: skip
    return Binding(**(values | other))


def contents(
    obs_dim: int = 7, layers: int = 2, hidden: int = 16, seed: int = 0, **other: Any
) -> dict[str, Any]:
    """What a checkpoint file holds: random weights, the features `state`; `other` replaces keys, None removes them."""
    generator = np.random.default_rng(seed)
    widths = [JOINTS + obs_dim + 8 + 1, *[hidden] * layers, JOINTS]
    document: dict[str, Any] = {
        "action_dim": JOINTS, "obs_dim": obs_dim, "chunk_size": HORIZON, "hidden_dim": hidden,
        "num_hidden_layers": layers, "position_encoding_dim": 8, "output_saturation_scale": 3.0, "features": "state",
    }  # fmt: skip
    for number in range(layers + 1):
        shape = (widths[number + 1], widths[number])
        document[f"w{number}"] = generator.normal(0, widths[number] ** -0.5, shape).astype(np.float32)
        document[f"b{number}"] = generator.normal(0, 0.1, shape[0]).astype(np.float32)
    document["w0"][:, -1] *= 1e-3  # milliseconds are large numbers
    return {key: value for key, value in (document | other).items() if value is not None}


def written(path: Path, document: Mapping[str, Any]) -> Path:
    """A checkpoint file with these contents."""
    np.savez(path, **document)
    return path


def constant(path: Path, z: float, **other: Any) -> Path:
    """A head whose residual is tanh(z / 3) * 3 in every row and column."""
    document = contents(**other)
    for key in [key for key in document if key[0] in "wb" and key[1:].isdigit()]:
        document[key] = np.zeros_like(document[key])
    last = f"b{document['num_hidden_layers']}"
    document[last] = np.full(JOINTS, z, np.float32)
    return written(path, document)


def correction_of(path: Path, **binding: Any) -> Correction:
    return load_correction(path, fit_of(**binding))


def picture(colour: tuple[int, int, int], row: int, column: int, side: int = 96) -> Frame:
    """A grey image with a square of one colour, centred on row and column."""
    pixels = np.full((side, side, 3), 120, dtype=np.uint8)
    pixels[row - 8 : row + 8, column - 8 : column + 8] = colour
    return Frame(pixels, "rgb8", side, side)


def observation(frame: Frame | None = None, state: Floats | None = MIDDLE, stamp_ns: int = 0) -> Observation:
    seen = picture((200, 20, 20), 48, 48) if frame is None else frame
    return Observation({"camera": seen}, state, "reach the red cube", stamp_ns)
