# SPDX-License-Identifier: Apache-2.0
"""The table of `reflex fleet status`, and the lines after a change; what servers send is made safe for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reflex_core.text.untrusted import escaped
from reflex_ros.fleet.fan_out import Result

TITLES = ("NAME", "CELL", "STATE", "POLICY", "SPLIT", "P99", "HOLDS", "MOVED")
LEFT = 4  # so many columns are text; the others are numbers
NO_ANSWER = "NO ANSWER"
CELL_CHARACTERS = 40


def status_lines(results: Sequence[Result[Any]]) -> list[str]:
    """Return a table with a line for each server; beneath a state that is not READY its sentence."""
    rows = [TITLES, *(_row(result) for result in results)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(TITLES))]
    lines = [_line(TITLES, widths)]
    for row, result in zip(rows[1:], results, strict=True):
        lines.append(_line(row, widths))
        if result.value is not None and row[2] != "READY":
            lines.append(f"{'':{widths[0]}}  {_text(result.value.get('sentence'), 200)}")
    return lines


def _row(result: Result[Any]) -> tuple[str, ...]:
    name, cell, found = result.server.name, result.server.cell, result.value
    if found is None:
        return (name, cell, NO_ANSWER, "", "", "", "", "")
    policies = found.get("policies")
    return (
        name, cell, _text(found.get("word")),
        _text(" | ".join(map(str, policies)) if isinstance(policies, list) else ""),
        _figure(found.get("split"), "{:.0f} %"), _figure(found.get("p99_ms"), "{:.1f} ms"),
        _figure(found.get("holds"), "{:.0f}"), _figure(found.get("episodes_moved"), "{:.0f}"),
    )  # fmt: skip


def after_change(results: Sequence[Result[Any]]) -> list[str]:
    """Return the split of each server as it is now."""
    width = max(len(result.server.name) for result in results)
    return [
        f"{result.server.name:{width}}  "
        + (
            "NOT CHANGED"
            if result.value is None
            else f"split {_figure(result.value.get('split'), '{:.0f} %')}"
        )
        for result in results
    ]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if at < LEFT else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _text(value: object, most: int = CELL_CHARACTERS) -> str:
    return escaped(value if isinstance(value, str) else "", most)


def _figure(value: object, form: str) -> str:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
    return form.format(value) if usable else "-"
