# SPDX-License-Identifier: Apache-2.0
"""A person takes the commands at random moments: what the joint_trajectory_controller of each era makes of the messages at 1 kHz."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from delivered import fastest
from takeover_scene import RELEASE_S, TakeoverScene
from trajectory_msgs.msg import JointTrajectory

from benchmarks.robot_world import HOME, JOINTS, NAMES, SPEED, TUNING
from reflex_core.chunks.interpolation import Spline
from reflex_ros.demo.controllers.options import BLEND, LEGACY, ControllerOptions
from reflex_ros.messages.chunks import trajectory_message

FASTER = 1.1  # of a limit: a controller takes its last command as one of an update before
# how late messages come: a controller that joins trajectories by itself counts from their arrival
LATEST_MS = {LEGACY: (6.0, 45.0), BLEND: (6.0,)}
TIMES = 12


def messages_of(era: str, seed: int, times: int, blend: float) -> list[tuple[int, JointTrajectory]]:
    """Return what is sent while a person takes the commands at random moments, and when."""
    draw, sent = np.random.default_rng(seed), list[tuple[int, JointTrajectory]]()
    scene = TakeoverScene(replace(TUNING, takeover_release_s=RELEASE_S, blend=blend))
    outputs: Any = scene.world.outputs
    send: Callable[..., None] = outputs._send

    def noting(motion: Spline, stamp_ns: int, *others: Any) -> None:
        message = trajectory_message(NAMES, motion.of(JOINTS), stamp_ns, anchor=era == LEGACY)
        sent.append((scene.world.clock.wall_ns(), message))
        send(motion, stamp_ns, *others)

    outputs._send = noting
    for _ in range(times):
        goal = HOME + draw.uniform(-0.4, 0.4, 7)
        scene.world.engine.latency_s = draw.uniform(0.02, 0.2)
        scene.wanted = lambda goal=goal: goal  # type: ignore[misc]
        scene.run(draw.uniform(0.03, 0.6))
        scene.wanted = lambda: None
        scene.run(RELEASE_S + draw.uniform(0.05, 0.8))
    assert scene.progress.takeovers > times // 2
    return sent


def delivered_late(
    sent: list[tuple[int, JointTrajectory]], late_ms: float
) -> list[tuple[int, JointTrajectory]]:
    """Return when each message is there that takes up to so long, in the order in which they were sent."""
    draw, found, there_ns = np.random.default_rng(1), list[tuple[int, JointTrajectory]](), 0
    for sent_ns, message in sent:
        there_ns = max(there_ns, sent_ns + int(draw.uniform(0.0, late_ms) * 1e6))
        found.append((there_ns, message))
    return found


@pytest.mark.parametrize("blend", [1.0, 0.5])
@pytest.mark.parametrize("era", [LEGACY, BLEND])
def test_no_controller_is_led_faster_than_the_limits_when_a_person_takes_and_hands_back(
    era: str, blend: float
) -> None:
    """Whatever it begins a trajectory from: what it commanded last, or where the joints are, with their velocities or without."""
    sent, found = messages_of(era, 3, TIMES, blend), {}
    for late_ms in (0.0, *LATEST_MS[era]):
        for desired, velocities in ((True, True), (False, True), (False, False)):
            options = ControllerOptions(era, desired, velocities)
            delivered = delivered_late(sent, late_ms)
            found[late_ms, desired, velocities] = fastest(delivered, HOME.tolist(), SPEED, options)
    assert max(found.values()) <= FASTER, found
