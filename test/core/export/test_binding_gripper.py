# SPDX-License-Identifier: Apache-2.0
"""A robot with a gripper and exports with one, without one, or with one of another name; whose statistics are used."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_exports import probe
from robots import ranges, robot, v1
from servers import ExportDir

from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.presets import load_preset

IDENTITY = {"normalization": {"state": {"mode": "identity"}, "action": {"mode": "identity"}}}
ARM = [f"joint_{number}" for number in range(6)]
SEVEN = [f"panda_joint{number}" for number in range(1, 8)]


def gripping(path: Path, arm: list[str], **changes: Any) -> Embodiment:
    """A robot with these joints and a gripper of 0..1 behind them."""
    dim = len(arm) + 1
    space = ranges(dim, gripper=[0.0, 1.0])
    return robot(path, [*arm, "claw"], action_space=space, gripper={"component_idx": dim - 1}, **changes)


def policy_of(path: Path, embodiment: Embodiment | None, joint_names: tuple[str, ...] = ()) -> Policy:
    return load_policy(open_export(path), embodiment, "cpu", 1, joint_names)


def test_the_franka_preset_fits_the_embedded_policy_without_its_gripper() -> None:
    policy = policy_of(embedded_policy(), load_preset("franka"))
    served = policy.binding.embodiment
    assert served is not None
    assert (served.action_dim, served.gripper) == (7, None)
    assert policy.binding.action_names == served.joint_names == tuple(SEVEN)
    assert policy.predict(policy.canary(), 1).actions.shape == (50, 7)
    assert any("no gripper" in note for note in policy.notes)


def test_the_franka_preset_drives_its_fingers_in_metres_by_the_sense_of_the_export(tmp_path: Path) -> None:
    names = [*SEVEN, "panda_gripper"]  # as DROID counts: 0 open, 1 closed
    space = [{"columns": ["panda_gripper"], "gripper": {"open": 0.0, "closed": 1.0}}]
    config = IDENTITY | {"action_dim": 8, "action_names": names, "frequency_hz": 20, "action_space": space}
    config["state"] = {"input": "body", "names": names[5:]}
    policy = policy_of(probe(tmp_path, state=3, config=config), load_preset("franka"))
    arm, hand = policy.binding.groups
    assert (arm.output, hand.output) == ("joint_trajectory", "gripper_command")
    assert (hand.names, hand.options["action"]) == (("panda_finger_joint1",), "/panda_gripper/gripper_action")
    rows = np.zeros((1, policy.contract.horizon, policy.contract.width), np.float32)
    rows[0, 1, 7] = 1.0
    assert policy.positions(rows, None)[:2, 7] == pytest.approx([0.039, 0.0], abs=1e-7)


def test_the_franka_of_schema_v1_fits_an_export_with_eight_dimensions(tmp_path: Path) -> None:
    names = [*SEVEN, "panda_gripper"]
    path = probe(
        tmp_path, state=3, config=IDENTITY | {"action_dim": 8, "action_names": names, "frequency_hz": 20}
    )
    policy = policy_of(path, v1("franka"))
    assert policy.binding.embodiment is not None
    assert policy.binding.embodiment.gripper is not None
    assert policy.binding.action_names == tuple(names)
    assert policy.predict(policy.canary(), 1).actions.shape == (12, 8)


def test_a_padded_export_shows_by_its_statistics_whether_it_has_a_gripper(
    export_dir: ExportDir, tmp_path: Path
) -> None:
    assert policy_of(export_dir("decomposed"), gripping(tmp_path, ARM)).binding.action_names[-1] == "claw"
    bare = policy_of(export_dir("decomposed"), gripping(tmp_path, [*ARM, "joint_6"])).binding
    assert bare.columns.tolist() == list(range(7))
    assert bare.action_names == (*ARM, "joint_6")


def test_a_gripper_that_is_not_last_is_not_dropped(tmp_path: Path) -> None:
    first = robot(tmp_path, ["claw", *ARM, "joint_6"], gripper={"component_idx": 0})
    with pytest.raises(ConfigurationError, match="its actions have 7 dimensions, embodiment 'custom' has 8"):
        policy_of(probe(tmp_path, config=IDENTITY), first)
    with pytest.raises(ValueError, match="no gripper as its last dimension"):
        first.without_gripper()


def test_a_missing_arm_joint_is_not_taken_for_a_missing_gripper(tmp_path: Path) -> None:
    config = IDENTITY | {"action_names": [*ARM, "claw"]}
    with pytest.raises(ConfigurationError, match="its actions have 7 dimensions, embodiment 'custom' has 8"):
        policy_of(probe(tmp_path, config=config), gripping(tmp_path, [*ARM, "joint_6"]))


def test_a_gripper_of_another_name_is_recognised_and_that_is_reported(tmp_path: Path) -> None:
    config = IDENTITY | {"action_names": ["Gripper.pos", *ARM]}
    fitted = policy_of(probe(tmp_path, config=config), gripping(tmp_path, ARM)).binding
    assert fitted.columns.tolist() == [1, 2, 3, 4, 5, 6, 0]
    assert fitted.action_names == (*ARM, "claw")
    assert any("'Gripper.pos' is taken as the gripper 'claw'" in note for note in fitted.notes)


def test_a_joint_of_another_name_is_not_taken_for_the_gripper(tmp_path: Path) -> None:
    config = IDENTITY | {"action_names": [*ARM, "wrist_roll"]}
    with pytest.raises(ConfigurationError, match="has joints claw that the export's action_names lack"):
        policy_of(probe(tmp_path, config=config), gripping(tmp_path, ARM))


def test_the_embodiment_in_effect_carries_the_robots_own_joint_names(tmp_path: Path) -> None:
    own = tuple(f"left_{name}" for name in (*ARM, "joint_6"))
    served = policy_of(
        probe(tmp_path, config=IDENTITY), gripping(tmp_path, [*ARM, "joint_6"]), own
    ).binding.embodiment
    assert served is not None
    assert served.joint_names == own
    assert policy_of(probe(tmp_path, config=IDENTITY), None).binding.embodiment is None


def test_without_its_gripper_a_robot_keeps_everything_else(tmp_path: Path) -> None:
    whole = gripping(tmp_path, ARM, velocity_max=[1, 2, 3, 4, 5, 6, None], acceleration_max=[None] * 6 + [9])
    bare = whole.without_gripper()
    assert bare.velocity_max is not None
    assert bare.velocity_max.tolist() == [1, 2, 3, 4, 5, 6]
    assert bare.acceleration_max is not None
    assert np.isinf(bare.acceleration_max).all()
    lengths = {len(array) for array in (bare.action_min, bare.action_max, bare.joint_names)}
    lengths |= {len(bare.action_statistics.std), len(bare.state_statistics.mean)}
    assert lengths == {6}
    assert (bare.cameras, bare.frequency_hz, bare.chunk_size) == (whole.cameras, 20.0, 50)


def test_a_state_that_is_no_list_of_joints_stays_whole_without_the_gripper(tmp_path: Path) -> None:
    norm = {"mean_action": [0] * 7, "std_action": [1] * 7, "mean_state": [0] * 3, "std_state": [1] * 3}
    assert len(gripping(tmp_path, ARM, normalization=norm).without_gripper().state_statistics.mean) == 3


BROUGHT = {
    "mean_action": [10.0 * number for number in range(7)],
    "std_action": [1.0 + number for number in range(7)],
    "mean_state": [1.0, 2.0],
    "std_state": [0.5, 4.0],
}


def test_statistics_of_the_robot_normalise_the_state_and_denormalise_the_actions(tmp_path: Path) -> None:
    """The probe's last two actions are its state: (state - mean) / std on the way in, times std plus mean out."""
    plain = policy_of(probe(tmp_path / "plain", config=IDENTITY), None)
    (tmp_path / "bare").mkdir()
    arm = robot(tmp_path, [*ARM, "joint_6"], normalization=BROUGHT)
    scaled = policy_of(probe(tmp_path / "bare"), arm)
    state = np.array([2.0, -2.0], np.float32)
    normalised = np.array([(2.0 - 1.0) / 0.5, (-2.0 - 2.0) / 4.0], np.float32)
    seen = dataclasses.replace(plain.canary(), state=normalised)
    expected = plain.predict(seen, 1).actions * np.array(BROUGHT["std_action"]) + np.array(
        BROUGHT["mean_action"]
    )
    found = scaled.predict(dataclasses.replace(seen, state=state), 1).actions
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert any("brings no statistics" in note for note in scaled.notes)


def test_statistics_of_the_robot_follow_the_names_of_the_state(tmp_path: Path) -> None:
    """The state holds two of the robot's joints, in another order; each gets its own mean."""
    statistics = BROUGHT | {
        "mean_state": [float(n) for n in range(7)],
        "std_state": [1.0 + n for n in range(7)],
    }
    arm = robot(tmp_path, [*ARM, "joint_6"], normalization=statistics)
    config = {"state": {"input": "body", "names": ["joint_4", "joint_1"]}}
    found = policy_of(probe(tmp_path, config=config), arm).binding.state_statistics
    assert found is not None
    assert (found.shift.tolist(), found.scale.tolist()) == ([4.0, 1.0], [5.0, 2.0])


def test_the_state_may_hold_a_gripper_that_the_actions_lack(tmp_path: Path) -> None:
    arm = [*ARM, "joint_6"]
    config = {"state": {"input": "body", "names": ["joint_6", "claw"]}, "action_names": arm}
    fitted = policy_of(probe(tmp_path, config=config), gripping(tmp_path, arm)).binding
    assert (fitted.state_names, fitted.state_dim) == (("joint_6", "claw"), 2)
    assert fitted.action_names == tuple(arm)


def test_a_state_without_the_gripper_is_still_known_by_name(tmp_path: Path) -> None:
    """An export with eight actions and statistics of seven joints: the state is the arm."""
    block = {
        "state": {"mean": [0.0] * 7, "std": [1.0] * 7},
        "action": {"mean": [0.0] * 12, "std": [1.0] * 12},
    }
    config = {"state": {"input": "body"}, "normalization": block, "action_dim": 12}
    arm = [f"joint_{number}" for number in range(11)]
    fitted = policy_of(probe(tmp_path, state=7, config=config), gripping(tmp_path, arm)).binding
    assert (fitted.state_names, fitted.state_dim) == ((), 7)
    arm8 = policy_of(probe(tmp_path, state=7, config=config | {"action_dim": 8, "normalization": block | {
        "action": {"mean": [0.0] * 8, "std": [1.0] * 8}}}), gripping(tmp_path, [*ARM, "joint_6"]))  # fmt: skip
    assert (arm8.binding.state_names, arm8.binding.state_dim) == ((*ARM, "joint_6"), 7)
    assert arm8.binding.hold_columns is None  # the gripper is not measured


@pytest.mark.parametrize(
    ("mean", "std"), [(-90.0, 30.0), (0.0, 0.02)], ids=["degrees", "steps instead of positions"]
)
def test_actions_in_other_units_are_refused_by_their_statistics(
    tmp_path: Path, mean: float, std: float
) -> None:
    """panda_joint4 is never above -0.07 rad."""
    means, stds = [0.0] * 7, [1.0] * 7
    means[3], stds[3] = mean, std
    config = {"action_names": SEVEN, "normalization": {"action": {"mean": means, "std": stds}}}
    with pytest.raises(
        ConfigurationError, match="its actions of panda_joint4 (lie around|reach) .* allows -3.0718"
    ) as caught:
        policy_of(probe(tmp_path, config=config), load_preset("franka"))
    assert caught.value.slug == "action-range-mismatch"
    assert str(tmp_path) in str(caught.value)


def test_statistics_that_change_nothing_are_no_contradiction(tmp_path: Path) -> None:
    block = {"action": {"mean": [0.0] * 7, "std": [1.0] * 7}}
    path = probe(tmp_path, config={"action_names": SEVEN, "normalization": block})
    assert policy_of(path, load_preset("franka")).binding.action_names == tuple(SEVEN)


def test_chunk_size_rate_and_horizon_of_the_robot_take_effect(tmp_path: Path) -> None:
    control = {"frequency_hz": 40.0, "chunk_size": 5, "rtc_execution_horizon": 3}
    policy = policy_of(probe(tmp_path, config=IDENTITY), robot(tmp_path, [*ARM, "joint_6"], control=control))
    assert policy.predict(policy.canary(), 1).actions.shape == (5, 7)
    assert policy.binding.dt_s == pytest.approx(0.025)
    assert policy.binding.embodiment is not None
    assert policy.binding.embodiment.execution_horizon == 3
