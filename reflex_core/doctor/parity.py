# SPDX-License-Identifier: Apache-2.0
"""The parity fixture of an export: one observation, and the chunk that the exporter's machine made of it.

`parity.npz` in the export holds `image.<camera>` (height, width, 3) uint8 RGB for each camera of the export, `state`
(n,) float32 in physical units where the policy reads one, `instruction` text, `seed` of the start noise, `normalised`
(1, horizon, width) float32 as the network gave it, and `tolerance`, the largest absolute difference that is allowed.
`model_hash` and `config_hash` say which weights and which configuration that was; they may be missing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import ReflexError
from reflex_core.export import config_hash
from reflex_core.frames import rgb
from reflex_core.policy.policy import Policy
from reflex_core.values import Frame, Observation
from reflex_core.whole_file import write_whole

FIXTURE = "parity.npz"
TOLERANCE = 1e-3
_IMAGE = "image."
# what is measured and written later says how to serve, and changes no plain chunk
_TUNED = ("adaptive", "prefix_cache", "rtc")


def parity(policy: Policy) -> Finding:
    """Whether the policy makes the recorded chunk of the recorded observation on this machine."""
    path = policy.export.path / FIXTURE
    if not path.is_file():
        return Finding("parity", OK, f"{policy.export.path} brings no {FIXTURE}: nothing to compare")
    again = (
        "copy the export again, have its exporter write the fixture again, or write one for this robot with"
        f" `reflex export seal {policy.export.path} --force`"
    )
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
    why, do = _cause(policy, recorded)
    return Finding("parity", FAIL, f"{said}, on {on}; {why}", do)


def _cause(policy: Policy, recorded: Mapping[str, NDArray[Any]]) -> tuple[str, str]:
    """What is not as it was when the chunk was recorded, as far as the fixture tells, and the way out."""
    export = policy.export
    seal = f"if that was you, `reflex export seal {export.path} --force` keeps what it answers now"
    configured = f"{export.config_path.name} (num_denoising_steps, images, normalization, ...)"
    if "model_hash" not in recorded or "config_hash" not in recorded:
        return (
            f"the weights, {configured} or onnxruntime are not what it was recorded with",
            f"copy the export again and install the same onnxruntime; {seal}",
        )
    if str(recorded["model_hash"]) != export.model_hash:
        was = str(recorded["model_hash"])
        return (
            f"it was recorded with weights {was[:16]}, these are {export.model_hash}",
            f"copy the export again; {seal}",
        )
    if str(recorded["config_hash"]) != _config_hash(policy):
        return f"{configured} was changed since it was recorded", f"undo the change; {seal}"
    return (
        "weights and configuration are those that it was recorded with",
        "look whether onnxruntime is the same, and the embodiment where its statistics count",
    )


def _config_hash(policy: Policy) -> str:
    return config_hash({key: value for key, value in policy.export.config.items() if key not in _TUNED})


def record(
    path: Path, policy: Policy, observation: Observation, seed: int, tolerance: float = TOLERANCE
) -> None:
    """Write a fixture. Raises ObservationError for what the policy does not take, ConfigurationError for the file."""
    write_whole(path, recorded_chunk(policy, observation, seed, tolerance))


def recorded_chunk(
    policy: Policy, observation: Observation, seed: int, tolerance: float = TOLERANCE
) -> bytes:
    """The content of a fixture: the observation, and the chunk that the policy makes of it here.

    observation: frames in any encoding, under the names of the policy's own cameras or of the robot's.
    Raises ObservationError for an observation that the policy does not take.
    """
    own = {theirs: camera for camera, theirs in policy.fit.cameras.items()}
    given: dict[str, Any] = {
        f"{_IMAGE}{own.get(name, name)}": np.ascontiguousarray(rgb(frame))
        for name, frame in observation.frames.items()
    }
    given["instruction"] = np.array(observation.instruction)
    if observation.state is not None:
        given["state"] = observation.state
    given["normalised"] = policy.predict(_observation(policy, given), seed).normalised
    given |= {"model_hash": np.array(policy.export.model_hash), "config_hash": np.array(_config_hash(policy))}
    stored = io.BytesIO()
    np.savez_compressed(stored, allow_pickle=False, seed=seed, tolerance=tolerance, **given)
    return stored.getvalue()


def _observation(policy: Policy, recorded: Mapping[str, NDArray[Any]]) -> Observation:
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
