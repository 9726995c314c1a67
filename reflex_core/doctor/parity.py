# SPDX-License-Identifier: Apache-2.0
"""The parity fixture of an export: observations, and the chunks that the exporter's machine made of them.

`parity.npz` in the export holds `image.<camera>` (height, width, 3) uint8 RGB for each camera of the export, `state`
(n,) float32 in physical units where the policy reads one, `instruction` text, `seed` of the start noise or `noise`
(draws, horizon, width) float32 itself (Policy.noise_shape), the chunk as `normalised` (1, horizon, width) float32 as the
network gave it, as `actions` (rows, action_dim) float32 in the robot's units and the export's columns, or both, and
`tolerance`, the largest absolute difference that is allowed; `actions_tolerance` that of `actions`, where it is another. A
column of NaN in `actions` is not compared. `model_hash` and `config_hash` identify the weights and the configuration; they
may be missing.

For a policy that sees several observations pictures and states have one axis more in front, oldest first. A fixture of
several cases has their arrays as `<case>/<name>`, and those that all of them share without a case.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import ReflexError
from reflex_core.export.earlier import changes
from reflex_core.export.export import Export, config_hash
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
_TUNED = ("adaptive", "batch", "prefix_cache", "rtc")


def parity(policy: Policy) -> Finding:
    """Check that the policy makes the recorded chunk of the recorded observation on this machine."""
    policy = policy.as_trained()
    if policy.export.address:
        return Finding("parity", OK, f"not compared: {policy.export.address} runs the policy")
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
        cases = [_case(policy, arrays) for arrays in split_cases(recorded)]
    except _ShapeError as error:
        return Finding("parity", FAIL, f"{path}: {error}", again)
    except Exception as error:  # arrays of other shapes and kinds raise whatever they like
        message = str(error) if isinstance(error, ArrayError) else f"{type(error).__name__}: {error}"
        return Finding("parity", FAIL, f"{path}: not readable: {message}", again)
    try:
        compared = [one for case in cases for one in _compared(policy, case)]
    except (ReflexError, ValueError) as error:
        return Finding("parity", FAIL, f"{path}: the policy does not take the observation: {error}", again)
    except _ShapeError as error:
        return Finding("parity", FAIL, f"{path}: {error}", again)
    message = _words(compared, len(cases))
    if all(one.within for one in compared):
        return Finding("parity", OK, message)
    on = policy.providers[0]
    if policy.inference_mode != "onnx_cpu":
        return Finding(
            "parity", WARN, f"{message}, on {on}", "compare with --device cpu; half precision differs"
        )
    why, do = _cause(policy, recorded)
    return Finding("parity", FAIL, f"{message}, on {on}; {why}", do)


def split_cases(recorded: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    """Return the arrays of each case of a fixture, with those that all cases share, in the order of their numbers."""
    shared = {key: value for key, value in recorded.items() if "/" not in key}
    numbers = sorted({int(key.split("/", 1)[0]) for key in recorded if "/" in key})
    if not numbers:
        return [shared]
    return [
        shared
        | {key.split("/", 1)[1]: value for key, value in recorded.items() if key.startswith(f"{number}/")}
        for number in numbers
    ]


@dataclass(frozen=True, slots=True)
class _Case:
    """One observation with what starts its noise, and what was recorded of it. noise: None for the seed's."""

    observation: Observation
    seed: int
    noise: NDArray[np.float32] | None
    wanted: tuple[_Wanted, ...]


@dataclass(frozen=True, slots=True)
class _Compared:
    """The largest difference from what was recorded; NaN where the policy makes NaN."""

    wanted: _Wanted
    difference: float

    @property
    def within(self) -> bool:
        return self.difference <= self.wanted.tolerance


def _case(policy: Policy, recorded: Mapping[str, NDArray[Any]]) -> _Case:
    noise = np.asarray(recorded["noise"], dtype=np.float32) if "noise" in recorded else None
    seed = int(recorded["seed"]) if noise is None else 0
    wanted = tuple(_wanted(recorded, key) for key in (NORMALISED, ACTIONS) if key in recorded)
    if not wanted:
        raise KeyError(f"neither {NORMALISED} nor {ACTIONS}")
    return _Case(_observation(policy, recorded), seed, noise, wanted)


def _compared(policy: Policy, case: _Case) -> list[_Compared]:
    """Run the policy once. Raises _ShapeError, or ObservationError for an observation that it does not take."""
    expected, noise = policy.noise_shape, case.noise
    if noise is not None and (noise.shape != expected or not np.isfinite(noise).all()):
        raise _ShapeError(f"'noise' must be {expected} finite numbers, got {noise.shape}")
    made = policy.predict(case.observation, case.seed, noise=noise)
    ours = {NORMALISED: made.normalised, ACTIONS: _trained(policy, made.normalised, case.observation)}
    return [_Compared(one, _difference(policy, one, ours[one.key])) for one in case.wanted]


def _words(compared: Sequence[_Compared], cases: int) -> str:
    """Return in words the largest difference of each kind, over all cases; NaN is larger than any."""
    largest: dict[str, _Compared] = {}
    for one in compared:
        before = largest.get(one.wanted.key)
        if before is None or not (np.isnan(before.difference) or one.difference <= before.difference):
            largest[one.wanted.key] = one
    of = f" of {cases} observations" if cases > 1 else ""
    return "; ".join(
        f"largest difference from the recorded {one.wanted.words}{of} {one.difference:.1e},"
        f" {one.wanted.tolerance:g} is allowed"
        for one in largest.values()
    )


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
    allowed = float(tolerance)
    if not 0 <= allowed < math.inf:
        raise ValueError(f"a tolerance of {allowed:g} compares nothing")
    return _Wanted(key, np.asarray(recorded[key], dtype=np.float32), allowed)


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
    if str(recorded["config_hash"]) != _config_hash(policy.export):
        return f"{configured} was changed since it was recorded", f"undo the change; {keep}"
    return (
        "weights and configuration are those that it was recorded with",
        "look whether onnxruntime is the same, and the embodiment where its statistics count",
    )


def _config_hash(export: Export) -> str:
    noted = {
        key
        for key, value in export.config.items()
        if key in _TUNED or (key == "source" and isinstance(value, Mapping))  # an exporter's note
    }
    return config_hash({key: value for key, value in export.config.items() if key not in noted})


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
    steps = policy.contract.observation_steps
    observation, policy = _as_seen(policy, observation), policy.as_trained()
    given = _given(policy, observation, observation.earlier(steps))
    seen = _observation(policy, given)
    given[NORMALISED] = policy.predict(seen, seed).normalised
    # in the export's columns; those that this robot has not are left open
    own_columns = np.full((policy.binding.horizon, policy.contract.action_dim), np.nan, np.float32)
    own_columns[:, policy.binding.columns] = _trained(policy, given[NORMALISED], seen)
    given[ACTIONS] = own_columns
    return packed(policy.export, [given], seed=seed, tolerance=tolerance)


def _as_seen(policy: Policy, observation: Observation) -> Observation:
    """Return an observation with the policy's own numbers in place of the joints that the robot measures."""

    def seen(one: Observation) -> Observation:
        return (
            one
            if one.state is None
            else replace(one, state=policy.binding.seen(policy.checked_state(one.state)))
        )

    return replace(seen(observation), history=tuple(seen(one) for one in observation.history))


def packed(export: Export, cases: Sequence[Mapping[str, Any]], **shared: Any) -> bytes:
    """Return the content of a fixture of an export.

    cases: the arrays of each observation, as `parity` reads them. shared: those that are the same for all.
    """
    shared |= {"model_hash": export.model_hash, "config_hash": _config_hash(export)}
    prefixes = [""] if len(cases) == 1 else [f"{number}/" for number in range(len(cases))]
    own = {
        f"{prefix}{key}": value
        for prefix, case in zip(prefixes, cases, strict=True)
        for key, value in case.items()
    }
    stored = io.BytesIO()
    np.savez_compressed(stored, allow_pickle=False, **shared, **own)
    return stored.getvalue()


def _trained(
    policy: Policy, normalised: NDArray[np.float32], observation: Observation
) -> NDArray[np.float32]:
    """Return (rows, action_dim) of a chunk in the units that the policy was trained in, which fixtures are written in."""
    actions, units = policy.positions(normalised, observation.state), policy.binding.units
    return actions if units is None else units.actions.to_policy(actions).astype(np.float32)


def _given(policy: Policy, newest: Observation, earlier: Sequence[Observation]) -> dict[str, Any]:
    """Return the arrays of an observation, stacked with the earlier ones where there are some."""
    own = {theirs: camera for camera, theirs in policy.binding.cameras.items()}
    seen = (*earlier, newest)

    def stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.ascontiguousarray(np.stack(arrays) if earlier else arrays[0])

    given: dict[str, Any] = {
        f"{_IMAGE}{own.get(name, name)}": stacked([rgb(one.frames[name]) for one in seen])
        for name in newest.frames
    }
    given["instruction"] = np.array(newest.instruction)
    if newest.state is not None:
        units = policy.binding.units
        states = [np.asarray(one.state) for one in seen]
        if units is not None and units.state is not None:
            states = [units.state.to_policy(state).astype(np.float32) for state in states]
        given["state"] = stacked(states)
    return given


def _observation(policy: Policy, recorded: Mapping[str, NDArray[Any]]) -> Observation:
    """Return the newest observation of a case, with the earlier ones where it has some."""
    pictures = {
        policy.binding.cameras.get(key[len(_IMAGE) :], key[len(_IMAGE) :]): pixels
        for key, pixels in recorded.items()
        if key.startswith(_IMAGE)
    }
    state, units = recorded.get("state"), policy.binding.units
    if state is not None and units is not None and units.state is not None:
        state = units.state.to_si(state)
    instruction = str(recorded["instruction"])
    steps = policy.contract.observation_steps
    if steps > 1:
        for name, array in (*pictures.items(), *(() if state is None else (("state", state),))):
            if len(array) != steps:
                raise _ShapeError(
                    f"'{name}' must be of {steps} observations, oldest first, got {array.shape}"
                )

    def at(step: int) -> Observation:
        one = {name: pixels[step] if steps > 1 else pixels for name, pixels in pictures.items()}
        frames = {name: Frame(pixels, "rgb8", *pixels.shape[:2]) for name, pixels in one.items()}
        own = None if state is None else (state[step] if steps > 1 else state).astype(np.float32)
        return Observation(frames, own, instruction)

    return replace(at(steps - 1), history=tuple(at(step) for step in range(steps - 1)))
