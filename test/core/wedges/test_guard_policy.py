# SPDX-License-Identifier: Apache-2.0
"""The guard and the embedded policy: ordinary chunks pass as they are, and the arm never exceeds its limits."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from reflex_core.export.export import open_export
from reflex_core.files.share import embedded_policy
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.limits.safety_config import SafetyConfig
from reflex_core.robot.presets import load_preset
from reflex_core.values import ActionChunk, Floats, Frame, Inference, Observation, Request, Served
from reflex_core.wedges.guard import Guard, guard_for
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import make_scene

ROWS_PER_CHUNK = 10
CHUNKS = 8
EPOCH_NS = 10**18


@pytest.fixture(scope="module")
def policy() -> Policy:
    """The embedded policy as the Franka preset sees it."""
    return load_policy(open_export(embedded_policy()), load_preset("franka"), "cpu", 1, ())


@pytest.fixture(scope="module")
def arm() -> Arm:
    return Arm()


def answer(policy: Policy, seed: int, request: Request) -> Served:
    actions = policy.predict(request.observation, seed).actions
    chunk = ActionChunk(actions, policy.binding.action_names, policy.binding.dt_s)
    return Served(
        chunk, actions, request.request_id, None, seed, "prod", "embedded", Inference("onnx_cpu", 10, 10)
    )


def observed(policy: Policy, arm: Arm, instruction: str, seconds: float) -> Observation:
    picture = np.ascontiguousarray(arm.image())
    frame = Frame(picture, "rgb8", *picture.shape[:2], picture.shape[1] * 3)
    state: Floats = arm.joint_positions_rad.astype(np.float32)
    camera = policy.binding.cameras[policy.contract.images[0].camera]
    return Observation({camera: frame}, state, instruction, stamp_ns=EPOCH_NS + int(seconds * 1e9))


def reach(policy: Policy, arm: Arm, guard: Guard, seed: int) -> list[Served]:
    """A reach on the simulated arm, half a second at a time, each chunk answered at once."""
    scene = make_scene(seed)
    arm.reset(scene)
    dt_s = policy.binding.dt_s
    answers = []
    for number in range(CHUNKS):
        observation = observed(policy, arm, scene.instruction, number * ROWS_PER_CHUNK * dt_s)
        # however long inference takes on this machine: the chunk is judged as if it had come at once
        request = Request(observation, time.monotonic_ns() + 10**9, "reach", "episode")
        answers.append(guard(request, partial(answer, policy, number)))
        for row in answers[-1].chunk.actions[:ROWS_PER_CHUNK]:
            arm.step(row, dt_s)
    assert arm.reached(scene)
    return answers


def guard_of(policy: Policy, safety: SafetyConfig | None) -> Guard:
    binding = policy.binding
    return guard_for(
        binding.embodiment, binding.hold_columns, Metrics(), safety, binding.action_names, binding.dt_s
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ordinary_chunks_pass_the_velocity_check_as_they_are(policy: Policy, arm: Arm, seed: int) -> None:
    for served in reach(policy, arm, guard_of(policy, None), seed):
        assert served.guard.violations == ()
        assert served.chunk.actions is served.raw_actions


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_arm_still_reaches_with_its_starts_softened(policy: Policy, arm: Arm, seed: int) -> None:
    """With the Panda's published accelerations the policy's first chunk starts the arm too hard."""
    embodiment = policy.binding.embodiment
    assert embodiment is not None
    safety = SafetyConfig(
        Path("safety.json"), embodiment.joint_names, acceleration_max=embodiment.acceleration_max
    )
    guard = guard_of(policy, safety)
    first, *_ = reach(policy, arm, guard, seed)
    assert first.guard.clamped
    assert all("acceleration" in line for line in first.guard.violations)
    assert not guard.status().tripped
