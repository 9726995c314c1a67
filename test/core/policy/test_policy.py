# SPDX-License-Identifier: Apache-2.0
"""One loaded export: what it takes, what it gives, and that no caller waits in vain or races."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from odd_exports import probe
from servers import ExportDir

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import InferenceError, ObservationError
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.load import load_policy
from reflex_core.policy.network import Tensors
from reflex_core.policy.sampler import Sampling
from reflex_core.robot.presets import load_preset
from reflex_core.values import Floats, Observation
from reflex_core.wedges.predict import prototype

JOINTS = load_preset("franka").without_gripper().joint_names


def policy_of(path: Path, embodiment: str | None = None) -> Policy:
    return load_policy(open_export(path), load_preset(embodiment) if embodiment else None, "cpu", 1)


@pytest.fixture
def panda(export_dir: ExportDir) -> Policy:
    return policy_of(export_dir("mono_pi0_7"), "franka")


def test_a_chunk_says_which_cameras_gave_no_picture(panda: Policy) -> None:
    seen = panda.canary()
    first = panda.contract.images[0].camera
    name = panda.binding.cameras[str(first)]
    frames = {name: seen.frames[name]}
    fed = {panda.binding.cameras.get(str(slot.camera), slot.camera) for slot in panda.contract.images}
    alone = panda.predict(dataclasses.replace(seen, frames=frames), 1)
    assert len(fed) > 1
    assert set(alone.masked_cameras) == fed - {name}
    assert panda.predict(seen, 1).masked_cameras == ()


def test_an_answer_without_inference_names_the_cameras_that_the_robot_lacks(panda: Policy) -> None:
    assert panda.binding.unfed_cameras == ("wrist_l", "wrist_r")
    assert prototype(panda, "prod").inference.masked_cameras == ("wrist_l", "wrist_r")


def test_denormalised_actions_match_the_computation_by_hand(tmp_path: Path) -> None:
    raw = policy_of(probe(tmp_path / "raw"))
    mean, std = [0.1 * number for number in range(7)], [0.5 + number for number in range(7)]
    block = {"action": {"mean": mean, "std": std}, "state": {"mode": "identity"}}
    scaled = policy_of(probe(tmp_path / "scaled", config={"normalization": block}))
    seen = dataclasses.replace(raw.canary(), instruction="reach the cube")
    expected = raw.predict(seen, 1).actions * np.array(std) + np.array(mean)
    found = scaled.predict(seen, 1).actions
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)


def test_the_state_is_normalised_before_the_network_sees_it(tmp_path: Path) -> None:
    block = {"state": {"mean": [1.0, 2.0], "std": [0.5, 4.0]}}
    policy = policy_of(probe(tmp_path, config={"normalization": block}))
    seen = dataclasses.replace(policy.canary(), state=np.array([2.0, -2.0], np.float32))
    np.testing.assert_allclose(policy.predict(seen, 1).actions[0, 5:], [2.0, -1.0], atol=1e-5)


def test_warm_up_has_every_shape_of_service(panda: Policy) -> None:
    canary = panda.canary()
    assert set(canary.frames) == set(panda.binding.cameras.values()) | {"wrist_l", "wrist_r"}
    assert canary.state is not None
    assert canary.state.shape == (7,)
    assert panda.predict(canary, 0).actions.shape == (50, 7)


def test_stages_are_named_and_add_up(panda: Policy) -> None:
    stages = panda.predict(panda.canary(), 0).stages_ms
    assert list(stages) == ["preprocess_ms", "queue_ms", "vlm_prefix_ms", "expert_denoise_ms"]
    assert all(value >= 0 for value in stages.values())


def test_a_missing_camera_is_an_error_that_names_the_robots_camera(panda: Policy) -> None:
    with pytest.raises(
        ObservationError, match=r"no image from camera 'camera' \(got none\); the policy needs it"
    ):
        panda.predict(dataclasses.replace(panda.canary(), frames={}), 1)


def test_cameras_that_may_be_missing_may_be_missing(panda: Policy) -> None:
    canary = panda.canary()
    alone = dataclasses.replace(canary, frames={"camera": canary.frames["camera"]})
    actions = panda.predict(alone, 1).actions
    assert np.isfinite(actions).all()
    assert not np.array_equal(actions, panda.predict(canary, 1).actions)


@pytest.mark.parametrize(
    ("state", "slug", "says"),
    [
        (None, "missing-state", "no robot state; the policy needs 7 numbers (panda_joint1, panda_joint2"),
        (np.zeros(6, np.float32), "state-length", "the state must be 7 numbers (panda_joint1"),
        (np.zeros(8, np.float32), "state-length", "got 8"),
        (np.zeros(0, np.float32), "state-length", "got 0"),
        (np.zeros((1, 7), np.float32), "state-length", "got an array of shape (1, 7)"),
        (np.float32(0.0).reshape(()), "state-length", "got an array of shape ()"),
        (np.array([0, 0, 0, np.nan, 0, 0, 0], np.float32), "state-not-finite", "NaN or Inf"),
        (np.array([0, 0, 0, np.inf, 0, 0, 0], np.float32), "state-not-finite", "NaN or Inf"),
    ],
)
def test_a_state_that_cannot_be_is_the_callers_mistake(
    panda: Policy, state: Floats | None, slug: str, says: str
) -> None:
    with pytest.raises(ObservationError) as caught:
        panda.predict(dataclasses.replace(panda.canary(), state=state), 1)
    assert caught.value.slug == slug
    assert says in str(caught.value)


def test_a_policy_that_does_not_read_the_state_takes_any(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("decomposed"))
    for state in (None, np.zeros(3, np.float32), np.full(7, np.nan, np.float32)):
        assert np.isfinite(policy.predict(dataclasses.replace(policy.canary(), state=state), 1).actions).all()


def test_a_cut_instruction_is_reported(panda: Policy) -> None:
    assert panda.predict(dataclasses.replace(panda.canary(), instruction="reach " * 20), 1).tokens_cut == 4
    assert panda.predict(dataclasses.replace(panda.canary(), instruction="reach"), 1).tokens_cut == 0


def test_a_negative_seed_is_the_callers_mistake(panda: Policy) -> None:
    with pytest.raises(ObservationError, match="the seed must not be negative, got -5") as caught:
        panda.predict(panda.canary(), -5)
    assert caught.value.slug == "bad-seed"


def test_a_model_that_raises_is_an_inference_error_in_one_line(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("failing_raise"), "franka")
    state = policy.canary().state
    assert state is not None
    state = state.copy()
    state[0] = 2.0
    with pytest.raises(InferenceError, match=r"model\.onnx: ") as caught:
        policy.predict(dataclasses.replace(policy.canary(), state=state), 1)
    assert "\n" not in str(caught.value)
    assert np.isfinite(policy.predict(policy.canary(), 1).actions).all()


@pytest.mark.parametrize("name", ["mono_pi0_7", "decomposed_state_per_step", "vlm_stack"])
def test_sixteen_threads_get_the_answers_that_one_would_get(export_dir: ExportDir, name: str) -> None:
    policy = policy_of(export_dir(name))

    def seen(number: int) -> Observation:
        canary = policy.canary()
        state = None if canary.state is None else (canary.state + np.float32(number / 50)).astype(np.float32)
        return dataclasses.replace(canary, state=state, instruction=("reach", "push the cube")[number % 2])

    alone = {number: policy.predict(seen(number), number).actions.tobytes() for number in range(16)}
    wrong: list[int] = []

    def caller(number: int) -> None:
        for _ in range(10):
            if policy.predict(seen(number), number).actions.tobytes() != alone[number]:
                wrong.append(number)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_policy_is_freed_at_once_when_it_is_dropped(export_dir: ExportDir) -> None:
    """The node freezes the garbage collector while it serves: a cycle would keep every old policy for ever."""
    policy = policy_of(export_dir("mono_pi0_7"), "franka")
    policy.predict(policy.canary(), 1)
    watched = [weakref.ref(policy), weakref.ref(policy._language), weakref.ref(policy._layout.sessions[0])]
    gc.disable()
    try:
        del policy
        assert [reference() for reference in watched] == [None, None, None]
    finally:
        gc.enable()


def test_the_graphs_run_one_request_at_a_time(export_dir: ExportDir) -> None:
    """Sixteen callers must not share the cores: each would wait for all the others."""
    policy = policy_of(export_dir("mono_pi0_7"))
    layout, inside, seen = policy._layout, [], []

    def watched(
        arrays: Arrays, made: Tensors, noise: Floats, sampling: Sampling, cancellation: Cancellation | None
    ) -> tuple[Floats, int]:
        inside.append(1)
        seen.append(len(inside))
        answer = layout.network.sample(arrays, made, noise, sampling, cancellation)
        inside.pop()
        return answer

    policy._layout = dataclasses.replace(layout, network=dataclasses.replace(layout.network, sample=watched))
    threads = [threading.Thread(target=policy.predict, args=(policy.canary(), seed)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [1] * 16


def test_the_expert_of_the_vlm_stack_does_not_attend_to_padding(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("vlm_stack"))
    arrays, _ = policy.arrays(dataclasses.replace(policy.canary(), instruction="reach the cube"))
    made = policy._layout.prefix(arrays, None)
    picture, words, state = [True], [True] * 3 + [False] * 13, [True]
    assert made["kv_mask"].numpy().tolist() == [picture + words + state]
    assert made["prefix_offset"].numpy().tolist() == [[5]]
