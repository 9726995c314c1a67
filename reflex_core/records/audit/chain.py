# SPDX-License-Identifier: Apache-2.0
"""Read and verify the audit log: one hashed line per record, each naming the hash of the one before.

A line is `{...,"prev":"<hash of the line before>",...,"hash":"<own hash>"}`. The own hash is SHA-256 over the line's
very bytes with `,"hash":"..."` left out, so that a verifier in any language needs no rules about how numbers are formatted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import orjson

START = "0" * 64
CHECKPOINT, RECOVERED = "checkpoint", "recovered"
CHANGED, REMOVED, REORDERED, INSERTED, TORN = "changed", "removed", "reordered", "inserted", "torn"

_NAME = re.compile(r"audit_\d{8}\.jsonl")
_HASH = re.compile(rb',"hash":"([0-9a-f]{64})"}$')
_HASH_LENGTH = 75
_BLOCK_BYTES = 1 << 20


def with_hash(body: bytes) -> tuple[bytes, str]:
    """Return (line without newline, its hash) of one record's compact JSON."""
    digest = hashlib.sha256(body).hexdigest()
    return b'%b,"hash":"%b"}' % (body[:-1], digest.encode()), digest


def record_of(line: bytes) -> dict[str, Any] | None:
    """Return the record of an untouched line, without its newline; None for anything else."""
    found = _HASH.search(line[-_HASH_LENGTH:])
    if found is None or hashlib.sha256(line[:-_HASH_LENGTH] + b"}").hexdigest() != found[1].decode():
        return None
    record = _parsed(line)
    whole = (
        isinstance(record, dict)
        and isinstance(record.get("seq"), int)
        and isinstance(record.get("prev"), str)
    )
    return record if whole else None


def _parsed(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def file_name(day: date) -> str:
    """Return the name of one UTC day's file."""
    return f"audit_{day:%Y%m%d}.jsonl"


def day_of(path: Path) -> date | None:
    """Return the day in a file's name; None for a file that is not one of ours."""
    if not _NAME.fullmatch(path.name):
        return None
    try:
        return datetime.strptime(path.stem, "audit_%Y%m%d").date()
    except ValueError:
        return None


def audit_files(directory: Path) -> list[Path]:
    """Return the daily files, oldest first."""
    return sorted(path for path in directory.glob("audit_*.jsonl") if day_of(path) is not None)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file: its last whole record, and the bytes after it (b"" when nothing is incomplete).

    ends_line: whether the file's last byte is a newline, so that a record may follow.
    """

    record: dict[str, Any] | None
    torn: bytes
    ends_line: bool


def read_tail(path: Path) -> Tail:
    """Return the end of a file, read backwards. Raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        block = _BLOCK_BYTES
        while True:
            start = max(0, size - block)
            stream.seek(start)
            data = stream.read(size - start)
            tail = _tail(data, whole=start == 0)
            if tail is not None:
                return tail
            block *= 4


def _tail(data: bytes, *, whole: bool) -> Tail | None:
    """Return the tail within `data`, the last bytes of a file; None when more must be read to tell."""
    ends_line = data.endswith(b"\n") or not data
    end = len(data)
    while end > 0:
        stop = end - 1 if data[end - 1 : end] == b"\n" else end
        begin = data.rfind(b"\n", 0, stop) + 1
        if begin == 0 and not whole:
            return None
        record = record_of(data[begin:stop])
        if record is not None:
            return Tail(record, data[end:].removesuffix(b"\n"), ends_line)
        end = begin
    return Tail(None, data.removesuffix(b"\n"), ends_line)


@dataclass(frozen=True, slots=True)
class Finding:
    """Where the chain breaks first, and how."""

    path: Path
    line: int
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}: {self.detail}"


@dataclass(slots=True)
class Verdict:
    """What `verify` found. `anchor` is the `prev` of the first record: the hash that the log itself cannot prove."""

    files: int = 0
    records: int = 0
    first_seq: int = 0
    anchor: str = START
    head: str = START
    missing: int = 0
    recovered: int = 0
    records_after: int | None = None
    finding: Finding | None = None
    _expected_head: str | None = field(default=None, repr=False)

    def passed(self, record: dict[str, Any]) -> None:
        """Take one record that fits the chain into account."""
        if self.records == 0:
            self.first_seq, self.anchor = record["seq"], record["prev"]
            if self._expected_head == record["prev"]:
                self.records_after = 0
        self.records += 1
        self.head = record["hash"]
        self.missing += int(record.get("missing") or 0)
        self.recovered += record.get("kind") == RECOVERED
        if self.records_after is not None:
            self.records_after += 1
        if record["hash"] == self._expected_head:
            self.records_after = 0


@dataclass(frozen=True, slots=True)
class _Line:
    path: Path
    number: int
    data: bytes
    ends: bool


def _lines(path: Path) -> Iterator[_Line]:
    with path.open("rb") as stream:
        for number, data in enumerate(stream, 1):
            yield _Line(path, number, data.removesuffix(b"\n"), data.endswith(b"\n"))


def verify(files: Sequence[Path], expected_head: str | None = None) -> Verdict:
    """Walk the chain through `files`, oldest first, in constant memory. Raises OSError.

    expected_head: the hash of a record that must still be there; it shows that the end was not cut off. How many
    records came after it is `records_after`.
    """
    verdict = Verdict(files=len(files), _expected_head=expected_head)
    for path in files:
        verdict.finding = _walk(path, verdict)
        if verdict.finding is not None:
            return verdict
    if expected_head is not None and verdict.records_after is None:
        last = files[-1]
        detail = f"no record has the hash {expected_head[:16]}...: the end of the log was cut off"
        verdict.finding = Finding(last, sum(1 for _ in _lines(last)) or 1, REMOVED, detail)
    return verdict


def _walk(path: Path, verdict: Verdict) -> Finding | None:
    pending: _Line | None = None  # a broken line that the next record may explain
    begun = False
    for line in _lines(path):
        record = record_of(line.data)
        if record is None:
            if pending is not None or _parsed(line.data) is not None:
                return _changed(pending or line)
            pending = line
            continue
        if pending is not None and not _explains(record, pending.data):
            return _changed(pending)
        pending = None
        if not begun and record.get("kind") not in (CHECKPOINT, RECOVERED):
            return Finding(path, line.number, REMOVED, "the file does not begin with its checkpoint record")
        begun = True
        finding = _broken(line, record, verdict)
        if finding is not None:
            return finding
        verdict.passed(record)
    if pending is None and not begun:
        return Finding(
            path, 1, REMOVED, "the file is empty, and every file begins with its checkpoint record"
        )
    if pending is None:
        return None
    if pending.ends:
        return _changed(pending)
    return Finding(path, pending.number, TORN, f"the last {len(pending.data)} bytes are not a whole record")


def _changed(line: _Line) -> Finding:
    return Finding(
        line.path, line.number, CHANGED, "the record does not have the content it was written with"
    )


def _explains(record: dict[str, Any], torn: bytes) -> bool:
    found = (record.get("kind"), record.get("torn_bytes"), record.get("torn_sha256"))
    return found == (RECOVERED, len(torn), hashlib.sha256(torn).hexdigest())


def _broken(line: _Line, record: dict[str, Any], verdict: Verdict) -> Finding | None:
    """Return how a record that is whole in itself fails to follow the one before it."""
    if verdict.records == 0:
        return None
    expected = verdict.first_seq + verdict.records
    seq = record["seq"]
    if seq == expected and record["prev"] == verdict.head:
        return None
    if seq > expected:
        if any((later := record_of(other.data)) and later["seq"] == expected for other in _lines(line.path)):
            return Finding(line.path, line.number, REORDERED, f"record {seq} stands where {expected} belongs")
        gone = f"record {expected}" if seq == expected + 1 else f"records {expected} to {seq - 1}"
        return Finding(line.path, line.number, REMOVED, f"{gone} should stand before record {seq}")
    if seq < expected:
        return Finding(line.path, line.number, INSERTED, f"record {seq} stands here a second time")
    detail = f"record {seq} names another record before it than the one that stands there"
    return Finding(line.path, line.number, CHANGED, detail)
