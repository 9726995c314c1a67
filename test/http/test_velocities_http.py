# SPDX-License-Identifier: Apache-2.0
"""A robot two of whose columns drive a base, over HTTP: velocities are limited as such, and 0 holds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import AT_REST, act
from exports import PANDA_JOINTS
from grouped_robots import document
from servers import ExportDir, Server

FASTEST = [0.5, 1.0]
ARM, WHEELS = [0, 1, 2, 3, 5], [4, 6]
ONES, ZEROS = [1.0] * 7, [0.0] * 7


def only_wheels(value: float) -> list[float | None]:
    return [value if column in WHEELS else None for column in range(7)]


@pytest.fixture
def rolling(serve: Callable[..., Server], export_copy: ExportDir, tmp_path: Path) -> Callable[..., Server]:
    """`rolling(velocity_max=[...])`: five joints of a Panda on a base, with a safety file that rejects."""

    def start(**safety: Any) -> Server:
        robot = tmp_path / "rolling.json"
        ranges = [[rest - 2.0, rest + 2.0] for rest in AT_REST]
        for column, most in zip(WHEELS, FASTEST, strict=True):
            ranges[column] = [-most, most]
        robot.write_text(json.dumps(document(
            joint_names=PANDA_JOINTS, action_space={"type": "continuous", "dim": 7, "ranges": ranges}, velocity_max=[None] * 7,
            normalization={"mean_action": ZEROS, "std_action": ONES, "mean_state": ZEROS, "std_state": ONES},
            groups=[
                {"name": "arm", "space": "joints", "joints": [PANDA_JOINTS[column] for column in ARM],
                 "output": {"kind": "joint_trajectory", "topic": "/arm/joint_trajectory"}},
                {"name": "base", "space": "base", "joints": [PANDA_JOINTS[column] for column in WHEELS], "axes": ["linear.x", "angular.z"],
                 "output": {"kind": "twist", "topic": "/cmd_vel"}},
            ],
        )))  # fmt: skip
        file = tmp_path / "safety.json"
        file.write_text(json.dumps({"joint_names": PANDA_JOINTS, **safety}))
        described = export_copy("mono_pi0_7") / "reflex_config.json"
        config = json.loads(described.read_text())
        described.write_text(json.dumps(config | {"action_space": [{"columns": WHEELS, "mode": "velocity"}]}))
        return serve(
            "act", export_dir=str(described.parent), embodiment="", custom_embodiment_config=str(robot),
            safety_config=str(file),
        )  # fmt: skip

    return start


def test_a_hold_of_a_base_is_zero_and_that_of_the_arm_where_it_is(rolling: Any) -> None:
    reply = act(rolling(mode="reject", velocity_max=[0.1] * 7).client).json
    assert (reply["source"], reply["hold_reason"]) == ("hold", "rejected")
    held = np.asarray(reply["actions"])
    np.testing.assert_allclose(held[:, ARM], [[AT_REST[column] for column in ARM]] * 50, rtol=1e-6)
    np.testing.assert_array_equal(held[:, WHEELS], np.zeros((50, 2)))


def test_a_velocity_is_limited_per_second(rolling: Any) -> None:
    reply = act(rolling(velocity_max=only_wheels(0.2), acceleration_max=only_wheels(0.4)).client).json
    base = np.asarray(reply["actions"])[:, WHEELS]
    assert np.abs(base).max() <= 0.2
    assert np.abs(np.diff(base, axis=0)).max() <= 0.4 * 0.05 + 1e-6
    found = [
        line
        for line in reply["guard_violations"]
        if line.startswith(tuple(PANDA_JOINTS[column] for column in WHEELS))
    ]
    assert found
    assert all(line.endswith(("per second", "per second squared")) for line in found)
