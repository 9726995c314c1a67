# SPDX-License-Identifier: Apache-2.0
"""The settings table as command-line options and as docs/flags.md."""

from __future__ import annotations

import argparse

from reflex_core.setting import Setting, range_words
from reflex_core.settings import TABLE

_GROUPS = {
    "policy": "Policy and robot", "safety": "Safety", "time": "Time", "failure": "When things fail",
    "record": "Records", "http": "HTTP", "ros": "ROS",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option per setting. What the user does not write is left out of the parsed namespace."""
    for row in TABLE:
        text = row.help.replace("%", "%%")
        if isinstance(row.default, bool):
            parser.add_argument(
                row.flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        elif isinstance(row.default, tuple):
            parser.add_argument(row.flag, nargs="+", metavar="NAME", default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(
                row.flag,
                type=type(row.default),
                choices=row.choices or None,
                metavar=None if row.choices else type(row.default).__name__.upper(),
                default=argparse.SUPPRESS,
                help=f"{text} [{row.default!r}]",
            )


def markdown() -> str:
    """docs/flags.md, made from the table."""
    lines = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        "# Flags",
        "",
        "Made from `reflex_core/settings.py` by `python -m reflex_core.flags`; do not edit.",
        "Every setting is a ROS parameter of the node `reflex`, an argument of `serve.launch.py` and an option of",
        "`reflex serve` (`max_age_ms` is `--max-age-ms`).",
    ]
    for group, title in _GROUPS.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| name | default | takes | a change takes effect | what it does |",
            "|---|---|---|---|---|",
        ]
        for row in TABLE:
            if row.group == group:
                lines.append(
                    f"| `{row.name}` | `{_default_words(row)}` | {_takes(row)} | {_WHEN[row.when]} | {row.help} |"
                )
    return "\n".join(lines) + "\n"


_WHEN = {"start": "at start", "configure": "at configure", "live": "at once"}


def _default_words(row: Setting) -> str:
    if isinstance(row.default, tuple):
        return "[]"
    return (
        '""'
        if row.default == ""
        else str(row.default).lower()
        if isinstance(row.default, bool)
        else str(row.default)
    )


def _takes(row: Setting) -> str:
    if row.choices:
        return ", ".join(row.choices)
    if row.minimum is not None or row.maximum is not None:
        return f"{type(row.default).__name__}, {range_words(row.minimum, row.maximum)}"
    return "names" if isinstance(row.default, tuple) else type(row.default).__name__


if __name__ == "__main__":
    print(markdown(), end="")
