# SPDX-License-Identifier: Apache-2.0
"""The small checkpoints are what LeRobot loads, and its answers are such that a wrong export cannot agree with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import FAMILIES, JOINTS, Made
from lerobot_answers import LeRobot
from raw_observations import RawObservation, noise, observation

LIMIT = 1e-4  # that of the comparison, in the robot's units
RESIZING = ("smolvla", "pi0", "pi0_relative", "pi05", "xvla")


def draws(policy: LeRobot, seed: int = 0) -> np.ndarray | None:
    return None if policy.noise_shape is None else noise(seed, policy.noise_shape)


def moved(policy: LeRobot, seen: RawObservation, other: RawObservation) -> float:
    """How far the chunk moves, in the robot's units, when `other` is seen instead."""
    given = draws(policy)
    return float(np.abs(policy.chunk([seen], given).physical - policy.chunk([other], given).physical).max())


def without_pictures(seen: RawObservation) -> RawObservation:
    return replace(seen, pictures={name: np.zeros_like(picture) for name, picture in seen.pictures.items()})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chunk_is_the_same_again_and_depends_on_all_that_is_seen(
    family: str, lerobot: Callable[[str], LeRobot]
) -> None:
    policy, seen = lerobot(family), observation(3)
    answer, again = (policy.chunk([seen], draws(policy)) for _ in range(2))
    np.testing.assert_array_equal(answer.physical, again.physical)
    assert answer.physical.shape[1] == len(JOINTS)
    assert np.isfinite(answer.physical).all()
    assert moved(policy, seen, without_pictures(seen)) > 100 * LIMIT
    for camera in seen.pictures:
        dark = seen.pictures | {camera: np.zeros_like(seen.pictures[camera])}
        assert moved(policy, seen, replace(seen, pictures=dark)) > 10 * LIMIT, camera
    assert moved(policy, seen, replace(seen, state=seen.state + np.float32(0.1))) > 10 * LIMIT


@pytest.mark.parametrize("family", RESIZING)
def test_a_chunk_depends_on_what_is_said(family: str, lerobot: Callable[[str], LeRobot]) -> None:
    seen = observation(3)
    assert moved(lerobot(family), seen, replace(seen, task="put the lid on the pot")) > 10 * LIMIT


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"act", "act_ensemble"}))
def test_a_chunk_depends_on_what_is_drawn_in_its_order(
    family: str, lerobot: Callable[[str], LeRobot]
) -> None:
    policy, seen = lerobot(family), observation(3)
    given = draws(policy)
    answer = policy.chunk([seen], given).physical
    # fifty steps that each predict the sample have forgotten where they began
    for number in range(len(given) // 2, len(given)):
        other = given.copy()
        other[number] = noise(7, given.shape[1:])
        assert np.abs(policy.chunk([seen], other).physical - answer).max() > 10 * LIMIT, number
    with pytest.raises(AssertionError, match="draws once more"):
        policy.chunk([seen], given[:-1])


@pytest.mark.parametrize(
    "family", ["act", "act_ensemble", "diffusion", "diffusion_ddpm", "smolvla", "pi0", "pi05", "xvla"]
)
def test_the_loop_of_a_robot_executes_the_rows_of_its_chunks(
    family: str, lerobot: Callable[[str], LeRobot]
) -> None:
    """Over the end of a chunk; a policy that sees two moments sees the two newest of them."""
    policy, config = lerobot(family), lerobot(family).config
    rows = config.n_action_steps
    seen = [observation(seed % 4) for seed in range(rows + 1)]
    given = [draws(policy, seed) for seed in range(2)]
    executed = policy.episode(seen, [] if given[0] is None else given)
    first, second = policy.chunk([seen[0]], given[0]), policy.chunk(seen[-2:], given[1])
    np.testing.assert_allclose(executed[:rows], first.physical[:rows], atol=LIMIT / 10)
    if family != "act_ensemble":
        np.testing.assert_allclose(executed[rows], second.physical[0], atol=LIMIT / 10)
        return
    weights = np.exp(-config.temporal_ensemble_coeff * np.arange(2))
    both = np.stack([first.physical[1], second.physical[0]])
    np.testing.assert_allclose(executed[1], weights @ both / weights.sum(), atol=LIMIT / 10)


def test_relative_actions_begin_where_the_robot_is_but_for_the_gripper(
    lerobot: Callable[[str], LeRobot],
) -> None:
    absolute, relative, seen = lerobot("pi0"), lerobot("pi0_relative"), observation(3)
    added = (
        relative.chunk([seen], draws(relative)).physical - absolute.chunk([seen], draws(absolute)).physical
    )
    expected = np.where([joint != "gripper" for joint in JOINTS], seen.state, 0)
    np.testing.assert_allclose(added, np.broadcast_to(expected, added.shape), atol=LIMIT / 10)
    with pytest.raises(ValueError, match="relative actions"):
        relative.episode([seen], [draws(relative)])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_names_a_training_machine_and_none_of_this_one(
    family: str, checkpoint: Callable[[str], Made]
) -> None:
    made = checkpoint(family)
    assert json.loads((made.folder / "config.json").read_text())["device"] == "cuda"
    for path in made.folder.glob("*.json"):
        text = path.read_text()
        assert str(made.folder.parent) not in text, path.name
        assert '"device": "cpu"' not in text, path.name
