# SPDX-License-Identifier: Apache-2.0
"""One engine, two doors: what /act says of an answer, ~/action_chunk says as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import act, figure
from conftest import Server
from http_client import Client, raw
from reflex_ros.msg import ActionChunk
from ros_world import JOINTS, REACH_HOME, World, rows, wait_for, world

from reflex_core.trace.reader import TraceReader

WEDGES = ["telemetry", "admission", "latency", "guard", "deadline", "cloud", "breaker", "policy"]
RGB = (200, 30, 30)
INSTRUCTION = "reach the red cube"
EPISODE = "ep_both"


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Within reach of the policy's first pose; joint 6 may go no further than it stands, so that it is clamped."""
    path = tmp_path_factory.mktemp("limits") / "robot_limits.json"
    most = [home + 1.0 for home in REACH_HOME]
    most[5] = REACH_HOME[5] - 0.05
    least = [home - 1.0 for home in REACH_HOME]
    return written(path, least, most)
