# SPDX-License-Identifier: Apache-2.0
"""Observations of a LeRobot data set (v2.1, v3.0): what the policy was trained on, spread over all of its frames."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from reflex_core.errors import ExportError
from reflex_core.export.processors import STATE
from reflex_core.files.json_fields import MOST_BYTES, JsonError, read_bounded, read_object
from reflex_core.files.regular_file import unreadable
from reflex_core.text.untrusted import escaped
from reflex_export.checkpoint import CameraFeature, Checkpoint
from reflex_export.comparison.dataset_paths import dataset_file, filled_in
from reflex_export.comparison.samples import Floats, Pixels, Sample

TASKS = ("meta/tasks.parquet", "meta/tasks.jsonl")  # of v3.0 and of v2.1
TASK, TASK_INDEX, EPISODE, FRAME, TIME = "task", "task_index", "episode_index", "frame_index", "timestamp"
_ROW_GROUPS = 4  # that stay in memory
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a frame is: its row group in a file, and its row in that."""

    file: Path
    group: int
    row: int


def dataset_samples(checkpoint: Checkpoint, count: int) -> tuple[list[Sample], str]:
    """Return up to `count` samples, and why there are none or fewer, "" where all are there.

    Nothing of a data set stops an export: it is one proof more, beside observations that are made from a seed.
    """
    dataset = checkpoint.dataset
    if dataset is None:
        return [], ""
    if dataset.folder is None or not (dataset.folder / "data").is_dir():
        return [], f"{dataset.file}: no observations lie beside it, so that random ones alone were compared"
    try:
        return list(_samples(checkpoint, dataset.folder, count)), ""
    except ImportError as error:
        why = f"{error.name} is not installed: pip install pyarrow av"
    except (
        Exception
    ) as error:  # what pyarrow, av and numpy raise on files of another layout or a half download
        why = f"{type(error).__name__}: {escaped(str(error), 200)}"
    return (
        [],
        f"{dataset.folder}: its observations cannot be read ({why}), so that random ones alone were compared",
    )


def _samples(checkpoint: Checkpoint, folder: Path, count: int) -> Iterator[Sample]:
    reader = _Reader(folder, checkpoint)
    for number in np.linspace(0, reader.frames - 1, min(count, reader.frames)).astype(int):
        yield reader.sample(int(number))


class _Reader:
    """The frames of a data set by their number over all files."""

    def __init__(self, folder: Path, checkpoint: Checkpoint) -> None:
        from pyarrow import parquet

        self._folder, self._checkpoint = folder, checkpoint
        self._info = _info(folder)
        self._groups: list[tuple[Path, int, int]] = []  # file, group, rows
        for file in _tables(folder, "data"):
            about = parquet.ParquetFile(file).metadata
            self._groups += [
                (file, group, about.row_group(group).num_rows) for group in range(about.num_row_groups)
            ]
        self.frames = sum(rows for _, _, rows in self._groups)
        if not self.frames:
            raise ExportError("its data files hold no frames")
        self._tasks = _tasks(folder)
        self._read = lru_cache(maxsize=_ROW_GROUPS)(self._read_group)

    def sample(self, number: int) -> Sample:
        """Return the frame of a number, with those before it in its episode; its first one stands for those before that."""
        newest = self._row(number)
        moments, at = [newest], number
        for _ in range(self._checkpoint.observation_steps - 1):
            before = self._row(at - 1) if at else None
            if before is not None and before[EPISODE] == newest[EPISODE]:
                moments.insert(0, before)
                at -= 1
            else:
                moments.insert(0, moments[0])
        states = np.stack([self._state(row) for row in moments])
        described = f"episode {newest[EPISODE]}, frame {newest[FRAME]} of {self._folder.name}"
        task = self._tasks.get(int(newest[TASK_INDEX]), "")
        return Sample(described, tuple(map(self._pictures, moments)), states, task)

    def _row(self, number: int) -> Row:
        for file, group, rows in self._groups:
            if number < rows:
                return self._read(file, group)[number]
            number -= rows
        raise AssertionError("a frame beyond the last one")

    def _read_group(self, file: Path, group: int) -> list[Row]:
        from pyarrow import parquet

        opened = parquet.ParquetFile(file)
        wanted = {EPISODE, FRAME, TIME, TASK_INDEX, STATE, *(one.observation for one in self._cameras)}
        columns = [name for name in opened.schema_arrow.names if name in wanted]
        rows: list[Row] = opened.read_row_group(group, columns=columns).to_pylist()
        return rows

    @property
    def _cameras(self) -> Sequence[CameraFeature]:
        return [camera for camera in self._checkpoint.cameras if not camera.empty]

    def _state(self, row: Row) -> Floats:
        if not self._checkpoint.state_dim:
            return np.zeros(0, np.float32)
        return np.asarray(row[STATE], np.float32).reshape(self._checkpoint.state_dim)

    def _pictures(self, row: Row) -> dict[str, Pixels]:
        return {camera.camera: self._picture(camera.observation, row) for camera in self._cameras}

    def _picture(self, feature: str, row: Row) -> Pixels:
        stored = row.get(feature)
        if stored is None:
            return _frame_at(*self._video(feature, row))
        from PIL import Image

        content = stored["bytes"] if isinstance(stored, dict) else stored
        source = io.BytesIO(content) if content else dataset_file(self._folder, stored["path"])
        with Image.open(source) as picture:
            return np.asarray(picture.convert("RGB"))

    def _video(self, feature: str, row: Row) -> tuple[Path, float]:
        """Return the video file of a feature in the episode of a row, and the time of the row in it, in seconds."""
        episode, pattern = int(row[EPISODE]), str(self._info["video_path"])
        place: dict[str, Any] = {"video_key": feature, "episode_index": episode}
        start = 0.0
        if found := self._episode(episode):
            place |= {key: found[f"videos/{feature}/{key}"] for key in ("chunk_index", "file_index")}
            start = float(found[f"videos/{feature}/from_timestamp"])
        else:
            place["episode_chunk"] = episode // int(self._info.get("chunks_size", 1000))
        return dataset_file(self._folder, filled_in(pattern, place)), start + float(row[TIME])

    @lru_cache(maxsize=8)  # noqa: B019  (one reader for one export)
    def _episode(self, episode: int) -> Row | None:
        """Return the entry of an episode in v3.0; None in v2.1, which has a video for each episode."""
        from pyarrow import parquet

        for file in _tables(self._folder, "meta/episodes"):
            for row in parquet.read_table(file).to_pylist():
                if row[EPISODE] == episode:
                    return dict(row)
        return None


def _tables(folder: Path, below: str) -> list[Path]:
    """Return the tables of a folder of the data set, in their order."""
    found = sorted((folder / below).rglob("*.parquet"))
    return [dataset_file(folder, file.relative_to(folder).as_posix()) for file in found]


def _info(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / "meta" / "info.json")
    except JsonError as error:
        raise ExportError(str(error)) from error


def _tasks(folder: Path) -> dict[int, str]:
    """Return number -> instruction."""
    table, lines = (folder / name for name in TASKS)
    for file in (table, lines):
        if file.exists() and (why := unreadable(file)):
            raise ExportError(f"{file}: is {why}")
    if table.is_file():
        from pyarrow import parquet

        rows = parquet.read_table(table).to_pylist()
        # the instruction is the index of a pandas table
        return {
            int(row[TASK_INDEX]): next(str(text) for key, text in row.items() if key != TASK_INDEX)
            for row in rows
        }
    if not lines.is_file():
        return {}
    text = read_bounded(lines, MOST_BYTES).decode("utf-8")
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return {int(row[TASK_INDEX]): str(row[TASK]) for row in rows}


def _frame_at(file: Path, seconds: float) -> Pixels:
    """Return the first frame of a video that is not before a time."""
    import av

    with av.open(str(file)) as video:
        stream = video.streams.video[0]
        video.seek(int(seconds / stream.time_base), stream=stream)
        frame = None
        for frame in video.decode(stream):
            if frame.time is None or frame.time >= seconds - 1e-4:
                break
        if frame is None:
            raise ExportError(f"{file.name} has no frame at {seconds:.3f} s")
        pixels: Pixels = frame.to_ndarray(format="rgb24")
        return pixels
