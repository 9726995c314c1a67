# SPDX-License-Identifier: Apache-2.0
"""Random histories of a stream and its handover: chunks, delays, stalls, holds, clocks that are set, rows that are adjusted."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.chunks.course import CLOSED, STILL, MotionCourse
from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Bounds, Doubles, Spline
from reflex_core.chunks.setpoints import SetpointStream
from reflex_core.robot.limits.hold import MEASURED, Hold
from reflex_core.values import ActionChunk, Floats

MS = 1_000_000
DT_S = 0.05
LIMIT = 1.0
NAMES = ("a", "b")
HISTORIES = 60  # of each block


class History:
    """One stream that random things happen to, ticked every millisecond."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        bounds = Bounds(
            np.full(2, -3.0), np.full(2, 3.0), np.full(2, LIMIT), np.ones(2, np.bool_), np.full(2, np.nan)
        )
        self.stream = SetpointStream(2, velocities=False, period_ns=MS)
        self.stream.limit(np.full(2, LIMIT))
        self.at: Doubles = self.random.uniform(-1.0, 1.0, 2)
        self.handover = Handover(bounds, lambda _: self.at, lambda: 0.3)
        self.now_ns = int(self.random.integers(1, 10**6)) * MS  # the stream's clock
        self.ahead_ns = 0  # the robot's clock before it
        self.added = np.zeros(2)
        self.wanted_added = np.zeros(2)
        self.sent: list[Doubles] = []
        self.handovers = 0  # from one motion to the next

    def rows(self, count: int, begin: Doubles, speed: float) -> Floats:
        steps = self.random.uniform(-speed, speed, (count, 2)) * DT_S
        for i in range(1, count):  # as smooth as policies are
            steps[i] = 0.8 * steps[i - 1] + 0.2 * steps[i]
        return (begin + np.cumsum(steps, axis=0)).astype(np.float32)

    def chunk(self) -> None:
        age_ms = self.random.uniform(0.0, 400.0)
        made_ns = self.now_ns + self.ahead_ns - int(self.random.uniform(0.0, 15.0) * MS)
        stamp_ns, start = made_ns - int(age_ms * MS), int(age_ms // 50)
        begin = self.at + self.random.uniform(-0.3, 0.3, 2) * (self.random.random() < 0.2)
        chunk = ActionChunk(self.rows(int(self.random.integers(start + 1, 40)), begin, 0.9), NAMES, DT_S)
        led = self.handover.led(chunk, stamp_ns, start, made_ns)
        motion = self.handover.take_over(led, stamp_ns, start, made_ns)
        self.follow(led, stamp_ns - self.ahead_ns, start, motion, adjusted=self.random.random() < 0.7)

    def hold(self) -> None:
        now_ns = self.now_ns + self.ahead_ns
        place, velocity = self.handover.at(now_ns)
        assert place is not None
        rows = place + np.cumsum(np.outer([0.5, 0.25, 0.0], velocity * DT_S), axis=0)
        held = Hold(rows.astype(np.float32), DT_S, 0, MEASURED, place)
        motion = self.handover.hold(held, now_ns)
        chunk = ActionChunk(held.rows, NAMES, DT_S)
        self.follow(chunk, self.now_ns, 0, motion, adjusted=False)

    def follow(self, chunk: ActionChunk, zero_ns: int, start: int, motion: Spline, *, adjusted: bool) -> None:
        """Follow another motion, and compare where the stream is before and after, and how fast."""
        stream, before, now_ns = self.stream, self.stream._course, self.now_ns
        moves = isinstance(before, MotionCourse) and stream._moves(before)
        stalls, added = stream.stalls, np.array(stream._added)
        stream.follow(
            chunk, zero_ns, start, now_ns, self.measured(), motion=motion.earlier(self.ahead_ns), adjusted=adjusted
        )  # fmt: skip
        after = stream._course
        if moves and stream.stalls == stalls:
            assert isinstance(before, MotionCourse)
            assert isinstance(after, MotionCourse)
            (place, velocity), (new_place, new_velocity) = before.state(now_ns), after.state(now_ns)
            place = place if adjusted else place + added
            np.testing.assert_allclose(new_place, place, rtol=0.0, atol=2 * CLOSED)
            np.testing.assert_allclose(new_velocity, velocity, rtol=0.0, atol=2 * STILL)
            self.handovers += 1

    def measured(self) -> Floats:
        return self.at.astype(np.float32)

    def happen(self) -> None:
        what = self.random.random()
        if what < 0.60:
            self.chunk()
        elif what < 0.72:
            self.hold()
        elif what < 0.82:  # the process stands still
            self.now_ns += int(self.random.uniform(5.0, 400.0) * MS)
        elif what < 0.88:  # a wall clock is set: the node's motion is forgotten with it
            self.ahead_ns += int(self.random.uniform(-5e3, 5e3) * MS)
            self.handover.forget()
        elif what < 0.92:
            self.stream.stop()
            self.handover.forget()
        else:
            self.wanted_added = self.random.uniform(-0.02, 0.02, 2)

    def tick(self) -> None:
        """Send what is due; a correction goes over as gradually as A2C2 lets it."""
        due = self.stream.due(self.now_ns)
        row = None
        if due is not None:
            if self.stream.adjusted:
                self.added = self.added + 0.01 * (self.wanted_added - self.added)
            else:
                self.added = np.zeros(2)
            row = self.stream.advance((np.array(due) + self.added).tolist(), self.now_ns)
        if row is not None:
            self.at = np.array(row)
        self.sent.append(self.at)
        self.now_ns += MS


def played(seed: int, events: int = 12) -> History:
    history = History(seed)
    history.chunk()
    for _ in range(events):
        for _ in range(int(history.random.integers(5, 400))):
            history.tick()
        history.happen()
    return history


@pytest.mark.parametrize("block", range(3))
def test_no_history_makes_a_step_or_outruns_the_limit_of_speed(block: int) -> None:
    """And no handover between two motions makes a step of the position or the velocity."""
    handovers = 0
    for seed in range(block * HISTORIES, (block + 1) * HISTORIES):
        history = played(seed)
        handovers += history.handovers
        steps = np.abs(np.diff(history.sent, axis=0))
        assert len(steps) > 50
        assert steps.max() <= LIMIT * 1e-3 * 1.1, seed
    assert handovers > HISTORIES
