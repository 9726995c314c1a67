# SPDX-License-Identifier: Apache-2.0
"""Read embodiment JSON, schema v1 and v2: every bound, every rule between fields, every refusal with a stable slug.

config/embodiment.schema.json is the same for editors; the rules between fields are only here. Beyond v1's first keys a file may
carry `joint_names`, `velocity_max`, `acceleration_max`, `travel`, `notes` and `sources`. v2 has `groups` in place of `gripper`,
and may describe the robot's `kinematics`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reflex_core.errors import EmbodimentError
from reflex_core.files.json_fields import JsonFields, is_number, is_whole, json_text
from reflex_core.robot.embodiment import Camera, Doubles, Embodiment, Statistics, TwoEnded
from reflex_core.robot.group_fields import Grouped, read_groups, with_arms
from reflex_core.robot.groups import unmeasured_columns
from reflex_core.robot.kinematics.description import KEYS as KINEMATICS_KEYS
from reflex_core.robot.kinematics.description import Columns, Kinematics, read_kinematics
from reflex_core.robot.lerobot_calibration import Calibrated, calibrated, read_calibration_file, read_joints
from reflex_core.robot.skeleton import listed, unfilled
from reflex_core.robot.units import LEAST, MOST_RAD_OR_M, MOST_SPEED, NOT_RAD, NOT_RAD_PER_S, beyond
from reflex_core.text.untrusted import is_name

NAMES = ("franka", "so100", "ur5", "trossen", "stretch", "quadcopter", "custom")
V2_ONLY = ("groups", "unused", "calibration", "kinematics")
COLOR_SPACES = ("rgb8", "bgr8", "mono8", "rgba8")
KEYS = {
    "document": "schema_version embodiment joint_names action_space velocity_max acceleration_max travel normalization"
    " gripper payload_release cameras control constraints notes sources groups unused calibration kinematics",
    "action_space": "type dim ranges",
    "normalization": "mean_action std_action mean_state std_state",
    "gripper": "component_idx close_threshold inverted saturation_tolerance",
    "payload_release": "component_idx trigger_threshold saturation_tolerance",
    "calibration": "file joints",
    "cameras[]": "name resolution fps color_space",
    "control": "frequency_hz chunk_size rtc_execution_horizon",
    "constraints": "max_ee_velocity max_gripper_velocity collision_check",
    "kinematics": KINEMATICS_KEYS,
}
UNFILLED = "embodiment-unfilled"
STD_MIN, STD_MAX = 1e-9, 100  # below it a float32 of the normalised value overflows

log = logging.getLogger(__name__)


class Reader:
    """Reads one document, so that every complaint can name the file."""

    def __init__(self, path: Path, calibration_file: Path | None = None) -> None:
        """calibration_file: of LeRobot, in place of the one that the document names."""
        self._path, self._calibration_file = path, calibration_file

    def fail(self, key: str, expected: str, got: object, slug: str = "schema-violation") -> EmbodimentError:
        return EmbodimentError(f"{self._path}: '{key}' must be {expected}, got {json_text(got)}", slug)

    def embodiment(self, document: Any) -> Embodiment:
        """Return the robot of a parsed document. Raises EmbodimentError, also for a skeleton that still asks for values."""
        if missing := list(unfilled(document)):
            raise EmbodimentError(
                f"{self._path}: asks for values that the exporter could not know: put this robot's in place of {listed(missing)}, or"
                " name another robot with --embodiment or --custom-embodiment-config",
                UNFILLED,
            )
        root = JsonFields(document, self.fail).only(KEYS["document"].split())
        version = self.version(root)
        name = root.choice("embodiment", NAMES) if version == 1 else self.name(root)
        low, high = self.ranges(self.table(root, "action_space"))
        dim = len(low)
        joint_names = self.joint_names(root.get("joint_names", []), dim)
        grouped = self.grouped(root, joint_names, low, high) if version > 1 else Grouped((), ())
        action, state = self.statistics(self.table(root, "normalization"), dim)
        control = self.table(root, "control")
        chunk_size = control.whole("chunk_size", 1, 200)
        constraints = self.table(root, "constraints")
        collision_check = constraints.truth("collision_check")
        root.text("notes", "")
        root.names("sources", ())
        grippers = grouped.grippers or tuple(self.grippers(root, dim))
        velocity = self.limits(root, "velocity_max", dim)
        gripper_velocity = self.gripper_velocity(constraints, grippers, velocity if version > 1 else None)
        found = self.calibrated(root, joint_names)
        release = self.two_ended(root, "payload_release", "trigger_threshold", dim)
        two_ended = grippers if release is None else (*grippers, release)
        kinematics = self.kinematics(root, joint_names, (low, high), grouped, two_ended)
        return Embodiment(
            name=name,
            joint_names=joint_names,
            action_min=low,
            action_max=high,
            velocity_max=capped(velocity, grippers, gripper_velocity, dim),
            acceleration_max=self.limits(root, "acceleration_max", dim),
            action_statistics=action,
            state_statistics=state,
            cameras=self.cameras(root.get("cameras")),
            frequency_hz=control.number("frequency_hz", LEAST, 1000),
            chunk_size=chunk_size,
            execution_horizon=self.horizon(control, chunk_size),
            gripper=next(iter(grippers), None),
            payload_release=release,
            max_ee_velocity=constraints.number("max_ee_velocity", LEAST, 50),
            max_gripper_velocity=gripper_velocity,
            travel=self.whole_travel(self.travel(root, dim), found, joint_names),
            calibrated=found,
            groups=with_arms(grouped.groups, kinematics, self.fail),
            further_grippers=grippers[1:],
            kinematics=kinematics,
            collision_check=collision_check,
        )

    def version(self, root: JsonFields) -> int:
        version = root.whole("schema_version", 1, 2, expected="1 or 2")
        if version == 1 and (newer := [key for key in V2_ONLY if key in root]):
            raise self.fail("schema_version", f"2, as the file has {', '.join(newer)}", version)
        if version > 1 and "gripper" in root:
            raise self.fail(
                "gripper", "a group of space gripper in 'groups', as schema_version is 2", root["gripper"]
            )
        return version

    def name(self, root: JsonFields) -> str:
        if not is_name(root.get("embodiment")):
            raise self.fail("embodiment", "a short printable name", root.get("embodiment"))
        return str(root["embodiment"])

    def grouped(self, root: JsonFields, joint_names: tuple[str, ...], low: Doubles, high: Doubles) -> Grouped:
        if not joint_names:
            raise self.fail("joint_names", f"{len(low)} different names, as 'groups' are made of them", None)
        return read_groups(root, joint_names, low, high, self.fail)

    def kinematics(
        self,
        root: JsonFields,
        joint_names: tuple[str, ...],
        ranges: tuple[Doubles, Doubles],
        grouped: Grouped,
        two_ended: tuple[TwoEnded, ...],
    ) -> Kinematics | None:
        """Read where tool and bodies are; only columns that command a joint's position as it is executed may move them."""
        if "kinematics" not in root:
            return None
        unfit = {part.component_idx: "has two ends and moves there in its own way" for part in two_ended}
        unmeasured = unmeasured_columns(grouped.groups, len(joint_names))
        for column in [] if unmeasured is None else np.flatnonzero(unmeasured).tolist():
            unfit[column] = "is not commanded by position"
        columns = Columns(joint_names, *ranges, unfit)
        return read_kinematics(root.fields("kinematics"), columns, self._path)

    def table(self, root: JsonFields, key: str) -> JsonFields:
        return root.fields(key).only(KEYS[key].split())

    def ranges(self, space: JsonFields) -> tuple[Doubles, Doubles]:
        space.choice("type", ("continuous", "discrete"))
        dim = space.whole("dim", 1, 32)
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

    def statistics(self, table: JsonFields, dim: int) -> tuple[Statistics, Statistics]:
        action, state = (
            Statistics(table.numbers(f"mean_{name}"), table.numbers(f"std_{name}", STD_MIN, STD_MAX))
            for name in ("action", "state")
        )
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

    def limits(self, root: JsonFields, key: str, dim: int) -> Doubles | None:
        """Read one positive number per dimension; null, which becomes inf, where none is known."""
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

    def travel(self, root: JsonFields, dim: int) -> Doubles | None:
        """Read for each dimension the positions at 0 and at 100 percent; null, which becomes NaN, where there are none."""
        if "travel" not in root:
            return None
        pairs = root["travel"]
        right = isinstance(pairs, list) and len(pairs) == dim
        if not right or not all(pair is None or _is_travel(pair) for pair in pairs):
            raise self.fail(
                "travel",
                f"{dim} pairs of rad or m, the position at 0 percent below that at 100, null for joints without",
                pairs,
            )
        return np.array([[np.nan, np.nan] if pair is None else pair for pair in pairs], dtype=np.float64)

    def cameras(self, block: Any) -> tuple[Camera, ...]:
        if not isinstance(block, list) or not 1 <= len(block) <= 8:
            raise self.fail("cameras", "a list of 1 to 8 cameras", block)
        known = KEYS["cameras[]"].split()
        cameras = tuple(self.camera(JsonFields(entry, self.fail, "cameras[]").only(known)) for entry in block)
        names = [camera.name for camera in cameras]
        if len(set(names)) != len(names):
            raise self.fail("cameras", "cameras with different names", names, "duplicate-camera-name")
        return cameras

    def camera(self, entry: JsonFields) -> Camera:
        size = entry.get("resolution")
        if not entry.text("name"):
            raise entry.refusal("name", "a name")
        if not isinstance(size, list) or len(size) != 2 or not all(is_whole(side, 32, 4096) for side in size):
            raise entry.refusal("resolution", "[width, height], each 32 to 4096")
        color_space = entry.choice("color_space", COLOR_SPACES)
        return Camera(entry["name"], (size[0], size[1]), entry.number("fps", LEAST, 240), color_space)

    def two_ended(
        self, root: JsonFields, key: Literal["gripper", "payload_release"], threshold: str, dim: int
    ) -> TwoEnded | None:
        if key not in root:
            return None
        table = self.table(root, key)
        component = table.whole("component_idx", 0, 1_000_000)
        if component >= dim:
            slug = f"{key.replace('_', '-')}-idx-out-of-range"
            raise self.fail(f"{key}.component_idx", f"less than the {dim} of 'dim'", component, slug)
        at = table.number(threshold, 0, 1) if threshold in table else None
        inverted = table.truth("inverted", default=False)
        if "saturation_tolerance" not in table:
            return TwoEnded(component, at, inverted)
        return TwoEnded(component, at, inverted, table.number("saturation_tolerance", 0, 1))

    def calibrated(self, root: JsonFields, joint_names: tuple[str, ...]) -> Calibrated | None:
        """Read how LeRobot counts the joints; the calibration file lies beside the document, or where the caller says."""
        if "calibration" not in root:
            if self._calibration_file is not None:
                raise self.fail(
                    "calibration", f"there, with 'joints', as {self._calibration_file} is to be used", None
                )
            return None
        table = self.table(root, "calibration")
        joints = read_joints(table, joint_names, self.fail)
        named = table.text("file") if "file" in table else ""
        file = self._calibration_file or (self._path.parent / named if named else None)
        motors = None if file is None else read_calibration_file(file)
        return calibrated(joints, len(joint_names), motors, file)

    def whole_travel(
        self, written: Doubles | None, found: Calibrated | None, joint_names: tuple[str, ...]
    ) -> Doubles | None:
        """Return the travel that is written and that of the calibration file; a joint has one of them."""
        if found is None or found.travel is None:
            return written
        if written is None:
            return found.travel
        by_file = ~np.isnan(found.travel[:, 0])
        if (twice := np.flatnonzero(by_file & ~np.isnan(written[:, 0]))).size:
            raise self.fail(
                "travel",
                f"null for {joint_names[twice[0]]}, which the calibration file gives",
                written[twice[0]].tolist(),
            )
        return np.where(by_file[:, None], found.travel, written)

    def grippers(self, root: JsonFields, dim: int) -> Iterator[TwoEnded]:
        """Yield the gripper of schema v1, where there is one."""
        gripper = self.two_ended(root, "gripper", "close_threshold", dim)
        if gripper is not None:
            yield gripper

    def gripper_velocity(
        self, constraints: JsonFields, grippers: tuple[TwoEnded, ...], velocity: Doubles | None
    ) -> float | None:
        """Read the cap of every gripper's velocity. velocity: limits of the joints that do as well, None where they do not."""
        if "max_gripper_velocity" in constraints:
            return constraints.number("max_gripper_velocity", LEAST, 10)
        if any(velocity is None or not np.isfinite(velocity[gripper.component_idx]) for gripper in grippers):
            slug = "gripper-missing-velocity-cap"
            raise self.fail("constraints.max_gripper_velocity", "there, as there is a gripper", None, slug)
        return None

    def horizon(self, control: JsonFields, chunk_size: int) -> int:
        """Read the execution horizon: schema v1 counts actions; older files give a fraction of the chunk, which is converted."""
        value = control.number("rtc_execution_horizon", 0, 1000)
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


def _is_travel(pair: Any) -> bool:
    if not isinstance(pair, list) or len(pair) != 2 or not all(map(is_number, pair)):
        return False
    low, high = pair
    return bool(high - low >= LEAST) and not beyond(low, high, MOST_RAD_OR_M)


def capped(
    velocity: Doubles | None, grippers: tuple[TwoEnded, ...], gripper_velocity: float | None, dim: int
) -> Doubles | None:
    """Return velocity_max with the grippers' entries no higher than max_gripper_velocity."""
    if not grippers or gripper_velocity is None:
        return velocity
    velocity = np.full(dim, np.inf) if velocity is None else velocity
    for gripper in grippers:
        velocity[gripper.component_idx] = min(velocity[gripper.component_idx], gripper_velocity)
    return velocity
