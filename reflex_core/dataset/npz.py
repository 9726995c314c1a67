# SPDX-License-Identifier: Apache-2.0
"""One .npz file per episode, and a dataset.json: for numpy alone, such as the training of a correction head."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reflex_core.dataset.examples import Example, pictures
from reflex_core.dataset.survey import Episode, Survey
from reflex_core.files.json_lines import json_line
from reflex_core.values import CONTROLS

VERSION = 1
COMPRESSION_LEVEL = 1  # pictures do not get much smaller at higher levels, and it takes much longer
INDEX = "dataset.json"


@dataclass
class _Open:
    """The arrays of an episode that is being written: a file each, so that memory stays constant."""

    directory: Path
    columns: dict[str, str]
    count: int = 0

    def path(self, name: str) -> Path:
        """Return the file of an array; characters of its name that a file name may not have are replaced."""
        return self.directory / f"{list(self.columns).index(name)}.npy"


class NpzWriter:
    """Writes episodes as they come, also several at a time; a file appears when its episode is complete."""

    def __init__(self, directory: Path, survey: Survey) -> None:
        self._directory, self._survey = directory, survey
        self._open: dict[int, _Open] = {}
        self._longest = max((len(task) for task in survey.tasks), default=1) or 1

    def add(self, episode: Episode, example: Example) -> None:
        """Write one frame. Raises TraceError for a damaged image, OSError."""
        at = self._open.get(episode.index)
        if at is None:
            at = self._open[episode.index] = self._begin(episode)
        row = {
            "states": example.state, "actions": example.action, "chunks_served": example.served,
            "chunks_raw": example.raw, "executed_rows": example.row, "instructions": example.instruction,
            "times_s": example.time_s, "times_ns": example.time_ns, "seqs": example.seq, "controls": example.control,
        }  # fmt: skip
        row |= {
            f"images_{camera}": pixels
            for camera, _, pixels in pictures(example.frames, episode.trace, example.place)
        }
        for name, value in row.items():
            with at.path(name).open("ab") as stream:  # not mapped: on a full disk that would end the process
                stream.write(np.asarray(value, at.columns[name]).tobytes())
        at.count += 1
        if at.count == episode.count:
            self._end(episode, self._open.pop(episode.index))

    def close(self) -> None:
        """Write what the dataset consists of."""
        layout, survey = self._survey.layout, self._survey
        document = {
            "format": "reflex-npz",
            "version": VERSION,
            "robot": layout.robot,
            "dt_s": layout.dt_s,
            "action_names": layout.action_names,
            "state_names": layout.state_names,
            "cameras": {name: list(size) for name, size in layout.cameras.items()},
            "left_out": dict(survey.left_out),
            "episodes": [
                {"file": _file(episode), "episode_id": episode.episode_id, "trace": episode.trace,
                 "frames": episode.count, "clock": "sensor" if episode.stamped else "record", "outcome": episode.outcome}
                for episode in survey.episodes.values()
            ],
        }  # fmt: skip
        (self._directory / INDEX).write_bytes(json_line(document) + b"\n")

    def _begin(self, episode: Episode) -> _Open:
        at = _Open(
            self._directory / f"{_file(episode)}.part", {name: kind for name, kind, _ in self._columns()}
        )
        at.directory.mkdir()
        for name, kind, shape in self._columns():
            head = {"descr": kind, "fortran_order": False, "shape": (episode.count, *shape)}
            with at.path(name).open("wb") as stream:
                np.lib.format.write_array_header_1_0(stream, head)  # type: ignore[no-untyped-call]
        return at

    def _columns(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        layout = self._survey.layout
        dim = len(layout.action_names)
        yield "states", "<f4", (layout.state_dim,)
        yield "actions", "<f4", (dim,)
        yield "chunks_served", "<f4", (layout.horizon, dim)
        yield "chunks_raw", "<f4", (layout.horizon, dim)
        yield "executed_rows", "<i8", ()
        yield "instructions", f"<U{self._longest}", ()
        yield "times_s", "<f8", ()
        yield "times_ns", "<i8", ()
        yield "seqs", "<i8", ()
        yield "controls", f"<U{max(map(len, CONTROLS))}", ()
        for camera, (height, width) in layout.cameras.items():
            yield f"images_{camera}", "|u1", (height, width, 3)

    def _end(self, episode: Episode, at: _Open) -> None:
        layout = self._survey.layout
        path = self._directory / _file(episode)
        with zipfile.ZipFile(
            path, "w", zipfile.ZIP_DEFLATED, allowZip64=True, compresslevel=COMPRESSION_LEVEL
        ) as archive:
            for name in at.columns:
                archive.write(at.path(name), f"{name}.npy")
            for name, value in (
                ("action_names", layout.action_names), ("state_names", layout.state_names),
                ("dt_s", np.nan if layout.dt_s is None else layout.dt_s), ("episode_id", episode.episode_id),
            ):  # fmt: skip
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, np.array(value), allow_pickle=False)  # type: ignore[no-untyped-call]
        shutil.rmtree(at.directory)


def _file(episode: Episode) -> str:
    return f"episode_{episode.index:06d}.npz"
