# SPDX-License-Identifier: Apache-2.0
"""Observations of the data set that the policy was trained on, beside those that are made from a seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_folders import checkpoint_folder, options
from dataset_folders import CAMERAS, LENGTHS, TASKS, picture, png, state, with_pictures, write_v3, write_v21

from reflex_export.checkpoint import Checkpoint
from reflex_export.comparison.dataset_samples import dataset_samples
from reflex_export.comparison.samples import takes
from reflex_export.folder.dataset_info import read_dataset
from reflex_export.folder.read_folder import read_checkpoint

FRAMES = sum(LENGTHS)
SIZE = (48, 64)


def checkpoint_on(folder: Path, tmp_path: Path, family: str = "smolvla") -> Checkpoint:
    read = read_checkpoint(str(checkpoint_folder(tmp_path / "policy", family)), options(), tmp_path)
    return replace(read, dataset=read_dataset(folder))


@pytest.mark.parametrize("write", [write_v3, write_v21])
def test_frames_are_spread_over_all_episodes(write: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = checkpoint_on(write(tmp_path / "cubes", with_pictures()), tmp_path)
    samples, why = dataset_samples(checkpoint, 3)
    assert why == ""
    assert [sample.described for sample in samples] == [
        "episode 0, frame 0 of cubes", "episode 0, frame 4 of cubes", "episode 1, frame 3 of cubes"
    ]  # fmt: skip
    assert [sample.instruction for sample in samples] == [TASKS[0], TASKS[0], TASKS[1]]
    last = samples[-1]
    np.testing.assert_allclose(last.states, [state(1, 3)], rtol=1e-6)
    for number, camera in enumerate(("top", "wrist")):
        np.testing.assert_array_equal(last.pictures[0][camera], picture(1, 3, number, SIZE))


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_what_was_seen_before_is_of_the_same_episode(steps: int, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(write_v3(tmp_path / "cubes", with_pictures()), tmp_path, "diffusion")
    samples, why = dataset_samples(replace(checkpoint, observation_steps=steps), FRAMES)
    assert (len(samples), why) == (FRAMES, "")
    episodes = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]
    for sample, (episode, frame) in zip(samples, episodes, strict=True):
        frames = [max(frame - before, 0) for before in reversed(range(steps))]
        np.testing.assert_allclose(sample.states, [state(episode, one) for one in frames], rtol=1e-6)
        assert [moment["top"][0, 0, 1] for moment in sample.pictures] == [20 * one for one in frames]


def test_no_more_is_asked_for_than_there_is(tmp_path: Path) -> None:
    checkpoint = checkpoint_on(write_v3(tmp_path / "cubes", with_pictures()), tmp_path)
    samples, _ = dataset_samples(checkpoint, 100)
    assert len(samples) == FRAMES


def test_pictures_of_another_size_than_the_policy_takes_are_distinguished(tmp_path: Path) -> None:
    small = write_v3(tmp_path / "small", with_pictures())
    checkpoint = checkpoint_on(small, tmp_path, "act")
    (sample,) = dataset_samples(checkpoint, 1)[0]
    assert not takes(checkpoint, options(), sample)
    large = write_v3(tmp_path / "large", with_pictures((480, 640)))
    (sample,) = dataset_samples(replace(checkpoint, dataset=read_dataset(large)), 1)[0]
    assert takes(checkpoint, options(), sample)


def damaged(folder: Path) -> None:
    (folder / "data" / "chunk-000" / "file-000.parquet").write_bytes(b"half a download")


def without_data(folder: Path) -> None:
    damaged(folder)
    (folder / "data" / "chunk-000" / "file-000.parquet").unlink()
    (folder / "data" / "chunk-000").rmdir()
    (folder / "data").rmdir()


def without_frames(folder: Path) -> None:
    (folder / "data" / "chunk-000" / "file-000.parquet").unlink()


def piped(folder: Path) -> None:
    file = folder / "data" / "chunk-000" / "file-000.parquet"
    file.unlink()
    os.mkfifo(file)


def piped_tasks(folder: Path) -> None:
    (folder / "meta" / "tasks.parquet").unlink()
    os.mkfifo(folder / "meta" / "tasks.jsonl")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (piped, "its file 'data/chunk-000/file-000.parquet' is a FIFO"),
        (piped_tasks, "tasks.jsonl: is a FIFO"),
        (damaged, "its observations cannot be read (ArrowInvalid"),
        (without_data, "no observations lie beside it"),
        (without_frames, "its data files hold no frames"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_said_and_stops_nothing(
    damage: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    folder = write_v3(tmp_path / "cubes", with_pictures())
    damage(folder)
    samples, why = dataset_samples(checkpoint_on(folder, tmp_path), 3)
    assert samples == []
    assert says in why
    assert why.endswith("so that random ones alone were compared")


@pytest.mark.parametrize(
    ("video_path", "says"),
    [
        ("/etc/{video_key}.mp4", "names the file '/etc/observation.images.top.mp4', which is not in its folder"),
        ("videos/../../{video_key}.mp4", "which is not in its folder"),
        ("videos/{episode_index:>9999999999}.mp4", "names its files by 'videos/{episode_index:>9999999999}.mp4': known are"),
        ("videos/{video_key.__class__}.mp4", "names its files by"),
        ("videos/{camera}.mp4", "known are episode_chunk, episode_index, video_key, as {name} or {name:03d}"),
        ("videos/{episode_chunk:03d}/{video_key}/{episode_index:06d}.mp4", "000000.mp4' is not there"),
        ("data", "its file 'data' is a directory"),
    ],
)  # fmt: skip
def test_a_data_set_reads_files_of_its_own_folder_alone(video_path: str, says: str, tmp_path: Path) -> None:
    folder = write_v21(tmp_path / "cubes", video_path=video_path)
    samples, why = dataset_samples(checkpoint_on(folder, tmp_path), 1)
    assert (samples, says in why) == ([], True), why


def test_a_picture_outside_a_data_set_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "private.png").write_bytes(png(picture(0, 0, 0, (48, 64))))

    def elsewhere(row: dict[str, Any]) -> dict[str, Any]:
        return row | {key: {"bytes": None, "path": str(tmp_path / "private.png")} for key in CAMERAS}

    folder = write_v3(tmp_path / "cubes", elsewhere)
    samples, why = dataset_samples(checkpoint_on(folder, tmp_path), 1)
    assert samples == []
    assert "private.png', which is not in its folder" in why
