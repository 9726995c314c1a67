# SPDX-License-Identifier: Apache-2.0
"""Small LeRobot data sets of two episodes, whose frames say in every pixel and number which one they are."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

TASKS = ("pick up the cube", "open the drawer")
LENGTHS = (5, 4)  # frames of the episodes; the second has the second task
FPS = 10
CAMERAS = ("observation.images.top", "observation.images.wrist")


def picture(episode: int, frame: int, camera: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """One colour for every frame of every camera."""
    return np.full((*size, 3), (100 * episode, 20 * frame, 200 * camera), np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def state(episode: int, frame: int, dim: int = 6) -> list[float]:
    return [episode + frame / 100 + column / 1000 for column in range(dim)]


def rows_of(episode: int) -> list[dict[str, Any]]:
    return [
        {
            "observation.state": state(episode, frame), "episode_index": episode, "frame_index": frame,
            "timestamp": frame / FPS, "task_index": episode,
        }
        for frame in range(LENGTHS[episode])
    ]  # fmt: skip


def with_pictures(size: tuple[int, int] = (48, 64)) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Adds the pictures of a row, as files within the table."""

    def add(row: dict[str, Any]) -> dict[str, Any]:
        pictures = {
            key: {"bytes": png(picture(row["episode_index"], row["frame_index"], camera, size)), "path": None}
            for camera, key in enumerate(CAMERAS)
        }
        return row | pictures

    return add


def write_v3(
    folder: Path, add: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row, **info: Any
) -> Path:
    """As LeRobot 0.4 and newer write it: all episodes in one file, instructions as the index of a table."""
    rows = [add(row) for episode in range(len(LENGTHS)) for row in rows_of(episode)]
    data = folder / "data" / "chunk-000"
    data.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), data / "file-000.parquet", row_group_size=4)
    _write_info(folder, "v3.0", **info)
    tasks = pa.table({"task_index": [0, 1], "__index_level_0__": list(TASKS)})
    parquet.write_table(tasks, folder / "meta" / "tasks.parquet")
    return folder


def write_v21(
    folder: Path, add: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row, **info: Any
) -> Path:
    """As LeRobot 0.3 writes it: a file for each episode, instructions in lines."""
    data = folder / "data" / "chunk-000"
    data.mkdir(parents=True)
    for episode in range(len(LENGTHS)):
        table = pa.Table.from_pylist([add(row) for row in rows_of(episode)])
        parquet.write_table(table, data / f"episode_{episode:06d}.parquet")
    _write_info(folder, "v2.1", **info)
    lines = [json.dumps({"task_index": number, "task": task}) for number, task in enumerate(TASKS)]
    (folder / "meta" / "tasks.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_places(folder: Path, starts: Sequence[float]) -> None:
    """Where the episodes of a v3.0 data set begin in the video of each camera, in seconds."""
    rows = [
        {"episode_index": episode}
        | {f"videos/{key}/{name}": 0 for key in CAMERAS for name in ("chunk_index", "file_index")}
        | {f"videos/{key}/from_timestamp": start for key in CAMERAS}
        for episode, start in enumerate(starts)
    ]
    places = folder / "meta" / "episodes" / "chunk-000"
    places.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), places / "file-000.parquet")


def _write_info(folder: Path, version: str, **info: Any) -> None:
    (folder / "meta").mkdir()
    vector = {"dtype": "float32", "shape": [6], "names": None}
    features = {"observation.state": vector, "action": vector}
    document = {"codebase_version": version, "fps": FPS, "features": features, "chunks_size": 1000} | info
    (folder / "meta" / "info.json").write_text(json.dumps(document), encoding="utf-8")
