# SPDX-License-Identifier: Apache-2.0
"""The share of the policy's motion that is let through, in the chunk loop: soft start, half of it, none of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from takeover_scene import FASTER, RELEASE_S, TakeoverScene

from benchmarks.robot_world import HOME, HORIZON, TUNING
from reflex_core.values import HOLD, POLICY, ROS, Floats, Request

FAR = HOME + 0.6


def leads_far(_: Request) -> Floats:
    """Where the policy wants the arm, wherever it is: 0.6 rad away."""
    return np.tile(FAR, (HORIZON, 1)).astype(np.float32)


def scene_with(blend: float, blend_s: float) -> TakeoverScene:
    return TakeoverScene(
        replace(TUNING, blend=blend, blend_s=blend_s, takeover_release_s=RELEASE_S), model=leads_far
    )


def let_through(scene: TakeoverScene, blend: float) -> None:
    scene.world.tuning = replace(scene.world.tuning, blend=blend)


def test_nothing_let_through_leaves_the_robot_where_it_is_and_the_policy_infers() -> None:
    scene = scene_with(0.0, 1.0)
    scene.run(4.0)
    assert scene.target() == pytest.approx(HOME, abs=1e-6)
    assert scene.progress.chunks >= 2
    assert scene.progress.blend == scene.world.outputs.blend == 0.0
    assert {source for _, source, _ in scene.labels} == {POLICY}


@pytest.mark.parametrize("blend_s", [0.0, 0.3, 2.0])
def test_a_soft_start_leads_from_the_held_pose_to_the_policy_s_rows(blend_s: float) -> None:
    scene = scene_with(0.0, blend_s)
    scene.run(1.0)
    let_through(scene, 1.0)
    sent = len(scene.labels)
    scene.run(0.2)
    assert len(scene.labels) > sent, "it does not wait for the next chunk's time"
    away = float(np.abs(scene.target() - HOME).max())
    assert away < 0.6 * (0.35 / blend_s if blend_s else 1.0)
    scene.run(max(3.0 * blend_s, 2.0))
    assert scene.target() == pytest.approx(FAR, abs=1e-5)
    assert scene.progress.blend == 1.0
    assert scene.fastest <= FASTER


def test_it_is_taken_back_in_the_midst_of_a_motion_without_a_step() -> None:
    scene = scene_with(1.0, 0.5)
    scene.run(0.36)
    scene.fastest = (
        0.0  # from rest to this policy's first row, a long way, a motion is faster than its limit (AT_A_TURN)
    )
    let_through(scene, 0.0)
    scene.run(3.0)
    rests = scene.target()
    scene.run(1.0)
    assert scene.target() == pytest.approx(rests, abs=1e-6)
    assert 0.0 < rests[0] - HOME[0] < 0.6
    assert scene.fastest <= FASTER


def test_what_is_not_let_through_is_not_taken_for_executed_by_what_guides_the_next_chunk() -> None:
    scene = scene_with(0.5, 0.0)
    noted: list[str] = []
    loaded = scene.loop._loaded
    executed, not_executed = loaded.executed, loaded.not_executed
    loaded.executed = lambda *a: (noted.append("executed"), executed(*a))  # type: ignore[method-assign,assignment]
    loaded.not_executed = lambda *a: (noted.append("not executed"), not_executed(*a))  # type: ignore[method-assign,assignment]
    scene.run(0.3)
    assert noted == ["executed", "not executed"]
    issued = scene.world.guard.commands.recall()
    assert issued is not None, "the guard knows what is executed"
    assert issued.rows[-1] == pytest.approx(scene.loop._handover.at(2**62)[0], abs=1e-6)
    noted.clear()
    let_through(scene, 1.0)
    scene.run(0.3)
    assert noted == ["executed"]


def test_the_guard_judges_what_leaves_and_a_hold_is_let_through_as_it_is() -> None:
    scene = scene_with(0.5, 0.0)
    scene.world.engine.model = lambda _: np.full((HORIZON, 7), np.nan, np.float32)
    scene.run(1.0)
    assert {source for _, source, _ in scene.labels} == {HOLD}
    scene.world.engine.model = lambda _: np.full((HORIZON, 7), 9.0, np.float32)
    scene.run(6.0)
    low, high = scene.world.guard.limits.position_min, scene.world.guard.limits.position_max  # type: ignore[union-attr]
    assert ((scene.target() >= low) & (scene.target() <= high)).all()
    assert scene.fastest <= FASTER


def test_after_a_person_the_policy_is_let_through_little_by_little() -> None:
    scene = scene_with(1.0, 2.0)
    scene.run(2.0)
    scene.wanted = lambda: HOME
    scene.run(4.0)
    scene.wanted = lambda: None
    scene.run(RELEASE_S + 0.3)
    assert scene.labels[-1][2] == "policy"
    assert scene.progress.blend < 0.5
    scene.run(0.2)
    assert float(np.abs(scene.target() - HOME).max()) < 0.3
    scene.run(6.0)
    assert scene.target() == pytest.approx(FAR, abs=1e-5)
    assert scene.fastest <= FASTER


def test_nothing_let_through_for_a_minute_trips_nothing_and_then_the_policy_is_let_through() -> None:
    """The robot is not where the policy leads it, which is none of the policy's doing; what breaks a limit anywhere counts."""
    scene = scene_with(0.0, 1.0)
    scene.run(60.0)
    assert scene.world.guard.trips.standing(ROS).consecutive_clamps == 0
    let_through(scene, 1.0)
    scene.run(5.0)
    assert scene.target() == pytest.approx(FAR, abs=1e-5)
    assert scene.fastest <= FASTER
    let_through(scene, 0.0)
    scene.world.engine.model = lambda _: np.full((HORIZON, 7), 9.0, np.float32)
    scene.run(20.0)
    assert scene.world.guard.status(ROS).tripped


def test_a_share_of_a_motion_from_nowhere_is_not_let_through() -> None:
    scene = scene_with(0.0, 1.0)
    scene.loop._handover._where = lambda _: None
    scene.run(1.0)
    assert POLICY not in {source for _, source, _ in scene.labels}
    assert "it is not known where the robot is" in scene.progress.problem_text
