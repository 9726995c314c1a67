# SPDX-License-Identifier: Apache-2.0
"""Rows of a policy that commands a tool's pose, as joint rows of one robot and back, and the state that it sees.

Everything behind the policy counts in joints: guard, holds, fallbacks, records and outputs know of no tool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.export.action_modes import ABSOLUTE
from reflex_core.export.export import Affine
from reflex_core.export.state_space import StateJoint
from reflex_core.export.tool_space import ToolSpace
from reflex_core.robot import rotations
from reflex_core.robot.kinematics.inverse import Inverse, UnreachableError
from reflex_core.robot.kinematics.tree import Tree
from reflex_core.robot.poses import Poses, on_the_way
from reflex_core.values import Floats

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OtherColumn:
    """A column beside the tool's: column of the policy = factor * (column `joint` of the robot in rad or m) + offset."""

    joint: int
    column: int
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class SeenState:
    """The policy's own state, made of the robot's joints.

    names: of its numbers, for messages. dim: how many it has; 0 where the policy sees none. pose, rotation: those of the tool,
    as in StateSpace. joints: (number, factor, offset) by the robot's column. statistics: of the policy's numbers.
    """

    names: tuple[str, ...]
    dim: int
    pose: tuple[int, ...]
    rotation: str
    joints: tuple[tuple[int, StateJoint], ...]
    statistics: Affine | None


@dataclass(frozen=True, slots=True)
class ToolRows:
    """How the rows of one policy are a robot's.

    space: which columns of the policy are the tool's pose. others: its other columns; joints that neither gives stay where they
    are. statistics: of the policy's columns. seen: its state. tree, link: where the tool is. inverse: how it gets elsewhere.
    """

    space: ToolSpace
    others: tuple[OtherColumn, ...]
    statistics: Affine | None
    seen: SeenState
    tree: Tree
    link: str
    inverse: Inverse

    def pose(self, q: Floats | Doubles) -> Poses:
        """Return the tool's poses in the robot's base. q: (n, joints) rad and m, in the robot's order."""
        found = self.tree.poses(np.asarray(q, np.float64))[self.tree.links.index(self.link)]
        return Poses(found[:, :3, 3], found[:, :3, :3])

    def state(self, measured: Floats) -> Floats:
        """Return (seen.dim,) float32 the state as the policy counts it, not normalised. measured: (joints,) rad and m.

        A quaternion has w >= 0.
        """
        made = np.zeros(self.seen.dim)
        if self.seen.pose:
            here = self.pose(measured[None])
            turned = rotations.KINDS[self.seen.rotation].of_matrix(here.rotation)
            if self.seen.rotation.startswith("quaternion"):
                real = turned[0, -1 if self.seen.rotation.endswith("w") else 0]
                turned = turned if real >= 0.0 else -turned
            made[list(self.seen.pose)] = np.concatenate((here.position[0], turned[0]))
        for column, one in self.seen.joints:
            made[one.number] = one.factor * float(measured[column]) + one.offset
        return made.astype(np.float32)

    def trained(self, own: Floats) -> Floats:
        """Return (n, columns) of the policy's own columns in the units that it was trained in. own: as the network gave them."""
        return own if self.statistics is None else self.statistics.denormalise(own)

    def joints(self, actions: Floats, measured: Floats) -> Floats:
        """Return (n, joints) float32, rad and m, that bring the tool to the poses of `actions`, as `trained` gives them.

        measured: (joints,) of the observation that the actions were made from. NaN stays NaN, for the guard to see.
        Raises UnreachableError where a pose is none, or is not reached.
        """
        start = measured.astype(np.float64)
        if not np.isfinite(actions).all():
            return np.full((len(actions), len(start)), np.nan, np.float32)
        doubles = actions.astype(np.float64)
        try:
            poses = self.space.poses(doubles[:, list(self.space.columns)], self.pose(start[None])[0])
        except ValueError as error:
            raise UnreachableError(f"a row is no pose: {error}") from error
        made = self.inverse.rows(start, poses)
        for other in self.others:
            made[:, other.joint] = (doubles[:, other.column] - other.offset) / other.factor
        return made.astype(np.float32)

    def reached(self, error: UnreachableError, rows: int, measured: Floats) -> Floats:
        """Return (rows, joints) float32 the way to where a chunk could not go on, and that place in what is left of it.

        For records: the guard holds in place of it.
        """
        before = np.zeros((0, len(measured))) if error.rows is None else error.rows
        last = before[-1] if len(before) else measured
        return np.concatenate((before, np.tile(last, (rows - len(before), 1)))).astype(np.float32)

    def actions(self, rows: Floats, measured: Floats, like: Floats) -> Doubles:
        """Return (n, columns) of the policy, in the units of `trained`, that lead to these joint rows from `measured`.

        like: (n, columns); of several ways to write a rotation the nearest one is taken.
        """
        made, columns = like.astype(np.float64), list(self.space.columns)
        start = self.pose(measured[None])[0]
        made[:, columns] = self.space.rows(self.pose(rows), start, made[:, columns])
        for other in self.others:
            made[:, other.column] = other.factor * rows[:, other.joint].astype(np.float64) + other.offset
        return made

    def normalised(self, rows: Floats, measured: Floats) -> Floats:
        """Return (n, columns) float32 of the network that lead to these joint rows from `measured`."""
        like = np.zeros((len(rows), len(self.space.columns) + len(self.others)))
        found = self.actions(rows, measured, self.trained(like.astype(np.float32)))
        return found.astype(np.float32) if self.statistics is None else self.statistics.recovered(found)

    def changes(self, own: Floats, executed: Floats, raw: Floats, measured: Floats) -> Floats:
        """Return (n, columns) by how much the network's rows differ where `executed` was in place of `raw`; 0 where it was not.

        own: (n, columns), the network's. executed, raw: (n, joints).
        """
        like = self.trained(own)
        added = self.actions(executed, measured, like) - self.actions(raw, measured, like)
        return self._difference(added)

    def rebased(self, tail: Floats, own: Floats, elapsed_rows: float, before: Floats, now: Floats) -> Floats:
        """Return (m, columns) the left-over of a chunk, as one from `now` that leads the tool to the same poses.

        tail: (m, columns) of the network, the rows from `elapsed_rows` on. own: (n, columns), the whole chunk. before, now:
        (joints,) where the robot was when it was made, and where it is. Rows that are no pose stay as they are.
        """
        if self.space.mode == ABSOLUTE or not len(tail):
            return tail
        columns = list(self.space.columns)
        there, here = self.pose(before[None])[0], self.pose(now[None])[0]
        like = self.trained(tail).astype(np.float64)
        wanted = like.copy()
        try:
            if self.space.steps:
                # later steps lead on from the first one, wherever that began
                path = self.space.poses(self.trained(own).astype(np.float64)[:, columns], there)
                led = on_the_way(there, path, elapsed_rows)
                first = self.space.poses(like[:1, columns], led)
                wanted[:1, columns] = self.space.rows(first, here, like[:1, columns])
            else:
                poses = self.space.poses(like[:, columns], there)
                wanted[:, columns] = self.space.rows(poses, here, like[:, columns])
        except ValueError:
            return tail
        changed: Floats = tail + self._difference(wanted - like)
        return changed

    def _difference(self, added: Doubles) -> Floats:
        return added.astype(np.float32) if self.statistics is None else self.statistics.difference(added)
