# SPDX-License-Identifier: Apache-2.0
"""What the fixtures of conftest.py hand out: exports, engines, servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from http_client import Client

from reflex_core.engine.engine import Engine
from reflex_ros.sidecar.server import Sidecar

ExportDir = Callable[[str], Path]
MakeEngine = Callable[..., Engine]


@dataclass(frozen=True)
class Server:
    """An engine behind a sidecar on a free port, and a client that asks it."""

    engine: Engine
    sidecar: Sidecar
    client: Client
