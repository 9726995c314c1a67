# SPDX-License-Identifier: Apache-2.0
"""Joint rows for poses: reached to the micrometre or refused, inside the limits, in one branch, and without a leap."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
import tool_robots as robots
from numpy.typing import NDArray
from repository import FIXTURES

from reflex_core.errors import ConfigurationError
from reflex_core.robot.kinematics.inverse import FAR, Inverse, UnreachableError
from reflex_core.robot.kinematics.tree import Tree, tree_of
from reflex_core.robot.poses import Poses
from reflex_core.robot.rotations import axis_angle_of_matrix

Doubles = NDArray[np.float64]

LOW, HIGH, HOME = (np.array(values) for values in (robots.LOW, robots.HIGH, robots.HOME))
SKEW = ("joint1", "joint2", "joint3", "joint4", "joint6")


def tree(name: str = "arm7", joints: tuple[str, ...] = tuple(robots.JOINTS), tip: str = robots.TOOL) -> Tree:
    path = FIXTURES / "urdf" / f"{name}.urdf"
    return tree_of(path.read_bytes(), str(path), joints, (tip,))


def arm() -> tuple[Tree, Inverse]:
    made = tree()
    return made, Inverse(made, robots.TOOL, LOW, HIGH)


def poses_of(tree: Tree, q: Doubles) -> Poses:
    found = tree.poses(q)[0]
    return Poses(found[:, :3, 3], found[:, :3, :3])


def apart(one: Poses, other: Poses) -> tuple[float, float]:
    turned = axis_angle_of_matrix(one.rotation @ other.rotation.transpose(0, 2, 1))
    return float(np.abs(one.position - other.position).max()), float(np.abs(turned).max())


def smooth(start: Doubles, end: Doubles, rows: int = 50) -> Doubles:
    share = np.linspace(0, 1, rows + 1)[1:, None]
    return start + (end - start) * (3 * share**2 - 2 * share**3)


def test_paths_of_an_arm_are_reached_to_the_micrometre_without_a_leap() -> None:
    made, inverse = arm()
    random, reached = np.random.default_rng(0), 0
    for _ in range(40):
        start = LOW + (HIGH - LOW) * random.uniform(0.2, 0.8, 8)
        end = np.clip(start + random.uniform(-0.3, 0.3, 8), LOW + 0.1, HIGH - 0.1)
        end[7] = start[7] = 0.02
        wanted = poses_of(made, smooth(start, end))
        try:
            rows = inverse.rows(start, wanted)
        except UnreachableError as error:
            assert "near a singularity" in str(error)  # noqa: PT017 - the only reason that a path of this arm may have
            continue
        reached += 1
        assert apart(poses_of(made, rows), wanted) < (1e-6, 1e-6)
        assert np.abs(np.diff(np.vstack([start, rows]), axis=0)).max() < 0.1
        assert ((rows >= LOW) & (rows <= HIGH)).all()
        assert (rows[:, 7] == 0.02).all()  # a finger moves no tool
    assert reached > 25


def test_a_joint_that_slides_and_a_joint_that_leads_another_move_the_tool_too() -> None:
    known = tree("skew5", SKEW, "link6")
    inverse = Inverse(known, "link6", np.full(5, -3.0), np.full(5, 3.0))
    start = np.array([0.3, -0.2, 0.1, 0.4, 0.2])
    wanted = poses_of(known, smooth(start, start + 0.1))
    assert apart(poses_of(known, inverse.rows(start, wanted)), wanted) < (1e-5, 1e-5)


def test_joints_stay_off_their_limits_and_the_others_make_up_for_it() -> None:
    made, _ = arm()
    end = HOME + np.array([0.2] * 7 + [0.0])
    wanted = poses_of(made, smooth(HOME, end))
    high = HIGH.copy()
    high[2] = 0.05  # of the seven joints one is not needed
    rows = Inverse(made, robots.TOOL, LOW, high).rows(HOME, wanted)
    assert rows[:, 2].max() <= 0.05 - 0.009
    assert apart(poses_of(made, rows), wanted) < (1e-5, 1e-5)


def test_a_joint_that_is_measured_at_its_limit_does_not_leap_away_from_it() -> None:
    made, inverse = arm()
    start = HOME.copy()
    start[2] = HIGH[2] - 0.001
    beside = poses_of(made, start[None])
    rows = inverse.rows(start, Poses(beside.position + np.array([0.0, 1e-4, 0.0]), beside.rotation))
    assert np.abs(rows - start).max() < 0.002  # the margin is 0.01
    assert rows[0, 2] <= start[2]


def test_a_leap_to_another_way_of_holding_the_tool_is_refused() -> None:
    """On the way there, in joints, the tool would leave a path of 5 mm by 19 mm."""
    made = tree()
    low = np.array([-2.9, -1.76, -2.9, -3.07, -2.9, -0.02, -2.9, 0.0])
    high = np.array([2.9, 1.76, 2.9, -0.07, 2.9, 3.75, 2.9, 0.04])
    start = np.array([0.2626612738778715, 0.181871332128003, -0.005290718957382534, -1.7739483214933904, 0.39518093697009427,
                      3.448385507550935, -0.21882469426245832, 0.02])  # fmt: skip
    step = np.array([-0.002792104815878705, -0.004069569842659544, 0.0008017181505135827])
    there = poses_of(made, start[None])
    path = Poses(there.position + step * np.arange(1, 31)[:, None], np.tile(there.rotation, (30, 1, 1)))
    with pytest.raises(UnreachableError, match=r"row 27: the arm would leap .* a joint moves 0\.8") as caught:
        Inverse(made, robots.TOOL, low, high).rows(start, path)
    assert caught.value.rows is not None
    assert np.abs(np.diff(caught.value.rows, axis=0)).max() < 0.2


def test_a_row_that_is_far_for_the_joints_is_led_to_by_the_poses_between() -> None:
    made, inverse = arm()
    end = HOME + np.array([0.5, 0.3, -0.4, 0.3, 0.4, -0.3, 0.6, 0.0])
    wanted = poses_of(made, end[None])
    rows = inverse.rows(HOME, wanted)
    assert np.abs(rows - HOME).max() > FAR
    assert apart(poses_of(made, rows), wanted) < (1e-6, 1e-6)


@pytest.mark.parametrize("broken", ["measured", "position", "rotation"])
def test_what_is_not_finite_is_refused(broken: str) -> None:
    made, inverse = arm()
    home = poses_of(made, HOME[None])
    start = np.where(np.arange(8) == 1, np.nan, HOME) if broken == "measured" else HOME
    position = home.position * np.nan if broken == "position" else home.position
    rotation = home.rotation * np.inf if broken == "rotation" else home.rotation
    with pytest.raises(UnreachableError, match="not finite"), np.errstate(invalid="ignore"):
        inverse.rows(start, Poses(position, rotation))


def test_a_tool_that_stands_still_moves_no_joint_of_a_redundant_arm() -> None:
    made, inverse = arm()
    rows = inverse.rows(HOME, poses_of(made, np.tile(HOME, (50, 1))))
    np.testing.assert_allclose(rows, np.tile(HOME, (50, 1)), atol=1e-9)


def test_after_circles_of_the_tool_the_elbow_is_near_where_it_was() -> None:
    made, inverse = arm()
    angle = np.linspace(0, 10 * np.pi, 201)[1:]
    home = poses_of(made, HOME[None])[0]
    around = 0.12 * np.stack([np.zeros(200), np.cos(angle) - 1.0, np.sin(angle)], axis=1)
    rows = inverse.rows(HOME, Poses(home.position + around, np.tile(home.rotation, (200, 1, 1))))
    assert np.abs(rows[-1] - HOME).max() < 0.01


@pytest.mark.parametrize(
    ("moved", "sentence"),
    [
        ([1.5, 0.0, 0.0], r"row 0: the tool stays \d.* mm and .* degrees away from its pose \(1 mm and 0\.5 degrees are allowed\)"),
        ([0.0, 0.0, -1.2], r"row 0: "),
    ],
)  # fmt: skip
def test_what_is_out_of_reach_is_refused_with_the_row_and_the_distance(
    moved: list[float], sentence: str
) -> None:
    made, inverse = arm()
    home = poses_of(made, HOME[None])[0]
    with pytest.raises(UnreachableError, match=sentence):
        inverse.rows(HOME, Poses(home.position[None] + moved, home.rotation[None]))


def test_a_singularity_is_not_gone_through() -> None:
    made, inverse = arm()
    # the axes of shoulder and upper arm in one line, and the elbow aside: the tool cannot move across
    singular = np.array([0.0, 0.0, np.pi / 2, -2.0, 0.0, 2.2, 0.8, 0.0])
    sentence = r"row \d+: the arm comes near a singularity, .* \(condition .*, 100 is allowed\)"
    with pytest.raises(UnreachableError, match=sentence):
        inverse.rows(singular, poses_of(made, singular[None]))


def test_rows_are_the_same_bytes_from_several_threads() -> None:
    made, inverse = arm()
    wanted = poses_of(made, smooth(HOME, HOME + 0.1))
    first, found = inverse.rows(HOME, wanted), []
    threads = [threading.Thread(target=lambda: found.append(inverse.rows(HOME, wanted))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.tobytes() for one in found] == [first.tobytes()] * 4


def test_no_rows_are_no_rows() -> None:
    _, inverse = arm()
    assert inverse.rows(HOME, Poses(np.zeros((0, 3)), np.zeros((0, 3, 3)))).shape == (0, 8)


def test_a_tool_that_nothing_moves_is_none() -> None:
    with pytest.raises(ConfigurationError, match="no joint moves the link 'base'"):
        Inverse(tree(tip="base"), "base", LOW, HIGH)


def test_without_the_library_what_wants_it_and_the_extra_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pinocchio", None)
    with pytest.raises(
        ConfigurationError,
        match=r"this policy needs inverse kinematics, .* pip install 'reflex_ros\[kinematics\]'",
    ):
        Inverse(tree(), robots.TOOL, LOW, HIGH, "this policy")
