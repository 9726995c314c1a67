# SPDX-License-Identifier: Apache-2.0
"""Recorded traces as training data of the correction head."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from recordings import NAMES
from traces import writer

from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy
from reflex_core.values import ActionChunk, Frame, Observation, Request, Served
from reflex_core.wedges.predict import prototype
from training.a2c2 import Sampler
from training.a2c2_data import open_policy
from training.a2c2_traces import read_traces

DT_NS = 50_000_000


@pytest.fixture(scope="module")
def policy() -> Policy:
    return open_policy(embedded_policy())


def record(policy: Policy, folder: Path, images: str = "full") -> Path:
    """Two episodes of three requests, 10 control steps apart, their requests mixed; and one without an episode."""
    trace = writer(folder, images=images)
    generator = np.random.default_rng(0)
    assert policy.binding.state_statistics is not None
    middle = policy.binding.state_statistics.shift.astype(np.float32)
    answer = dataclasses.replace(prototype(policy, "prod"), raw_actions=np.zeros((50, 7), np.float32))
    for number, episode in enumerate(("one", "two", "one", None, "two", "two", "one")):
        pixels = generator.integers(0, 255, (64, 64, 3)).astype(np.uint8)
        stamp_ns = 1_000_000_000 + number * 10 * DT_NS
        observation = Observation(
            {"camera": Frame(pixels, "rgb8", 64, 64)}, middle + number, "reach the red block", stamp_ns
        )
        request = Request(observation, 0, f"r-{number}", episode)
        actions = np.full((50, 7), number, np.float32)
        served: Served = dataclasses.replace(
            answer, chunk=ActionChunk(actions, NAMES, 0.05), raw_actions=actions + 1, request_id=request.request_id,
            episode_id=episode,
        )  # fmt: skip
        trace(request, served)
    trace.close()
    (path,) = folder.glob("*.jsonl*")
    return path


def test_the_episodes_of_a_trace_are_separate_and_in_time(policy: Policy, tmp_path: Path) -> None:
    moments, left_out = read_traces([record(policy, tmp_path)], policy)
    assert left_out == 1
    assert sorted(moments.episodes.tolist()) == [0, 0, 0, 1, 1, 1]
    first = moments.rows[moments.episodes == 0]
    np.testing.assert_array_equal(first, [0, 20, 60])
    assert policy.binding.action_statistics is not None
    chunks = policy.binding.action_statistics.denormalise(moments.chunks)
    np.testing.assert_allclose(chunks[:3, 0, 0], [1, 3, 7], atol=1e-5)  # what the network said
    previous = policy.binding.action_statistics.denormalise(moments.previous)
    np.testing.assert_allclose(previous[1:3, 0], [0, 2], atol=1e-5)  # what was served
    assert moments.hues.any()


def test_batches_can_be_drawn_from_a_trace(policy: Policy, tmp_path: Path) -> None:
    moments, _ = read_traces([record(policy, tmp_path)], policy)
    batch = Sampler(moments, 0).draw(100)
    assert np.isfinite(batch.inputs).all()
    assert set(batch.inputs[:, -1].tolist()) == {0.0, 500.0, 1000.0, 1500.0, 2000.0}


def test_traces_without_images_are_refused(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the 7 requests can be used: .* --record-images full"):
        read_traces([record(policy, tmp_path, images="hash_only")], policy)
