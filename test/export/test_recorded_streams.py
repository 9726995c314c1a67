# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own reader on what `reflex trace export` makes of a bag that holds whole streams, and of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_traces import trace_of
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from stream_bags import FPS, SIZE, TELEOP_OFFSET, two_episodes

from reflex_ros.cli.main import main

CAMERAS = ["observation.images.base", "observation.images.wrist"]
LENGTHS = [58, 60]


def read(recorded: Path, folder: Path, *options: str, **wanted: Any) -> Any:
    arguments = ["export", str(recorded), "--format", "lerobot", "--output", str(folder / "set"), *options]
    assert main(["trace", *arguments]) == 0
    return LeRobotDataset("local/recorded", root=folder / "set", **wanted)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("streams")
    deltas = {"action": [step / FPS for step in range(4)]}
    return read(two_episodes(folder / "bags"), folder, delta_timestamps=deltas)


def test_lerobot_finds_every_episode_at_the_rate_of_the_policy(dataset: Any) -> None:
    assert dataset.fps == FPS
    assert (dataset.num_episodes, dataset.num_frames, len(dataset)) == (2, sum(LENGTHS), sum(LENGTHS))
    assert [dataset.meta.episodes[number]["length"] for number in range(2)] == LENGTHS
    assert dataset.meta.camera_keys == CAMERAS
    assert dataset.meta.robot_type == "arm"
    features = dataset.meta.features
    assert features["action"]["names"] == features["observation.state"]["names"] == ["a", "b", "c"]
    assert (features["record.takeover"]["dtype"], features["record.outcome"]["dtype"]) == ("bool", "string")


def test_frames_have_images_state_task_and_labels(dataset: Any) -> None:
    first, taken, last = dataset[0], dataset[30], dataset[len(dataset) - 1]
    assert (first["task"], last["task"]) == ("pick the cup", "put it back")
    assert (first["record.outcome"], last["record.outcome"]) == ("success", "unknown")
    assert [bool(frame["record.takeover"]) for frame in (first, taken, last)] == [False, True, False]
    for camera in CAMERAS:
        image = first[camera]
        assert image.shape == (3, SIZE, SIZE)
        assert (image.dtype, float(image.min()) >= 0.0, float(image.max()) <= 1.0) == (
            torch.float32,
            True,
            True,
        )
    np.testing.assert_allclose(first["observation.state"].numpy(), [0.096, 0.196, 0.296], atol=1e-5)
    # a chunk of actions: rows that follow each other by a period, all of them the person's
    actions = taken["action"].numpy()
    assert actions.shape == (4, 3)
    np.testing.assert_allclose(np.diff(actions[:, 0]), 1.0 / FPS, atol=1e-4)
    assert (actions > TELEOP_OFFSET).all()


def test_statistics_are_those_of_the_frames(dataset: Any) -> None:
    stats = dataset.meta.stats
    states = torch.stack([dataset.hf_dataset[number]["observation.state"] for number in range(len(dataset))])
    np.testing.assert_allclose(stats["observation.state"]["mean"], states.mean(0).numpy(), rtol=1e-4)
    np.testing.assert_allclose(
        stats["observation.state"]["std"], states.std(0, correction=0).numpy(), rtol=1e-3
    )
    assert stats["observation.images.base"]["mean"].shape == (3, 1, 1)
    assert float(stats["record.takeover"]["mean"][0]) == pytest.approx(20 / sum(LENGTHS), abs=0.01)


def test_a_loader_makes_batches(dataset: Any) -> None:
    loader = torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True, num_workers=0)
    batch = next(iter(loader))
    assert batch["action"].shape == (16, 4, 3)
    assert batch["observation.state"].shape == (16, 3)
    assert batch["observation.images.wrist"].shape == (16, 3, SIZE, SIZE)
    assert batch["record.takeover"].shape[0] == len(batch["task"]) == len(batch["record.outcome"]) == 16
    assert sum(len(each["index"]) for each in loader) == sum(LENGTHS)


def test_a_trace_is_read_as_well(tmp_path: Path) -> None:
    found = read(trace_of(tmp_path / "traces", ["one", "two", "one", "two", "two"]), tmp_path)
    assert (found.num_episodes, found.num_frames, found.fps) == (2, 5, 1)
    assert found[0]["chunk.raw"].shape == (10, 7)
    assert found[0]["record.outcome"] == "unknown"
