# SPDX-License-Identifier: Apache-2.0
"""Robots: each a thread with a wire of its own that asks, judges what comes back, and asks again."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from benchmarks.chaos.judge import (
    ERROR,
    LIMITS,
    WRONG,
    Answered,
    Asked,
    Memory,
    judge,
    refusal,
    unrepeated,
    within_limits,
)
from benchmarks.chaos.policy_files import sick_in
from benchmarks.chaos.robot_wires import Heard, speaker
from benchmarks.chaos.supervised import CONNECTION, Server
from benchmarks.chaos.truth import SEEDS, Sight, Truth, catalogue
from reflex_core.values import POLICY, Floats

PROBE_S = 0.01
WINDOW_S = 60.0
SLACK_FACTOR = 4.0  # how often a thread that oversleeps may do so on the way of one request
AWAY_S = 0.2  # between two attempts to reach a server that is gone
WILD = 0.4  # rad from the rest pose: so far that the guard changes each chunk


@dataclass(frozen=True, slots=True)
class Violation:
    """What must not be. at_s: since the begin of the run; done: how many requests had been answered."""

    kind: str
    text: str
    server: str
    robot: str
    at_s: float
    done: int


class Oversleep:
    """How late threads of this process wake up: what the machine's load alone does to a client's figures."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Sleep and measure until the stop."""
        while not stop.is_set():
            began_s = time.monotonic()
            time.sleep(PROBE_S)
            now_s = time.monotonic()
            with self._lock:
                self._late.append((now_s, now_s - began_s - PROBE_S))
                while self._late and self._late[0][0] < now_s - WINDOW_S:
                    self._late.pop(0)

    def worst_ms(self, since_s: float) -> float:
        """Return the longest oversleep since then, or that still lasts."""
        with self._lock:
            found = [late_s for at_s, late_s in self._late if at_s >= since_s]
            open_s = time.monotonic() - self._late[-1][0] - PROBE_S if self._late else 0.0
        return max([0.0, open_s, *found]) * 1e3


@dataclass(slots=True)
class Run:
    """What all robots share. excused_ms: pauses that a fault has made, by server."""

    truth: Truth
    seed: int
    began_s: float = field(default_factory=time.monotonic)
    done: int = 0
    audited: int = 0  # answers that were looked for in the records
    between_lives: int = 0  # answers that were not, as either of two lives may have given them
    over: threading.Event = field(default_factory=threading.Event)  # no more faults
    stop: threading.Event = field(default_factory=threading.Event)
    violations: list[Violation] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    oversleep: Oversleep = field(default_factory=Oversleep)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def violate(self, kind: str, text: str, server: str = "", robot: str = "") -> None:
        """Note a violation."""
        with self.lock:
            at_s = time.monotonic() - self.began_s
            self.violations.append(Violation(kind, text, server, robot, at_s, self.done))
            print(
                f"VIOLATION {kind}: {text} [{server} {robot}] at {at_s:.1f} s, request {self.done}",
                flush=True,
            )

    def count_between_lives(self) -> None:
        """Count an answer that is not looked for in the records: its server began anew while it was awaited."""
        with self.lock:
            self.between_lives += 1

    def count(self, outcome: str, compared: str = "") -> None:
        """Count an answered request."""
        with self.lock:
            self.done += 1
            self.outcomes[outcome] += 1
            if compared:
                self.compared[compared] += 1


@dataclass(slots=True)
class Robot:
    """One robot of a server. good_s: when the newest chunk of its policy came."""

    name: str
    server: Server
    wire: str
    run: Run
    pace_s: float = 0.0
    good_s: float = 0.0
    sick_until_s: float = 0.0
    memory: Memory = field(default_factory=Memory)
    _sick: str = ""
    _number: int = 0

    @contextmanager
    def sick(self, band: str) -> Iterator[None]:
        """Send it where the model is sick, or (`wild`) far from its rest pose."""
        self._sick = band
        try:
            yield
        finally:
            self._sick = ""
            self.sick_until_s = time.monotonic() + 3.0

    def work(self) -> None:
        """Ask until the run stops."""
        draw = random.Random(f"{self.run.seed} {self.name}")
        sights = catalogue(self.server.arm, self.run.seed)
        line = speaker(self.wire, self.server.ports, self.server.arm.joints)
        while not self.run.stop.is_set():
            asked = self._next(draw, sights)
            began_s = time.monotonic()
            life = self.server.life
            try:
                heard = line.ask(asked)
            except OSError as error:
                self._unanswered(error, began_s)
                continue
            try:
                self._answered(asked, heard, began_s)
                if heard.rows is not None and heard.block is not None:
                    request_id = str(heard.block["request"]["request_id"])  # not every wire takes one
                    if self.server.life is life:
                        life.answers[request_id] = (digest(heard.rows), time.monotonic())
                    else:  # ZeroMQ connects again by itself: either of two processes has answered
                        self.run.count_between_lives()
            except (KeyError, TypeError, ValueError) as error:
                self.run.violate(WRONG, f"an answer in another form: {error!r}", self.server.name, self.name)
            if self.pace_s:
                time.sleep(self.pace_s)
        line.close()

    def _next(self, draw: random.Random, sights: list[Sight]) -> Asked:
        self._number += 1
        sight, sick = draw.choice(sights), self._sick
        if sick == "wild":
            sight = sight.at(WILD)
        elif sick:
            sight = sight.at(sick_in(sick))
        elapsed, previous = None, ""
        if self.wire in ("json", "raw", "msgpack") and self.memory.answers and draw.random() < 0.5:
            elapsed, previous = float(draw.randint(1, 6)), self.memory.answers[-1].request_id
        raw = self.wire not in ("json",)
        healthy = not sick and time.monotonic() > self.sick_until_s
        return Asked(
            self.name, self.wire, sight, raw, draw.randrange(SEEDS), f"{self.name}-{self._number}", elapsed, previous,
            healthy,
        )  # fmt: skip

    def _answered(self, asked: Asked, heard: Heard, began_s: float) -> None:
        now_s, server = time.monotonic(), self.server
        if heard.rows is None:
            problems = refusal(heard.status, heard.document, server.excused(began_s), asked.healthy)
            slug = (
                heard.document["error"]
                if isinstance(heard.document, dict) and "error" in heard.document
                else "?"
            )
            self.run.count(f"{heard.status} {slug}")
            compared = ""
            time.sleep(0.01)  # what a robot does that is refused: not at once again
        elif heard.block is None:
            problems, compared = self._bare(asked, heard), "limits"
            self.run.count("200 rows alone" if len(heard.rows) else "200 nothing", compared)
        else:
            slack_ms = SLACK_FACTOR * self.run.oversleep.worst_ms(began_s - PROBE_S)
            if CONNECTION in server.excused(began_s):
                slack_ms = float("inf")  # it was paused or begun again
            answered = Answered(heard.rows, heard.block, (now_s - began_s) * 1e3, slack_ms)
            verdict = judge(asked, answered, server.arm, self.run.truth, self.memory, server.deadline_ms)
            problems = list(verdict.problems)
            self.run.count(f"200 {answered.source}", verdict.compared)
            if answered.source == POLICY:
                self.good_s = now_s
        for kind, text in problems:
            self.run.violate(
                kind, f"{text} (sight {asked.sight.number}, seed {asked.seed})", server.name, self.name
            )

    def _bare(self, asked: Asked, heard: Heard) -> list[tuple[str, str]]:
        """Judge rows without telemetry: their range and speed, in the robot's own units."""
        assert heard.rows is not None
        if not len(heard.rows):
            return []
        self.good_s = time.monotonic()
        answered = Answered(heard.rows, {"chunk": {"source": POLICY}})
        found = within_limits(asked, answered, self.server.arm, self.memory)
        return [(kind, text) for kind, text in found if kind != LIMITS or "first row" not in text]

    def _unanswered(self, error: OSError, began_s: float) -> None:
        if CONNECTION not in self.server.excused(began_s) and not self.run.stop.is_set():
            self.run.violate(ERROR, f"no answer: {error}", self.server.name, self.name)
        self.run.count("no answer")
        self.memory.answers.clear()
        time.sleep(AWAY_S)


def digest(rows: Floats) -> int:
    """Return 64 bits of the rows; some wires repeat the last one, which is no other answer."""
    data = np.ascontiguousarray(unrepeated(rows), np.float32).tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def until(condition: Callable[[], bool], seconds: float) -> float | None:
    """Return how long it took until the condition held; None where it did not."""
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > seconds:
            return None
        time.sleep(0.02)
    return time.monotonic() - began_s
