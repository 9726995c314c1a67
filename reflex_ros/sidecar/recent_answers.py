# SPDX-License-Identifier: Apache-2.0
"""The newest answers as records of a trace, for a viewer that polls. Nothing is kept while no viewer does."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reflex_core.errors import ObservationError
from reflex_core.files.json_lines import json_line, utc_text
from reflex_core.images.thumbnail import thumbnail
from reflex_core.records.trace.schema import FULL, Session, header_record, request_record
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import Frame, Request, Served

KEPT, KEPT_BYTES = 256, 64 << 20
PER_REPLY = 32
LONGEST_SIDE = 320
IDLE_S = 10.0  # after so long without a poll nothing is kept
PRIVATE = ("settings", "export_dir", "hardware", "versions")  # paths and machines are nothing for a viewer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    seq: int
    time_ns: int
    request: Request
    served: Served
    size: int


class RecentAnswers:
    """A listener of the engine. Called from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: deque[_Answer] = deque()
        self._seq = self._bytes = 0
        self._wanted_until_s = 0.0
        self._failures = RateLimitedLog(log)

    def __call__(self, request: Request, served: Served) -> None:
        """Count an answer, and keep it while a viewer polls."""
        with self._lock:
            seq, self._seq = self._seq, self._seq + 1
            if time.monotonic() > self._wanted_until_s:
                if self._answers:
                    self._answers.clear()
                    self._bytes = 0
                return
            seen = request.observation
            request = replace(
                request, observation=replace(seen, history=())
            )  # no viewer gets it: what is kept stays bounded
            size = sum(frame.size_bytes for frame in seen.frames.values())
            self._answers.append(_Answer(seq, time.time_ns(), request, served, size))
            self._bytes += size
            while len(self._answers) > KEPT or (self._bytes > KEPT_BYTES and len(self._answers) > 1):
                self._bytes -= self._answers.popleft().size

    def document(self, session: Session, after: int | None) -> bytes:
        """Return JSON: the header of a trace, the answers after that number, oldest first, and the number to go on from.

        after: None begins, with nothing. missed: answers in between that are gone.
        """
        with self._lock:
            self._wanted_until_s = time.monotonic() + IDLE_S
            newest = self._seq - 1
            found = (
                []
                if after is None
                else [answer for answer in self._answers if answer.seq > after][:PER_REPLY]
            )
        following = found[-1].seq if found else newest
        missed = 0 if after is None else max((found[0].seq if found else newest + 1) - after - 1, 0)
        records = (self._record(answer, session.vlm_conditioning) for answer in found)
        return json_line({
            "header": _header(session),
            "records": [record for record in records if record is not None],
            "next": following,
            "missed": missed,
        })  # fmt: skip

    def _record(self, answer: _Answer, vlm_conditioning: str) -> dict[str, Any] | None:
        observation = replace(answer.request.observation, frames=self._small(answer), history=())
        try:
            return request_record(
                replace(answer.request, observation=observation), answer.served, seq=answer.seq, images=FULL,
                timestamp=utc_text(answer.time_ns), vlm_conditioning=vlm_conditioning,
            )  # fmt: skip
        except Exception as error:
            self._failures(logging.ERROR, "history", "an answer cannot be shown to the viewer", error=error)
            return None

    def _small(self, answer: _Answer) -> Mapping[str, Frame]:
        frames: dict[str, Frame] = {}
        for camera, frame in answer.request.observation.frames.items():
            try:
                frames[camera] = Frame(thumbnail(frame, LONGEST_SIDE), "jpeg")
            except ObservationError as error:
                self._failures(logging.WARNING, "thumbnail", "no thumbnail for the viewer: %s", error)
        return frames


def _header(session: Session) -> dict[str, Any]:
    header = header_record(session, session_id="live", started_at=utc_text(), images=FULL, part=0, dropped=0)
    return {name: value for name, value in header.items() if name not in PRIVATE}
