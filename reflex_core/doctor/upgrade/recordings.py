# SPDX-License-Identifier: Apache-2.0
"""Traces, bags and audit logs of an earlier version, read from the first record to the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from reflex_core.doctor.upgrade.judgement import COMMAND, READ, REFUSED, Judgement
from reflex_core.doctor.upgrade.kinds import AUDIT, BAG, TRACE, bag_suffix, entries
from reflex_core.files.regular_file import unreadable
from reflex_core.records.audit.chain import audit_files, verify
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.reader import TraceReader
from reflex_core.replay.comparison import Source
from reflex_core.replay.sources import BAG_SUFFIXES, OpenBag

FIRST_VERSION = (
    "recorded by the first version, which preprocessed observations differently: `reflex replay` lists the differences"
    " and compares the weights"
)


def judge_trace(path: Path) -> Judgement:
    """Judge a trace: every record is read."""
    try:
        with TraceReader(path) as source:
            return _read(path, TRACE, source)
    except TraceError as error:
        return Judgement(
            str(path), TRACE, REFUSED, str(error), "keep it for people to read; record the requests again"
        )


def judge_bag(path: Path, open_bag: OpenBag) -> Judgement:
    """Judge a bag, as a directory or as one of its files."""
    if path.is_dir() and (odd := _odd(entries(path))):
        return Judgement(str(path), BAG, REFUSED, odd, "take it out of the bag's directory")
    if path.is_file() and path.suffix not in BAG_SUFFIXES:
        message = "a file of a bag without its file extension"
        return Judgement(
            str(path), BAG, COMMAND, message, f"mv {quote(str(path))} {quote(str(path) + bag_suffix(path))}"
        )
    try:
        with open_bag(path) as source:
            return _read(path, BAG, source)
    except TraceError as error:
        folder = path if path.is_dir() else path.parent
        if not (folder / "metadata.yaml").exists():
            return Judgement(str(path), BAG, COMMAND, str(error), f"reflex bag reindex {quote(str(folder))}")
        do = "play it with `ros2 bag play`; only what --record-bag wrote can be replayed"
        return Judgement(str(path), BAG, REFUSED, str(error), do)


def _read(path: Path, kind: str, source: Source) -> Judgement:
    count = sum(1 for _ in source)
    message = f"requests: {count}, recorded with {_model(source.header)}"
    # `settings` is in what this program recorded, `preprocessing` in what it recorded since the first version
    notes = (FIRST_VERSION,) if "settings" in source.header and "preprocessing" not in source.header else ()
    if source.damage:
        do = f"reflex replay {quote(str(path))} --allow-damage --model EXPORT"
        return Judgement(str(path), kind, COMMAND, f"{message}; {source.damage[0]}", do, notes)
    return Judgement(str(path), kind, READ, message, notes=notes)


def _model(header: Mapping[str, Any]) -> str:
    return (
        f"{header.get('export_dir') or 'an export without a name'} ({header.get('model_hash') or 'no hash'})"
    )


def _odd(files: Sequence[Path]) -> str:
    """Return what is wrong with the first file that cannot be read or never ends; '' where all are regular files."""
    wrong = ((file, unreadable(file)) for file in files if not file.is_dir())
    return next((f"{file}: must be a regular file, it is {why}" for file, why in wrong if why), "")


def judge_audit(path: Path) -> Judgement:
    """Judge an audit log, a directory or one of its files: the whole chain is walked."""
    files = audit_files(path) if path.is_dir() else [path]
    if odd := _odd(files):
        return Judgement(str(path), AUDIT, REFUSED, odd, "take it out of the log's directory")
    again = "keep it unchanged as evidence and start a new log: --audit-log NEW_DIRECTORY"
    try:
        verdict = verify(files)
    except OSError as error:
        return Judgement(
            str(path),
            AUDIT,
            REFUSED,
            f"cannot be read: {error.strerror or error}",
            "make it readable, then look again",
        )
    if verdict.finding is not None:
        return Judgement(str(path), AUDIT, REFUSED, str(verdict.finding), again)
    message = f"{verdict.records} records in {verdict.files} files, chain unbroken; serving continues it"
    note = "`reflex audit verify` exits with 3 instead of 0 unless --head proves the end"
    return Judgement(str(path), AUDIT, READ, message, notes=(note,))
