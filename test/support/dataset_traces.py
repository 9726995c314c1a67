# SPDX-License-Identifier: Apache-2.0
"""Small traces to make datasets of, and the real command that makes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import NAMES, jpeg, picture
from replays import Document, Outcome
from traces import writer

from reflex_core.records.trace.writer import TraceWriter
from reflex_core.values import ActionChunk, Frame, Inference, Observation, Request, Served
from reflex_ros.cli.main import main

HORIZON, DT_S, DT_NS = 10, 0.05, 50_000_000
START_NS = 1_000_000_000


def question(number: int, episode_id: str | None = "one", instruction: str = "pick the cup") -> Request:
    """The request of ten control steps after the one before, with a JPEG and a raw camera."""
    frames = {
        "base": Frame(jpeg(32, seed=number), "jpeg"),
        "wrist": Frame(picture(24, seed=number).tobytes(), "rgb8", 24, 24, 72),
    }
    state = np.arange(7, dtype=np.float32) + number
    observation = Observation(frames, state, instruction, START_NS + number * 10 * DT_NS, age_ms=60.0)
    return Request(observation, received_ns=0, request_id=f"r-{number}", episode_id=episode_id)


def reply(request: Request, number: int, **changes: Any) -> Served:
    """Row i of joint j is number + i + j / 10 as served, and twice that before the guard."""
    rows, joints = np.mgrid[0:HORIZON, 0:7]
    actions = (number + rows + joints / 10).astype(np.float32)
    made = Served(
        ActionChunk(actions, NAMES, DT_S), 2 * actions, request.request_id, request.episode_id, seed=7, slot="prod",
        model_version="v@0", inference=Inference("onnx_cpu", 10, 8), latency_ms=70.0,
    )  # fmt: skip
    return replace(made, **changes)


def recorder(folder: Path, **options: Any) -> TraceWriter:
    return writer(folder, **({"images": "full"} | options))


def trace_of(folder: Path, episodes: Sequence[str | None], **options: Any) -> Path:
    """One answered request per entry, which names its episode."""
    trace = recorder(folder, **options)
    for number, episode_id in enumerate(episodes):
        request = question(number, episode_id, f"pick the {'cup' if number % 2 else 'plate'}")
        trace(request, reply(request, number))
    trace.close()
    (path,) = folder.glob("*.jsonl*")
    return path


def exported(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    capsys.readouterr()
    status = main(["trace", "export", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return Outcome(status, captured.out, captured.err)


def index_of(dataset: Path) -> Document:
    found: Document = json.loads((dataset / "dataset.json").read_text())
    return found
