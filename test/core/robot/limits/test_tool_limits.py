# SPDX-License-Identifier: Apache-2.0
"""What a safety file says of tool and bodies, together with the embodiment; what cannot be checked is refused or named."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grouped_robots import ARM, HAND, grouped
from planar_arm import URDF

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.limits.limits import effective_limits
from reflex_core.robot.limits.safety_config import SafetyConfig, SafetyConfigError, load_safety_config
from reflex_core.robot.limits.tool_limits import ToolLimits, described, unchecked
from reflex_core.robot.presets import load_preset

BODIES = [
    {"link": "base", "start": [-0.5, 0, 0], "end": [0, 0, 0], "radius": 0.1},
    {"link": "hand", "start": [0, 0, 0], "end": [0, 0, 0], "radius": 0.05},
]
WHOLE: dict[str, Any] = {
    "speed_max": 0.5, "turning_max": 1.5, "box_min": [-1, -1, 0], "box_max": [1, 1, 1.5], "distance_min": 0.02,
    "planes": [{"normal": [0, 0, 2], "offset": 0.1}], "on_box": "hold",
}  # fmt: skip


def safety(path: Path, tool: Any, **others: Any) -> SafetyConfig:
    file = path / "safety.json"
    file.write_text(json.dumps({"tool": tool} | others))
    return load_safety_config(file)


def robot(path: Path, bodies: Any = BODIES, **changes: Any) -> Embodiment:
    (path / "planar.urdf").write_text(URDF)
    block = {"urdf": "planar.urdf", "tool": "hand", "capsules": bodies}
    return grouped(path, kinematics=block, groups=[ARM, HAND], **changes)


def limits(path: Path, embodiment: Embodiment, config: SafetyConfig | None = None) -> ToolLimits | None:
    found = effective_limits(embodiment.joint_names, embodiment, config)
    assert found is not None
    assert found.together == (found.tool is not None)
    return found.tool


def test_a_file_says_what_it_says(tmp_path: Path) -> None:
    found = safety(tmp_path, WHOLE).tool
    assert found is not None
    assert (found.speed_max, found.turning_max, found.distance_m) == (0.5, 1.5, 0.02)
    assert (found.box_min.tolist(), found.box_max.tolist()) == ([-1, -1, 0], [1, 1, 1.5])
    assert [(one.normal.tolist(), one.offset_m) for one in found.planes] == [([0, 0, 1], 0.1)]
    assert found.held == {"tool_box"}


def test_the_length_of_a_normal_does_not_move_its_plane(tmp_path: Path) -> None:
    found = safety(tmp_path, {"planes": [{"normal": [0, 0, 4], "offset": 0.1}]}).tool
    assert found is not None
    assert [(one.normal.tolist(), one.offset_m) for one in found.planes] == [([0, 0, 1], 0.1)]


def test_each_kind_is_clamped_or_held(tmp_path: Path) -> None:
    held = dict.fromkeys(("on_speed", "on_box", "on_plane", "on_collision"), "hold")
    found = safety(tmp_path, {"speed_max": 1} | held).tool
    assert found is not None
    assert found.held == {"tool_speed", "tool_box", "tool_plane", "self_collision"}


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ({}, "'tool.speed_max' must be there, or another of"),
        ({"on_box": "hold"}, "this block would check nothing"),
        ({"planes": []}, "this block would check nothing"),
        ([], "'tool' must be an object"),
        ({"sped_max": 1}, "did you mean speed_max"),
        ({"speed_max": 0}, "'tool.speed_max' must be a number from 1e-06"),
        ({"turning_max": 90 * 10}, "'tool.turning_max' must be a number from 1e-06 to 100"),
        ({"box_min": [0, 0, 0]}, "'tool.box_min' must be there exactly when 'box_max' is"),
        ({"box_min": [0, 0], "box_max": [1, 1, 1]}, "'tool.box_min' must be three finite numbers"),
        ({"box_min": [0, 0, 2], "box_max": [1, 1, 1]}, "'tool.box_min' must be less than 'box_max'"),
        ({"planes": {}}, "'tool.planes' must be a list of at most 16"),
        ({"planes": [{"normal": [0, 0, 0], "offset": 0}]}, r"'tool.planes\[0\].normal' must be a direction"),
        ({"planes": [{"normal": [0, 0, 1]}]}, r"'tool.planes\[0\].offset' must be a number"),
        ({"planes": [{"normal": [0, 0, 1], "ofset": 0}]}, "did you mean offset"),
        ({"distance_min": -1}, "'tool.distance_min' must be a number from 0"),
        ({"speed_max": 1, "on_speed": "stop"}, "'tool.on_speed' must be one of clamp, hold"),
        ({"speed_max": math.nan}, "'tool.speed_max' must be a number"),
    ],
)
def test_a_mistake_in_tool_is_refused_in_one_sentence(tmp_path: Path, tool: Any, words: str) -> None:
    with pytest.raises(SafetyConfigError, match=words):
        safety(tmp_path, tool)


def test_the_speed_of_the_embodiment_holds_without_a_safety_file(tmp_path: Path) -> None:
    found = limits(tmp_path, robot(tmp_path))
    assert found is not None
    assert (found.rules.speed_max, found.rules.turning_max, found.rules.distance_m) == (1.0, math.inf, None)
    assert not found.checks_bodies


def test_the_tighter_speed_wins(tmp_path: Path) -> None:
    for own, comes_to in ((0.5, 0.5), (2.0, 1.0)):
        found = limits(tmp_path, robot(tmp_path), safety(tmp_path, {"speed_max": own}))
        assert found is not None
        assert found.rules.speed_max == comes_to


def test_collision_check_of_the_embodiment_keeps_its_bodies_apart(tmp_path: Path) -> None:
    checked = robot(tmp_path, constraints={"max_ee_velocity": 1.0, "collision_check": True})
    found = limits(tmp_path, checked)
    assert found is not None
    assert (found.checks_bodies, found.rules.distance_m) == (True, 0.0)
    closer = limits(tmp_path, checked, safety(tmp_path, {"distance_min": 0.03}))
    assert closer is not None
    assert closer.rules.distance_m == 0.03


@pytest.mark.parametrize(
    ("tool", "bodies", "words"),
    [
        (WHOLE, None, "'tool' can only be checked where the embodiment has 'kinematics'"),
        ({"distance_min": 0.1}, [], "'tool.distance_min' needs capsules on two links"),
    ],
)
def test_what_cannot_be_checked_on_this_robot_is_refused(
    tmp_path: Path, tool: Any, bodies: Any, words: str
) -> None:
    known = grouped(tmp_path) if bodies is None else robot(tmp_path, bodies)
    with pytest.raises(SafetyConfigError, match=words) as caught:
        limits(tmp_path, known, safety(tmp_path, tool))
    assert "safety.json" in str(caught.value)
    assert caught.value.slug == "safety-config-no-kinematics"


def test_what_nothing_checks_is_said(tmp_path: Path) -> None:
    franka = load_preset("franka")
    assert unchecked(None) == ""
    assert unchecked(franka) == "max_ee_velocity (1.7 m/s): the embodiment has no kinematics"
    assert "and collision_check: the" in unchecked(replace(franka, collision_check=True))
    assert unchecked(robot(tmp_path)) == ""
    assert "no capsules" in unchecked(replace(robot(tmp_path, []), collision_check=True))


def test_each_limit_has_a_line_for_people(tmp_path: Path) -> None:
    found = limits(tmp_path, robot(tmp_path), safety(tmp_path, WHOLE))
    assert found is not None
    assert described(found) == (
        "hand at most 0.5 m/s",
        "hand turning at most 1.5 rad/s",
        "hand inside [-1.0, -1.0, 0.0] to [1.0, 1.0, 1.5] m",
        "plane 0: [0.0, 0.0, 1.0] . point at least 0.1 m",
        "1 pairs of bodies at least 0.02 m apart",
    )
    assert np.isfinite(found.furthest).all()
