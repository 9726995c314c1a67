# SPDX-License-Identifier: Apache-2.0
"""Where the rows of an episode's earlier chunk are at the observation of a later request."""

from __future__ import annotations

from reflex_core.values import Request


def elapsed_rows(request: Request, earlier_stamp_ns: int, dt_s: float) -> float | None:
    """Return how many rows of the earlier chunk are over when the request's own chunk begins; below 0 for a newer chunk.

    By the stamps of both observations, or as the request states. None where neither is known: the wall clock is no
    measure, as a simulator may stand still while it waits, and the robot would repeat what it has done.
    """
    if request.elapsed_rows is not None:
        return request.elapsed_rows
    stamp_ns = request.observation.stamp_ns
    known = stamp_ns > 0 and earlier_stamp_ns > 0
    return (stamp_ns - earlier_stamp_ns) * 1e-9 / dt_s if known else None


def zero_ns(request: Request) -> int:
    """Return when the rows of the request's chunk begin, on this process's monotonic clock."""
    return request.received_ns - int(request.observation.age_ms * 1e6)


def request_key(request: Request) -> tuple[str, str, int]:
    """Return what tells a request from all others that are under way."""
    return request.episode_id or "", request.request_id, request.received_ns
