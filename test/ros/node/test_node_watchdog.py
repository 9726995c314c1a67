# SPDX-License-Identifier: Apache-2.0
"""The watchdog beside a real chunk loop: it holds in its place, and says so everywhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from reflex_ros.msg import ActionChunk
from ros_world import World, wait_for, world
from servers import ExportDir

from reflex_core.values import Request, Served
from reflex_ros.node.holds import GONE, LATE
from reflex_ros.node.watchdog import PERIOD_S, TEXTS, Watchdog

ERROR, OK = b"\x02", b"\x00"


@pytest.fixture(scope="module")
def scene(export_dir: ExportDir) -> Iterator[World]:
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as found:
        found.activate()
        found.robot.next_chunk()
        yield found


def interventions(scene: World, reason: str) -> float:
    registry = scene.server.engine.metrics.registry
    return registry.get_sample_value("reflex_watchdog_interventions_total", {"reason": reason}) or 0.0


def test_an_inference_that_hangs_is_held_by_the_watchdog_and_said(scene: World) -> None:
    """When it comes back its chunk is thrown away, and the robot goes on from a fresh observation."""
    engine, ends = scene.server.engine, threading.Event()
    act = engine.act

    def hangs(request: Request) -> Served:
        ends.wait(60)
        return act(request)

    engine.act = hangs  # type: ignore[method-assign]
    try:
        held = scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
        assert held.hold_reason == LATE
        wait_for(lambda: scene.robot.status.problem == f"{LATE}: {TEXTS[LATE]}", "status says so")
        assert LATE in scene.robot.diagnosed("chunk loop", ERROR).message
        assert interventions(scene, LATE) == 1
    finally:
        engine.act = act  # type: ignore[method-assign]
        ends.set()
    scene.robot.next_chunk()
    scene.robot.diagnosed("chunk loop", OK)
    wait_for(lambda: not scene.robot.status.problem, "nothing is wrong any more")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_is_gone_is_held_by_the_watchdog_and_said(scene: World) -> None:
    """Whatever ends its thread; the last test of this scene."""
    loop = scene.loop

    def ends() -> None:
        raise SystemExit

    loop.cycle = ends  # type: ignore[method-assign]
    held = scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
    assert held.hold_reason == GONE
    wait_for(
        lambda: "restart the node" in scene.robot.diagnosed("chunk loop", ERROR).message, "diagnostics say so"
    )
    assert interventions(scene, GONE) == 1
    assert scene.robot.call("stop").success, "and the services answer"


class Loop:
    """What a watchdog sees of a loop."""

    def __init__(self) -> None:
        self.reason, self.holds, self.rescues = "", True, list[str]()

    def overdue(self) -> str:
        return self.reason

    def rescue(self, reason: str, text: str) -> bool:
        self.rescues.append(text)
        return self.holds


def test_it_holds_counts_and_speaks_once_and_tries_again_where_it_could_not_hold() -> None:
    loop, counted = Loop(), list[str]()
    watchdog = Watchdog(loop, counted.append)
    watchdog.check()
    assert (loop.rescues, counted, watchdog.barking) == ([], [], "")
    loop.reason, loop.holds = LATE, False
    watchdog.check()
    watchdog.check()
    assert (loop.rescues, counted, watchdog.barking) == ([TEXTS[LATE]] * 2, [LATE], LATE)
    loop.holds = True
    watchdog.check()
    watchdog.check()
    assert len(loop.rescues) == 3
    loop.reason = GONE
    watchdog.check()
    assert (loop.rescues[3:], counted) == ([TEXTS[GONE]], [LATE, GONE])
    loop.reason = ""
    watchdog.check()
    assert watchdog.barking == ""


def test_its_thread_survives_what_it_looks_at() -> None:
    class Panic(BaseException):
        pass

    looked = threading.Semaphore(0)

    def overdue() -> str:
        looked.release()
        raise Panic

    loop: Loop = SimpleNamespace(overdue=overdue)  # type: ignore[assignment]
    watchdog = Watchdog(loop, lambda _: None, period_s=PERIOD_S / 50)
    watchdog.start()
    for _ in range(3):
        assert looked.acquire(timeout=30)
    began = time.monotonic()
    watchdog.close()
    assert time.monotonic() - began < 30
