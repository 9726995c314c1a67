# SPDX-License-Identifier: Apache-2.0
"""The page on OpenTelemetry holds: its commands run as they stand, and it names every attribute of a real span."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from otlp import CALLER, TRACE, Receiver, receiving, values
from repository import ROOT
from servers import MakeEngine

from benchmarks import otel_cost
from reflex_core.files.share import embedded_policy
from reflex_core.settings.table import TABLE
from reflex_ros.sidecar.server import Sidecar

PAGE = (ROOT / "docs" / "how-to" / "opentelemetry.md").read_text(encoding="utf-8")
SPANS = (ROOT / "docs" / "reference" / "spans.md").read_text(encoding="utf-8")
INSTALL, SERVE = re.findall(r"^(pip install .*|reflex serve .*)$", PAGE, re.MULTILINE)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def run(command: str, directory: Path) -> str:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command], cwd=directory, capture_output=True, text=True, check=True,
        env=dict(os.environ, PATH=programs),
    ).stdout  # fmt: skip


def test_the_commands_of_the_page_lead_from_a_span_to_its_record(
    make_engine: MakeEngine, receiver: Receiver, tmp_path: Path
) -> None:
    words = shlex.split(SERVE)
    assert words[:3] == ["reflex", "serve", "--no-ros"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert set(options) == {"--otel-endpoint", "--record"} <= {row.flag for row in TABLE}
    engine = make_engine(
        "mono_pi0_7", export_dir=str(embedded_policy()), port=0, otel_endpoint=receiver.url,
        record=str(tmp_path / options["--record"]),
    )  # fmt: skip
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    [ask] = re.findall(r"^python3 - <<'PY'.*?^PY$", PAGE, re.DOTALL | re.MULTILINE)
    assert '"actions"' in run(ask.replace("localhost:8000", f"localhost:{sidecar.port}"), tmp_path)
    sidecar.stop()
    engine.unload()
    [act] = receiver.acts
    assert (act.trace_id.hex(), act.parent_span_id.hex()) == (TRACE, CALLER)
    assert TRACE in PAGE
    for stage in receiver.stages_of(act):
        assert f"`{stage.name}`" in PAGE
    recorded = values(act.attributes)
    assert recorded["reflex.record.seq"] == 0
    [find] = re.findall(r"^zgrep .*$", PAGE, re.MULTILINE)
    assert f'"request_id":"{recorded["reflex.request_id"]}"' in run(find, tmp_path)
    for name in recorded:
        last = name.rpartition(".")[2]
        group = name.rpartition(".")[0] + ".*"
        assert f"`{name}`" in SPANS or f"`.{last}`" in SPANS or group.replace("reflex", "") in SPANS, name


def test_the_benchmark_of_the_page_runs(tmp_path: Path) -> None:
    output = tmp_path / "otel.json"
    assert otel_cost.main(["--rounds", "2", "--output", str(output)]) == 0
    assert "python -m benchmarks.otel_cost" in SPANS
    assert '"lost": 0' in output.read_text()
