# SPDX-License-Identifier: Apache-2.0
"""The settings table as command-line options and as docs/reference/settings.md."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from reflex_core.settings.row import Setting, names, number, range_words
from reflex_core.settings.table import TABLE
from reflex_core.text.suggestions import nearest
from reflex_core.text.untrusted import escaped

_GROUPS = {
    "policy": "Policy and robot", "safety": "Safety", "time": "Time", "failure": "Failures",
    "record": "Recording", "http": "HTTP", "ros": "ROS",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one option per setting. Options that the user does not give are left out of the parsed namespace."""
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
                type=str if isinstance(row.default, str) else number,
                choices=row.choices or None,
                metavar=None if row.choices else type(row.default).__name__.upper(),
                default=argparse.SUPPRESS,
                help=f"{text} [{row.default!r}]",
            )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config FILE, which is no setting but holds them."""
    parser.add_argument(
        "--config", metavar="FILE", action="append", default=None,
        help="YAML file of settings: `name: value` lines, or a ROS parameter file. Options override it.",
    )  # fmt: skip


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, Any]:
    """Return the given options as a dict. End the process with status 2 at an unknown option, and suggest a known one."""
    known, unknown = parser.parse_known_args(words)
    if unknown:
        # argparse has no public list of a parser's options
        flags = [flag for action in parser._actions for flag in action.option_strings]  # noqa: SLF001
        near = [nearest_flag(word, flags) for word in unknown]
        meant = "".join(f"; did you mean {flag}?" for flag in near if flag)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    found = vars(known)
    if "config" in found:
        found["config"] = _the_one(parser, found["config"])
    lists = {row.name for row in TABLE if isinstance(row.default, tuple)}
    return {name: names(" ".join(value)) if name in lists else value for name, value in found.items()}


def _the_one(parser: argparse.ArgumentParser, files: Sequence[str] | None) -> str | None:
    """Return the file of --config; a second one is refused, as it would be unclear which value counts."""
    if files and len(files) > 1:
        parser.error(f"--config takes one file, got {len(files)}: {escaped(', '.join(files), 300)}")
    return files[0] if files else None


def nearest_flag(word: str, flags: Sequence[str]) -> str:
    """Return the option most similar to an unknown one; '' where none is."""
    if not word.startswith("--"):
        return ""
    by_name = {flag.lstrip("-").replace("-", "_"): flag for flag in flags}
    return by_name.get(nearest(word.lstrip("-").partition("=")[0], list(by_name)), "")


def markdown() -> str:
    """Return docs/reference/settings.md, made from the table."""
    lines = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        "# Settings",
        "",
        "Made from `reflex_core/settings/table.py` by `python -m reflex_core.settings.cli`; do not edit.",
        "Every setting is a ROS parameter of the node `reflex`, an argument of `serve.launch.py` and an option of",
        "`reflex serve` (`max_age_ms` is `--max-age-ms`). Where settings come from: [configure](../how-to/configure.md).",
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
