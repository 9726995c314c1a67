# SPDX-License-Identifier: Apache-2.0
"""Record an activation of the node into a bag, on a thread of its own: messages consumed and published."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from reflex_core.concurrency.batch_queue import MAX_BYTES
from reflex_core.errors import ConfigurationError
from reflex_core.files.json_lines import json_line, utc_text
from reflex_core.records.background_writer import RETRY_S, BackgroundWriter
from reflex_core.records.trace.schema import (
    FULL,
    NONE,
    UNKNOWN_HASH,
    Failure,
    Session,
    header_record,
    request_record,
)
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import Request, Served
from reflex_ros.bag.files import MCAP, BagFiles
from reflex_ros.bag.reindex import reindex
from reflex_ros.bag.topic_types import (
    CONSUMED,
    CONSUMED_BEFORE,
    STRING,
    Message,
    OfferedQos,
    definitions,
    serialised,
)
from reflex_ros.messages.raw import Consumed, RawMessage, kind_of

FLUSH_S = 0.5  # a kill -9 is to lose a second at most, and writing takes its time too
SPLIT_BYTES = 512 << 20
JUMP_NS = 1_000_000_000  # threads put their items in within less: this far back is a clock that was set, or a simulator's restart
HERE_KEPT = 16_384  # messages: at 1000 a second an answer may take 16 s and its observation is still known to be there

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Note:
    """A record of another kind than requests on its way into the trace inside; `make` is given its timestamp."""

    make: Callable[[str], dict[str, Any]]
    time_ns: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """One inference on its way into the bag; `fresh` are those of its messages that no earlier one brought."""

    request: Request
    outcome: Served | Failure
    time_ns: int
    consumed: Consumed
    fresh: Sequence[RawMessage]


class BagRecorder:
    """Everything that calls it only enqueues. `problem` says why nothing can be written, empty while all is well.

    Writes `<directory>/<YYYYMMDD-HHMMSS>-<model hash>/`, UTC, from the first message on, and another one once the clock has
    jumped back: readers order a bag by time, which would mix what was before with what came after. trace_topic: where the trace
    record of every request goes, inside the bag only. offered: reads what the publishers of a topic offer. full_rate: write what
    is `heard`, so that an answer brings only those of its messages that the queue refused or an earlier bag has. Raises
    ConfigurationError when the directory cannot be made.
    """

    kind = "bag"

    def __init__(
        self,
        directory: Path,
        session: Session,
        trace_topic: str,
        clock_ns: Callable[[], int],
        offered: OfferedQos,
        *,
        storage: str = MCAP,
        split_bytes: int = SPLIT_BYTES,
        flush_interval_s: float = FLUSH_S,
        retry_s: float = RETRY_S,
        max_queue_bytes: int = MAX_BYTES,
        full_rate: bool = False,
    ) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{directory}: bags cannot be kept here: {error.strerror}") from error
        self._directory, self._session = directory, session
        self._trace_topic, self._clock_ns, self._offered = trace_topic, clock_ns, offered
        self._storage, self._split_bytes = storage, split_bytes
        self._types = definitions()
        self._texts: dict[str, tuple[str, str]] = {}
        self._profiles: dict[str, Sequence[Any]] = {}
        self._session_id = str(uuid.uuid4())
        self._latched: dict[str, Message] = {}
        self._previous: Sequence[RawMessage] = ()
        self.full_rate = full_rate
        self._here: dict[
            tuple[str, int], None
        ] = {}  # topic and time of the newest messages in the present bag
        self._missed = self._newest_ns = 0
        self._limited_log = RateLimitedLog(log)
        self._files: BagFiles | None = None
        self._unfinished: list[Path] = []
        self._next_seq = 0
        self._writer: BackgroundWriter[Message | _Answer | _Note] = BackgroundWriter(
            "bag", self._write, slug="record-disk-full", failed=self._failed, recovered=self._recovered,
            errors=(OSError, sqlite3.Error), retry_s=retry_s, flush_interval_s=flush_interval_s,
            max_bytes=max_queue_bytes,
        )  # fmt: skip

    @property
    def problem(self) -> str:
        """Why nothing can be written; empty while all is well."""
        return self._writer.problem

    @property
    def written(self) -> int:
        """Messages that the operating system has."""
        return self._writer.written

    @property
    def dropped(self) -> int:
        """Messages that are in no bag; an inference whose messages did not fit the queue counts as one."""
        return self._writer.dropped

    @property
    def recorders(self) -> tuple[BagRecorder, ...]:
        """The recorder itself."""
        return (self,)

    @property
    def path(self) -> Path | None:
        """The bag that is written now; None before the first message."""
        files = self._files
        return None if files is None else files.directory

    def received(self, arrival: RawMessage) -> None:
        """Enqueue an instruction or episode message. A later bag begins with the newest of each."""
        message = Message(arrival.topic, arrival.kind, arrival.received_ns, arrival.raw)
        self._latched[arrival.topic] = message
        self._writer.put(message, len(arrival.raw))

    def heard(self, arrival: RawMessage) -> None:
        """Enqueue a message of a stream that is recorded at its full rate."""
        if self.full_rate:
            self._writer.put(
                Message(arrival.topic, arrival.kind, arrival.received_ns, arrival.raw), len(arrival.raw)
            )

    def sent(self, topic: str, message: Any) -> None:
        """Enqueue a message that the node publishes; it must not change any more."""
        self._writer.put(Message(topic, kind_of(type(message)), self._clock_ns(), message))

    def noted(self, make: Callable[[str], dict[str, Any]]) -> None:
        """Enqueue a record of another kind than requests for the trace inside."""
        self._writer.put(_Note(make, self._clock_ns()))

    def answered(self, request: Request, outcome: Served | Failure, consumed: Consumed) -> None:
        """Enqueue one inference and the messages it consumed, each of which is written once."""
        every = (*consumed.history, consumed)
        arrivals = [arrival for one in every for arrival in (*one.images.values(), *one.states)]
        # a message that was consumed again was also consumed the last time: only newer ones take its place
        fresh = arrivals if self.full_rate else [each for each in arrivals if each not in self._previous]
        answer = _Answer(request, outcome, self._clock_ns(), consumed, fresh)
        taken = self._writer.put(answer, sum(len(arrival.raw) for arrival in fresh))
        self._previous = arrivals if taken else ()

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, the index and metadata.yaml."""
        if not self._writer.close(timeout_s) or self._files is None:
            return
        try:
            self._files.close()
        except (OSError, sqlite3.Error) as error:
            self._writer.fail(error)

    def _write(self, batch: Sequence[Message | _Answer | _Note]) -> None:
        begun = 0
        for number, item in enumerate(batch):
            if item.time_ns < self._newest_ns - JUMP_NS:
                self._write_on(batch[begun:number])
                self._end_bag()
                begun, self._newest_ns = number, 0
            self._newest_ns = max(self._newest_ns, item.time_ns)
        self._write_on(batch[begun:])

    def _end_bag(self) -> None:
        """Finish the bag because the clock jumped back; the next message begins another."""
        if self._files is None:
            return
        log.warning("the clock jumped back: %s is finished, and another bag begins", self._files.directory)
        try:
            self._files.close()
        except (OSError, sqlite3.Error) as error:
            self._writer.fail(error)
        self._files = None

    def _write_on(self, batch: Sequence[Message | _Answer | _Note]) -> None:
        if self._files is None:
            self._here.clear()
        messages = [message for item in batch for message in self._messages(item)]
        self._writer.attempt(len(messages), partial(self._put, messages))
        if not self._writer.problem:
            self._finish_the_unfinished()
        self._log_missed()

    def _log_missed(self) -> None:
        """Log what the queue had no room for; what a failed attempt lost has a line of its own."""
        missed = self._writer.refused
        if missed > self._missed:
            text = "the bag lacks %d messages so far: they came faster than the disk takes them (compressed cameras help)"
            self._limited_log(logging.WARNING, "missed", text, missed)
            self._missed = missed

    def _put(self, messages: Sequence[Message]) -> None:
        """Write and flush; return the number of messages written, with those that a new bag begins with."""
        if self._files is None:
            self._files = BagFiles(self._free_name(), self._storage, self._split_bytes)
            messages = [*self._beginning(messages), *messages]
        for message in messages:
            part = self._files.writable()
            if not part.knows(message.topic):
                part.add(message.topic, message.kind, *self._text(message.kind), self._qos(message.topic))
            part.write(message.topic, message.time_ns, message.data)
        self._files.flush()
        self._writer.wrote(len(messages))

    def _beginning(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Yield the first messages of a bag: the header of its trace, and the current instruction and episode."""
        record = header_record(
            self._session,
            session_id=self._session_id,
            started_at=utc_text(),
            images=FULL,
            part=0,
            dropped=self.dropped,
        )
        first_ns = min((message.time_ns for message in messages), default=self._clock_ns())
        yield self._trace_message(record, first_ns)
        here = {message.topic for message in messages}
        for topic, message in self._latched.items():
            if topic not in here:  # one of before a jump of the clock would lie in this bag's future
                yield replace(message, time_ns=min(message.time_ns, first_ns))

    def _messages(self, item: Message | _Answer | _Note) -> Iterator[Message]:
        """Yield an item of the queue as serialised messages. One that cannot be serialised is lost alone."""
        try:
            if isinstance(item, _Answer):
                yield from self._consumed(item)
                yield self._trace_message(self._record(item), item.time_ns)
            elif isinstance(item, _Note):
                yield self._trace_message(item.make(utc_text()), item.time_ns)
            elif isinstance(item.data, bytes):
                self._note_here(item.topic, item.time_ns)
                yield item
            else:
                data = serialised(item.data, item.kind, self._types)
                yield Message(item.topic, item.kind, item.time_ns, data)
        except Exception:
            self._writer.lose(1)
            log.exception("bag: a message could not be recorded")

    def _consumed(self, answer: _Answer) -> Iterator[Message]:
        """Yield those messages of an answer that the bag does not have yet, without those of before a jump of the clock."""
        for each in answer.fresh:
            before_jump = each.received_ns > answer.time_ns + JUMP_NS
            if (each.topic, each.received_ns) not in self._here and not before_jump:
                self._note_here(each.topic, each.received_ns)
                yield Message(each.topic, each.kind, each.received_ns, each.raw)

    def _note_here(self, topic: str, time_ns: int) -> None:
        if self.full_rate:
            self._here[topic, time_ns] = None
            if len(self._here) > HERE_KEPT:
                del self._here[next(iter(self._here))]

    def _record(self, item: _Answer) -> dict[str, Any]:
        seq = item.outcome.trace_seq if isinstance(item.outcome, Served) else -1
        seq = seq if seq >= 0 else self._next_seq
        self._next_seq = seq + 1
        record = request_record(
            item.request,
            item.outcome,
            seq=seq,
            timestamp=utc_text(),
            images=NONE,
            vlm_conditioning=self._session.vlm_conditioning,
        )
        record[CONSUMED] = _places(item.consumed)
        if item.consumed.history:
            record[CONSUMED_BEFORE] = [_places(one) for one in item.consumed.history]
        return record

    def _trace_message(self, record: Mapping[str, Any], time_ns: int) -> Message:
        string = self._types.types[STRING](json_line(record).decode("ascii"))
        return Message(self._trace_topic, STRING, time_ns, self._types.serialize_cdr(string, STRING))

    def _text(self, kind: str) -> tuple[str, str]:
        """Return the full definition of a type, and its RIHS01 hash."""
        if kind not in self._texts:
            definition, _ = self._types.generate_msgdef(kind, ros_version=2)
            self._texts[kind] = (definition, self._types.hash_rihs01(kind))
        return self._texts[kind]

    def _qos(self, topic: str) -> Sequence[Any]:
        if topic not in self._profiles:
            self._profiles[topic] = self._offered(topic)
        return self._profiles[topic]

    def _free_name(self) -> Path:
        moment = datetime.now(timezone.utc)
        name = f"{moment:%Y%m%d-%H%M%S}-{self._session.model_hash or UNKNOWN_HASH}"
        path, number = self._directory / name, 1
        while path.exists():
            number += 1
            path = self._directory / f"{name}-{number}"
        return path

    def _recovered(self) -> None:
        log.warning("recording resumed in %s; it had stopped after: %s", self.path, self.problem)

    def _failed(self, error: Exception) -> None:
        """Leave the bag as it is; the next attempt begins another."""
        if not self.problem:
            log.error("slug=record-disk-full the bag cannot be written, serving goes on: %s", error)
        self._previous = ()
        files, self._files = self._files, None
        if files is None:
            return
        files.abort()
        if files.flushed:
            self._unfinished.append(files.directory)
        else:
            shutil.rmtree(files.directory, ignore_errors=True)

    def _finish_the_unfinished(self) -> None:
        while self._unfinished:
            directory = self._unfinished.pop()
            try:
                reindex(directory)
            except Exception as error:  # the new bag goes on, and `reflex bag reindex` says more
                log.error("%s: not indexed, try `reflex bag reindex`: %s", directory, error)


def _places(consumed: Consumed) -> dict[str, Any]:
    """Return where the image of each camera is."""
    return {
        camera: {"topic": image.topic, "received_ns": image.received_ns, "stamp_ns": image.stamp_ns}
        for camera, image in consumed.images.items()
    }
