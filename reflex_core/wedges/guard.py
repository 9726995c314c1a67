# SPDX-License-Identifier: Apache-2.0
"""The guard: no chunk leaves with a number outside the joint ranges or without a number at all."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np

from reflex_core.commanded import Commanded
from reflex_core.embodiment import Embodiment
from reflex_core.errors import InferenceError
from reflex_core.metrics import Metrics
from reflex_core.policy.fit import Columns
from reflex_core.values import HOLD, ActionChunk, Floats, GuardReport, Request, Served
from reflex_core.wedges.wedge import Proceed

VIOLATIONS_KEPT = 20

log = logging.getLogger(__name__)


class Guard:
    """Clamps positions to the embodiment's ranges; a chunk that is not finite becomes a hold, never zeros.

    Without an embodiment there are no ranges: only finiteness is checked.
    """

    def __init__(self, embodiment: Embodiment | None, hold_columns: Columns | None, metrics: Metrics) -> None:
        self._limits: tuple[Floats, Floats] | None = None
        name = "none"
        if embodiment is not None:
            name = embodiment.name
            self._limits = inner_limits(embodiment)
        self._hold_columns = hold_columns
        self._commanded = Commanded()
        self._clamps = metrics.safety_violations.labels(name, "joint_clamp")
        self._non_finite = metrics.safety_violations.labels(name, "non_finite")
        self._holds = metrics.holds.labels("non_finite")

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        served = proceed(request)
        chunk = served.chunk
        if not np.isfinite(chunk.actions).all():
            served = self._held(request, served)
        elif self._limits is not None:
            actions, report = clamp(chunk.actions, self._limits, chunk.names)
            if report.clamped:
                self._clamps.inc()
                served = replace(served, chunk=replace(chunk, actions=actions), guard=report)
        self._commanded.remember(request.episode_id, served.chunk, request.received_ns)
        return served

    def _held(self, request: Request, served: Served) -> Served:
        bad = int((~np.isfinite(served.chunk.actions)).sum())
        self._non_finite.inc()
        self._holds.inc()
        log.error(
            "non_finite: the model gave %d NaN or Inf values for request %s: holding", bad, request.request_id
        )
        position = self.hold_position(request)
        if position is None:
            raise InferenceError(
                f"the model gave {bad} NaN or Inf values and there is no known position to hold",
                "non-finite-actions",
            )
        held = np.tile(position.astype(np.float32), (len(served.chunk.actions), 1))
        if self._limits is not None:
            held = np.clip(held, *self._limits)
        chunk = ActionChunk(held, served.chunk.names, served.chunk.dt_s, source=HOLD)
        report = GuardReport(True, bad, (f"non_finite_action: {bad} NaN or Inf values: holding position",))
        return replace(served, chunk=chunk, guard=report)

    def hold_position(self, request: Request) -> Floats | None:
        """(action_dim,) where the robot was last told to be in this episode, else where it measures itself."""
        commanded = self._commanded.at(request.episode_id, time.monotonic_ns())
        if commanded is not None:
            return commanded
        state = request.observation.state
        if self._hold_columns is None or state is None or len(state) <= int(self._hold_columns.max()):
            return None
        return state[self._hold_columns] if np.isfinite(state[self._hold_columns]).all() else None


def inner_limits(embodiment: Embodiment) -> tuple[Floats, Floats]:
    """(min, max) as float32, each rounded INTO the range, so that a clamped float32 never lies outside it."""
    low, high = embodiment.action_min.astype(np.float32), embodiment.action_max.astype(np.float32)
    low = np.where(low < embodiment.action_min, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > embodiment.action_max, np.nextafter(high, np.float32(-np.inf)), high)
    return low.astype(np.float32), high.astype(np.float32)


def clamp(
    actions: Floats, limits: tuple[Floats, Floats], names: tuple[str, ...]
) -> tuple[Floats, GuardReport]:
    """(horizon, action_dim) actions inside the limits, and what was outside. A clean chunk is returned as it is."""
    low, high = limits
    below, above = actions < low, actions > high
    count = int(below.sum() + above.sum())
    if count == 0:
        return actions, GuardReport()
    lines: list[str] = []
    for outside, bound, word, sign in ((below, low, "below min", "<"), (above, high, "above max", ">")):
        # one line per joint, with its worst value: fifty rows of the same joint tell nobody more
        for joint in np.flatnonzero(outside.any(axis=0)):
            column = actions[:, joint]
            worst = column.min() if sign == "<" else column.max()
            lines.append(f"{names[joint]} {word}: {worst:.6g} {sign} {bound[joint]:.6g}")
    return np.clip(actions, low, high), GuardReport(True, count, tuple(lines[:VIOLATIONS_KEPT]))
