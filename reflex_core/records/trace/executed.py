# SPDX-License-Identifier: Apache-2.0
"""What the robot executed and who commanded it, command by command: records of a kind of their own beside the requests.

They are written where people may take the commands, and else while a part of the policy's motion is let through. A command is
executed until the next one begins, so that the former say of every moment whose rows the robot followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reflex_core.files.json_fields import JsonFields
from reflex_core.files.json_lines import exact, floats
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.schema import SCHEMA_VERSION
from reflex_core.values import CONTROLS, Floats

EXECUTED = "executed"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class ExecutedRows:
    """One command. control: who gave it, one of CONTROLS. began_ns: when it was published, on the robot's clock.

    rows: (n, len(names)) rad or m or per second; row i is due at stamp_ns + (i + 1) * dt_s, and those before `start` are not executed.
    request_id: of the answer that it is; empty for a hold of the node itself. blend: how much of the policy's motion was let through.
    """

    control: str
    began_ns: int
    stamp_ns: int
    start: int
    dt_s: float
    names: tuple[str, ...]
    rows: Floats
    request_id: str = ""
    episode_id: str = ""
    blend: float = 1.0

    def due(self, now_ns: int) -> Floats:
        """Return (len(names),) the row that is approached at that moment; the last one once all are reached."""
        gone = int((now_ns - self.stamp_ns) * 1e-9 / self.dt_s) if self.dt_s > 0.0 else len(self.rows)
        row: Floats = self.rows[min(max(gone, self.start), len(self.rows) - 1)]
        return row


def executed_record(found: ExecutedRows, timestamp: str) -> Record:
    """Return the record of one command."""
    return {
        "kind": EXECUTED,
        "schema_version": SCHEMA_VERSION,
        "timestamp": timestamp,
        "control": found.control,
        "request_id": found.request_id,
        "episode_id": found.episode_id,
        "began_ns": found.began_ns,
        "stamp_ns": found.stamp_ns,
        "start_index": found.start,
        "dt_s": found.dt_s,
        "blend": found.blend,
        "names": found.names,
        "actions": exact(found.rows),
    }


def executed_of(document: Mapping[str, Any], where: str) -> ExecutedRows:
    """Read such a record. Raises TraceError naming the field that violates the schema."""

    def refuse(key: str, expected: str, got: object) -> TraceError:
        return TraceError(f"{where}: {key} must be {expected}, got {str(got)[:60]}")

    read = JsonFields(document, refuse)
    control, names = str(document.get("control")), read.names("names")
    if control not in CONTROLS:
        raise read.refusal("control", f"one of {', '.join(CONTROLS)}")
    try:
        rows = floats(document.get("actions"))
    except (ValueError, TypeError, OverflowError) as error:
        raise read.refusal("actions", "rows of numbers") from error
    if rows.ndim != 2 or rows.shape[1] != len(names) or not len(rows):
        raise read.refusal("actions", f"rows of {len(names)} numbers")
    return ExecutedRows(
        control, read.whole("began_ns"), read.whole("stamp_ns"), read.whole("start_index"), read.number("dt_s"), names, rows,
        str(document.get("request_id") or ""), str(document.get("episode_id") or ""),
        1.0 if document.get("blend") is None else read.number("blend"),
    )  # fmt: skip


class Timeline:
    """The commands of one recording, in the order in which they were recorded: clocks are set, and simulators begin again."""

    def __init__(
        self,
        records: Iterable[tuple[str, Mapping[str, Any]]],
        before: ExecutedRows | None = None,
        *,
        whole: bool,
    ) -> None:
        """Read them. Raises TraceError naming the field that violates the schema.

        records: every request and command, with where it is. before: what was executed as the recording began. whole: every command was
        recorded, so that an answer without one was not executed.
        """
        self.whole, self.last = whole, before
        self._answers: dict[str, ExecutedRows] = {}
        self._while: dict[object, ExecutedRows] = {}
        for where, document in records:
            if document.get("kind") == EXECUTED:
                self.last = executed_of(document, where)
                self._answers.setdefault(self.last.request_id, self.last)
            elif self.last is not None:
                self._while[document.get("seq")] = self.last

    def of(self, request_id: str) -> ExecutedRows | None:
        """Return the answer to that request as the robot followed it; None where it did not, or that was not recorded."""
        return self._answers.get(request_id) if request_id else None

    def during(self, seq: int) -> ExecutedRows | None:
        """Return what was executed when a request was answered; None before the first command."""
        return self._while.get(seq)
