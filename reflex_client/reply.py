# SPDX-License-Identifier: Apache-2.0
"""Replies with types, checked: what a robot executes is finite and has a column for each name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Mapping

import numpy as np

from reflex_client.errors import MalformedReplyError, RefusedError, refusal
from reflex_client.transport.connection import Response

POLICY, HOLD = "policy", "hold"
SENTENCE_CHARACTERS = 4000
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{0,12})?")  # float() takes more: 1_0, 1e3, digits of other scripts


@dataclass(frozen=True)
class Guard:
    """What the guard changed: each of `violations` names the joint, the bound, the value and the limit."""

    clamped: bool = False
    violations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """One action chunk, and how it was made.

    actions: (rows, columns) float32 in rad, m or what the embodiment has, in the order of `names`; row i is due
    (i + 1) * dt_s after the observation. start_index: the first row that is still to be executed. source: policy, or the
    fallback: last_known_good, cloud, hold. hold_reason: why it is a hold, else empty. rtc_mode: how the previous chunk guided
    this one, else empty. latency_ms: in the server; round_trip_ms: as this program saw it, retries included. document: every
    field of the reply; its `reflex` has them in groups.
    """

    actions: Any
    names: tuple[str, ...]
    dt_s: float
    request_id: str
    start_index: int = 0
    source: str = POLICY
    hold_reason: str = ""
    episode_id: str | None = None
    seed: int | None = None
    guard: Guard = Guard()
    rtc_mode: str = ""
    latency_ms: float = 0.0
    round_trip_ms: float = 0.0
    cameras_used: tuple[str, ...] = ()
    masked_cameras: tuple[str, ...] = ()
    ignored_fields: tuple[str, ...] = ()
    did_you_mean: Mapping[str, str] = field(default_factory=dict)
    model_version: str = ""
    robot_id: str = ""
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        """How many rows `actions` has."""
        return int(self.actions.shape[0])

    @property
    def is_fallback(self) -> bool:
        """True where the policy did not make this chunk for this observation."""
        return self.source != POLICY

    @property
    def is_hold(self) -> bool:
        """True where the chunk keeps the robot where it is."""
        return self.source == HOLD


def document_of(response: Response) -> dict[str, Any]:
    """Return the JSON object of a response with status 200. Raises RefusedError for other statuses, MalformedReplyError."""
    try:
        found = json.loads(response.body)
    except (ValueError, RecursionError):
        found = None
    if response.status != 200:
        raise _refused(response, found if isinstance(found, dict) else {})
    if not isinstance(found, dict):
        raise MalformedReplyError(f"the reply is no JSON object: {response.body[:80]!r}")
    return found


def _refused(response: Response, found: Mapping[str, Any]) -> RefusedError:
    slug, sentence = str(found.get("error") or f"http-{response.status}"), found.get("message")
    text = str(sentence) if sentence else f"the server answered with status {response.status}"
    request_id = str(found.get("request_id") or response.headers.get("x-request-id", ""))
    return refusal(response.status, slug, text[:SENTENCE_CHARACTERS], request_id, retry_after_s(response))


def retry_after_s(response: Response) -> float | None:
    """Return the seconds of its Retry-After; None where it has none, or a date."""
    text = response.headers.get("retry-after", "")
    return float(text) if _SECONDS.fullmatch(text) else None


def reply_of(document: Mapping[str, Any], round_trip_ms: float, request_id: str) -> Reply:
    """Return the reply that a document holds. Raises MalformedReplyError naming what is wrong.

    request_id: of the request, whose name its answer has; a proxy may mix up answers.
    """
    try:
        reply = _reply(document, round_trip_ms)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        what = f"it has no field {error}" if isinstance(error, KeyError) else str(error)
        raise MalformedReplyError(f"the reply is no action chunk: {what:.200}") from error
    if reply.request_id != request_id:
        raise MalformedReplyError(
            f"the reply is to request {reply.request_id!r:.80}, not to {request_id!r:.80}"
        )
    actions, names = reply.actions, reply.names
    if actions.ndim != 2 or actions.shape[0] == 0 or actions.shape[1] != len(names):
        raise MalformedReplyError(
            f"'actions' must be rows of {len(names)} numbers ({', '.join(names)}), got the shape {actions.shape}"
        )
    if not np.isfinite(actions).all():
        raise MalformedReplyError("'actions' must be finite", "actions-not-finite")
    if not 0 <= reply.start_index <= len(actions) or not 0.0 <= reply.dt_s < 1e6:
        raise MalformedReplyError(
            f"expected 0 <= start_index <= {len(actions)} and dt_s >= 0, got {reply.start_index} and {reply.dt_s}"
        )
    return reply


def _reply(document: Mapping[str, Any], round_trip_ms: float) -> Reply:
    with np.errstate(over="ignore"):
        actions = np.array(document["actions"], dtype=np.float32)
    actions.setflags(write=False)
    return Reply(
        actions=actions,
        names=tuple(str(name) for name in document["action_names"]),
        dt_s=float(document["dt_s"]),
        request_id=str(document["request_id"]),
        start_index=int(document["start_index"]),
        source=str(document.get("source", POLICY)),
        hold_reason=str(document.get("hold_reason") or ""),
        episode_id=document.get("episode_id"),
        seed=document.get("seed"),
        guard=Guard(bool(document.get("guard_clamped")), _texts(document, "guard_violations")),
        rtc_mode=str(document.get("rtc_mode") or ""),
        latency_ms=float(document.get("latency_ms") or 0.0),
        round_trip_ms=round_trip_ms,
        cameras_used=_texts(document, "cameras_used"),
        masked_cameras=_texts(document, "masked_cameras"),
        ignored_fields=_texts(document, "ignored_fields"),
        did_you_mean=dict(document.get("did_you_mean") or {}),
        model_version=str(document.get("model_version") or ""),
        robot_id=str(document.get("robot_id") or ""),
        document=document,
    )


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(str(text) for text in document.get(name) or ())
