# SPDX-License-Identifier: Apache-2.0
"""Frames of the videos of a data set, which LeRobot encodes as AV1: those of the moment, in the episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from dataset_folders import CAMERAS, FPS, LENGTHS, picture, write_places, write_v3, write_v21

from reflex_export.comparison.dataset_samples import dataset_samples
from reflex_export.folder.dataset_info import read_dataset

SIZE = (64, 96)
NEAR = 12  # of 255: what a video does to a colour
V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
V21 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def encode(file: Path, pictures: Sequence[np.ndarray]) -> None:
    """As LeRobot does, with a key frame every other one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as video:
        stream = video.add_stream("libsvtav1", rate=FPS)
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.options = "yuv420p", {"g": "2", "crf": "20"}
        for pixels in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                video.mux(packet)
        for packet in stream.encode():
            video.mux(packet)


def frames(episode: int, camera: int) -> list[np.ndarray]:
    return [picture(episode, frame, camera, SIZE) for frame in range(LENGTHS[episode])]


@pytest.fixture
def v3(tmp_path: Path) -> Path:
    """All episodes behind each other in one video of each camera."""
    folder = write_v3(tmp_path / "cubes", video_path=V3)
    for camera, key in enumerate(CAMERAS):
        shown = [pixels for episode in range(len(LENGTHS)) for pixels in frames(episode, camera)]
        encode(folder / V3.format(video_key=key, chunk_index=0, file_index=0), shown)
    write_places(folder, [0.0, LENGTHS[0] / FPS])
    return folder


@pytest.fixture
def v21(tmp_path: Path) -> Path:
    """A video for each episode."""
    folder = write_v21(tmp_path / "cubes", video_path=V21)
    for camera, key in enumerate(CAMERAS):
        for episode in range(len(LENGTHS)):
            place: dict[str, Any] = {"video_key": key, "episode_chunk": 0, "episode_index": episode}
            encode(folder / V21.format(**place), frames(episode, camera))
    return folder


@pytest.mark.parametrize("layout", ["v3", "v21"])
def test_every_frame_is_the_one_of_its_moment(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    cameras = [
        SimpleNamespace(observation=key, camera=key.rsplit(".", 1)[-1], empty=False) for key in CAMERAS
    ]
    checkpoint: Any = SimpleNamespace(
        dataset=read_dataset(folder), cameras=cameras, observation_steps=1, state_dim=6
    )
    samples, why = dataset_samples(checkpoint, sum(LENGTHS))
    assert why == ""
    moments = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]
    assert len(samples) == len(moments)
    for sample, (episode, frame) in zip(samples, moments, strict=True):
        for number, camera in enumerate(("top", "wrist")):
            seen = sample.pictures[0][camera].mean(axis=(0, 1))
            np.testing.assert_allclose(seen, picture(episode, frame, number, SIZE)[0, 0], atol=NEAR)
