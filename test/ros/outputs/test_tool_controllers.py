# SPDX-License-Identifier: Apache-2.0
"""The simulated Servo and pose controllers obey the rules that were read in the sources of the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import control_msgs_substitute as substitute
import numpy as np
import pytest
import tool_robots as robots
from controller_bench import Bench
from domains import free_domain
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from ros_world import wait_for
from tool_controllers import TWIST, ServoOptions

TWISTS = "/servo_node/delta_twist_cmds"


@pytest.fixture
def bench() -> Iterator[Bench]:
    substitute.use()
    with Bench(free_domain(), dict(zip(robots.JOINTS, robots.HOME, strict=True))) as made:
        yield made


class Sender:
    """A node of the bench that sends one message every 20 ms, stamped `late_s` before now."""

    def __init__(self, bench: Bench, kind: type, topic: str, message: Any, late_s: float = 0.0) -> None:
        self.message, self.late_s, self.sends = message, late_s, True
        self.node = Node("sender", context=bench.spinner.context)
        self._publisher = self.node.create_publisher(kind, topic, 1)
        self.node.create_timer(0.02, self._send)
        bench.spinner.executor.add_node(self.node)
        bench.spinner.executor.wake()

    def _send(self) -> None:
        if self.sends:
            now_ns = self.node.get_clock().now().nanoseconds - int(self.late_s * 1e9)
            stamp = self.message.header.stamp
            stamp.sec, stamp.nanosec = divmod(now_ns, 10**9)
            self._publisher.publish(self.message)


def up(frame: str = "base", speed: float = 0.25) -> TwistStamped:
    message = TwistStamped()
    message.header.frame_id, message.twist.linear.z = frame, speed
    return message


def height(bench: Bench) -> float:
    return float(robots.pose([bench.joints[name] for name in robots.JOINTS])[2, 3])


def test_servo_takes_a_share_of_its_scale_and_halts_on_silence(bench: Bench) -> None:
    servo = bench.servo(robots.TREE, robots.ARM, mode=TWIST)
    sender, began = Sender(bench, TwistStamped, TWISTS, up()), height(bench)
    wait_for(lambda: height(bench) > began + 0.02, "it goes up")
    assert servo.fastest == pytest.approx(0.25 * 0.4)
    sender.sends = False
    wait_for(lambda: servo.stale > 10 and np.abs(servo.velocity).max() < 1e-3, "it halts")


def test_servo_cuts_what_is_beyond_its_scale_in_speed_units(bench: Bench) -> None:
    servo = bench.servo(robots.TREE, robots.ARM, ServoOptions(command_in_type="speed_units"), mode=TWIST)
    Sender(bench, TwistStamped, TWISTS, up(speed=2.0))
    wait_for(lambda: servo.capped > 3, "it is cut")
    assert servo.fastest == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("message", "late_s", "mode", "why"),
    [(up(), 0.2, TWIST, "stale"), (up("elsewhere"), 0.0, TWIST, "invalid"), (up(speed=float("nan")), 0.0, TWIST, "invalid"),
     (up(), 0.0, None, "ignored")],
)  # fmt: skip
def test_servo_does_not_move_for_what_is_old_invalid_or_of_another_type(
    bench: Bench, message: TwistStamped, late_s: float, mode: int | None, why: str
) -> None:
    servo = bench.servo(robots.TREE, robots.ARM, mode=mode)
    began = height(bench)
    Sender(bench, TwistStamped, TWISTS, message, late_s)
    wait_for(lambda: getattr(servo, why) > 5, f"it is {why}")
    assert height(bench) == began


def target(frame: str = "base") -> PoseStamped:
    message, there = PoseStamped(), robots.pose(robots.HOME)
    message.header.frame_id = frame
    at, about = message.pose.position, message.pose.orientation
    at.x, at.y, at.z = (there[:3, 3] + [0.0, 0.0, 0.05]).tolist()
    about.x, about.w = 1.0, 0.0
    return message


@pytest.mark.parametrize("kind", ["crisp", "fzi"])
def test_controllers_of_poses_go_there_and_stay_on_silence(bench: Bench, kind: str) -> None:
    bench.pose_controller(robots.TREE, robots.ARM, kind, topic="/target")
    sender, wanted = Sender(bench, PoseStamped, "/target", target()), height(bench) + 0.05
    wait_for(lambda: abs(height(bench) - wanted) < 1e-3, "it is there")
    sender.sends = False
    wait_for(lambda: abs(height(bench) - wanted) < 1e-4, "it stays")


def test_crisp_follows_none_of_two_publishers_and_any_frame(bench: Bench) -> None:
    crisp = bench.pose_controller(robots.TREE, robots.ARM, "crisp", topic="/target")
    began = height(bench)
    rival = bench.node.create_publisher(PoseStamped, "/target", 1)
    wait_for(lambda: crisp.node.count_publishers("/target") == 1, "it is known")
    Sender(bench, PoseStamped, "/target", target("anywhere"))
    wait_for(lambda: len(crisp.ignored) > 3, "it follows none")
    assert height(bench) == began
    bench.node.destroy_publisher(rival)
    wait_for(lambda: height(bench) > began + 0.04, "it follows the one that is left")


def test_fzi_ignores_another_frame(bench: Bench) -> None:
    fzi = bench.pose_controller(robots.TREE, robots.ARM, "fzi", topic="/target")
    began = height(bench)
    Sender(bench, PoseStamped, "/target", target("anywhere"))
    wait_for(lambda: fzi.ignored.count("frame") > 3, "it is ignored")
    assert height(bench) == began
