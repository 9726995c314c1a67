# SPDX-License-Identifier: Apache-2.0
"""The node keeps the limits of tool and bodies in the motion that it really publishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from described_panda import fastest, kinematics
from loop_scene import Scene

from benchmarks import robot_world
from benchmarks.robot_world import ARM, HOME, HORIZON, Command
from reflex_core.values import Floats, Request

MOST = 0.4


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    limited = replace(ARM, kinematics=kinematics(), max_ee_velocity=MOST, collision_check=True)
    monkeypatch.setattr(robot_world, "ARM", limited)
    return Scene()


def swinging(rate: float) -> Callable[[Request], Floats]:
    """A policy whose tool would do several metres per second."""
    count = [0]

    def model(_: Request) -> Floats:
        count[0] += 1
        at = HOME + 0.8 * np.sin(rate * (np.arange(1, HORIZON + 1)[:, None] * 0.05 + count[0]))
        return at.astype(np.float32)

    return model


def executed(scene: Scene, sent: list[Command], seconds: float) -> float:
    """The greatest speed of the tool that the controller asked for, looked at every millisecond."""
    speeds = []
    for command, until in zip(sent, [*(one.due_s[0] for one in sent[1:]), np.inf], strict=True):
        motion = robot_world._motion_of(command)
        times = np.arange(command.due_s[0], min(until, command.due_s[-1]), 1e-3)
        if len(times) > 1:
            speeds.append(fastest(kinematics(), motion.sampled((times * 1e9).astype(np.int64)), 1e-3))
    return max(speeds)


def test_no_motion_that_is_published_moves_the_tool_faster_than_it_may(scene: Scene) -> None:
    scene.run(0.5)
    scene.engine.model = swinging(2.0)
    sent = scene.run(4.0)
    assert len([one for one in sent if not one.is_hold]) >= 3
    assert 0.2 < executed(scene, sent, 4.0) <= MOST * 1.001


def test_a_chunk_to_which_no_motion_keeps_the_limits_is_a_hold(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.run(0.5)
    handover: Any = scene.loop._handover
    monkeypatch.setattr(handover, "keeps_tool", lambda *_: False)
    sent = scene.run(1.0)
    assert sent
    assert {(one.is_hold, one.reason) for one in sent} == {(True, "tool_limit")}
    # also of those that came once it was held
    commands = scene.world.guard.commands
    assert commands.recall() is commands._executed, "what was judged and not sent is forgotten"
