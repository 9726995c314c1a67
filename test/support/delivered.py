# SPDX-License-Identifier: Apache-2.0
"""What a trajectory controller at 1 kHz commands that gets messages at given times: without what DDS and other threads take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory

from reflex_ros.demo.controllers.from_message import trajectory_of
from reflex_ros.demo.controllers.options import ControllerOptions
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.messages.stamps import stamp_ns

Doubles = NDArray[np.float64]

PERIOD_NS = 1_000_000
AFTERWARDS_NS = 2 * 10**9  # how long the last message is followed
LONGEST_NS = 5 * 10**9  # how long any is: nothing moves after that


def at_their_stamps(sent: Sequence[tuple[int, JointTrajectory]]) -> list[tuple[int, JointTrajectory]]:
    """Return when messages are there of a node that takes no time: at their own stamps; when they were sent where that is 0."""
    return [(stamp_ns(message.header.stamp) or sent_ns, message) for sent_ns, message in sent]


def latest_s(sent: Sequence[tuple[int, JointTrajectory]]) -> float:
    """Return how late after its stamp a message was sent at most."""
    own = at_their_stamps(sent)
    return max(at_ns - own_ns for (at_ns, _), (own_ns, _) in zip(sent, own, strict=True)) * 1e-9


def fastest(
    delivered: Sequence[tuple[int, JointTrajectory]],
    home: Sequence[float],
    velocity_max: Doubles,
    options: ControllerOptions | None = None,
) -> float:
    """Return the largest step of an update, as a share of the limits of speed; updates come every ms, messages between them.

    delivered: when each message is there, ns, in that order. home: where the robot rests before, in the messages' order.
    """
    at = before = np.array(home, np.float64)
    speed, found, now_ns = np.zeros(len(at)), 0.0, delivered[0][0]
    controller = JointTrajectoryController(delivered[0][1].joint_names, at, PERIOD_NS, options)
    ends_ns = [at_ns for at_ns, _ in delivered[1:]] + [delivered[-1][0] + AFTERWARDS_NS]
    for (at_ns, message), end_ns in zip(delivered, ends_ns, strict=True):
        now_ns += max(0, at_ns - now_ns) // PERIOD_NS * PERIOD_NS
        controller.set(now_ns, trajectory_of(message))
        while now_ns + PERIOD_NS <= min(end_ns, at_ns + LONGEST_NS):
            now_ns += PERIOD_NS
            before, (at, speed) = at, controller.sample(now_ns, at, speed)
            found = max(found, float((np.abs(at - before) / (velocity_max * PERIOD_NS * 1e-9)).max()))
    return found
