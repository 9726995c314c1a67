# SPDX-License-Identifier: Apache-2.0
"""Write a LeRobotDataset of format v3.0 with its images inside the parquet files. Needs pyarrow, neither LeRobot nor a video encoder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reflex_core.dataset.columns import Column, moment_columns, request_columns
from reflex_core.dataset.examples import Example, pictures
from reflex_core.dataset.feature_statistics import Brightness, Statistics, of_vectors, together
from reflex_core.dataset.streams import Moment
from reflex_core.dataset.survey import Episode, Survey, clean
from reflex_core.errors import ConfigurationError
from reflex_core.images.opencv import opencv
from reflex_core.values import Frame, Pixels

CODEBASE_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
ROWS_PER_GROUP = 32  # frames that wait in memory, per episode that is being written
IMAGE = "observation.images"
INDEXES = ("frame_index", "episode_index", "index", "task_index")
DATA_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def require_libraries() -> None:
    """Raise ConfigurationError without pyarrow or OpenCV."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "--format lerobot needs pyarrow: pip install 'reflex_ros[lerobot]'"
        ) from error
    if opencv() is None:
        raise ConfigurationError(
            "--format lerobot needs opencv-python-headless: pip install 'reflex_ros[lerobot]'"
        )


@dataclass
class _Open:
    """An episode that is being written."""

    writer: Any
    rows: list[dict[str, Any]] = field(default_factory=list)
    numbers: dict[str, list[Any]] = field(default_factory=dict)
    pictures: dict[str, Brightness] = field(default_factory=dict)
    count: int = 0


class LeRobotWriter:
    """A writer of episodes as they arrive, also several at a time, each to a data file of its own.

    Memory: ROWS_PER_GROUP frames per episode that is being written, its states and actions, and the statistics of every
    episode. `fps` is the rate of the frames, their mean rate where each is a request, an integer as LeRobot requires; `timestamp` is
    frame_index / fps, and record.time_s the time that was recorded.
    """

    def __init__(self, directory: Path, survey: Survey) -> None:
        self._directory, self._survey = directory, survey
        self._open: dict[int, _Open] = {}
        self._episodes: dict[int, dict[str, Any]] = {}
        self._total: dict[str, Statistics] = {}
        self._columns = (request_columns if survey.fps is None else moment_columns)(survey.layout)
        self.fps = max(1, round(survey.fps or survey.rate_hz or 1.0))
        self._keys = {camera: f"{IMAGE}.{camera.replace('/', '_')}" for camera in survey.layout.cameras}
        if len(set(self._keys.values())) < len(self._keys):
            raise ConfigurationError(f"LeRobot cannot tell these cameras apart: {', '.join(self._keys)}")
        self._schema = _schema(self._columns, self._keys.values())

    def add(self, episode: Episode, example: Example | Moment) -> None:
        """Write one frame. Raises TraceError for a damaged image, OSError."""
        at = self._open.get(episode.index)
        if at is None:
            at = self._open[episode.index] = self._begin(episode)
        indexes = {
            "timestamp": at.count / self.fps, "frame_index": at.count, "episode_index": episode.index,
            "index": episode.first_index + at.count, "task_index": self._survey.tasks[clean(example.instruction)],
        }  # fmt: skip
        row: dict[str, Any] = {column.name: column.value(episode, example) for column in self._columns}
        row |= indexes
        for name in (*(column.name for column in self._columns if column.counted), *indexes):
            at.numbers.setdefault(name, []).append(row[name])
        for camera, frame, pixels in pictures(example.frames, episode.trace, example.place):
            key = self._keys[camera]
            at.pictures.setdefault(key, Brightness()).add(pixels)
            row[key] = {"bytes": _file_of(frame, pixels), "path": None}
        at.rows.append(row)
        at.count += 1
        if len(at.rows) == ROWS_PER_GROUP:
            self._flush(at)
        if at.count == episode.count:
            self._end(episode, self._open.pop(episode.index))

    def close(self) -> None:
        """Write meta/: info, tasks, episodes, statistics."""
        meta = self._directory / "meta"
        meta.mkdir(exist_ok=True)
        _write_json(meta / "info.json", self._info())
        _write_json(meta / "stats.json", {key: _plain(made) for key, made in self._total.items()})
        _write_tasks(meta / "tasks.parquet", self._survey.tasks)
        path = meta / "episodes" / _place(0)
        path.parent.mkdir(parents=True)
        _write_rows(path, [self._episodes[index] for index in sorted(self._episodes)])

    def _begin(self, episode: Episode) -> _Open:
        from pyarrow import parquet

        path = self._directory / "data" / _place(episode.index)
        path.parent.mkdir(parents=True, exist_ok=True)
        return _Open(parquet.ParquetWriter(path, self._schema, compression="snappy"))

    def _flush(self, at: _Open) -> None:
        import pyarrow

        if at.rows:
            at.writer.write_table(pyarrow.Table.from_pylist(at.rows, schema=self._schema))
            at.rows.clear()

    def _end(self, episode: Episode, at: _Open) -> None:
        self._flush(at)
        at.writer.close()
        made = {name: of_vectors(values) for name, values in at.numbers.items()}
        made |= {key: brightness.statistics() for key, brightness in at.pictures.items()}
        self._total = {
            key: together(self._total[key], one) if key in self._total else one for key, one in made.items()
        }
        tasks = list(self._survey.tasks)
        self._episodes[episode.index] = {
            "episode_index": episode.index,
            "tasks": [tasks[number] for number in episode.tasks],
            "length": episode.count,
            "data/chunk_index": episode.index // FILES_PER_CHUNK,
            "data/file_index": episode.index % FILES_PER_CHUNK,
            "dataset_from_index": episode.first_index,
            "dataset_to_index": episode.first_index + episode.count,
            **{
                f"stats/{key}/{name}": value.tolist()
                for key, one in made.items()
                for name, value in one.items()
            },
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }

    def _info(self) -> dict[str, Any]:
        survey = self._survey
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": survey.layout.robot,
            "total_episodes": len(survey.episodes),
            "total_frames": survey.count,
            "total_tasks": len(survey.tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{len(survey.episodes)}"},
            "data_path": f"data/{DATA_FILE}",
            "video_path": None,
            "features": self._features(),
        }

    def _features(self) -> dict[str, Any]:
        images = {
            self._keys[camera]: _feature("image", [height, width, 3], ["height", "width", "channels"])
            for camera, (height, width) in self._survey.layout.cameras.items()
        }
        columns = {
            column.name: _feature(
                column.dtype, list(column.shape), list(column.names) if column.names else None
            )
            for column in self._columns
        }
        indexes = {name: _feature("int64", [1]) for name in INDEXES}
        return {**columns, **images, "timestamp": _feature("float32", [1]), **indexes}


def _feature(dtype: str, shape: list[int], names: list[str] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "names": names}


def _schema(columns: Sequence[Column], image_keys: Iterable[str]) -> Any:
    import pyarrow

    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    fields = [(column.name, _kind(column)) for column in columns]
    fields += [(key, picture) for key in image_keys]
    return pyarrow.schema(
        [*fields, ("timestamp", pyarrow.float32()), *((name, pyarrow.int64()) for name in INDEXES)]
    )


def _kind(column: Column) -> Any:
    """Return the type of a column: a number, a list of one length, or a list of lists."""
    import pyarrow

    if column.vector:
        return pyarrow.list_(pyarrow.float32(), column.shape[0])
    if len(column.shape) > 1:
        return pyarrow.list_(pyarrow.list_(pyarrow.float32()))
    made = {
        "float64": pyarrow.float64,
        "int64": pyarrow.int64,
        "string": pyarrow.string,
        "bool": pyarrow.bool_,
    }
    return made[column.dtype]()


def _place(index: int) -> str:
    return DATA_FILE.format(chunk_index=index // FILES_PER_CHUNK, file_index=index % FILES_PER_CHUNK)


def _file_of(frame: Frame, pixels: Pixels) -> bytes:
    """Return JPEG and PNG as they were recorded; a raw image becomes a PNG, which is lossless."""
    if frame.encoding in ("jpeg", "png"):
        return bytes(frame.data)
    cv2 = opencv()
    return bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1])


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="snappy")


def _write_tasks(path: Path, tasks: Mapping[str, int]) -> None:
    """Write the instructions as the index of a pandas table, which is how LeRobot looks them up."""
    import pyarrow
    from pyarrow import parquet

    index = "__index_level_0__"
    table = pyarrow.table({"task_index": pyarrow.array(tasks.values(), pyarrow.int64()), index: list(tasks)})
    columns: list[dict[str, Any]] = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [column | {"metadata": None} for column in columns],
        "pandas_version": "2.2.0",
    }
    parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(made: Statistics) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in made.items()}
