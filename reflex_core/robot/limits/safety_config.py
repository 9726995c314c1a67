# SPDX-License-Identifier: Apache-2.0
"""The safety configuration file (JSON): read strictly, because a limit nobody understood is a limit nobody checks."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.files.json_fields import is_number, is_whole, read_json
from reflex_core.robot.units import LEAST, MOST_RAD_OR_M, MOST_SPEED, NOT_RAD, NOT_RAD_PER_S, beyond
from reflex_core.text.untrusted import is_name

Doubles = NDArray[np.float64]

CLIP, SCALE, REJECT = "clip", "scale", "reject"
MODES = (CLIP, SCALE, REJECT)
JOINT, CARTESIAN = "joint", "cartesian"
DEFAULT_MAX_CONSECUTIVE_CLAMPS = 10
AXES = ("x", "y", "z")
MOST = 1e9  # beyond it no joint of any robot has its limit

ARRAYS = ("position_min", "position_max", "velocity_max", "acceleration_max", "effort_max")
KEYS = (
    "schema_version", "joint_names", *ARRAYS, "workspace_min", "workspace_max", "workspace_axes",
    "action_space", "mode", "max_consecutive_clamps",
)  # fmt: skip


class SafetyConfigError(ConfigurationError):
    """A safety configuration is missing, malformed, incomplete, or is not this robot's."""

    slug = "bad-safety-config"


@dataclass(frozen=True, slots=True)
class SafetyConfig:
    """One safety file. Arrays: one float64 per joint name, NaN where the file says `null` (no limit of its own).

    Units: rad or m, per second, per second squared; effort N m or N. An array the file leaves out is None.
    """

    path: Path
    joint_names: tuple[str, ...]
    position_min: Doubles | None = None
    position_max: Doubles | None = None
    velocity_max: Doubles | None = None
    acceleration_max: Doubles | None = None
    effort_max: Doubles | None = None
    workspace_min: Doubles | None = None
    workspace_max: Doubles | None = None
    workspace_axes: tuple[str, ...] = AXES
    action_space: str = JOINT
    mode: str = CLIP
    max_consecutive_clamps: int = DEFAULT_MAX_CONSECUTIVE_CLAMPS

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file asks for and nobody can check."""
        notes = []
        if self.effort_max is not None:
            notes.append(f"{self.path}: effort_max is not checked: actions are positions, not efforts")
        if self.workspace_min is not None and self.action_space == JOINT:
            notes.append(
                f"{self.path}: workspace_min and workspace_max are not checked: actions are joint positions"
            )
        return tuple(notes)


def load_safety_config(path: Path) -> SafetyConfig:
    """Read and check a safety file. Raises SafetyConfigError naming file, key, expected and got."""
    try:
        document = read_json(path, finite=False)
    except OSError as error:
        raise SafetyConfigError(f"{path}: {error.strerror or error}", "safety-config-missing") from error
    except ValueError as error:
        raise SafetyConfigError(f"{path}: {error}") from error
    return _Reader(path).config(document)


class _Reader:
    """Reads one document, so that every complaint can name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fail(self, key: str, expected: str, got: object) -> SafetyConfigError:
        shown = json.dumps(got, default=str)
        return SafetyConfigError(f"{self._path}: '{key}' must be {expected}, got {shown[:120]}")

    def config(self, document: Any) -> SafetyConfig:
        if not isinstance(document, dict):
            raise self.fail("document", "an object", document)
        unknown = sorted(set(document) - set(KEYS))
        if unknown:
            raise self.fail("document", f"an object with only the keys {', '.join(KEYS)}", unknown)
        version = document.get("schema_version", 1)
        if version != 1 or isinstance(version, bool):
            raise self.fail("schema_version", "1", version)
        action_space = self.choice(document, "action_space", (JOINT, CARTESIAN))
        names = self.names(document, "joint_names", empty=action_space == CARTESIAN)
        arrays = {key: self.array(document, key, len(names)) for key in ARRAYS}
        self.positions(document, arrays["position_min"], arrays["position_max"])
        workspace_min, workspace_max = self.workspace(document, action_space)
        config = SafetyConfig(
            path=self._path, joint_names=names, workspace_min=workspace_min, workspace_max=workspace_max,
            workspace_axes=self.axes(document), action_space=action_space,
            mode=self.choice(document, "mode", MODES), max_consecutive_clamps=self.clamps(document), **arrays,
        )  # fmt: skip
        self.something_to_check(config)
        return config

    def choice(self, document: dict[str, Any], key: str, choices: tuple[str, ...]) -> str:
        value = document.get(key, choices[0])
        if value not in choices:
            raise self.fail(key, f"one of {', '.join(choices)}", value)
        return str(value)

    def names(self, document: dict[str, Any], key: str, *, empty: bool) -> tuple[str, ...]:
        names = document.get(key, [])
        right = isinstance(names, list) and all(map(is_name, names))
        if not right or len(set(names)) != len(names) or not (names or empty):
            raise self.fail(key, "a list of at least one printable name, all different", names)
        return tuple(names)

    def array(self, document: dict[str, Any], key: str, length: int) -> Doubles | None:
        if key not in document:
            return None
        values = document[key]
        if not isinstance(values, list) or len(values) != length:
            raise self.fail(key, f"{length} entries, one for each of 'joint_names'", values)
        position = key.startswith("position")
        least = -MOST if position else LEAST
        if not all(value is None or is_number(value, least, MOST) for value in values):
            expected = "finite numbers" if position else f"numbers of at least {LEAST:g}"
            raise self.fail(key, f"{expected} (null: no limit of its own)", values)
        if key == "velocity_max" and any(value is not None and value > MOST_SPEED for value in values):
            raise self.fail(
                key, f"at most {MOST_SPEED:g}, or null for no limit, and not in {NOT_RAD_PER_S}", values
            )
        return np.array([math.nan if value is None else value for value in values], dtype=np.float64)

    def positions(self, document: dict[str, Any], low: Doubles | None, high: Doubles | None) -> None:
        if (low is None) != (high is None):
            missing, there = (
                ("position_min", "position_max") if low is None else ("position_max", "position_min")
            )
            raise self.fail(missing, f"there, as '{there}' is", None)
        if low is None or high is None:
            return
        if (np.isnan(low) != np.isnan(high)).any():
            raise self.fail("position_max", "null exactly where 'position_min' is", document["position_max"])
        for name, least, most in zip(document["joint_names"], low, high, strict=True):
            if most - least < LEAST:
                raise self.fail(
                    "position_min",
                    f"less than 'position_max' of {name}, {most:g}, by at least {LEAST:g}",
                    float(least),
                )
            if beyond(least, most, MOST_RAD_OR_M):
                got = [float(least), float(most)]
                raise self.fail(
                    f"position_min and position_max of {name}", f"in rad or m, not in {NOT_RAD}", got
                )

    def workspace(self, document: dict[str, Any], action_space: str) -> tuple[Doubles | None, Doubles | None]:
        corners: list[Doubles | None] = []
        for key in ("workspace_min", "workspace_max"):
            values = document.get(key)
            if key not in document and action_space == JOINT:
                corners.append(None)
                continue
            if not isinstance(values, list) or len(values) != 3 or not all(map(_is_bounded, values)):
                raise self.fail(key, "three finite numbers, [x, y, z] in m", values)
            corners.append(np.array(values, dtype=np.float64))
        low, high = corners
        if (low is None) != (high is None):
            raise self.fail(
                "workspace_min", "there exactly when 'workspace_max' is", document.get("workspace_min")
            )
        if low is not None and high is not None and not (high - low >= LEAST).all():
            raise self.fail(
                "workspace_min",
                f"less than 'workspace_max' {high.tolist()}, by at least {LEAST:g}",
                low.tolist(),
            )
        return low, high

    def axes(self, document: dict[str, Any]) -> tuple[str, ...]:
        if "workspace_axes" not in document:
            return AXES
        axes = self.names(document, "workspace_axes", empty=False)
        if len(axes) != 3:
            raise self.fail("workspace_axes", "three names of actions", list(axes))
        return axes

    def clamps(self, document: dict[str, Any]) -> int:
        value = document.get("max_consecutive_clamps", DEFAULT_MAX_CONSECUTIVE_CLAMPS)
        if not is_whole(value, 0, 1_000_000):
            raise self.fail("max_consecutive_clamps", "an integer of 0 (never trips) to 1000000", value)
        return value

    def something_to_check(self, config: SafetyConfig) -> None:
        arrays = (config.position_min, config.velocity_max, config.acceleration_max)
        limited = any(array is not None and not np.isnan(array).all() for array in arrays)
        if not limited and config.action_space == JOINT:
            raise SafetyConfigError(
                f"{self._path}: 'position_min' and 'position_max', 'velocity_max' or 'acceleration_max' must limit"
                " at least one joint, got none: this file would check nothing"
            )


def _is_bounded(value: object) -> bool:
    return is_number(value, -MOST, MOST)
