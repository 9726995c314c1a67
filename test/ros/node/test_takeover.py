# SPDX-License-Identifier: Apache-2.0
"""A person takes the commands and hands them back: what the arm is commanded, and who is reported to command it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from takeover_scene import FASTER, RELEASE_S, TakeoverScene, standing

from benchmarks.robot_world import ARM, HOME, HORIZON, NAMES, TICK_S, TUNING
from reflex_core.errors import InferenceError
from reflex_core.robot.limits.check import inner_limits
from reflex_core.values import HOLD, POLICY, ROS, TELEOP, Floats, Request
from reflex_ros.node.chunk_loop import HANGING_S
from reflex_ros.node.holds import HANDED_BACK
from reflex_ros.node.takeover import PERIOD_S

LATEST_S = RELEASE_S + PERIOD_S + TICK_S


@pytest.fixture
def scene() -> TakeoverScene:
    """A robot that the policy has moved for a second, and then a person for a third of one."""
    scene = TakeoverScene()
    scene.run(1.0)
    assert [source for _, source, _ in scene.labels] == [POLICY]
    scene.wanted = lambda: HOME + 0.3
    scene.run(0.3)
    assert scene.progress.control == "teleop"
    return scene


def sources(scene: TakeoverScene, since_s: float = 0.0) -> set[str]:
    return {source for at_s, source, _ in scene.labels if at_s > since_s}


def labels_of(labels: list[tuple[float, str, str]]) -> list[str]:
    """Return who commands by each message, as its rows show: those after a person's are a hand-back until the policy's next."""
    found, control = [], "policy"
    for _, source, _ in labels:
        back = "policy" if control == "policy" else "hand-back"
        control = {TELEOP: "teleop", HOLD: back, POLICY: "policy"}[source]
        found.append(control)
    return found


@pytest.mark.parametrize(("seed", "blend_s"), [(0, 0.0), (1, 0.5)])
def test_a_person_takes_the_commands_and_hands_them_back_at_any_moment_without_a_step(
    seed: int, blend_s: float
) -> None:
    draw = np.random.default_rng(seed)
    scene = TakeoverScene(replace(TUNING, takeover_release_s=RELEASE_S, blend_s=blend_s))
    scene.run(draw.uniform(0.5, 2.0))
    low, high = inner_limits(ARM.action_min, ARM.action_max)
    spans: list[tuple[float, float]] = []
    for _ in range(50):
        scene.world.engine.latency_s = draw.uniform(0.02, 0.4)
        goal, drift = draw.uniform(low, high), draw.normal(0.0, 1.0, 7)
        began_s = scene.now_s
        scene.wanted = lambda goal=goal, drift=drift, began_s=began_s: goal + drift * (scene.now_s - began_s)  # type: ignore[misc]
        scene.run(draw.uniform(0.05, 0.8))
        scene.wanted = lambda: None
        spans.append((began_s, scene.now_s))
        scene.run(draw.uniform(RELEASE_S + 0.4, 1.6))
    assert scene.progress.takeovers == 50
    assert scene.fastest <= FASTER
    assert [label for _, _, label in scene.labels] == labels_of(scene.labels)
    holds = [at_s for at_s, source, label in scene.labels if (source, label) == (HOLD, "hand-back")]
    for (began_s, ended_s), (next_s, _) in pairwise([*spans, (np.inf, 0.0)]):
        (released_s,) = [at_s for at_s in holds if began_s < at_s < next_s]
        assert ended_s + RELEASE_S - 2 * TICK_S <= released_s <= ended_s + LATEST_S + TICK_S
        meanwhile = [
            source for at_s, source, _ in scene.labels if began_s + PERIOD_S + TICK_S < at_s < released_s
        ]
        assert set(meanwhile) <= {TELEOP}


def test_the_robot_goes_where_the_person_wants_it_and_the_policy_goes_on_inferring(
    scene: TakeoverScene,
) -> None:
    watched = scene.progress.watched
    scene.run(3.0)
    assert scene.target() == pytest.approx(HOME + 0.3, abs=1e-6)
    assert scene.world.arm.position == pytest.approx(HOME + 0.3, abs=1e-3)
    assert scene.progress.watched > watched
    assert sources(scene, scene.now_s - 3.0) == {TELEOP}


def test_the_policy_goes_on_from_where_the_robot_is_measured(scene: TakeoverScene) -> None:
    scene.run(2.0)
    scene.wanted = lambda: None
    scene.run(LATEST_S + TICK_S)
    assert (scene.labels[-1][1:], scene.progress.hold_reason) == ((HOLD, "hand-back"), HANDED_BACK)
    answered: list[Floats] = []
    model = scene.world.engine.model

    def noting(request: Request) -> Floats:
        assert request.observation.state is not None
        answered.append(request.observation.state)
        return model(request)

    scene.world.engine.model = noting
    scene.run(0.6)
    assert answered[0] == pytest.approx(HOME + 0.3, abs=1e-3)
    assert scene.labels[-1][1:] == (POLICY, "policy")
    assert scene.fastest <= FASTER


def test_an_answer_under_way_when_a_person_takes_or_hands_back_is_not_executed(scene: TakeoverScene) -> None:
    scene.world.engine.latency_s = 0.5
    scene.loop.restart()
    discarded = scene.progress.discarded
    scene.wanted = lambda: None
    scene.run(1.0)  # begun while the person commanded, answered after
    assert scene.progress.discarded == discarded + 1
    scene.loop.restart()
    before_s = scene.now_s
    scene.wanted = lambda: HOME if scene.now_s > before_s + 0.2 else None
    scene.run(TICK_S)  # begun while the policy commanded
    assert scene.progress.discarded == discarded + 2
    assert sources(scene, before_s) == {TELEOP}


def test_a_stop_holds_also_a_person_and_a_person_is_not_followed_until_resume(
    scene: TakeoverScene,
) -> None:
    assert scene.loop.stop() == ""
    stopped_s = scene.now_s
    assert scene.labels[-1][1:] == (HOLD, "hand-back")
    scene.run(1.0)
    assert sources(scene, stopped_s) == set()
    assert "stopped" in scene.progress.takeover_problem
    scene.loop.resume()
    scene.run(0.5)
    assert sources(scene, stopped_s) == {TELEOP}
    assert scene.progress.takeover_problem == ""
    assert scene.fastest <= FASTER


def test_a_tripped_guard_holds_also_a_person_until_it_is_reset(scene: TakeoverScene) -> None:
    for _ in range(20):
        scene.world.guard.trips.count(ROS, clamped=True, well=False)
    tripped_s = scene.now_s
    scene.run(1.0)
    assert sources(scene, tripped_s) == {HOLD}
    assert "~/reset_guard" in scene.progress.takeover_problem
    scene.world.guard.reset(ROS)
    reset_s = scene.now_s
    scene.run(0.5)
    assert TELEOP in sources(scene, reset_s)
    assert scene.fastest <= FASTER


def test_the_watchdog_holds_also_a_person_and_a_person_is_not_followed_while_it_does(
    scene: TakeoverScene,
) -> None:
    scene.world.engine.latency_s = HANGING_S + 2.0
    scene.loop.restart()
    began_s = scene.now_s
    seen: list[str] = []
    check = scene.world.watchdog.check

    def checking() -> None:
        check()
        if scene.world.barks and scene.now_s > began_s + HANGING_S + 1.0:
            seen.append(scene.progress.takeover_problem)

    scene.world.watchdog.check = checking  # type: ignore[method-assign]
    scene.run(TICK_S)
    assert scene.world.barks == ["chunk_loop_late"]
    held_s = next(at_s for at_s, source, _ in scene.labels if source == HOLD and at_s > began_s)
    assert sources(scene, held_s) <= {POLICY}
    assert "chunk_loop_late" in seen[-1]
    scene.world.engine.latency_s = 0.05
    scene.run(1.0)
    assert scene.progress.control == "teleop"
    assert scene.fastest <= FASTER


def test_what_the_policy_answers_while_a_person_commands_neither_holds_nor_trips(
    scene: TakeoverScene,
) -> None:
    began_s = scene.now_s
    scene.world.engine.model = lambda _: np.full((HORIZON, 7), np.nan, np.float32)
    scene.run(2.0)
    scene.world.engine.model = lambda _: np.full((HORIZON, 7), 9.0, np.float32)
    scene.run(8.0)

    def failing(_: Request) -> Floats:
        raise InferenceError("it raised")

    scene.world.engine.model = failing
    scene.run(2.0)
    assert sources(scene, began_s) == {TELEOP}
    assert scene.world.guard.trips.standing(ROS).consecutive_clamps == 0
    assert scene.progress.problem == "inference-error"


def test_a_joint_that_cannot_be_where_it_reports_to_be_holds_a_robot_that_a_person_commands(
    scene: TakeoverScene,
) -> None:
    began_s = scene.now_s
    scene.world.lie = lambda position, _: position + np.array([0, 0, 0, 2.0, 0, 0, 0])
    scene.run(0.5)
    assert sources(scene, began_s) >= {HOLD}
    assert scene.progress.control == "hand-back"
    assert sources(scene, began_s + 0.2) == set()


def test_without_a_fresh_joint_state_the_robot_holds_however_a_person_commands(scene: TakeoverScene) -> None:
    scene.world.lie = lambda *_: None
    scene.run(1.0)
    assert scene.labels[-1][1:] == (HOLD, "hand-back")
    assert "the robot state" in scene.progress.takeover_problem


def test_a_camera_that_fails_stops_no_person(scene: TakeoverScene) -> None:
    began_s = scene.now_s
    scene.world.camera = False
    scene.run(2.0)
    assert sources(scene, began_s) == {TELEOP}
    scene.wanted = lambda: None
    scene.run(1.0)
    assert (scene.progress.hold_reason, scene.labels[-1][1:]) == (HANDED_BACK, (HOLD, "hand-back"))


def test_handing_back_ends_a_takeover_until_the_person_pauses(scene: TakeoverScene) -> None:
    assert scene.takeover.hand_back() == "the policy goes on from where the robot is"
    handed_s = scene.now_s
    scene.run(1.5)
    assert sources(scene, handed_s) == {POLICY}
    assert scene.progress.takeover_problem == "the robot was handed back: pause for 0.3 s to take it again"
    wanted, scene.wanted = scene.wanted, lambda: None
    scene.run(LATEST_S)
    assert scene.progress.takeover_problem == ""
    scene.wanted = wanted
    scene.run(0.2)
    assert scene.progress.control == "teleop"
    scene.wanted = lambda: None
    scene.run(1.0)
    assert scene.takeover.hand_back() == "no person has taken the commands"


def test_with_a_button_a_person_commands_while_it_is_pressed() -> None:
    scene = TakeoverScene(replace(TUNING, takeover_release_s=RELEASE_S, takeover_button=1))
    scene.wanted = lambda: HOME + 0.3
    scene.run(1.0)
    assert sources(scene) == {POLICY}
    pressed = True

    def wanted() -> Any:
        scene.takeover.put_button([0, int(pressed)])
        return HOME + 0.3

    scene.wanted = wanted
    scene.run(0.3)
    assert scene.progress.control == "teleop"
    pressed, let_go_s = False, scene.now_s
    scene.run(0.05)
    assert scene.labels[-1][1:] == (HOLD, "hand-back")
    assert scene.labels[-1][0] - let_go_s <= PERIOD_S + TICK_S
    scene.wanted = lambda: HOME + 0.3
    scene.takeover.put_button([0])
    assert scene.progress.takeover_problem == "takeover_button is 1, and the joystick has 1 buttons"
    assert scene.fastest <= FASTER


def test_joints_that_are_not_named_stay_where_they_are_commanded_to_be(scene: TakeoverScene) -> None:
    scene.run(2.0)
    scene.wanted = lambda: None
    for _ in range(60):
        scene.takeover.put(NAMES[:1], [-0.2])
        scene.run(2 * TICK_S)
    assert scene.progress.control == "teleop"
    assert scene.target() == pytest.approx([-0.2, *(HOME + 0.3)[1:]], abs=1e-6)


def test_a_target_beyond_the_range_leads_to_its_end_and_the_guard_changes_nothing(
    scene: TakeoverScene,
) -> None:
    scene.world.engine.model = standing
    scene.wanted = lambda: np.full(7, 9.0)
    clamped = scene.world.guard.status(ROS).violations_total
    scene.run(6.0)
    assert scene.target() == pytest.approx(ARM.action_max, abs=1e-5)
    assert scene.world.guard.status(ROS).violations_total == clamped
    assert scene.fastest <= FASTER


@pytest.mark.parametrize(
    ("names", "positions", "why"),
    [
        (("panda_joint1", "elbow"), [0.0, 0.0], "got elbow"),
        (("panda_joint1", "panda_joint1"), [0.0, 0.1], "twice"),
        (NAMES, [0.0] * 6 + [float("nan")], "finite"),
        (NAMES, [0.0] * 6, "got 7 names and 6 positions"),
        ((), [], "got 0 names"),
    ],
)
def test_a_command_that_is_not_meant_for_this_robot_is_not_followed_and_reported(
    names: tuple[str, ...], positions: list[float], why: str
) -> None:
    scene = TakeoverScene()
    scene.run(1.0)
    scene.takeover.put(names, positions)
    scene.run(0.1)
    assert sources(scene) == {POLICY}
    assert why in scene.progress.takeover_problem


def test_a_person_is_not_followed_in_a_dry_run_nor_where_takeover_is_off() -> None:
    scene = TakeoverScene()
    scene.takeover._dry_run = True
    scene.run(0.5)
    scene.wanted = lambda: HOME
    scene.run(0.5)
    assert TELEOP not in sources(scene)
    assert scene.progress.takeover_problem == "a dry run commands nothing"
    off = TakeoverScene(TUNING)
    assert not off.takeover.enabled
    off.wanted = lambda: HOME
    off.run(1.0)
    assert sources(off) == {POLICY}


def test_whatever_goes_wrong_with_a_person_s_command_the_robot_holds(scene: TakeoverScene) -> None:
    class Broken:
        dt_s = 0.05

        def rows(self, *_: object) -> None:
            raise TypeError("broken")

    scene.takeover._path = Broken()  # type: ignore[assignment]
    scene.run(2 * TICK_S)
    assert scene.labels[-1][1:] == (HOLD, "hand-back")
