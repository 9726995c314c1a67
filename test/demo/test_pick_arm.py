# SPDX-License-Identifier: Apache-2.0
"""Picking in the simulator: scenes, contacts, the hand, and when a cube counts as picked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from reflex_ros.demo import pick_scene
from reflex_ros.demo.pick_arm import PickArm
from reflex_ros.demo.pick_scene import (
    CUBE_HALF_SIZE_M,
    FINGER_OPEN_M,
    HELD_S,
    LIFTED_M,
    WRONG_CUBE_M,
    Judgement,
    PickScene,
    judge,
    make_pick_scene,
)
from reflex_ros.demo.pick_task import PickTask
from reflex_ros.demo.scene import COLOURS

SEEDS = range(20)
# tool down, between the fingers the point (0.5, 0) at a cube's height and 20 cm above the table
AT_THE_CUBE_RAD = (0.0, 0.5005, 0.0, -2.35326, 0.0, 2.85376, 0.7853)
ABOVE_RAD = (0.0, 0.04595, 0.0, -2.37636, 0.0, 2.42231, 0.7854)
STEP_S = 0.05


@pytest.fixture(scope="module")
def arm() -> Iterator[PickArm]:
    arm = PickArm()
    yield arm
    arm.close()


def around_a_cube() -> PickScene:
    """The named cube between the open fingers, the others out of the way."""
    scene = make_pick_scene(0)
    places = iter([(0.42, -0.18), (0.58, 0.18)])
    cubes = [
        dataclasses.replace(cube, turn_rad=0.0, **dict(zip(("x_m", "y_m"), (0.5, 0.0) if index == scene.target_index else next(places), strict=True)))
        for index, cube in enumerate(scene.cubes)
    ]  # fmt: skip
    return dataclasses.replace(scene, cubes=tuple(cubes), start_joints_rad=AT_THE_CUBE_RAD)


def run(arm: PickArm, joints_rad: tuple[float, ...], finger_m: float, duration_s: float) -> None:
    """Move there within the time, in a straight line of joints."""
    start_rad, steps = arm.joint_positions_rad, round(duration_s / STEP_S)
    for step in range(1, steps + 1):
        arm.step(start_rad + (np.array(joints_rad) - start_rad) * step / steps, finger_m, STEP_S)


def test_same_seed_gives_the_same_scene() -> None:
    assert make_pick_scene(7) == make_pick_scene(7)
    assert len({make_pick_scene(seed) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_instruction_names_one_cube_and_the_cubes_lie_apart(seed: int) -> None:
    scene = make_pick_scene(seed)
    named = [colour for colour in COLOURS if colour in scene.instruction.split()]
    assert named == [scene.target_colour]
    places = np.array([(cube.x_m, cube.y_m) for cube in scene.cubes])
    low, high = np.transpose(pick_scene.CUBE_AREA_M)
    assert ((places >= low) & (places <= high)).all()
    between = np.linalg.norm(places[:, None] - places[None], axis=2)[np.triu_indices(3, 1)]
    assert between.min() > pick_scene.CUBE_SPACING_M


def test_cubes_rest_where_the_scene_has_them(arm: PickArm) -> None:
    scene = make_pick_scene(3)
    arm.reset(scene)
    run(arm, scene.start_joints_rad, FINGER_OPEN_M, 1.0)
    wanted = [(cube.x_m, cube.y_m, CUBE_HALF_SIZE_M) for cube in scene.cubes]
    np.testing.assert_allclose(arm.cubes_m, wanted, atol=1e-3)


def test_fingers_stop_at_a_cube_lift_it_hold_it_and_let_it_fall(arm: PickArm) -> None:
    scene = around_a_cube()
    arm.reset(scene)
    run(arm, AT_THE_CUBE_RAD, 0.0, 0.5)
    assert arm.finger_m == pytest.approx(CUBE_HALF_SIZE_M, abs=2e-3)
    run(arm, ABOVE_RAD, 0.0, 2.0)
    heights_m = arm.cubes_m[:, 2] - CUBE_HALF_SIZE_M
    assert heights_m[scene.target_index] > LIFTED_M
    assert np.delete(heights_m, scene.target_index) == pytest.approx([0.0, 0.0], abs=2e-3)
    run(arm, ABOVE_RAD, 0.0, 2.0)
    assert arm.cubes_m[scene.target_index, 2] - CUBE_HALF_SIZE_M > LIFTED_M, (
        "it slips out of no hand that holds"
    )
    run(arm, ABOVE_RAD, FINGER_OPEN_M, 1.0)
    assert arm.cubes_m[scene.target_index, 2] < 2 * CUBE_HALF_SIZE_M


def test_empty_fingers_close_and_open_together(arm: PickArm) -> None:
    scene = make_pick_scene(1)
    arm.reset(scene)
    for wanted_m in (0.0, FINGER_OPEN_M, 0.013):
        run(arm, scene.start_joints_rad, wanted_m, 1.0)
        assert arm.finger_m == pytest.approx(wanted_m, abs=1e-3)


def test_what_is_no_pose_is_refused(arm: PickArm) -> None:
    arm.reset(make_pick_scene(1))
    with pytest.raises(ValueError, match="Expected 7 finite joint angles in rad"):
        arm.step([0.0] * 6, FINGER_OPEN_M, STEP_S)


def test_same_seed_gives_the_same_pixels_and_people_see_shadows(arm: PickArm) -> None:
    arm.reset(make_pick_scene(2))
    first, view = arm.image(), arm.image("view", 320, 240)
    assert first.shape == (224, 224, 3)
    assert view.shape == (240, 320, 3)
    other = PickArm()
    try:
        other.reset(make_pick_scene(2))
        np.testing.assert_array_equal(first, other.image())
    finally:
        other.close()


def test_the_camera_of_the_policy_sees_every_cube_wherever_it_lies(arm: PickArm) -> None:
    for x_m in pick_scene.CUBE_AREA_M[0]:
        for y_m in pick_scene.CUBE_AREA_M[1]:
            scene = make_pick_scene(0)
            cubes = [dataclasses.replace(cube, x_m=x_m, y_m=y_m, colour="red") for cube in scene.cubes[:1]]
            arm.reset(
                dataclasses.replace(scene, cubes=(*cubes, *scene.cubes[1:]), start_joints_rad=ABOVE_RAD)
            )
            pixels = arm.image().astype(int)
            red = (pixels[..., 0] > 100) & (pixels[..., 0] > 2 * pixels[..., 1:].max(axis=2))
            assert red.sum() > 100, (x_m, y_m)


def test_a_cube_is_picked_up_once_it_was_up_for_a_second_without_a_break() -> None:
    up, down = np.array([LIFTED_M + 0.01, 0.0, 0.0]), np.zeros(3)
    found = Judgement()
    for _ in range(round(HELD_S / STEP_S) - 1):
        found = judge(found, up, 0, STEP_S)
    assert not found.picked_up
    assert judge(found, up, 0, STEP_S).picked_up
    dropped = judge(found, down, 0, STEP_S)
    assert not judge(dropped, up, 0, STEP_S).picked_up, "the second begins again"


def test_lifting_another_cube_is_no_success_whatever_follows() -> None:
    wrong = judge(Judgement(), np.array([0.0, WRONG_CUBE_M + 0.01, 0.0]), 0, STEP_S)
    assert wrong.wrong_cube
    for _ in range(round(2 * HELD_S / STEP_S)):
        wrong = judge(wrong, np.array([LIFTED_M + 0.01, 0.0, 0.0]), 0, STEP_S)
    assert not wrong.picked_up


def test_the_task_says_why_nothing_was_picked_up_and_keeps_what_the_gripper_was_last_commanded() -> None:
    task = PickTask()
    task.reset(4)
    task.gripper.set([0.01])
    for _ in range(20):
        task.step(task.arm.joint_positions_rad, STEP_S)
    score = task.score()
    positions, velocities = task.state
    assert score["succeeded"] is False
    assert score["note"] == f"the {make_pick_scene(4).target_colour} cube is 0.00 m up"
    assert positions.shape == velocities.shape == (len(task.state_names),)
    assert positions[-1] == pytest.approx(0.01, abs=1e-3)
    task.reset(4)
    assert task.state[0][-1] == pytest.approx(FINGER_OPEN_M)
