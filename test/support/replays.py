# SPDX-License-Identifier: Apache-2.0
"""Traces recorded by a real engine, changed where a test wants them changed, and replayed by the real command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import jpeg
from servers import MakeEngine

from reflex_core.values import Frame, Observation
from reflex_ros.cli.main import main

Document = dict[str, Any]
Change = Callable[[Document], None]
INSTRUCTION = "pick the red cube"


@dataclass(frozen=True)
class Outcome:
    """What one `reflex replay` gave."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.out.splitlines() if line.startswith("  seq=")]

    @property
    def report(self) -> Document:
        """Of `--output -`."""
        found: Document = json.loads(self.out)
        return found


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    capsys.readouterr()
    status = main(["replay", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return Outcome(status, captured.out, captured.err)


def observation(cameras: Sequence[str], dim: int, number: int, frame: Frame | None = None) -> Observation:
    """A small picture of its own per camera, and a state inside a Panda's ranges."""
    frames = {
        camera: frame or Frame(jpeg(seed=10 * number + place), "jpeg") for place, camera in enumerate(cameras)
    }
    state = np.random.default_rng(number).uniform(-0.2, 0.2, dim).astype(np.float32)
    return Observation(frames, state, INSTRUCTION, stamp_ns=number * 10**8 + 1)


def record(make_engine: MakeEngine, directory: Path, name: str, count: int = 3, **settings: object) -> Path:
    """The trace of `count` requests to one of test/support/exports.py."""
    values = {"record": str(directory), "record_images": "full", "record_no_gzip": True} | settings
    engine = make_engine(name, **values)
    assert engine.loaded is not None
    binding = engine.loaded.policy.binding
    cameras = tuple(dict.fromkeys(binding.cameras.values()))
    for number in range(count):
        seen = observation(cameras, binding.state_dim or 7, number)
        engine.act(engine.request(seen, episode_id="episode-1"))
    engine.unload()
    return next(iter(directory.glob("*.jsonl*")))


def edited(path: Path, change: Change, kind: str = "request") -> Path:
    """The trace with every record of a kind changed."""
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    for document in documents:
        if document["kind"] == kind:
            change(document)
    return written(path.with_name(f"edited-{path.name}"), documents)


def written(path: Path, documents: Sequence[Document]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path
