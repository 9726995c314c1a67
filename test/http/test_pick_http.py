# SPDX-License-Identifier: Apache-2.0
"""`reflex serve pick` without ROS: the embedded policy with a gripper answers over HTTP, and closes the loop."""

from __future__ import annotations

import base64
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from servers import Server

from reflex_ros.demo.pick_arm import PickArm
from reflex_ros.demo.pick_scene import FINGER_OPEN_M, PICK_JOINT_NAMES, Judgement, judge, make_pick_scene

Serve = Callable[..., Server]

PICK = {"export_dir": "pick", "embodiment": ""}
SEED = 9002
ROWS, ROW_S, REPLAN_ROWS = 120, 0.05, 10


def png_of(pixels: NDArray[np.uint8]) -> str:
    return base64.b64encode(cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()).decode()


def test_eight_columns_come_back_with_the_finger_inside_its_range(serve: Serve) -> None:
    server = serve("calm", **PICK)
    answer = server.client.act(
        instruction="pick up the red cube", state=[0, 0.2, 0, -2.4, 0, 2.6, 0.8, FINGER_OPEN_M]
    )
    assert answer.status == 200, answer.body
    rows = np.array(answer.json["actions"])
    assert rows.shape == (50, len(PICK_JOINT_NAMES))
    assert rows[:, -1].min() >= 0.0
    assert rows[:, -1].max() <= FINGER_OPEN_M


def test_a_state_without_the_finger_is_refused_by_name(serve: Serve) -> None:
    server = serve("calm", **PICK)
    answer = server.client.act(instruction="pick up the red cube", state=[0, 0.2, 0, -2.4, 0, 2.6, 0.8])
    assert answer.status == 422
    assert b"panda_finger_joint1), got 7" in answer.body


@pytest.mark.parametrize("seed", [SEED])
def test_a_cube_is_picked_up_through_the_server_and_the_guard_changes_nothing(
    serve: Serve, seed: int
) -> None:
    server, arm, scene = serve("calm", **PICK), PickArm(), make_pick_scene(seed)
    clamped, judgement, rows = 0, Judgement(), np.empty((0, 8))
    try:
        arm.reset(scene)
        start_m = arm.cubes_m
        for row in range(ROWS):
            if row % REPLAN_ROWS == 0:
                state = [*arm.joint_positions_rad.tolist(), float(np.clip(arm.finger_m, 0.0, FINGER_OPEN_M))]
                answer = server.client.act(
                    image=png_of(arm.image()),
                    instruction=scene.instruction,
                    state=state,
                    episode_id="pick",
                    seed=row,
                )
                assert answer.status == 200, answer.body
                rows = np.array(answer.json["actions"])
                clamped += bool(answer.json["guard_clamped"])
            action = rows[row % REPLAN_ROWS]
            arm.step(action[:7], float(action[7]), ROW_S)
            judgement = judge(judgement, arm.cubes_m[:, 2] - start_m[:, 2], scene.target_index, ROW_S)
            if judgement.picked_up:
                break
    finally:
        arm.close()
    assert judgement.picked_up, judgement
    assert clamped == 0
