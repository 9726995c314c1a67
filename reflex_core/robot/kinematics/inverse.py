# SPDX-License-Identifier: Apache-2.0
"""Joint rows that bring a tool to given poses, one after the other, by damped least squares on pinocchio.

Every row starts from the one before it, so that the arm stays in the branch that it is in. What cannot be reached inside the
limits, or only near a singularity, is an error and never the nearest thing that could be had.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.robot.kinematics.tree import Step, Tree
from reflex_core.robot.poses import Poses, on_the_way

Doubles = NDArray[np.float64]

MISSING = "kinematics-missing"

MOST_OFF_M, MOST_OFF_RAD = 1e-3, float(np.deg2rad(0.5))  # of a row that counts as reached
DONE_M, DONE_RAD = 1e-7, 1e-7  # where no further step is taken
MOST_CONDITION = 100.0  # largest over smallest singular value of the Jacobian, in m and rad
MOST_STEPS = 40  # of one row; a row that is near the one before takes two or three
MOST_STEP = 0.3  # rad or m of a joint in one step: farther, the Jacobian says nothing
MARGIN, MARGIN_SHARE = (
    0.01,
    0.01,
)  # rad or m, and of the range: how far from a limit a row stays, the smaller of both
DAMPED_FROM = 0.05  # smallest over largest singular value below which steps are damped
DAMPING = 0.01  # of the largest singular value, where the smallest is 0
FAR = 0.2  # rad or m of a joint from row to row: farther, it is led there by the poses between
HALVINGS = 4  # of such a way
PULL = 0.1  # share of the way back to the start in one step, where that moves no tool


class UnreachableError(Exception):
    """A pose that the arm does not come to; the message says which row, and why.

    rows: (m, joints) those before it, which are reached.
    """

    def __init__(self, message: str, rows: Doubles | None = None) -> None:
        super().__init__(message)
        self.rows = rows


def pinocchio(wanted: str) -> ModuleType:
    """Return the library. Raises ConfigurationError where it is not installed. wanted: what needs it, for the message."""
    try:
        return import_module("pinocchio")
    except ImportError as error:
        raise ConfigurationError(
            f"{wanted} needs inverse kinematics, and pinocchio cannot be imported ({error}): install it with"
            " pip install 'reflex_ros[kinematics]'",
            MISSING,
        ) from error


@dataclass(frozen=True, slots=True)
class _Arm:
    """The moving joints that lead to the tool, root first. columns: of q, each once; spread: (steps, columns) their factors."""

    steps: tuple[Step, ...]
    end: Doubles
    columns: NDArray[np.intp]
    spread: Doubles
    offsets: Doubles


class Inverse:
    """The inverse kinematics of one link. Thread-safe: a call has working memory of its own."""

    def __init__(
        self, tree: Tree, link: str, low: Doubles, high: Doubles, wanted: str = "a tool's pose"
    ) -> None:
        """Take an arm. low, high: (joints,) rad or m, infinite where a joint turns for ever. wanted: see `pinocchio`.

        Raises ConfigurationError without pinocchio, or where no joint moves the link.
        """
        self._pin = pinocchio(wanted)
        self._tree, self._link, self._arm = tree, link, _arm(tree, link)
        if not len(self._arm.columns):
            raise ConfigurationError(f"no joint moves the link '{link}': it cannot be a tool", MISSING)
        self.columns = self._arm.columns
        with np.errstate(invalid="ignore"):
            share = np.where(np.isfinite(high - low), MARGIN_SHARE * (high - low), np.inf)
        margin = np.minimum(MARGIN, share)
        self._low, self._high = (low + margin)[self.columns], (high - margin)[self.columns]
        self._model, self._frame = _model(self._pin, self._arm, link)

    def rows(self, start: Doubles, poses: Poses) -> Doubles:
        """Return (n, joints) of which row i brings the tool to pose i; joints that do not move it stay.

        start: (joints,) where the robot is, rad or m. poses: (n) in the frame of the tree's root.
        Raises UnreachableError for a row that is not reached within MOST_OFF_M and MOST_OFF_RAD, near a singularity, or only by a leap
        of the joints; and for numbers that are not finite.
        """
        if not (
            np.isfinite(start).all()
            and np.isfinite(poses.position).all()
            and np.isfinite(poses.rotation).all()
        ):
            raise UnreachableError("where the robot is, or a pose, is not finite")
        made = np.tile(start, (len(poses.position), 1))
        home = start[self.columns]
        # a joint that is measured in its margin goes on from there, and not farther out
        low, high = np.minimum(self._low, home), np.maximum(self._high, home)
        at, before, data = home, self._pose(start), self._model.createData()
        for row in range(len(made)):
            try:
                at = self._led(data, at, home, low, high, before, poses[row])
                before = poses[row]
            except UnreachableError as error:
                raise UnreachableError(f"row {row}: {error}", made[:row]) from None
            made[row, self.columns] = at
        return made

    def _pose(self, start: Doubles) -> Poses:
        found = self._tree.poses(start[None])[self._tree.links.index(self._link), 0]
        return Poses(found[:3, 3], found[:3, :3])

    def _led(
        self, data: Any, at: Doubles, home: Doubles, low: Doubles, high: Doubles, before: Poses, pose: Poses, halvings: int = HALVINGS
    ) -> Doubles:  # fmt: skip
        """Return the joints at a pose, by the poses between where they move far: so they stay in the branch that they are in.

        before: the pose at `at`.
        """
        found = self._reached(data, at, home, low, high, pose)
        far = float(np.abs(found - at).max())
        if far <= FAR:
            return found
        if not halvings:
            raise UnreachableError(
                f"the arm would leap to another way of holding the tool: a joint moves {far:.3g} rad or m within a"
                f" {2**HALVINGS}th of the row"
            )
        middle = on_the_way(before, Poses(pose.position[None], pose.rotation[None]), 0.5)
        between = self._led(data, at, home, low, high, before, middle, halvings - 1)
        return self._led(data, between, home, low, high, middle, pose, halvings - 1)

    def _reached(
        self, data: Any, at: Doubles, home: Doubles, low: Doubles, high: Doubles, pose: Poses
    ) -> Doubles:
        best, least, jacobian = at, np.inf, np.zeros((6, len(at)))
        off_m = off_rad = np.inf
        for _ in range(MOST_STEPS):
            moves, away = self._seen(data, at, pose)
            here_m, here_rad = float(np.linalg.norm(away[:3])), float(np.linalg.norm(away[3:]))
            score = max(here_m / MOST_OFF_M, here_rad / MOST_OFF_RAD)
            if score < least:
                best, least, jacobian, off_m, off_rad = at, score, moves, here_m, here_rad
            if here_m <= DONE_M and here_rad <= DONE_RAD:
                break
            at = at + _step(moves, away, at, PULL * (home - at), low, high)
        if not least <= 1.0:
            raise UnreachableError(
                f"the tool stays {1e3 * off_m:.3g} mm and {np.rad2deg(off_rad):.3g} degrees away from its pose"
                f" ({1e3 * MOST_OFF_M:g} mm and {np.rad2deg(MOST_OFF_RAD):g} degrees are allowed)"
            )
        values = np.linalg.svd(jacobian, compute_uv=False)
        if not values[0] <= MOST_CONDITION * values[-1]:
            raise UnreachableError(
                "the arm comes near a singularity, where small motions of the tool are large ones of its joints"
                f" (condition {values[0] / max(values[-1], 1e-12):.3g}, {MOST_CONDITION:g} is allowed)"
            )
        return best

    def _seen(self, data: Any, q: Doubles, pose: Poses) -> tuple[Doubles, Doubles]:
        """Return (6, columns) the Jacobian, and (6,) how far the pose is away: m and rad along the axes of the root."""
        pin, model = self._pin, self._model
        pin.computeJointJacobians(model, data, self._arm.spread @ q + self._arm.offsets)
        here = pin.updateFramePlacement(model, data, self._frame)
        jacobian = pin.getFrameJacobian(model, data, self._frame, pin.ReferenceFrame.LOCAL_WORLD_ALIGNED)
        turned = pin.log3(pose.rotation @ here.rotation.T)
        away = np.concatenate((pose.position - here.translation, turned))
        return jacobian @ self._arm.spread, away


def _step(
    jacobian: Doubles, away: Doubles, at: Doubles, pull: Doubles, low: Doubles, high: Doubles
) -> Doubles:
    """Return (columns,) a step towards the pose inside the limits: what one joint cannot do is left to the others.

    Source: damped least squares, Wampler 1986, damped where the arm can move the tool in fewer ways than it should (Nakamura and
    Hanafusa 1986; here by the smallest over the largest singular value).
    """
    step, free = np.zeros(len(at)), np.ones(len(at), np.bool_)
    for _ in range(len(at)):
        left = away - jacobian[:, ~free] @ step[~free]
        step[free] = _least_squares(jacobian[:, free], left, pull[free])
        ahead = at + step
        over = free & ((ahead < low) | (ahead > high))
        if not over.any():
            break
        step[over] = np.minimum(np.maximum(ahead, low), high)[over] - at[over]
        free &= ~over
        if not free.any():
            break
    most = float(np.abs(step).max())
    return step if most <= MOST_STEP else step * (MOST_STEP / most)


def _least_squares(jacobian: Doubles, away: Doubles, pull: Doubles) -> Doubles:
    """Return the damped least-squares step, with the part of `pull` that does not move the tool."""
    left, values, right = np.linalg.svd(jacobian, full_matrices=False)
    largest = float(values[0])
    if not largest > 0.0:
        return np.zeros(jacobian.shape[1])
    lacking = min(float(values[-1]) / (largest * DAMPED_FROM), 1.0)
    damped = (DAMPING * largest) ** 2 * (1.0 - lacking**2)
    gains = values / (values**2 + damped)
    idle = pull - right.T @ (right @ pull)
    found: Doubles = right.T @ (gains * (left.T @ away)) + idle
    return found


def _arm(tree: Tree, link: str) -> _Arm:
    at, end = tree.ends[tree.links.index(link)]
    steps: list[Step] = []
    while at >= 0:
        steps.append(tree.steps[at])
        at = tree.steps[at].parent
    steps.reverse()
    columns = np.array(sorted({step.column for step in steps}), np.intp)
    spread = np.zeros((len(steps), len(columns)))
    for row, step in enumerate(steps):
        spread[row, int(np.searchsorted(columns, step.column))] = step.factor
    return _Arm(tuple(steps), end, columns, spread, np.array([step.offset for step in steps]))


def _model(pin: ModuleType, arm: _Arm, link: str) -> tuple[Any, int]:
    """Return pinocchio's model of the chain, and the number of the tool's frame in it."""
    model, parent = pin.Model(), 0
    for number, step in enumerate(arm.steps):
        # at q = 0, where sin is 0 and cos is 1
        placed = pin.SE3(step.terms[0] if step.slides else step.terms[0] + step.terms[2])
        kind = pin.JointModelPrismaticUnaligned if step.slides else pin.JointModelRevoluteUnaligned
        parent = model.addJoint(parent, kind(step.axis), placed, f"{number}")
    frame = pin.Frame(link, parent, 0, pin.SE3(arm.end), pin.FrameType.OP_FRAME)
    return model, int(model.addFrame(frame))
