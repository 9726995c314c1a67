# SPDX-License-Identifier: Apache-2.0
"""Compare a served export with LeRobot's own answers, and with what it answered itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from exported import actions_of, served
from lerobot_answers import LeRobot
from raw_observations import SIZES, RawObservation, noise, observation

from reflex_core.export.export import open_export
from reflex_core.policy.load import load_policy
from reflex_core.values import Frame, Observation
from reflex_ros.cli.main import main

LIMIT = 1e-4  # in the robot's units
LEAST = 0.05  # what a chunk has to move for an agreement to mean something
Size = tuple[int, int]


def over_http(folder: Path, policy: LeRobot, sizes: Sequence[Size] = SIZES) -> dict[Size, float]:
    """The largest difference of an answer from LeRobot's, for pictures of each (height, width)."""
    found = {}
    with served(folder) as server:
        for number, size in enumerate(sizes):
            seen = observation(number, size)
            answer, wanted = actions_of(server, seen, number), _wanted(policy, seen, number)
            assert answer.shape == wanted.shape
            assert np.ptp(wanted, axis=0).max() > LEAST
            found[size] = max(found.get(size, 0.0), float(np.abs(answer - wanted).max()))
    return found


def described_otherwise(
    folder: Path,
    out: Path,
    change: Callable[[dict[str, Any]], object],
    policy: LeRobot,
    sizes: Sequence[Size],
) -> dict[Size, float]:
    """The differences where reflex_config.json is changed. out: where a copy of the export is made."""
    shutil.copytree(folder, out)
    file = out / "reflex_config.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")
    served_policy = load_policy(open_export(out), None, "cpu", 1)
    found = {}
    for number, size in enumerate(sizes):
        seen = observation(number, size)
        frames = {name: Frame(picture, "rgb8", *size) for name, picture in seen.pictures.items()}
        answer = served_policy.predict(Observation(frames, seen.state, seen.task), seed=number).actions
        found[size] = float(np.abs(answer - _wanted(policy, seen, number)).max())
    return found


def replayed(folder: Path, records: Path, requests: int = 3) -> dict[str, Any]:
    """The summary of a replay of `requests` requests that were served and recorded in one episode."""
    with served(folder, record=str(records), record_images="full", record_no_gzip=True) as server:
        for number in range(requests):
            actions_of(server, observation(number), number, episode_id="episode-1")
    (trace,) = records.glob("*.jsonl*")
    report = records / "report.json"
    assert (
        main(["replay", str(trace), "--model", str(folder), "--device", "cpu", "--output", str(report)]) == 0
    )
    summary: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))["summary"]
    return summary


def _wanted(policy: LeRobot, seen: RawObservation, seed: int) -> Any:
    shape = policy.noise_shape
    return policy.chunk([seen], None if shape is None else noise(seed, shape)).physical
