# SPDX-License-Identifier: Apache-2.0
"""Log lines of `reflex serve --no-ros`: one format with local time, or JSON with the id of the request."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from http_client import PATIENCE_S, Client, wait_for
from repository import ROOT

from reflex_core.text.log_lines import JsonLine, TextLine, request_id
from reflex_ros.console import logs

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARN|ERROR|FATAL) reflex: +\S.*")
SERVE = [
    "-m",
    "reflex_ros.cli.main",
    "serve",
    "--no-ros",
    "--port",
    "0",
    "--device",
    "cpu",
    "--intra-op-threads",
    "1",
]

Output = pytest.CaptureFixture[str]


def served(export: Path, *options: str) -> tuple[str, str]:
    """Serve, answer one request and a refused one, stop; return (stdout, stderr)."""
    words = [sys.executable, *SERVE, str(export), *options]
    environment = {**os.environ, "TZ": "Asia/Kolkata"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        client, out = None, ""
        while client is None and (line := process.stdout.readline()):
            out += line
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)
            client = Client(int(found[1])) if found else None
        assert client is not None, process.communicate()[1]
        ready = partial(client.get, "/health")
        wait_for(lambda: ready().status == 200)
        assert client.act(request_id="r-1").status == 200
        assert client.act(request_id="r-2", state=[]).status == 422
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return out + rest, err


def test_every_line_has_one_format_and_local_time(export_dir: Callable[[str], Path]) -> None:
    out, err = served(export_dir("mono_pi0_7"), "--embodiment", "franka", "-v")
    lines = [*out.splitlines(), *err.splitlines()]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert any(
        re.search(r" DEBUG reflex: request r-1: answered|clamped in [\d.]+ ms", line) for line in lines
    )
    assert any("page" in line and "http://127.0.0.1:" in line for line in lines)
    shown = datetime.strptime(f"{lines[0][:19]} +0530", "%Y-%m-%d %H:%M:%S %z").timestamp()
    assert abs(shown - time.time()) < 3600, "the time is not that of Kolkata"


def test_json_lines_have_the_id_of_the_request(export_dir: Callable[[str], Path]) -> None:
    out, err = served(export_dir("mono_pi0_7"), "--embodiment", "franka", "-v", "--log-format", "json")
    found = [json.loads(line) for line in [*out.splitlines(), *err.splitlines()]]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in found)
    assert all(line["time"].endswith("+05:30") for line in found)
    of_requests = [line["request_id"] for line in found if "request_id" in line]
    assert "r-1" in of_requests
    assert not [line for line in found if "r-1" in line["message"] and line.get("request_id") != "r-1"]


def test_quiet_prints_warnings_alone(export_dir: Callable[[str], Path]) -> None:
    words = [sys.executable, *SERVE, str(export_dir("mono_pi0_7")), "-q"]
    done = subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "REFLEX_EMBODYMENT": "x"},
    )
    assert done.stderr is not None
    first = done.stderr.readline()
    done.send_signal(signal.SIGTERM)
    out, err = done.communicate(timeout=PATIENCE_S)
    assert " WARN reflex: environment variables that set nothing: REFLEX_EMBODYMENT" in first
    assert out == ""
    assert " INFO " not in err


def test_others_and_warnings_of_python_have_the_same_format(capsys: Output) -> None:
    logs.configure("info", "text")
    logging.getLogger("aiohttp.server").error("connection\nlost")
    logging.getLogger("aiohttp.server").info("too much")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    logging.getLogger("reflex_core.engine").info("loaded")
    lines = capsys.readouterr().err.splitlines()
    assert all(map(LINE.fullmatch, lines))
    assert [line.partition(" reflex: ")[2][:24] for line in lines][::2] == [
        "aiohttp.server: connecti",
        "loaded",
    ]
    assert "DeprecationWarning: old" in lines[1]


def test_a_second_configuration_replaces_the_first(capsys: Output) -> None:
    logs.configure("info", "text")
    logs.configure("error", "json")
    log = logging.getLogger("reflex_ros.cli")
    log.warning("no")
    log.error("yes")
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "yes"


def test_no_message_forges_a_line() -> None:
    evil = "x\n2026-01-01 00:00:00.000 INFO reflex: fake\x1b[2J"
    record = logging.LogRecord("reflex_core", logging.WARNING, "", 0, "%s", (evil,), None)
    assert LINE.fullmatch(TextLine().format(record))
    named = request_id.set(evil)
    try:
        line = JsonLine().format(record)
    finally:
        request_id.reset(named)
    assert line.isprintable()
    assert json.loads(line)["request_id"] == evil
