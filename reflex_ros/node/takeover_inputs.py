# SPDX-License-Identifier: Apache-2.0
"""The topics on which a person commands the robot while the node is active, and how that and the policy's share are set.

~/takeover: sensor_msgs/JointState, as a leader arm publishes it. ~/takeover_trajectory: trajectory_msgs/JointTrajectory, of whose
points the last one counts, as MoveIt Servo and others publish it. ~/takeover_joy: sensor_msgs/Joy, for a dead-man button.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Float32
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from reflex_core.errors import ReflexError
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.bag.recorder_hook import OFF, RecorderHook
from reflex_ros.graph.qos import SENSOR, STREAM_DEPTH, copied, newest, overridable
from reflex_ros.messages.raw import RawMessage, kind_of
from reflex_ros.node.services import answering
from reflex_ros.node.takeover import Takeover

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.subscription import Subscription

SETTING_DEPTH = 1  # the newest
JOINTS, TRAJECTORY = "~/takeover", "~/takeover_trajectory"

log = logging.getLogger(__name__)


class TakeoverInputs:
    """The subscriptions of one activation. Callbacks only store."""

    def __init__(
        self, node: Node, takeover: Takeover, button: int, recorder_hook: RecorderHook = OFF
    ) -> None:
        """Create them. button: the setting `takeover_button`; without one nothing of a joystick is read.

        recorder_hook: gets every message under this node's own name of its topic, whatever it is remapped to: a replay plays
        nothing from there, so that a recording commands no robot.
        """
        self._node, self._recorder_hook = node, recorder_hook

        def joints(message: JointState) -> None:
            takeover.put(message.name, message.position, JOINTS)

        def trajectory(message: JointTrajectory) -> None:
            positions = message.points[-1].positions if message.points else ()
            takeover.put(message.joint_names, positions, TRAJECTORY)

        def joystick(message: Joy) -> None:
            takeover.put_button(message.buttons)

        topics: list[tuple[type, str, Callable[[Any], None]]] = [
            (JointState, JOINTS, joints),
            (JointTrajectory, TRAJECTORY, trajectory),
        ]
        if button >= 0:
            topics.append((Joy, "~/takeover_joy", joystick))
        self._subscriptions = [self._subscribe(kind, name, act) for kind, name, act in topics]

    def _subscribe(self, kind: type, name: str, act: Callable[[Any], None]) -> Subscription:
        """Subscribe to a topic: every message is recorded where streams are, and the newest is acted on."""
        node, hook = self._node, self._recorder_hook
        topic, clock = name.replace("~", node.get_fully_qualified_name(), 1), node.get_clock()

        def heard(raw: bytes) -> None:
            now_ns = int(clock.now().nanoseconds)
            hook.heard(RawMessage(topic, kind_of(kind), raw, now_ns, now_ns))

        # rclpy inspects callbacks, so that each is a function of one parameter
        def on_message(raw: bytes) -> None:
            act(deserialize_message(newest(found, raw, heard) if hook.full_rate else raw, kind))

        found = node.create_subscription(
            kind, name, on_message, copied(SENSOR, depth=STREAM_DEPTH if hook.full_rate else None), raw=True,
            qos_overriding_options=overridable(),
        )  # fmt: skip
        return found

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
