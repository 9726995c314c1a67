# SPDX-License-Identifier: Apache-2.0
"""The training of the correction head: its gradients, its inputs, and what comes out of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from heads import constant, fit_of, observation, picture

from reflex_core.chunks.a2c2.checkpoint import read_checkpoint, write_checkpoint
from reflex_core.chunks.a2c2.correction import load_correction
from reflex_core.chunks.a2c2.features import Features, Moment, hues, robot_of
from reflex_core.chunks.a2c2.head import Head, position_encoding
from reflex_core.files.share import embedded_policy
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import BLOCK_AREA_M, make_scene
from training import a2c2_data
from training.a2c2 import (
    NEAR_ROWS,
    NEAR_SHARE,
    PERIOD_MS,
    RECIPE,
    Sampler,
    checkpoint_of,
    measure,
    named,
    new_network,
    observed,
    train,
)
from training.a2c2_data import EPISODE_STEPS, Moments, block_path, joined, open_policy, run_episode

STEPS = 20


@pytest.fixture(scope="module")
def moments() -> Moments:
    """Made up: at step t every row of a chunk is the state of joint 1, which wanders."""
    generator = np.random.default_rng(0)
    states = np.cumsum(generator.normal(0, 0.2, (30, STEPS, 7)), axis=1).astype(np.float32)
    chunks = np.repeat(np.repeat(states[..., None, :1], 50, axis=2), 7, axis=3)
    return joined([
        Moments(
            state, state, np.zeros((STEPS, 36), np.float32), chunk, chunk, np.full(STEPS, "reach the red cube"),
            np.zeros(STEPS, np.int64), np.arange(STEPS),
        )
        for state, chunk in zip(states, chunks, strict=True)
    ])  # fmt: skip


def test_the_gradient_is_that_of_the_loss() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(5, 12)).astype(np.float32)
    target = generator.normal(size=(5, 7)).astype(np.float32)
    network = new_network(12, 0)
    network.weights[-1] *= np.float32(10)
    _, gradients = network.loss(inputs, target)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        place = tuple(0 for _ in parameter.shape)
        kept, step = parameter[place], np.float32(1e-2)
        losses = []
        for shifted in (kept + step, kept - step):
            parameter[place] = shifted
            losses.append(network.loss(inputs, target)[0])
        parameter[place] = kept
        assert gradient[place] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=2e-2, abs=1e-4)


def test_training_sees_what_serving_sees() -> None:
    robot = robot_of(fit_of())
    places = [(30, 40), (50, 60)]
    frames = [picture((200, 20, 20), *place) for place in places]
    states = np.array([[0.1] * 7, [0.4] * 7], np.float32)
    assert robot.state_statistics is not None
    physical = robot.state_statistics.denormalise(states)
    seen, now = (observation(frame, state) for frame, state in zip(frames, physical, strict=True))
    previous = np.full(7, 0.2, np.float32)
    pair = np.arange(2)
    moments = Moments(
        states, np.tile(previous, (2, 1)), np.array([hues(frame.data) for frame in frames]),
        np.zeros((2, 50, 7), np.float32), np.zeros((2, 50, 7), np.float32), np.full(2, now.instruction), 0 * pair, pair,
    )  # fmt: skip
    batch = observed(moments, pair[1:], pair[:1], named(moments))[0]
    assert robot.action_statistics is not None
    moment = Moment(now, seen, robot.action_statistics.denormalise(previous))
    np.testing.assert_allclose(Features(RECIPE, robot).vector(moment), batch, atol=1e-5)


def test_a_trained_head_comes_nearer_to_the_fresh_chunk(moments: Moments, tmp_path: Path) -> None:
    network, mean, std = train(moments, 150, 0)
    checkpoint = checkpoint_of(network, mean, std, tmp_path / "head.npz")
    write_checkpoint(checkpoint)
    head = Head(read_checkpoint(checkpoint.path))
    error = measure(head, moments, delay=6)
    assert error.corrected.mean() < 0.7 * error.plain.mean()


def test_the_standardisation_is_part_of_the_checkpoint(moments: Moments, tmp_path: Path) -> None:
    network, mean, std = train(moments, 20, 0)
    head = Head(checkpoint_of(network, mean, std, tmp_path / "head.npz"))
    batch = Sampler(moments, 1).draw(64)
    by_head = head.residual(batch.inputs[0, None, :7], batch.inputs[0, 7:-33], 0.0, np.array([3]))
    plain = batch.inputs[:1].copy()
    plain[0, -33:-1], plain[0, -1] = position_encoding(50, 32)[3], 0.0
    loss, _ = network.loss((plain - mean) / std, by_head)
    assert loss < 1e-9


def test_rows_that_are_due_next_are_drawn_more_often_and_later_ones_too(moments: Moments) -> None:
    inputs = Sampler(moments, 0).draw(4000).inputs
    age = np.round(inputs[:, -1] / PERIOD_MS)
    encoded = position_encoding(50, 32)
    row = np.argmin(np.abs(inputs[:, None, -33:-1] - encoded).sum(axis=2), axis=1)
    ahead = row - age
    assert ahead.min() == 0
    near = np.mean(ahead < NEAR_ROWS)
    assert NEAR_SHARE < near < NEAR_SHARE + 0.2
    assert np.mean(ahead > 25) > 0.1


def test_the_same_seed_gives_the_same_head(moments: Moments) -> None:
    first, second = (train(moments, 5, 3)[0].parameters() for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_block_stays_on_the_table() -> None:
    low, high = np.transpose(BLOCK_AREA_M)
    for seed in range(30):
        path = block_path(make_scene(seed), np.random.default_rng(seed), 0.05)
        assert path.shape == (EPISODE_STEPS, 2)
        assert ((path >= low - 1e-9) & (path <= high + 1e-9)).all()


def test_episodes_of_a_head_go_where_its_corrections_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arm follows corrected rows; what a chunk of each moment says is on record as ever."""
    monkeypatch.setattr(a2c2_data, "EPISODE_STEPS", 16)
    policy, arm = open_policy(embedded_policy()), Arm()
    try:
        episodes = [
            run_episode(
                policy, arm, 3, None if z is None else load_correction(head(tmp_path, z), policy.binding)
            )
            for z in (None, 0.0, 0.5)
        ]
    finally:
        arm.close()
    plain, left_alone, pushed = (episode.previous for episode in episodes)
    np.testing.assert_allclose(left_alone, plain, atol=1e-5)
    assert np.abs(pushed - plain).max() > 0.3
    assert episodes[2].chunks.shape == episodes[0].chunks.shape == (16, 50, 7)


def test_what_is_wanted_leads_above_the_block_as_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a2c2_data, "EPISODE_STEPS", 4)
    policy, arm = open_policy(embedded_policy()), Arm()
    try:
        for seed in (3, 4, 5):
            scene, episode = make_scene(seed), run_episode(policy, arm, seed)
            assert policy.binding.action_statistics is not None
            arm.reset(scene)
            arm.set_joints(policy.binding.action_statistics.denormalise(episode.wanted[0])[-1])
            assert arm.distance_m(scene) < 0.01
    finally:
        arm.close()


def head(folder: Path, z: float) -> Path:
    """One that says the same of every row."""
    return constant(folder / f"head-{z}.npz", z, chunk_size=50)
