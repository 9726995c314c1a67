# SPDX-License-Identifier: Apache-2.0
"""Every state of the operator page, made to be looked at: the embedded picking policy behind a real server, and a robot on paper.

What a browser is shown is what the server sends, of real chunks of the policy; only what would differ from one time to the
next (the clock, latencies, ages) is written here.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_core.files.share import PICK, embedded_policy
from reflex_core.reports import GuardReport
from reflex_core.settings.table import Settings
from reflex_core.values import HOLD, ROS, Frame, Observation, Request, Served
from reflex_ros.sidecar.auth import VARIABLE
from reflex_ros.sidecar.events import Hub
from reflex_ros.sidecar.history import RequestHistory
from reflex_ros.sidecar.page_routes import HUB
from reflex_ros.sidecar.page_snapshot import Snapshots
from reflex_ros.sidecar.robot_access import Need, Robot, RobotSnapshot
from reflex_ros.sidecar.server import Sidecar

CAMERA = Path(__file__).with_name("page_camera.jpg")  # with AT by benchmarks.page_camera
INSTRUCTION = "raise the yellow cube"
EPISODE = "ep_cell-3_1764500000_12"
AT = [-0.153, 0.267, -0.019, -2.492, 0.014, 2.77, 0.588, 0.039]
NOW_S = 1_764_500_420.0  # 30 November 2025, 11:00:20 UTC
GONE = "/exports/pick_panda_8"  # on no machine
KEY = "the key of cell 3"
SINCE_S = 0.55  # of the chunk
LATENCIES_S = 170

NEEDS = (
    Need("joints", "", "/joint_states", True, "8 ms old"),
    Need("camera", "front", "/front/image_raw", True, "21 ms old"),
    Need("camera", "wrist", "/wrist/image_raw", True, "24 ms old"),
    Need("instruction", "", "/instruction", True, "given"),
)
MISSING = (
    Need("joints", "", "/joint_states", True, "8 ms old"),
    Need("camera", "front", "/front/image_raw", True, "21 ms old"),
    Need("camera", "wrist", "/wrist/image_raw", False, "no publisher on this topic"),
    Need("instruction", "", "/instruction", False, "none yet: type one on this page, or publish it"),
)


@dataclass(frozen=True)
class Concern:
    """A line of /diagnostics."""

    concern: str
    level: bytes
    message: str


CALM = (
    Concern("policy", b"\x00", "ready"),
    Concern("observations", b"\x00", "fresh"),
    Concern("timing", b"\x00", "in time"),
    Concern("guard", b"\x00", "watching"),
    Concern("commands", b"\x00", "this policy alone"),
)
ACTIVE = RobotSnapshot(
    "active", episode_id=EPISODE, instruction=INSTRUCTION, chunks=412, remaining_s=1.9, findings=CALM, needs=NEEDS,
    ages_ms={"camera front": 21.0, "camera wrist": 24.0, "state": 8.0},
)  # fmt: skip
UNLOADED = RobotSnapshot(
    "unconfigured",
    findings=(
        Concern("policy", b"\x02", f"no such folder: {GONE}"), Concern("commands", b"\x00", "nothing is commanded"),
    ),
)  # fmt: skip
CLAMP = ("panda_joint4 velocity: 2.61 > 2.175 rad/s", "panda_joint2 above max: 1.81 > 1.7628")
TRIP = (
    "guard_tripped: consecutive_clamp_limit_exceeded: 10 chunks in a row had to be changed or were not finite"
    " (limit 10): holding position",
)


@dataclass(frozen=True)
class State:
    """A state of the page. word, level: of the banner. snapshot: None without a robot. calm: no event of the guard.

    fails: the policy could not be loaded. locked: the page has no key, and shows the banner alone.
    """

    name: str
    word: str
    level: str
    snapshot: RobotSnapshot | None = ACTIVE
    answers: bool = True
    calm: bool = True
    trips: bool = False
    fails: bool = False
    locked: bool = False


STATES = (
    State(
        "waiting", "WAITING", "wait", answers=False,
        snapshot=replace(
            ACTIVE, chunks=0, instruction="", needs=MISSING, problem="camera_missing", remaining_s=0.0,
            problem_text="no image from camera 'wrist' yet on /wrist/image_raw",
        ),
    ),
    State("ready", "READY", "good"),
    State(
        "holding", "HOLDING", "hold", calm=False,
        snapshot=replace(
            ACTIVE, hold_reason="stale", problem="stale", holds=3, remaining_s=0.0,
            problem_text="camera 'wrist' is 940 ms old, the limit is 300 ms (max_age_ms)",
        ),
    ),
    State("stopped", "STOPPED", "stop", snapshot=replace(ACTIVE, stopped=True, hold_reason="stopped", remaining_s=0.0)),
    State(
        "tripped", "TRIPPED", "bad", calm=False, trips=True,
        snapshot=replace(ACTIVE, hold_reason="guard_tripped", holds=14, remaining_s=0.0),
    ),
    State("failed", "FAILED", "bad", answers=False, fails=True, snapshot=UNLOADED),
)  # fmt: skip
LOST = State("no-connection", "NO CONNECTION", "lost")
LOCKED = State("key-needed", "KEY NEEDED", "wait", answers=False, locked=True)
EVERY = (*STATES, LOST, LOCKED)


class Shown:
    """A server whose page is in the state that was chosen last, and one with a key. `done` has what was commanded."""

    def __init__(self) -> None:
        settings = Settings(export_dir=str(embedded_policy(PICK)), port=0, robot_id="cell-3")
        self.engine = Engine(settings)
        self.engine.load()
        self.engine.warm_up()
        self.snapshot: RobotSnapshot | None = ACTIVE
        self.done: list[str] = []
        self.refusal = ""
        self.sidecar = self._started(0)
        self._calm = self._answer()
        self._failed = Engine(replace(settings, export_dir=GONE))
        with suppress(ReflexError):
            self._failed.load()
        with environment(VARIABLE, KEY):
            self.locked = self._started(0)

    def _started(self, port: int) -> Sidecar:
        robot = Robot(
            self._command("stop"), self._command("resume"), lambda: self.snapshot or ACTIVE,
            instruct=lambda text: self._command(f"instruct {text}")(), begin_episode=lambda _: self._command("ep_13")(),
        )  # fmt: skip
        sidecar = Sidecar(self.engine, replace(self.engine.settings, port=port), robot)
        sidecar.start()
        return sidecar

    def _command(self, name: str) -> Callable[[], str]:
        def act() -> str:
            if self.refusal:
                raise ReflexError(self.refusal)
            self.done.append(name)
            return name

        return act

    def _answer(self) -> tuple[Request, Served]:
        frame = Frame(CAMERA.read_bytes(), "jpeg")
        observation = Observation({"camera": frame}, np.array(AT, np.float32), INSTRUCTION)
        request = self.engine.request(observation, episode_id=EPISODE, seed=7, caller=ROS)
        return request, self.engine.act(request)

    def show(self, state: State) -> None:
        """Let the page show a state from now on."""
        self.snapshot = state.snapshot
        loaded = self.engine.loaded
        assert loaded is not None
        loaded.guard.reset(ROS)
        if state.trips:
            self._trip()
        history = RequestHistory()
        if state.answers:
            self._fill(history, state)
        robot = None if state.snapshot is None else Robot(str, str, lambda: state.snapshot or ACTIVE)
        engine = self._failed if state.fails else self.engine
        snapshots = Snapshots(engine, history, robot, has_key=True, only_stop=False)
        document = steady(orjson.loads(snapshots.state()), state)
        pictures = snapshots.pictures() or orjson.dumps({"frames": []})
        hub = self._hub()
        hub._state, hub._pictures = (lambda: orjson.dumps(document)), (lambda: pictures)

    def _trip(self) -> None:
        beyond = [AT[0], 2.05, *AT[2:]]  # the second joint is out of its range, as far as is believed
        for _ in range(40):
            frame = Frame(CAMERA.read_bytes(), "jpeg")
            request = self.engine.request(
                Observation({"camera": frame}, np.array(beyond, np.float32), INSTRUCTION), caller=ROS
            )
            self.engine.act(request)

    def _fill(self, history: RequestHistory, state: State) -> None:
        request, served = self._calm
        if not state.calm:
            wanted, ramp = (
                served.raw_actions.copy(),
                np.linspace(0.0, 1.0, len(served.raw_actions), dtype=np.float32),
            )
            wanted[:, 1] += 1.36 + 0.07 * ramp
            wanted[:, 3] += 0.3 * ramp
            kept = wanted.copy()
            kept[:, 1] = np.minimum(kept[:, 1], 1.7628)
            kept[:, 3] -= 0.18 * ramp
            chunk = replace(served.chunk, actions=kept)
            served = replace(served, chunk=chunk, raw_actions=wanted, guard=GuardReport(True, 40, CLAMP))
        history(request, served)
        if state.trips:
            held = np.repeat(served.chunk.actions[:1], len(served.chunk.actions), axis=0)
            chunk = replace(served.chunk, actions=held, source=HOLD)
            history(
                request,
                replace(served, chunk=chunk, guard=GuardReport(True, 0, TRIP), hold_reason="guard_tripped"),
            )

    def lose(self) -> None:
        """Send nothing any more: after 3 s the page finds its connection lost."""

        def silent() -> bytes:
            raise RuntimeError("this server is to be silent")

        self._hub()._state = silent

    def _hub(self) -> Hub:
        assert self.sidecar.app is not None
        return self.sidecar.app[HUB]

    def close(self) -> None:
        """End the server and the engine."""
        self.sidecar.stop()
        self.locked.stop()
        self.engine.unload()


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Have a variable of the environment for a moment."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def steady(document: dict[str, Any], state: State) -> dict[str, Any]:
    """Return a document with the clock, the latencies and the events' times as they are every time."""
    document["now_s"] = NOW_S
    document["reflex_version"] = "0.0.0"
    document["chunks_per_s"] = 2.4
    if document["chunk"]:
        document["chunk"]["since_s"] = SINCE_S
    if state.answers:
        document["latency"] |= latencies()
    document["counts"] |= {"answers": 412 if state.answers else 0}
    if document["guard"] is None:  # no policy is loaded
        return document
    for number, event in enumerate(document["guard"]["events"]):
        event["first_s"] = event["last_s"] = NOW_S - 3.0 - 9.0 * number
        event["times"] = 10 if "velocity" in " ".join(event["violations"]) else 4
    document["guard"] |= {"inference_count": 412, "violations_total": 0 if state.calm else 20}
    return document


def latencies() -> dict[str, Any]:
    """Return the latency of the last minutes: calm, with one slow moment."""
    seconds = []
    for age in range(LATENCIES_S, 0, -1):
        mean = 118.0 + 14.0 * math.sin(age / 7.0) + 9.0 * math.sin(age * 2.3)
        slow = 150.0 * math.exp(-(((age - 62) / 4.0) ** 2))
        seconds.append([age, round(mean + 0.5 * slow, 2), round(mean * 1.12 + slow + 6.0 * (age % 3), 2), 0])
    means = np.array([second[1] for second in seconds])
    bars, _ = np.histogram(np.minimum(means, 400.0), 40, (0.0, 400.0))
    return {
        "seconds": seconds, "window_s": 180, "bars": bars.tolist(), "top_ms": 400.0, "count": 412, "last_ms": 121.0,
        "deadline_ms": 300.0,
        "slo": {"name": "p99", "threshold_ms": 200.0, "measured_ms": 187.0, "violated": False, "mode": "log_only"},
        "p50_ms": 119.0, "p95_ms": 168.0, "p99_ms": 187.0, "max_ms": 301.0, "deadline_misses": 1,
    }  # fmt: skip


@contextmanager
def shown() -> Iterator[Shown]:
    """Serve the page for as long as it is needed."""
    found = Shown()
    try:
        yield found
    finally:
        found.close()


def wait_until(is_so: Callable[[], object], limit_s: float = 60.0) -> None:
    """Wait for a condition; fail after a limit that is a bound for machines under load."""
    end_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end_s, "the page did not get there"
        time.sleep(0.02)
