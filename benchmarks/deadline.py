# SPDX-License-Identifier: Apache-2.0
"""When replies come with a model that takes ten times the budget, and what the deadline costs when it is met.

/act of a server in a process of its own: every second request makes the model compute for ten budgets, the one after it
is an ordinary one on the same connection. "over" is the reply's time, first byte sent to last received, minus the budget;
"inside" the same for the latency_ms that the server reports: receipt to finished chunk. "sleep" is how much longer than
asked a thread of this process slept at the same time: what the machine's load alone does to anything that waits.
"next" is the latency of the ordinary request, which nothing cancelled may delay. The hop is the wedge alone, in this process,
around an inference that costs nothing.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson

from benchmarks.exports import ROOT, Measured, policy_of
from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from benchmarks.server import Client, post_act, served
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.base import Policy
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, Request
from reflex_core.wedges.deadline import Deadline
from reflex_core.wedges.predict import prototype

FACTOR = 10
PROBE_PRODUCTS = 40
BURNING, CALM = 1.5, 0.0  # rad of the first joint: above 1 the model burns


@dataclass(slots=True)
class Found:
    """What the clients of one case saw; times in ms."""

    late: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    overslept: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    missed: int = 0

    def row(self, threads: int, clients: int, budget_ms: float) -> dict[str, object]:
        """The figures of the case."""
        over = np.asarray(self.late) - budget_ms
        p50, p90, p99 = np.percentile(over, (50, 90, 99)).tolist()
        return {
            "threads": threads, "clients": clients, "replies": len(self.late), "missed": self.missed,
            "continued": self.sources.count(LAST_KNOWN_GOOD), "held": self.sources.count(HOLD),
            "over p50": p50, "over p90": p90, "over p99": p99, "over max": float(over.max()),
            "inside p99": percentiles(self.inside)[1] - budget_ms, "sleep p99": percentiles(self.overslept)[1],
            "next p50": percentiles(self.after)[0], "next p99": percentiles(self.after)[1],
        }  # fmt: skip


def burning_export(folder: Path, products: int) -> Measured:
    """A pi0-like export that does so many 384x384 matrix products once the first joint is above 1 rad."""
    sys.path.append(str(ROOT / "test" / "support"))
    from exports import monolithic  # the tests are no package

    path = folder / f"burning_{products}"
    monolithic("pi0", chunk=50, robot=True, burn=products)(path)
    return Measured(path.name, path, "")  # no limits: a guard that trips would answer without inference


def slow_export(folder: Path, wanted_ms: float) -> Measured:
    """A burning export whose inference takes about `wanted_ms` on this machine, on one thread."""
    policy = policy_of(burning_export(folder, PROBE_PRODUCTS))
    canary = policy.canary()
    assert canary.state is not None
    canary.state[0] = BURNING
    cost_ms = min(milliseconds(lambda: policy.predict(canary, 1)) for _ in range(5)) / PROBE_PRODUCTS
    return burning_export(folder, max(1, round(wanted_ms / cost_ms)))


def body_of(policy: Policy, joint1: float) -> bytes:
    """A POST /act with the robot's first joint there."""
    canary = policy.canary()
    assert canary.state is not None
    state = [joint1, *canary.state.tolist()[1:]]
    return post_act(policy.binding.cameras[policy.contract.images[0].camera], state, 32, 32, "raw")


def in_episode(request: bytes, episode_id: str) -> bytes:
    """The same POST with an episode id."""
    head, _, body = request.partition(b"\r\n\r\n")
    body = orjson.dumps(orjson.loads(body) | {"episode_id": episode_id})
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def ask_in_turn(port: int, policy: Policy, episode_id: str, requests: int, found: Found) -> None:
    """An ordinary request, then one that burns, and again; the first pair is not counted."""
    calm, burning = (in_episode(body_of(policy, joint1), episode_id) for joint1 in (CALM, BURNING))
    client = Client(port)
    for number in range(requests + 1):
        after, late = client.ask(calm), client.ask(burning)
        if after.status != 200 or late.status != 200:
            raise RuntimeError(f"/act answered {after.status}, {late.status}: {late.body[:300]!r}")
        if number == 0:
            continue
        reply = orjson.loads(late.body)
        found.after.append(after.duration_ms)
        found.late.append(late.duration_ms)
        found.inside.append(reply["latency_ms"])
        found.missed += reply["deadline_exceeded"]
        found.sources.append(reply["source"])
    client.close()


def oversleep(budget_ms: float, stop: threading.Event, found: Found) -> None:
    """Sleep for the budget, again and again."""
    while not stop.is_set():
        found.overslept.append(milliseconds(lambda: time.sleep(budget_ms * 1e-3)) - budget_ms)


def measure_replies(measured: Measured, budget_ms: float, threads: int, clients: int, requests: int) -> Found:
    """`clients` connections at once, each with an episode of its own."""
    policy, found = policy_of(measured), Found()
    flags = ["--deadline-ms", str(budget_ms), "--max-consecutive-crashes", "0"]
    with served(measured, threads, flags) as port:
        askers = [
            threading.Thread(
                target=ask_in_turn, args=(port, policy, f"episode-{number}", requests // clients, found)
            )
            for number in range(clients)
        ]
        stop = threading.Event()
        sleeper = threading.Thread(target=oversleep, args=(budget_ms, stop, found))
        for thread in (sleeper, *askers):
            thread.start()
        for thread in askers:
            thread.join()
        stop.set()
        sleeper.join()
    if len(found.late) != requests // clients * clients:
        raise RuntimeError("a client stopped before its last request; its error stands above")
    return found


def measure_hop(measured: Measured, requests: int) -> dict[str, object]:
    """What the wedge costs a request whose inference is there at once; in microseconds."""
    policy, metrics = policy_of(measured), Metrics()
    answer = prototype(policy, "prod")
    deadline = Deadline(
        lambda: 1000.0, lambda: 1000.0, lambda _: None, lambda _: answer, metrics.deadline_misses.labels("bench"),
        {}, metrics.holds.labels("deadline"),
    )  # fmt: skip
    observation = policy.canary()
    found_ms = []
    for _ in range(requests):
        request = Request(observation, time.monotonic_ns(), "bench", "bench")
        found_ms.append(milliseconds(lambda request=request: deadline(request, lambda _: answer)))  # type: ignore[misc]
    p50, p99 = percentiles(found_ms)
    return {"requests": requests, "hop p50 us": p50 * 1e3, "hop p99 us": p99 * 1e3}


def main(argv: Sequence[str] | None = None) -> int:
    """Print two tables; times in ms where nothing else is said."""
    options = parser(__doc__ or "")
    options.add_argument("--budget-ms", type=float, default=33.0, help="the deadline (default 33)")
    options.add_argument("--requests", type=int, default=400, help="late requests per case (default 400)")
    options.add_argument("--clients", type=int, nargs="+", default=[1, 4], help="clients at once (1 4)")
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of the model (1 2)")
    arguments = options.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        measured = slow_export(Path(folder), FACTOR * arguments.budget_ms)
        rows = [
            measure_replies(measured, arguments.budget_ms, threads, clients, arguments.requests).row(
                threads, clients, arguments.budget_ms
            )
            for threads in arguments.threads
            for clients in arguments.clients
        ]
        hop = measure_hop(measured, max(arguments.requests, 1) * 5)
    print(
        f"a model of {FACTOR * arguments.budget_ms:.0f} ms, a budget of {arguments.budget_ms:g} ms\n{table(rows)}\n"
    )
    print(table([hop]))
    finish("deadline", {"budget_ms": arguments.budget_ms, "replies": rows, "hop": hop}, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
