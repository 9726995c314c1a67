# SPDX-License-Identifier: Apache-2.0
"""POST /act against the bare ONNX Runtime session of the same graph and against the floor, in one run.

The servers are processes of their own: this checkout, the same once more (null), the floor, which is the smallest aiohttp
server that answers the same bytes from a thread, and with --against another checkout. Blocks of bare inferences and of
requests to each server take turns, so that a noisy machine hurts all of them. Overhead is the time of a reply minus the median
of the bare inferences of its round; with more clients than one it holds the wait for the others' inferences too, so there
the share of the ideal is printed: the bare inferences that N requests need one after the other, divided by the time they
really took together. `cpu` is the server's processor time per request, all times in ms. The bare session has one thread.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson

from benchmarks.cpu_per_request import cpu_s
from benchmarks.exports import Bare, Measured, bare_inference, embedded, made_export, policy_of
from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from benchmarks.server import Client, act_body, get, listening, post_act, served, serving

SIZES = ((224, 224), (480, 640))
KINDS = ("jpeg", "raw", "msgpack")
NOW, NULL, FLOOR, BEFORE = "now", "null", "floor", "before"
SLOW_MS = 400.0
PROBE_WORK = 20


@dataclass(slots=True)
class Side:
    """One server and a client of aiohttp's for it."""

    pid: int
    url: str
    session: aiohttp.ClientSession


@dataclass(slots=True)
class Figures:
    """What one server did on one case. over_ms: each reply minus its round's bare median."""

    reply_ms: list[list[float]]
    over_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def replies(self) -> list[float]:
        """All of them."""
        return [value for one in self.reply_ms for value in one]


@dataclass(slots=True)
class Case:
    """One row of the table, filled round by round."""

    export: str
    height: int
    width: int
    kind: str
    clients: int
    content_type: str
    body: bytes
    bare_ms: list[float] = field(default_factory=list)
    sides: dict[str, Figures] = field(default_factory=dict)

    @property
    def name(self) -> dict[str, object]:
        """The columns that say which case it is."""
        image = f"{self.width}x{self.height}"
        return {"export": self.export, "image": image, "kind": self.kind, "clients": self.clients}

    def row(self) -> dict[str, object]:
        """The figures of this case."""
        bare, now = percentiles(self.bare_ms), self.sides[NOW]
        reply, over = percentiles(now.replies), percentiles(now.over_ms)
        floor = percentiles(self.sides[FLOOR].replies)[0]
        cpu = {side: statistics.median(figures.cpu_ms) for side, figures in self.sides.items()}
        row = self.name | {
            "requests": len(now.replies), "bare p50": bare[0], "/act p50": reply[0], "/act p99": reply[1],
            "over p50": over[0], "null over": percentiles(self.sides[NULL].over_ms)[0], "floor p50": floor,
            "over floor": over[0] - floor, "ideal": bare[0] * len(now.replies) / (now.wall_s * 1e3),
            "per second": len(now.replies) / now.wall_s, "cpu": cpu[NOW], "null cpu": cpu[NULL],
        }  # fmt: skip
        if BEFORE in self.sides:
            before = self.sides[BEFORE]
            rate = len(before.replies) / before.wall_s
            row |= {
                "before over": percentiles(before.over_ms)[0], "before cpu": cpu[BEFORE],
                "cpu ratio": cpu[NOW] / cpu[BEFORE] if cpu[BEFORE] else None,
                "rate ratio": len(now.replies) / now.wall_s / rate,
            }  # fmt: skip
        return row

    def fairness(self) -> dict[str, object]:
        """How evenly the clients were served: their own means, and the longest wait."""
        own = self.sides[NOW]
        means, median = [sum(one) / len(one) for one in own.reply_ms], percentiles(own.replies)[0]
        return self.name | {
            "fastest client's mean": min(means), "slowest client's mean": max(means),
            "slowest/fastest": max(means) / min(means), "longest wait": max(own.replies),
            "longest/median": max(own.replies) / median,
        }  # fmt: skip


def cases_of(
    measured: Measured, sizes: Sequence[tuple[int, int]], kinds: Sequence[str], clients: Sequence[int]
) -> list[Case]:
    """Every size, encoding and number of clients for one export."""
    camera, state = camera_and_state(measured)
    return [
        Case(measured.name, height, width, kind, count, *act_body(camera, state, height, width, kind))
        for height, width in sizes for kind in kinds for count in clients
    ]  # fmt: skip


def camera_and_state(measured: Measured) -> tuple[str, list[float]]:
    """The robot's name of the first camera, and a state that is taken."""
    policy = policy_of(measured)
    canary = policy.canary()
    state = [] if canary.state is None else canary.state.tolist()
    return policy.binding.cameras[policy.contract.images[0].camera], state


async def ask(side: Side, case: Case) -> bytes:
    """Ask once. Raises RuntimeError for anything but a chunk."""
    async with side.session.post(
        side.url, data=case.body, headers={"Content-Type": case.content_type}
    ) as reply:
        body = await reply.read()
        if reply.status != 200:
            raise RuntimeError(f"/act answered {reply.status}: {body[:300]!r}")
    return body


async def block(side: Side, case: Case, requests: int, figures: Figures, bare_ms: float) -> None:
    """`requests` of every client, all clients at once. The first of several is not timed: it meets a queue that still grows."""

    async def client(index: int) -> None:
        for number in range(requests + (case.clients > 1)):
            began = time.perf_counter()
            await ask(side, case)
            if number or case.clients == 1:
                taken_ms = (time.perf_counter() - began) * 1e3
                figures.reply_ms[index].append(taken_ms)
                figures.over_ms.append(taken_ms - bare_ms)

    before_s, began = cpu_s(side.pid), time.perf_counter()
    await asyncio.gather(*(client(index) for index in range(case.clients)))
    wall_s, count = time.perf_counter() - began, case.clients * (requests + (case.clients > 1))
    figures.cpu_ms.append((cpu_s(side.pid) - before_s) / count * 1e3)
    figures.wall_s += wall_s * case.clients * requests / count


async def run_round(case: Case, bare: Bare, sides: dict[str, Side], requests: int, *, turned: bool) -> None:
    """Bare inferences, then a block of each server; every second round the other way round."""
    bare_ms = [milliseconds(bare) for _ in range(requests)]
    case.bare_ms += bare_ms
    for name in reversed(sides) if turned else sides:
        figures = case.sides.setdefault(name, Figures([[] for _ in range(case.clients)]))
        await block(sides[name], case, requests, figures, statistics.median(bare_ms))


async def measure_export(
    measured: Measured, cases: Sequence[Case], before: Path | None, rounds: int, requests: int, threads: int
) -> None:
    """All cases of one export, each visited `rounds` times in turn."""
    bare = bare_inference(measured)
    with ExitStack() as stack:
        found = {name: stack.enter_context(serving(measured, threads)) for name in (NOW, NULL)}
        if before is not None:
            found[BEFORE] = stack.enter_context(serving(measured, threads, checkout=before))
        sides = {name: side_of(*where) for name, where in found.items()}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = []
        for content_type in dict.fromkeys(case.content_type for case in cases):
            [first, *_] = [case for case in cases if case.content_type == content_type]
            files.append(folder / f"reply.{content_type.rpartition('/')[2]}")
            files[-1].write_bytes(await ask(sides[NOW], first))
        floor = listening([sys.executable, "-m", "benchmarks.floor", *map(str, files)])
        sides[FLOOR] = side_of(*stack.enter_context(floor))
        for number in range(rounds + 1):
            for case in cases:
                # the same number of requests per case would let sixteen clients take most of the time
                count = max(requests // case.clients, 5) if number else 2
                await run_round(case, bare, sides, count, turned=number % 2 == 1)
                if not number:  # warm: the first picture of a size is allocated for
                    case.bare_ms, case.sides = [], {}
        for side in sides.values():
            await side.session.close()


def side_of(pid: int, port: int) -> Side:
    """A client of a server that runs."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    return Side(pid, f"http://127.0.0.1:{port}/act", session)


def slow_export(folder: Path, wanted_ms: float) -> Measured:
    """An export whose inference takes about `wanted_ms` on this machine."""
    probe = bare_inference(made_export(folder, size=32, run_work=PROBE_WORK))
    cost_ms = min(milliseconds(probe) for _ in range(5)) / PROBE_WORK
    return made_export(folder, size=32, run_work=max(1, round(wanted_ms / cost_ms)))


def measure_health(folder: Path, seconds: float) -> dict[str, object]:
    """/health on one connection while another keeps a slow inference running."""
    measured = slow_export(folder, SLOW_MS)
    request, inside_ms = post_act(*camera_and_state(measured), 224, 224, "jpeg"), list[float]()
    with served(measured) as port:
        asker, watcher = Client(port), Client(port)
        asker.ask(request)
        stop = threading.Event()

        def keep_busy() -> None:
            while not stop.is_set():
                stages = orjson.loads(asker.ask(request).body)["stages_ms"]
                inside_ms.append(stages["vlm_prefix_ms"] + stages["expert_denoise_ms"])

        thread = threading.Thread(target=keep_busy)
        thread.start()
        busy_ms = ask_health(watcher, seconds)
        stop.set()
        thread.join()
        idle_ms = ask_health(watcher, seconds / 2)  # what the machine alone does to the figures
        asker.close()
        watcher.close()
    return {
        "inference p50": percentiles(inside_ms)[0], "inferences": len(inside_ms), "asked": len(busy_ms),
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
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="how the image is sent (all)"
    )
    options.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of one operator of the servers; 0: each checkout's default (1)",
    )
    options.add_argument("--against", type=Path, help="another checkout that takes its turns, too")
    options.add_argument(
        "--health-seconds", type=float, default=8.0, help="how long /health is asked (default 8)"
    )
    options.add_argument("--exports", nargs="+", choices=("made", "embedded"), default=["made", "embedded"])
    chosen = options.parse_args(argv)
    before = chosen.against.resolve() if chosen.against else None
    cases: list[Case] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = {"made": made_export(folder), "embedded": embedded()}
        for measured in (made[name] for name in chosen.exports):
            own = cases_of(measured, SIZES, chosen.kinds, chosen.clients)
            asyncio.run(measure_export(measured, own, before, chosen.rounds, chosen.requests, chosen.threads))
            cases += own
        health = measure_health(folder, chosen.health_seconds)
    overhead = [case.row() for case in cases]
    fairness = [case.fairness() for case in cases if case.clients > 1]
    print("POST /act against the bare session and the floor, ms")
    print(table(overhead))
    if fairness:
        print("\nfairness, ms")
        print(table(fairness))
    print("\n/health while an inference runs, ms")
    print(table([health]))
    finish("act_overhead", {"overhead": overhead, "fairness": fairness, "health": health}, chosen.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
