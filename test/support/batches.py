# SPDX-License-Identifier: Apache-2.0
"""Micro-batching with a network that is made of plain Python, a clock that a test moves, and counted reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from http_client import Background, wait_for

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.concurrency.fifo_lock import FifoLock
from reflex_core.errors import InferenceError
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.micro_batch import MicroBatches, Ran, Waiting
from reflex_core.policy.sampler import PLAIN, RequestContext, Sampling
from reflex_core.values import Floats, Observation, Request

BAD, WILD = -1.0, -2.0  # a number that the network raises on, and one that makes NaN of the whole batch
SHAPE = (1, 3, 2)


@dataclass
class Reasons:
    """BatchMetrics that a test reads."""

    runs: list[int] = field(default_factory=list)
    alone_for: Counter[str] = field(default_factory=Counter)

    def ran(self, requests: int) -> None:
        self.runs.append(requests)

    def alone(self, reason: str) -> None:
        self.alone_for[reason] += 1


@dataclass
class Scene:
    """The turns of one network. costs_ms: how long a run takes, by its requests; now_ms: the clock that deadlines are on.

    made: the numbers of each run in its order. during: called inside each run with its cancellation.
    """

    costs_ms: dict[int, float] = field(default_factory=lambda: {1: 10.0, 2: 12.0, 4: 16.0, 8: 24.0})
    now_ms: float = 0.0
    error: float = 0.0
    made: list[list[float]] = field(default_factory=list)
    during: Callable[[Cancellation | None], None] = lambda _: None
    turns: FifoLock = field(default_factory=FifoLock)
    reasons: Reasons = field(default_factory=Reasons)

    def __post_init__(self) -> None:
        self.batches = MicroBatches(
            self.turns, self.run, 8, self.reasons, clock_ns=lambda: int(self.now_ms * 1e6)
        )

    def run(
        self, arrays: Arrays, noise: Floats, _: Sampling = PLAIN, cancellation: Cancellation | None = None
    ) -> Ran:
        numbers = [float(number) for number in arrays["state"][:, 0]]
        self.made.append(numbers)
        self.during(cancellation)
        if cancellation is not None:
            cancellation.check()
        if BAD in numbers:
            raise InferenceError("model.onnx: it does not take -1")
        chunks = (arrays["state"][:, :1, None] + noise).astype(np.float32)
        if WILD in numbers:
            chunks[:] = np.nan
        if len(numbers) > 1:
            chunks += np.float32(self.error)
        return Ran(chunks, 1, 0.0, 0.0, self.costs_ms[len(numbers)] * 1e-3)

    def verified(self) -> Scene:
        assert self.batches.verify(lambda number: (arrays_of(float(number)), noise_of())) == ()
        self.made.clear()
        return self

    def ask(
        self,
        number: float,
        *,
        deadline_ms: float | None = None,
        why: str = "",
        width: int = 2,
        steps: int | None = None,
        cancellation: Cancellation | None = None,
    ) -> Background:
        """Ask in a thread, and return once the request stands in the queue. Only while the turn is taken."""
        request = Request(
            Observation({}, None, ""),
            0,
            "r",
            deadline_ns=None if deadline_ms is None else int(deadline_ms * 1e6),
        )
        sampling = Sampling(steps, context=RequestContext(request))
        waiting = Waiting(arrays_of(number, width), noise_of(), sampling, cancellation)
        before = len(self.turns._waiting)

        def answer() -> Ran | Exception:
            try:
                return self.batches.answer(
                    waiting, lambda: self.run(waiting.arrays, waiting.noise, sampling, cancellation), why
                )
            except Exception as error:
                return error

        answered = Background(answer)
        wait_for(lambda: len(self.turns._waiting) > before)
        return answered


def arrays_of(number: float, width: int = 2) -> Arrays:
    return {"state": np.full((1, width), number, np.float32)}


def noise_of() -> Floats:
    return np.full(SHAPE, 0.5, np.float32)
