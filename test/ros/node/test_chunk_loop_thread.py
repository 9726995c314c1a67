# SPDX-License-Identifier: Apache-2.0
"""The thread of the chunk loop: it looks when there is news, and ends when it is asked to."""

from __future__ import annotations

import logging
import threading

import pytest

from benchmarks.robot_world import World
from reflex_ros.node.chunk_loop import ChunkLoop


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> tuple[ChunkLoop, threading.Semaphore]:
    """A loop that only counts its cycles, and looks for itself once in half a minute."""
    monkeypatch.setattr("reflex_ros.node.chunk_loop.POLL_S", 30.0)
    monkeypatch.setattr("reflex_ros.node.chunk_loop.JOIN_S", 5.0)
    loop, cycles = World().loop, threading.Semaphore(0)
    loop.cycle = cycles.release  # type: ignore[method-assign]
    return loop, cycles


def test_it_looks_when_there_is_news_and_ends_at_once_when_it_is_closed(
    looked: tuple[ChunkLoop, threading.Semaphore], caplog: pytest.LogCaptureFixture
) -> None:
    loop, cycles = looked
    loop.start()
    for _ in range(2):
        loop.news()
        assert cycles.acquire(timeout=10.0)
    assert not cycles.acquire(timeout=0.02)
    loop.close("deactivated")
    assert not loop._thread.is_alive()
    assert not cycles.acquire(timeout=0.0)
    assert caplog.records == []


@pytest.mark.parametrize("what", ["restart", "resume", "new episode", "clock jumped back"])
def test_whatever_asks_for_a_new_chunk_is_looked_at_at_once(
    looked: tuple[ChunkLoop, threading.Semaphore], what: str
) -> None:
    loop, cycles = looked
    loop.start()
    if what == "new episode":
        loop.new_episode("place")
    else:
        getattr(loop, what.replace(" ", "_"))()
    assert cycles.acquire(timeout=10.0)
    loop.close("deactivated")


def test_it_looks_now_and_then_without_any_news(
    looked: tuple[ChunkLoop, threading.Semaphore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reflex_ros.node.chunk_loop.POLL_S", 0.001)
    loop, cycles = looked
    loop.start()
    assert all(cycles.acquire(timeout=10.0) for _ in range(3))
    loop.close("deactivated")


def test_an_inference_that_does_not_end_is_left_behind_and_said(
    looked: tuple[ChunkLoop, threading.Semaphore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("reflex_ros.node.chunk_loop.JOIN_S", 0.01)
    loop, _ = looked
    inside, release = threading.Event(), threading.Event()

    def hangs() -> None:
        inside.set()
        release.wait(30)

    loop.cycle = hangs  # type: ignore[method-assign]
    loop.start()
    loop.news()
    assert inside.wait(10.0)
    with caplog.at_level(logging.ERROR):
        loop.close("deactivated")
    assert "an inference does not end" in caplog.text
    assert loop._thread.daemon, "the process may end all the same"
    release.set()
    loop._thread.join(10)


def test_nothing_of_an_activation_before_counts() -> None:
    world = World()
    world.run(0.3)
    assert world.guard.commands.recall() is not None
    before = world.loop
    again = ChunkLoop(
        before._engine, before._loaded, world.buffer, before._outputs, world.clock.wall_ns, before._tuning, before.progress,
        monotonic_ns=before._monotonic_ns,
    )  # fmt: skip
    assert world.guard.commands.recall() is None
    assert again.late() == ""
