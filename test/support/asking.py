# SPDX-License-Identifier: Apache-2.0
"""What the tests of the wedges ask their servers, and what they read in /metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exports import PANDA_JOINTS, PANDA_MEAN
from http_client import Answer, Client
from prometheus_client.parser import text_string_to_metric_families
from servers import Server

from reflex_core.metrics.slo import LEAST_SAMPLES, WINDOW_S

AT_REST = PANDA_MEAN  # where the chunks of the calm exports stay
BEYOND = [1.5, *PANDA_MEAN[1:]]  # where they raise, burn or give NaN
ALWAYS_MISSED = "p50=0.001ms"  # no inference is that fast

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def act(client: Client, state: list[float] = AT_REST, **fields: Any) -> Answer:
    """POST /act from a pose that an export is calm at."""
    return client.act(state=state, **fields)


def families(client: Client) -> dict[str, Samples]:
    """GET /metrics as Prometheus reads it: the samples of each family, by name and labels."""
    found: dict[str, Samples] = {}
    for family in text_string_to_metric_families(client.get("/metrics").body.decode()):
        found[family.name] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for sample in family.samples
            if not sample.name.endswith("_created")  # a time stamp, not a figure
        }
    return found


def figure(client: Client, name: str, **labels: str) -> float:
    """The sum of the samples of that name that carry these labels."""
    wanted = set(labels.items())
    return sum(
        value
        for samples in families(client).values()
        for (sample, carried), value in samples.items()
        if sample == name and wanted <= carried
    )


def safety_file(directory: Path, **fields: Any) -> str:
    """A safety file of the Panda's seven joints; 0.3 rad around rest where `fields` say nothing else."""
    document = {
        "schema_version": 1,
        "joint_names": PANDA_JOINTS,
        "position_min": [rest - 0.3 for rest in AT_REST],
        "position_max": [rest + 0.3 for rest in AT_REST],
    }
    path = directory / "robot_limits.json"
    path.write_text(json.dumps(document | fields))
    return str(path)


def miss_the_objective(server: Server) -> None:
    """As many answers as an objective needs before it can be missed."""
    for _ in range(LEAST_SAMPLES):
        assert act(server.client).status == 200


def grow_old(server: Server) -> None:
    """Let the window of the objective go by at once: its clock is the only thing that is not real."""
    assert server.engine.loaded is not None
    window = server.engine.loaded.admission.window
    assert window is not None
    window._clock = lambda: time.monotonic() + WINDOW_S + 1.0
