# SPDX-License-Identifier: Apache-2.0
"""Read the safety configuration file (JSON) strictly, because a limit that is not understood is not checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.files.json_fields import JsonFields, is_number, read_json, refusing
from reflex_core.robot.limits.tool_limits import ToolRules, read_tool
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
    "action_space", "mode", "max_consecutive_clamps", "tool",
)  # fmt: skip


class SafetyConfigError(ConfigurationError):
    """A safety configuration is missing, malformed, incomplete, or is not this robot's."""

    slug = "bad-safety-config"


@dataclass(frozen=True, slots=True)
class SafetyConfig:
    """One safety file. Arrays: one float64 per joint name, NaN where the file holds `null` (no limit of its own).

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
    tool: ToolRules | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Limits in the file that cannot be checked."""
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

    def config(self, document: Any) -> SafetyConfig:
        """Return the file's limits. Raises SafetyConfigError."""
        root = JsonFields(document, refusing(str(self._path), SafetyConfigError)).only(KEYS)
        root.whole("schema_version", 1, 1, default=1, expected="1")
        action_space = root.choice("action_space", (JOINT, CARTESIAN), JOINT)
        names = self.names(root, "joint_names", empty=action_space == CARTESIAN or "tool" in root)
        arrays = {key: self.array(root, key, len(names)) for key in ARRAYS}
        self.positions(root, arrays["position_min"], arrays["position_max"])
        workspace_min, workspace_max = self.workspace(root, action_space)
        config = SafetyConfig(
            path=self._path, joint_names=names, workspace_min=workspace_min, workspace_max=workspace_max,
            workspace_axes=self.axes(root), action_space=action_space, mode=root.choice("mode", MODES, CLIP),
            max_consecutive_clamps=root.whole(
                "max_consecutive_clamps", 0, 1_000_000, DEFAULT_MAX_CONSECUTIVE_CLAMPS,
                "an integer of 0 (never trips) to 1000000",
            ),
            tool=read_tool(root.fields("tool")) if "tool" in root else None, **arrays,
        )  # fmt: skip
        self.something_to_check(config)
        return config

    def names(self, document: JsonFields, key: str, *, empty: bool) -> tuple[str, ...]:
        names = document.get(key, [])
        right = isinstance(names, list) and all(map(is_name, names))
        if not right or len(set(names)) != len(names) or not (names or empty):
            raise document.refusal(key, "a list of at least one printable name, all different")
        return tuple(names)

    def array(self, document: JsonFields, key: str, length: int) -> Doubles | None:
        if key not in document:
            return None
        values = document[key]
        if not isinstance(values, list) or len(values) != length:
            raise document.refusal(key, f"{length} entries, one for each of 'joint_names'")
        position = key.startswith("position")
        least = -MOST if position else LEAST
        if not all(value is None or is_number(value, least, MOST) for value in values):
            expected = "finite numbers" if position else f"numbers of at least {LEAST:g}"
            raise document.refusal(key, f"{expected} (null: no limit of its own)")
        if key == "velocity_max" and any(value is not None and value > MOST_SPEED for value in values):
            raise document.refusal(
                key, f"at most {MOST_SPEED:g}, or null for no limit, and not in {NOT_RAD_PER_S}"
            )
        return np.array([math.nan if value is None else value for value in values], dtype=np.float64)

    def positions(self, document: JsonFields, low: Doubles | None, high: Doubles | None) -> None:
        if (low is None) != (high is None):
            missing, there = (
                ("position_min", "position_max") if low is None else ("position_max", "position_min")
            )
            raise document.refusal(missing, f"there, as '{there}' is")
        if low is None or high is None:
            return
        if (np.isnan(low) != np.isnan(high)).any():
            raise document.refusal("position_max", "null exactly where 'position_min' is")
        for name, least, most in zip(document["joint_names"], low, high, strict=True):
            if most - least < LEAST:
                raise document.refusal(
                    "position_min",
                    f"less than 'position_max' of {name}, {most:g}, by at least {LEAST:g}",
                    float(least),
                )
            if beyond(least, most, MOST_RAD_OR_M):
                got = [float(least), float(most)]
                raise document.refusal(
                    f"position_min and position_max of {name}", f"in rad or m, not in {NOT_RAD}", got
                )

    def workspace(self, document: JsonFields, action_space: str) -> tuple[Doubles | None, Doubles | None]:
        corners: list[Doubles | None] = []
        for key in ("workspace_min", "workspace_max"):
            values = document.get(key)
            if key not in document and action_space == JOINT:
                corners.append(None)
                continue
            if not isinstance(values, list) or len(values) != 3 or not all(map(_is_bounded, values)):
                raise document.refusal(key, "three finite numbers, [x, y, z] in m")
            corners.append(np.array(values, dtype=np.float64))
        low, high = corners
        if (low is None) != (high is None):
            raise document.refusal("workspace_min", "there exactly when 'workspace_max' is")
        if low is not None and high is not None and not (high - low >= LEAST).all():
            raise document.refusal(
                "workspace_min",
                f"less than 'workspace_max' {high.tolist()}, by at least {LEAST:g}",
            )
        return low, high

    def axes(self, document: JsonFields) -> tuple[str, ...]:
        if "workspace_axes" not in document:
            return AXES
        axes = self.names(document, "workspace_axes", empty=False)
        if len(axes) != 3:
            raise document.refusal("workspace_axes", "three names of actions")
        return axes

    def something_to_check(self, config: SafetyConfig) -> None:
        arrays = (config.position_min, config.velocity_max, config.acceleration_max)
        limited = any(array is not None and not np.isnan(array).all() for array in arrays)
        if not limited and config.action_space == JOINT and config.tool is None:
            raise SafetyConfigError(
                f"{self._path}: 'position_min' and 'position_max', 'velocity_max' or 'acceleration_max' must limit"
                " at least one joint, or 'tool' something, got none: this file would check nothing"
            )


def _is_bounded(value: object) -> bool:
    return is_number(value, -MOST, MOST)
