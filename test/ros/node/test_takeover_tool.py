# SPDX-License-Identifier: Apache-2.0
"""A person commands an arm whose tool has a limit of speed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from described_panda import kinematics
from takeover_scene import TakeoverScene, moving, standing

from benchmarks import robot_world
from benchmarks.robot_world import ARM, HOME
from reflex_core.values import Served
from reflex_ros.node.diagnostics import takeover_finding

MOST = 0.25  # m/s of the tool
GOAL = HOME + 0.3


@pytest.fixture(params=[standing, moving])
def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TakeoverScene:
    """A robot that the policy has for a second, and then a person."""
    slow = replace(ARM, kinematics=kinematics(), max_ee_velocity=MOST, collision_check=False)
    monkeypatch.setattr(robot_world, "ARM", slow)
    scene = TakeoverScene(model=request.param)
    scene.run(1.0)
    scene.wanted = lambda: GOAL
    return scene


def tool(scene: TakeoverScene) -> np.ndarray:
    """(3,) m, where the tool is commanded."""
    known = kinematics()
    place: np.ndarray = known.tree.poses(scene.target()[None])[known.tree.links.index(known.tool), 0, :3, 3]
    return place


def test_the_arm_goes_as_fast_as_its_tool_may_and_arrives(scene: TakeoverScene) -> None:
    scene.run(0.5)  # until the policy's motion has ended
    places, times_s = [tool(scene)], [scene.now_s]
    while np.abs(scene.target() - GOAL).max() > 1e-4 and times_s[-1] - times_s[0] < 4.0:
        scene.run(0.01)
        places.append(tool(scene))
        times_s.append(scene.now_s)
    assert np.abs(scene.target() - GOAL).max() <= 1e-4
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=1) / np.diff(times_s)
    assert speeds.max() <= MOST * 1.01
    assert np.quantile(speeds, 0.9) > 0.5 * MOST
    assert scene.progress.takeover_problem == ""


@pytest.mark.parametrize("seed", [2, 3])
def test_a_person_who_wants_another_place_all_the_time_never_leads_the_tool_beyond_its_limit(
    scene: TakeoverScene, seed: int
) -> None:
    """Now and then no motion keeps the limits, and the robot is held on its way."""
    draw = np.random.default_rng(seed)
    goals = [HOME + draw.uniform(-0.6, 0.6, 7) for _ in range(8)]
    began_s = scene.now_s
    scene.wanted = lambda: goals[int((scene.now_s - began_s) / 0.37) % len(goals)]
    scene.run(0.5)
    places, times_s = [tool(scene)], [scene.now_s]
    for _ in range(250):
        scene.run(0.01)
        places.append(tool(scene))
        times_s.append(scene.now_s)
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=1) / np.diff(times_s)
    assert speeds.max() <= MOST * 1.01
    assert scene.progress.holds > 0


def test_diagnostics_say_how_much_slower_it_goes(scene: TakeoverScene) -> None:
    scene.run(0.5)
    assert 0.0 < scene.progress.takeover_pace < 0.5
    message = takeover_finding(scene.loop).message
    assert (
        message
        == f"a person commands the robot, at {scene.progress.takeover_pace:.0%} of the speed for the limits of the tool"
    )
    scene.run(4.0)
    assert takeover_finding(scene.loop).message == "a person commands the robot"


def test_rows_that_are_not_executed_are_not_the_ones_that_were_judged(
    scene: TakeoverScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the guard slows down a way, also that part of it changes for which the motion before goes on."""
    monkeypatch.setattr(scene.takeover._path, "pace", lambda *_: 1.0)
    execution, handover = scene.loop.execution, scene.loop._handover
    send, followed = execution.send_of_person, []

    def spy(served: Served, lasting_s: float, now_ns: int, following: int) -> Any:
        if following:
            dues_ns = now_ns + np.arange(1, following + 1) * round(served.chunk.dt_s * 1e9)
            going = np.array([handover.at(int(due_ns))[0] for due_ns in dues_ns])
            followed.append(float(np.abs(served.chunk.actions[:following] - going).max()))
        return send(served, lasting_s, now_ns, following)

    monkeypatch.setattr(execution, "send_of_person", spy)
    scene.run(2.0)
    assert scene.progress.takeovers == 1
    assert all(apart < 1e-5 for apart in followed)
