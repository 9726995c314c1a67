# SPDX-License-Identifier: Apache-2.0
"""Traces become a dataset: read once to see what is there, and again to write it. A dataset appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from reflex_core.dataset.lerobot import LeRobotWriter, require_libraries
from reflex_core.dataset.npz import NpzWriter
from reflex_core.dataset.sampled import OpenStreams, Progress, moments_again, survey_streams
from reflex_core.dataset.survey import Episode, Open, Survey, again, in_order, survey
from reflex_core.records.trace.parse import TraceError
from reflex_core.replay.recorded_images import ImageFiles

LEROBOT, NPZ = "lerobot", "npz"


class Writer(Protocol):
    """Where the frames go. Those of one episode come in order, those of several may be mixed."""

    def add(self, episode: Episode, example: Any) -> None: ...

    def close(self) -> None: ...


WRITERS: dict[str, Callable[[Path, Survey], Writer]] = {LEROBOT: LeRobotWriter, NPZ: NpzWriter}


def export(
    traces: Sequence[Path],
    open_one: Open,
    kind: str,
    output: Path,
    *,
    images: ImageFiles | None = None,
    streams: OpenStreams | None = None,
    fps: float | None = None,
    allow_damage: bool = False,
    progress: Progress = lambda *_: None,
) -> Survey:
    """Write the dataset and return its survey. progress: called with the fraction done and the requests or frames read.

    streams: opens a recording of whole streams, for frames at one rate; None: each request is a frame. fps: that rate, None for the
    policy's.

    Raises TraceError for traces that cannot be read or do not fit together, and for an output that cannot be written;
    ConfigurationError where a library is missing.
    """
    if kind == LEROBOT:
        require_libraries()
    _require_new(output)
    paths = in_order(traces, open_one)

    def first(fraction: float, count: int) -> None:
        progress(fraction / 2, count)

    def second(fraction: float, count: int) -> None:
        progress(0.5 + fraction / 2, count)

    found = (
        survey(paths, open_one, images, first)
        if streams is None
        else survey_streams(paths, streams, fps, first)
    )
    if found.damage and not allow_damage:
        raise TraceError(f"{found.damage[0]} (--allow-damage exports the rest)")
    part = output.with_name(f"{output.name}.part")
    try:
        part.mkdir(parents=True)
    except FileExistsError as error:
        raise TraceError(
            f"--output {output}: {part} is there, of another export or one cut off: remove it"
        ) from error
    except OSError as error:
        raise _unwritable(output, error) from error
    try:
        writer = WRITERS[kind](part, found)
        frames: Iterator[tuple[Episode, Any]] = (
            again(paths, open_one, images, found, second)
            if streams is None
            else moments_again(paths, streams, found, second)
        )
        for episode, frame in frames:
            writer.add(episode, frame)
        writer.close()
        part.replace(output)
    except OSError as error:
        raise _unwritable(output, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def _require_new(output: Path) -> None:
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists():
        raise TraceError(f"--output {output}: is there already; a dataset gets a directory of its own")


def _unwritable(output: Path, error: OSError) -> TraceError:
    return TraceError(f"--output {output}: cannot be written: {error.strerror or error}")
