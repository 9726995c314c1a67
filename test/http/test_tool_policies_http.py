# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: a client sends joints and gets joints, whatever pose the policy counts in; what is not reached is held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tool_robots as robots
from asking import figure
from http_client import raw
from servers import Server

Serve = Callable[..., Server]
ARM = {"kind": "joint_trajectory", "topic": "/arm_controller/joint_trajectory"}
HAND = {"kind": "gripper_topic", "topic": "/hand"}
GOAL = [0.55, -0.05, 0.40]


def served(serve: Serve, path: Path, export: Path) -> Server:
    file = robots.robot(path / "robot", ARM, HAND)
    return serve("act", export_dir=str(export), embodiment="", custom_embodiment_config=str(file))


def ask(server: Server) -> Any:
    image = raw(height=24, width=32)
    return server.client.act({"image": image, "instruction": "reach", "state": robots.HOME}).json


def test_steps_of_libero_come_back_as_joints_that_move_the_tool_there(serve: Serve, tmp_path: Path) -> None:
    server = served(serve, tmp_path, robots.libero(tmp_path / "export", GOAL, 0.3))
    reply = ask(server)
    assert (reply["source"], reply["guard_clamped"]) == ("policy", False)
    at = robots.pose(reply["actions"][-1])
    np.testing.assert_allclose(at[:3, 3], GOAL, atol=1e-5)
    effective = server.client.get("/config").json["effective"]
    assert effective["tool"] == {"link": "link8", "mode": "delta", "frame": "base", "rotation": "axis_angle"}
    assert effective["action_names"] == effective["state_names"] == robots.JOINTS


def test_a_policy_that_sees_no_state_needs_the_joints_to_start_from(serve: Serve, tmp_path: Path) -> None:
    server = served(serve, tmp_path, robots.blind(tmp_path / "export", robots.pose(robots.HOME)))
    assert server.engine.loaded is not None
    assert server.engine.loaded.needs_state
    answer = server.client.act({"image": raw(height=24, width=32), "instruction": "reach"})
    assert (answer.status, answer.json["error"]) == (422, "missing-state")
    np.testing.assert_allclose(ask(server)["actions"][-1][:7], robots.HOME[:7], atol=1e-5)


def test_a_pose_that_is_not_reached_is_held_and_counted(serve: Serve, tmp_path: Path) -> None:
    goal = robots.pose(robots.HOME)
    goal[0, 3] += 2.0
    server = served(serve, tmp_path, robots.absolute(tmp_path / "export", goal))
    before = figure(server.client, "reflex_holds_total", reason="pose_unreached")
    reply = ask(server)
    assert (reply["source"], reply["hold_reason"]) == ("hold", "pose_unreached")
    np.testing.assert_allclose(reply["actions"], [robots.HOME] * robots.ROWS, atol=1e-6)
    assert reply["guard_violations"][0].startswith("pose_unreached: row ")
    assert figure(server.client, "reflex_holds_total", reason="pose_unreached") == before + 1
