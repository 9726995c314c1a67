# SPDX-License-Identifier: Apache-2.0
"""A/B pair over ROS: promote and rollback as services, the split as a parameter, outcomes of episodes as a topic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_core.slots.changing import Swap
from reflex_core.slots.routing import SLOTS
from reflex_ros.msg import EpisodeOutcome
from reflex_ros.node.services import answering

if TYPE_CHECKING:
    from rclpy.node import Node

BY = "ros"
SYNC_S = 0.2
OUTCOME_DEPTH = 10


def create_ab_interfaces(
    node: Node, engine: Engine, episode_id: Callable[[], str], mirror: Callable[[int], None]
) -> None:
    """Create ~/promote_a, ~/promote_b, ~/rollback and ~/outcome, and keep the parameter `split` equal to the split in use.

    Args:
        node: The node to create them on.
        engine: The engine that they act on.
        episode_id: Returns the id of the running episode, for outcomes that name none.
        mirror: Sets the parameter, and nothing else.
    """

    def promote(slot: str) -> Callable[[], str]:
        return lambda: _swap_message(engine.pair().operating.promote(slot, "", BY))

    for slot in SLOTS:
        node.create_service(Trigger, f"~/promote_{slot}", answering(promote(slot)))
    node.create_service(
        Trigger, "~/rollback", answering(lambda: _swap_message(engine.pair().operating.rollback("", BY)))
    )
    node.create_subscription(
        EpisodeOutcome,
        "~/outcome",
        lambda message: _report_outcome(node, engine, message, episode_id()),
        OUTCOME_DEPTH,
    )
    node.create_timer(
        SYNC_S, lambda: _follow(node, engine, mirror), clock=Clock(clock_type=ClockType.STEADY_TIME)
    )


def _swap_message(swap: Swap | None) -> str:
    if swap is None:
        return "it was so already"
    return f"slot a gets {swap.to_split} % of new episodes, before {swap.from_split} %"


def _report_outcome(node: Node, engine: Engine, message: EpisodeOutcome, running: str) -> None:
    score = message.score if message.has_score and not math.isnan(message.score) else None
    try:
        engine.report_outcome(message.episode_id or running, message.success, score, message.note)
    except ReflexError as error:
        node.get_logger().error(f"outcome ignored: {error}")


def _follow(node: Node, engine: Engine, mirror: Callable[[int], None]) -> None:
    """Copy a split that HTTP or the monitor changed to the parameter."""
    loaded = engine.loaded
    if loaded is None or loaded.pair is None:
        return
    split = loaded.pair.operating.split()
    if node.get_parameter("split").value != split:
        mirror(split)
