# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics and Jacobians of a robot's description (URDF), for all rows of a chunk at once.

A joint's transform is linear in 1, sin q and cos q (Rodrigues; 1 and q where it slides), so that a row costs one product
of 4 x 4 matrices for each joint. Fixed joints are folded into the moving ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.units import MOST_M
from reflex_core.robot.urdf import UrdfError, decimal, robot_element
from reflex_core.text.suggestions import no_such

Doubles = NDArray[np.float64]

ONCE = ("parent", "child", "origin", "axis", "mimic")
MOST_ANGLE, MOST_FACTOR = 100.0, 1000.0  # rad; of a joint that follows another
# of each attribute, the largest number: more is no robot's, and what is computed with it would be no number
MOST = {"rpy": MOST_ANGLE, "multiplier": MOST_FACTOR, "offset": MOST_ANGLE}


@dataclass(frozen=True, slots=True)
class Step:
    """One moving joint. parent: index of the step before it, -1 at the root. column: of q. slides: prismatic.

    terms: (3, 4, 4) that 1, sin q and cos q (sliding: 1, q, 0) multiply. factor, offset: q of the joint = factor * q + offset,
    other than 1 and 0 where it follows another joint (mimic). axis: (3,) unit, in the joint's own frame.
    """

    parent: int
    column: int
    slides: bool
    terms: Doubles
    factor: float
    offset: float
    axis: Doubles


@dataclass(frozen=True, slots=True)
class Tree:
    """The moving joints that lead to some links of a robot.

    joints: names of the columns of q. links: the names of the links whose poses are known. steps: parents first. ends: for
    each link the step that it hangs on (-1: the root) and its (4, 4) pose there.
    """

    joints: tuple[str, ...]
    links: tuple[str, ...]
    steps: tuple[Step, ...]
    ends: tuple[tuple[int, Doubles], ...]

    def poses(self, q: Doubles) -> Doubles:
        """Return (links, rows, 4, 4) poses in the root's frame, m. q: (rows, joints) in rad or m."""
        return self._of_links(self._of_steps(q), len(q))

    def jacobians(self, q: Doubles, link: str) -> Doubles:
        """Return (rows, 6, joints): velocity of a link's origin in m/s and its turning in rad/s, both in the root's frame.

        Source: the geometric Jacobian, axis x (end - joint) and axis for a joint that turns, axis and 0 for one that slides.
        """
        frames = self._of_steps(q)
        at = self.links.index(link)
        end = self._of_links(frames, len(q))[at][:, :3, 3]
        found = np.zeros((len(q), 6, len(self.joints)))
        step = self.ends[at][0]
        while step >= 0:
            joint = self.steps[step]
            axis = frames[step][:, :3, :3] @ joint.axis * joint.factor
            if joint.slides:
                found[:, :3, joint.column] += axis
            else:
                found[:, :3, joint.column] += np.cross(axis, end - frames[step][:, :3, 3])
                found[:, 3:, joint.column] += axis
            step = joint.parent
        return found

    def _of_steps(self, q: Doubles) -> list[Doubles]:
        if not self.steps:
            return []
        factors, offsets = (
            np.array([values]) for values in zip(*((s.factor, s.offset) for s in self.steps), strict=True)
        )
        moved = (q[:, [step.column for step in self.steps]] * factors + offsets).T
        slides = np.array([[step.slides] for step in self.steps])
        weights = np.ones((*moved.shape, 3))
        weights[..., 1] = np.where(slides, moved, np.sin(moved))
        weights[..., 2] = np.where(slides, 0.0, np.cos(moved))
        terms = np.stack([step.terms for step in self.steps]).reshape(-1, 3, 16)
        own = (weights @ terms).reshape(*moved.shape, 4, 4)  # of all joints at once
        frames: list[Doubles] = []
        for step, pose in zip(self.steps, own, strict=True):
            frames.append(pose if step.parent < 0 else frames[step.parent] @ pose)
        return frames

    def _of_links(self, frames: list[Doubles], rows: int) -> Doubles:
        return np.stack([
            np.broadcast_to(end, (rows, 4, 4)) if step < 0 else frames[step] @ end for step, end in self.ends
        ])  # fmt: skip


def tree_of(
    description: bytes, where: str, joints: Sequence[str], links: Sequence[str], root: str = ""
) -> Tree:
    """Return the tree of a URDF document that leads to `links`.

    joints: names of the columns of q; one that moves a link and is not among them is an error. where: names the document in
    messages. root: the link in whose frame poses are; empty: that of the document. Raises UrdfError.
    """
    parents = _parents(robot_element(description, where), where)
    children = {one.child for one in parents.values()}
    known = children | {one.parent for one in parents.values()}
    for link in (*links, *((root,) if root else ())):
        if link not in known:
            raise UrdfError(f"{where}: {no_such('link', [link], sorted(known))}")
    made: dict[str, int] = {}
    steps: list[Step] = []
    ends = []
    for link in links:
        way = _way(parents, link, root, where)
        at, pose = -1, np.eye(4)
        for joint in way:
            pose = pose @ joint.origin
            if joint.kind == "fixed":
                continue
            if joint.name not in made:
                made[joint.name] = len(steps)
                steps.append(_step(joint, at, pose, joints, where))
            at, pose = made[joint.name], np.eye(4)
        ends.append((at, pose))
    return Tree(tuple(joints), tuple(links), tuple(steps), tuple(ends))


@dataclass(frozen=True, slots=True)
class _Joint:
    name: str
    kind: str
    parent: str
    child: str
    origin: Doubles
    axis: Doubles
    leader: str
    factor: float
    offset: float

    @property
    def follows(self) -> bool:
        """Whether it has a mimic."""
        return self.leader != self.name or self.factor != 1.0 or self.offset != 0.0


def _parents(robot: ElementTree.Element, where: str) -> dict[str, _Joint]:
    """Return the joint above each link."""
    found: dict[str, _Joint] = {}
    names: set[str] = set()
    for element in robot.findall("joint"):
        joint = _joint(element, where)
        if joint.name in names:
            raise UrdfError(f"{where}: every joint must have a name of its own, got '{joint.name}' twice")
        names.add(joint.name)
        if joint.child in found:
            raise UrdfError(
                f"{where}: link '{joint.child}' must hang on one joint, got '{found[joint.child].name}' and '{joint.name}'"
            )
        found[joint.child] = joint
    return found


def _joint(element: ElementTree.Element, where: str) -> _Joint:
    name, kind = element.get("name", ""), element.get("type", "")
    for tag in ONCE:
        if len(element.findall(tag)) > 1:
            raise UrdfError(
                f"{where}: joint '{name}' must have one '{tag}' at most: it is ambiguous which of them holds"
            )
    parent, child = (_link(element, end, name, where) for end in ("parent", "child"))
    origin, axis, mimic = element.find("origin"), element.find("axis"), element.find("mimic")
    pose = np.eye(4)
    if origin is not None:
        pose[:3, 3] = _numbers(origin, "xyz", name, where, (0.0, 0.0, 0.0))
        pose[:3, :3] = _of_rpy(_numbers(origin, "rpy", name, where, (0.0, 0.0, 0.0)))
    along = np.array((1.0, 0.0, 0.0))  # what URDF takes where none is written
    if axis is not None:
        along = _numbers(axis, "xyz", name, where, (1.0, 0.0, 0.0))
        along = along / (np.abs(along).max() or 1.0)  # squares of large and tiny ones are no numbers
    length = float(np.linalg.norm(along))
    if kind != "fixed" and not length > 0.0:
        raise UrdfError(f"{where}: the axis of joint '{name}' must have a direction, got 0 0 0")
    leader, factor, offset = name, 1.0, 0.0
    if mimic is not None:
        leader = mimic.get("joint", "")
        factor = float(_numbers(mimic, "multiplier", name, where, (1.0,))[0])
        offset = float(_numbers(mimic, "offset", name, where, (0.0,))[0])
    return _Joint(name, kind, parent, child, pose, along / (length or 1.0), leader, factor, offset)


def _link(element: ElementTree.Element, end: str, name: str, where: str) -> str:
    found = element.find(end)
    link = found.get("link", "") if found is not None else ""
    if not link:
        raise UrdfError(f"{where}: joint '{name}' must name its {end} link")
    return link


def _numbers(
    element: ElementTree.Element, key: str, joint: str, where: str, otherwise: tuple[float, ...]
) -> Doubles:
    text = element.get(key)
    if text is None:
        return np.array(otherwise)
    values, most = np.array([decimal(part) for part in text.split()]), MOST.get(key, MOST_M)
    if element.tag == "axis":
        most = np.finfo(np.float64).max
    if len(values) != len(otherwise) or not np.isfinite(values).all():
        raise UrdfError(
            f"{where}: '{key}' of joint '{joint}' must be {len(otherwise)} finite numbers, got '{text[:80]}'"
        )
    if np.abs(values).max() > most:
        unit = "rad" if key == "rpy" else "m" if key == "xyz" else "rad or m" if key == "offset" else ""
        raise UrdfError(
            f"{where}: '{key}' of joint '{joint}' must be at most {f'{most:g} {unit}'.strip()}, got '{text[:80]}'"
        )
    return values


def _of_rpy(rpy: Doubles) -> Doubles:
    """Return the rotation of roll, pitch and yaw about fixed axes: Rz(yaw) Ry(pitch) Rx(roll), as URDF and tf define it."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array([
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ])  # fmt: skip


def _way(parents: dict[str, _Joint], link: str, root: str, where: str) -> list[_Joint]:
    """Return the joints from the root to a link."""
    way: list[_Joint] = []
    at = link
    while at in parents and at != root:
        way.append(parents[at])
        at = parents[at].parent
        if len(way) > len(parents):
            raise UrdfError(f"{where}: the links above '{link}' form a circle")
    if root and at != root:
        raise UrdfError(f"{where}: link '{link}' must hang on '{root}', it hangs on '{at}'")
    return way[::-1]


def _step(joint: _Joint, parent: int, pose: Doubles, joints: Sequence[str], where: str) -> Step:
    if joint.kind not in ("revolute", "continuous", "prismatic"):
        raise UrdfError(
            f"{where}: joint '{joint.name}' is {joint.kind or 'of no type'}: only joints with one axis can be computed"
        )
    if joint.follows and joint.name in joints:
        raise UrdfError(
            f"{where}: joint '{joint.name}' must not be one of the robot's, or not follow '{joint.leader}' (mimic), as it moves what is"
            " computed"
        )
    if joint.leader not in joints:
        raise UrdfError(
            f"{where}: joint '{joint.name}' must be one of the robot's ({', '.join(joints)}), as it moves what is computed:"
            " its position is not known otherwise"
        )
    terms = np.zeros((3, 4, 4))
    terms[0] = pose
    if joint.kind == "prismatic":
        slide = np.zeros((4, 4))
        slide[:3, 3] = joint.axis
        terms[1] = pose @ slide
    else:
        x, y, z = joint.axis
        cross = np.zeros((4, 4))
        cross[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
        terms[0], terms[1], terms[2] = pose @ (np.eye(4) + cross @ cross), pose @ cross, -pose @ cross @ cross
    return Step(
        parent,
        joints.index(joint.leader),
        joint.kind == "prismatic",
        terms,
        joint.factor,
        joint.offset,
        joint.axis,
    )
