# SPDX-License-Identifier: Apache-2.0
"""Records of what the robot executed, and who commanded it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traces import writer

from reflex_core.records.trace.executed import EXECUTED, ExecutedRows, Timeline, executed_of, executed_record
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.reader import TraceReader
from reflex_core.values import Observation, Request

S = 10**9
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2) / 3


def command(began_s: float, control: str = "policy", request_id: str = "") -> ExecutedRows:
    return ExecutedRows(
        control, int(began_s * S), int(began_s * S), 0, 0.5, ("a", "b"), ROWS, request_id, "pick"
    )


def test_a_command_is_read_back_bit_for_bit_and_is_no_request(tmp_path: Path) -> None:
    trace = writer(tmp_path)
    for control in ("policy", "teleop", "hand-back"):
        trace.note(lambda timestamp, control=control: executed_record(command(2, control, "r-1"), timestamp))
    trace.close()
    (path,) = tmp_path.glob("*.jsonl*")
    with TraceReader(path) as found:
        read = [executed_of(document, where) for where, document in found.notes(EXECUTED)]
    assert [one.control for one in read] == ["policy", "teleop", "hand-back"]
    assert all(one.rows.tobytes() == ROWS.tobytes() for one in read)
    one, wrote = read[0], command(2, "policy", "r-1")
    for name in ("began_ns", "stamp_ns", "start", "dt_s", "names", "request_id", "episode_id", "blend"):
        assert getattr(one, name) == getattr(wrote, name)
    with TraceReader(path) as found:
        assert list(found) == []
        assert found.damage == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"control": "cat"}, "control must be one of policy, teleop, hand-back"),
        ({"actions": [[1.0]]}, "actions must be rows of 2 numbers"),
        ({"actions": "x"}, "actions must be rows of numbers"),
        ({"began_ns": "now"}, "began_ns must be"),
        ({"blend": "half"}, "blend must be"),
    ],
)
def test_a_record_that_is_none_is_refused_by_its_field(changes: dict[str, object], why: str) -> None:
    document = executed_record(command(1), "") | {"actions": ROWS.tolist()} | changes
    with pytest.raises(TraceError, match=why):
        executed_of(document, "here")


def test_the_order_of_the_records_says_what_is_executed_however_the_clock_was_set() -> None:
    """A simulator that begins again, and a clock that is set back, say the same times twice."""
    records = [
        ("here", document)
        for document in (
            {"kind": "request", "seq": 0},
            executed_record(command(1, "policy", "r-0"), ""),
            executed_record(command(3, "teleop"), ""),
            {"kind": "request", "seq": 1},
            executed_record(command(0.5, "policy", "r-2"), ""),
            {"kind": "request", "seq": 2},
        )
    ]
    timeline = Timeline(records, whole=True)
    assert timeline.during(0) is None
    assert [found.control for seq in (1, 2) if (found := timeline.during(seq))] == ["teleop", "policy"]
    assert [timeline.of(name) is None for name in ("r-0", "r-1", "r-2", "")] == [False, True, False, True]
    assert timeline.last is not None
    assert Timeline(records[:1], timeline.last, whole=True).during(0) is timeline.last


def test_requests_and_commands_are_written_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    trace = writer(tmp_path)
    for number in range(20):
        trace.note(lambda timestamp: executed_record(command(1), timestamp))
        trace.error(Request(Observation({}, None, "", number + 1), 0, f"r-{number}"), "error", "it failed")
    trace.close()
    (path,) = tmp_path.glob("*.jsonl*")
    with TraceReader(path) as found:
        kinds = [document["kind"] for _, document in found.notes(EXECUTED, "request")]
    assert kinds == [EXECUTED, "request"] * 20


def test_the_row_that_is_approached_is_the_first_that_is_not_reached() -> None:
    found = command(1)
    assert [found.due(int(t * S)).tolist() for t in (0.5, 1.2, 1.6, 2.1, 9.0)] == [
        ROWS[i].tolist() for i in (0, 0, 1, 2, 2)
    ]
