# SPDX-License-Identifier: Apache-2.0
"""A person's corrections become training data: the action of a frame is what they commanded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_traces import DT_NS, DT_S, NAMES, START_NS, exported, index_of, question, recorder, reply
from pyarrow import parquet
from traces import SESSION

from reflex_core.records.trace.executed import ExecutedRows, executed_record


def recorded(folder: Path, controls: list[str]) -> Path:
    """One request per entry, and what was executed from when it was answered on; for a person their own rows."""
    trace = recorder(folder)
    trace.describe(replace(SESSION, settings={"takeover_release_s": 0.5}))
    for number, control in enumerate(controls):
        request = question(number)
        served = reply(request, number)
        trace(request, served)
        left_ns = START_NS + number * 10 * DT_NS + 130_000_000  # the observation's age and the latency
        mine = control == "policy"
        rows = served.chunk.actions if mine else np.full((20, 7), 100.0 + number, np.float32)
        stamp_ns = START_NS + number * 10 * DT_NS if mine else left_ns
        found = ExecutedRows(
            control, left_ns + (1000 if mine else -1000), stamp_ns, 0, DT_S, NAMES, rows,
            request.request_id if mine else "",
        )  # fmt: skip
        trace.note(lambda timestamp, found=found: executed_record(found, timestamp))
    trace.close()
    (path,) = folder.glob("*.jsonl*")
    return path


@pytest.mark.parametrize("kind", ["npz", "lerobot"])
def test_where_a_person_commanded_the_action_is_theirs_and_a_hold_teaches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = recorded(tmp_path / "traces", ["policy", "teleop", "teleop", "hand-back", "policy"])
    done = exported(capsys, path, "--format", kind, "--output", tmp_path / "set")
    assert done.status == 0, done.err
    if kind == "npz":
        assert index_of(tmp_path / "set")["left_out"] == {"not executed": 1}
        with np.load(tmp_path / "set" / "episode_000000.npz") as found:
            seqs, controls, actions = found["seqs"], found["controls"], found["actions"]
    else:
        (file,) = (tmp_path / "set" / "data").glob("*/*.parquet")
        table = parquet.read_table(file).to_pydict()
        seqs, controls, actions = table["record.seq"], table["record.control"], np.array(table["action"])
    assert list(seqs) == [0, 1, 2, 4]
    assert list(controls) == ["policy", "teleop", "teleop", "policy"]
    assert actions[1].tolist() == [101.0] * 7
    assert actions[2].tolist() == [102.0] * 7
    assert actions[0] == pytest.approx(2 + np.arange(7) / 10), "the row that was due, of its own chunk"
