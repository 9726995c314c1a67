# SPDX-License-Identifier: Apache-2.0
"""A person's corrections become training data: the action of a frame is what they commanded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_traces import DT_NS, DT_S, NAMES, START_NS, exported, index_of, question, recorder, reply
from pyarrow import parquet
from traces import SESSION

from reflex_core.records.trace.executed import ExecutedRows, executed_record
from reflex_core.values import Request

AGE_NS = 130_000_000  # of an observation when its answer left, the latency included

Change = Callable[[int, Request], Request]


@dataclass(frozen=True)
class Frames:
    """The frames of a dataset, and what was left out."""

    seqs: list[int]
    controls: list[str]
    actions: Any
    left_out: dict[str, int]


def as_it_is(_: int, request: Request) -> Request:
    return request


def recorded(
    folder: Path,
    controls: list[str],
    *,
    release_s: float = 0.5,
    blend: float = 1.0,
    change: Change = as_it_is,
) -> Path:
    """One request per entry, and who commanded when it was answered; the policy follows its answer, a person their own rows."""
    trace = recorder(folder)
    trace.describe(replace(SESSION, settings={"takeover_release_s": release_s}))
    for number, control in enumerate(controls):
        request = change(number, question(number))
        served = reply(request, number)
        left_ns = request.observation.stamp_ns + AGE_NS
        mine = control == "policy"
        rows = blend * served.chunk.actions if mine else np.full((20, 7), 100.0 + number, np.float32)
        found = ExecutedRows(
            control, left_ns, request.observation.stamp_ns if mine else left_ns, 0, DT_S, NAMES, rows,
            request.request_id if mine else "", request.episode_id or "", blend if mine else 1.0,
        )  # fmt: skip
        if not mine:
            trace.note(lambda timestamp, found=found: executed_record(found, timestamp))
        trace(request, served)
        if mine and (release_s or blend < 1.0):
            trace.note(lambda timestamp, found=found: executed_record(found, timestamp))
    trace.close()
    (path,) = folder.glob("*.jsonl*")
    return path


def frames_of(capsys: pytest.CaptureFixture[str], path: Path, kind: str = "npz") -> Frames:
    target = path.parent.parent / f"set_{kind}"
    done = exported(capsys, path, "--format", kind, "--output", target)
    assert done.status == 0, done.err
    if kind == "npz":
        seqs, controls, actions = list[int](), list[str](), []
        for file in sorted(target.glob("*.npz")):
            with np.load(file) as found:
                seqs += found["seqs"].tolist()
                controls += found["controls"].tolist()
                actions += found["actions"].tolist()
        return Frames(seqs, controls, np.array(actions), index_of(target)["left_out"])
    (file,) = (target / "data").glob("*/*.parquet")
    table = parquet.read_table(file).to_pydict()
    return Frames(table["record.seq"], table["record.control"], np.array(table["action"]), {})


@pytest.mark.parametrize("kind", ["npz", "lerobot"])
def test_where_a_person_commanded_the_action_is_theirs_and_a_hold_teaches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = recorded(tmp_path / "traces", ["policy", "teleop", "teleop", "hand-back", "policy"])
    found = frames_of(capsys, path, kind)
    assert found.left_out == ({"not executed": 1} if kind == "npz" else {})
    assert found.seqs == [0, 1, 2, 4]
    assert found.controls == ["policy", "teleop", "teleop", "policy"]
    assert found.actions[1].tolist() == [101.0] * 7
    assert found.actions[2].tolist() == [102.0] * 7
    assert found.actions[0] == pytest.approx(2 + np.arange(7) / 10), "the row that was due, of its own chunk"


def test_a_simulator_that_begins_again_mixes_up_no_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clock says the same times in every episode: commands of the one before are none of this one."""

    def again(number: int, request: Request) -> Request:
        stamp_ns = START_NS + number % 3 * 10 * DT_NS
        return replace(
            request, observation=replace(request.observation, stamp_ns=stamp_ns), episode_id=f"e{number // 3}"
        )

    controls = ["policy", "policy", "policy", "policy", "teleop", "policy"]
    found = frames_of(capsys, recorded(tmp_path / "traces", controls, change=again))
    assert dict(zip(found.seqs, found.controls, strict=True)) == dict(enumerate(controls))


def test_a_command_of_another_episode_teaches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = recorder(tmp_path / "mixed")
    trace.describe(replace(SESSION, settings={"takeover_release_s": 0.5}))
    first = question(0)
    command = ExecutedRows(
        "teleop", START_NS, START_NS, 0, DT_S, NAMES, np.zeros((5, 7), np.float32), "", "one"
    )
    trace.note(lambda timestamp: executed_record(command, timestamp))
    trace(first, reply(first, 0))
    second = question(1, "another")
    trace(second, reply(second, 1))
    trace.close()
    (mixed,) = (tmp_path / "mixed").glob("*.jsonl*")
    found = frames_of(capsys, mixed)
    assert (found.seqs, found.left_out) == ([0], {"not executed": 1})


def test_a_request_of_another_robot_over_http_is_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no stamp, and a person commands the robot of the ROS topics."""
    trace = recorder(tmp_path / "traces")
    trace.describe(replace(SESSION, settings={"takeover_release_s": 0.5}))
    command = ExecutedRows(
        "teleop", START_NS, START_NS, 0, DT_S, NAMES, np.zeros((5, 7), np.float32), "", "one"
    )
    trace.note(lambda timestamp: executed_record(command, timestamp))
    request = question(0)
    request = replace(request, observation=replace(request.observation, stamp_ns=0, age_ms=0.0))
    trace(request, reply(request, 0))
    trace.close()
    (path,) = (tmp_path / "traces").glob("*.jsonl*")
    assert frames_of(capsys, path).controls == ["policy"]


@pytest.mark.parametrize("release_s", [0.0, 0.5])
def test_where_a_part_of_the_motion_was_let_through_the_action_is_what_was_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], release_s: float
) -> None:
    path = recorded(tmp_path / "traces", ["policy", "policy"], release_s=release_s, blend=0.5)
    found = frames_of(capsys, path)
    assert found.controls == ["policy", "policy"]
    assert found.actions[1] == pytest.approx(0.5 * (1 + 2 + np.arange(7) / 10))
