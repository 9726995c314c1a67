# SPDX-License-Identifier: Apache-2.0
"""The simulated Panda: scenes, camera, physics, success rule."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from reflex_ros.demo import opengl, scene
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import COLOURS, Scene, hover_points_m, make_scene

SEEDS = range(20)


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    arm = Arm()
    yield arm
    arm.close()


def coloured_pixels(image: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    """Pixels whose hue is the colour's, whatever the light: direction in RGB space."""
    pixels = image.astype(float) - image.min(axis=2, keepdims=True)
    wanted = np.array(COLOURS[colour]) - min(COLOURS[colour])
    length = np.linalg.norm(pixels, axis=2)
    cosine = (pixels @ wanted) / np.maximum(length * np.linalg.norm(wanted), 1e-9)
    return (cosine > 0.98) & (length > 60)


def test_same_seed_gives_the_same_scene() -> None:
    assert make_scene(7) == make_scene(7)
    assert len({make_scene(seed) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_instruction_names_the_target_and_no_other_colour(seed: int) -> None:
    this = make_scene(seed)
    named = [colour for colour in COLOURS if colour in this.instruction.split()]
    assert named == [this.target_colour]
    assert len({block.colour for block in this.blocks}) == scene.BLOCK_COUNT


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_lie_in_the_area_and_apart(seed: int) -> None:
    positions = np.array([(block.x_m, block.y_m) for block in make_scene(seed).blocks])
    low, high = np.transpose(scene.BLOCK_AREA_M)
    assert ((positions >= low) & (positions <= high)).all()
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    assert distances[np.triu_indices(3, 1)].min() > scene.BLOCK_SPACING_M


def test_reached_needs_the_named_block_to_be_near_and_nearest() -> None:
    this = make_scene(0)
    points = hover_points_m(this)
    target = points[this.target_index]
    assert scene.is_reached(this, target + np.array([0.0, 0.0, 0.039]))
    assert not scene.is_reached(this, target + np.array([0.0, 0.0, 0.041]))
    other = dataclasses.replace(this, target_index=(this.target_index + 1) % 3)
    assert not scene.is_reached(other, target)


def test_camera_image_shows_every_block_in_its_colour(arm: Arm) -> None:
    for seed in range(5):
        this = make_scene(seed)
        arm.reset(this)
        image = arm.image()
        assert image.shape == (224, 224, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        # The arm may hide a part of one block; the scene's start pose never hides all of the named one here.
        assert coloured_pixels(image, this.target_colour).sum() > 20


def test_colours_that_are_not_in_the_scene_are_not_in_the_image(arm: Arm) -> None:
    this = make_scene(1)
    arm.reset(this)
    missing = set(COLOURS) - {block.colour for block in this.blocks}
    for colour in missing:
        assert coloured_pixels(arm.image(), colour).sum() == 0


def test_same_seed_gives_the_same_pixels_in_a_new_arm(arm: Arm) -> None:
    arm.reset(make_scene(2))
    other = Arm()
    other.reset(make_scene(2))
    np.testing.assert_array_equal(arm.image(), other.image())
    other.close()


def test_image_follows_the_arm_and_the_asked_size(arm: Arm) -> None:
    this = make_scene(3)
    arm.reset(this)
    before = arm.image("view", 320, 200)
    assert before.shape == (200, 320, 3)
    arm.step(np.array(this.start_joints_rad) + 0.3, 1.0)
    assert (arm.image("view", 320, 200) != before).any()
    with pytest.raises(ValueError, match="outside"):
        arm.image("view", 100_000, 10)


def test_reset_puts_the_arm_at_rest_in_the_start_pose(arm: Arm) -> None:
    this = make_scene(4)
    arm.step([0, 0, 0, -1.5, 0, 2, 0], 0.5)
    arm.reset(this)
    np.testing.assert_allclose(arm.joint_positions_rad, this.start_joints_rad)
    np.testing.assert_array_equal(arm.joint_velocities_rad_s, np.zeros(7))
    assert arm.time_s == 0.0


def test_physics_reaches_a_commanded_pose_and_stays(arm: Arm) -> None:
    this = make_scene(5)
    arm.reset(this)
    goal = np.add(this.start_joints_rad, [0.4, 0.2, -0.3, 0.3, 0.2, -0.3, 0.4])
    arm.step(goal, 1.0)
    arm.step(goal, 1.0)
    np.testing.assert_allclose(arm.joint_positions_rad, goal, atol=2e-3)
    assert np.abs(arm.joint_velocities_rad_s).max() < 1e-2


def test_arm_follows_a_moving_command_closely(arm: Arm) -> None:
    this = make_scene(6)
    arm.reset(this)
    command = np.array(this.start_joints_rad)
    lags = []
    for _ in range(50):
        command = command + np.array([1.0, 0.3, -0.5, 0.5, 0.5, -0.5, 1.0]) * 0.01
        arm.step(command, 0.01)
        lags.append(np.abs(arm.joint_positions_rad - command).max())
    assert max(lags[20:]) < 0.02


def test_step_advances_simulated_time_by_the_duration_asked(arm: Arm) -> None:
    this = make_scene(8)
    arm.reset(this)
    for _ in range(300):
        arm.step(this.start_joints_rad, 1 / 300)
    assert arm.time_s == pytest.approx(1.0, abs=0.005)


def test_command_outside_the_limits_is_held_at_the_limit(arm: Arm) -> None:
    arm.reset(make_scene(9))
    arm.step([9.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8], 4.0)
    assert arm.joint_positions_rad[0] <= 2.8973 + 0.02


@pytest.mark.parametrize("command", [[0.0] * 6, [0.0] * 6 + [float("nan")]])
def test_refuses_a_command_that_is_no_pose(arm: Arm, command: list[float]) -> None:
    arm.reset(make_scene(9))
    with pytest.raises(ValueError, match="Expected 7 finite joint angles"):
        arm.step(command, 0.01)


def test_standing_above_the_named_block_is_reached(arm: Arm) -> None:
    this = make_scene(10)
    arm.reset(this)
    assert not arm.reached(this)
    here = arm.end_effector_m
    block = scene.Block(float(here[0]), float(here[1]), "red")
    under = dataclasses.replace(this, blocks=(block, *this.blocks[1:]), target_index=0)
    height = 2 * scene.BLOCK_HALF_SIZE_M + scene.HOVER_HEIGHT_M
    assert arm.distance_m(under) == pytest.approx(abs(here[2] - height), abs=1e-9)


def test_scene_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_scene(0).instruction = "other"  # type: ignore[misc]
    assert isinstance(hash(make_scene(0)), int)
    assert isinstance(make_scene(0), Scene)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        key: value for key, value in os.environ.items() if key not in {"MUJOCO_GL", "PYOPENGL_PLATFORM"}
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


DRAW = """
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import make_scene
import os
arm = Arm()
arm.reset(make_scene(0))
varied = arm.image().std() > 10
print(os.environ["MUJOCO_GL"], varied)
arm.close()
"""


def test_draws_without_any_setting_even_when_mujoco_was_imported_first() -> None:
    result = run_python("import mujoco\n" + DRAW)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() in (["egl", "True"], ["osmesa", "True"])
    assert result.stderr == ""


def test_respects_an_existing_setting() -> None:
    working = opengl.choose_backend()
    result = run_python(DRAW, MUJOCO_GL=working)
    assert result.stdout.split() == [working, "True"], result.stderr


def test_says_which_packages_are_missing_when_nothing_can_draw() -> None:
    code = "from reflex_ros.demo import opengl\nopengl.backend_works = lambda backend: False\n" + DRAW
    result = run_python(code)
    assert result.returncode != 0
    assert "libosmesa6" in result.stderr.splitlines()[-1]
