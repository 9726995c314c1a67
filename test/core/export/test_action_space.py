# SPDX-License-Identifier: Apache-2.0
"""What an export says of its actions: gripper sense, modes and scale, by hand; and every contradiction with the robot."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echoes import DIM, ROWS, echo
from grouped_robots import ARM, HAND, document, grouped
from hypothesis import given
from hypothesis import strategies as st
from robots import robot

from reflex_core.engine.describe import action_modes
from reflex_core.errors import ConfigurationError, ExportError
from reflex_core.export.export import open_export
from reflex_core.export.gripper_sense import Sense
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import GripperEnds
from reflex_core.values import Floats, Observation

NAMES = ["shoulder", "elbow", "finger"]
DROID = {"columns": ["finger"], "gripper": {"open": 0.0, "closed": 1.0}}
HERE = np.array([0.1, -0.2, 0.03], np.float32)
DT_S = 0.05
BASE: dict[str, Any] = {
    "name": "base", "space": "base", "joints": ["shoulder", "elbow"], "axes": ["linear.x", "angular.z"],
    "output": {"kind": "twist", "topic": "/cmd_vel"},
}  # fmt: skip


def policy_of(path: Path, embodiment: Embodiment | None, *space: dict[str, Any], **config: Any) -> Policy:
    written = {
        "action_dim": 3, "action_names": NAMES, "state": {"input": "state", "names": NAMES}, "frequency_hz": 20,
        "action_space": list(space),
    } | config  # fmt: skip
    made = echo(path / "export", "somebodys", felt=3, image=False, **written)
    return load_policy(open_export(made), embodiment, "cpu", 1)


def served(policy: Policy, rows: list[list[float]], state: Floats = HERE) -> Floats:
    """Return the positions of a chunk that begins with these rows of the network, in the robot's order."""
    chunk = np.zeros((1, ROWS, DIM), np.float32)
    chunk[0, : len(rows), :3] = rows
    return policy.positions(chunk, state)[: len(rows)]


# grippers


def test_a_gripper_is_commanded_in_its_joints_unit_by_the_sense_of_both_sides(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, grouped(tmp_path), DROID)
    rows = served(policy, [[0.1, 0.2, 0.0], [0.1, 0.2, 1.0], [0.1, 0.2, 0.25]])
    np.testing.assert_allclose(rows, [[0.1, 0.2, 0.04], [0.1, 0.2, 0.0], [0.1, 0.2, 0.03]], atol=1e-7)


def test_the_network_sees_the_measured_gripper_as_it_counts_it(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, grouped(tmp_path), DROID)
    chunk = policy.predict(Observation({}, HERE, "pick"), 1).normalised[0]
    np.testing.assert_allclose(chunk[:3, 2], [0.1, -0.2, 0.25], atol=1e-6)
    units = policy.binding.units
    assert units is not None
    assert units.action_units == units.state_units == ("si", "si", "open to closed")


def test_statistics_of_a_gripper_that_counts_the_other_way_convert_with_it(tmp_path: Path) -> None:
    numbers = {"mode": "mean_std", "mean": [0.0, 0.0, 0.5], "std": [1.0, 1.0, 0.25]}
    block = {"state": numbers, "action": numbers}
    policy = policy_of(tmp_path, grouped(tmp_path), DROID, normalization=block)
    assert served(policy, [[0.0, 0.0, 1.0]])[0, 2] == pytest.approx(
        0.01, abs=1e-7
    )  # 0.75 of the way to closed
    chunk = policy.predict(Observation({}, HERE, "pick"), 1).normalised[0]
    assert chunk[2, 2] == pytest.approx((0.25 - 0.5) / 0.25, abs=1e-5)


@given(st.floats(-1, 1), st.floats(0.001, 2), st.booleans(), st.floats(-0.5, 1.5))
def test_a_sense_is_its_own_inverse(low: float, width: float, flipped: bool, share: float) -> None:
    joint = GripperEnds(low + width, low) if flipped else GripperEnds(low, low + width)
    sense = Sense(GripperEnds(-1.0, 1.0), joint)
    number = -1.0 + 2.0 * share
    assert (number - sense.offset) / sense.factor * sense.factor + sense.offset == pytest.approx(
        number, abs=1e-9
    )
    assert (-1.0 - sense.offset) / sense.factor == pytest.approx(joint.open, abs=1e-9)
    assert (1.0 - sense.offset) / sense.factor == pytest.approx(joint.closed, abs=1e-9)


@pytest.mark.parametrize("units", [None, "dimensionless", ["rad", "rad", "1"]])
def test_a_gripper_whose_numbers_are_not_explained_is_refused_with_what_to_write(
    tmp_path: Path, units: Any
) -> None:
    with pytest.raises(
        ConfigurationError, match=r"the gripper 'finger' mean: write \"action_space\""
    ) as caught:
        policy_of(tmp_path, grouped(tmp_path), units=units)
    assert caught.value.slug == "gripper-sense-missing"


@pytest.mark.parametrize("units", ["radians", ["rad", "rad", "m"]])
def test_a_gripper_in_the_unit_of_its_joint_needs_no_sense(tmp_path: Path, units: Any) -> None:
    policy = policy_of(tmp_path, grouped(tmp_path), units=units)
    assert served(policy, [[0.0, 0.0, 0.03]])[0, 2] == pytest.approx(0.03)


def test_percent_of_a_travel_and_a_sense_that_agree_are_both_taken(tmp_path: Path) -> None:
    hand = grouped(tmp_path, travel=[None, None, [0.0, 0.04]])
    both = {"columns": ["finger"], "unit": "percent", "gripper": {"open": 100.0, "closed": 0.0}}
    assert served(policy_of(tmp_path, hand, both), [[0.0, 0.0, 75.0]])[0, 2] == pytest.approx(0.03)
    both["gripper"] = {"open": 0.0, "closed": 100.0}
    with pytest.raises(
        ConfigurationError, match=r"open gripper 'finger' at 0 is 0 rad or m by its unit, and 0\.04 in"
    ) as caught:
        policy_of(tmp_path / "again", hand, both)
    assert caught.value.slug == "gripper-sense-mismatch"


def test_a_gripper_of_schema_v1_is_served_as_before_and_says_that_its_sense_is_not_used(
    tmp_path: Path,
) -> None:
    old = robot(tmp_path, NAMES, gripper={"component_idx": 2})
    plain = policy_of(tmp_path, old, action_space=None)
    declared = policy_of(tmp_path, old, DROID)
    rows = [[0.1, 0.2, 0.7]]
    assert served(plain, rows).tobytes() == served(declared, rows).tobytes()
    assert any("schema v1" in note for note in declared.notes)
    assert not any("schema v1" in note for note in plain.notes)


def test_a_state_that_does_not_say_which_number_is_the_gripper_is_refused(tmp_path: Path) -> None:
    state = {"mean": [0.0] * 2, "std": [1.0] * 2, "mode": "mean_std"}
    block = {"state": state, "action": {"mode": "identity"}}
    with pytest.raises(
        ConfigurationError, match="which of the 2 numbers of the state is the gripper 'finger'"
    ):
        policy_of(tmp_path, grouped(tmp_path), DROID, state={"input": "state"}, normalization=block)


# modes

STEPS = [[0.01, 0.02, 0.0], [0.03, -0.01, 0.0], [-0.02, 0.01, 0.0]]


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("absolute", [[0.01, 0.02], [0.03, -0.01], [-0.02, 0.01]]),
        ("relative", [[0.11, -0.18], [0.13, -0.21], [0.08, -0.19]]),
        ("delta", [[0.11, -0.18], [0.14, -0.19], [0.12, -0.18]]),
        ("velocity", [[0.1005, -0.199], [0.102, -0.1995], [0.101, -0.199]]),
    ],
)
def test_every_mode_becomes_positions_from_the_state_of_its_observation(
    tmp_path: Path, mode: str, wanted: list[list[float]]
) -> None:
    policy = policy_of(tmp_path, grouped(tmp_path), {"columns": ["shoulder", "elbow"], "mode": mode}, DROID)
    rows = served(policy, STEPS)
    np.testing.assert_allclose(rows[:, :2], wanted, atol=1e-7)
    np.testing.assert_allclose(rows[:, 2], 0.04, atol=1e-7)  # a gripper stays absolute
    assert action_modes(policy) == {"shoulder": mode, "elbow": mode}


def test_the_state_is_found_by_name_and_a_scale_counts_for_actions_alone(tmp_path: Path) -> None:
    names = ["finger", "elbow", "shoulder"]  # DROID's joints: 1 is 0.2 rad from row to row
    space = {"columns": ["shoulder", "elbow"], "mode": "delta", "scale": [0.2, 0.4]}
    policy = policy_of(
        tmp_path, grouped(tmp_path), space, DROID, state={"input": "state", "names": names},
    )  # fmt: skip
    state = np.array([0.03, -0.2, 0.1], np.float32)
    rows = served(policy, [[0.5, -0.5, 0.0], [1.0, 0.0, 0.0]], state)
    np.testing.assert_allclose(rows[:, :2], [[0.2, -0.4], [0.4, -0.4]], atol=1e-7)
    chunk = policy.predict(Observation({}, state, "pick"), 1).normalised[0]
    np.testing.assert_allclose(chunk[:3, 2], [0.25, -0.2, 0.1], atol=1e-6)


def test_steps_in_degrees_have_the_factor_and_no_zero(tmp_path: Path) -> None:
    space = {"columns": ["shoulder", "elbow"], "mode": "delta", "unit": "degrees"}
    named = {"action": ["degrees", "degrees", "1"], "state": ["degrees", "degrees", "1"]}
    policy = policy_of(tmp_path, grouped(tmp_path), space, DROID, units=named)
    rows = served(policy, [[9.0, -9.0, 0.0]] * 2)
    np.testing.assert_allclose(rows[1, :2], [0.1 + np.pi / 10, -0.2 - np.pi / 10], atol=1e-6)


def test_velocities_of_a_base_stay_velocities_and_need_no_state(tmp_path: Path) -> None:
    base = grouped(tmp_path, groups=[BASE, HAND])
    space = {"columns": ["shoulder", "elbow"], "space": "base", "mode": "velocity", "scale": 0.5}
    policy = policy_of(tmp_path, base, space, DROID)
    assert policy.binding.relative is None
    np.testing.assert_allclose(served(policy, STEPS)[:, :2], 0.5 * np.array(STEPS)[:, :2], atol=1e-7)


def test_integrated_velocities_need_a_rate(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'shoulder' is a velocity, and without 'frequency_hz'"):
        policy_of(tmp_path, None, {"columns": ["shoulder"], "mode": "velocity"}, frequency_hz=None)


def test_a_network_that_does_not_see_the_state_still_starts_from_it(tmp_path: Path) -> None:
    made = echo(
        tmp_path, "somebodys", felt=0, image=False, action_dim=3, action_names=NAMES,
        action_space=[{"columns": NAMES, "mode": "delta"}],
    )  # fmt: skip
    policy = load_policy(open_export(made), None, "cpu", 1)
    np.testing.assert_allclose(served(policy, STEPS)[2], [0.12, -0.18, 0.03], atol=1e-7)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no list": ({"action_space": "joints"}, "'action_space' must be a list"),
    "an unknown key": ({"action_space": [{"columns": [0], "modus": "delta"}]}, r"action_space\[0\]' must be an object with only"),
    "an unknown name": ({"action_space": [{"columns": ["thumb"]}]}, r"columns' must be a list of names \(shoulder"),
    "a number too large": ({"action_space": [{"columns": [3]}]}, r"action_space\[0\]\.columns"),
    "a column twice": ({"action_space": [DROID, {"columns": [2]}]}, r"action_space\[1\]\.columns' must be columns that no other"),
    "an unknown mode": ({"action_space": [{"columns": [0], "mode": "deltas"}]}, r"mode' must be one of absolute, delta"),
    "an unknown unit": ({"action_space": [{"columns": [0], "unit": "ticks"}]}, r"unit' must be radians, metres"),
    "a scale of nothing": ({"action_space": [{"columns": [0], "scale": 0}]}, r"scale' must be a positive number, or 1 of them"),
    "a frame of joints": ({"action_space": [{"columns": [0], "space": "joints", "frame": "tool"}]}, "not tool"),
    "a gripper that never moves": ({"action_space": [{"columns": [2], "gripper": {"open": 1, "closed": 1}}]}, "another number than 'open'"),
    "a gripper of joints": (
        {"action_space": [DROID | {"space": "joints"}]}, "gripper' must be left out, as its space is joints",
    ),
    "relative on one side": (
        {"relative_actions": {"mask": [True, True, False]}, "action_space": [{"columns": [0], "mode": "absolute"}, DROID]},
        r"'shoulder' \(offsets from the state\), got \"absolute\"",
    ),
    "relative on the other": (
        {"relative_actions": False, "action_space": [{"columns": [0], "mode": "relative"}, DROID]},
        r"'shoulder' \(no offsets from the state\), got \"relative\"",
    ),
    "two units": (
        {"units": ["degrees", "rad", "1"], "action_space": [{"columns": [0], "unit": "rad"}, DROID]},
        "counts 'shoulder' in degrees, and 'action_space' in si",
    ),
    "another space than the group": (
        {"action_space": [{"columns": [0], "space": "gripper"}, DROID]}, "'shoulder' is of space gripper, .* group 'arm' is of space joints",
    ),
    "a tool's pose of a robot without a tool": (
        {"action_dim": 7, "action_names": None, "normalization": {"action": {"mode": "identity"}}, "action_space": [
            {"columns": [0, 1, 2, 3, 4, 5], "space": "tool", "mode": "delta", "frame": "base", "rotation": "rpy"}]},
        "actions are a tool's pose, and embodiment 'two_joints' has no 'kinematics'",
    ),
    "a scale of unknown numbers": (
        {"normalization": None, "action_space": [{"columns": [0], "scale": 0.2}, DROID]}, "has a scale, and nothing says how",
    ),
    "a gripper between next to no numbers": (
        {"action_space": [{"columns": [2], "gripper": {"open": 0, "closed": 1e-320}}]}, "another number than 'open'",
    ),
    "a scale of a gripper's own numbers": ({"action_space": [DROID | {"scale": 2}]}, "scale' must be left out, as 'gripper' says"),
    "open and closed of an arm's joint": (
        {"action_space": [{"columns": [0], "gripper": {"open": 0, "closed": 1}}, DROID]},
        "open and closed of 'shoulder', .* group 'arm' is of space joints",
    ),
    "a unit of velocities of what is none": (
        {"action_space": [{"columns": [0], "unit": "rad/s"}, DROID]}, "counts 'shoulder' in rad/s, and its mode is not written",
    ),
    "a unit of velocities of steps": (
        {"action_space": [{"columns": [0], "unit": "rad/s", "mode": "delta"}, DROID]}, "in rad/s, and its mode is delta",
    ),
    "a key that is almost it": ({"action_space": None, "action_spaces": [DROID]}, "did you mean action_space"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_contradicts_itself_or_the_robot_is_refused_with_both(tmp_path: Path, name: str) -> None:
    config, sentence = REFUSED[name]
    with pytest.raises((ConfigurationError, ExportError)) as caught:
        policy_of(tmp_path, grouped(tmp_path), **config)
    assert re.search(sentence, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("space", "sentence", "slug"),
    [
        ({"columns": ["shoulder", "elbow"], "mode": "delta"}, "'shoulder' is delta, and .* 'base' commands velocities", "action-space-mismatch"),
        ({"columns": ["shoulder", "elbow"]}, "whether 'shoulder' is a velocity.*\"mode\": \"velocity\"", "action-space-missing"),
    ],
)  # fmt: skip
def test_a_group_of_velocities_takes_declared_velocities_alone(
    tmp_path: Path, space: dict[str, Any], sentence: str, slug: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        policy_of(tmp_path, grouped(tmp_path, groups=[BASE, HAND]), space, DROID)
    assert caught.value.slug == slug


def test_the_documents_of_these_tests_are_complete(tmp_path: Path) -> None:
    """A refusal above must come of what its case changes."""
    assert json.loads(json.dumps(document()))["groups"] == [ARM, HAND]
    policy_of(tmp_path, grouped(tmp_path), DROID)
