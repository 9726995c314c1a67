# SPDX-License-Identifier: Apache-2.0
"""Policies that count in degrees or in shares of a joint's travel: the robot sees rad and m, the network what it was trained on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echoes import echo
from hypothesis import given
from hypothesis import strategies as st
from robots import v1

from reflex_core.doctor.finding import OK
from reflex_core.doctor.parity import parity, record
from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.policy.load import load_policy
from reflex_core.policy.onnx_policy import OnnxPolicy
from reflex_core.robot.units import DEGREES, NORM100, PERCENT, SI, conversion
from reflex_core.values import Observation

SO100 = v1("so100")
NAMES = list(SO100.joint_names)
TRAVEL = np.array([[-1.9, 1.9], [0.1, 3.3], [-3.0, -0.1], [-2.0, 1.0], [-3.1, 3.1], [-0.15, 1.75]])
MEAN, STD = [10.0, 60.0, -80.0, -20.0, 5.0, 40.0], [30.0, 25.0, 20.0, 15.0, 40.0, 30.0]
STATISTICS = {"mode": "mean_std", "mean": MEAN, "std": STD}
UNITS = ["degrees"] * 5 + ["percent"]
STATE_SI = np.array([0.3, 1.2, -1.1, -0.4, 0.2, 0.8], np.float32)


def served(path: Path, robot: Any = SO100, **config: Any) -> OnnxPolicy:
    config = {"units": dict(zip(NAMES, UNITS, strict=True)), "action_names": NAMES} | config
    echo(
        path, "somebodys", felt=6, image=False, action_dim=6, state={"input": "state", "names": NAMES},
        normalization={"state": STATISTICS, "action": STATISTICS}, **config,
    )  # fmt: skip
    policy = load_policy(open_export(path), robot, "cpu", 1)
    assert isinstance(policy, OnnxPolicy)
    return policy


def by_hand(si: np.ndarray) -> np.ndarray:
    """Return what a policy in degrees with a gripper in percent sees of a state in rad."""
    low, high = TRAVEL[5]
    return np.array([*np.degrees(si[:5].astype(float)), 100 * (float(si[5]) - low) / (high - low)])


@given(
    st.lists(st.floats(-20, 20), min_size=4, max_size=4),
    st.floats(-10, 10), st.floats(1e-3, 10),
)  # fmt: skip
def test_a_conversion_is_its_own_inverse(numbers: list[float], low: float, width: float) -> None:
    found = conversion([SI, DEGREES, PERCENT, NORM100], np.array([[low, low + width]] * 4))
    back = found.to_si(found.to_policy(np.array(numbers)))
    assert np.abs(back - numbers).max() <= 1e-9


def test_the_ends_of_the_travel_are_0_and_100_and_minus_100_and_100() -> None:
    found = conversion([PERCENT, NORM100], np.array([[-0.2, 1.8], [-0.2, 1.8]]))
    assert found.to_policy(np.array([-0.2, -0.2])) == pytest.approx([0, -100])
    assert found.to_policy(np.array([1.8, 1.8])) == pytest.approx([100, 100])
    assert found.to_policy(np.array([0.8, 0.8])) == pytest.approx([50, 0])


def test_a_state_in_rad_reaches_the_network_as_in_training(tmp_path: Path) -> None:
    policy = served(tmp_path, replace(SO100, travel=TRAVEL))
    arrays, _ = policy.arrays(Observation({}, STATE_SI, "go"))
    wanted = (by_hand(STATE_SI) - MEAN) / (np.array(STD) + 1e-8)
    assert arrays["state"][0] == pytest.approx(wanted, abs=1e-5)


def test_actions_in_degrees_and_percent_reach_the_robot_in_rad(tmp_path: Path) -> None:
    policy = served(tmp_path, replace(SO100, travel=TRAVEL))
    made = policy.predict(Observation({}, STATE_SI, "go"), 3)
    trained = made.normalised[0, :, :6].astype(float) * STD + MEAN
    low, high = TRAVEL[5]
    wanted = np.column_stack([np.radians(trained[:, :5]), low + (high - low) * trained[:, 5] / 100])
    assert policy.positions(made.normalised, STATE_SI) == pytest.approx(
        wanted[: policy.binding.horizon], abs=1e-5
    )
    units = policy.binding.units
    assert units is not None
    assert units.action_units == units.state_units == tuple(UNITS)


def test_offsets_in_degrees_and_percent_have_a_factor_and_no_zero(tmp_path: Path) -> None:
    policy = served(tmp_path, replace(SO100, travel=TRAVEL), relative_actions=True)
    made = policy.predict(Observation({}, STATE_SI, "go"), 3)
    trained = made.normalised[0, :, :6].astype(float) * STD + MEAN + by_hand(STATE_SI)
    low, high = TRAVEL[5]
    wanted = np.column_stack([np.radians(trained[:, :5]), low + (high - low) * trained[:, 5] / 100])
    assert policy.positions(made.normalised, STATE_SI) == pytest.approx(
        wanted[: policy.binding.horizon], abs=1e-5
    )


def test_degrees_need_no_robot(tmp_path: Path) -> None:
    policy = served(tmp_path, None, units="degrees")
    arrays, _ = policy.arrays(Observation({}, STATE_SI, "go"))
    wanted = (np.degrees(STATE_SI.astype(float)) - MEAN) / (np.array(STD) + 1e-8)
    assert arrays["state"][0] == pytest.approx(wanted, abs=1e-5)


def test_a_fixture_is_in_the_units_of_training_and_holds_on_the_robot(tmp_path: Path) -> None:
    policy = served(tmp_path, replace(SO100, travel=TRAVEL))
    record(tmp_path / "parity.npz", policy, Observation({}, STATE_SI, "go"), 7)
    stored = np.load(tmp_path / "parity.npz")
    assert stored["state"] == pytest.approx(by_hand(STATE_SI), abs=1e-4)
    assert np.nanmax(np.abs(stored["actions"])) > 2 * math.pi
    assert parity(policy).level == OK, parity(policy).said


@pytest.mark.parametrize("robot", [None, SO100])
def test_shares_of_a_travel_that_is_not_known_are_refused(tmp_path: Path, robot: Any) -> None:
    with pytest.raises(
        ConfigurationError, match='counts gripper in shares .* write "travel" into the embodiment'
    ) as caught:
        served(tmp_path, robot)
    assert caught.value.slug == "travel-missing"


@pytest.mark.parametrize(
    "units",
    [
        ["degrees"] * 5,
        ["radians"] * 5,
        [],
        {"shoulder_pan": "degrees"},
        {"action": "degrees"},
        [["degrees"] * 6],
    ],
)
def test_units_that_do_not_say_every_number_are_refused(tmp_path: Path, units: Any) -> None:
    robot = replace(SO100, travel=TRAVEL)
    if units == {"action": "degrees"}:  # the state measures the actions
        units = {"action": ["degrees"] * 6, "state": ["degrees"]}
    with pytest.raises(
        ConfigurationError, match="must give one unit for all, or one for each of the 6"
    ) as caught:
        served(tmp_path, robot, units=units)
    assert caught.value.slug == "units-unclear"
