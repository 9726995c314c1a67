# SPDX-License-Identifier: Apache-2.0
"""Where the rows of an episode's earlier chunk are at the observation of a later request."""

from __future__ import annotations

from dataclasses import dataclass

from reflex_core.values import Request


@dataclass(frozen=True, slots=True)
class Continued:
    """An answer that went on with an earlier chunk: its request, and at which row of that chunk it began."""

    request_id: str
    row: int


def elapsed_rows(
    request: Request, earlier_stamp_ns: int, dt_s: float, earlier_id: str = "", continued: Continued | None = None
) -> float | None:  # fmt: skip
    """Return how many rows of the earlier chunk are over when the request's own chunk begins; below 0 for a newer chunk.

    By the stamps of both observations, or as the request states. None where neither is known: the wall clock is no
    measure, as a simulator may stand still while it waits, and the robot would repeat what it has done.

    Args:
        request: The later one. What it states counts from row 0 of the answer that it names, else of the newest.
        earlier_stamp_ns: Of the earlier chunk's observation.
        dt_s: Seconds between two rows.
        earlier_id: The request that the earlier chunk answered.
        continued: The newest answer that went on with the earlier chunk.
    """
    if request.elapsed_rows is not None:
        began = 0 if continued is None or request.previous_request_id == earlier_id else continued.row
        return request.elapsed_rows + began
    stamp_ns = request.observation.stamp_ns
    known = stamp_ns > 0 and earlier_stamp_ns > 0
    return (stamp_ns - earlier_stamp_ns) * 1e-9 / dt_s if known else None


def zero_ns(request: Request) -> int:
    """Return when the rows of the request's chunk begin, on this process's monotonic clock."""
    return request.received_ns - int(request.observation.age_ms * 1e6)


def request_key(request: Request) -> tuple[str, str, int]:
    """Return what tells a request from all others that are under way."""
    return request.episode_id or "", request.request_id, request.received_ns
