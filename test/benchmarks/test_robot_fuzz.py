# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG005 - what stands for something takes what that takes
"""Some hundred random histories against the real guard and chunk loop, and that their judge sees what is broken.

The long run: python -m benchmarks.robot_fuzz --histories 20000
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import robot_fuzz, robot_world
from benchmarks.robot_judge import Judge
from benchmarks.robot_lies import slow
from benchmarks.robot_world import HOME, Command, World
from reflex_core.robot import joint_gate, path_tolerance
from reflex_core.robot.limits import check, commands, hold, reachable
from reflex_core.robot.limits.hold import Hold
from reflex_ros.node import chunk_loop, observation_buffer


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_no_history_makes_a_command_that_is_not_safe_and_the_robot_is_served_again() -> None:
    found = robot_fuzz.run(0, 120)
    assert found.problems == []
    assert found.histories == 120
    assert found.counts["chunk"] > 300
    assert found.counts["hold"] > 150
    assert found.counts["watchdog"] > 0


def test_no_history_of_an_arm_on_wheels_makes_a_command_that_is_not_safe() -> None:
    found = robot_fuzz.run(52_000_000, 60, wheels=True)
    assert found.problems == []
    assert found.counts["driven"] > 100
    assert found.counts["base"] > 0


def _bases_stop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "_stopping", lambda limits, dt_s, at: np.zeros((1, 2), np.float32))


def _bases_drive_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "_stopping", lambda limits, dt_s, at: at.astype(np.float32)[None])


def _bases_start_anyhow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable, "_unmeasured_known", lambda start, *_: start)
    monkeypatch.setattr(check.Check, "_too_fast", lambda self, moves, *_: self._none)


@pytest.mark.parametrize("break_it", [_bases_stop_at_once, _bases_drive_on, _bases_start_anyhow])
def test_the_judge_sees_what_is_broken_about_a_base(
    break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    assert robot_fuzz.run(52_000_000, 30, most_problems=1, wheels=True).problems


@pytest.mark.parametrize(
    "seed",
    [
        67,
        301523,
        400022,
        1008386,
        2006450,
        2009337,
        4001743,
        4008955,
        8002971,
        11001393,
        3000094,
        3100313,
        5000324,
        5000883,
        92002341,
        121001420,
        131000840,
        131001999,
        201001690,
    ],
)
def test_a_history_that_went_wrong_once_does_not_again(seed: int) -> None:
    assert robot_fuzz.run(seed, 1).problems == []


def test_a_stop_upon_a_hold_of_a_first_chunk_has_no_anchor() -> None:
    """That hold came while the controller was on its own way to the first row: where it brakes is not known either."""
    assert robot_fuzz.run(54_000_307, 1, wheels=True).problems == []


def _no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_gate.JointGate, "fault", lambda self, names: None)


def _no_path_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_tolerance.PathTolerance, "fault", lambda self: None)


def _a_gate_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """It believes again what stays."""
    _no_path_tolerance(monkeypatch)
    monkeypatch.setattr(joint_gate, "_spanned", lambda *known: True)


def _holds_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    make = commands.hold

    def outside(*known: object) -> Hold | None:
        held = make(*known)  # type: ignore[arg-type]
        return None if held is None else replace(held, rows=held.rows + np.float32(0.3))

    monkeypatch.setattr(commands, "hold", outside)


def _no_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_loop.ChunkLoop, "_hold", lambda self, reason, served=None: False)


def _late_chunks_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robot_fuzz.World, "__post_init__", _skewed(robot_fuzz.World.__post_init__))


def _skewed(make: Callable[[robot_fuzz.World], None]) -> Callable[[robot_fuzz.World], None]:
    def made(self: robot_fuzz.World) -> None:
        make(self)
        self.guard.rejoined = lambda request, served, row: served  # type: ignore[method-assign]
        act = self.engine.act

        def late(request: object) -> object:
            served = act(request)  # type: ignore[arg-type]
            self.pass_time(0.3)
            return served

        self.engine.act = late  # type: ignore[method-assign, assignment]

    return made


def _deaf_to_freshness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation_buffer.ObservationBuffer, "fault", lambda self: None)
    monkeypatch.setattr(joint_gate.JointGate, "put", lambda self, *message: None)


BROKEN = [_no_gate, _a_gate_that_forgets, _holds_anywhere, _no_holds, _late_chunks_pass, _deaf_to_freshness]  # fmt: skip


@pytest.mark.parametrize("break_it", BROKEN)
def test_the_judge_sees_what_is_broken(
    break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    assert any(robot_fuzz.run(first, 60, most_problems=1).problems for first in (0, 200))


def test_the_judge_sees_a_sensor_that_freezes_where_the_command_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(robot_world, "TOLERANCE_RAD", 0.0)
    assert robot_fuzz.run(225, 70, most_problems=1).problems


@pytest.mark.parametrize(
    ("held_at", "after_s", "well"), [(0.25, 0.05, True), (0.32, 0.05, False), (0.25, 0.35, False)]
)
def test_a_hold_that_ends_a_first_chunk_may_stop_on_the_way_from_where_the_joints_read_to_be(
    held_at: float, after_s: float, well: bool
) -> None:
    """They read 0.19 rad away from where they are, which no gate can tell, and the first row is due in 0.3 s."""
    world, judge = World(), Judge()
    judge.world, world.heard = world, judge.heard
    world.loop.stop()
    world.run(0.1)
    world.reading = HOME + 0.19
    now_s = world.clock.seconds
    world._sent(Command((HOME + 0.1)[None], np.array([now_s + 0.3]), False, ""))
    world.run(after_s)
    world.reading = HOME + 0.6
    world._sent(Command((HOME + held_at)[None], np.array([world.clock.seconds + 0.05]), True, "stopped"))
    assert (judge.problems == []) is well


def test_a_sensor_drifts_only_under_command() -> None:
    """Else it would look like a hand that moves the arm."""
    for seed in range(20):
        idle = [True]
        name, lie = slow(random.Random(seed), 0, lambda idle=idle: idle[0])
        assert np.array_equal(lie(HOME, 0.0), HOME)
        idle[0] = False
        assert np.array_equal(lie(HOME, 0.01), HOME) is (name == "freeze")
