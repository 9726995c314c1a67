# SPDX-License-Identifier: Apache-2.0
"""schemathesis reads /openapi.json and asks whatever it allows, and does not: no server error, and every reply as described."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_client import Client, good
from repository import ROOT

from reflex_core.engine.engine import Engine
from reflex_core.files.share import embedded_policy
from reflex_core.settings.table import settings_from
from reflex_ros.sidecar.server import Sidecar

pytestmark = pytest.mark.clients

PROGRAM = ROOT / ".venv-clients" / "schemathesis" / "bin" / "schemathesis"
CASES = 10_000
RUNS = 6  # at most, each from another seed
# Lax where nothing is ambiguous: what the schema does not allow may be answered, and an image must be more than base64.
LEFT_OUT = "positive_data_acceptance,negative_data_rejection"


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    engine = Engine(settings_from({"export_dir": str(embedded_policy()), "device": "cpu", "port": 0}))
    engine.load()
    engine.warm_up()
    found = Sidecar(engine, engine.settings)
    found.start()
    yield found
    found.stop()
    engine.unload()


def test_ten_thousand_requests_cause_no_server_error_and_are_answered_as_described(
    sidecar: Sidecar, tmp_path: Path
) -> None:
    assert PROGRAM.exists(), f"{PROGRAM} is missing: make test-clients makes it"
    cases = 0
    for seed in range(1, RUNS + 1):
        command = [
            PROGRAM, "run", f"{sidecar.url}/openapi.json", "--max-examples", "700", "--seed", str(seed),
            "--exclude-checks", LEFT_OUT, "--no-color",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:]
        counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        assert counted is not None, done.stdout[-2000:]
        cases += int(counted[2])
        if cases >= CASES:
            break
    assert cases >= CASES
    assert Client(sidecar.port).act(good(instruction="reach the red block")).status == 200
