# SPDX-License-Identifier: Apache-2.0
"""The websocket of vla-eval's benchmarks, protocol version 1: the client speaks first, and takes one row per observation.

A chunk is handed out row by row, as many rows as the policy was made to execute of it (`?replan=` says another number).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reflex_core import __version__
from reflex_core.errors import ObservationError
from reflex_core.metrics.episodes import usable_id
from reflex_core.text.untrusted import shown
from reflex_core.values import POLICY, Floats
from reflex_ros.sidecar.problems import Problem
from reflex_ros.sidecar.wires.foreign import decode_foreign
from reflex_ros.sidecar.wires.key_map import on_the_hand
from reflex_ros.sidecar.wires.msgpack_codec import VLA_EVAL, pack, unpack
from reflex_ros.sidecar.wires.openpi import replan_rows
from reflex_ros.sidecar.wires.reply_fields import observed_fields
from reflex_ros.sidecar.wires.rows import rows_of
from reflex_ros.sidecar.wires.wire import (
    About,
    Answered,
    DecodedRequest,
    DirectReply,
    EpisodeEnd,
    Observed,
    Readable,
    episode_of,
)

PROTOCOL = 1
UNANSWERED = (b"episode_start", b"episode_end")
LOOKED_AT_BYTES = 64
MOST_SEQ = 2**53


@dataclass(slots=True)
class Chunk:
    """Rows of one answer that are still to be handed out. serving: what made them; instruction: for what."""

    rows: Floats
    serving: object | None
    instruction: object
    next_row: int = 1


class VlaEvalWire:
    """The wire of one connection."""

    name = "vla_eval"
    route = ""
    content_types = ()
    content_type = "application/msgpack"
    errors_are_text = False

    def __init__(self, session: str, about: About) -> None:
        """Begin without an episode. session: the connection's own id."""
        self._session, self._about = session, about
        self._episodes = 0
        self._episode = session
        self._seq = 0
        self._chunk: Chunk | None = None
        self._rows_each = 1
        self._now: tuple[object | None, object] = (None, None)

    def greeting(self) -> bytes:
        """Return nothing: the client speaks first."""
        return b""

    def awaits_reply(self, message: bytes) -> bool:
        """Return False for the begin and the end of an episode; their type stands before everything else."""
        return not any(kind in message[:LOOKED_AT_BYTES] for kind in UNANSWERED)

    def decode(self, data: bytearray, readable: Readable) -> DecodedRequest | DirectReply:
        """Decode an observation, or answer what needs no inference. Raises BodyError, ObservationError."""
        self._seq = 0
        value = unpack(data).value
        data.clear()
        kind, payload = self._opened(value)
        if kind == "hello":
            return DirectReply(self._message("hello", self._hello()))
        if kind == "episode_start":
            return self._start(payload)
        if kind == "episode_end":
            return self._end(payload)
        if kind != "observation":
            raise ObservationError(f"a message of type {shown(kind)} is not read", "bad-message")
        return self._observation(payload, readable)

    def encode(self, answered: Answered) -> bytes:
        """Return the first row, and keep those that come after it for the next observations."""
        rows = rows_of(answered)
        serving, instruction = self._now
        is_chunk = answered.served.chunk.source == POLICY and self._rows_each > 1
        self._chunk = Chunk(rows[: self._rows_each], serving, instruction) if is_chunk else None
        return self._message("action", {"actions": rows[0]})

    def observed(self, observed: Observed) -> bytes:
        """Return how many observations of the episode are kept."""
        return self._message("action", observed_fields(observed))

    def problem(self, problem: Problem) -> bytes:
        """Return the error that the client raises; the connection goes on."""
        self._chunk = None
        document = problem.document()
        return self._message("error", {"error": f"{document['error']}: {document['message']}"})

    def _opened(self, value: object) -> tuple[object, Mapping[Any, Any]]:
        if not isinstance(value, dict):
            raise ObservationError(f"a message must be a map, got {shown(value)}", "bad-message")
        seq, payload = value.get("seq"), value.get("payload")
        if not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq <= MOST_SEQ:
            raise ObservationError(f"'seq' must be a whole number, got {shown(seq)}", "bad-message")
        self._seq = seq
        if not isinstance(payload, dict):
            raise ObservationError(f"'payload' must be a map, got {shown(payload)}", "bad-message")
        return value.get("type"), payload

    def _observation(self, payload: Mapping[Any, Any], readable: Readable) -> DecodedRequest | DirectReply:
        instruction = payload.get("task_description")
        row = self._next_row(readable, instruction)
        if row is not None:
            return DirectReply(self._message("action", {"actions": row}))
        self._rows_each = replan_rows(readable.options) or int(self._about().get("execution_horizon") or 1)
        self._now = (readable.serving, instruction)
        decoded = decode_foreign(payload, readable, self.name, own={"episode_id": self._episode})
        return replace(decoded, form=VLA_EVAL)

    def _next_row(self, readable: Readable, instruction: object) -> Floats | None:
        """Return a row that is left of the chunk, as long as what made it serves, and for the same instruction."""
        chunk = self._chunk
        if chunk is None or chunk.next_row >= len(chunk.rows):
            return None
        if (
            readable.serving is None
            or chunk.serving is not readable.serving
            or chunk.instruction != instruction
        ):
            return None
        chunk.next_row += 1
        row: Floats = chunk.rows[chunk.next_row - 1]
        return row

    def _hello(self) -> dict[str, Any]:
        about = self._about()
        cameras = about.get("cameras", [])
        return {
            "harness_version": __version__,
            "protocol_version": PROTOCOL,
            "model_server": "reflex",
            "capabilities": {},
            # benchmarks send these only where a server asks for them
            "observation_params": {
                "send_wrist_image": any(map(on_the_hand, cameras)) or len(cameras) > 1,
                "send_state": bool(about.get("needs_state")),
            },
            "reflex": about,
        }

    def _start(self, payload: Mapping[Any, Any]) -> DirectReply:
        """Begin an episode, by the id of its recording where there is one."""
        self._chunk = None
        self._episodes += 1
        recording = payload.get("recording")
        given = recording.get("eid") if isinstance(recording, dict) else None
        usable = isinstance(given, str) and given != "" and usable_id(given)
        self._episode = (
            episode_of(str(given), self._session) if usable else f"{self._session}-{self._episodes}"
        )
        return DirectReply(begins=self._episode)

    def _end(self, payload: Mapping[Any, Any]) -> DirectReply:
        """End an episode; its success is reported where the client says it."""
        self._chunk = None
        ended, success = self._episode, payload.get("success")
        self._episode = f"{self._session}-{self._episodes}-after"
        return DirectReply(outcome=EpisodeEnd(ended, success) if isinstance(success, bool) else None)

    def _message(self, kind: str, payload: Mapping[str, Any]) -> bytes:
        document = {"type": kind, "payload": payload, "seq": self._seq, "timestamp": time.time()}
        return pack(document, VLA_EVAL)
