# SPDX-License-Identifier: Apache-2.0
"""What a recorder is: it writes finished answers somewhere, and never on the time of the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from reflex_core.metrics.recorders import Watched
from reflex_core.settings.table import Settings
from reflex_core.values import Request, Served


class Recorder(Watched, Protocol):
    """Trace or audit log. Called from several threads at once; only enqueues."""

    def __call__(self, request: Request, served: Served) -> None:
        """Record an answer."""
        ...

    def error(self, request: Request, slug: str, message: str, seq: int = -1) -> None:
        """Record that a request got no answer. seq: its record in the trace, -1 where nothing counts them."""
        ...

    def close(self) -> None:
        """Write what is waiting and end the file in order."""
        ...


class ConnectTracing(Protocol):
    """Opens the recorder that turns requests into spans. It is given to the engine, because the core has no HTTP."""

    def __call__(self, settings: Settings, models: Mapping[str, str], embodiment: str) -> Recorder:
        """Return the recorder. models: the export directory of each policy slot. Raises ConfigurationError."""
        ...
