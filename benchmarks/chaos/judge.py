# SPDX-License-Identifier: Apache-2.0
"""What has to be true of one answer. Pure functions of what a client sent and received; nothing here knows a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.chaos.policy_files import Arm
from benchmarks.chaos.truth import Sight, Truth
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, POLICY, Floats

POSITION_SLACK = 1e-5  # rad
SPEED_SLACK = 1e-3  # of the limit
LATE_MS = 150.0  # beyond the deadline: what a thread waits for a processor on a machine that others use
TRANSPORT_MS = 1000.0  # between a client and the server's own account
REMEMBERED = 12
GOOD_ROW = (0.0, 0.1, 0.0, -1.5, 0.0, 1.8, 0.1)  # of the cloud, while it does not lie

# what a refusal may be, by status; anything else is a fault of the server
REASONS: Mapping[int, frozenset[str]] = {
    400: frozenset({"malformed-json", "not-http", "malformed-msgpack", "malformed-encoding", "bad-request"}),
    404: frozenset({"not-found", "unknown-caller"}),
    405: frozenset({"method-not-allowed"}),
    408: frozenset({"request-timeout"}),
    409: frozenset({"bad-transition", "conflict", "not-active"}),
    413: frozenset({"body-too-large"}),
    415: frozenset({"unsupported-encoding", "unsupported-media-type"}),
    429: frozenset({"too_many_requests"}),
    500: frozenset({"inference-error", "non-finite-actions", "guard_tripped"}),
    503: frozenset({
        "server-degraded", "slo_violation", "queue_full", "too-many-connections", "deadline-exceeded", "not-ready",
    }),
}  # fmt: skip

WRONG, LATE, LIMITS, ERROR = "wrong action", "late, unflagged", "outside the limits", "unexplained error"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. elapsed: rows that were executed of the answer `previous`. healthy: no fault was aimed at this robot."""

    robot: str
    wire: str
    sight: Sight
    raw: bool
    seed: int
    request_id: str = ""
    elapsed: float | None = None
    previous: str = ""
    healthy: bool = True


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer of status 200. block: the telemetry that every wire carries (`reflex`). duration_ms: the client's."""

    actions: Floats
    block: Mapping[str, Any]
    duration_ms: float = 0.0
    slack_ms: float = 0.0

    @property
    def source(self) -> str:
        return str(self.block["chunk"]["source"])

    @property
    def clamped(self) -> bool:
        return bool(self.block["guard"]["clamped"])


@dataclass(frozen=True, slots=True)
class Past:
    """An answer that a robot has had. normalised: None where it is not known what the network made."""

    request_id: str
    actions: Floats
    normalised: Floats | None


@dataclass(slots=True)
class Memory:
    """A robot's newest answers."""

    answers: deque[Past] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def find(self, request_id: str) -> Past | None:
        """Return the answer of that id."""
        return next((past for past in reversed(self.answers) if past.request_id == request_id), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an answer was compared (`exact`, `guided`, `limits`, `hold`, `continued`, `cloud`), and what is wrong with it."""

    compared: str
    problems: tuple[tuple[str, str], ...] = ()


def judge(
    asked: Asked, answered: Answered, arm: Arm, truth: Truth, memory: Memory, deadline_ms: float
) -> Verdict:
    """Return the verdict on an answer, and remember it for the next ones of this robot."""
    problems = [*within_limits(asked, answered, arm, memory), *in_time(answered, deadline_ms)]
    normalised: Floats | None = None
    if answered.source == POLICY:
        compared, more, normalised = made_by_the_policy(asked, answered, truth, memory)
    elif answered.source == HOLD:
        compared, more = "hold", held(answered)
    elif answered.source == LAST_KNOWN_GOOD:
        compared, more = "continued", continued(answered, memory)
    elif answered.source == CLOUD:
        compared, more = "cloud", from_the_cloud(answered)
    else:
        compared, more = "unknown", [(WRONG, f"source is {answered.source!r}")]
    memory.answers.append(Past(str(answered.block["request"]["request_id"]), answered.actions, normalised))
    return Verdict(compared, (*problems, *more))


def made_by_the_policy(
    asked: Asked, answered: Answered, truth: Truth, memory: Memory
) -> tuple[str, list[tuple[str, str]], Floats | None]:
    """Return how a policy's chunk was compared with the one made here, the differences, and what the network made."""
    block = answered.block
    version, seed = str(block["policy"]["model_version"]), int(block["request"]["seed"])
    if not truth.knows(version):
        return "exact", [(WRONG, f"model_version is {version!r}, which nothing serves")], None
    if asked.seed >= 0 and seed != asked.seed:
        return "exact", [(WRONG, f"seed is {seed}, asked for {asked.seed}")], None
    if block["rtc"]["mode"]:
        before = memory.find(str(block["rtc"]["previous"]))
        if before is None or before.normalised is None or asked.elapsed is None:
            return "limits", [], None
        if before.request_id != asked.previous:
            return "limits", [], None
        made = truth.guided(
            version,
            asked.sight,
            asked.raw,
            seed,
            before.normalised,
            asked.elapsed,
            int(block["rtc"]["delay"]),
        )
        compared = "guided"
    else:
        made, compared = truth.predict(version, asked.sight, asked.raw, seed), "exact"
    if answered.clamped:
        return "limits", [], None
    return compared, same(made.actions, answered.actions), made.normalised


def same(expected: Floats, found: Floats) -> list[tuple[str, str]]:
    """Return the difference of two chunks, to the last bit."""
    if expected.shape != found.shape:
        return [(WRONG, f"shape {found.shape}, expected {expected.shape}")]
    if expected.tobytes() == found.tobytes():
        return []
    at = np.unravel_index(int(np.argmax(np.abs(expected - found))), expected.shape)
    return [(WRONG, f"row {at[0]}, joint {at[1]}: {found[at]!r}, the same export makes {expected[at]!r}")]


def within_limits(asked: Asked, answered: Answered, arm: Arm, memory: Memory) -> list[tuple[str, str]]:
    """Return what is not finite, outside a range or too fast: between rows, and from where the robot is."""
    rows = answered.actions.astype(np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(arm.joints) or not len(rows):
        return [(WRONG, f"shape {rows.shape} for {len(arm.joints)} joints")]
    if not np.isfinite(rows).all():
        return [(WRONG, "not finite")]
    found = []
    low, high = np.array(arm.low) - POSITION_SLACK, np.array(arm.high) + POSITION_SLACK
    for joint in np.flatnonzero(((rows < low) | (rows > high)).any(axis=0)):
        found.append((LIMITS, f"{arm.joints[joint]} leaves its range"))
    most = np.array(arm.speed) * arm.dt_s * (1 + SPEED_SLACK) + POSITION_SLACK
    for joint in np.flatnonzero((np.abs(np.diff(rows, axis=0)) > most).any(axis=0)):
        found.append((LIMITS, f"{arm.joints[joint]} is too fast between rows"))
    starts = [np.array(asked.sight.state), *(past.actions.astype(np.float64) for past in memory.answers)]
    reach = [np.abs(np.atleast_2d(start) - rows[0]).min(axis=0) for start in starts]
    for joint in np.flatnonzero((np.min(reach, axis=0) > most) & (answered.source != HOLD)):
        found.append((LIMITS, f"{arm.joints[joint]} cannot get to the first row in time"))
    return found


def in_time(answered: Answered, deadline_ms: float) -> list[tuple[str, str]]:
    """Return how late an answer is that does not say so. slack_ms: what the machine itself was late at that time."""
    if not deadline_ms or answered.block["fallback"]["deadline_exceeded"]:
        return []
    found = []
    latency_ms = float(answered.block["timing"]["latency_ms"])
    if latency_ms > deadline_ms + LATE_MS + answered.slack_ms:
        found.append((LATE, f"{latency_ms:.0f} ms, and not marked as over {deadline_ms:.0f} ms"))
    hidden_ms = answered.duration_ms - latency_ms
    if hidden_ms > TRANSPORT_MS + answered.slack_ms:
        found.append(
            (LATE, f"{answered.duration_ms:.0f} ms for the client, {latency_ms:.0f} ms in the reply")
        )
    return found


def held(answered: Answered) -> list[tuple[str, str]]:
    """Return what is wrong with a hold: it says why, and ends at rest."""
    found = []
    if not answered.block["chunk"]["hold_reason"]:
        found.append((WRONG, "a hold without a reason"))
    if len(answered.actions) > 1 and np.abs(np.diff(answered.actions[-2:], axis=0)).max() > POSITION_SLACK:
        found.append((WRONG, "a hold that does not end at rest"))
    return found


def continued(answered: Answered, memory: Memory) -> list[tuple[str, str]]:
    """Return what is wrong with a last good chunk: it is the end of an answer that this robot had, or could have had."""
    if answered.clamped:
        return []
    rows = unrepeated(answered.actions)
    for past in memory.answers:
        own = unrepeated(past.actions)
        if len(rows) <= len(own) and own[-len(rows) :].tobytes() == rows.tobytes():
            return []
    if int(answered.block["chunk"]["start_index"]) == 0 or not memory.answers:
        return []  # of a late inference that was never delivered itself
    return [(WRONG, "a last good chunk that this robot was never sent")]


def unrepeated(rows: Floats) -> Floats:
    """Return a chunk without the copies of its last row."""
    if rows.ndim != 2 or len(rows) < 2:
        return rows
    differs = np.flatnonzero((rows[:-1] != rows[-1]).any(axis=1))
    return rows[: (int(differs[-1]) if len(differs) else -1) + 2]


def from_the_cloud(answered: Answered) -> list[tuple[str, str]]:
    """Return what is wrong with the cloud's chunk: only its one good row may come through."""
    if answered.clamped or np.abs(answered.actions - np.array(GOOD_ROW, np.float32)).max() < POSITION_SLACK:
        return []
    return [(WRONG, "a chunk of the cloud that it never makes")]


def refusal(status: int, document: object, excused: Sequence[str], healthy: bool) -> list[tuple[str, str]]:
    """Return what is wrong with a refusal: it is one of ours, known, and a healthy robot's has a cause that was injected.

    excused: slugs that the faults under way explain.
    """
    if not isinstance(document, Mapping) or not {"error", "message", "request_id"} <= set(document):
        return [(ERROR, f"status {status} without our three fields: {str(document)[:200]}")]
    slug = str(document["error"])
    if status >= 500 and slug not in REASONS.get(status, frozenset()):
        return [(ERROR, f"status {status} {slug}: {str(document['message'])[:200]}")]
    if healthy and slug not in excused:
        return [(ERROR, f"a robot that no fault was aimed at was refused: {status} {slug}")]
    return []
