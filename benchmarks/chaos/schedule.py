# SPDX-License-Identifier: Apache-2.0
"""When which fault is injected: all of it drawn from the seed, paced by answered requests and not by time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos.dds_injections import DDS_KINDS
from benchmarks.chaos.injections import DISK_KINDS, HTTP_KINDS, Kind
from benchmarks.chaos.robots import SLACK_FACTOR, until
from benchmarks.chaos.scene import Scene
from benchmarks.chaos.supervised import Server

WARM_UP = 0.05  # of the requests, before the first fault
SERVED_AGAIN_S = 20.0  # after a fault ends, however it ended: each robot has a chunk of its policy again
NODE_AGAIN_S = 60.0  # discovery of killed participants, on a machine that others use
UNSERVED = "not served again"
CRASHED = "the injection itself failed"


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come. after: answered requests. seed: of everything it draws."""

    number: int
    kind: Kind
    server: str
    after: int
    seed: int


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was. began_s, took_s: since the begin of the run. again_s: until the last robot was served."""

    number: int
    kind: str
    server: str
    began_s: float
    took_s: float
    again_s: float
    seen: str


def kinds_of(scene: Scene) -> list[Kind]:
    """Return the kinds that this machine and this scene permit."""
    return [*HTTP_KINDS, *(DISK_KINDS if scene.disk else ()), *(DDS_KINDS if scene.ros else ())]


def plan(
    kinds: Sequence[Kind], servers: Sequence[str], requests: int, faults: int, seed: int
) -> list[Planned]:
    """Return the schedule: decks of all kinds in a drawn order, evenly over the requests. The same for the same arguments."""
    draw = random.Random(f"schedule {seed}")
    deck: list[Kind] = []
    planned = []
    for number in range(faults):
        if not deck:
            deck = draw.sample(list(kinds), len(kinds))
        kind = deck.pop()
        where = draw.choice([name for name in kind.where if name in servers])
        after = int(requests * (WARM_UP + (1 - WARM_UP) * number / max(faults, 1)))
        planned.append(Planned(number, kind, where, after, draw.randrange(1 << 32)))
    return planned


class Injector:
    """Injects a schedule: a thread for each server, so that faults of different servers overlap, and on one follow each other."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.injected: list[Injected] = []

    def run(self, planned: Sequence[Planned]) -> None:
        """Inject everything that the run lives to see; returns at the end of the last one."""
        threads = [
            threading.Thread(
                target=self._run_on,
                args=(server, [each for each in planned if each.server == name]),
                daemon=True,
            )
            for name, server in self._scene.servers.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run_on(self, server: Server, planned: Sequence[Planned]) -> None:
        run = self._scene.run
        for each in planned:
            while run.done < each.after and not run.over.is_set():
                time.sleep(0.01)
            if run.over.is_set():
                break
            self._inject(each, server)

    def _inject(self, each: Planned, server: Server) -> None:
        run = self._scene.run
        began_s = time.monotonic()
        try:
            seen = each.kind.inject(self._scene, server, random.Random(each.seed))
        except Exception as error:
            seen = f"failed: {error!r}"
            run.violate(CRASHED, f"fault {each.number} {each.kind.name}: {error!r}", server.name)
        ended_s = time.monotonic()
        again_s = self._served_again(each, server, ended_s)
        fault = Injected(
            each.number, each.kind.name, server.name, began_s - run.began_s, ended_s - began_s, again_s, seen
        )
        with run.lock:
            self.injected.append(fault)

    def _served_again(self, each: Planned, server: Server, ended_s: float) -> float:
        """Return how long it took until every robot of the server had a chunk of its policy again."""
        scene = self._scene
        waiting = [(robot.name, robot, SERVED_AGAIN_S) for robot in scene.of(server)]
        if scene.ros is not None and server is scene.ros.node:
            waiting.append((scene.ros.name, scene.ros, NODE_AGAIN_S))  # type: ignore[arg-type]
        longest = 0.0
        for name, robot, most_s in waiting:
            slack_s = SLACK_FACTOR * scene.run.oversleep.worst_ms(ended_s) / 1e3
            took_s = until(
                lambda robot=robot: robot.good_s > ended_s or scene.run.stop.is_set(), most_s + slack_s
            )  # type: ignore[misc]
            if took_s is None:
                text = f"not within {most_s:.0f} s after fault {each.number} ({each.kind.name}) ended"
                scene.run.violate(UNSERVED, text, server.name, name)
            longest = max(longest, robot.good_s - ended_s)
        return max(longest, 0.0)
