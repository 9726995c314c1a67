# SPDX-License-Identifier: Apache-2.0
"""The node's recorder hook: called with each message consumed and sent, for a bag. Off, it does nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reflex_core.engine.serving_state import ServingState
from reflex_core.metrics.recorders import Watched
from reflex_core.records.trace.notes import outcome_record
from reflex_core.records.trace.schema import Failure, Record
from reflex_core.settings.table import Settings
from reflex_core.values import Request, Served
from reflex_ros.messages.raw import Consumed, RawMessage

if TYPE_CHECKING:
    from rclpy.node import Node


class RecorderHook(Protocol):
    """Called from several threads, and never waits."""

    @property
    def recorders(self) -> tuple[Watched, ...]:
        """The recorders for health, metrics and diagnostics."""
        ...

    @property
    def full_rate(self) -> bool:
        """True where every message of a stream is recorded, so that none of them may be skipped."""
        ...

    def received(self, arrival: RawMessage) -> None:
        """Record an instruction or episode message that was received."""
        ...

    def heard(self, arrival: RawMessage) -> None:
        """Record a sensor's or a person's message as it arrived, where streams are recorded at their full rate."""
        ...

    def answered(self, request: Request, outcome: Served | Failure, consumed: Consumed) -> None:
        """Record an inference, or its failure, with the messages it consumed."""
        ...

    def sent(self, topic: str, message: Any) -> None:
        """Record a message that was published and does not change any more."""
        ...

    def noted(self, make: Callable[[str], Record]) -> None:
        """Record what is no request in the trace inside. make: returns the record, given its timestamp."""
        ...

    def close(self) -> None:
        """Finish the recording."""
        ...


class _Off:
    recorders: tuple[Watched, ...] = ()
    full_rate = False

    def received(self, arrival: RawMessage) -> None:
        pass

    def heard(self, arrival: RawMessage) -> None:
        pass

    def answered(self, request: Request, outcome: Served | Failure, consumed: Consumed) -> None:
        pass

    def sent(self, topic: str, message: Any) -> None:
        pass

    def noted(self, make: Callable[[str], Record]) -> None:
        pass

    def close(self) -> None:
        pass


OFF: RecorderHook = _Off()


def open_recorder_hook(
    node: Node, settings: Settings, loaded: ServingState, clock_ns: Callable[[], int]
) -> RecorderHook:
    """Return the recorder of one activation's bag, or OFF without --record-bag. Raises ConfigurationError."""
    if not settings.record_bag:
        return OFF
    from reflex_ros.bag.topic_types import FULL_RATE, TRACE, offered_qos
    from reflex_ros.bag.writer import BagRecorder

    recorder = BagRecorder(
        Path(settings.record_bag),
        loaded.session,
        f"{node.get_fully_qualified_name()}/{TRACE}",
        clock_ns,
        offered_qos(node),
        storage=settings.record_bag_storage,
        split_bytes=settings.record_bag_split_mb << 20,
        full_rate=settings.record_bag_streams == FULL_RATE,
    )
    loaded.outcomes.recorded = lambda outcome: recorder.noted(partial(outcome_record, outcome))
    return recorder
