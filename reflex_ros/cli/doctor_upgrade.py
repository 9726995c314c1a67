# SPDX-License-Identifier: Apache-2.0
"""`reflex doctor --upgrade FILES`: check files of an earlier version (docs/how-to/upgrade.md)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from reflex_core.doctor.upgrade.judge import judgements
from reflex_core.doctor.upgrade.judgement import COMMAND, READ, REFUSED, VERDICTS, Judgement, worst
from reflex_core.errors import SettingError
from reflex_core.replay.comparison import Source
from reflex_core.settings.row import Value
from reflex_core.settings.table import settings_from
from reflex_core.text.untrusted import escaped
from reflex_ros.console.ros_args import read_ros_args
from reflex_ros.console.terminal import Bar, drawn, plain_table
from reflex_ros.settings_sources import take

WORDS = {READ: "read", COMMAND: "COMMAND", REFUSED: "REFUSED"}
STYLES = {READ: "green", COMMAND: "yellow", REFUSED: "bold red"}
MOST_CHARACTERS = 2000  # of a sentence: they name files, keys and values of other people


def judged(paths: Sequence[str], robot: Mapping[str, object], ros_args: Sequence[str]) -> list[Judgement]:
    """Return a judgement per file; a bar shows which one is being read.

    robot: the settings that name one. ros_args: may rename the node that a parameter file is for.
    """
    found, bar = list[Judgement](), Bar()
    for number, path in enumerate(paths):
        bar.draw(number / len(paths), f"{escaped(path)}: reading")
        found += judgements([Path(path)], partial(_written, ros_args), _open_bag, robot)
    bar.clear()
    return found


def report(found: Sequence[Judgement], as_json: bool) -> int:
    """Print the judgements. 0 when every file is read, else 1."""
    if as_json:
        print(json.dumps({"verdict": worst(found), "files": [asdict(one) for one in found]}, indent=1))
    else:
        show(found)
    return 0 if worst(found) == READ else 1


def show(found: Sequence[Judgement]) -> None:
    """Print for people: a table on a terminal with rich, else plain lines, remedy and notes below each file."""
    counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in VERDICTS}
    last = f"{counts[READ]} read, {counts[COMMAND]} need a command, {counts[REFUSED]} refused"
    rows = [(WORDS[one.verdict], one.kind or "unknown", "\n".join(_lines(one))) for one in found]
    if drawn(rows, "reflex doctor --upgrade", sys.stdout, [STYLES[one.verdict] for one in found]):
        print(last)
        return
    heads = plain_table([row[:2] for row in rows])
    width = max(map(len, heads), default=0) + 2
    for head, one in zip(heads, found, strict=True):
        first, *others = _lines(one)
        print(f"{head:{width}}{first}", *(f"{'':{width}}{line}" for line in others), sep="\n")
    print("", last, sep="\n")


def _lines(one: Judgement) -> list[str]:
    """Return the file with its judgement, the remedy, and a line per note; untrusted text in them is escaped."""
    message = one.said if one.said.startswith(one.path) else f"{one.path}: {one.said}"
    lines = [message, *([f"-> {one.do}"] if one.do else []), *(f"   {note}" for note in one.notes)]
    return [escaped(line, MOST_CHARACTERS) for line in lines]


def _written(ros_args: Sequence[str], path: Path) -> Mapping[str, object]:
    """Return what `reflex serve` would take of a parameter file. Raises ReflexError for what it would refuse.

    Its paths are not looked at: the file may be for another machine.
    """
    from reflex_core.engine.validation import problems
    from reflex_core.settings.parameter_file import read_parameters  # the doctor runs where there is no yaml
    from reflex_ros.preflight import VALUE_CHECKS

    written: dict[str, Value] = {}
    take(str(path), read_parameters(path, read_ros_args(ros_args).node, plain=True), written, {})
    if wrong := [str(error) for _, error in problems(settings_from(written), VALUE_CHECKS)]:
        raise SettingError("; ".join(wrong))
    return written


def _open_bag(path: Path) -> Source:
    from reflex_ros.bag.source import BagSource  # bags alone need rosbags

    return BagSource(path)
