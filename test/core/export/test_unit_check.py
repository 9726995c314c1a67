# SPDX-License-Identifier: Apache-2.0
"""Policies in degrees or percent that do not say so are refused by what they were trained on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from echoes import echo
from robots import v1

from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.presets import load_preset

SO100, UR5 = v1("so100"), v1("ur5")
MIDDLE = ((SO100.action_min + SO100.action_max) / 2).tolist()
IDENTITY = {"mode": "identity"}


def plain(name: str) -> Embodiment:
    """Return a robot whose gripper counts as its joints do, or has no sense."""
    return load_preset(name) if name == "quadcopter" else v1(name)


def mean_std(mean: list[float], std: float) -> dict[str, Any]:
    return {"mode": "mean_std", "mean": [*mean, 0.0][:7], "std": [std] * 7}


def served(path: Path, action: Any, state: Any = IDENTITY, robot: str = "so100", **config: Any) -> Policy:
    dim = len(plain(robot).joint_names) if robot else 7
    cut = {
        key: block
        if block is IDENTITY
        else {name: value[:dim] if name != "mode" else value for name, value in block.items()}
        for key, block in (("action", action), ("state", state))
    }
    path = echo(path, "somebodys", felt=dim, image=False, normalization=cut, action_dim=dim, **config)
    return load_policy(open_export(path), plain(robot) if robot else None, "cpu", 1)


DEGREES = {
    "means far outside": mean_std([77.1, 67.9, -40.0, 20.0, 3.0, 30.0], 30.0),
    "means near zero": mean_std([1.0, 2.0, -2.0, 0.0, 0.0, 1.0], 40.0),
    "percent": {"mode": "min_max", "min": [-100.0] * 7, "max": [100.0] * 7},
    "quantiles": {"mode": "quantiles", "q01": [-80.0, 0.0, -90.0, -60.0, -90.0, 0.0, 0.0], "q99": [90.0] * 7},
}


@pytest.mark.parametrize("name", list(DEGREES))
def test_actions_in_degrees_or_percent_are_refused_by_their_statistics(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"degrees or percent|other units") as caught:
        served(tmp_path, DEGREES[name])
    assert caught.value.slug == "action-range-mismatch"
    assert re.search(r'write (its "units"|"units": "radians")', str(caught.value))


def test_a_state_in_degrees_gives_relative_actions_away(tmp_path: Path) -> None:
    state = mean_std([77.1, 67.9, -40.0, 20.0, 3.0, 30.0], 30.0)
    with pytest.raises(ConfigurationError, match="its states of .* reach 107.1 in its statistics"):
        served(tmp_path, mean_std([0.0] * 6, 2.0), state, relative_actions=True)


@pytest.mark.parametrize(
    "units", ["radians", "rad", "SI", ["rad"] * 6, {"state": "rad", "action": ["rad", "m"]}]
)
def test_what_an_export_says_of_itself_is_believed(tmp_path: Path, units: Any) -> None:
    assert served(tmp_path, DEGREES["percent"], units=units).binding.action_statistics is not None


@pytest.mark.parametrize("robot", ["so100", ""])
@pytest.mark.parametrize(
    "units", ["mm", ["rad", "rad", "turns"], {"state": "rad", "action": "normalized"}, 3, [None]]
)
def test_units_that_are_not_known_are_refused_with_any_robot(tmp_path: Path, units: Any, robot: str) -> None:
    with pytest.raises(ConfigurationError, match="'units' .* is not known: write radians") as caught:
        served(tmp_path, mean_std(MIDDLE, 0.5), robot=robot, units=units)
    assert caught.value.slug == "units-unknown"


@pytest.mark.parametrize("robot", ["so100", "franka", "ur5", "trossen", "stretch", "quadcopter"])
def test_statistics_in_rad_and_m_are_served(tmp_path: Path, robot: str) -> None:
    preset = plain(robot)
    middle = ((preset.action_min + preset.action_max) / 2).tolist()
    wide = {"mode": "min_max", "min": preset.action_min.tolist(), "max": preset.action_max.tolist()}
    for number, block in enumerate(({"mode": "mean_std", "mean": middle, "std": [1.0] * len(middle)}, wide)):
        dim = len(middle)
        config = {"normalization": {"action": block, "state": IDENTITY}, "action_dim": min(dim, 7)}
        if dim <= 7:
            path = echo(tmp_path / str(number), "somebodys", felt=dim, image=False, **config)
            assert load_policy(open_export(path), preset, "cpu", 1).binding.action_statistics is not None


# of six joints whose ranges all hold 0
BENT = mean_std([0.2, -1.4, 1.6, -1.7, 0.9, 0.4], 0.3)
SMALL = mean_std([0.0] * 6, 0.01)


def test_steps_that_do_not_say_so_are_refused_where_the_joint_was_measured_elsewhere(tmp_path: Path) -> None:
    """Taken for positions they would lead every joint to 0."""
    assert (UR5.action_min[:6] < 0).all()
    assert (UR5.action_max[:6] > 0).all()
    with pytest.raises(
        ConfigurationError, match="lie around 0, and the joint was measured around -1.4"
    ) as caught:
        served(tmp_path, SMALL, BENT, robot="ur5")
    assert caught.value.slug == "action-mode-missing"
    assert '"mode": "relative"' in str(caught.value)


@pytest.mark.parametrize("mode", ["relative", "delta", "velocity", "absolute"])
def test_what_the_export_says_of_its_mode_is_believed(tmp_path: Path, mode: str) -> None:
    declared = [{"columns": list(range(6)), "mode": mode}]
    served(tmp_path, SMALL, BENT, robot="ur5", action_space=declared, frequency_hz=UR5.frequency_hz)


def test_positions_may_lie_beside_where_the_joint_was_measured(tmp_path: Path) -> None:
    """A joint sags, and a data set ends where it was commanded to."""
    commanded = [value + 0.25 for value in BENT["mean"][:6]]
    for number, spread in enumerate((0.001, 0.3)):
        served(tmp_path / str(number), mean_std(commanded, spread), BENT | {"std": [spread] * 7}, robot="ur5")


def test_a_placeholder_says_nothing_of_where_a_joint_was_measured(tmp_path: Path) -> None:
    """A mean of 0 with a deviation of 1, or a range from -1 to 1: the state goes in as it is."""
    turned = mean_std([2.8, -1.4, 1.6, -1.7, 0.9, 0.4], 0.3)
    served(tmp_path / "mean", turned, mean_std([0.0] * 6, 1.0), robot="ur5")
    low_high = {"mode": "min_max", "min": [-1.0] * 6, "max": [1.0] * 6}
    served(tmp_path / "range", turned, low_high, robot="ur5")
