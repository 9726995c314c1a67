# SPDX-License-Identifier: Apache-2.0
"""What the node does about a hold: what is published, noted, counted and logged, and what is said where there is none."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Bounds
from reflex_core.chunks.scheduling import ExecutingChunk
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.groups import BASE, VELOCITY, Group
from reflex_core.robot.limits.hold import MEASURED, ZERO, Hold
from reflex_ros.node.holds import Holds
from reflex_ros.node.progress import Progress

NOW_NS, MONOTONIC_NS, DT_S = 10**18, 10**12, 0.05
HELD = Hold(np.arange(8, dtype=np.float32).reshape(4, 2), DT_S, 1, MEASURED, np.zeros(2))


class Scene:
    """Holds in the midst of things that note what they get."""

    def __init__(self, groups: tuple[Group, ...] = ()) -> None:
        self.held: Hold | None = HELD
        self.fault: Any = None
        self.measured: list[float] = []
        self.commanded: list[Any] = []
        self.published: list[Any] = []
        self.metrics, self.progress = Metrics(), Progress()
        buffer: Any = SimpleNamespace(
            measured=lambda *_: np.array(self.measured, np.float32) if self.measured else None,
            believed=lambda _: (self.measured, 7) if self.measured else None, fault=lambda: self.fault,
            commanded=lambda *arguments: self.commanded.append(arguments),
        )  # fmt: skip
        self.requested: list[Any] = []

        def hold(*known: Any) -> Hold | None:
            self.requested.append(known[:2])
            return self.held

        commands: Any = SimpleNamespace(hold=hold)
        self.halts = 0
        outputs: Any = SimpleNamespace(
            hold=lambda *arguments, **_: self.published.append(arguments), halt=self._halted
        )
        binding: Any = SimpleNamespace(action_names=("a", "b"), dt_s=DT_S, groups=groups)
        tuning: Any = SimpleNamespace(gates=SimpleNamespace(max_age_ms=300.0))
        loaded: Any = SimpleNamespace(
            guard=SimpleNamespace(commands=commands), policy=SimpleNamespace(binding=binding)
        )
        handover = Handover(Bounds.unlimited(2), lambda _: None, lambda: 0.0)
        self.holds = Holds(
            loaded, handover, buffer, outputs, self.metrics, self.progress, lambda: tuning, lambda: NOW_NS, lambda: MONOTONIC_NS
        )  # fmt: skip

    def _halted(self) -> None:
        self.halts += 1

    def counted(self, name: str, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"reason": reason})


def test_the_gate_learns_the_rows_that_are_sent_and_when_the_first_is_due() -> None:
    scene = Scene()
    assert scene.holds.publish("stale", "pick", 3) == ExecutingChunk(NOW_NS, DT_S, 4)
    ((names, rows, first_in_ns, now_ns, dt_s),) = scene.commanded
    assert (names, first_in_ns, now_ns, dt_s) == (("a", "b"), 100_000_000, NOW_NS, DT_S)
    np.testing.assert_array_equal(rows, HELD.rows[1:])
    assert len(scene.published) == 1


def test_a_hold_is_counted_once_and_one_that_the_engine_answered_was_counted_there() -> None:
    scene = Scene()
    served: Any = object()
    scene.holds.publish("rejected", "pick", 3, served)
    assert (scene.progress.holds, scene.counted("reflex_holds_total", "rejected")) == (0, None)
    scene.holds.publish("stale", "pick", 3)
    assert (scene.progress.holds, scene.counted("reflex_holds_total", "stale")) == (1, 1)
    assert scene.progress.hold_reason == "stale"


def test_what_a_person_asked_for_is_logged_every_time_and_the_rest_is_limited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    for reason in ("stopped", "stopped", "stale", "stale"):
        scene.holds.publish(reason, "pick", 3)
    assert [record.getMessage() for record in caplog.records] == [
        "holding: stopped",
        "holding: stopped",
        "holding: stale",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_where_there_is_nothing_to_hold_at_it_is_counted_each_time_and_logged_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    scene.held = None
    for _ in range(2):
        assert scene.holds.publish("stale", "pick", 3) is None
    scene.fault = SimpleNamespace(text="joint 'a' lies")
    scene.holds.publish("stale", "pick", 3)
    assert scene.progress.unheld == 3
    assert scene.counted("reflex_holds_impossible_total", "stale") == 3
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().endswith("no command is known to be followed")
    assert scene.progress.unheld_text.endswith("known to be followed: joint 'a' lies")
    assert (scene.commanded, scene.published, scene.progress.holds, scene.halts) == ([], [], 0, 3)


ROLLING = (Group("arm", (1,), ("b",)), Group("base", (0,), ("a",), BASE, VELOCITY))


def test_only_what_commands_a_position_is_measured_and_followed() -> None:
    scene = Scene(ROLLING)
    scene.measured = [0.3]
    scene.holds.publish("stale", "pick", 3)
    ((measured, believed),) = scene.requested
    np.testing.assert_array_equal(measured, np.float32([0.0, 0.3]))
    assert believed == ([0.0, 0.3], 7)
    ((names, rows, *_),) = scene.commanded
    assert names == ("b",)
    np.testing.assert_array_equal(rows, HELD.rows[1:, 1:])


def test_a_base_alone_is_held_without_a_measurement() -> None:
    scene = Scene((Group("base", (0, 1), ("a", "b"), BASE, VELOCITY),))
    assert scene.holds.publish("stale", "pick", 3) is not None
    ((measured, believed),) = scene.requested
    np.testing.assert_array_equal(measured, np.float32([0.0, 0.0]))
    assert believed is None


def test_where_the_arm_cannot_be_held_the_base_is_stopped_and_that_is_reported_and_tried_again() -> None:
    scene = Scene(ROLLING)
    only_base = np.array([True, False])
    scene.held = Hold(np.float32([[0.0, np.nan]]), DT_S, 0, ZERO, np.zeros(2), only_base)
    for _ in range(2):
        assert scene.holds.publish("stale", "pick", 3) is None
    assert [arguments[0] for arguments in scene.published] == [scene.held] * 2
    assert scene.commanded == []
    assert scene.progress.unheld == 2
    assert scene.progress.unheld_text.startswith("no position was published for 'stale'")
    assert scene.progress.unheld_text.endswith("; a was commanded to stop")
