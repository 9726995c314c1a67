# SPDX-License-Identifier: Apache-2.0
"""The guard's lines in words: which joint, by how much, what to do. Of lines as the check really writes them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reflex_core.robot.limits.check import Check
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import Motion
from reflex_core.robot.limits.safety_config import CLIP
from reflex_core.robot.limits.violation_text import all_explained, explained

DT_S = 0.05
UNITS = {"shoulder": "rad", "elbow": "rad"}


def limits(**changes: Any) -> Limits:
    two = np.ones(2)
    found = Limits(
        names=("shoulder", "elbow"), position_min=-1.5 * two, position_max=1.5 * two, velocity_max=2.0 * two,
        acceleration_max=np.inf * two, workspace=np.zeros(2, np.bool_), gripper=np.zeros(2, np.bool_),
    )  # fmt: skip
    return replace(found, **changes)


def lines(rows: Any, **changes: Any) -> tuple[str, ...]:
    """What the check finds in a chunk."""
    return Check(limits(**changes), DT_S, CLIP)(np.array(rows, np.float32), Motion()).violations


def test_a_joint_beyond_its_range_is_named_with_how_far() -> None:
    (line,) = lines([[1.6, 0.0], [1.6, 0.0]])
    found = explained(line, UNITS)
    assert found.text == "shoulder would go 0.1 rad (5.7°) above its upper limit (1.5 rad)"
    assert found.joint == "shoulder"
    assert "trained on this robot" in found.advice
    (line,) = lines([[0.0, -1.75], [0.0, -1.75]])
    assert explained(line, {}).text == "elbow would go 0.25 below its lower limit (-1.5)"


def test_a_joint_that_is_too_fast_is_named_with_its_limit() -> None:
    (line,) = lines([[0.0, 0.0], [0.25, 0.0]])
    found = explained(line, UNITS)
    assert found.text == "shoulder would move at 5 rad/s, 2.5 times its limit of 2 rad/s"
    assert "--blend" in found.advice


def test_a_joint_that_accelerates_too_much_is_named() -> None:
    rows = [[0.0, 0.0], [0.0, 0.0], [0.09, 0.0], [0.09, 0.0]]
    found = [explained(line, UNITS) for line in lines(rows, acceleration_max=np.array([10.0, np.inf]))]
    assert [one.joint for one in found] == ["shoulder"]
    assert re.fullmatch(r"shoulder would accelerate with 36 rad/s\^2, 3.6 times its limit of 10 rad/s\^2", found[0].text)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "shoulder range left already: 1.9 > 1.5: holding",
            "shoulder is 0.4 rad (23°) above its upper limit (1.5 rad): the robot holds",
        ),
        (
            "elbow workspace below min: 0.1 < 0.2",
            "elbow would go 0.1 rad (5.7°) below its lower limit of the workspace (0.2 rad)",
        ),
        ("base_x above max: 1.2 > 1 per second", "base_x would go 0.2 /s above its upper limit (1 /s)"),
        ("hand speed: 0.5 > 0.25 m/s", "hand would move at 0.5 m/s, 2 times its limit of 0.25 m/s"),
        ("hand turning: 2 > 1 rad/s", "hand would turn at 2 rad/s, 2 times its limit of 1 rad/s"),
        (
            "hand box z below min: 0.01 < 0.05 m",
            "hand would come 0.04 m below the lower end of its box on z (0.05 m)",
        ),
        ("link5 at plane 0: 0.02 < 0.1 m", "link5 would come 0.08 m too near to plane 0"),
        ("link5 and hand apart: 0.02 < 0.05 m", "link5 and hand would come within 0.02 m (at least 0.05 m)"),
        (
            "non_finite_action: 7 NaN or Inf values: holding position",
            "The model returned 7 values that are no numbers: the robot holds",
        ),
        (
            "guard_tripped: consecutive_clamp_limit_exceeded: 10 chunks in a row had to be changed: holding position",
            "The guard tripped: 10 chunks in a row had to be changed",
        ),
    ],
)
def test_every_kind_of_line_has_words_and_advice(line: str, text: str) -> None:
    found = explained(line, UNITS)
    assert found.text == text
    assert found.advice


def test_an_unknown_line_stays_as_it_is() -> None:
    assert explained("something new: 3", UNITS).text == "something new: 3"


def test_the_same_advice_is_given_once() -> None:
    found = all_explained(lines([[0.0, 0.0], [0.25, 0.25]]), UNITS)
    assert [bool(one.advice) for one in found] == [True, False]
