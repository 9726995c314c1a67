# SPDX-License-Identifier: Apache-2.0
"""The parity fixture of an export: one observation, and the chunk that the exporter's machine made of it.

`parity.npz` in the export holds `image.<camera>` (height, width, 3) uint8 RGB for each camera of the export, `state`
(n,) float32 in physical units where the policy reads one, `instruction` text, `seed` of the start noise, `normalised`
(1, horizon, width) float32 as the network gave it, and `tolerance`, the largest absolute difference that is allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import ReflexError
from reflex_core.policy.policy import Policy
from reflex_core.values import Frame, Observation

FIXTURE = "parity.npz"
TOLERANCE = 1e-3
_IMAGE = "image."


def parity(policy: Policy) -> Finding:
    """Whether the policy makes the recorded chunk of the recorded observation on this machine."""
    path = policy.export.path / FIXTURE
    if not path.is_file():
        return Finding("parity", OK, f"{policy.export.path} brings no {FIXTURE}: nothing to compare")
    again = "copy the export again, or have its exporter write the fixture again"
    try:
        with np.load(path, allow_pickle=False) as stored:
            recorded = {name: stored[name] for name in stored.files}
        wanted = np.asarray(recorded["normalised"], dtype=np.float32)
        tolerance = float(recorded["tolerance"])
        seed = int(recorded["seed"])
        observation = _observation(policy, recorded)
    except Exception as error:  # a damaged zip raises whatever it likes
        return Finding("parity", FAIL, f"{path}: not readable: {type(error).__name__}: {error}", again)
    try:
        made = policy.predict(observation, seed).normalised
    except ReflexError as error:
        return Finding("parity", FAIL, f"{path}: the policy does not take the observation: {error}", again)
    if made.shape != wanted.shape:
        return Finding(
            "parity", FAIL, f"{path}: a chunk of {wanted.shape} was recorded, got {made.shape}", again
        )
    difference = float(np.abs(made - wanted).max())
    said = f"largest difference from the recorded chunk {difference:.1e}, {tolerance:g} is allowed"
    if difference <= tolerance:
        return Finding("parity", OK, said)
    on = policy.providers[0]
    if policy.inference_mode != "onnx_cpu":
        return Finding(
            "parity", WARN, f"{said}, on {on}", "compare with --device cpu; half precision differs"
        )
    return Finding(
        "parity",
        FAIL,
        f"{said}, on {on}",
        "the weights or onnxruntime are not what was exported with: install both again",
    )


def record(
    path: Path, policy: Policy, observation: Observation, seed: int, tolerance: float = TOLERANCE
) -> None:
    """Write a fixture. `observation` holds RGB frames under the names of the policy's own cameras."""
    given: dict[str, Any] = {f"{_IMAGE}{name}": frame.data for name, frame in observation.frames.items()}
    given["instruction"] = np.array(observation.instruction)
    if observation.state is not None:
        given["state"] = observation.state
    given["normalised"] = policy.predict(_observation(policy, given), seed).normalised
    np.savez_compressed(path, allow_pickle=False, seed=seed, tolerance=tolerance, **given)


def _observation(policy: Policy, recorded: dict[str, NDArray[Any]]) -> Observation:
    frames = {}
    for name, pixels in recorded.items():
        if name.startswith(_IMAGE):
            camera = name[len(_IMAGE) :]
            height, width = pixels.shape[:2]
            frames[policy.fit.cameras.get(camera, camera)] = Frame(pixels, "rgb8", height, width)
    state = recorded.get("state")
    return Observation(
        frames, None if state is None else state.astype(np.float32), str(recorded["instruction"])
    )
