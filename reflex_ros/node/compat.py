# SPDX-License-Identifier: Apache-2.0
"""Compatibility with rclpy of Humble (3.3): what it lacks and the node uses; from its source, never run on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ModuleNotFoundError:
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

__all__ = ["NODE_OPTIONS", "PublisherEventCallbacks", "SubscriptionEventCallbacks", "with_info"]

HAS_INFO = hasattr(Subscription, "CallbackType")
NO_INFO: Mapping[str, Any] = {"source_timestamp": 0, "publication_sequence_number": None}

# Levels of loggers that are set over ROS.
_LOGGER_SERVICE = "enable_logger_service"
NODE_OPTIONS = (
    {_LOGGER_SERVICE: True} if _LOGGER_SERVICE in inspect.signature(Node.__init__).parameters else {}
)


def with_info(callback: Callable[[bytes, Mapping[str, Any]], None]) -> Callable[..., None]:
    """Wrap a callback that takes message info as one that every rclpy can call.

    Where rclpy provides no info, the stamp is 0 and there is no sequence number, as with some middlewares.
    """
    if HAS_INFO:  # rclpy looks at the signature: two parameters get both
        return lambda raw, info: callback(raw, info)
    return lambda raw: callback(raw, NO_INFO)
