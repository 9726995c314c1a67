# SPDX-License-Identifier: Apache-2.0
"""The kinematics of an embodiment: what is read, and the one sentence with which each mistake is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grouped_robots import ARM, HAND, grouped

from reflex_core.errors import EmbodimentError
from reflex_core.robot.kinematics.description import Kinematics

URDF = """<robot name="two_joints">
  <link name="base"/><link name="upper"/><link name="lower"/><link name="hand"/><link name="thumb"/>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 0 1"/></joint>
  <joint name="elbow" type="revolute">
    <parent link="upper"/><child link="lower"/><origin xyz="1 0 0"/><axis xyz="0 0 1"/>
  </joint>
  <joint name="wrist" type="fixed"><parent link="lower"/><child link="hand"/><origin xyz="1 0 0"/></joint>
  <joint name="finger" type="prismatic"><parent link="hand"/><child link="thumb"/><axis xyz="0 1 0"/></joint>
</robot>"""


def capsule(link: str, reach: float = 0.1, radius: float = 0.05, **changes: Any) -> dict[str, Any]:
    return {"link": link, "start": [0, 0, 0], "end": [reach, 0, 0], "radius": radius} | changes


BLOCK: dict[str, Any] = {"urdf": "arm.urdf", "tool": "hand"}
BODIES = [capsule("base"), capsule("upper"), capsule("lower"), capsule("hand")]


def kinematics(
    path: Path, text: str = URDF, robot: dict[str, Any] | None = None, **changes: Any
) -> Kinematics:
    (path / "arm.urdf").write_text(text)
    found = grouped(path, **({"kinematics": BLOCK | changes} | (robot or {}))).kinematics
    assert found is not None
    return found


def test_the_tool_is_where_the_urdf_has_it(tmp_path: Path) -> None:
    found = kinematics(tmp_path, capsules=[capsule("upper")])
    assert (found.tree.joints, found.tree.links) == (("shoulder", "elbow", "finger"), ("hand", "upper"))
    hand = found.tree.poses(np.array([[0.0, np.pi / 2, 0.02]]))[0, 0, :3, 3]
    assert hand == pytest.approx([1, 1, 0])
    assert [(one.link, one.end_m.tolist(), one.radius_m) for one in found.capsules] == [
        ("upper", [0.1, 0, 0], 0.05)
    ]


def test_an_embodiment_without_the_block_describes_none(tmp_path: Path) -> None:
    robot = grouped(tmp_path)
    assert (robot.kinematics, robot.collision_check) == (None, False)


def test_poses_are_in_the_frame_of_the_named_root(tmp_path: Path) -> None:
    found = kinematics(tmp_path, root="upper")
    assert found.tree.poses(np.array([[1.0, 0.0, 0.0]]))[0, 0, :3, 3] == pytest.approx([2, 0, 0])


def test_all_bodies_but_neighbours_must_stay_apart(tmp_path: Path) -> None:
    # lower and hand are one body; base, upper and lower have one joint between them
    assert kinematics(tmp_path, capsules=BODIES).pairs == ((0, 2), (0, 3))
    assert kinematics(tmp_path, capsules=BODIES, ignore=[["hand", "base"]]).pairs == ((0, 2),)
    assert kinematics(tmp_path, capsules=BODIES, pairs=[["hand", "upper"]]).pairs == ((1, 3),)
    twice = [*BODIES, capsule("hand", 0.2)]
    assert kinematics(tmp_path, capsules=twice, pairs=[["base", "hand"]]).pairs == ((0, 3), (0, 4))


def test_distances_are_those_of_the_pairs(tmp_path: Path) -> None:
    found = kinematics(tmp_path, capsules=BODIES)
    gaps = found.gaps(found.tree.poses(np.zeros((3, 3))))
    assert gaps == pytest.approx(np.array([[0.8] * 3, [1.8] * 3]))


def test_a_robot_without_its_gripper_keeps_its_kinematics(tmp_path: Path) -> None:
    (tmp_path / "arm.urdf").write_text(URDF)
    found = grouped(tmp_path, kinematics=BLOCK).without_gripper().kinematics
    assert found is not None
    assert found.tree.joints == ("shoulder", "elbow")
    assert found.tree.jacobians(np.zeros((1, 2)), "hand").shape == (1, 6, 2)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"tools": "hand"}, "did you mean tool"),
    "no urdf": ({"urdf": None}, "'kinematics.urdf' must be the name of a URDF file"),
    "an empty urdf": ({"urdf": ""}, "'kinematics.urdf' must be a file in"),
    "a urdf elsewhere": ({"urdf": "../arm.urdf"}, "'kinematics.urdf' must be a file in"),
    "a urdf by its whole path": ({"urdf": "/etc/arm.urdf"}, "'kinematics.urdf' must be a file in"),
    "a urdf that is missing": ({"urdf": "leg.urdf"}, "leg.urdf: No such file"),
    "no tool": ({"tool": 3}, "'kinematics.tool' must be a text, got 3"),
    "a tool that nothing moves": ({"tool": "base"}, "'kinematics.tool' must be a link that a joint moves, got \"base\""),
    "a tool that is the root": ({"root": "hand"}, "a link that a joint moves, seen from 'hand'"),
    "a urdf with a name of no file": ({"urdf": "a\0b"}, "'kinematics.urdf' must be a file in"),
    "an unknown tool": ({"tool": "hnad"}, "no such link 'hnad'; did you mean hand"),
    "an unknown root": ({"root": "bsae"}, "no such link 'bsae'; did you mean base"),
    "a root that leads nowhere": ({"root": "thumb"}, "link 'hand' must hang on 'thumb'"),
    "capsules as an object": ({"capsules": {}}, "'kinematics.capsules' must be a list"),
    "too many capsules": ({"capsules": [capsule("hand")] * 65}, "at most 64 capsules"),
    "a capsule of nothing": ({"capsules": [3]}, r"'kinematics.capsules\[0\]' must be an object"),
    "a capsule with another key": ({"capsules": [capsule("hand", r=1)]}, r"capsules\[0\]' must be an object with only"),
    "a capsule on no link": ({"capsules": [capsule("hand") | {"link": 3}]}, r"capsules\[0\].link' must be the name of a link"),
    "a capsule on an unknown link": ({"capsules": [capsule("foot")]}, "no such link 'foot'"),
    "a capsule without an end": ({"capsules": [capsule("hand", end=[0, 0])]}, r"capsules\[0\].end' must be three finite"),
    "a capsule of text": ({"capsules": [capsule("hand", start=[0, "0", 0])]}, r"\.start' must be three finite"),
    "a capsule far away": ({"capsules": [capsule("hand", start=[0, 0, 250])]}, r"\.start' must be three finite"),
    "a capsule without a radius": ({"capsules": [capsule("hand", radius=0)]}, r"\.radius' must be a number from 1e-06"),
    "a capsule on a finger": ({"capsules": [capsule("thumb")]}, "'kinematics.capsules' must be of links that finger does not"),
    "a finger as the tool": ({"tool": "thumb"}, "'kinematics.tool' must be of links that finger does not"),
    "pairs and ignore": ({"capsules": BODIES, "pairs": [], "ignore": []}, "'kinematics.ignore' must be left out"),
    "pairs of no list": ({"pairs": 3}, "'kinematics.pairs' must be a list of pairs"),
    "a pair of three": ({"capsules": BODIES, "ignore": [["base", "hand", "upper"]]}, "pairs of two different links"),
    "a pair with itself": ({"capsules": BODIES, "ignore": [["base", "base"]]}, "pairs of two different links"),
    "a pair of a link without a capsule": (
        {"capsules": BODIES, "ignore": [["base", "uper"]]}, "no such link with a capsule 'uper'; did you mean upper",
    ),
    "bodies that always touch": (
        {"capsules": [capsule("base", radius=3.0), capsule("hand")]}, "base and hand, which touch in each of 256 positions",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    changes, words = REFUSED[name]
    with pytest.raises(EmbodimentError, match=words) as caught:
        kinematics(tmp_path, **changes)
    assert "grouped.json" in str(caught.value)
    assert "\n" not in str(caught.value)


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "unused": (
        {"groups": [ARM | {"joints": ["elbow"]}, HAND], "unused": [{"joints": ["shoulder"], "reason": "blocked"}]},
        "shoulder does not move, as it is not commanded by position",
    ),
    "commanded by velocity": (
        {"groups": [ARM | {"commands": "velocity", "output": {"kind": "forward_command", "topic": "/speeds"}}, HAND]},
        "shoulder does not move, as it is not commanded by position",
    ),
    "not a joint of the robot": (
        {"joint_names": ["waist", "elbow", "finger"], "groups": [ARM | {"joints": ["waist", "elbow"]}, HAND]},
        "joint 'shoulder' must be one of the robot's",
    ),
    "schema v1": ({"schema_version": 1}, "'schema_version' must be 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_moves_the_tool_must_be_commanded_by_position(tmp_path: Path, name: str) -> None:
    robot, words = UNFIT[name]
    with pytest.raises(EmbodimentError, match=words):
        kinematics(tmp_path, robot=robot)


def test_a_urdf_that_is_none_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EmbodimentError, match="'kinematics' cannot be used: .*arm.urdf"):
        kinematics(tmp_path, "<robot")
    monkeypatch.setattr("reflex_core.robot.urdf.MOST_BYTES", 100)
    with pytest.raises(EmbodimentError, match="must have at most 100 bytes") as caught:
        kinematics(tmp_path)
    assert caught.value.slug == "bad-kinematics"
