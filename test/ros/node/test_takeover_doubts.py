# SPDX-License-Identifier: Apache-2.0
"""What a person commands is in doubt, or comes late: the robot holds, and nothing steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from takeover_scene import FASTER, RELEASE_S, TakeoverScene

from benchmarks.robot_world import HOME, HORIZON, NAMES, TICK_S
from reflex_core.chunks.handover import LEAD_S
from reflex_core.chunks.interpolation import Spline
from reflex_core.chunks.takeover import LATE_S
from reflex_core.values import HOLD, ROS, TELEOP
from reflex_ros.node.takeover import PROBLEM_S
from reflex_ros.outputs.base import STREAM_GONE, STREAM_LATE


@pytest.fixture
def scene() -> TakeoverScene:
    """A robot that the policy has moved for a second, and then a person for a third of one."""
    scene = TakeoverScene()
    scene.run(1.0)
    scene.wanted = lambda: HOME + 0.3
    scene.run(0.3)
    assert scene.progress.control == "teleop"
    return scene


def sources(scene: TakeoverScene, since_s: float) -> set[str]:
    return {source for at_s, source, _ in scene.labels if at_s > since_s}


@pytest.mark.parametrize("set_by_s", [3600.0, 0.3, -0.3, -3600.0])
def test_a_clock_that_is_set_while_inference_goes_on_holds_a_robot_that_a_person_commands(
    set_by_s: float,
) -> None:
    """Where the robot is on its way is known by the clock of before: with another one it is far from there."""
    scene = TakeoverScene()
    scene.run(1.0)
    scene.wanted = lambda: HOME + 0.8 * np.sin(2.0 * scene.now_s)
    scene.run(0.3)
    scene.world.engine.latency_s = 2.0
    scene.loop.restart()
    began_s, meanwhile = scene.now_s, scene.world.meanwhile

    def setting() -> None:
        if abs(scene.now_s - began_s - 1.0) < TICK_S / 2:
            scene.world.clock.offset_ns += int(set_by_s * 1e9)
        meanwhile()

    scene.world.meanwhile = setting
    scene.run(3.0)
    assert (HOLD, "hand-back") in {label[1:] for label in scene.labels if label[0] > began_s}
    assert scene.progress.control == "teleop"
    assert scene.fastest <= FASTER


@pytest.mark.parametrize("reason", [STREAM_LATE, STREAM_GONE])
def test_a_stream_whose_rows_stay_away_holds_a_robot_that_a_person_commands_until_they_come(
    scene: TakeoverScene, reason: str
) -> None:
    began_s = scene.now_s
    scene.world.outputs.overdue_reason = reason
    scene.run(1.0)
    assert [label[1:] for label in scene.labels if label[0] > began_s] == [(HOLD, "hand-back")]
    assert scene.progress.hold_reason == reason
    assert reason in scene.progress.takeover_problem
    scene.world.outputs.overdue_reason = ""
    scene.run(0.3)
    assert scene.progress.control == "teleop"


def test_a_person_who_cannot_be_followed_keeps_the_robot_held_once_and_lets_no_policy_through(
    scene: TakeoverScene,
) -> None:
    path, began_s = scene.takeover._path, scene.now_s

    class Elsewhere:
        dt_s, following, knows_tool = 0.05, 1, False

        def pace(self, *_: object) -> float:
            return 1.0

        def rows(self, *_: object) -> None:
            return None

    scene.takeover._path = Elsewhere()  # type: ignore[assignment]
    scene.run(2.0)
    assert [label[1:] for label in scene.labels if label[0] > began_s] == [(HOLD, "hand-back")]
    assert (scene.progress.hold_reason, scene.progress.takeovers) == ("outside_range", 1)
    assert "outside its range" in scene.progress.takeover_problem
    scene.takeover._path = path
    scene.run(0.2)
    assert (scene.progress.control, scene.progress.takeovers) == ("teleop", 1)
    scene.wanted = lambda: None
    scene.run(1.0)
    assert scene.progress.control == "policy"
    assert scene.fastest <= FASTER


def test_a_joint_that_two_topics_command_at_once_holds_the_robot_until_one_of_them_pauses(
    scene: TakeoverScene,
) -> None:
    began_s, other = scene.now_s, True

    def wanted() -> Any:
        if other:
            scene.takeover.put(NAMES[:2], [0.0, 0.0], "~/takeover_trajectory")
        return HOME + 0.3

    scene.wanted = wanted
    scene.run(1.0)
    assert [label[1:] for label in scene.labels if label[0] > began_s] == [(HOLD, "hand-back")]
    assert scene.progress.hold_reason == "contested"
    assert "is commanded on two topics at once" in scene.progress.takeover_problem
    other = False
    scene.run(RELEASE_S + 0.2)
    assert scene.progress.control == "teleop"


def test_two_topics_may_command_different_joints() -> None:
    scene = TakeoverScene()
    scene.run(1.0)
    began_s = scene.now_s
    for _ in range(60):
        scene.takeover.put(NAMES[:3], (HOME[:3] + 0.1).tolist(), "~/takeover")
        scene.takeover.put(NAMES[3:], (HOME[3:] - 0.1).tolist(), "~/takeover_trajectory")
        scene.run(2 * TICK_S)
    assert sources(scene, began_s + 0.05) == {TELEOP}
    assert scene.target() == pytest.approx(np.concatenate([HOME[:3] + 0.1, HOME[3:] - 0.1]), abs=1e-6)


def test_why_a_person_was_not_followed_is_said_a_while_longer_and_no_longer() -> None:
    scene = TakeoverScene()
    scene.run(1.0)
    scene.takeover.put(("elbow",), [0.0])
    scene.run(PROBLEM_S - 1.0)
    assert "got elbow" in scene.progress.takeover_problem
    scene.run(1.5)
    assert scene.progress.takeover_problem == ""


def test_hand_backs_one_after_another_do_not_trip_a_guard_that_changes_the_first_chunk_after_each(
    scene: TakeoverScene,
) -> None:
    """A person has moved the robot elsewhere: what the policy asks for there first is out of reach."""
    scene.world.engine.model = lambda _: np.tile(HOME - 0.5, (HORIZON, 1)).astype(np.float32)
    for _ in range(15):
        scene.wanted = lambda: HOME + 0.3
        scene.run(0.8)
        scene.wanted = lambda: None
        scene.run(RELEASE_S + 0.5)
        assert scene.progress.control == "policy"
    assert not scene.world.guard.status(ROS).tripped
    assert scene.fastest <= FASTER


def test_a_trajectory_that_comes_a_little_late_leads_the_controller_without_a_step(
    scene: TakeoverScene,
) -> None:
    """Until LATE_S after a command began the motion before it goes on: the node needs its time, and so do messages."""
    handover, apart = scene.loop._handover, list[float]()
    take_over = handover.take_over

    def led(*arguments: Any) -> Spline:
        before, after = handover._running, take_over(*arguments)
        assert before is not None
        times_ns = after.times_ns[0] + np.arange(0, round(LATE_S * 1e9), 1_000_000)
        apart.append(float(np.abs(after.sampled(times_ns) - before.sampled(times_ns)).max()))
        return after

    handover.take_over = led  # type: ignore[method-assign]
    draw = np.random.default_rng(5)
    for _ in range(150):
        goal = HOME + draw.uniform(-0.4, 0.4, 7)
        scene.wanted = lambda goal=goal: goal  # type: ignore[misc]
        scene.run(2 * TICK_S)
    assert len(apart) > 140
    assert max(apart) <= 1e-9


@pytest.mark.parametrize("after_s", [0.02, 0.05, 0.1, 0.15, 0.19])
def test_a_person_who_takes_over_while_the_robot_sets_out_is_led_from_where_its_controller_is(
    after_s: float,
) -> None:
    """The controller is on its own way to the first row: that way goes on until it is known where it is."""
    scene = TakeoverScene()
    while not scene.labels:
        scene.run(TICK_S)
    scene.run(after_s)
    draw = np.random.default_rng(round(after_s * 100))
    for _ in range(20):
        goal = HOME + draw.uniform(-0.4, 0.4, 7)
        scene.wanted = lambda goal=goal: goal  # type: ignore[misc]
        scene.run(2 * TICK_S)
    scene.run(1.0)
    assert scene.progress.control == "teleop"
    taken_s = min(at_s for at_s, source, _ in scene.labels if source == TELEOP)
    assert LEAD_S - TICK_S / 2 <= taken_s - scene.labels[0][0] <= LEAD_S + 4 * TICK_S
    assert scene.fastest <= FASTER


def test_no_message_follows_the_first_one_of_a_person_before_the_controller_is_there(
    scene: TakeoverScene,
) -> None:
    """Each would have a controller that knows no velocities begin at rest again, with less time for the way."""
    scene.world.engine.latency_s = 1.0  # no chunk of the policy meanwhile
    began_s = scene.now_s + RELEASE_S + 0.5
    scene.wanted = lambda: HOME + 0.3 * np.sin(4.0 * scene.now_s) if scene.now_s > began_s else None
    scene.run(1.5)
    assert scene.labels[-1][1:] == (TELEOP, "teleop")
    later = [label for label in scene.labels if label[0] > began_s - 0.3]
    assert {source for _, source, _ in later} == {TELEOP}, "the robot was at rest"
    assert LEAD_S - TICK_S / 2 <= later[1][0] - later[0][0] <= LEAD_S + 4 * TICK_S


def test_a_command_that_was_not_made_into_a_motion_in_time_is_followed_later(scene: TakeoverScene) -> None:
    """Its rows begin where the robot was: with them it would step back."""
    handover, held_up = scene.loop._handover, [0.15]
    keeps_tool = handover.keeps_tool

    def busy(*arguments: Any) -> bool:
        while held_up:
            scene.world.clock.monotonic_ns += round(held_up.pop() * 1e9)
        return keeps_tool(*arguments)

    handover.keeps_tool = busy  # type: ignore[method-assign]
    sent, commands = len(scene.sent), scene.world.guard.commands
    executed = commands.recall()
    scene.takeover.put(NAMES, (HOME + 0.1).tolist())
    scene.takeover.check()
    assert len(scene.sent) == sent
    assert "too busy" in scene.progress.takeover_problem
    assert commands.recall() is executed, "what was judged and not sent is forgotten"
    scene.takeover.check()
    assert len(scene.sent) == sent + 1
    assert scene.progress.takeover_problem == ""
