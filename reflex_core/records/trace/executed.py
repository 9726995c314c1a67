# SPDX-License-Identifier: Apache-2.0
"""What the robot executed and who commanded it, command by command: records of a kind of their own beside the requests.

They are written where people may take the commands. A command is executed until the next one begins, so that they say of every
moment whose rows the robot followed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
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
    request_id: of the answer that it is; empty for a hold of the node itself.
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
    )  # fmt: skip


class Timeline:
    """All commands of one recording, by when they began."""

    def __init__(self, commands: Sequence[ExecutedRows]) -> None:
        self._commands = sorted(commands, key=lambda command: command.began_ns)
        self._began_ns = [command.began_ns for command in self._commands]
        self._requests = {command.request_id for command in self._commands}

    def __len__(self) -> int:
        return len(self._commands)

    def was_executed(self, request_id: str) -> bool:
        """Return whether the robot followed the answer to that request."""
        return request_id in self._requests

    def at(self, now_ns: int) -> ExecutedRows | None:
        """Return what was executed at a moment; None before the first command."""
        place = bisect_right(self._began_ns, now_ns)
        return self._commands[place - 1] if place else None
