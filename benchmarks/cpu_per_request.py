# SPDX-License-Identifier: Apache-2.0
"""Processor time per POST /act of two checkouts, in interleaved blocks, beside a null run of the second one against itself.

    python -m benchmarks.cpu_per_request /path/to/checkout/before

Each checkout serves the embedded policy with its own code under this interpreter; all servers run all the time, and one at a time
is asked. A block is some hundred requests; what it costs is the user and system time of the server's process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.exports import ROOT
from benchmarks.measure import finish, machine, parser, table
from benchmarks.server import Client, get, post_act

BLOCKS, REQUESTS = 7, 300
HOME = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]


@contextmanager
def serving(checkout: Path) -> Iterator[tuple[int, int]]:
    """Serve a checkout's embedded policy; gives process id and port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "reflex_ros.cli.main", "serve", "demo", "--no-ros", "--port", "0", "--intra-op-threads", "1"],
        cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "listening on " in line), "")
        if not line:
            raise SystemExit(f"{checkout}: the server did not start")
        port = int(line.rsplit(":", 1)[1])
        client = Client(port)
        while client.ask(get("/health")).status != 200:
            pass
        client.close()
        yield process.pid, port
    finally:
        process.terminate()
        process.communicate(timeout=30)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    clock = ~pid << 3 | 2  # as clock_getcpuclockid(3) names it; Python has that for threads alone
    return time.clock_gettime(clock)


def block_ms(pid: int, port: int, request: bytes, requests: int) -> float:
    """Processor time per request of one block on one connection, in milliseconds."""
    client = Client(port)
    before = cpu_s(pid)
    for _ in range(requests):
        if client.ask(request).status != 200:
            raise SystemExit("a request was not answered with 200")
    spent_s = cpu_s(pid) - before
    client.close()
    return spent_s / requests * 1e3


def main() -> None:
    """Measure and print the ratios."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("before", type=Path, help="another checkout")
    arguments.add_argument("--blocks", type=int, default=BLOCKS)
    arguments.add_argument("--requests", type=int, default=REQUESTS, help="of a block")
    chosen = arguments.parse_args()
    request = post_act("camera", HOME, 224, 224, "jpeg")
    checkouts = {"before": chosen.before.resolve(), "after": ROOT, "null": ROOT}
    spent: dict[str, list[float]] = {name: [] for name in checkouts}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(checkout)) for name, checkout in checkouts.items()}
        for number in range(chosen.blocks + 1):
            names = list(servers) if number % 2 else list(reversed(servers))
            for name in names:
                pid, port = servers[name]
                cost_ms = block_ms(pid, port, request, chosen.requests)
                if number:  # the first round warms up
                    spent[name].append(cost_ms)
    ratios = [after / before for after, before in zip(spent["after"], spent["before"], strict=True)]
    nulls = [null / after for null, after in zip(spent["null"], spent["after"], strict=True)]
    rows = [
        {"ratio": "after / before", "median": statistics.median(ratios), "smallest": min(ratios), "largest": max(ratios)},
        {"ratio": "null / after", "median": statistics.median(nulls), "smallest": min(nulls), "largest": max(nulls)},
    ]  # fmt: skip
    medians = {name: round(statistics.median(own), 3) for name, own in spent.items()}
    print(f"ms of processor time per request, medians: {medians}")
    print(table(rows))
    finish("cpu_per_request", {"machine": machine(), "ms": spent, "ratios": rows}, chosen.output)


if __name__ == "__main__":
    main()
