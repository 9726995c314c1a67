# SPDX-License-Identifier: Apache-2.0
"""The columns of an export's actions that are a tool's pose: which they are, and how a pose is written in them.

Frames and ways to write a rotation contradict each other between data sets, and each reads every other's numbers without an
error: so that all of it is declared, and none of it has a default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.export.action_modes import ABSOLUTE, DELTA, MODES, RELATIVE, VELOCITY
from reflex_core.files.json_fields import JsonFields
from reflex_core.robot import rotations
from reflex_core.robot.poses import BASE_FRAME, CHUNK_START, FRAMES, ROW_BEFORE, Poses, composed, differences
from reflex_core.robot.units import SI, UNIT_OF

Doubles = NDArray[np.float64]

# what may be multiplied and is still a rotation, half as far
SCALABLE = ("rpy", "axis_angle")
POSITION = 3
_STARTS = {DELTA: ROW_BEFORE, RELATIVE: CHUNK_START, VELOCITY: ROW_BEFORE}
# what a velocity of turning is: a vector along the axis
TURNING = "axis_angle"


@dataclass(frozen=True, slots=True)
class ToolSpace:
    """How a tool's pose is written in a row of actions.

    columns: of the export's actions: x, y, z, then the rotation's. rotation: a key of `rotations.KINDS`. mode: absolute, delta
    (to the row before), relative (to the tool of the observation) or velocity (m/s and rad/s, from the row before for one period).
    frame: in whose axes a difference is. scale: what 1 of each column is in m, and in rad where that can be said of a rotation's; per
    second for velocities. period_s: between two rows, of velocities.
    """

    columns: tuple[int, ...]
    rotation: str
    mode: str
    frame: str
    scale: tuple[float, ...]
    period_s: float = 0.0

    @property
    def steps(self) -> bool:
        """True where every row leads on from the row before it."""
        return self.mode in (DELTA, VELOCITY)

    def every(self, period_s: float) -> ToolSpace:
        """Return the same with the time between two rows, which velocities need."""
        return replace(self, period_s=period_s) if self.mode == VELOCITY else self

    def _factors(self) -> Doubles:
        """Return (columns,) what 1 of each column is in m and rad."""
        return np.array(self.scale) * (self.period_s if self.mode == VELOCITY else 1.0)

    def poses(self, rows: Doubles, start: Poses) -> Poses:
        """Return (n) poses in the robot's base. rows: (n, columns). start: the tool's pose of the observation.

        Raises ValueError for numbers that are no rotation.
        """
        scaled = rows * self._factors()
        written = Poses(scaled[:, :POSITION], rotations.KINDS[self.rotation].to_matrix(scaled[:, POSITION:]))
        if self.mode == ABSOLUTE:
            return written
        return composed(start, written, self.frame, _STARTS[self.mode])

    def rows(self, poses: Poses, start: Poses, like: Doubles) -> Doubles:
        """Return (n, columns) that `poses` makes these (n) poses of, of several the ones nearest to `like`."""
        if self.mode != ABSOLUTE:
            poses = differences(start, poses, self.frame, _STARTS[self.mode])
        scale = self._factors()
        turned = rotations.KINDS[self.rotation].of_matrix(poses.rotation)
        turned = rotations.nearest(self.rotation, turned, like[:, POSITION:] * scale[POSITION:])
        made: Doubles = np.concatenate((poses.position, turned), axis=1) / scale
        return made


def read_tool(block: JsonFields, columns: tuple[int, ...], scale: Sequence[float]) -> ToolSpace:
    """Return an entry of `action_space` whose space is `tool`. Raises its refusal for what is missing or contradicts itself."""
    rotation = block.choice("rotation", rotations.KINDS)
    mode = block.choice("mode", MODES)
    frame = block.choice("frame", FRAMES)
    wanted = POSITION + rotations.KINDS[rotation].width
    if len(columns) != wanted:
        raise block.refusal("columns", f"{wanted} columns, x, y, z and {wanted - POSITION} of {rotation}")
    if mode == VELOCITY and rotation != TURNING:
        raise block.refusal(
            "rotation", f"{TURNING}, as its mode is {VELOCITY}: rad/s about x, y and z of its frame"
        )
    if mode == ABSOLUTE and frame != BASE_FRAME:
        raise block.refusal("frame", f"{BASE_FRAME}, as its mode is {ABSOLUTE}")
    unit = block.text("unit", "")
    if unit and UNIT_OF.get(unit.strip().lower()) != SI:
        raise block.refusal("unit", "left out for a tool's pose, which is in m and rad: write a scale")
    if rotation not in SCALABLE and any(one != 1.0 for one in scale[POSITION:]):
        raise block.refusal("scale", f"1 for the columns of {rotation}")
    return ToolSpace(columns, rotation, mode, frame, tuple(scale))
