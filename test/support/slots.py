# SPDX-License-Identifier: Apache-2.0
"""Two slots behind a router, with real breakers on a clock that the test turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from wedge_requests import answer, request

from reflex_core.errors import InferenceError
from reflex_core.slots.routing import SLOTS, Routing
from reflex_core.values import Request, Served
from reflex_core.wedges.breaker import Breaker
from reflex_core.wedges.order import middleware_chain
from reflex_core.wedges.router import Router, Slot

THRESHOLD, COOLDOWN_S = 3, 60.0
EPISODE_OF = {"a": "ep_2", "b": "ep_1"}  # at split 50: buckets 34 and 55


@dataclass
class Model:
    """A policy that fails while a test says so."""

    slot: str
    error: BaseException | None = None
    requests: list[Request] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def __call__(self, request: Request) -> Served:
        self.requests.append(request)
        self.before()
        if self.error is not None:
            raise self.error
        return replace(answer(request), model_version=f"{self.slot}@0")


class Pair:
    """Both slots."""

    def __init__(self, split: int = 50) -> None:
        self.now = 1000.0
        self.split = split
        self.failures: list[str] = []
        self.models = {name: Model(name) for name in SLOTS}
        self.breakers = {name: Breaker(THRESHOLD, COOLDOWN_S, name, clock=lambda: self.now) for name in SLOTS}
        self.routing = Routing(lambda: self.split)
        slots = {
            name: Slot(partial(self.breakers[name], proceed=self.models[name]), self.breakers[name])
            for name in SLOTS
        }
        self.slots = slots
        self.router = Router(slots, self.routing, self.failures.append)
        self.act = middleware_chain({"router": self.router})

    def break_slot(self, slot: str) -> None:
        """Fail through its breaker until that opens."""
        self.models[slot].error = InferenceError("broken")
        for _ in range(THRESHOLD):
            try:
                self.slots[slot].act(request())
            except InferenceError:
                continue

    def served(self, episode_id: str | None) -> Served:
        return self.act(request(episode_id))


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come true."""
    waiting = threading.Event()
    for _ in range(2000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it never came true")
