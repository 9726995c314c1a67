# SPDX-License-Identifier: Apache-2.0
"""The guard of a robot on wheels: what it lets through, how it holds, and what it holds where the arm cannot be held."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from guarded import MIDDLE
from rolling import BASE_ALONE, DT_S, ROLLING
from wedge_requests import counters

from reflex_core.errors import InferenceError
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.embodiment import Embodiment
from reflex_core.values import (
    CLOUD,
    HOLD,
    LAST_KNOWN_GOOD,
    ROS,
    ActionChunk,
    Floats,
    Inference,
    Observation,
    Request,
    Served,
)
from reflex_core.wedges.deadline import FAILED, GIVEN_UP, KEPT, Deadline
from reflex_core.wedges.guard import Guard, guard_for

BEGAN_NS = 10**12
STAMP_NS = 1_700_000_000 * 10**9
HORIZON = 10


def driving(x: float, horizon: int = HORIZON, *, arm: bool = True) -> Floats:
    """A chunk that leaves the arm where it is and drives ahead."""
    row = np.append(MIDDLE, [x, 0.0]) if arm else np.array([x, 0.0])
    return np.tile(row, (horizon, 1)).astype(np.float32)


class Robot:
    """The guard of one robot on a clock that the test moves. stamped: of this process's robot, else of a caller over HTTP."""

    def __init__(self, robot: Embodiment = ROLLING, mode: str = "", *, stamped: bool = False) -> None:
        self.now_ns, self.stamped, self.names = BEGAN_NS, stamped, robot.joint_names
        self.state: Floats | None = MIDDLE
        columns = np.array([*range(7), -1, -1]) if len(self.names) == 9 else np.array([-1, -1])
        self.guard: Guard = guard_for(
            robot, columns, Metrics(), None, self.names, DT_S, monotonic_ns=lambda: self.now_ns
        )
        self.guard._mode = mode or self.guard._mode

    def request(self) -> Request:
        stamp_ns = STAMP_NS + self.now_ns - BEGAN_NS if self.stamped else 0
        observation = Observation({}, self.state, "drive", stamp_ns)
        return Request(observation, self.now_ns, "request-1", "pick", caller=ROS if self.stamped else "")

    def answer(self, actions: Floats, source: str = "policy") -> Served:
        return Served(
            chunk=ActionChunk(actions, self.names, DT_S, source), raw_actions=actions, request_id="request-1",
            episode_id="pick", seed=1, slot="prod", model_version="test@0", inference=Inference("onnx_cpu", 10, 10),
        )  # fmt: skip

    def act(self, actions: Floats, source: str = "policy", after_s: float = 0.0) -> Served:
        self.now_ns += int(after_s * 1e9)
        served = self.guard(self.request(), lambda _: self.answer(actions, source))
        self.guard.commands.executed()
        return served


def x_of(served: Served) -> Floats:
    return served.chunk.actions[:, -2]


NAN = driving(np.nan)


def fails(_: Request) -> Served:
    raise InferenceError("the policy is not well")


def test_a_chunk_within_the_limits_is_not_touched() -> None:
    chunk = driving(0.4)
    assert Robot().act(chunk).chunk.actions is chunk


def test_the_base_of_the_stamped_robot_starts_from_rest() -> None:
    served = Robot(stamped=True).act(driving(0.3))
    np.testing.assert_allclose(x_of(served)[:6], [0.05, 0.1, 0.15, 0.2, 0.25, 0.3], atol=1e-6)
    assert served.guard.violations == ("linear.x acceleration: 6 > 1 per second squared",)


@pytest.mark.parametrize("stamped", [False, True])
def test_what_is_not_finite_becomes_a_hold_that_brakes_the_base(stamped: bool) -> None:
    robot = Robot(stamped=stamped)
    robot.act(driving(0.2))
    robot.act(driving(0.2), after_s=0.2)
    held = robot.act(NAN, after_s=0.1)
    assert held.chunk.source == HOLD
    np.testing.assert_allclose(x_of(held)[:5], [0.15, 0.1, 0.05, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(held.chunk.actions[:, :7], np.tile(MIDDLE, (HORIZON, 1)), atol=1e-6)


def test_a_base_alone_is_held_without_any_state() -> None:
    robot = Robot(BASE_ALONE)
    robot.state = None
    held = robot.act(driving(np.nan, arm=False))
    assert held.chunk.source == HOLD
    np.testing.assert_array_equal(held.chunk.actions, np.zeros((HORIZON, 2)))
    np.testing.assert_array_equal(robot.guard.hold_position(robot.request()), [0.0, 0.0])


def test_where_the_arm_cannot_be_held_the_sentence_says_what_to_stop() -> None:
    robot = Robot()
    robot.state = None
    with pytest.raises(
        InferenceError, match=r"no known position to hold; linear.x, angular.z must be commanded 0"
    ):
        robot.act(NAN)
    assert robot.guard.hold_position(robot.request()) is None


def test_a_measured_state_says_nothing_of_a_velocity() -> None:
    """A base alone whose policy sees something else: 3 is no velocity that it has."""
    robot = Robot(BASE_ALONE, stamped=True)
    robot.state = np.array([3.0, 3.0], np.float32)
    served = robot.act(driving(0.05, arm=False))
    assert not served.guard.clamped


@pytest.mark.parametrize("mode", ["clip", "scale", "reject"])
def test_a_hold_of_the_deadline_is_braked_and_counts_for_nothing(mode: str) -> None:
    robot = Robot(mode=mode)
    robot.act(driving(0.2))
    at_once = driving(0.0)
    served = robot.act(at_once, HOLD, after_s=0.1)
    np.testing.assert_allclose(x_of(served)[:5], [0.15, 0.1, 0.05, 0.0, 0.0], atol=1e-6)
    assert not served.guard.clamped
    assert robot.guard.status().consecutive_clamps == 0


def test_a_chunk_of_another_server_is_checked_like_any_other() -> None:
    robot = Robot()
    robot.act(driving(0.1))
    served = robot.act(driving(-0.3), CLOUD, after_s=0.1)
    np.testing.assert_allclose(x_of(served)[:3], [0.05, 0.0, -0.05], atol=1e-6)


def test_a_chunk_that_joins_late_is_joined_to_the_velocity_of_that_moment() -> None:
    robot = Robot(stamped=True)
    robot.act(driving(0.05))
    request = robot.request()
    served = robot.guard(request, lambda _: robot.answer(driving(0.05 + 0.05 * 1.0)))
    robot.now_ns += int(0.31 * 1e9)
    joined = robot.guard.rejoined(request, served, 6)
    assert not joined.guard.clamped or x_of(joined)[6] <= 0.1 + 1e-6
    later = robot.guard.rejoined(request, robot.answer(driving(0.5)), 7)
    assert x_of(later)[7] <= 0.1 + 0.05 + 1e-6


@pytest.mark.parametrize(("ago_s", "source"), [(0.3, LAST_KNOWN_GOOD), ((HORIZON + 1) * DT_S + 0.01, HOLD)])
def test_a_remembered_chunk_of_velocities_is_no_fallback_once_its_rows_are_over(
    ago_s: float, source: str
) -> None:
    robot, counts = Robot(), counters("misses", LAST_KNOWN_GOOD, HOLD, "holds", KEPT, FAILED, GIVEN_UP)
    deadline = Deadline(
        lambda: 10_000.0, lambda: 60_000.0, robot.guard.hold_position, lambda _: robot.answer(driving(0.0)),
        counts["misses"], counts, counts["holds"], 1, counts,
    )  # fmt: skip
    drive = robot.answer(driving(0.2))
    robot.now_ns = time.monotonic_ns() - int(ago_s * 1e9)
    robot.guard(robot.request(), lambda request: deadline(request, lambda _: drive))
    robot.now_ns = time.monotonic_ns()
    late = replace(robot.request(), deadline_ns=1)
    served = robot.guard(late, lambda request: deadline(request, fails))
    assert served.chunk.source == source
    assert x_of(served)[0] == pytest.approx(0.2 if source == LAST_KNOWN_GOOD else 0.0)
