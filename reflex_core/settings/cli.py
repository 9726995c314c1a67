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

GROUPS = {
    "policy": "Policy and robot", "safety": "Safety", "time": "Time", "failure": "Failures",
    "record": "Recording", "http": "HTTP", "log": "Log lines", "ros": "ROS",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one option per setting, in their groups. Options that the user does not give are left out of the parsed namespace."""
    for group, title in GROUPS.items():
        section = parser.add_argument_group(title)
        for row in TABLE:
            if row.group == group:
                _add(section, row)
        if group == "log":
            _add_levels(section)


def _add(section: argparse._ArgumentGroup, row: Setting) -> None:
    default = f" [default: {row.default_words}]" if row.default_words else ""
    text = row.help.replace("%", "%%") + default
    if isinstance(row.default, bool):
        section.add_argument(
            row.flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
        )
        return
    section.add_argument(
        row.flag,
        nargs="+" if isinstance(row.default, tuple) else None,
        type=str if isinstance(row.default, str | tuple) else number,
        choices=row.choices or None,
        metavar=row.value_name,
        default=argparse.SUPPRESS,
        help=text,
    )


def _add_levels(section: argparse._ArgumentGroup) -> None:
    """Add -q and -v, which are two values of --log-level."""
    for short, long, level in (("-q", "--quiet", "warning"), ("-v", "--verbose", "debug")):
        section.add_argument(
            short, long, dest="log_level", action="store_const", const=level, default=argparse.SUPPRESS,
            help=f"The same as --log-level {level}.",
        )  # fmt: skip


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config FILE, which is no setting but holds them."""
    parser.add_argument(
        "--config", metavar="FILE", action="append", default=None,
        help="YAML file of settings: `name: value` lines, or a ROS parameter file. Environment variables and options override it.",
    )  # fmt: skip


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, Any]:
    """Return the given options as a dict. End the process with status 2 at an option that is not understood."""
    found = vars(parser.parse_args(words))
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
        "`reflex serve` (`max_age_ms` is `--max-age-ms`), and an environment variable (`REFLEX_MAX_AGE_MS`). Which of them counts:",
        "[configure](../how-to/configure.md).",
    ]
    for group, title in GROUPS.items():
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
