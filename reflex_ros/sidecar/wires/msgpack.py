# SPDX-License-Identifier: Apache-2.0
"""msgpack on POST /act: the fields of JSON, images as arrays or files in bytes. For programs that care about time."""

from __future__ import annotations

from dataclasses import replace

import orjson

from reflex_core.errors import ObservationError
from reflex_core.text.untrusted import shown
from reflex_ros.sidecar.problems import Problem
from reflex_ros.sidecar.wires.foreign import decode_foreign, own_fields
from reflex_ros.sidecar.wires.msgpack_codec import OPENPI, has_msgpack, pack, unpack
from reflex_ros.sidecar.wires.reply_fields import observed_fields, reply_fields
from reflex_ros.sidecar.wires.rows import rows_of
from reflex_ros.sidecar.wires.wire import Answered, DecodedRequest, Observed, Readable


class MsgpackWire:
    """One map each way; the actions of the reply are an array, tagged as those of the request."""

    name = "msgpack"
    route = "/act"
    content_types = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")

    @property
    def content_type(self) -> str:
        """The media type of its replies; JSON where the package msgpack is missing, and all of them are refusals."""
        return "application/msgpack" if has_msgpack() else "application/json"

    def decode(self, data: bytearray, readable: Readable) -> DecodedRequest:
        """Decode the request of a msgpack body. Raises BodyError, ObservationError."""
        message = unpack(data)
        data.clear()
        if not isinstance(message.value, dict):
            raise ObservationError(f"the message must be a map, got {shown(message.value)}", "bad-body")
        decoded = decode_foreign(message.value, readable, self.name, own=own_fields(message.value, ""))
        return replace(decoded, form=message.form)

    def encode(self, answered: Answered) -> bytes:
        """Return the fields of a JSON reply, `actions` as an array float32 (n, action_dim)."""
        fields = reply_fields(answered)
        rows = rows_of(answered)
        fields |= {"actions": rows, "num_actions": len(rows), "start_index": 0, "keys": dict(answered.keys)}
        return pack(fields, answered.form or OPENPI)

    def observed(self, observed: Observed) -> bytes:
        """Return how many observations of the episode are kept."""
        return pack(observed_fields(observed))

    def problem(self, problem: Problem) -> bytes:
        """Return `{"error": slug, "message": sentence, "request_id": id}`, and the problem's further fields."""
        return pack(problem.document()) if has_msgpack() else orjson.dumps(problem.document())
