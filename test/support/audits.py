# SPDX-License-Identifier: Apache-2.0
"""Audit logs of a robot, on a wall clock that the test turns."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from reflex_core.records.audit.log import AuditLog

DAY_NS = 86_400_000_000_000
NOON_NS = int(datetime(2026, 3, 1, 12, tzinfo=timezone.utc).timestamp()) * 1_000_000_000


class Clock:
    """The wall clock of a test."""

    def __init__(self, now_ns: int = NOON_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def opened(directory: Path, clock: Clock | None = None, **options: Any) -> AuditLog:
    return AuditLog(
        directory,
        robot_id="arm7",
        model_version="pi0@0123456789abcdef",
        model_hash="0123456789abcdef",
        config_hash="fedcba9876543210",
        flush_interval_s=0.01,
        wall_clock_ns=clock or Clock(),
        **options,
    )
