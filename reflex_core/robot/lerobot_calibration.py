# SPDX-License-Identifier: Apache-2.0
"""LeRobot's calibration file of one arm, and what its degrees and shares of a travel are in the joints' rad.

LeRobot (0.4 to 0.6): degrees = (ticks - middle) * 360 / 4095, middle = (range_min + range_max) / 2; -100 to 100 and 0 to 100 run from
range_min to range_max, the other way where drive_mode is 1, which degrees do not heed. Where a joint's 0 rad is in that, no file
of LeRobot says: the embodiment's `calibration.joints` do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import EmbodimentError
from reflex_core.files.json_fields import JsonFields, Refuse, is_number, read_json, refusing
from reflex_core.robot.units import MOST_RAD_OR_M

Doubles = NDArray[np.float64]

RAD_PER_TICK = 2 * math.pi / 4095  # LeRobot's, for its servos of 4096 ticks a turn
MOST_TICKS = 65_535
JOINT_KEYS = "motor zero sign"
SLUG = "calibration-invalid"


@dataclass(frozen=True, slots=True)
class Motor:
    """One entry of a calibration file, in ticks. flipped: its shares of the travel count from range_max."""

    range_min: int
    range_max: int
    flipped: bool

    @property
    def half_travel_rad(self) -> float:
        """From the middle of the calibrated range to either end."""
        return (self.range_max - self.range_min) / 2 * RAD_PER_TICK


@dataclass(frozen=True, slots=True)
class CalibratedJoint:
    """Where a joint is in the middle of its calibrated range, in rad, and whether it turns as its ticks count (1 or -1)."""

    motor: str
    zero: float
    sign: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """By the robot's columns, NaN for joints without calibration.

    zero: (dim,) position in rad at 0 degrees. sign: (dim,) of rad per degree. travel: (dim, 2) position where the share of the travel is
    lowest and where it is highest; None without a calibration file.
    """

    zero: Doubles
    sign: Doubles
    travel: Doubles | None

    def first(self, dim: int) -> Calibrated:
        """Return the same for the first columns."""
        return Calibrated(
            self.zero[:dim], self.sign[:dim], None if self.travel is None else self.travel[:dim]
        )


def read_calibration_file(path: Path) -> Mapping[str, Motor]:
    """Return the motors of LeRobot's calibration file. Raises EmbodimentError naming file, motor, expected and got."""
    fail = refusing(str(path), lambda message: EmbodimentError(message, SLUG))
    try:
        document = read_json(path)
    except OSError as error:
        raise EmbodimentError(f"{path}: {error.strerror or error}", "calibration-missing") from error
    except ValueError as error:
        raise EmbodimentError(f"{path}: {error}", SLUG) from error
    if not isinstance(document, dict) or not document:
        raise fail(
            "document",
            "an object of motors, as LeRobot writes it (~/.cache/huggingface/lerobot/calibration)",
            document,
        )
    return {name: _motor(JsonFields(entry, fail, name)) for name, entry in document.items()}


def _motor(entry: JsonFields) -> Motor:
    low = entry.whole("range_min", 0, MOST_TICKS)
    high = entry.whole("range_max", 0, MOST_TICKS)
    if high <= low:
        raise entry.refusal("range_max", f"above 'range_min' ({low})")
    return Motor(low, high, bool(entry.whole("drive_mode", 0, 1, default=0)))


def read_joints(table: JsonFields, joint_names: Sequence[str], refuse: Refuse) -> dict[int, CalibratedJoint]:
    """Return the calibrated joints of an embodiment by column. Raises a refusal naming the key."""
    joints = table.fields("joints").only(joint_names)
    return {joint_names.index(name): _joint(name, joints[name], refuse) for name in joints}


def _joint(name: str, block: Any, refuse: Refuse) -> CalibratedJoint:
    entry = JsonFields(block, refuse, f"calibration.joints.{name}").only(JOINT_KEYS.split())
    zero = entry.number("zero", -MOST_RAD_OR_M, MOST_RAD_OR_M)
    sign = entry.get("sign", 1)
    if not is_number(sign) or sign not in (1, -1):
        raise entry.refusal("sign", "1 or -1")
    return CalibratedJoint(entry.text("motor", name), zero, float(sign))


def calibrated(
    joints: Mapping[int, CalibratedJoint], dim: int, motors: Mapping[str, Motor] | None, path: Path | None
) -> Calibrated:
    """Return the calibration of `dim` columns. Raises EmbodimentError where the file of an arm lacks one of its motors."""
    zero, sign = np.full(dim, np.nan), np.full(dim, np.nan)
    for column, joint in joints.items():
        zero[column], sign[column] = joint.zero, joint.sign
    if motors is None:
        return Calibrated(zero, sign, None)
    travel = np.full((dim, 2), np.nan)
    for column, joint in joints.items():
        if joint.motor not in motors:
            raise EmbodimentError(
                f"{path}: must have motor '{joint.motor}', as the embodiment's 'calibration.joints' say, got {', '.join(motors)}",
                SLUG,
            )
        motor = motors[joint.motor]
        half = joint.sign * motor.half_travel_rad * (-1.0 if motor.flipped else 1.0)
        travel[column] = joint.zero - half, joint.zero + half
    return Calibrated(zero, sign, travel)
