# SPDX-License-Identifier: Apache-2.0
"""Embodiment JSON, schema v1: every bound, every rule between fields, every refusal with a stable slug.

config/embodiment.schema.json says the same to editors; the rules between fields are only here. Beyond v1 a file may
carry `joint_names`, `velocity_max`, `acceleration_max`, `notes` and `sources`.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reflex_core.errors import EmbodimentError
from reflex_core.files.json_fields import is_number
from reflex_core.robot.embodiment import Camera, Doubles, Embodiment, Statistics, TwoEnded
from reflex_core.robot.units import LEAST, MOST_RAD_OR_M, MOST_SPEED, NOT_RAD, NOT_RAD_PER_S, beyond
from reflex_core.text.untrusted import is_name

NAMES = ("franka", "so100", "ur5", "trossen", "stretch", "quadcopter", "custom")
COLOR_SPACES = ("rgb8", "bgr8", "mono8", "rgba8")
KEYS = {
    "document": "schema_version embodiment joint_names action_space velocity_max acceleration_max normalization"
    " gripper payload_release cameras control constraints notes sources",
    "action_space": "type dim ranges",
    "normalization": "mean_action std_action mean_state std_state",
    "gripper": "component_idx close_threshold inverted saturation_tolerance",
    "payload_release": "component_idx trigger_threshold saturation_tolerance",
    "cameras[]": "name resolution fps color_space",
    "control": "frequency_hz chunk_size rtc_execution_horizon",
    "constraints": "max_ee_velocity max_gripper_velocity collision_check",
}
STD_MIN, STD_MAX = 1e-9, 100  # below it a float32 of the normalised value overflows

log = logging.getLogger(__name__)


class Reader:
    """Reads one document, so that every complaint can name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fail(self, key: str, expected: str, got: object, slug: str = "schema-violation") -> EmbodimentError:
        shown = json.dumps(got, default=str)
        return EmbodimentError(f"{self._path}: '{key}' must be {expected}, got {shown[:120]}", slug)

    def embodiment(self, document: Any) -> Embodiment:
        """The robot of a parsed document. Raises EmbodimentError in one sentence."""
        root = self.table(document, "document")
        if type(root.get("schema_version")) is not int or root["schema_version"] != 1:
            raise self.fail("schema_version", "1", root.get("schema_version"))
        if root.get("embodiment") not in NAMES:
            raise self.fail("embodiment", f"one of {', '.join(NAMES)}", root.get("embodiment"))
        low, high = self.ranges(self.table(root.get("action_space"), "action_space"))
        dim = len(low)
        action, state = self.statistics(self.table(root.get("normalization"), "normalization"), dim)
        control = self.table(root.get("control"), "control")
        chunk_size = int(self.number(control, "chunk_size", 1, 200, whole=True))
        constraints = self.table(root.get("constraints"), "constraints")
        self.truth(constraints, "collision_check")
        self.remarks(root)
        gripper = self.two_ended(root, "gripper", "close_threshold", dim)
        gripper_velocity = self.gripper_velocity(root, constraints)
        velocity = self.limits(root, "velocity_max", dim)
        return Embodiment(
            name=root["embodiment"],
            joint_names=self.joint_names(root.get("joint_names", []), dim),
            action_min=low,
            action_max=high,
            velocity_max=capped(velocity, gripper, gripper_velocity, dim),
            acceleration_max=self.limits(root, "acceleration_max", dim),
            action_statistics=action,
            state_statistics=state,
            cameras=self.cameras(root.get("cameras")),
            frequency_hz=self.number(control, "frequency_hz", LEAST, 1000),
            chunk_size=chunk_size,
            execution_horizon=self.horizon(control, chunk_size),
            gripper=gripper,
            payload_release=self.two_ended(root, "payload_release", "trigger_threshold", dim),
            max_ee_velocity=self.number(constraints, "max_ee_velocity", LEAST, 50),
            max_gripper_velocity=gripper_velocity,
        )

    def table(self, document: Any, key: str) -> dict[str, Any]:
        if not isinstance(document, dict):
            raise self.fail(key, "an object", document)
        unknown = sorted(set(document) - set(KEYS[key].split()))
        if unknown:
            raise self.fail(key, f"an object with only the keys {KEYS[key]}", unknown)
        return document

    def number(
        self,
        holder: dict[str, Any],
        key: str,
        low: float,
        high: float,
        *,
        whole: bool = False,
    ) -> float:
        """A number in [low, high]."""
        value = holder.get(key)
        right = is_number(value) and (isinstance(value, int) or not whole)
        if not right or not low <= value <= high:  # type: ignore[operator]
            kind = "an integer" if whole else "a number"
            raise self.fail(key, f"{kind} in {low:g} to {high:g}", value)
        return value  # type: ignore[return-value]

    def truth(self, holder: dict[str, Any], key: str) -> bool:
        value = holder.get(key)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false", value)
        return value

    def remarks(self, root: dict[str, Any]) -> None:
        if not isinstance(root.get("notes", ""), str):
            raise self.fail("notes", "a text", root["notes"])
        sources = root.get("sources", [])
        if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
            raise self.fail("sources", "a list of texts", sources)

    def ranges(self, space: dict[str, Any]) -> tuple[Doubles, Doubles]:
        if space.get("type") not in ("continuous", "discrete"):
            raise self.fail("action_space.type", "continuous or discrete", space.get("type"))
        dim = int(self.number(space, "dim", 1, 32, whole=True))
        ranges = space.get("ranges")
        if not isinstance(ranges, list) or len(ranges) != dim:
            raise self.fail(
                "action_space.ranges", f"{dim} pairs, as 'dim' says", ranges, "action-ranges-length-mismatch"
            )
        for index, pair in enumerate(ranges):
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(isinstance(n, float) or is_number(n) for n in pair)
            ):
                raise self.fail("action_space.ranges", "pairs of numbers", pair)
            # false for NaN as well: a bound that is no number bounds nothing
            if not all(map(is_number, pair)) or not pair[1] - pair[0] >= LEAST:
                raise self.fail(
                    f"action_space.ranges[{index}]",
                    f"a finite pair with min < max, at least {LEAST:g} apart",
                    pair,
                    "action-range-inverted",
                )
            if beyond(pair[0], pair[1], MOST_RAD_OR_M):
                raise self.fail(f"action_space.ranges[{index}]", f"in rad or m, not in {NOT_RAD}", pair)
        pairs = np.array(ranges, dtype=np.float64)
        return pairs[:, 0].copy(), pairs[:, 1].copy()

    def vector(self, holder: dict[str, Any], key: str, *, positive: bool = False) -> Doubles:
        """A list of finite numbers; `positive`: each in [STD_MIN, STD_MAX]."""
        values = holder.get(key)
        expected = (
            f"a list of numbers from {STD_MIN:g} to {STD_MAX}" if positive else "a list of finite numbers"
        )
        if not isinstance(values, list) or not all(map(is_number, values)):
            raise self.fail(key, expected, values)
        if positive and not all(STD_MIN <= value <= STD_MAX for value in values):
            raise self.fail(key, expected, values)
        return np.array(values, dtype=np.float64)

    def statistics(self, table: dict[str, Any], dim: int) -> tuple[Statistics, Statistics]:
        action = Statistics(
            self.vector(table, "mean_action"), self.vector(table, "std_action", positive=True)
        )
        state = Statistics(self.vector(table, "mean_state"), self.vector(table, "std_state", positive=True))
        for key, vector in (("mean_action", action.mean), ("std_action", action.std)):
            if len(vector) != dim:
                slug = f"norm-{key.replace('_', '-')}-length-mismatch"
                raise self.fail(key, f"{dim} numbers, one per action dimension", vector.tolist(), slug)
        if len(state.mean) != len(state.std):
            raise self.fail(
                "std_state",
                f"{len(state.mean)} numbers, as 'mean_state' has",
                state.std.tolist(),
                "norm-state-length-mismatch",
            )
        return action, state

    def joint_names(self, names: Any, dim: int) -> tuple[str, ...]:
        right = isinstance(names, list) and all(map(is_name, names))
        if not right or len(set(names)) != len(names) or len(names) not in (0, dim):
            raise self.fail(
                "joint_names", f"{dim} different printable names, one per action dimension", names
            )
        return tuple(names)

    def limits(self, root: dict[str, Any], key: str, dim: int) -> Doubles | None:
        """One positive number per dimension; null, which becomes inf, where none is known."""
        if key not in root:
            return None
        values = root[key]
        right = isinstance(values, list) and len(values) == dim
        if not right or not all(value is None or is_number(value, LEAST) for value in values):
            raise self.fail(key, f"{dim} numbers of at least {LEAST:g}, null for no limit", values)
        if key == "velocity_max" and any(value is not None and value > MOST_SPEED for value in values):
            raise self.fail(
                key, f"at most {MOST_SPEED:g}, or null for no limit, and not in {NOT_RAD_PER_S}", values
            )
        return np.array([np.inf if value is None else value for value in values], dtype=np.float64)

    def cameras(self, block: Any) -> tuple[Camera, ...]:
        if not isinstance(block, list) or not 1 <= len(block) <= 8:
            raise self.fail("cameras", "a list of 1 to 8 cameras", block)
        cameras = tuple(self.camera(self.table(entry, "cameras[]")) for entry in block)
        names = [camera.name for camera in cameras]
        if len(set(names)) != len(names):
            raise self.fail("cameras", "cameras with different names", names, "duplicate-camera-name")
        return cameras

    def camera(self, entry: dict[str, Any]) -> Camera:
        name, size, color_space = entry.get("name"), entry.get("resolution"), entry.get("color_space")
        if not isinstance(name, str) or not name:
            raise self.fail("cameras[].name", "a name", name)
        right = isinstance(size, list) and len(size) == 2
        if not right or not all(type(side) is int and 32 <= side <= 4096 for side in size):  # type: ignore[union-attr]
            raise self.fail("cameras[].resolution", "[width, height], each 32 to 4096", size)
        if color_space not in COLOR_SPACES:
            raise self.fail("cameras[].color_space", f"one of {', '.join(COLOR_SPACES)}", color_space)
        fps = self.number(entry, "fps", LEAST, 240)
        return Camera(name, (size[0], size[1]), fps, color_space)  # type: ignore[index]

    def two_ended(
        self, root: dict[str, Any], key: Literal["gripper", "payload_release"], threshold: str, dim: int
    ) -> TwoEnded | None:
        if key not in root:
            return None
        table = self.table(root[key], key)
        component = int(self.number(table, "component_idx", 0, 1_000_000, whole=True))
        if component >= dim:
            slug = f"{key.replace('_', '-')}-idx-out-of-range"
            raise self.fail(f"{key}.component_idx", f"less than the {dim} of 'dim'", component, slug)
        at = self.number(table, threshold, 0, 1) if threshold in table else None
        inverted = self.truth(table, "inverted") if "inverted" in table else False
        if "saturation_tolerance" not in table:
            return TwoEnded(component, at, inverted)
        return TwoEnded(component, at, inverted, self.number(table, "saturation_tolerance", 0, 1))

    def gripper_velocity(self, root: dict[str, Any], constraints: dict[str, Any]) -> float | None:
        if "max_gripper_velocity" in constraints:
            return self.number(constraints, "max_gripper_velocity", LEAST, 10)
        if "gripper" in root:
            slug = "gripper-missing-velocity-cap"
            raise self.fail("constraints.max_gripper_velocity", "there, as there is a gripper", None, slug)
        return None

    def horizon(self, control: dict[str, Any], chunk_size: int) -> int:
        """Schema v1 counts actions; older files give a fraction of the chunk, which is migrated."""
        value = self.number(control, "rtc_execution_horizon", 0, 1000)
        if 0 < value < 1:
            count = max(1, round(value * chunk_size))
            self.warn("rtc-horizon-fraction", value, f"a fraction of the chunk, taken as {count} actions")
            return count
        if value < 1:
            self.warn("rtc-horizon-too-short", value, "taken as 1")
        elif value > chunk_size:
            self.warn("rtc-horizon-exceeds-chunk", value, f"taken as the chunk_size {chunk_size}")
        elif value != int(value):
            self.warn("rtc-horizon-fraction", value, f"no whole number of actions, taken as {int(value)}")
        return min(max(1, int(value)), chunk_size)

    def warn(self, slug: str, value: float, taken: str) -> None:
        log.warning("%s: %s: rtc_execution_horizon is %g: %s", self._path, slug, value, taken)


def capped(
    velocity: Doubles | None, gripper: TwoEnded | None, gripper_velocity: float | None, dim: int
) -> Doubles | None:
    """velocity_max with the gripper's entry no higher than max_gripper_velocity."""
    if gripper is None or gripper_velocity is None:
        return velocity
    velocity = np.full(dim, np.inf) if velocity is None else velocity
    velocity[gripper.component_idx] = min(velocity[gripper.component_idx], gripper_velocity)
    return velocity
