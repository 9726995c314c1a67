# SPDX-License-Identifier: Apache-2.0
"""The parity fixture of an export: one observation, and the chunk that the exporter's machine made of it.

`parity.npz` in the export holds `image.<camera>` (height, width, 3) uint8 RGB for each camera of the export, `state`
(n,) float32 in physical units where the policy reads one, `instruction` text, `seed` of the start noise or `noise`
(draws, horizon, width) float32 itself (Policy.noise_shape), the chunk as `normalised` (1, horizon, width) float32 as the
network gave it, as `actions` (rows, action_dim) float32 in the robot's units and the export's columns, or both, and
`tolerance`, the largest absolute difference that is allowed; `actions_tolerance` that of `actions`, where it is another. A
column of NaN in `actions` is not compared. `model_hash` and `config_hash` identify the weights and the configuration; they
may be missing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import ReflexError
from reflex_core.export.earlier import changes
from reflex_core.export.export import config_hash
from reflex_core.files.arrays import ArrayError, read_arrays
from reflex_core.files.atomic import atomic_write
from reflex_core.files.regular_file import unreadable
from reflex_core.images.raw_encodings import rgb
from reflex_core.policy.base import Policy
from reflex_core.values import Frame, Observation

FIXTURE = "parity.npz"
TOLERANCE = 1e-3
NORMALISED, ACTIONS = "normalised", "actions"
_IMAGE = "image."
# what is measured and written later says how to serve, and changes no plain chunk
_TUNED = ("adaptive", "prefix_cache", "rtc")


def parity(policy: Policy) -> Finding:
    """Check that the policy makes the recorded chunk of the recorded observation on this machine."""
    path = policy.export.path / FIXTURE
    why = unreadable(path)
    if why == "not there":
        return Finding("parity", OK, f"{policy.export.path} brings no {FIXTURE}: nothing to compare")
    again = (
        "copy the export again, have its exporter write the fixture again, or write one for this robot with"
        f" `reflex manifest {policy.export.path} --force`"
    )
    if why:
        return Finding("parity", FAIL, f"{path}: must be a regular file, it is {why}", again)
    try:
        recorded = read_arrays(path)
        noise = np.asarray(recorded["noise"], dtype=np.float32) if "noise" in recorded else None
        seed = int(recorded["seed"]) if noise is None else 0
        observation = _observation(policy, recorded)
        wanted = [_wanted(recorded, key) for key in (NORMALISED, ACTIONS) if key in recorded]
        if not wanted:
            raise KeyError(f"neither {NORMALISED} nor {ACTIONS}")
    except Exception as error:  # arrays of other shapes and kinds raise whatever they like
        message = str(error) if isinstance(error, ArrayError) else f"{type(error).__name__}: {error}"
        return Finding("parity", FAIL, f"{path}: not readable: {message}", again)
    try:
        expected = policy.noise_shape
        if noise is not None and (noise.shape != expected or not np.isfinite(noise).all()):
            raise _ShapeError(f"'noise' must be {expected} finite numbers, got {noise.shape}")
        made = policy.predict(observation, seed, noise=noise)
        ours = {NORMALISED: made.normalised, ACTIONS: policy.positions(made.normalised, observation.state)}
        differences = [_difference(policy, one, ours[one.key]) for one in wanted]
    except (ReflexError, ValueError) as error:
        return Finding("parity", FAIL, f"{path}: the policy does not take the observation: {error}", again)
    except _ShapeError as error:
        return Finding("parity", FAIL, f"{path}: {error}", again)
    message = "; ".join(
        f"largest difference from the recorded {one.words} {difference:.1e}, {one.tolerance:g} is allowed"
        for one, difference in zip(wanted, differences, strict=True)
    )
    if all(difference <= one.tolerance for one, difference in zip(wanted, differences, strict=True)):
        return Finding("parity", OK, message)
    on = policy.providers[0]
    if policy.inference_mode != "onnx_cpu":
        return Finding(
            "parity", WARN, f"{message}, on {on}", "compare with --device cpu; half precision differs"
        )
    why, do = _cause(policy, recorded)
    return Finding("parity", FAIL, f"{message}, on {on}; {why}", do)


class _ShapeError(Exception):
    """What was recorded has not the shape of what the policy makes."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: str
    chunk: NDArray[np.float32]
    tolerance: float

    @property
    def words(self) -> str:
        return "chunk" if self.key == NORMALISED else "actions in the robot's units"


def _wanted(recorded: Mapping[str, NDArray[Any]], key: str) -> _Wanted:
    tolerance = recorded["tolerance"]
    if key == ACTIONS:
        tolerance = recorded.get("actions_tolerance", tolerance)
    return _Wanted(key, np.asarray(recorded[key], dtype=np.float32), float(tolerance))


def _difference(policy: Policy, wanted: _Wanted, made: NDArray[np.float32]) -> float:
    """Return the largest absolute difference. NaN, which is within no tolerance, where the policy makes NaN.

    Raises _ShapeError.
    """
    chunk = wanted.chunk
    if wanted.key == NORMALISED:
        if made.shape != chunk.shape:
            raise _ShapeError(f"a chunk of {chunk.shape} was recorded, got {made.shape}")
        return float(np.abs(made - chunk).max())
    columns = policy.binding.columns
    if chunk.ndim != 2 or not len(chunk) or chunk.shape[1] <= columns.max():
        raise _ShapeError(
            f"'{ACTIONS}' of {chunk.shape} were recorded, the export has {policy.contract.action_dim} actions a row"
        )
    rows = min(len(chunk), len(made))
    theirs = chunk[:rows][:, columns]
    compared = ~np.isnan(theirs)
    if not compared.any():
        raise _ShapeError(f"'{ACTIONS}' hold nothing of what this robot does")
    return float(np.abs(made[:rows] - theirs)[compared].max(initial=0.0))


def _cause(policy: Policy, recorded: Mapping[str, NDArray[Any]]) -> tuple[str, str]:
    """Return what has changed since the chunk was recorded, as far as the fixture shows, and what to do."""
    export = policy.export
    keep = f"if that was you, `reflex manifest {export.path} --force` keeps what it answers now"
    configured = f"{export.config_path.name} (num_denoising_steps, images, normalization, ...)"
    if "model_hash" not in recorded or "config_hash" not in recorded:
        return (
            f"the weights, {configured} or onnxruntime are not what it was recorded with",
            f"copy the export again and install the same onnxruntime; {keep}",
        )
    was = str(recorded["model_hash"])
    if was == export.weights_hash != export.model_hash:
        others = "; ".join(changes(export, policy.contract)) or "its model_hash covered only the weights"
        return (
            f"it was recorded by the first version, which preprocessed observations differently: {others}",
            f"compare with the training library, then `reflex manifest {export.path} --force` keeps what it answers now",
        )
    if was != export.model_hash:
        return (
            f"it was recorded with weights {was[:16]}, these are {export.model_hash}",
            f"copy the export again; {keep}",
        )
    if str(recorded["config_hash"]) != _config_hash(policy):
        return f"{configured} was changed since it was recorded", f"undo the change; {keep}"
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
    atomic_write(path, recorded_chunk(policy, observation, seed, tolerance))


def recorded_chunk(
    policy: Policy, observation: Observation, seed: int, tolerance: float = TOLERANCE
) -> bytes:
    """Return the content of a fixture: the observation, and the chunk that the policy computes from it here.

    observation: frames in any encoding, under the names of the policy's own cameras or of the robot's.
    Raises ObservationError for an observation that the policy does not take.
    """
    own = {theirs: camera for camera, theirs in policy.binding.cameras.items()}
    given: dict[str, Any] = {
        f"{_IMAGE}{own.get(name, name)}": np.ascontiguousarray(rgb(frame))
        for name, frame in observation.frames.items()
    }
    given["instruction"] = np.array(observation.instruction)
    if observation.state is not None:
        given["state"] = observation.state
    seen = _observation(policy, given)
    given[NORMALISED] = policy.predict(seen, seed).normalised
    # in the export's columns; those that this robot has not are left open
    own_columns = np.full((policy.binding.horizon, policy.contract.action_dim), np.nan, np.float32)
    own_columns[:, policy.binding.columns] = policy.positions(given[NORMALISED], seen.state)
    given[ACTIONS] = own_columns
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
            frames[policy.binding.cameras.get(camera, camera)] = Frame(pixels, "rgb8", height, width)
    state = recorded.get("state")
    return Observation(
        frames, None if state is None else state.astype(np.float32), str(recorded["instruction"])
    )
