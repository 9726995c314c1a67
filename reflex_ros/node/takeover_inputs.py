# SPDX-License-Identifier: Apache-2.0
"""The topics on which a person commands the robot while the node is active, and how that and the policy's share are set.

~/takeover: sensor_msgs/JointState, as a leader arm publishes it. ~/takeover_trajectory: trajectory_msgs/JointTrajectory, of whose
points the last one counts, as MoveIt Servo and others publish it. ~/takeover_joy: sensor_msgs/Joy, for a dead-man button.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Float32
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from reflex_core.errors import ReflexError
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.graph.qos import SENSOR, copied, overridable
from reflex_ros.node.services import answering
from reflex_ros.node.takeover import Takeover

if TYPE_CHECKING:
    from rclpy.node import Node

SETTING_DEPTH = 1  # the newest
JOINTS, TRAJECTORY = "~/takeover", "~/takeover_trajectory"

log = logging.getLogger(__name__)


class TakeoverInputs:
    """The subscriptions of one activation. Callbacks only store."""

    def __init__(self, node: Node, takeover: Takeover, button: int) -> None:
        """Create them. button: the setting `takeover_button`; without one nothing of a joystick is read."""
        self._node = node

        # rclpy inspects callbacks, so that each is a function of one parameter
        def joints(message: JointState) -> None:
            takeover.put(message.name, message.position, JOINTS)

        def trajectory(message: JointTrajectory) -> None:
            positions = message.points[-1].positions if message.points else ()
            takeover.put(message.joint_names, positions, TRAJECTORY)

        def joystick(message: Joy) -> None:
            takeover.put_button(message.buttons)

        topics = [(JointState, JOINTS, joints), (JointTrajectory, TRAJECTORY, trajectory)]
        if button >= 0:
            topics.append((Joy, "~/takeover_joy", joystick))
        self._subscriptions = [
            node.create_subscription(kind, name, act, copied(SENSOR), qos_overriding_options=overridable())
            for kind, name, act in topics
        ]

    def destroy(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()


def create_handing_over(node: Node, takeover: Callable[[], Takeover]) -> None:
    """Create the service ~/hand_back and the topic ~/blend, which sets the parameter of that name.

    takeover: returns that of the present activation. Raises ReflexError where the node is not active.
    """
    limited_log = RateLimitedLog(log)

    def hand_back() -> str:
        found = takeover()
        if not found.enabled:
            raise ReflexError("no person can take the commands: set takeover_release_s")
        return found.hand_back()

    def blend(message: Float32) -> None:
        ratio = float(message.data)
        if not math.isfinite(ratio) or not 0.0 <= ratio <= 1.0:
            limited_log(
                logging.ERROR, "range", "~/blend must be from 0 to 1, got %g: it stays as it is", ratio
            )
            return
        if node.get_parameter("blend").value == ratio:  # as sliders and programs repeat it
            return
        (result,) = node.set_parameters([Parameter("blend", value=ratio)])
        if not result.successful:
            limited_log(logging.ERROR, "refused", "~/blend was not taken: %s", result.reason)

    node.create_service(Trigger, "~/hand_back", answering(hand_back))
    node.create_subscription(Float32, "~/blend", blend, SETTING_DEPTH)
