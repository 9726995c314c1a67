# SPDX-License-Identifier: Apache-2.0
"""Requests per second of eight robots with micro-batching and without, in interleaved blocks, beside a null run.

    python -m benchmarks.micro_batch

Three servers of one export run all the time, with `--max-batch 8`, with 1, and with 1 again (the null run), one thread per
operator each; one at a time is asked, by eight robots that each send the next request as soon as the last one is answered.
Two exports: one where reading the weights takes the time, one where the arithmetic does. Every answer is compared with the
one that a server without batching gives to the same robot.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson

from benchmarks.cpu_per_request import cpu_s
from benchmarks.exports import Measured, batched_export
from benchmarks.measure import finish, parser, percentiles, table
from benchmarks.server import Client, get, post_act, serving
from reflex_core.policy.micro_batch import TOLERANCE

ROBOTS = 8
STATE = [0.0, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0]  # where the export is calm, so that the guard has nothing to do
SIZES = {"batched": ROBOTS, "single": 1, "null": 1}


@dataclass
class Block:
    """What the robots of one block got. chunks: the last one of each robot."""

    latencies_ms: list[float] = field(default_factory=list)
    chunks: dict[int, np.ndarray] = field(default_factory=dict)
    failed: int = 0
    seconds: float = 0.0
    cpu_ms: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; 1 where an answer is no chunk, or not the robot's own."""
    made = parser(__doc__ or "")
    made.add_argument("--blocks", type=int, default=7, help="blocks of each server [default: 7]")
    made.add_argument("--seconds", type=float, default=3.0, help="length of a block [default: 3]")
    made.add_argument("--matrices", type=int, default=200, help="of the export's network [default: 200]")
    options = made.parse_args(arguments)
    rows = []
    with TemporaryDirectory() as folder:
        for matrices, tokens in ((options.matrices, 1), (max(options.matrices // 20, 1), 128)):
            export = batched_export(Path(folder), weights=matrices, tokens=tokens)
            rows += compared(export, options.blocks, options.seconds)
    print(table(rows))
    finish("micro_batch", {"rows": rows}, options.output)
    return int(any(row["failed"] or float(str(row["largest difference"])) > TOLERANCE for row in rows))


def compared(export: Measured, blocks: int, seconds: float) -> list[dict[str, object]]:
    """Ask the servers of one export in turn; a row for each."""
    found: dict[str, list[Block]] = {name: [] for name in SIZES}
    sizes: dict[str, float] = {}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                serving(export, 1, ("--max-batch", str(size), "--http-threads", str(ROBOTS)))
            )
            for name, size in SIZES.items()
        }
        for number in range(blocks):
            # another order each time: what one leaves behind in the caches must not always hit the same one
            for name in np.random.default_rng(number).permutation(list(servers)):
                found[name].append(block(*servers[name], seconds))
        for name, (_, port) in servers.items():
            sizes[name] = mean_batch(port)
    wanted = found["single"][0].chunks
    return [
        {
            "export": export.name,
            "server": name,
            "requests/s": statistics.median(len(one.latencies_ms) / one.seconds for one in of),
            "cpu ms": statistics.median(one.cpu_ms / max(len(one.latencies_ms), 1) for one in of),
            "p50 ms": statistics.median(percentiles(one.latencies_ms)[0] for one in of),
            "p99 ms": statistics.median(percentiles(one.latencies_ms)[1] for one in of),
            "mean batch": sizes[name],
            "failed": sum(one.failed for one in of),
            "largest difference": f"{difference(of, wanted):.1e}",
        }
        for name, of in found.items()
    ]


def block(pid: int, port: int, seconds: float) -> Block:
    """Eight robots ask one server for a while."""
    made, lock = Block(), threading.Lock()
    began_s, before_s = time.monotonic(), cpu_s(pid)
    robots = [
        threading.Thread(target=robot, args=(number, port, began_s + seconds, made, lock))
        for number in range(ROBOTS)
    ]
    for thread in robots:
        thread.start()
    for thread in robots:
        thread.join()
    made.seconds, made.cpu_ms = time.monotonic() - began_s, (cpu_s(pid) - before_s) * 1e3
    return made


def robot(number: int, port: int, end_s: float, into: Block, lock: threading.Lock) -> None:
    """One robot: a picture, a state and a session of its own."""
    state = [joint + 0.0005 * number for joint in STATE]
    head, _, body = post_act("camera", state, 32, 32, "jpeg").partition(b"\r\n\r\n")
    request = head + f"\r\nX-Session-Id: robot-{number}".encode() + b"\r\n\r\n" + body
    client = Client(port)
    latencies_ms, chunk, failed = [], np.zeros(0), 0
    while time.monotonic() < end_s:
        answer = client.ask(request)
        if answer.status != 200:
            failed += 1
            continue
        latencies_ms.append(answer.duration_ms)
        chunk = answer.body
    client.close()
    with lock:
        into.latencies_ms += latencies_ms
        into.chunks[number] = np.asarray(orjson.loads(chunk)["actions"])
        into.failed += failed


def difference(blocks: Sequence[Block], wanted: dict[int, np.ndarray]) -> float:
    """Return the largest difference of any robot's chunk from the one it gets alone, in rad."""
    return max(
        float(np.abs(one.chunks[number] - wanted[number]).max()) for one in blocks for number in wanted
    )


def mean_batch(port: int) -> float:
    """Return how many requests shared a run of the network on average; 1 where nothing is batched."""
    client = Client(port)
    lines = client.ask(get("/metrics")).body.decode().splitlines()
    client.close()
    total, runs = (
        sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"reflex_batch_size_{name}{{"))
        for name in ("sum", "count")
    )
    return total / runs if runs else 1.0


if __name__ == "__main__":
    raise SystemExit(main())
