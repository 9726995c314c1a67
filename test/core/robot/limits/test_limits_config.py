# SPDX-License-Identifier: Apache-2.0
"""The safety configuration: what is read, what is refused, and what both sources of limits come to together."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robots import v1

from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.embodiment import TwoEnded
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.safety_config import SafetyConfig, SafetyConfigError, load_safety_config
from reflex_core.robot.presets import load_preset
from reflex_core.wedges.guard import guard_for

ARM = load_preset("franka").without_gripper()
NAMES = ARM.joint_names
ONE: dict[str, Any] = {
    "joint_names": ["panda_joint4"], "position_min": [-3.0], "position_max": [-0.2], "velocity_max": [1.0]
}  # fmt: skip
TWO: dict[str, Any] = {
    "joint_names": ["a", "b"], "position_min": [-1, -2], "position_max": [1, 2], "velocity_max": [1, 1]
}  # fmt: skip
CARTESIAN = {
    "action_space": "cartesian",
    "workspace_min": [-0.5, -0.5, 0.0],
    "workspace_max": [0.5, 0.5, 0.8],
}


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "safety_config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_file_says_what_it_says(tmp_path: Path) -> None:
    whole = TWO | {
        "schema_version": 1, "acceleration_max": [3, 4], "effort_max": [10, 20], "mode": "reject",
        "max_consecutive_clamps": 0, "workspace_min": [-1, -1, 0], "workspace_max": [1, 1, 1.5],
    }  # fmt: skip
    config = load_safety_config(written(tmp_path, whole))
    assert (config.mode, config.max_consecutive_clamps, config.action_space) == ("reject", 0, "joint")
    np.testing.assert_array_equal(config.acceleration_max, [3, 4])
    assert any("effort_max is not checked" in note for note in config.notes)
    assert any("workspace_max are not checked" in note for note in config.notes)


def test_the_defaults_are_clip_and_ten(tmp_path: Path) -> None:
    config = load_safety_config(written(tmp_path, TWO))
    assert (config.mode, config.max_consecutive_clamps, config.notes) == ("clip", 10, ())


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing at all": ({}, "'joint_names' must be a list of at least one printable name"),
    "a name of two lines": (TWO | {"joint_names": ["a\n[ERROR] fake", "b"]}, "printable name"),
    "a name that looks like another": (TWO | {"joint_names": ["a", "a "]}, "printable name"),
    "a name of a megabyte": (TWO | {"joint_names": ["a", "b" * 10**6]}, "printable name"),
    "no object": ([1], "'document' must be an object"),
    "no JSON": ("{", "not readable as JSON"),
    "an empty file": ("", "not readable as JSON"),
    "an unknown key": (TWO | {"velocity_limit": [1]}, r"only the keys .* got \[\"velocity_limit\"\]"),
    "a key twice": ('{"joint_names": ["a"], "velocity_max": [1], "velocity_max": [9]}', "'velocity_max' is there twice"),
    "another schema": (TWO | {"schema_version": 2}, "'schema_version' must be 1, got 2"),
    "no joints": (TWO | {"joint_names": []}, "at least one printable name"),
    "degrees": (TWO | {"position_max": [1, 166]}, r"position_max of b' must be in rad or m, not in degrees"),
    "degrees per second": (TWO | {"velocity_max": [1, 180]}, "not in degrees or millimetres per second"),
    "the same joint twice": (TWO | {"joint_names": ["a", "a"]}, "all different"),
    "a position_min that is shorter": (TWO | {"position_min": [-1]}, "'position_min' must be 2 entries"),
    "a velocity_max that is longer": (TWO | {"velocity_max": [1, 1, 1]}, "'velocity_max' must be 2 entries"),
    "an empty velocity_max": (TWO | {"velocity_max": []}, "'velocity_max' must be 2 entries"),
    "NaN": ('{"joint_names": ["a"], "position_min": [NaN], "position_max": [1]}', "'position_min' must be finite"),
    "Infinity": ('{"joint_names": ["a"], "position_min": [0], "position_max": [Infinity]}', "must be finite"),
    "a number as text": (TWO | {"position_max": ["1", 2]}, "'position_max' must be finite numbers"),
    "true for a number": (TWO | {"velocity_max": [True, 1]}, "'velocity_max' must be numbers of at least 1e-06"),
    "a range upside down": (TWO | {"position_min": [-1, 3]}, "less than 'position_max' of b, 2"),
    "a range without width": (TWO | {"position_min": [-1, 2]}, "less than 'position_max' of b, 2"),
    "half a range": ({"joint_names": ["a"], "position_max": [1]}, "'position_min' must be there"),
    "half a range in one joint": (TWO | {"position_min": [None, -2]}, "null exactly where"),
    "speed 0": (TWO | {"velocity_max": [0, 1]}, "'velocity_max' must be numbers of at least 1e-06"),
    "a negative acceleration": (TWO | {"acceleration_max": [-1, 1]}, "'acceleration_max' must be numbers of at least 1e-06"),
    "a speed that is next to nothing": (TWO | {"velocity_max": [1e-320, 1]}, "'velocity_max' must be numbers of at least"),
    "an acceleration that is next to nothing": (TWO | {"acceleration_max": [1, 1e-320]}, "'acceleration_max' must be numbers"),
    "a range that is next to nothing": (TWO | {"position_min": [-1, 0], "position_max": [1, 1e-320]}, "of b, 9.99989e-321, by at least"),
    "a workspace that is next to nothing": (CARTESIAN | {"workspace_max": [0.5, 0.5, 1e-320]}, "'workspace_min' must be less"),
    "an unknown mode": (TWO | {"mode": "clamp"}, "'mode' must be one of clip, scale, reject"),
    "a mode that is a list": (TWO | {"mode": ["clip"]}, "'mode' must be one of"),
    "a negative count": (TWO | {"max_consecutive_clamps": -1}, "'max_consecutive_clamps' must be an integer"),
    "half a count": (TWO | {"max_consecutive_clamps": 1.5}, "'max_consecutive_clamps' must be an integer"),
    "names without limits": ({"joint_names": ["a"]}, "would check nothing"),
    "only efforts": ({"joint_names": ["a"], "effort_max": [5]}, "would check nothing"),
    "only nulls": ({"joint_names": ["a"], "velocity_max": [None]}, "would check nothing"),
    "a workspace without corners": ({"action_space": "cartesian"}, "'workspace_min' must be three finite numbers"),
    "half a workspace": (TWO | {"workspace_min": [0, 0, 0]}, "there exactly when"),
    "a workspace upside down": (CARTESIAN | {"workspace_min": [0, 0, 1]}, "'workspace_min' must be less"),
    "two axes": (CARTESIAN | {"workspace_axes": ["x", "y"]}, "'workspace_axes' must be three names"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "complaint"), list(REFUSED.values()), ids=list(REFUSED))
def test_it_is_refused_in_one_sentence_that_names_the_file(
    tmp_path: Path, content: Any, complaint: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(SafetyConfigError, match=complaint) as caught:
        load_safety_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SafetyConfigError, match="nowhere.json: No such file") as caught:
        load_safety_config(tmp_path / "nowhere.json")
    assert caught.value.slug == "safety-config-missing"


def test_the_tighter_of_both_wins_by_name(tmp_path: Path) -> None:
    safety = load_safety_config(written(tmp_path, ONE | {"acceleration_max": [50]}))
    limits = effective_limits(NAMES, ARM, safety)
    assert limits is not None
    assert (limits.position_min[3], limits.position_max[3]) == (-3.0, -0.2)
    assert limits.velocity_max[3] == 1.0
    assert limits.acceleration_max[3] == 50
    np.testing.assert_array_equal(np.delete(limits.position_min, 3), np.delete(ARM.action_min, 3))


def test_acceleration_is_limited_by_the_safety_file_alone(tmp_path: Path) -> None:
    assert ARM.acceleration_max is not None
    without = effective_limits(NAMES, ARM, load_safety_config(written(tmp_path, ONE)))
    assert without is not None
    assert np.isinf(without.acceleration_max).all()


def test_a_looser_file_never_widens_the_embodiment(tmp_path: Path) -> None:
    loose = {
        "joint_names": list(NAMES),
        "position_min": [-9] * 7,
        "position_max": [9] * 7,
        "velocity_max": [99] * 7,
    }
    limits = effective_limits(NAMES, ARM, load_safety_config(written(tmp_path, loose)))
    assert limits is not None
    np.testing.assert_array_equal(limits.position_min, ARM.action_min)
    np.testing.assert_array_equal(limits.position_max, ARM.action_max)
    np.testing.assert_array_equal(limits.velocity_max, ARM.velocity_max)


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "joints of another robot": (ONE | {"joint_names": ["elbow"]}, "this robot's actions .* got elbow"),
    "a range beside the embodiment's": (ONE | {"position_min": [0.5], "position_max": [1.0]}, "'panda_joint4' .*overlap"),
    "a workspace without its axes": (CARTESIAN, "'workspace_axes' must be names of this robot's actions .* got x, y, z"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "complaint"), list(MISFITS.values()), ids=list(MISFITS))
def test_a_file_that_is_not_this_robots_is_refused(tmp_path: Path, content: Any, complaint: str) -> None:
    safety = load_safety_config(written(tmp_path, content))
    with pytest.raises(SafetyConfigError, match=complaint):
        effective_limits(NAMES, ARM, safety)


def test_an_action_that_nothing_limits_is_refused(tmp_path: Path) -> None:
    safety = load_safety_config(written(tmp_path, TWO))
    with pytest.raises(SafetyConfigError, match="no limits for 'c'") as caught:
        effective_limits(("a", "b", "c"), None, safety)
    assert caught.value.slug == "safety-config-incomplete"


def test_speed_alone_is_enough_only_where_the_file_says_there_is_no_range(tmp_path: Path) -> None:
    wheel = TWO | {"position_min": [-1, None], "position_max": [1, None]}
    limits = effective_limits(("a", "b"), None, load_safety_config(written(tmp_path, wheel)))
    assert limits is not None
    assert np.isinf(limits.position_max[1])
    with pytest.raises(SafetyConfigError, match="no limits for 'b'"):
        effective_limits(
            ("a", "b"), None, load_safety_config(written(tmp_path, wheel | {"velocity_max": [1, None]}))
        )


def test_a_workspace_limits_the_axes_it_names(tmp_path: Path) -> None:
    listed = CARTESIAN | {"workspace_axes": ["px", "py", "pz"], "joint_names": ["grip"]}
    safety = load_safety_config(written(tmp_path, listed | {"position_min": [0], "position_max": [1]}))
    limits = effective_limits(("px", "py", "pz", "grip"), None, safety)
    assert limits is not None
    np.testing.assert_array_equal(limits.position_max, [0.5, 0.5, 0.8, 1.0])
    np.testing.assert_array_equal(limits.workspace, [True, True, True, False])


def test_without_either_there_are_no_limits() -> None:
    assert effective_limits(("a",), None, None) is None


def test_a_gripper_with_a_threshold_is_not_limited_in_speed() -> None:
    robot = v1("franka")
    assert robot.gripper is not None
    switching = dataclasses.replace(robot, gripper=dataclasses.replace(robot.gripper, threshold=0.5))
    for embodiment, limited in ((robot, robot.gripper.threshold is None), (switching, False)):
        limits = effective_limits(robot.joint_names, embodiment, None)
        assert limits is not None
        assert bool(np.isfinite(limits.velocity_max[7])) == limited
        assert limits.gripper[7]


def test_the_guard_takes_mode_and_count_from_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = ONE | {"mode": "scale", "max_consecutive_clamps": 3, "effort_max": [10]}
    safety = load_safety_config(written(tmp_path, content))
    with caplog.at_level(logging.WARNING):
        status = guard_for(ARM, None, Metrics(), safety, NAMES, 0.05).status()
    assert (status.enabled, status.mode, status.max_consecutive_clamps) == (True, "scale", 3)
    assert "effort_max is not checked" in caplog.text


def test_speed_limits_for_chunks_of_unknown_rate_are_refused(tmp_path: Path) -> None:
    safety = load_safety_config(written(tmp_path, TWO))
    with pytest.raises(SafetyConfigError, match="velocity cannot be checked"):
        guard_for(None, None, Metrics(), safety, ("a", "b"), 0.0)


def test_each_column_has_the_unit_that_people_know_it_by() -> None:
    none = np.zeros(3, np.bool_)
    ends = np.ones(3)
    limits = Limits(
        ("x", "grip", "elbow"),
        -ends,
        ends,
        ends,
        ends,
        none | [True, False, False],
        none | [False, True, False],
    )
    assert [limits.unit(column) for column in range(limits.dim)] == ["m", "", "rad"]


def test_chunks_of_another_size_are_not_this_robots() -> None:
    with pytest.raises(SafetyConfigError, match="'franka' has 7 action dimensions, the chunks have 6"):
        effective_limits(NAMES[:6], ARM, None)


def test_a_robot_without_two_ended_parts_has_no_column_that_saturates() -> None:
    limits = effective_limits(NAMES, ARM, None)
    assert limits is not None
    assert limits.saturating is None
    assert not limits.gripper.any()
    assert not limits.workspace.any()


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_gripper_may_overshoot_the_ends_of_the_range_in_force_and_those_of_its_design(
    tmp_path: Path, threshold: float | None
) -> None:
    robot = v1("franka")
    robot = dataclasses.replace(robot, gripper=TwoEnded(7, threshold, saturation_tolerance=0.1))
    grip = {"joint_names": [robot.joint_names[7]], "position_min": [0.25], "position_max": [0.75]}
    limits = effective_limits(robot.joint_names, robot, load_safety_config(written(tmp_path, grip)))
    assert limits is not None
    assert limits.saturating is not None
    found = limits.saturating
    ends = (robot.action_min[7], robot.action_max[7])
    assert ends == (0.0, 1.0)
    quiet = (0.15, 0.85) if threshold is None else (-0.1, 1.1)
    assert (found.quiet_min[7], found.quiet_max[7]) == pytest.approx(quiet)
    assert (found.design_min[7], found.design_max[7]) == pytest.approx((-0.1, 1.1))
    for of_others, bound in (
        (found.quiet_min, limits.position_min),
        (found.design_min, limits.position_min),
        (found.quiet_max, limits.position_max),
        (found.design_max, limits.position_max),
    ):
        np.testing.assert_array_equal(of_others[:7], bound[:7])


def test_what_a_file_limits_does_not_reach_back_into_the_embodiment(tmp_path: Path) -> None:
    before = ARM.action_min.copy(), ARM.action_max.copy()
    effective_limits(NAMES, ARM, load_safety_config(written(tmp_path, ONE)))
    np.testing.assert_array_equal((ARM.action_min, ARM.action_max), before)


def test_a_range_that_only_touches_the_embodiments_is_refused(tmp_path: Path) -> None:
    touching = ONE | {"position_min": [float(ARM.action_max[3])], "position_max": [1.0]}
    with pytest.raises(SafetyConfigError, match="must overlap") as caught:
        effective_limits(NAMES, ARM, load_safety_config(written(tmp_path, touching)))
    assert caught.value.slug == "safety-config-contradiction"


@pytest.mark.parametrize("missing", ["position_min", "position_max"])
def test_a_joint_needs_both_ends_of_its_range_or_a_speed_in_the_file(missing: str) -> None:
    open_ended = dataclasses.replace(
        ARM,
        action_min=np.where(
            np.arange(7) == 3, -np.inf if missing == "position_min" else -3.0, ARM.action_min
        ),
        action_max=np.where(np.arange(7) == 3, np.inf if missing == "position_max" else -0.1, ARM.action_max),
    )
    other = SafetyConfig(Path("safety.json"), joint_names=NAMES[:1], velocity_max=np.array([1.0]))
    with pytest.raises(SafetyConfigError, match="no limits for 'panda_joint4'"):
        effective_limits(NAMES, open_ended, other)
    named = dataclasses.replace(other, joint_names=NAMES[3:4])
    assert effective_limits(NAMES, open_ended, named) is not None


def test_a_speed_that_is_not_stated_is_no_limit() -> None:
    some = np.where(np.arange(7) == 3, np.nan, 1.0)
    for stated, limited in ((None, 0), (some, 6)):
        limits = effective_limits(NAMES, dataclasses.replace(ARM, velocity_max=stated), None)
        assert limits is not None
        assert np.isfinite(limits.velocity_max).sum() == limited
        assert not np.isnan(limits.velocity_max).any()
