# SPDX-License-Identifier: Apache-2.0
"""The bounds between samples: never below what a motion does, and close to it where that is near a limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planar_arm import planar
from repository import FIXTURES

from reflex_core.robot.kinematics.capsules import Capsule
from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.kinematics.tree import tree_of
from reflex_core.robot.limits.tool import OUTWARD_M, Course, ToolJudge, _sampled
from reflex_core.robot.limits.tool_limits import Doubles, Plane, ToolLimits, ToolRules
from reflex_core.robot.limits.tool_reach import Reaches

NAMES = (*(f"joint{number}" for number in range(1, 8)), "finger_joint1")
PATH: Path = FIXTURES / "urdf" / "arm7.urdf"
BODIES = (
    Capsule("base", np.zeros(3), np.array([0.0, 0.0, 0.25]), 0.1),
    Capsule("link5", np.array([0.0, 0.0, -0.2]), np.zeros(3), 0.06),
    Capsule("link9", np.zeros(3), np.array([0.0, 0.0, 0.05]), 0.02),
)
FAR = np.array([2.9] * 7 + [0.04])
DT_S, FINE = 0.05, 200


def arm(tool: str = "link8") -> Kinematics:
    links = tuple(dict.fromkeys((tool, *(body.link for body in BODIES))))
    return Kinematics(tree_of(PATH.read_bytes(), str(PATH), NAMES, links), tool, BODIES, ((0, 1), (0, 2)))


def course(rng: np.random.Generator, fast: float, ways: int = 12) -> Course:
    steps = rng.normal(size=(ways, 8)) * fast * DT_S
    knots = rng.uniform(-1.0, 1.0, 8) + np.concatenate([np.zeros((1, 8)), np.cumsum(steps, axis=0)])
    velocities = rng.normal(size=(ways + 1, 8)) * fast
    return Course(knots, np.full(ways, DT_S), velocities, velocities, knots[1:])


def fine(of: Course) -> Doubles:
    """(ways * FINE + 1, d) the motion itself."""
    u = (np.arange(FINE) / FINE)[:, None, None]
    p, v, h = of.positions, of.low, of.seconds[:, None]
    q = (
        (1 + 2 * u) * (1 - u) ** 2 * p[:-1] + u * u * (3 - 2 * u) * p[1:]
        + h * u * (1 - u) ** 2 * v[:-1] - h * u * u * (1 - u) * v[1:]
    )  # fmt: skip
    return np.concatenate([q.swapaxes(0, 1).reshape(-1, p.shape[1]), p[-1:]])


@pytest.mark.parametrize("fast", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_speed_between_samples_is_above_what_is_judged(seed: int, fast: float) -> None:
    known, of = arm(), course(np.random.default_rng(seed), fast)
    q = fine(of)
    poses = known.tree.poses(q)[0]
    per_s = FINE / DT_S
    speeds = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).reshape(-1, FINE).max(axis=1) * per_s
    turned = np.linalg.norm(np.diff(poses[:, :3, :3], axis=0), axis=(1, 2)) / 2**0.5
    turning = turned.reshape(-1, FINE).max(axis=1) * per_s
    for rules, real in (
        (ToolRules(speed_max=1e-3), speeds * 1e3),
        (ToolRules(turning_max=1e-3), turning * 1e3),
    ):
        judged = ToolJudge(ToolLimits(known, rules, FAR))(of).hurry
        assert (judged >= real * (1.0 - 1e-6)).all()


@pytest.mark.parametrize("fast", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_place_between_samples_is_beyond_what_is_judged(seed: int, fast: float) -> None:
    known, of = arm(), course(np.random.default_rng(seed), fast)
    poses = known.tree.poses(fine(of))
    at, gaps = poses[0][:, :3, 3], known.gaps(poses)
    normal = np.array([0.6, 0.0, 0.8])
    above, free = at @ normal, np.full(3, np.inf)
    # a limit that the motion keeps by less than nothing is found broken, whatever it is
    for of_rules, far in (
        (lambda less: ToolRules(box_max=np.append(at[:, 0].max() - less, free[1:])), at[:, 0]),
        (lambda less: ToolRules(box_min=np.append(at[:, 0].min() + less, -free[1:])), -at[:, 0]),
        (lambda less: ToolRules(planes=(Plane(normal, float(above.min()) + less),)), -above),
        (lambda less: ToolRules(distance_m=max(float(gaps.min()) + less, 0.0)), -gaps.min(axis=0)),
    ):
        begins_outside = far[0] >= far.max() - OUTWARD_M  # and may bend out by so much
        if not begins_outside:
            assert not ToolJudge(ToolLimits(known, of_rules(1e-6), FAR))(of, 0.0).clean


def test_what_a_smooth_motion_does_is_judged_as_it_is() -> None:
    known, at_s = arm(), np.arange(13)[:, None] * DT_S
    rates = np.linspace(0.5, 2.0, 8)
    q, v = 0.3 * np.sin(rates * at_s), 0.3 * rates * np.cos(rates * at_s)
    q[:, 7], v[:, 7] = 0.0, 0.0
    of = Course(q, np.full(12, DT_S), v, v, q[1:])
    poses = known.tree.poses(fine(of))
    at, nearest = poses[0][:, :3, 3], float(known.gaps(poses).min())
    fastest = float(np.linalg.norm(np.diff(at, axis=0), axis=1).max()) * FINE / DT_S
    room = 0.003
    kept = ToolRules(
        speed_max=fastest * 1.005, box_min=at.min(axis=0) - room, box_max=at.max(axis=0) + room, distance_m=nearest - 0.02
    )  # fmt: skip
    assert ToolJudge(ToolLimits(known, kept, FAR))(of).clean
    broken = ToolJudge(ToolLimits(known, ToolRules(speed_max=fastest * 0.999), FAR))(of)
    assert broken.kinds == ("tool_speed",)


def test_velocities_that_are_not_known_count_as_the_worst_of_them() -> None:
    known, rules = arm(), ToolRules(speed_max=1e-3)
    sure = course(np.random.default_rng(1), 0.5)
    judge = ToolJudge(ToolLimits(known, rules, FAR))
    rng = np.random.default_rng(2)
    low, high = sure.low - 0.1, sure.low + 0.2
    doubtful = judge(Course(sure.positions, sure.seconds, low, high, sure.held)).hurry
    for _ in range(20):
        one = rng.uniform(low, high)
        assert (
            judge(Course(sure.positions, sure.seconds, one, one, sure.held)).hurry <= doubtful + 1e-9
        ).all()


@pytest.mark.parametrize("seed", range(3))
def test_no_joint_moves_tool_or_body_by_more_than_its_reach(seed: int) -> None:
    known = arm("link10")  # a finger, which slides
    reaches = Reaches(known, FAR)
    q = np.random.default_rng(seed).uniform(-FAR, FAR, (200, 8))
    columns = np.linalg.norm(known.tree.jacobians(q, "link10")[:, :3], axis=1)
    assert (columns <= reaches.tool + 1e-12).all()
    assert (columns.max(axis=0)[:2] > 0.5 * reaches.tool[:2]).all()
    gaps = known.gaps(known.tree.poses(q))
    step = 1e-5 * np.random.default_rng(seed + 9).normal(size=q.shape)
    change = np.abs(known.gaps(known.tree.poses(q + step)) - gaps)
    assert (change <= reaches.pairs @ np.abs(step).T + 1e-12).all()


def test_a_motion_held_on_its_way_must_come_to_rest_inside() -> None:
    known, rng = arm(), np.random.default_rng(0)
    of = course(rng, 0.1)
    at = known.tree.poses(of.positions)[0][:, :3, 3]
    rules = ToolRules(box_min=at.min(axis=0) - 0.02, box_max=at.max(axis=0) + 0.02)
    judge = ToolJudge(ToolLimits(known, rules, FAR))
    still = Course(
        of.positions[:1].repeat(13, axis=0),
        of.seconds,
        0 * of.low,
        0 * of.high,
        of.positions[:1].repeat(12, axis=0),
    )
    assert judge(still).clean
    held = still.held.copy()
    held[5] += 0.5
    found = judge(Course(still.positions, still.seconds, still.low, still.high, held))
    assert (found.leaves, found.kinds) == (5, ("tool_box",))


# a slide of up to 1 m on a turntable: what it adds to a bend counts in either order
TURNTABLE = b"""<robot name="turntable">
  <joint name="turn" type="revolute"><parent link="base"/><child link="table"/><axis xyz="0 0 1"/></joint>
  <joint name="slide" type="prismatic"><parent link="table"/><child link="hand"/><axis xyz="1 0 0"/></joint>
</robot>"""


def on_a_turntable(rules: ToolRules) -> ToolLimits:
    tree = tree_of(TURNTABLE, "turntable.urdf", ("turn", "slide"), ["hand"])
    return ToolLimits(Kinematics(tree, "hand"), rules, np.array([3.0, 1.0]))


@pytest.mark.parametrize("seed", range(20))
def test_a_slide_on_what_turns_is_nowhere_faster_or_further_than_judged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn, slide = float(rng.uniform(0.2, 2.0)), float(rng.uniform(4.0, 8.0))
    q = np.array([[rng.uniform(-3.0, 3.0), 0.5], [0.0, 0.5 + 0.05 * slide]])
    q[1, 0] = q[0, 0] + 0.05 * turn
    velocities = np.array([[turn, slide], [turn, slide]])
    of = Course(q, np.array([0.05]), velocities, velocities, q[1:])
    places = tree_of(TURNTABLE, "turntable.urdf", ("turn", "slide"), ["hand"]).poses(fine(of))[0][:, :3, 3]
    fastest = float(np.linalg.norm(np.diff(places, axis=0), axis=1).max()) * FINE / 0.05
    known, curve = on_a_turntable(ToolRules(speed_max=1e-3)), _sampled(of, 1)
    assert ToolJudge(known)._judged(of, 0.0, 1)[0].hurry[0] * 1e-3 >= fastest * (1.0 - 1e-6)
    reaches = Reaches(known.kinematics, known.furthest)
    bulge = 0.05**2 / 8.0 * float(ToolJudge(known)._bend(reaches.tool[None], curve)[0, 0])
    line = places[0] + np.linspace(0.0, 1.0, len(places))[:, None] * (places[-1] - places[0])
    assert np.linalg.norm(places - line, axis=1).max() <= bulge


def arc(count: int, dt_s: float, begin: float, end: float) -> Course:
    """The planar arm, stretched, that turns at an even speed: (count + 1) knots."""
    q = np.zeros((count + 1, 2))
    q[:, 0] = np.linspace(begin, end, count + 1)
    velocities = np.zeros_like(q)
    velocities[:, 0] = (end - begin) / count / dt_s
    return Course(q, np.full(count, dt_s), velocities, velocities, q[1:])


@pytest.mark.parametrize("inside_m", [0.0005, 1e-7, 0.0, -0.01])
def test_an_arc_that_ends_as_near_as_it_began_is_not_taken_to_lead_inside(inside_m: float) -> None:
    limits = planar(box_max=np.array([np.inf, 2.0 * np.cos(0.1) + inside_m, np.inf]))
    assert limits.tool is not None
    over = arc(1, 0.1, np.pi / 2 - 0.1, np.pi / 2 + 0.1)  # the tool is 10 mm further out in the middle
    assert ToolJudge(limits.tool)(over).kinds == ("tool_box",)


@pytest.mark.parametrize("inside_m", [0.0005, 1e-7, 0.0, -0.01])
def test_near_a_limit_or_outside_what_leads_inside_is_clean(inside_m: float) -> None:
    limits = planar(box_max=np.array([np.inf, 2.0 * np.sin(1.0) + inside_m, np.inf]))
    assert limits.tool is not None
    assert ToolJudge(limits.tool)(arc(3, 0.1, 1.0, 0.8)).clean
    assert not ToolJudge(limits.tool)(arc(3, 0.1, 1.0, 1.2)).clean


def test_bodies_that_pass_each_other_closely_are_judged_as_they_are() -> None:
    known = Kinematics(
        tree_of(TURNTABLE, "turntable.urdf", ("turn", "slide"), ["hand", "base"]), "hand",
        (Capsule("hand", np.zeros(3), np.zeros(3), 0.05), Capsule("base", np.array([0.5, 0.0, 0.0]), np.array([0.5, 0.0, 0.0]), 0.05)),
        ((0, 1),),
    )  # fmt: skip
    # past it, 24 mm away, at 1.8 m/s: a bound that only knows this speed would be 11 mm off
    q = np.array([[0.0, 0.44], [0.0, 0.56]])
    q[:, 0] = 2.0 * np.arcsin(0.124)
    still = np.zeros_like(q)
    of = Course(q, np.array([0.1]), still, still, q[1:])
    nearest = float(known.gaps(known.tree.poses(fine(of))).min())

    def judged(distance_m: float) -> bool:
        limits = ToolLimits(known, ToolRules(distance_m=distance_m), np.array([3.0, 1.0]))
        return ToolJudge(limits)(of, 0.0).clean

    assert judged(nearest - 0.005)
    assert not judged(nearest + 1e-5)
