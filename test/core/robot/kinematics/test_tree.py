# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics and Jacobians against pinocchio 4.1's (test/fixtures/urdf, 1000 positions each), and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pinocchio
import pytest
from repository import FIXTURES

from reflex_core.robot.kinematics.tree import Doubles, Tree, tree_of
from reflex_core.robot.urdf import UrdfError

ARM7 = ((*(f"joint{index}" for index in range(1, 8)), "finger_joint1"), "link8")
SKEW5 = (("joint1", "joint2", "joint3", "joint4", "joint6"), "link6")
ROBOTS = {"arm7": ARM7, "skew5": SKEW5}


def tree(name: str, links: Sequence[str] = (), root: str = "") -> Tree:
    joints, tip = ROBOTS[name]
    path = FIXTURES / "urdf" / f"{name}.urdf"
    return tree_of(path.read_bytes(), str(path), joints, links or (tip,), root)


@pytest.mark.parametrize("name", ROBOTS)
def test_poses_and_jacobians_are_those_of_pinocchio(name: str) -> None:
    known = np.load(FIXTURES / "urdf" / f"{name}_by_pinocchio.npz")
    robot, tip = tree(name), ROBOTS[name][1]
    assert np.abs(robot.poses(known["q"])[0][:, :3] - known["pose"]).max() < 1e-12
    assert np.abs(robot.jacobians(known["q"][:100], tip) - known["jacobian"]).max() < 1e-12


@pytest.mark.parametrize("name", [*ROBOTS, "follower4"])
def test_what_is_computed_is_what_the_installed_library_computes(name: str) -> None:
    joints, tip = ROBOTS.get(name, (("turn", "shoulder", "elbow", "lift"), "hand"))
    path = FIXTURES / "urdf" / f"{name}.urdf"
    ours = tree_of(path.read_bytes(), str(path), joints, [tip])
    model = pinocchio.buildModelFromXML(path.read_text(), True)
    data, frame = model.createData(), model.getFrameId(tip)
    rng = np.random.default_rng(15)
    q = rng.uniform(-2.0, 2.0, (1000, len(joints)))
    poses, jacobians = ours.poses(q)[0], ours.jacobians(q, tip)
    for row, where in enumerate(q):
        theirs, slopes = _of_theirs(model, dict(zip(joints, where, strict=True)))
        pinocchio.computeJointJacobians(model, data, theirs)
        pose = pinocchio.updateFramePlacement(model, data, frame)
        assert np.abs(pose.homogeneous - poses[row]).max() < 1e-9
        jacobian = pinocchio.getFrameJacobian(model, data, frame, pinocchio.LOCAL_WORLD_ALIGNED)
        assert np.abs(jacobian @ slopes - jacobians[row]).max() < 1e-9


def _of_theirs(model: Any, places: dict[str, float]) -> tuple[Doubles, Doubles]:
    """Return the position as pinocchio has it, and how its velocity depends on that of our columns."""
    q = np.zeros(model.nq)
    slopes = np.zeros((model.nv, len(places)))
    for number in range(1, model.njoints):
        name = model.names[number]
        if name not in places:
            continue
        place = places[name]
        at, count = model.joints[number].idx_q, model.joints[number].nq
        q[at : at + count] = [place] if count == 1 else [np.cos(place), np.sin(place)]
        slopes[model.joints[number].idx_v, list(places).index(name)] = 1.0
    return q, slopes


def test_a_finger_that_follows_another_is_where_pinocchio_has_it() -> None:
    known = np.load(FIXTURES / "urdf" / "arm7_by_pinocchio.npz")
    assert np.abs(tree("arm7", ["link10"]).poses(known["q"][:100])[0][:, :3] - known["finger"]).max() < 1e-12


@pytest.mark.parametrize("name", ROBOTS)
def test_a_jacobian_is_the_slope_of_the_pose(name: str) -> None:
    rng = np.random.default_rng(3)
    robot, tip = tree(name), ROBOTS[name][1]
    q = rng.uniform(-1.0, 1.0, (20, len(robot.joints)))
    step = 1e-6 * rng.normal(size=q.shape)
    before, after = robot.poses(q - step)[0], robot.poses(q + step)[0]
    moved = np.einsum("nij,nj->ni", robot.jacobians(q, tip), 2 * step)
    assert np.abs(after[:, :3, 3] - before[:, :3, 3] - moved[:, :3]).max() < 1e-12
    turned = after[:, :3, :3] @ before[:, :3, :3].transpose(0, 2, 1)
    about = (
        np.stack(
            [
                turned[:, 2, 1] - turned[:, 1, 2],
                turned[:, 0, 2] - turned[:, 2, 0],
                turned[:, 1, 0] - turned[:, 0, 1],
            ],
            1,
        )
        / 2
    )
    assert np.abs(about - moved[:, 3:]).max() < 1e-12


def test_poses_are_in_the_frame_of_the_root_that_is_asked_for() -> None:
    q = np.random.default_rng(1).uniform(-1.0, 1.0, (5, 8))
    whole = tree("arm7", ["link2", "link8"]).poses(q)
    below = tree("arm7", ["link8"], root="link2").poses(q)[0]
    assert np.abs(whole[0] @ below - whole[1]).max() < 1e-12


def test_the_root_itself_stands_still() -> None:
    assert np.array_equal(
        tree("arm7", ["base"]).poses(np.zeros((3, 8)))[0], np.broadcast_to(np.eye(4), (3, 4, 4))
    )


ABOUT_Z = '<axis xyz="0 0 1"/>'


def joint(name: str, parent: str, child: str, kind: str = "revolute", inside: str = ABOUT_Z) -> str:
    ends = f'<parent link="{parent}"/><child link="{child}"/>'
    return f'<joint name="{name}" type="{kind}">{ends}{inside}</joint>'


@pytest.mark.parametrize(
    ("body", "links", "root", "words"),
    [
        (joint("a", "base", "one"), ["tool"], "", "no such link 'tool'"),
        (joint("a", "base", "one"), ["one"], "elbow", "no such link 'elbow'"),
        (joint("b", "base", "one"), ["one"], "", "joint 'b' must be one of the robot's (a)"),
        (joint("a", "base", "one", "floating"), ["one"], "", "joint 'a' is floating: only joints with one axis"),
        (joint("a", "base", "one", inside="<axis xyz='0 0 0'/>"), ["one"], "", "the axis of joint 'a' must have a direction"),
        (joint("a", "base", "one", inside="<axis xyz='0 0 nan'/>"), ["one"], "", "'xyz' of joint 'a' must be 3 finite numbers"),
        (joint("a", "base", "one", inside="<origin xyz='0 0'/>"), ["one"], "", "'xyz' of joint 'a' must be 3 finite numbers"),
        (joint("b", "base", "one", inside="<mimic joint='c'/>"), ["one"], "", "joint 'b' must be one of the robot's (a)"),
        (joint("a", "one", "two") + joint("b", "two", "one"), ["one"], "", "form a circle"),
        (joint("a", "base", "one") + joint("b", "base", "one"), ["one"], "", "link 'one' must hang on one joint, got 'a' and 'b'"),
        (joint("a", "base", "one") + joint("b", "base", "two"), ["one"], "two", "link 'one' must hang on 'two', it hangs on 'base'"),
        ('<joint name="a" type="revolute"><child link="one"/></joint>', ["one"], "", "joint 'a' must name its parent link"),
        (joint("a", "base", "one") + joint("a", "one", "two"), ["two"], "", "a name of its own, got 'a' twice"),
        (joint("a", "base", "one", inside="<origin xyz='1_0 0 0'/>"), ["one"], "", "3 finite numbers, got '1_0 0 0'"),
        (joint("a", "base", "one", inside="<origin xyz='\u0661 0 0'/>"), ["one"], "", "3 finite numbers, got"),
        (joint("a", "base", "one", inside="<origin xyz='0 -1e300 0'/>"), ["one"], "", "'xyz' of joint 'a' must be at most 25 m"),
        (joint("a", "base", "one", inside="<origin rpy='0 900 0'/>"), ["one"], "", "'rpy' of joint 'a' must be at most 100 rad"),
        (joint("a", "base", "one", inside="<mimic joint='a' multiplier='1e9'/>"), ["one"], "", "'multiplier' of joint 'a' must be at most 1000,"),
        (joint("a", "base", "one", inside="<origin/><origin/>"), ["one"], "", "joint 'a' must have one 'origin' at most"),
        (joint("a", "base", "one", inside="<parent link='two'/>"), ["one"], "", "joint 'a' must have one 'parent' at most"),
        (joint("a", "base", "one", inside="<mimic joint='a' multiplier='2'/>"), ["one"], "", "'a' must not be one of the robot's, or not follow 'a'"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_computed_is_refused(
    body: str, links: list[str], root: str, words: str
) -> None:
    with pytest.raises(UrdfError, match=None) as refused:
        tree_of(f"<robot name='r'>{body}</robot>".encode(), "arm.urdf", ["a"], links, root)
    assert words in str(refused.value)
    assert str(refused.value).startswith("arm.urdf: ")
