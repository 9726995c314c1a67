# SPDX-License-Identifier: Apache-2.0
"""Traces as a session writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reflex_core.records.trace.schema import Session
from reflex_core.records.trace.writer import TraceWriter

SESSION = Session(
    model_hash="0123456789abcdef",
    config_hash="fedcba9876543210",
    export_dir="/exports/pi0",
    model_type="pi0",
    export_kind="monolithic",
    embodiment="franka",
    hardware={"ort": "1.2.3"},
    providers=("CPUExecutionProvider",),
    noise={"generator": "numpy.Philox", "shape": [1, 10, 32]},
)


def writer(directory: Path, **options: Any) -> TraceWriter:
    return TraceWriter(directory, SESSION, **{"gzip": False, "flush_interval_s": 0.01} | options)


def traces(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl*"))
