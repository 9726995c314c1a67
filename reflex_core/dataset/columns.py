# SPDX-License-Identifier: Apache-2.0
"""The columns of a LeRobotDataset beside its images and indexes: what each is called, its type, and what of a frame it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reflex_core.dataset.survey import Episode, Layout
from reflex_core.values import TELEOP

STATE, ACTION = "observation.state", "action"
CHUNK_SERVED, CHUNK_RAW = "chunk.served", "chunk.raw"
TIME, SEQ, ROW, CONTROL = "record.time_s", "record.seq", "record.row", "record.control"
TAKEOVER, OUTCOME = "record.takeover", "record.outcome"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. shape: (1,) and `vector` False for a single value. value: made from the episode and the frame.

    counted: statistics are made of it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    value: Callable[[Episode, Any], Any]
    names: tuple[str, ...] | None = None
    vector: bool = False
    counted: bool = True


def request_columns(layout: Layout) -> tuple[Column, ...]:
    """Return the columns of a dataset whose frames are requests with their chunks."""
    chunk = (layout.horizon, len(layout.action_names))
    return (
        *_robot(layout),
        Column(CHUNK_SERVED, "float32", chunk, lambda _, frame: list(frame.served), counted=False),
        Column(CHUNK_RAW, "float32", chunk, lambda _, frame: list(frame.raw), counted=False),
        *_labels(),
        Column(SEQ, "int64", (1,), lambda _, frame: frame.seq),
        Column(ROW, "int64", (1,), lambda _, frame: frame.row),
    )


def moment_columns(layout: Layout) -> tuple[Column, ...]:
    """Return the columns of a dataset whose frames are moments of recorded streams."""
    return (*_robot(layout), *_labels())


def _robot(layout: Layout) -> tuple[Column, ...]:
    return (
        Column(STATE, "float32", (layout.state_dim,), lambda _, frame: frame.state, layout.state_names, vector=True),
        Column(
            ACTION, "float32", (len(layout.action_names),), lambda _, frame: frame.action, layout.action_names, vector=True
        ),
    )  # fmt: skip


def _labels() -> tuple[Column, ...]:
    return (
        Column(TIME, "float64", (1,), lambda _, frame: frame.time_s),
        Column(CONTROL, "string", (1,), lambda _, frame: frame.control, counted=False),
        Column(TAKEOVER, "bool", (1,), lambda _, frame: frame.control == TELEOP),
        Column(OUTCOME, "string", (1,), lambda episode, _: episode.outcome, counted=False),
    )
