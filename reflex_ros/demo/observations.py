# SPDX-License-Identifier: Apache-2.0
"""Observations from simulated scenes, without ROS: for measurements on the embedded policy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reflex_core.policy.base import Policy
from reflex_core.values import Frame, Observation
from reflex_ros.demo.ambiguity import TASKS
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import Scene, make_scene

FIRST_SEED = 5_000  # the held-out scenes of the evaluation begin at 10,000
ALONG_THE_WAY = (24, 49)


def look(arm: Arm, scene: Scene, camera: str) -> Observation:
    """Return the camera's image now, the joint angles (7,) float32 in rad, and the scene's instruction."""
    pixels = arm.image()
    frame = Frame(pixels, "rgb8", pixels.shape[0], pixels.shape[1])
    return Observation({camera: frame}, arm.joint_positions_rad.astype(np.float32), scene.instruction)


def scene_observations(policy: Policy, count: int) -> Iterator[Observation]:
    """Yield three of each scene and task: at the start, halfway and at the end of the policy's own chunk.

    Raises ObservationError when the policy takes other inputs than this arm has.
    """
    camera = next(iter(policy.binding.cameras.values()), "camera")
    arm = Arm()
    try:
        for seed in range(FIRST_SEED, FIRST_SEED + count):
            for task in TASKS.values():
                scene = task(make_scene(seed))
                arm.reset(scene)
                first = look(arm, scene, camera)
                yield first
                actions = policy.predict(first, seed).actions
                for index in ALONG_THE_WAY:
                    arm.set_joints(actions[index])
                    yield look(arm, scene, camera)
    finally:
        arm.close()
