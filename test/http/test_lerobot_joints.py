# SPDX-License-Identifier: Apache-2.0
"""The joints of LeRobot's clients: names, order, and degrees or shares of a travel."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echoes import echo
from robots import v1

from reflex_core.errors import ObservationError, SettingError
from reflex_core.export.binding import Binding
from reflex_core.export.export import open_export
from reflex_core.policy.load import load_policy
from reflex_core.robot.client_units import ClientUnits, client_units
from reflex_core.robot.lerobot_calibration import Calibrated
from reflex_ros.sidecar.wires.lerobot_joints import client_joints
from reflex_ros.sidecar.wires.lerobot_rows import resampled

SO100 = v1("so100")
OURS = list(SO100.joint_names)
THEIRS = [f"{name}.pos" for name in OURS]
TRAVEL = np.array([[-1.9, 1.9], [0.1, 3.3], [-3.0, -0.1], [-2.0, 1.0], [-3.1, 3.1], [-0.15, 1.75]])
ZERO, SIGN = np.array([0.0, 0.1, -0.2, 0.0, 0.05, 0.8]), np.array([1.0, -1.0, 1.0, 1.0, 1.0, 1.0])
ARM = replace(SO100, travel=TRAVEL)
CALIBRATED = replace(ARM, calibrated=Calibrated(ZERO, SIGN, TRAVEL))
STATE = np.array([0.3, 1.2, -1.1, -0.4, 0.2, 0.8])
IDENTITY = {"mode": "identity"}


def bound(path: Path, robot: Any = ARM, **config: Any) -> Binding:
    config = {"action_names": OURS, "normalization": {"state": IDENTITY, "action": IDENTITY}} | config
    echo(
        path,
        "somebodys",
        felt=6,
        image=False,
        action_dim=6,
        state={"input": "state", "names": OURS},
        **config,
    )
    return load_policy(open_export(path), robot, "cpu", 1).binding


def numbers(values: np.ndarray, names: list[str] = THEIRS) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def percent(rad: float) -> float:
    low, high = TRAVEL[5]
    return float(100 * (rad - low) / (high - low))


def test_degrees_of_an_arm_and_percent_of_its_gripper_become_rad_and_back(tmp_path: Path) -> None:
    joints = client_joints(bound(tmp_path), THEIRS, (), client_units(("degrees",)))
    sent = np.array([*np.degrees(STATE[:5]), percent(STATE[5])])
    assert joints.to_state(numbers(sent)) == pytest.approx(STATE)
    assert joints.to_client(STATE[None].astype(np.float32))[0] == pytest.approx(sent, rel=1e-5)


def test_degrees_count_from_the_calibrated_middle_and_its_way(tmp_path: Path) -> None:
    joints = client_joints(bound(tmp_path, CALIBRATED), THEIRS, (), client_units(("degrees",)))
    sent = np.array([*(np.degrees(STATE - ZERO) * SIGN)[:5], percent(STATE[5])])
    assert joints.to_state(numbers(sent)) == pytest.approx(STATE)
    assert joints.to_client(STATE[None].astype(np.float32))[0] == pytest.approx(sent, rel=1e-4)


def test_shares_of_the_travel_run_from_minus_100_to_100(tmp_path: Path) -> None:
    joints = client_joints(bound(tmp_path), THEIRS, (), client_units(("norm100",)))
    sent = np.array([-100.0, -100.0, 100.0, 0.0, 100.0, 100.0])
    wanted = [-1.9, 0.1, -0.1, -0.5, 3.1, 1.75]
    assert joints.to_state(numbers(sent)) == pytest.approx(wanted)


def test_without_the_setting_the_export_says_what_its_clients_count_in(tmp_path: Path) -> None:
    units = dict(zip(OURS, ["degrees"] * 5 + ["percent"], strict=True))
    joints = client_joints(bound(tmp_path, units=units), THEIRS, (), ClientUnits())
    sent = np.array([*np.degrees(STATE[:5]), percent(STATE[5])])
    assert joints.to_state(numbers(sent)) == pytest.approx(STATE)


def test_units_that_nothing_declares_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="--lerobot-units degrees, norm100 or radians") as error:
        client_joints(bound(tmp_path), THEIRS, (), ClientUnits())
    assert error.value.slug == "units-undeclared"


def test_a_share_of_an_unknown_travel_is_refused_by_the_joint(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="counts gripper.pos in shares.*gripper=radians"):
        client_joints(bound(tmp_path, SO100), THEIRS, (), client_units(("degrees",)))
    named = client_units(("degrees", "gripper=radians"))
    joints = client_joints(bound(tmp_path, SO100), THEIRS, (), named)
    assert joints.to_state(numbers(np.array([0, 0, 0, 0, 0, 0.8])))[5] == pytest.approx(0.8)


def test_radians_of_more_than_a_turn_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    joints = client_joints(bound(tmp_path), THEIRS, (), client_units(("radians",)))
    with caplog.at_level(logging.WARNING):
        joints.to_state(numbers(np.degrees(STATE)))
    assert "beyond a turn in rad" in caplog.text


def test_joints_are_found_by_name_whatever_their_order(tmp_path: Path) -> None:
    shuffled = [THEIRS[at] for at in (5, 0, 3, 1, 2, 4)]
    joints = client_joints(bound(tmp_path), shuffled, (), client_units(("radians",)))
    sent = {name: float(STATE[THEIRS.index(name)]) for name in shuffled}
    assert joints.to_state(sent) == pytest.approx(STATE)
    rows = joints.to_client(np.arange(6, dtype=np.float32)[None])
    assert rows[0].tolist() == [5, 0, 3, 1, 2, 4]


def test_joints_of_other_names_are_taken_in_order_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = [f"motor_{number}.pos" for number in range(6)]
    with caplog.at_level(logging.WARNING):
        joints = client_joints(bound(tmp_path), other, (), client_units(("radians",)))
    assert joints.names == tuple(other)
    assert "by their order" in caplog.text


def test_the_setting_says_which_joint_is_which(tmp_path: Path) -> None:
    other = [f"m{number}.pos" for number in range(6)]
    chosen = ("m5", "m4.pos", "m3", "m2", "m1", "m0")
    joints = client_joints(bound(tmp_path), other, chosen, client_units(("radians",)))
    assert joints.to_state(numbers(STATE[::-1], other)) == pytest.approx(STATE)
    assert joints.to_client(STATE[None].astype(np.float32))[0] == pytest.approx(STATE[::-1])
    with pytest.raises(ObservationError, match="takes the state from m9"):
        client_joints(bound(tmp_path), other, ("m9", *chosen[1:]), client_units(("radians",)))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (THEIRS[:5], "say which is which with --wire-keys"),
        ([*THEIRS[:5], "jaw.pos"], "say which is which with --wire-keys"),
        ([*THEIRS, "lift.pos"], "does not command lift.pos"),
    ],
)
def test_joints_that_do_not_fit_are_refused(tmp_path: Path, names: list[str], sentence: str) -> None:
    with pytest.raises(ObservationError, match=sentence):
        client_joints(bound(tmp_path), names, (), client_units(("radians",)))


def test_other_readings_of_the_client_are_left_alone(tmp_path: Path) -> None:
    names = [*THEIRS, "shoulder_pan.torque"]
    joints = client_joints(bound(tmp_path), names, (), client_units(("radians",)))
    assert joints.names == tuple(THEIRS)
    assert joints.to_client(np.zeros((2, 6), np.float32)).shape == (2, 6)


@pytest.mark.parametrize(
    "entries", [("furlongs",), ("degrees", "radians"), ("gripper=percent",), ("=degrees",), ("degrees", "a=")]
)
def test_units_that_are_none_are_refused(entries: tuple[str, ...]) -> None:
    with pytest.raises(SettingError, match="lerobot_units"):
        client_units(entries)


def test_rows_for_another_rate_are_the_same_motion() -> None:
    """20 rows per second become 30: row k is due at (k + 1) / 30 s."""
    rows = np.arange(1, 51, dtype=np.float32)[:, None] * 0.05  # each its own time
    found = resampled(rows, 0.05, 30.0)
    assert len(found) == 75
    due = (np.arange(75) + 1) / 30
    assert found[1:, 0] == pytest.approx(due[1:], abs=1e-5)
    assert found[0, 0] == pytest.approx(0.05)  # before the first one
    assert resampled(rows, 0.05, 20.0) == pytest.approx(rows)
    assert len(resampled(rows[:1], 0.05, 1.0)) == 1
