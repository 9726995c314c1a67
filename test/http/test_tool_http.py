# SPDX-License-Identifier: Apache-2.0
"""A robot whose kinematics are known, over HTTP: its tool is limited, and of every other it is said that it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import AT_REST, act, figure
from described_panda import TOOL, described, fastest, kinematics
from servers import Server

DT_S = 0.05


@pytest.fixture
def limited(serve: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
    """`limited(0.3, box_min=[...])`: a noisy policy whose tool may do 0.3 m/s, with the `tool` of a safety file."""

    def start(speed: float, **tool: Any) -> Server:
        file = tmp_path / "safety.json"
        file.write_text(json.dumps({"tool": tool}))
        return serve(
            "mono_pi0_7", embodiment="", custom_embodiment_config=str(described(tmp_path, speed)),
            safety_config=str(file) if tool else "",
        )  # fmt: skip

    return start


def test_the_tool_is_no_faster_than_the_embodiment_says(limited: Any) -> None:
    server = limited(0.3)
    reply = act(server.client, seed=3).json
    speeds = [line for line in reply["guard_violations"] if line.startswith(f"{TOOL} speed: ")]
    assert len(speeds) == 1
    assert speeds[0].endswith(" > 0.3 m/s")
    rows = np.vstack([AT_REST, reply["actions"]])
    assert 0.05 < fastest(kinematics(), rows, DT_S) <= 0.3
    assert figure(server.client, "reflex_safety_violations_total", violation_kind="tool_speed") == 1.0
    assert server.client.get("/config").json["effective"]["not_checked"] == ""


def test_a_limit_that_is_to_be_held_is_held(limited: Any) -> None:
    reply = act(limited(0.3, turning_max=50.0, on_speed="hold").client, seed=3).json
    assert (reply["source"], reply["hold_reason"]) == ("hold", "tool_limit")
    np.testing.assert_allclose(reply["actions"], [AT_REST] * len(reply["actions"]), atol=1e-6)


def test_a_chunk_through_a_table_stops_above_it_and_names_the_link(limited: Any) -> None:
    at = kinematics().tree.poses(np.array([AT_REST]))[0][0, :3, 3]
    server = limited(5.0, planes=[{"normal": [0, 0, 1], "offset": float(at[2]) - 0.01}])
    reply = act(server.client, seed=3).json
    assert any(line.startswith(f"{TOOL} at plane 0: ") for line in reply["guard_violations"])
    height = kinematics().tree.poses(np.asarray(reply["actions"]))[0][:, 2, 3]
    assert height.min() >= at[2] - 0.01


def test_what_is_not_checked_is_in_config(serve: Callable[..., Server]) -> None:
    assert serve("calm").client.get("/config").json["effective"]["not_checked"] == (
        "max_ee_velocity (1.7 m/s): the embodiment has no kinematics"
    )
