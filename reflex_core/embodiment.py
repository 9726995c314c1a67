# SPDX-License-Identifier: Apache-2.0
"""A robot as the policy server knows it: joints, ranges, rates, cameras, statistics (embodiment JSON, schema v1).

Beyond schema v1 a file may carry `joint_names`, `velocity_max` (rad/s or m/s) and `notes`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import EmbodimentError
from reflex_core.locations import share

Doubles = NDArray[np.float64]

COLOR_SPACES = ("rgb8", "bgr8", "mono8", "rgba8")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera the robot has; resolution is (width, height) in pixels."""

    name: str
    resolution: tuple[int, int]
    fps: float
    color_space: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and standard deviation per dimension, float64, physical units."""

    mean: Doubles
    std: Doubles


@dataclass(frozen=True, slots=True)
class Embodiment:
    """One robot. Every array has one entry per action dimension; ranges are rad, m, or 0..1 for a gripper."""

    name: str
    joint_names: tuple[str, ...]
    action_min: Doubles
    action_max: Doubles
    velocity_max: Doubles | None
    action_statistics: Statistics
    state_statistics: Statistics
    cameras: tuple[Camera, ...]
    frequency_hz: float
    chunk_size: int
    execution_horizon: int

    @property
    def action_dim(self) -> int:
        """How many numbers one action has."""
        return len(self.action_min)


def preset_names() -> tuple[str, ...]:
    """The embodiments that come with the package."""
    return tuple(sorted(path.stem for path in (share() / "config" / "embodiments").glob("*.json")))


def load_preset(name: str) -> Embodiment:
    """A bundled embodiment. Raises EmbodimentError with the list of presets when there is no such name."""
    if name not in preset_names():
        raise EmbodimentError(
            f"no embodiment preset '{name}': there are {', '.join(preset_names())}", "unknown-preset"
        )
    return load_embodiment(share() / "config" / "embodiments" / f"{name}.json")


def load_embodiment(path: Path) -> Embodiment:
    """Read and check an embodiment file. Raises EmbodimentError naming file, key, expected and got."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EmbodimentError(f"{path}: {error.strerror or error}", "embodiment-missing") from error
    except ValueError as error:
        raise EmbodimentError(f"{path}: not JSON: {error}", "schema-violation") from error
    return _Reader(path).embodiment(document)


class _Reader:
    """Reads one document, so that every complaint can name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fail(self, key: str, expected: str, got: object, slug: str = "schema-violation") -> EmbodimentError:
        shown = json.dumps(got, default=str)
        return EmbodimentError(f"{self._path}: '{key}' must be {expected}, got {shown[:120]}", slug)

    def table(self, document: Any, key: str, known: str) -> dict[str, Any]:
        if not isinstance(document, dict):
            raise self.fail(key, "an object", document)
        unknown = sorted(set(document) - set(known.split()))
        if unknown:
            raise self.fail(key, f"an object with only the keys {known}", unknown)
        return document

    def number(
        self, holder: dict[str, Any], key: str, low: float, high: float, *, whole: bool = False
    ) -> float:
        value = holder.get(key)
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not low <= value <= high:  # type: ignore[operator]
            raise self.fail(key, f"{'an integer' if whole else 'a number'} in {low:g} to {high:g}", value)
        return value  # type: ignore[return-value]

    def vector(
        self, holder: dict[str, Any], key: str, check: Callable[[Doubles], bool], expected: str
    ) -> Doubles:
        try:
            vector = np.asarray(holder.get(key), dtype=np.float64)
        except (TypeError, ValueError):
            vector = np.empty((0, 0))
        if vector.ndim != 1 or not np.isfinite(vector).all() or not check(vector):
            raise self.fail(key, expected, holder.get(key))
        return vector

    def embodiment(self, document: Any) -> Embodiment:
        known = (
            "schema_version embodiment joint_names action_space velocity_max normalization gripper payload_release"
            " cameras control constraints notes"
        )
        root = self.table(document, "document", known)
        if root.get("schema_version") != 1:
            raise self.fail("schema_version", "1", root.get("schema_version"))
        name = root.get("embodiment")
        if not isinstance(name, str) or not name:
            raise self.fail("embodiment", "a name", name)
        low, high = self.ranges(self.table(root.get("action_space"), "action_space", "type dim ranges"))
        dim = len(low)
        self.end_effector(root, dim)
        action, state = self.statistics(root.get("normalization"), dim)
        control = self.table(root.get("control"), "control", "frequency_hz chunk_size rtc_execution_horizon")
        chunk_size = int(self.number(control, "chunk_size", 1, 200, whole=True))
        return Embodiment(
            name=name,
            joint_names=self.joint_names(root.get("joint_names", []), dim),
            action_min=low,
            action_max=high,
            velocity_max=self.velocity(root, dim),
            action_statistics=action,
            state_statistics=state,
            cameras=self.cameras(root.get("cameras")),
            frequency_hz=self.number(control, "frequency_hz", 1e-3, 1000),
            chunk_size=chunk_size,
            execution_horizon=self.horizon(control, chunk_size),
        )

    def ranges(self, space: dict[str, Any]) -> tuple[Doubles, Doubles]:
        if space.get("type") not in ("continuous", "discrete"):
            raise self.fail("action_space.type", "continuous or discrete", space.get("type"))
        dim = int(self.number(space, "dim", 1, 32, whole=True))
        ranges = space.get("ranges")
        if not isinstance(ranges, list) or len(ranges) != dim:
            raise self.fail(
                "action_space.ranges", f"{dim} pairs, as 'dim' says", ranges, "action-ranges-length-mismatch"
            )
        try:
            pairs = np.asarray(ranges, dtype=np.float64).reshape(dim, 2)
        except (TypeError, ValueError):
            raise self.fail("action_space.ranges", "pairs of numbers", ranges) from None
        if not np.isfinite(pairs).all() or not (pairs[:, 0] < pairs[:, 1]).all():
            raise self.fail(
                "action_space.ranges", "finite pairs with min < max", ranges, "action-range-inverted"
            )
        return pairs[:, 0].copy(), pairs[:, 1].copy()

    def statistics(self, block: Any, dim: int) -> tuple[Statistics, Statistics]:
        table = self.table(block, "normalization", "mean_action std_action mean_state std_state")

        def positive(vector: Doubles) -> bool:
            return bool(((vector > 0) & (vector <= 100)).all())

        mean_action = self.vector(table, "mean_action", lambda _: True, "finite numbers")
        std_action = self.vector(table, "std_action", positive, "numbers in (0, 100]")
        for key, vector in (("mean_action", mean_action), ("std_action", std_action)):
            if len(vector) != dim:
                slug = f"norm-{key.replace('_', '-')}-length-mismatch"
                raise self.fail(key, f"{dim} numbers, one per action dimension", vector.tolist(), slug)
        mean_state = self.vector(table, "mean_state", lambda _: True, "finite numbers")
        std_state = self.vector(table, "std_state", positive, "numbers in (0, 100]")
        if len(mean_state) != len(std_state):
            raise self.fail(
                "std_state",
                f"{len(mean_state)} numbers, as 'mean_state' has",
                std_state.tolist(),
                "norm-state-length-mismatch",
            )
        return Statistics(mean_action, std_action), Statistics(mean_state, std_state)

    def joint_names(self, names: Any, dim: int) -> tuple[str, ...]:
        right = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
        if not right or len(set(names)) != len(names) or len(names) not in (0, dim):
            raise self.fail("joint_names", f"{dim} different names, one per action dimension", names)
        return tuple(names)

    def velocity(self, root: dict[str, Any], dim: int) -> Doubles | None:
        if "velocity_max" not in root:
            return None
        return self.vector(
            root, "velocity_max", lambda v: len(v) == dim and bool((v > 0).all()), f"{dim} positive numbers"
        )

    def cameras(self, block: Any) -> tuple[Camera, ...]:
        if not isinstance(block, list) or not 1 <= len(block) <= 8:
            raise self.fail("cameras", "a list of 1 to 8 cameras", block)
        cameras = tuple(self.camera(entry) for entry in block)
        names = [camera.name for camera in cameras]
        if len(set(names)) != len(names):
            raise self.fail("cameras", "cameras with different names", names, "duplicate-camera-name")
        return cameras

    def camera(self, block: Any) -> Camera:
        entry = self.table(block, "cameras[]", "name resolution fps color_space")
        name, size = entry.get("name"), entry.get("resolution")
        if not isinstance(name, str) or not name:
            raise self.fail("cameras[].name", "a name", name)
        if (
            not isinstance(size, list)
            or len(size) != 2
            or not all(isinstance(n, int) and 32 <= n <= 4096 for n in size)
        ):
            raise self.fail("cameras[].resolution", "[width, height], each 32 to 4096", size)
        if entry.get("color_space") not in COLOR_SPACES:
            raise self.fail(
                "cameras[].color_space", f"one of {', '.join(COLOR_SPACES)}", entry.get("color_space")
            )
        return Camera(name, (size[0], size[1]), self.number(entry, "fps", 1e-3, 240), entry["color_space"])

    def end_effector(self, root: dict[str, Any], dim: int) -> None:
        """Checks gripper, payload_release and constraints, which travel with the file but which nothing reads yet."""
        constraints = self.table(
            root.get("constraints"), "constraints", "max_ee_velocity max_gripper_velocity collision_check"
        )
        self.number(constraints, "max_ee_velocity", 1e-6, 50)
        self.truth(constraints, "collision_check")
        if "max_gripper_velocity" in constraints:
            self.number(constraints, "max_gripper_velocity", 1e-6, 10)
        for key, threshold in (("gripper", "close_threshold"), ("payload_release", "trigger_threshold")):
            if key not in root:
                continue
            table = self.table(root[key], key, f"component_idx {threshold} inverted")
            if self.number(table, "component_idx", 0, 1e6, whole=True) >= dim:
                slug = f"{key.replace('_', '-')}-idx-out-of-range"
                raise self.fail(
                    f"{key}.component_idx", f"less than the {dim} of 'dim'", table["component_idx"], slug
                )
            self.number(table, threshold, 0, 1)
            if "inverted" in table:
                self.truth(table, "inverted")
        if "gripper" in root and "max_gripper_velocity" not in constraints:
            slug = "gripper-missing-velocity-cap"
            raise self.fail("constraints.max_gripper_velocity", "there, as there is a gripper", None, slug)

    def truth(self, holder: dict[str, Any], key: str) -> None:
        if not isinstance(holder.get(key), bool):
            raise self.fail(key, "true or false", holder.get(key))

    def horizon(self, control: dict[str, Any], chunk_size: int) -> int:
        """Schema v1 counts actions; older files give a fraction of the chunk, which is migrated."""
        value = self.number(control, "rtc_execution_horizon", 0, 1000)
        if 0 < value < 1:
            return max(1, round(value * chunk_size))
        if value < 1:
            log.warning(
                "%s: rtc-horizon-too-short: rtc_execution_horizon is %g, taken as 1", self._path, value
            )
        elif value > chunk_size:
            log.warning(
                "%s: rtc-horizon-exceeds-chunk: rtc_execution_horizon is %g, taken as the chunk_size %d",
                self._path, value, chunk_size,
            )  # fmt: skip
        return min(max(1, int(value)), chunk_size)
