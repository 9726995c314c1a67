# SPDX-License-Identifier: Apache-2.0
"""One judgement per file: the table of who judges what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from reflex_core.doctor.upgrade import kinds
from reflex_core.doctor.upgrade.export_folders import judge_export
from reflex_core.doctor.upgrade.judgement import READ, REFUSED, Judgement
from reflex_core.doctor.upgrade.measurements import judge_calibration, judge_head
from reflex_core.doctor.upgrade.recordings import judge_audit, judge_bag, judge_trace
from reflex_core.doctor.upgrade.robot_files import (
    ReadSettings,
    judge_embodiment,
    judge_observation,
    judge_parameters,
    judge_safety,
)
from reflex_core.replay.sources import OpenBag

NO_KIND = "leave it out; docs/how-to/upgrade.md lists what can be judged"

Judge = Callable[[Path], Judgement]


def judgements(
    paths: Iterable[Path],
    read_settings: ReadSettings,
    open_bag: OpenBag,
    robot: Mapping[str, object] = MappingProxyType({}),
) -> Iterator[Judgement]:
    """Yield one judgement for each path, and for a plain folder one for everything in it that is of a known kind.

    read_settings: what `reflex serve` reads of a parameter file. open_bag: as for a replay. robot: the settings that name
    the robot that exports are for.
    """
    judges: Mapping[str, Judge] = {
        kinds.PARAMETERS: lambda path: judge_parameters(path, read_settings),
        kinds.EMBODIMENT: judge_embodiment,
        kinds.SAFETY: judge_safety,
        kinds.EXPORT: lambda path: judge_export(path, robot),
        kinds.TRACE: judge_trace,
        kinds.BAG: lambda path: judge_bag(path, open_bag),
        kinds.AUDIT: judge_audit,
        kinds.CALIBRATION: judge_calibration,
        kinds.HEAD: judge_head,
        kinds.OBSERVATION: judge_observation,
    }
    for path in paths:
        found = kinds.found(path)
        if found.kind == kinds.FOLDER:
            yield from _of_folder(path, judges)
        elif found.kind == kinds.UNKNOWN:
            yield _unknown(found)
        else:
            yield _judged(found, judges[found.kind])


def _judged(found: kinds.Found, judge: Judge) -> Judgement:
    try:
        return judge(found.path)
    except Exception as error:  # libraries raise what they like, and one bad file must not hide the others
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Judgement(str(found.path), found.kind, REFUSED, message, "restore it from an intact copy")


def _unknown(found: kinds.Found) -> Judgement:
    do = "restore it from an intact copy" if found.damaged else NO_KIND
    return Judgement(str(found.path), kinds.UNKNOWN, REFUSED, found.why, do)


def _of_folder(path: Path, judges: Mapping[str, Judge]) -> Iterator[Judgement]:
    passed_over, judged = list[str](), set[Path]()
    try:
        for number, entry in enumerate(kinds.files_below(path)):
            if number == kinds.MOST_FILES:
                message = f"holds more than {kinds.MOST_FILES} files, the rest was not checked"
                yield Judgement(str(path), kinds.FOLDER, REFUSED, message, "name fewer at a time")
                return
            found = kinds.found(entry)
            if found.kind not in judges and not found.damaged:
                passed_over.append(entry.name)
            elif found.path not in judged:
                judged.add(found.path)
                yield _judged(found, judges[found.kind]) if found.kind in judges else _unknown(found)
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        yield Judgement(str(path), kinds.FOLDER, REFUSED, message, "make it readable, then look again")
        return
    if not judged:
        yield Judgement(
            str(path), kinds.FOLDER, REFUSED, "contains no file that reflex reads or writes", NO_KIND
        )
    elif passed_over:
        rest = f" and {len(passed_over) - 5} more" if len(passed_over) > 5 else ""
        message = f"skipped, of no kind that can be judged: {', '.join(passed_over[:5])}{rest}"
        yield Judgement(str(path), kinds.FOLDER, READ, message)
