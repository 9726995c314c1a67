# SPDX-License-Identifier: Apache-2.0
"""POST /act against the bare ONNX Runtime session of the same graph, in one run.

The server is a process of its own. Bare inferences and requests take turns, so that a noisy machine hurts both.
Overhead is the time of a reply minus the median of the bare inferences between which it was asked for; with more
clients than one it holds the wait for the others' inferences too, so there the share of the ideal is printed:
the bare inferences that N requests need one after the other, divided by the time they really took together.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from benchmarks.exports import Bare, Measured, bare_inference, embedded, made_export, policy_of
from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from benchmarks.server import Client, get, post_act, served

SIZES = ((224, 224), (480, 640))
KINDS = ("jpeg", "raw")
SLOW_MS = 400.0
PROBE_WORK = 20


@dataclass(slots=True)
class Case:
    """One row of the table, filled round by round."""

    export: str
    height: int
    width: int
    kind: str
    clients: int
    request: bytes
    bare_ms: list[float] = field(default_factory=list)
    reply_ms: list[list[float]] = field(default_factory=list)
    inside_ms: list[float] = field(default_factory=list)
    answered: int = 0
    wall_ms: float = 0.0

    def forget(self) -> None:
        """Begin anew after a warm-up."""
        self.bare_ms, self.inside_ms = [], []
        self.reply_ms = [[] for _ in range(self.clients)]
        self.answered, self.wall_ms = 0, 0.0

    def row(self) -> dict[str, object]:
        """The figures of this case."""
        replies = [value for one in self.reply_ms for value in one]
        bare, reply = percentiles(self.bare_ms), percentiles(replies)
        over = percentiles([value - bare[0] for value in replies])
        row: dict[str, object] = {
            "export": self.export, "image": f"{self.width}x{self.height}", "kind": self.kind,
            "clients": self.clients, "requests": len(replies),
            "bare p50": bare[0], "bare p99": bare[1], "/act p50": reply[0], "/act p99": reply[1],
            "over p50": over[0], "over p99": over[1], "in graph p50": percentiles(self.inside_ms)[0],
            "ideal": bare[0] * self.answered / self.wall_ms,
        }  # fmt: skip
        return row

    def fairness(self) -> dict[str, object]:
        """How evenly the clients were served: their own means, and the longest wait."""
        means = [sum(one) / len(one) for one in self.reply_ms]
        replies = [value for one in self.reply_ms for value in one]
        median = percentiles(replies)[0]
        return {
            "export": self.export, "image": f"{self.width}x{self.height}", "kind": self.kind, "clients": self.clients,
            "fastest client's mean": min(means), "slowest client's mean": max(means),
            "slowest/fastest": max(means) / min(means), "longest wait": max(replies),
            "longest/median": max(replies) / median,
        }  # fmt: skip


def cases_of(measured: Measured, sizes: Sequence[tuple[int, int]], clients: Sequence[int]) -> list[Case]:
    """Every size, encoding and number of clients for one export."""
    policy = policy_of(measured)
    canary = policy.canary()
    camera = policy.binding.cameras[policy.contract.images[0].camera]
    state = [] if canary.state is None else canary.state.tolist()
    return [
        Case(measured.name, height, width, kind, count, post_act(camera, state, height, width, kind),
             reply_ms=[[] for _ in range(count)])
        for height, width in sizes for kind in KINDS for count in clients
    ]  # fmt: skip


def run_round(case: Case, bare: Bare, clients: Sequence[Client], requests: int) -> None:
    """`requests` per client and as many bare inferences: in turn for one client, one after the other for several."""
    if case.clients == 1:
        for _ in range(requests):
            case.bare_ms.append(milliseconds(bare))
            case.reply_ms[0].append(one_request(case, clients[0]))
            case.wall_ms += case.reply_ms[0][-1]
        case.answered += requests
        return
    for _ in range(requests):
        case.bare_ms.append(milliseconds(bare))
    start = threading.Barrier(case.clients + 1)

    def ask(index: int) -> None:
        start.wait()
        client_ms = [one_request(case, clients[index]) for _ in range(requests + 1)]
        # the first requests meet a queue that is still growing: who came first would look favoured for ever
        case.reply_ms[index] += client_ms[1:]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(case.clients)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    case.wall_ms += (time.perf_counter() - began) * 1e3
    case.answered += case.clients * (requests + 1)


def one_request(case: Case, client: Client) -> float:
    """Ask once; how long it took. Raises RuntimeError for anything but a chunk."""
    answer = client.ask(case.request)
    if answer.status != 200:
        raise RuntimeError(f"/act answered {answer.status}: {answer.body[:300]!r}")
    stages = orjson.loads(answer.body)["stages_ms"]
    case.inside_ms.append(stages["vlm_prefix_ms"] + stages["expert_denoise_ms"])
    return answer.duration_ms


def measure_overhead(
    exports: Sequence[Measured],
    sizes: Sequence[tuple[int, int]],
    counts: Sequence[int],
    rounds: int,
    requests: int,
) -> list[Case]:
    """All cases, each visited `rounds` times in turn."""
    done: list[Case] = []
    for measured in exports:
        bare = bare_inference(measured)
        cases = cases_of(measured, sizes, counts)
        with served(measured) as port:
            clients = [Client(port) for _ in range(max(counts))]
            for case in cases:  # warm: the first picture of a size is allocated for
                run_round(case, bare, clients, 2)
                case.forget()
            for _ in range(rounds):
                for case in cases:
                    # the same number of requests per case would let sixteen clients take most of the time
                    run_round(case, bare, clients, max(requests // case.clients, 5))
            for client in clients:
                client.close()
        done += cases
    return done


def slow_export(folder: Path, wanted_ms: float) -> Measured:
    """An export whose inference takes about `wanted_ms` on this machine."""
    probe = bare_inference(made_export(folder, size=32, run_work=PROBE_WORK))
    cost_ms = min(milliseconds(probe) for _ in range(5)) / PROBE_WORK
    return made_export(folder, size=32, run_work=max(1, round(wanted_ms / cost_ms)))


def measure_health(folder: Path, seconds: float) -> dict[str, object]:
    """/health on one connection while another keeps a slow inference running."""
    measured = slow_export(folder, SLOW_MS)
    [case] = [case for case in cases_of(measured, [(224, 224)], [1]) if case.kind == "jpeg"]
    with served(measured) as port:
        asker, watcher = Client(port), Client(port)
        one_request(case, asker)
        stop = threading.Event()

        def keep_busy() -> None:
            while not stop.is_set():
                one_request(case, asker)

        thread = threading.Thread(target=keep_busy)
        thread.start()
        busy_ms = ask_health(watcher, seconds)
        stop.set()
        thread.join()
        idle_ms = ask_health(watcher, seconds / 2)  # what the machine alone does to the figures
        asker.close()
        watcher.close()
    return {
        "inference p50": percentiles(case.inside_ms)[0], "inferences": len(case.inside_ms), "asked": len(busy_ms),
        "/health p50": percentiles(busy_ms)[0], "/health p99": percentiles(busy_ms)[1], "/health max": max(busy_ms),
        "idle p50": percentiles(idle_ms)[0], "idle max": max(idle_ms),
    }  # fmt: skip


def ask_health(client: Client, seconds: float) -> list[float]:
    """How long each answer took."""
    durations_ms: list[float] = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        durations_ms.append(client.ask(get("/health")).duration_ms)
        time.sleep(0.005)
    return durations_ms


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything and print three tables; all times in ms."""
    options = parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=4, help="how often each case is visited (default 4)")
    options.add_argument("--requests", type=int, default=36, help="requests per case and round (default 36)")
    options.add_argument(
        "--clients", type=int, nargs="+", default=[1, 4, 16], help="clients at once (1 4 16)"
    )
    options.add_argument(
        "--health-seconds", type=float, default=8.0, help="how long /health is asked (default 8)"
    )
    arguments = options.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cases = measure_overhead(
            [made_export(folder), embedded()], SIZES, arguments.clients, arguments.rounds, arguments.requests
        )
        health = measure_health(folder, arguments.health_seconds)
    overhead = [case.row() for case in cases]
    fairness = [case.fairness() for case in cases if case.clients > 1]
    print("POST /act against the bare session of the same graph, ms")
    print(table(overhead))
    if fairness:
        print("\nfairness, ms")
        print(table(fairness))
    print("\n/health while an inference runs, ms")
    print(table([health]))
    finish("act_overhead", {"overhead": overhead, "fairness": fairness, "health": health}, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
