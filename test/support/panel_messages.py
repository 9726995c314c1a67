# SPDX-License-Identifier: Apache-2.0
"""Messages as a policy node sends them, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from reflex_ros.msg import ActionChunk, ServeStatus

JOINTS = ["shoulder", "elbow", "wrist"]


def status(**fields: Any) -> ServeStatus:
    """A ready robot `arm7`."""
    values = {"state": "ready", "robot_id": "arm7", "latency_p50_ms": 20.0, "latency_p99_ms": 40.0} | fields
    return ServeStatus(**values)


def chunk(horizon: int = 10, **fields: Any) -> ActionChunk:
    """`horizon` rows of three joints, from 0 to 1 rad."""
    rows = np.linspace(0.0, 1.0, horizon * len(JOINTS), dtype=np.float32).tolist()
    values = {
        "names": JOINTS, "horizon": horizon, "action_dim": len(JOINTS), "data": rows, "dt_s": 0.05,
        "latency_ms": 20.0, "policy_slot": "prod", "model_version": "model@1", "source": ActionChunk.SOURCE_POLICY,
    } | fields  # fmt: skip
    return ActionChunk(**values)


def diagnosed(concern: str, level: bytes = b"\x00", robot: str = "arm7", **values: str) -> DiagnosticArray:
    """One concern of a node called `reflex`; underscores of the keys are blanks."""
    pairs = [KeyValue(key=key.replace("_", " "), value=value) for key, value in values.items()]
    found = DiagnosticStatus(level=level, name=f"reflex: {concern}", message=f"{concern} says", values=pairs)
    found.hardware_id = robot
    return DiagnosticArray(status=[found])
