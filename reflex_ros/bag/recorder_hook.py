# SPDX-License-Identifier: Apache-2.0
"""Where the node shows what it consumes and sends, so that a bag can have it. Off, it does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reflex_core.engine.serving_state import ServingState
from reflex_core.records.recorder import Watched
from reflex_core.records.trace.schema import Failure
from reflex_core.settings.table import Settings
from reflex_core.values import Request, Served
from reflex_ros.messages.raw import Arrival, Consumed

if TYPE_CHECKING:
    from rclpy.node import Node


class RecorderHook(Protocol):
    """Called from several threads, and never waits."""

    @property
    def recorders(self) -> tuple[Watched, ...]:
        """What health, metrics and diagnostics are to watch."""
        ...

    def heard(self, arrival: Arrival) -> None:
        """An instruction or an episode came in."""
        ...

    def answered(self, request: Request, outcome: Served | Failure, consumed: Consumed) -> None:
        """An inference was made, or failed, of these messages."""
        ...

    def sent(self, topic: str, message: Any) -> None:
        """A message was published; nobody changes it any more."""
        ...

    def close(self) -> None:
        """End in order what was begun."""
        ...


class _Off:
    recorders: tuple[Watched, ...] = ()

    def heard(self, arrival: Arrival) -> None:
        pass

    def answered(self, request: Request, outcome: Served | Failure, consumed: Consumed) -> None:
        pass

    def sent(self, topic: str, message: Any) -> None:
        pass

    def close(self) -> None:
        pass


OFF: RecorderHook = _Off()


def open_recorder_hook(
    node: Node, settings: Settings, loaded: ServingState, clock_ns: Callable[[], int]
) -> RecorderHook:
    """The bag of one activation, or OFF where none is asked for. Raises ConfigurationError."""
    if not settings.record_bag:
        return OFF
    from reflex_ros.bag.topic_types import TRACE, offered_qos
    from reflex_ros.bag.writer import BagRecorder

    return BagRecorder(
        Path(settings.record_bag),
        loaded.session,
        f"{node.get_fully_qualified_name()}/{TRACE}",
        clock_ns,
        offered_qos(node),
        storage=settings.record_bag_storage,
        split_bytes=settings.record_bag_split_mb << 20,
    )
