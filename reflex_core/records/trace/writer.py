# SPDX-License-Identifier: Apache-2.0
"""Write requests and answers to JSONL files, on a thread of its own."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, groupby
from pathlib import Path

from reflex_core.concurrency.batch_queue import MAX_BYTES
from reflex_core.errors import ConfigurationError
from reflex_core.files.json_lines import json_line, utc_text
from reflex_core.records.background_writer import RETRY_S, BackgroundWriter
from reflex_core.records.trace.files import TraceFile, trace_name
from reflex_core.records.trace.recent_images import WRITTEN_KEPT, RecentImages
from reflex_core.records.trace.schema import (
    HASH_ONLY,
    IMAGE_MODES,
    Failure,
    Record,
    Session,
    footer_record,
    header_record,
    request_record,
)
from reflex_core.values import Request, Served

MAX_FILE_BYTES = 1 << 30
MAX_AGE_S = 86_400.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One request on its way to the file."""

    seq: int
    time_ns: int
    session: Session
    request: Request
    outcome: Served | Failure


@dataclass(frozen=True, slots=True)
class Note:
    """A record of another kind on its way to the file; `make` is given its timestamp."""

    time_ns: int
    session: Session
    make: Callable[[str], Record]


NOTE_BYTES = 16_384  # what a note holds in memory while it waits, at most: a shadow's chunk


class TraceWriter:
    """A listener of the engine. The request path only enqueues; `problem` says why nothing can be written.

    images: full, hash_only or none. A file is followed by a new one with its own header when it has `max_bytes` or is
    `max_age_s` old; `seq` goes on, and a gap in it is a request that was dropped. Raises ConfigurationError when the
    directory cannot be made.
    """

    kind = "trace"

    def __init__(
        self,
        directory: Path,
        session: Session,
        *,
        images: str = HASH_ONLY,
        gzip: bool = True,
        max_bytes: int = MAX_FILE_BYTES,
        max_age_s: float = MAX_AGE_S,
        flush_interval_s: float = 1.0,
        retry_s: float = RETRY_S,
        max_queue_bytes: int = MAX_BYTES,
    ) -> None:
        if images not in IMAGE_MODES:
            raise ConfigurationError(f"images must be one of {', '.join(IMAGE_MODES)}, got {images!r}")
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{directory}: traces cannot be kept here: {error.strerror}") from error
        self._directory, self._session = directory, session
        self._images, self._gzip = images, gzip
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._session_id = str(uuid.uuid4())
        self._name_s = int(time.time())
        self._seqs = count()
        self._next_seq = 0
        self._file: TraceFile | None = None
        self._recent = RecentImages(WRITTEN_KEPT)
        self._part = 0
        self._opened_s = 0.0
        self._in_file = self._errors = 0
        self._in_header = session
        self._writer: BackgroundWriter[Entry | Note] = BackgroundWriter(
            "trace", self._write, slug="record-disk-full", failed=self._failed, recovered=self._recovered,
            retry_s=retry_s, flush_interval_s=flush_interval_s, max_bytes=max_queue_bytes,
        )  # fmt: skip

    @property
    def problem(self) -> str:
        """Why nothing can be written; empty while all is well."""
        return self._writer.problem

    @property
    def written(self) -> int:
        """Request records that the operating system has."""
        return self._writer.written

    @property
    def dropped(self) -> int:
        """Requests and notes that are in no file, ever."""
        return self._writer.dropped

    @property
    def path(self) -> Path | None:
        """The file that is written now; None before the first request."""
        file = self._file
        return None if file is None else file.path

    def next_seq(self) -> int:
        """Return a record number for an answer that carries it (`Served.trace_seq`) before it is recorded."""
        return next(self._seqs)

    def __call__(self, request: Request, served: Served) -> None:
        """Enqueue one answer under its `trace_seq`, or under a number of its own when it has none."""
        seq = served.trace_seq if served.trace_seq >= 0 else self.next_seq()
        self._put(seq, request, served)

    def error(self, request: Request, slug: str, message: str, seq: int = -1) -> None:
        """Enqueue a request that got no answer, under `seq` or a number of its own."""
        self._put(seq if seq >= 0 else self.next_seq(), request, Failure(slug, message))

    def note(self, make: Callable[[str], Record]) -> None:
        """Enqueue a record that is no request: a shadow's comparison, the end of an episode. `make` runs on the writer's thread."""
        self._writer.put(Note(time.time_ns(), self._session, make), NOTE_BYTES)

    def describe(self, session: Session) -> None:
        """Start a new file with a header of its own, as another policy answers from now on."""
        self._session = session

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, and the footer."""
        if self._writer.close(timeout_s):
            self._end_file()

    def _put(self, seq: int, request: Request, outcome: Served | Failure) -> None:
        self._writer.put(
            Entry(seq, time.time_ns(), self._session, request, outcome), request.observation.size_bytes
        )

    def _write(self, batch: Sequence[Entry | Note]) -> None:
        for session, entries in groupby(batch, key=lambda entry: entry.session):
            if session is not self._in_header:
                self._end_file()
                self._in_header = session
            waiting = list(entries)
            self._next_seq = max([self._next_seq, *(e.seq + 1 for e in waiting if isinstance(e, Entry))])
            self._writer.attempt(len(waiting), partial(self._append, waiting))

    def _append(self, waiting: Sequence[Entry | Note]) -> None:
        self._rotate()
        header = b""
        if self._file is None:  # before the lines: they refer to images of their own file
            self._file, header = self._open()
        entries = [entry for entry in waiting if isinstance(entry, Entry)]
        # as they came: the order alone says what was executed when a request was answered
        lines = [self._line(one) if isinstance(one, Entry) else self._noted(one) for one in waiting]
        requests = sum(bool(line) for one, line in zip(waiting, lines, strict=True) if isinstance(one, Entry))
        self._writer.lose(lines.count(b""))
        self._file.write(header + b"".join(lines))
        self._in_file += requests
        self._writer.wrote(requests)
        self._errors += sum(isinstance(entry.outcome, Failure) for entry in entries)

    def _line(self, entry: Entry) -> bytes:
        try:
            record = request_record(
                entry.request,
                entry.outcome,
                seq=entry.seq,
                timestamp=utc_text(entry.time_ns),
                images=self._images,
                vlm_conditioning=entry.session.vlm_conditioning,
                recent=self._recent,
            )
            return json_line(record) + b"\n"
        except Exception:  # one odd request must not take the records beside it along
            self._recent.clear()  # it may name images that are not written now
            log.exception("trace: request %s could not be recorded", entry.request.request_id)
            return b""

    def _noted(self, note: Note) -> bytes:
        try:
            return json_line(note.make(utc_text(note.time_ns))) + b"\n"
        except Exception:
            log.exception("trace: a note could not be recorded")
            return b""

    def _rotate(self) -> None:
        file = self._file
        if file is None:
            return
        if file.size >= self._max_bytes or time.monotonic() - self._opened_s >= self._max_age_s:
            self._end_file()

    def _open(self) -> tuple[TraceFile, bytes]:
        # the first file is named after the start of the session; names have whole seconds, so a second file within
        # one takes the next
        name_s = max(self._name_s, int(time.time())) if self._part else self._name_s
        self._name_s = name_s + 1
        name = trace_name(name_s, self._in_header.model_hash, self._session_id, gzip=self._gzip)
        header = header_record(
            self._in_header,
            session_id=self._session_id,
            started_at=utc_text(),
            images=self._images,
            part=self._part,
            dropped=self.dropped,
        )
        file = TraceFile(self._directory / name, gzip=self._gzip)
        self._recent.clear()
        self._part += 1
        self._in_file = 0
        self._opened_s = time.monotonic()
        return file, json_line(header) + b"\n"

    def _end_file(self) -> None:
        if self._file is None:
            return
        footer = footer_record(
            ended_at=utc_text(),
            total_requests=self._next_seq,
            records=self._in_file,
            errors=self._errors,
            dropped=self.dropped,
        )
        try:
            self._file.finish(json_line(footer) + b"\n")
            self._file = None
        except OSError as error:
            self._writer.fail(error)

    def _failed(self, error: Exception) -> None:
        if not self.problem:
            log.error("slug=record-disk-full the trace cannot be written, serving goes on: %s", error)
        if self._file is not None:
            self._file.abandon()
            if self._file.size == 0:
                self._part -= 1
            self._file = None

    def _recovered(self) -> None:
        log.warning("recording resumed in %s; it had stopped after: %s", self.path, self.problem)
