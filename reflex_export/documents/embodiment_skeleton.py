# SPDX-License-Identifier: Apache-2.0
"""embodiment.json of an export: what the checkpoint says of the robot, and a question in place of everything else.

Limits are never taken from the training data: that a joint was never beyond a value does not mean that it must not go there,
nor that it can. What was seen stands in `notes`, for the person who fills in the limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from reflex_core.robot.skeleton import placeholder
from reflex_core.robot.units import OF_TRAVEL
from reflex_export.checkpoint import Checkpoint
from reflex_export.folder.robot_facts import recorded_range

MOST_ROWS, LEAST_SIDE, MOST_SIDE, MOST_CAMERAS = (
    200,
    32,
    4096,
    8,
)  # of an embodiment (docs/reference/embodiments.md)


def skeleton(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return an embodiment whose unknown values are questions; serving refuses it until they are answered."""
    joints, rows = checkpoint.joints, min(checkpoint.horizon - checkpoint.observation_steps + 1, MOST_ROWS)
    hz = checkpoint.robot.frequency_hz
    grippers = [index for index, name in enumerate(joints) if "gripper" in name.lower()]
    gripper: dict[str, Any] = {"gripper": {"component_idx": grippers[-1]}} if grippers else {}
    limits: dict[str, Any] = {"max_ee_velocity": placeholder("the highest speed of the hand in m/s")}
    if gripper:
        limits["max_gripper_velocity"] = placeholder(
            "the highest speed of the gripper, in units of its range per second"
        )
    return {
        "schema_version": 1,
        "embodiment": "custom",
        "notes": " ".join(_notes(checkpoint)),
        **({"joint_names": list(joints)} if checkpoint.robot.action_names else {}),
        "action_space": {
            "type": "continuous",
            "dim": checkpoint.action_dim,
            "ranges": [
                placeholder(f"[lowest, highest] position of {name} in rad, m, or 0..1") for name in joints
            ],
        },
        "velocity_max": [
            placeholder(f"the highest speed of {name} in rad/s or m/s, or null") for name in joints
        ],
        **_travel(checkpoint),
        "normalization": {
            "mean_action": [0.0] * checkpoint.action_dim,
            "std_action": [1.0] * checkpoint.action_dim,
            "mean_state": [0.0] * (checkpoint.state_dim or checkpoint.action_dim),
            "std_state": [1.0] * (checkpoint.state_dim or checkpoint.action_dim),
        },
        **gripper,
        "cameras": list(_cameras(checkpoint)),
        "control": {
            "frequency_hz": placeholder("the rate of the rows of a chunk in Hz, as in training")
            if hz is None
            else hz,
            "chunk_size": rows,
            "rtc_execution_horizon": min(checkpoint.n_action_steps, rows),
        },
        "constraints": limits | {"collision_check": False},
    }


def _travel(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the question for the travel of the joints that the policy counts in shares of it; {} where there is none."""
    units = checkpoint.robot.units
    units = units * checkpoint.action_dim if len(units) == 1 else units
    if not set(units) & set(OF_TRAVEL):
        return {}
    return {
        "travel": [
            placeholder(f"[at the low end, at the high end] of the calibrated travel of {name} in rad or m")
            if unit in OF_TRAVEL
            else None
            for name, unit in zip(checkpoint.joints, units, strict=True)
        ]
    }


def _cameras(checkpoint: Checkpoint) -> Iterator[dict[str, Any]]:
    hz = checkpoint.robot.frequency_hz
    for camera in [camera for camera in checkpoint.cameras if not camera.empty][:MOST_CAMERAS]:
        seen = checkpoint.dataset.shapes.get(camera.observation) if checkpoint.dataset is not None else None
        height, width = (
            (camera.height, camera.width) if seen is None else _sides(seen, camera.height, camera.width)
        )
        sized = all(LEAST_SIDE <= side <= MOST_SIDE for side in (width, height))
        yield {
            "name": camera.camera,
            "resolution": [width, height]
            if sized
            else placeholder("[width, height] of this camera in pixels"),
            "fps": placeholder("the rate of this camera in Hz") if hz is None else hz,
            "color_space": "rgb8",
        }


def _sides(shape: tuple[int, ...], height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of a picture in a data set, which stores (height, width, 3) or (3, height, width)."""
    if len(shape) != 3:
        return height, width
    return (shape[1], shape[2]) if shape[0] == 3 else (shape[0], shape[1])


def _notes(checkpoint: Checkpoint) -> Iterator[str]:
    kind = f" of a {checkpoint.robot.robot_type}" if checkpoint.robot.robot_type else ""
    yield f"Skeleton{kind}, written by `reflex export`: put your robot's values in place of every text that begins with FILL IN."
    yield "'normalization' is not used: the export brings its own statistics."
    if (suggestion := _suggestion(checkpoint)) and (found := "; ".join(suggestion)):
        yield f"Seen in training, in the policy's units, which is no limit: {found}."


def _suggestion(checkpoint: Checkpoint) -> list[str]:
    """Return what each action was in the training data, in the policy's units, and in rad where it counts in degrees."""
    recorded = recorded_range(checkpoint.processors)
    if recorded is None:
        return []
    units = checkpoint.robot.units
    units = units * checkpoint.action_dim if len(units) == 1 else units
    found = []
    for index, (name, low, high) in enumerate(zip(checkpoint.joints, *recorded, strict=False)):
        unit = f" {units[index]}" if units else ""
        rad = f" ({math.radians(low):.3f} to {math.radians(high):.3f} rad)" if unit == " degrees" else ""
        found.append(f"{name} {low:.4g} to {high:.4g}{unit}{rad}")
    return found
