# SPDX-License-Identifier: Apache-2.0
"""A trace of three episodes as a server writes it: one served as it was made, one clamped that failed, one held."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from recordings import NAMES, jpeg, make_request, served

from reflex_core.files.json_lines import json_line
from reflex_core.records.trace.notes import outcome_record
from reflex_core.records.trace.schema import (
    FULL,
    Failure,
    Session,
    footer_record,
    header_record,
    request_record,
)
from reflex_core.reports import GuardReport
from reflex_core.slots.outcomes import Outcome
from reflex_core.values import HOLD, Frame, Request, Served

LIMITS = {
    "names": NAMES, "position_min": [-2.9] * 7, "position_max": [2.9] * 7, "velocity_max": [0.1] * 7,
    "acceleration_max": [None] * 7,
}  # fmt: skip
SESSION = Session(
    "0123456789abcdef", "fedcba9876543210", "exports/v1", state_names=NAMES, action_names=NAMES, limits=LIMITS
)
FAST = "panda_joint2 velocity: 0.4 > 0.1 rad/s"
EVIL = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e"
Document = dict[str, Any]


def request(number: int, episode_id: str, instruction: str, size: int = 64) -> Request:
    """One request with a small picture."""
    frames = {"wrist": Frame(jpeg(size, number), "jpeg")}
    return replace(
        make_request(number, instruction=instruction, frames=frames), episode_id=episode_id or None
    )


def clamped(to: Request) -> Served:
    """An answer in which the guard changed rows 2 to 4 of the second joint."""
    made = served(to)
    rows = made.chunk.actions.copy()
    rows[2:5, 1] += np.float32(0.25)
    return replace(made, chunk=replace(made.chunk, actions=rows), guard=GuardReport(True, 3, (FAST,)))


def held(to: Request) -> Served:
    """A hold after a trip of the guard."""
    made = served(to)
    chunk = replace(made.chunk, actions=np.zeros_like(made.chunk.actions), source=HOLD)
    return replace(
        made,
        chunk=chunk,
        guard=GuardReport(True, 0, ("guard_tripped: 10 in a row",)),
        hold_reason="guard_tripped",
    )


def documents(
    episodes: Sequence[str] = ("good-1", "grasp-17", "stuck-3"), records: int = 3
) -> list[Document]:
    """Header, requests, outcomes and footer. The second episode is clamped, the third held; the others are plain."""
    found = [header_record(SESSION, session_id="s", started_at=stamp(0), images=FULL, part=0, dropped=0)]
    seq = 0
    for place, name in enumerate(episodes):
        for _ in range(records):
            sent = request(seq, name, ("reach the red block", "pick the green cube", EVIL)[place % 3])
            made = (served, clamped, held)[place % 3](sent)
            found.append(recorded(sent, made, seq))
            seq += 1
        if place < 2:
            outcome = Outcome(name, place == 0, "prod", note="stopped short" if place else "")
            found.append(outcome_record(outcome, stamp(seq)))
    footer = footer_record(ended_at=stamp(seq), total_requests=seq, records=seq, errors=0, dropped=0)
    return [*found, footer]


def recorded(sent: Request, made: Served | Failure, seq: int) -> Document:
    """One record, half a second after the one before."""
    return request_record(sent, made, seq=seq, timestamp=stamp(seq), images=FULL, vlm_conditioning="real")


def stamp(seq: int) -> str:
    return f"2026-11-30T10:00:{seq // 2:02d}.{500 * (seq % 2):03d}Z"


def write(path: Path, found: Sequence[Document]) -> Path:
    data = b"".join(json_line(document) + b"\n" for document in found)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
