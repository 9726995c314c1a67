# SPDX-License-Identifier: Apache-2.0
"""What recording costs in all, and how fast it is read and replayed.

The request path of trace, audit log and bag; bytes per 1000 requests; records per second of the readers alone and of a
replay of the embedded policy. `--soak-seconds` records in real time with every recorder on and shows what grows.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import bag_cost, trace_size
from benchmarks.exports import Measured, embedded, policy_of
from benchmarks.measure import finish, motion_of, parser, table
from reflex_core.policy.base import Policy
from reflex_core.records.audit.log import AuditLog
from reflex_core.records.trace.header import session_of
from reflex_core.records.trace.reader import TraceReader
from reflex_core.records.trace.writer import TraceWriter
from reflex_core.replay.runner import Plan, hashes_of, replay
from reflex_core.replay.summary import Totals
from reflex_core.replay.target import Wanted, load_target
from reflex_ros.bag.source import BagSource
from reflex_ros.bag.topic_types import definitions, serialised
from reflex_ros.bag.writer import BagRecorder
from reflex_ros.messages.chunks import chunk_message, trajectory_message
from reflex_ros.messages.raw import Consumed, RawMessage, kind_of

BAG_SIZE = (224, 224)
SOAK_SIZE = (96, 96)  # raw 224x224 pictures would take 5 GB in 10 minutes
SOAK_HZ = 50.0
SOAK_REQUESTS = 50  # recorded again and again under names of their own
SOAK_LINES = 10
CLOSE_S = 60.0

Row = dict[str, object]


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table per question."""
    options = parser(__doc__ or "")
    options.add_argument("--requests", type=int, default=1000)
    options.add_argument(
        "--soak-seconds", type=float, default=0.0, help="record this long at 50 Hz, and only that [0]"
    )
    chosen = options.parse_args(argv)
    measured = embedded()
    policy = policy_of(measured)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.soak_seconds > 0:
            results = {"soak": soak(policy, chosen.soak_seconds, Path(folder))}
        else:
            results = costs(measured, policy, chosen.requests, Path(folder))
    print("\n\n".join(table(rows) for rows in results.values()))
    finish("record_cost", results, chosen.output)
    return 0


def costs(measured: Measured, policy: Policy, count: int, folder: Path) -> dict[str, list[Row]]:
    """The three tables: trace and audit, bags, and reading."""
    traces: list[Row] = list(trace_size.measure(measured, count, folder))
    bags: list[Row] = [bag_cost.recorded(folder, storage, BAG_SIZE, count) for storage in ("mcap", "sqlite3")]
    reading = [read_bag(folder / f"{storage}-{BAG_SIZE[0]}", storage) for storage in ("mcap", "sqlite3")]
    return {"traces": traces, "bags": bags, "replay": [*replayed(measured, policy, count, folder), *reading]}


def replayed(measured: Measured, policy: Policy, count: int, folder: Path) -> list[Row]:
    """Reader and replay of one full trace, gzipped. Raises RuntimeError where a replay is not exact."""
    where = folder / "replayed"
    trace = TraceWriter(where, session_of(policy, None), images="full", flush_interval_s=trace_size.FLUSH_S)
    pairs = [trace_size.pair(policy, number) for number in range(count)]
    seeded = [(request, replace(served, seed=number)) for number, (request, served) in enumerate(pairs)]
    trace_size.drive(trace, seeded)
    trace.close(CLOSE_S)
    (path,) = where.iterdir()
    rows: list[Row] = [
        {"what": "trace, full, gzip: reader alone", "records per s": count / trace_size.read_s(path)}
    ]
    with TraceReader(path) as source:
        target = load_target(
            Wanted(measured.path, "cpu", seed=None), source.header, hashes_of(source.header, "a")
        )
        totals = Totals()
        began = time.perf_counter()
        differences = [
            made.actions.max_abs for made in replay(source, {"": target}, Plan(), totals) if made.actions
        ]
        spent_s = time.perf_counter() - began
    if differences != [0.0] * count:
        raise RuntimeError(
            f"{len(differences)} of {count} replayed, largest difference {max(differences, default=math.nan)}"
        )
    rows.append(
        {"what": "trace, full, gzip: replay of the embedded policy", "records per s": count / spent_s}
    )
    return rows


def read_bag(directory: Path, storage: str) -> Row:
    """The requests of a bag with their pictures, and nothing run."""
    (path,) = directory.iterdir()
    began = time.perf_counter()
    with BagSource(path) as source:
        count = sum(1 for _ in source)
    return {
        "what": f"bag, {storage}, {BAG_SIZE[1]}x{BAG_SIZE[0]} rgb8: reader alone",
        "records per s": count / (time.perf_counter() - began),
    }


def soak(policy: Policy, seconds: float, folder: Path) -> list[Row]:
    """Trace (full), audit log and bag at 50 Hz in real time; what the process holds at the start and after each tenth."""
    session = session_of(policy, None)
    trace = TraceWriter(folder / "trace", session, images="full")
    audit = AuditLog(folder / "audit", robot_id="arm7")
    bag = BagRecorder(folder / "bag", session, "/reflex/trace", time.time_ns, lambda _: [])
    record = one_of_each(policy, trace, audit, bag)
    began = time.monotonic()
    count = math.ceil(seconds * SOAK_HZ)
    marks = {max(1, round(count * tenth / SOAK_LINES)) for tenth in range(SOAK_LINES + 1)}
    rows: list[Row] = []
    for number in range(1, count + 1):
        record(number)
        time.sleep(max(0.0, began + number / SOAK_HZ - time.monotonic()))
        if number in marks:
            rows.append({
                "s": round(time.monotonic() - began, 1), "requests": number, **held(),
                "trace written": trace.written, "bag written": bag.written, "audit written": audit.written,
                "dropped": trace.dropped + bag.dropped + audit.dropped,
            })  # fmt: skip
            print(rows[-1], flush=True)
    for recorder in (trace, audit, bag):
        recorder.close(CLOSE_S)
    disk_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"closed: {held()}, {disk_mb:.0f} MB on disk\n")
    return rows


def one_of_each(
    policy: Policy, trace: TraceWriter, audit: AuditLog, bag: BagRecorder
) -> Callable[[int], None]:
    """A call that records the n-th request in all three, with messages of its own."""
    types = definitions()
    pairs = [trace_size.pair(policy, number) for number in range(SOAK_REQUESTS)]
    raw = [
        bytes(serialised(message, kind_of(type(message)), types))
        for message in (bag_cost.image(SOAK_SIZE), bag_cost.joints())
    ]

    def record(number: int) -> None:
        request, served = pairs[number % SOAK_REQUESTS]
        request = replace(request, request_id=f"0a1b2c3d-{number}", episode_id=f"episode-{number // 200}")
        served = replace(served, request_id=request.request_id, episode_id=request.episode_id)
        now_ns = time.time_ns()
        camera = RawMessage(
            "/camera/image_raw", "sensor_msgs/msg/Image", bytes(bytearray(raw[0])), number, now_ns
        )
        state = RawMessage("/joint_states", "sensor_msgs/msg/JointState", raw[1], number, now_ns)
        trace(request, served)
        audit(request, served)
        bag.answered(request, served, Consumed({"base": camera}, (state,)))
        bag.sent("/reflex/action_chunk", chunk_message(served, number, 5.0, number, 0))
        bag.sent(
            "/reflex/joint_trajectory",
            trajectory_message(served.chunk.names, motion_of(served.chunk, number), number, anchor=False),
        )

    return record


def held() -> Row:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "RSS MB": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "open files": len(list(Path("/proc/self/fd").iterdir())),
    }


if __name__ == "__main__":
    sys.exit(main())
