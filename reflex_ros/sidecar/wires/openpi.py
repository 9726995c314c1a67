# SPDX-License-Identifier: Apache-2.0
"""The websocket of openpi and its dialects: vLLM-Omni and RoboArena. msgpack with arrays, one message each way at a time.

A connection is an episode: the client's reset sends nothing. A dialect that does send one, or names a session, begins another,
which is the connection's own all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.robot.gripper_shares import CLOSED
from reflex_core.text.untrusted import shown
from reflex_ros.sidecar.problems import Problem
from reflex_ros.sidecar.wires.foreign import decode_foreign, own_fields, plain
from reflex_ros.sidecar.wires.key_map import on_the_hand
from reflex_ros.sidecar.wires.msgpack_codec import OPENPI, pack, unpack
from reflex_ros.sidecar.wires.reply_fields import BLOCK, observed_fields, reply_fields
from reflex_ros.sidecar.wires.request_fields import MOST_ROWS
from reflex_ros.sidecar.wires.rows import rows_of
from reflex_ros.sidecar.wires.wire import (
    About,
    Answered,
    DecodedRequest,
    DirectReply,
    Observed,
    Readable,
    episode_of,
)

RESET_TEXT = "reset successful"
SESSION_NUMBERS = 16  # of a session id that is an array


def _plain_metadata(about: Mapping[str, Any]) -> dict[str, Any]:
    return dict(about)


def _roboarena_metadata(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return exactly the six fields from which its client makes a value of its own: one more is an error there."""
    cameras = about["cameras"]
    outside = [camera for camera in cameras if not on_the_hand(camera)]
    return {
        "image_resolution": None,
        "needs_wrist_camera": len(outside) < len(cameras),
        "n_external_cameras": min(len(outside), 2),
        "needs_stereo_camera": False,
        "needs_session_id": True,
        "action_space": about["action_space"],
    }


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs. rows_alone: the reply is the array, without a map. reset: the reply to one; text: it is text.

    error_map: refusals are maps, else text. gripper: the end that its protocol calls 1 of `gripper_position`, "" where it says nothing.
    """

    name: str
    rows_alone: bool
    reset: Any
    reset_is_text: bool
    error_map: bool
    metadata: Callable[[Mapping[str, Any]], dict[str, Any]]
    gripper: str = ""


PLAIN = Dialect("openpi", False, {"status": RESET_TEXT}, False, False, _plain_metadata)
VLLM = Dialect("vllm", True, {"status": RESET_TEXT}, False, True, _plain_metadata)
ROBOARENA = Dialect("roboarena", True, RESET_TEXT, True, False, _roboarena_metadata, CLOSED)


class OpenpiWire:
    """The wire of one connection."""

    route = ""
    content_types = ()
    content_type = "application/msgpack"

    def __init__(self, dialect: Dialect, session: str, about: About) -> None:
        """Begin the first episode. session: the connection's own id."""
        self._dialect, self._session, self._about = dialect, session, about
        self.name = dialect.name
        self.errors_are_text = not dialect.error_map
        self._resets = 0
        self._previous_request_id = ""
        self._previous_episode = ""
        self._form = OPENPI
        self._began_s = 0.0
        self._previous_ms: float | None = None

    def greeting(self) -> bytes:
        """Return the metadata, for which the client waits in its constructor."""
        return pack(self._dialect.metadata(self._about()))

    def awaits_reply(self, _: bytes) -> bool:
        """Return True: every message is answered."""
        return True

    def decode(self, data: bytearray, readable: Readable) -> DecodedRequest | DirectReply:
        """Decode an observation, or answer a reset. Raises BodyError, ObservationError."""
        self._began_s = time.monotonic()
        message = unpack(data)
        data.clear()
        fields = message.value
        if not isinstance(fields, dict):
            raise ObservationError(f"an observation must be a map, got {shown(fields)}", "bad-body")
        self._form = message.form or OPENPI
        endpoint = fields.get("endpoint", "infer")
        if endpoint == "reset":
            return self._reset(fields.get("session_id"))
        if endpoint != "infer":
            raise ObservationError(
                f"'endpoint' must be infer or reset, got {shown(endpoint)}", "bad-endpoint"
            )
        own = self._own(fields, readable.options)
        decoded = decode_foreign(fields, readable, self.name, own=own, protocol=self._dialect.gripper)
        self._previous_episode = str(own["episode_id"])
        return replace(decoded, form=self._form)

    def encode(self, answered: Answered) -> bytes:
        """Return the rows, alone or in a map with the times and one map of plain telemetry.

        The client's broker takes row after row of every array of a reply, so that there is no other array in it.
        """
        served = answered.served
        self._previous_request_id = served.request_id
        rows = rows_of(answered)
        if self._dialect.rows_alone:
            return pack(rows, answered.form)
        timing = {"infer_ms": round(served.latency_ms, 3)}
        if self._previous_ms is not None:
            timing["prev_total_ms"] = round(self._previous_ms, 3)
        self._previous_ms = (time.monotonic() - self._began_s) * 1e3
        telemetry = reply_fields(answered)[BLOCK] | {"keys": dict(answered.keys)}
        telemetry["chunk"] = telemetry["chunk"] | {"start_index": 0}  # rows that are over were left out
        made = {
            "actions": rows,
            "server_timing": timing,
            "policy_timing": {"infer_ms": round(sum(served.inference.stages_ms.values()), 3)},
            BLOCK: without_arrays(telemetry),
        }
        return pack(made, answered.form)

    def observed(self, observed: Observed) -> bytes:
        """Return how many observations of the episode are kept."""
        return pack(without_arrays(observed_fields(observed)), self._form)

    def problem(self, problem: Problem) -> bytes:
        """Return `slug: sentence`; the connection goes on, and so does the client."""
        document = problem.document()
        text = f"{document['error']}: {document['message']}"
        return pack({"type": "error", "message": text}) if self._dialect.error_map else text.encode()

    def _reset(self, session: object) -> DirectReply:
        self._resets += 1
        self._previous_request_id = ""
        text = self._dialect.reset_is_text
        body = str(self._dialect.reset).encode() if text else pack(self._dialect.reset)
        return DirectReply(body, text=text, begins=self._episode(session))

    def _own(self, fields: Mapping[Any, Any], options: Mapping[str, str]) -> dict[str, Any]:
        """Return the request fields that this connection knows, or the client gives outside its observation."""
        given = own_fields(fields)
        episode = given.get("episode_id") or self._episode(fields.get("session_id"))
        own: dict[str, Any] = {"episode_id": episode}
        if fields.get("seed") is not None and "seed" not in given:
            own["seed"] = plain(fields["seed"])
        replan = replan_rows(options)
        goes_on = self._previous_request_id and episode == self._previous_episode
        if replan and goes_on and "elapsed_rows" not in given:
            own |= {"elapsed_rows": replan, "previous_request_id": self._previous_request_id}
        return own

    def _episode(self, session: object) -> str:
        """Return the id of the episode: of the session that the client names, else of the connection."""
        own = self._session if session is None else episode_of(session_name(session), self._session)
        return f"{own}-{self._resets}" if self._resets else own


def replan_rows(options: Mapping[str, str]) -> int:
    """Return how many rows the client executes of each chunk, as `?replan=` says; 0 where it does not. Raises ObservationError."""
    text = options.get("replan")
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 0 < int(text) <= MOST_ROWS):
        raise ObservationError(
            f"'replan' must be a whole number from 1 to {MOST_ROWS}, got {shown(text)}", "bad-replan"
        )
    return int(text)


def session_name(session: object) -> str:
    """Return the name of a session that is a text or an array of whole numbers. Raises ObservationError."""
    if isinstance(session, str):
        return session
    if isinstance(session, int) and not isinstance(session, bool):
        return str(session)
    if isinstance(session, np.ndarray) and session.dtype.kind in "iu" and 0 < session.size <= SESSION_NUMBERS:
        return "-".join(str(number) for number in session.reshape(-1).tolist())
    raise ObservationError(
        f"'session_id' must be a text, a whole number or an array of at most {SESSION_NUMBERS} whole numbers, got {shown(session)}",
        "bad-session-id",
    )


def without_arrays(value: Any) -> Any:
    """Return the same value in maps, lists, texts and plain numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): without_arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_arrays(item) for item in value]
    return value
