# SPDX-License-Identifier: Apache-2.0
"""The robots whose guard of tool and bodies is played against: an arm with a gripper, one of every kind of joint, one that follows itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.tool_judge import Body, Doubles, Frames, Robot, ends, gaps, least_gap
from reflex_core.robot.kinematics.capsules import Capsule
from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.kinematics.tree import tree_of
from reflex_core.robot.limits.tool_limits import KINDS, Plane, ToolRules

URDFS = Path(__file__).parents[1] / "test" / "fixtures" / "urdf"
FREE = np.inf  # a joint that turns for ever


@dataclass(frozen=True)
class Machine:
    """One robot. low, high, fastest: (d,) of its columns, rad or m, per second. gripper: (d,) the columns that are one.

    pairs: indices of two bodies that may have to stay apart. fixed: the bodies that no joint moves.
    """

    urdf: str
    names: tuple[str, ...]
    tool: str
    low: Doubles
    high: Doubles
    fastest: Doubles
    gripper: tuple[bool, ...]
    bodies: tuple[Body, ...]
    pairs: tuple[tuple[int, int], ...]
    fixed: tuple[int, ...] = ()

    @cached_property
    def links(self) -> tuple[str, ...]:
        """The tool's link, then those of the bodies."""
        return tuple(dict.fromkeys((self.tool, *(body.link for body in self.bodies))))

    @cached_property
    def robot(self) -> Robot:
        """Where the links are, found without the product."""
        return Robot(URDFS / self.urdf, self.names)

    @cached_property
    def range(self) -> tuple[Doubles, Doubles]:
        """A finite range to draw positions from."""
        return np.maximum(self.low, -6.0), np.minimum(self.high, 6.0)

    def kinematics(self) -> Kinematics:
        """The robot as the product sees it."""
        path = URDFS / self.urdf
        capsules = tuple(
            Capsule(one.link, np.array(one.start), np.array(one.end), one.radius) for one in self.bodies
        )
        tree = tree_of(path.read_bytes(), str(path), self.names, self.links)
        return Kinematics(tree, self.tool, capsules, self.pairs)

    def frames(self, q: Doubles) -> Frames:
        """Where tool and bodies are at q (n, d)."""
        return self.robot.frames(q, self.links)


def places(machine: Machine, frames: Frames, rules: ToolRules) -> tuple[list[str], Doubles]:
    """How far every point is beyond every limit of place, m, negative inside: names (c,), values (c, n). Without the distances."""
    origin = frames[machine.tool][0]
    names, far = [], []
    for axis in range(3):
        for name, values in (
            ("box", rules.box_min[axis] - origin[:, axis]),
            ("box", origin[:, axis] - rules.box_max[axis]),
        ):
            if np.isfinite(values).all():
                names.append(name)
                far.append(values)
    moving = [body for at, body in enumerate(machine.bodies) if at not in machine.fixed]
    for plane in rules.planes:
        names.append("plane")
        far.append(plane.offset_m - origin @ plane.normal)
        for body in moving:
            one, other = (end @ plane.normal for end in ends(body, frames))
            names.append("plane")
            far.append(plane.offset_m - np.minimum(one, other) + body.radius)
    return names, np.array(far).reshape(len(far), len(origin))


def overlaps(machine: Machine, frames: Frames, least_m: float, *, every: bool) -> Doubles:
    """How far every pair is nearer than `least_m`: (pairs, n), or (pairs, 1) the worst of each where not `every` moment is wanted."""
    found = []
    for one, other in machine.pairs:
        first, second = machine.bodies[one], machine.bodies[other]
        if every:
            apart = gaps(*ends(first, frames), *ends(second, frames)) - first.radius - second.radius
        else:
            apart = np.array([least_gap(first, second, frames, least_m)])
        found.append(least_m - apart)
    return np.array(found)


ARM7 = Machine(
    "arm7.urdf",
    tuple(f"joint{number}" for number in range(1, 8)),
    "link8",
    np.array([-2.89, -1.76, -2.89, -3.07, -2.89, -0.01, -2.89]),
    np.array([2.89, 1.76, 2.89, -0.07, 2.89, 3.75, 2.89]),
    np.array([2.175] * 4 + [2.61] * 3),
    (False,) * 7,
    (
        Body("base", (0.0, 0.0, 0.0), (0.0, 0.0, 0.25), 0.10),
        Body("link2", (0.0, 0.0, 0.0), (0.0, -0.25, 0.0), 0.07),
        Body("link4", (0.0, 0.0, 0.0), (-0.08, 0.2, 0.0), 0.06),
        Body("link5", (0.0, 0.0, -0.2), (0.0, 0.0, -0.05), 0.06),
        Body("link6", (0.0, 0.0, 0.0), (0.08, 0.0, 0.0), 0.06),
        Body("link8", (0.0, 0.0, 0.0), (0.0, 0.0, 0.1), 0.06),
    ),
    ((0, 2), (0, 3), (0, 4), (0, 5), (1, 3), (1, 4), (1, 5), (2, 5)),
    fixed=(0,),
)
ARM7_HAND = Machine(
    ARM7.urdf, (*ARM7.names, "gripper"), ARM7.tool, np.append(ARM7.low, 0.0), np.append(ARM7.high, 1.0),
    np.append(ARM7.fastest, 2.0), (*ARM7.gripper, True), ARM7.bodies, ARM7.pairs, ARM7.fixed,
)  # fmt: skip
SKEW5 = Machine(
    "skew5.urdf",
    ("joint1", "joint2", "joint3", "joint4", "joint6"),
    "link6",
    np.array([-3.0, -FREE, -0.2, -3.0, -2.0]),
    np.array([3.0, FREE, 0.3, 3.0, 2.0]),
    np.array([2.0, 2.0, 0.5, 2.0, 3.0]),
    (False,) * 5,
    (
        Body("base", (0.0, 0.0, 0.0), (0.0, 0.0, 0.2), 0.08),
        Body("link2", (0.0, 0.0, 0.0), (0.0, 0.1, 0.2), 0.04),
        Body("link4", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.05),  # a sphere
        Body("link6", (0.0, 0.0, 0.02), (0.0, 0.0, 0.12), 0.03),
    ),
    ((0, 2), (0, 3), (1, 3)),
    fixed=(0,),
)
FOLLOWER4 = Machine(
    "follower4.urdf",
    ("turn", "shoulder", "elbow", "lift"),
    "hand",
    np.array([-3.0, -1.2, -2.2, 0.0]),
    np.array([3.0, 1.2, 2.2, 0.25]),
    np.array([1.5, 1.5, 1.8, 0.6]),
    (False,) * 4,
    (
        Body("base", (0.0, 0.0, 0.0), (0.0, 0.0, 0.3), 0.1),
        Body("upper", (0.0, 0.0, 0.1), (0.0, 0.0, 0.3), 0.05),
        Body("hand", (0.0, 0.0, 0.0), (0.1, 0.0, 0.0), 0.04),
        Body("spare", (0.0, 0.0, 0.0), (0.0, 0.0, 0.1), 0.03),
    ),
    ((0, 2), (1, 2), (0, 3)),
    fixed=(0,),
)
MACHINES = (ARM7, ARM7_HAND, SKEW5, FOLLOWER4)
SHARES = (0.45, 0.15, 0.2, 0.2)  # of the histories


def random_acceleration(rng: np.random.Generator, machine: Machine) -> Doubles:
    """(d,): unlimited, limited, or some of each."""
    kind, dim = rng.random(), len(machine.names)
    if kind < 0.5:
        return np.full(dim, np.inf)
    limited = np.where(np.array(machine.gripper), np.inf, rng.uniform(4.0, 15.0, dim))
    return limited if kind < 0.85 else np.where(rng.random(dim) < 0.5, np.inf, limited)


def random_rules(rng: np.random.Generator) -> ToolRules:
    """Limits of speed, turning, box, planes and distance, each there or not."""
    low, high = np.full(3, -np.inf), np.full(3, np.inf)
    if rng.random() < 0.7:
        low = np.array([rng.uniform(-0.7, 0.0), rng.uniform(-0.7, -0.2), rng.uniform(-0.1, 0.2)])
        high = np.array([rng.uniform(0.4, 0.8), rng.uniform(0.2, 0.7), rng.uniform(0.6, 1.1)])
    planes = []
    for _ in range(int(rng.choice([0, 1, 1, 3]))):
        normal = np.array([*rng.uniform(-0.2, 0.2, 2), 1.0]) if rng.random() < 0.6 else rng.normal(size=3)
        planes.append(Plane(normal / np.linalg.norm(normal), float(rng.uniform(-0.3, 0.05))))
    return ToolRules(
        speed_max=float(rng.uniform(0.05, 1.7)) if rng.random() < 0.9 else np.inf,
        turning_max=float(rng.uniform(0.3, 5.0)) if rng.random() < 0.8 else np.inf,
        box_min=low, box_max=high, planes=tuple(planes),
        distance_m=float(rng.uniform(0.0, 0.05)) if rng.random() < 0.8 else None,
        held=frozenset(KINDS if rng.random() < 0.05 else rng.choice(KINDS, 1) if rng.random() < 0.15 else ()),
    )  # fmt: skip
