# SPDX-License-Identifier: Apache-2.0
"""The scene of a run: three servers, the node, their robots, the cloud that can lie; built from one seed, taken down again."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.policy_files import arm, make_export
from benchmarks.chaos.robots import Robot, Run
from benchmarks.chaos.ros_arm import RosArm, dds
from benchmarks.chaos.supervised import Server, free_port, small_disk
from benchmarks.exports import ROOT

sys.path.append(str(ROOT / "test" / "support"))
import lying_server
from domains import free_domain

DEADLINE_MS = 300.0
DISK_MEGABYTES = 64
SAMPLE_S = 1.0
BROKEN = "the benchmark itself failed"
LIE = "current"  # the path of the cloud that does what `Cloud.lie` says
GOOD = "good"
COMMON = [
    "--deadline-ms", str(DEADLINE_MS), "--max-consecutive-crashes", "5", "--breaker-cooldown-s", "0.5", "--slo", "p99=2000ms",
    "--slo-mode", "log_only", "--record-images", "hash_only",
]  # fmt: skip
# robots by server: name and wire
ROBOTS = {
    "pair": ("json", "raw", "msgpack", "json"),
    "edge": ("json", "raw", "openpi", "groot"),
    "so100": ("json", "msgpack", "lerobot"),
    "node": ("json",),
}


class Cloud:
    """The fallback server; `lie` names what it answers."""

    def __init__(self) -> None:
        self.lie = GOOD
        lying_server.LIES[LIE] = self._answer
        self.server = lying_server.LyingServer()

    async def _answer(self, request: Any) -> Any:
        return await lying_server.LIES[self.lie](request)


@dataclass(slots=True)
class Scene:
    """Everything of a run. disk: whether `so100` records on a small file system of its own."""

    run: Run
    folder: Path
    servers: dict[str, Server]
    robots: list[Robot]
    cloud: Cloud
    ros: RosArm | None
    disk: bool
    threads: list[threading.Thread] = field(default_factory=list)

    def of(self, server: Server) -> list[Robot]:
        """Return a server's robots."""
        return [robot for robot in self.robots if robot.server is server]


@contextmanager
def scene(run: Run, folder: Path, *, ros: bool = True) -> Iterator[Scene]:
    """Begin everything; gives the scene once every server serves."""
    with ExitStack() as stack:
        panda, other = make_export(folder / "panda", "panda"), make_export(folder / "other", "panda", seed=2)
        so100 = make_export(folder / "so100", "so100")
        for export, embodiment in ((panda, "franka"), (other, "franka"), (so100, "so100")):
            run.truth.add(export, embodiment)
        cloud = Cloud()
        cloud.server.start()
        stack.callback(cloud.server.stop)
        disk = stack.enter_context(small_disk(folder / "small", DISK_MEGABYTES))
        servers = {
            "pair": server(folder, "pair", "panda", [
                "--policy-a", str(panda), "--policy-b", str(other), "--no-ros", "--no-rtc", "--embodiment", "franka",
            ]),
            "edge": server(folder, "edge", "panda", [
                str(panda), "--no-ros", "--embodiment", "franka", "--cloud-fallback", cloud.server.url(LIE),
                "--cloud-timeout-ms", "400",
            ], groot=free_port()),
            "so100": server(folder, "so100", "so100", [
                str(so100), "--no-ros", "--embodiment", "so100", "--lerobot-units", "radians",
            ], records=folder / "small", lerobot=free_port()),
        }  # fmt: skip
        domain = 0
        if ros:
            domain = free_domain()
            servers["node"] = server(folder, "node", "panda", [
                str(panda), "--embodiment", "franka", "--controller-wait-s", "30",
            ])  # fmt: skip
            servers["node"].environment = dds(domain)
        arm_process = RosArm(servers["node"], run, domain) if ros else None
        if arm_process:
            arm_process.start()
            stack.callback(arm_process.end)
        for each in servers.values():
            stack.callback(ended, each)
            each.start()
        robots = [
            Robot(f"{name}-{wire}-{number}", servers[name], wire, run)
            for name, wires in ROBOTS.items()
            for number, wire in enumerate(wires)
            if name in servers
        ]
        yield Scene(run, folder, servers, robots, cloud, arm_process, disk)


def server(
    folder: Path, name: str, kind: str, command: list[str], records: Path | None = None, **ports: int
) -> Server:
    """Return a server that has not begun."""
    for wire, port in ports.items():
        command = [*command, f"--{wire}-port", str(port)]
    return Server(
        name, arm(kind), [*command, *COMMON], folder, (records or folder / "records") / name,
        {"http": free_port(), **ports}, DEADLINE_MS,
    )  # fmt: skip


def ended(server: Server) -> None:
    """End a process that is still there, whatever went wrong before."""
    if server.lives and server.life.process.poll() is None:
        server.kill()


@contextmanager
def at_work(found: Scene) -> Iterator[None]:
    """Let the robots ask, and note how the servers' processes are, until this is left."""
    run = found.run
    works = {robot.name: robot.work for robot in found.robots}
    works |= {"oversleep": lambda: run.oversleep.run(run.stop), "watch": lambda: watch(found)}
    for name, work in works.items():
        thread = threading.Thread(target=to_its_end, args=(run, name, work), daemon=True)
        thread.start()
        found.threads.append(thread)
    try:
        yield
    finally:
        run.stop.set()
        for thread in found.threads:
            thread.join(60)


def to_its_end(run: Run, name: str, work: Callable[[], None]) -> None:
    """Work on a thread; one that ends by an exception would be missed by nothing else."""
    try:
        work()
    except Exception as error:
        run.violate(BROKEN, f"the thread {name} of this benchmark ended: {error!r}", robot=name)
        raise


def watch(found: Scene) -> None:
    """Take a sample of every server, again and again."""
    while not found.run.stop.wait(SAMPLE_S):
        for each in found.servers.values():
            each.sample()


def document(path: Path, results: dict[str, Any]) -> None:
    """Write the JSON file of a run."""
    path.write_text(json.dumps(results, indent=1, default=str) + "\n", encoding="utf-8")
