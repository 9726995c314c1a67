# SPDX-License-Identifier: Apache-2.0
"""Log lines of the node's process: the format of every other mode, and JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

from domains import free_domain
from repository import ROOT

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARN|ERROR|FATAL) reflex: +\S.*")
PATIENCE_S = 120


def logged(*options: str) -> list[str]:
    """Serve over ROS until the banner is there; return every line that the process printed."""
    words = [
        sys.executable,
        "-m",
        "reflex_ros.cli.main",
        "serve",
        "demo",
        "--port",
        "0",
        "--intra-op-threads",
        "1",
        *options,
    ]
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(free_domain()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        try:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if "records" in line and "none" in line:
                    process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    return lines


def test_lines_of_the_node_have_the_format_of_every_mode() -> None:
    lines = logged()
    assert any("unconfigured -> inactive" in line for line in lines)
    assert [line for line in lines if not LINE.fullmatch(line)] == []


def test_json_lines_hold_what_the_node_logs() -> None:
    found = [json.loads(line) for line in logged("--log-format", "json")]
    messages = {line["message"]: line for line in found}
    assert messages["unconfigured -> inactive"]["level"] == "info"
    assert all({"time", "level", "logger"} <= set(line) for line in found)
