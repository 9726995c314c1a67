# SPDX-License-Identifier: Apache-2.0
"""As many requests as 10 minutes at 50 Hz have, without the waiting: memory and open files stay where they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bags import arrivals, bags, recorder
from recordings import make_request, served
from reflex_ros.msg import ActionChunk
from ros_world import wait_for
from traces import traces, writer

from reflex_core.records.trace.reader import TraceReader
from reflex_core.values import Request, Served
from reflex_ros.bag.source import BagSource
from reflex_ros.messages.raw import Consumed

REQUESTS = 30_000
SETTLED = 5_000  # buffers, caches and the allocator's arenas have their size by then
AHEAD = 200
PER_INFERENCE = 3  # messages in a bag: joints, trace record, chunk
GROWTH_BYTES = 12 << 20  # a leak of one small request (2 kB) each would be 50 MB

Record = Callable[[Request, Served], None]


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def push(record: Record, written: Callable[[], int], per_request: int) -> tuple[int, int]:
    """How many bytes and open files the process gained after it had settled."""
    request = make_request(frames={})
    answer = served(request, horizon=2)
    before_bytes = before_files = 0
    for number in range(REQUESTS):
        name = f"r-{number}"
        record(replace(request, request_id=name), replace(answer, request_id=name))
        if number % AHEAD == 0:
            wait_for(lambda done=number: written() >= per_request * (done - AHEAD), "the recorder keeps up")
        if number == SETTLED:
            before_bytes, before_files = resident_bytes(), open_files()
    wait_for(lambda: written() >= per_request * REQUESTS, "everything is written")
    return resident_bytes() - before_bytes, open_files() - before_files


@pytest.mark.parametrize("packed", [True, False])
def test_a_trace_of_30_000_requests_takes_no_more_memory_than_one_of_5_000(
    tmp_path: Path, packed: bool
) -> None:
    trace = writer(tmp_path, images="none", gzip=packed)
    grown_bytes, grown_files = push(trace, lambda: trace.written, 1)
    trace.close()
    assert trace.dropped == 0
    assert grown_files <= 0  # others' files may close meanwhile
    assert grown_bytes < GROWTH_BYTES
    (path,) = traces(tmp_path)
    with TraceReader(path) as reader:
        assert sum(1 for _ in reader) == REQUESTS


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_of_30_000_requests_takes_no_more_memory_than_one_of_5_000(
    tmp_path: Path, storage: str
) -> None:
    bag = recorder(tmp_path, storage)
    state = arrivals(0)[1]

    def record(request: Request, answer: Served) -> None:
        bag.answered(request, answer, Consumed({}, [replace(state)]))  # a new message with equal content
        bag.sent("/reflex/action_chunk", ActionChunk(request_id=request.request_id, data=[0.5] * 14))

    grown_bytes, grown_files = push(record, lambda: bag.written, PER_INFERENCE)
    bag.close()
    assert bag.dropped == 0
    assert grown_files <= 0
    assert grown_bytes < GROWTH_BYTES
    with BagSource(bags(tmp_path)[0]) as source:
        assert sum(1 for _ in source) == REQUESTS
