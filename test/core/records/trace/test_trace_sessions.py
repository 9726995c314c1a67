# SPDX-License-Identifier: Apache-2.0
"""The files of a trace: when a new one begins, what it begins with, and what a full disk or a kill leaves."""

from __future__ import annotations

import gzip
import json
import logging
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recordings import lines_of, make_request, served, tiny_disk
from repository import ROOT, SUPPORT
from traces import SESSION, traces, writer

from reflex_core.records.trace.reader import TraceReader
from reflex_core.records.trace.schema import FULL


def wait_for(condition: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, "waited 20 s in vain"
        time.sleep(0.005)


def test_an_idle_session_leaves_nothing(tmp_path: Path) -> None:
    writer(tmp_path).close()
    assert traces(tmp_path) == []


def test_files_follow_each_other_by_size_with_a_header_each(tmp_path: Path) -> None:
    trace = writer(tmp_path, max_bytes=1, flush_interval_s=0.001)
    for number in range(3):
        trace(make_request(number), served(make_request(number)))
        wait_for(lambda: trace.written == number + 1)  # noqa: B023
    trace.close()
    paths = traces(tmp_path)
    assert len(paths) == 3
    found = [lines_of(path) for path in paths]
    assert [[record["kind"] for record in records] for records in found] == [
        ["header", "request", "footer"]
    ] * 3
    assert [records[1]["seq"] for records in found] == [0, 1, 2]
    assert [records[0]["part"] for records in found] == [0, 1, 2]
    assert len({records[0]["session_id"] for records in found}) == 1


@pytest.mark.parametrize(("max_bytes", "again"), [(1, [True, True]), (1 << 30, [False, False])])
def test_an_earlier_image_is_in_the_file_that_refers_to_it(
    tmp_path: Path, max_bytes: int, again: list[bool]
) -> None:
    trace = writer(tmp_path, images=FULL, max_bytes=max_bytes, flush_interval_s=0.001)
    before = make_request(0).observation
    for number in range(3):
        request = make_request(number)
        request = replace(request, observation=replace(request.observation, history=(before,) * 2))
        trace(request, served(request))
        wait_for(lambda number=number: trace.written == number + 1)
    trace.close()
    found = [record for path in traces(tmp_path) for record in lines_of(path) if record["kind"] == "request"]
    written = [
        ["image_b64" in entry["cameras"]["base"] for entry in record["request"]["history"]]
        for record in found
    ]
    # the first is its own past; the second of two equal ones refers to the first
    assert written == [[False, False], *([held, False] for held in again)]
    hashes = {
        entry["cameras"]["base"]["image_sha256"] for record in found for entry in record["request"]["history"]
    }
    assert hashes == {found[0]["request"]["image_sha256"]}


def test_an_old_file_is_followed_by_a_new_one(tmp_path: Path) -> None:
    trace = writer(tmp_path, max_age_s=0.0)
    trace(make_request(1), served(make_request(1)))
    wait_for(lambda: trace.written == 1)
    trace(make_request(2), served(make_request(2)))
    trace.close()
    assert len(traces(tmp_path)) == 2


def test_another_policy_gets_a_file_of_its_own(tmp_path: Path) -> None:
    trace = writer(tmp_path)
    trace(make_request(1), served(make_request(1)))
    trace.describe(replace(SESSION, model_hash="1111222233334444"))
    trace(make_request(2), served(make_request(2)))
    trace.close()
    headers = [lines_of(path)[0] for path in traces(tmp_path)]
    assert [header["model_hash"] for header in headers] == ["0123456789abcdef", "1111222233334444"]


def test_gzip_is_gzip(tmp_path: Path) -> None:
    trace = writer(tmp_path, gzip=True)
    for number in range(10):
        trace(make_request(number), served(make_request(number)))
    trace.close()
    (path,) = traces(tmp_path)
    lines = gzip.decompress(path.read_bytes()).splitlines()
    assert path.name.endswith(".jsonl.gz")
    assert [json.loads(line)["kind"] for line in lines] == ["header", *["request"] * 10, "footer"]


WRITER = """
import itertools, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from recordings import make_request, served
from traces import writer
import time
trace = writer(Path(sys.argv[1]), gzip=sys.argv[2] == "gzip")
for number in itertools.count():
    trace(make_request(number), served(make_request(number)))
    time.sleep(0.0005)
"""


@pytest.mark.parametrize("kind", ["gzip", "plain"])
def test_kill_minus_nine_loses_no_more_than_the_last_interval(tmp_path: Path, kind: str) -> None:
    paths = [str(SUPPORT), str(ROOT)]
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), kind, *paths])
    try:
        wait_for(lambda: traces(tmp_path) and traces(tmp_path)[0].stat().st_size > 100_000)
        seen = traces(tmp_path)[0].read_bytes()  # what a reader could have had before
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    (path,) = traces(tmp_path)
    known = zlib.decompressobj(31).decompress(seen) if kind == "gzip" else seen
    with TraceReader(path) as trace:
        seqs = [record.seq for record in trace]
    assert seqs == list(range(len(seqs)))
    assert len(seqs) >= known.count(b"\n") - 1
    assert trace.footer is None
    assert any("no end" in warning for warning in trace.warnings) == (kind == "gzip")


@pytest.mark.parametrize("packed", [True, False])
def test_a_full_disk_stops_the_recording_until_space_returns(
    tmp_path: Path, packed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with tiny_disk(tmp_path / "disk", 512 << 10) as disk, caplog.at_level(logging.WARNING):
        trace = writer(disk.path / "traces", gzip=packed, retry_s=0.0)
        trace(make_request(), served(make_request()))
        wait_for(lambda: trace.written == 1)
        disk.fill()
        wait_for(lambda: trace(make_request(), served(make_request())) or trace.problem)
        assert trace.problem.startswith("record-disk-full")
        wait_for(lambda: trace(make_request(), served(make_request())) or trace.dropped > 3)
        disk.free()
        wait_for(lambda: trace(make_request(), served(make_request())) or not trace.problem)
        trace.close()
        files = traces(disk.path / "traces")
        assert len(files) == 2  # nothing empty is left by the attempts in between
        found: list[int] = []
        for path in files:
            with TraceReader(path) as reader:
                found.extend(record.seq for record in reader)
        with TraceReader(files[1]) as reader:
            assert reader.header["dropped"] > 3
            list(reader)
            assert reader.footer is not None
            assert reader.footer["dropped"] == trace.dropped == reader.footer["total_requests"] - len(found)
    assert len([record for record in caplog.records if "slug=record-disk-full" in record.message]) == 1
    assert len(found) == len(set(found)) == trace.written
