# SPDX-License-Identifier: Apache-2.0
"""Simulate a fleet: robots with their own clocks against real servers behind the real HAProxy, while servers die and are updated.

Each robot sends an observation every period, executes the newest chunk row by row, and says how many of its rows are over.
The network is simulated at the robot: a delay both ways with jitter, and for a lost packet the 200 ms after which TCP sends
it again. In order: quiet, SIGKILL of one server and its restart, a rolling update of all servers. `--ray`: Ray Serve in
place of HAProxy, a replica killed, no update. A late chunk comes after the next observation was due.
"""

from __future__ import annotations

import asyncio
import base64
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import simplejpeg

from benchmarks.balanced import Fleet, fleet
from benchmarks.measure import finish, parser, percentiles, table
from benchmarks.ray_serve import ray_serve, replicas
from benchmarks.server import picture

HOME = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]  # rad
LOST_S = 0.2  # Linux's smallest time before TCP sends again
GIVE_UP_S = 10.0
USED = 0.6  # of a server's cores: the rest is for bursts, and for the robots of a server that is down
SERVER_CORES = 8
QUIET, KILLED, UPDATED = "quiet", "a server killed", "rolling update"

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Network:
    """The way between robot and balancer. delay_s: one way; jitter_s: up to so much more; loss: share of messages."""

    delay_s: float
    jitter_s: float
    loss: float

    def crossing_s(self, chance: random.Random) -> float:
        """Return how long one message takes."""
        return (
            self.delay_s + chance.random() * self.jitter_s + (LOST_S if chance.random() < self.loss else 0.0)
        )


@dataclass(slots=True)
class Tally:
    """What happened in one phase. gaps_s: times that a robot had no valid command."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    late: int = 0
    moved: int = 0
    gaps_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0

    def row(self, phase: str) -> Row:
        """Return the line of the table."""
        p50, p99 = percentiles(self.latencies_ms)
        requests = len(self.latencies_ms) + sum(self.failed.values())
        return {
            "phase": phase, "s": self.seconds, "requests": requests, "failed": sum(self.failed.values()), "late": self.late,
            "moved": self.moved, "p50 ms": p50, "p99 ms": p99, "longest without a command s": max(self.gaps_s, default=0.0),
        }  # fmt: skip


@dataclass(slots=True)
class Robot:
    """One robot. valid_until_s: the end of the chunk that it executes, on the monotonic clock."""

    session: str
    chance: random.Random
    request_id: str = ""
    observed_s: float = 0.0
    dt_s: float = 0.05
    valid_until_s: float = 0.0


class Phases:
    """The tally of the phase that is going on."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}
        self.now = Tally()
        self.cost: dict[str, float] = {}
        self._began_s = 0.0

    def begin(self, name: str) -> None:
        """End the phase before and begin one."""
        self.end()
        self.now = self.tallies[name] = Tally()
        self._began_s = time.monotonic()

    def end(self) -> None:
        """Note how long the phase took."""
        self.now.seconds = time.monotonic() - self._began_s


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line per phase. 0: nothing was lost that need not be; 1: something was."""
    options = parser(__doc__ or "")
    options.add_argument("--robots", type=int, default=12)
    options.add_argument("--servers", type=int, default=3)
    options.add_argument(
        "--period", type=float, default=1.0, help="seconds between a robot's observations [1]"
    )
    options.add_argument(
        "--seconds", type=float, default=20.0, help="of the quiet phase, and after each event [20]"
    )
    options.add_argument("--delay-ms", type=float, default=5.0, help="of the network, one way [5]")
    options.add_argument("--jitter-ms", type=float, default=5.0)
    options.add_argument("--loss", type=float, default=0.005, help="share of lost messages [0.005]")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--extrapolate", type=int, default=10_000, help="robots to compute the fleet for [10000]"
    )
    options.add_argument(
        "--core-hour", type=float, default=0.04, help="price of a core for an hour, your own [0.04]"
    )
    options.add_argument("--ray", action="store_true", help="Ray Serve in place of HAProxy")
    chosen = options.parse_args(argv)
    network = Network(chosen.delay_ms * 1e-3, chosen.jitter_ms * 1e-3, chosen.loss)
    robots = [Robot(f"robot-{n:04}", random.Random(f"{chosen.seed} {n}")) for n in range(chosen.robots)]
    with ExitStack() as stack:
        if chosen.ray:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            port = stack.enter_context(ray_serve(chosen.servers, folder))
            script: Callable[[Phases], object] = partial(_ray_events, seconds=chosen.seconds)
        else:
            running = stack.enter_context(fleet(chosen.servers))
            port, script = running.port, partial(_events, running, seconds=chosen.seconds)
        phases = asyncio.run(_run(robots, port, network, chosen.period, script))
    rows = [tally.row(phase) for phase, tally in phases.tallies.items()]
    print(table(rows))
    if phases.cost:
        print(f"\na request, in the quiet phase\n{table([phases.cost])}")
        sized = extrapolated(phases.cost, chosen.extrapolate, chosen.period, chosen.core_hour)
        print(f"\n{chosen.extrapolate} such robots, by these figures\n{table([sized])}")
    causes = {phase: dict(tally.failed) for phase, tally in phases.tallies.items() if tally.failed}
    if causes:
        print(f"failed: {causes}")
    finish(
        "fleet_ray" if chosen.ray else "fleet",
        {"phases": rows, "request": phases.cost, "failed": causes},
        chosen.output,
    )
    return int(any(phases.tallies[name].failed for name in (QUIET, UPDATED) if name in phases.tallies))


def _cost(
    tally: Tally, processes: Sequence[int], balancer: int, before_s: Sequence[float]
) -> dict[str, float]:
    """Return what a request costs. before_s: processor time of the servers and the balancer when the phase began."""
    *servers_s, balancer_s = (
        cpu_s(process) - began for process, began in zip((*processes, balancer), before_s, strict=True)
    )
    requests = max(len(tally.latencies_ms), 1)
    return {
        "server CPU ms": 1e3 * sum(servers_s) / requests, "HAProxy CPU ms": 1e3 * balancer_s / requests,
        "KB sent": tally.sent_bytes / requests / 1e3, "KB received": tally.received_bytes / requests / 1e3,
        "server MB": max(map(rss_mb, processes)), "HAProxy MB": rss_mb(balancer),
    }  # fmt: skip


def extrapolated(cost: Mapping[str, float], robots: int, period_s: float, core_hour: float) -> Row:
    """Return what a fleet needs whose requests cost as the measured ones. Servers are loaded to USED of their cores."""
    per_s = robots / period_s
    cores = per_s * cost["server CPU ms"] * 1e-3 / USED
    balancer_cores = per_s * cost["HAProxy CPU ms"] * 1e-3 / USED
    return {
        "requests/s": per_s, "cores of servers": cores, f"servers of {SERVER_CORES} cores": math.ceil(cores / SERVER_CORES - 1e-9),
        "cores of HAProxy": balancer_cores, "Gbit/s in": per_s * cost["KB sent"] * 8e-6,
        "Gbit/s out": per_s * cost["KB received"] * 8e-6,
        "robots per core": robots / cores, "per 1,000 robot-hours": 1e3 * (cores + balancer_cores) * core_hour / robots,
    }  # fmt: skip


def cpu_s(process: int) -> float:
    """Return the processor time of a process."""
    cells = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(cells[11]) + int(cells[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(process: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _events(running: Fleet, phases: Phases, seconds: float) -> None:
    """What happens to the servers; runs in a thread."""
    processes = [server.process.pid for server in running.servers if server.process is not None]
    balancer = running.balancer.pid
    phases.begin(QUIET)
    before_s = [cpu_s(process) for process in (*processes, balancer)]
    time.sleep(seconds)
    phases.cost = _cost(phases.now, processes, balancer, before_s)
    phases.begin(KILLED)
    running.servers[0].kill()
    time.sleep(seconds / 2)
    running.servers[0].start()
    running.servers[0].wait_until_ready()
    running.wait_for_state("r1", "UP")
    time.sleep(seconds / 2)
    phases.begin(UPDATED)
    for server in running.servers:
        running.update(server)
    time.sleep(seconds / 2)
    phases.end()


def _ray_events(phases: Phases, seconds: float) -> None:
    phases.begin(QUIET)
    time.sleep(seconds)
    phases.begin(KILLED)
    count = len(replicas())
    os.kill(replicas()[0], signal.SIGKILL)
    time.sleep(seconds / 2)
    while len(replicas()) < count:
        time.sleep(0.2)
    time.sleep(seconds / 2)
    phases.end()


async def _run(
    robots: Sequence[Robot], port: int, network: Network, period_s: float, script: Callable[[Phases], object]
) -> Phases:
    jpeg = simplejpeg.encode_jpeg(picture(224, 224), quality=85, colorspace="RGB")
    phases, image = Phases(), {"images": {"camera": base64.b64encode(jpeg).decode()}}
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0)
    timeout = aiohttp.ClientTimeout(total=GIVE_UP_S)
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", connector=connector, timeout=timeout
    ) as client:
        warm = Phases()  # the first chunks count for no phase
        await asyncio.gather(*(_observe(robot, client, network, period_s, image, warm) for robot in robots))
        over = asyncio.Event()
        driving = [
            asyncio.create_task(_drive(robot, client, network, period_s, image, phases, over))
            for robot in robots
        ]
        await asyncio.get_running_loop().run_in_executor(None, script, phases)
        over.set()
        await asyncio.gather(*driving)
    return phases


async def _drive(
    robot: Robot,
    client: aiohttp.ClientSession,
    network: Network,
    period_s: float,
    image: Row,
    phases: Phases,
    over: asyncio.Event,
) -> None:
    due_s = time.monotonic() + robot.chance.random() * period_s
    while not over.is_set():
        await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
        await _observe(robot, client, network, period_s, image, phases)
        due_s = max(due_s + period_s, time.monotonic())  # a robot has one request under way


async def _observe(
    robot: Robot, client: aiohttp.ClientSession, network: Network, period_s: float, image: Row, phases: Phases
) -> None:
    """Send one observation and take over the chunk that comes."""
    observed_s = time.monotonic()
    fields = {**image, "state": HOME, "instruction": "reach the red block", "robot_id": robot.session}
    if robot.request_id:
        elapsed = (observed_s - robot.observed_s) / robot.dt_s
        fields |= {"previous_request_id": robot.request_id, "elapsed_rows": min(elapsed, 1000.0)}
    sent = orjson.dumps(fields)
    await asyncio.sleep(network.crossing_s(robot.chance))
    try:
        async with client.post("/act", data=sent, headers={"X-Session-Id": robot.session}) as response:
            body = await response.read()
            found = orjson.loads(body) if response.status == 200 else None
            failure = "" if found is not None else f"{response.status} {body[:120].decode(errors='replace')}"
    except (aiohttp.ClientError, asyncio.TimeoutError, orjson.JSONDecodeError) as error:
        found, failure = None, type(error).__name__
    await asyncio.sleep(network.crossing_s(robot.chance))
    now_s, tally = time.monotonic(), phases.now
    if robot.valid_until_s:
        tally.gaps_s.append(max(now_s - robot.valid_until_s, 0.0))
    if found is None:
        tally.failed[failure] += 1
        return
    tally.sent_bytes += len(sent)
    tally.received_bytes += len(body)
    tally.latencies_ms.append((now_s - observed_s) * 1e3)
    tally.late += now_s - observed_s > period_s
    tally.moved += found["rtc_reason"] == "moved"
    robot.request_id, robot.observed_s, robot.dt_s = found["request_id"], observed_s, found["dt_s"]
    robot.valid_until_s = observed_s + (found["start_index"] + len(found["actions"])) * found["dt_s"]


if __name__ == "__main__":
    sys.exit(main())
