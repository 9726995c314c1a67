# SPDX-License-Identifier: Apache-2.0
"""The simulated arm in a process of its own: camera and joints over DDS, a trajectory controller, and lies on command.

Lines of JSON on standard input change it (`{"loss": 0.5}`); lines on standard output report each chunk and what no command may be.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "test" / "support")]

from ros_world import HOME, JOINTS, Robot  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from benchmarks.chaos.policy_files import arm, sick_in  # noqa: E402
from reflex_ros.demo.controllers.from_message import trajectory_of  # noqa: E402
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController  # noqa: E402
from reflex_ros.demo.controllers.validate import TrajectoryRefused  # noqa: E402

PERIOD_NS = 1_000_000
BETWEEN_ROWS = (
    16 / 9 * 1.05
)  # of the limit: what the node promises of the way between two rows (docs/reference/behaviour.md)
TICKS_KEPT = 40


class LyingArm(Robot):
    """Follows its trajectories. loss, late: shares of what it publishes that is lost, or comes after newer ones."""

    def __init__(self, domain: int) -> None:
        self.loss = self.late = 0.0
        self.sick, self.nan, self.shift_s = "", False, 0.0
        self._draw = random.Random(domain)
        self._kept: list[Any] = []
        self._arm = arm("panda")
        self._controller = JointTrajectoryController(JOINTS, list(HOME), PERIOD_NS)
        self._at, self._now_ns = np.array(HOME, np.float64), 0
        super().__init__(domain)
        self.node.create_subscription(JointTrajectory, "reflex/joint_trajectory", self._follow, 100)

    def _clock_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def _advance(self) -> None:
        end_ns = self._clock_ns()
        self._now_ns = max(self._now_ns, end_ns - 500_000_000)
        while self._now_ns + PERIOD_NS <= end_ns:
            self._now_ns += PERIOD_NS
            self._at, _ = self._controller.sample(self._now_ns, self._at)

    def _follow(self, message: Any) -> None:
        self._advance()
        for problem in self._problems(message):
            say(violation=problem)
        with suppress(
            TrajectoryRefused
        ):  # it came too late, as messages do on a busy machine: the arm stays where it is
            self._controller.set(self._now_ns, trajectory_of(message))

    def _problems(self, message: Any) -> list[str]:
        points = np.array([point.positions for point in message.points], np.float64)
        if not len(points):
            return []
        if not np.isfinite(points).all():
            return ["a trajectory that is not finite"]
        found = []
        if (points < np.array(self._arm.low) - 1e-4).any() or (
            points > np.array(self._arm.high) + 1e-4
        ).any():
            found.append("a trajectory leaves the ranges")
        due = [each.time_from_start.sec + each.time_from_start.nanosec * 1e-9 for each in message.points]
        gaps = np.diff(due)
        if len(gaps) and (gaps <= 0).any():
            found.append("a trajectory whose points are not in order")
        elif len(gaps):
            speed = np.abs(np.diff(points, axis=0)) / gaps[:, None]
            if (speed > np.array(self._arm.speed) * BETWEEN_ROWS + 1e-3).any():
                found.append(f"a trajectory with {speed.max():.2f} rad/s")
        return found

    def _tick(self) -> None:
        self._advance()
        positions = self._at.tolist()
        if self.sick:
            positions[0] = sick_in(self.sick)
        if self.nan:
            positions[1] = float("nan")
        self.camera_shift_ns = int(self.shift_s * 1e9)
        message = JointState(name=self.names, position=positions)
        message.header.stamp = self.stamp(self.camera_shift_ns)
        if self.camera_on:
            self._send(self._image, self.image())
        self._send(self._joints, message)

    def _send(self, publisher: Any, message: Any) -> None:
        if self._draw.random() < self.loss:
            return
        if self._draw.random() < self.late:
            self._kept.append((publisher, message))
            return
        publisher.publish(message)
        if self._kept and (self._draw.random() < 0.5 or len(self._kept) > TICKS_KEPT):
            late, old = self._kept.pop(self._draw.randrange(len(self._kept)))
            late.publish(old)


def say(**fields: Any) -> None:
    """Write one line for the process that started this one."""
    print(json.dumps(fields), flush=True)


def main() -> int:
    """Run until the input ends."""
    robot = LyingArm(int(os.environ["ROS_DOMAIN_ID"]))
    robot.say("reach the red cube")
    robot.begin(f"episode-{os.getpid()}")
    ended = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            for name, value in json.loads(line).items():
                setattr(robot, name, value)
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    seen = 0
    say(ready=True)
    while not ended.wait(0.05):
        new, seen = robot.chunks[seen:], len(robot.chunks)
        for chunk in new:
            say(source=int(chunk.source))
        del robot.chunks[:seen], robot.trajectories[:], robot.statuses[:-1]
        seen = 0
        if not robot.spinner._thread.is_alive():
            say(violation="the arm's own thread has ended")
            return 1
    robot.spinner.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
