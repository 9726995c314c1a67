# SPDX-License-Identifier: Apache-2.0
"""Requests and answers for tests of single wedges, and a policy with the wedges under test around it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Counter

from reflex_core.export.export import open_export
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import PLAIN, Sampling
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.presets import load_preset
from reflex_core.values import POLICY, ActionChunk, Floats, Inference, Observation, Request, Served
from reflex_core.wedges.guard import Guard
from reflex_core.wedges.order import middleware_chain
from reflex_core.wedges.predict import Predict
from reflex_core.wedges.wedge import Proceed, Wedge

FRANKA = load_preset("franka")
NAMES = FRANKA.joint_names[:7]  # without the gripper
MIDDLE: Floats = ((FRANKA.action_min + FRANKA.action_max) / 2).astype(np.float32)[:7]
DT_S = 0.05
HORIZON = 10
START_NS = 1_700_000_000_000_000_000
_numbers = itertools.count()


def request(
    episode_id: str | None = "pick",
    *,
    state: Floats | None = MIDDLE,
    stamp_s: float | None = 0.0,
    received_ns: int | None = None,
) -> Request:
    """A request whose observation was stamped `stamp_s` after some start, received now; None: without a stamp."""
    stamp_ns = 0 if stamp_s is None else START_NS + round(stamp_s * 1e9)
    observation = Observation({}, state, "reach the red cube", stamp_ns)
    now = time.monotonic_ns() if received_ns is None else received_ns
    return Request(observation, now, f"request-{next(_numbers)}", episode_id)


def ramp(offset: float = 0.0) -> Floats:
    """(10, 7): row i is the middle of the ranges plus `offset` plus i hundredths."""
    return (MIDDLE + offset + np.arange(HORIZON, dtype=np.float32)[:, None] / 100).astype(np.float32)


def answer(
    request: Request, actions: Floats | None = None, *, source: str = POLICY, dt_s: float = DT_S
) -> Served:
    """What a policy answers."""
    made = ramp() if actions is None else actions
    return Served(
        chunk=ActionChunk(made, NAMES, dt_s, source), raw_actions=made, request_id=request.request_id,
        episode_id=request.episode_id, seed=1, slot="prod", model_version="test@0", inference=Inference("onnx_cpu", 10, 10),
    )  # fmt: skip


def counters(*names: str) -> Mapping[str, Counter]:
    """Counters by name, in a registry of their own."""
    registry = CollectorRegistry()
    return {name: Counter(name, "of a test", registry=registry) for name in names}


def count(counter: Counter) -> float:
    """What the counter stands at."""
    [metric] = counter.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_total"))


class Arm:
    """A real policy for the seven joints of a Panda, with the wedges under test around it.

    Its guard checks for NaN alone, so that what a deadline answers is seen as it was made.
    """

    def __init__(self, export: Path, embodiment: Embodiment | None = FRANKA) -> None:
        self.policy: Policy = load_policy(open_export(export), embodiment, "cpu", 1)
        self.guard = Guard(None, self.policy.binding.hold_columns, Metrics())
        self.seen: list[Request] = []

    def middleware_chain(self, **wedges: Wedge) -> Proceed:
        """The wedges in their order, the network innermost."""
        seeds = itertools.count()
        predict = Predict(self.policy, "prod", lambda: next(seeds), self._sampling)
        return middleware_chain({"guard": self.guard, "policy": predict, **wedges})

    def request(
        self, episode_id: str | None = "pick", *, joint1: float = 0.0, stamp_s: float = 0.0
    ) -> Request:
        """A request with every input of the policy; above 1 rad the exports of test/support/exports.py fail or burn."""
        canary = self.policy.canary()
        state = None if canary.state is None else canary.state.copy()
        if state is not None:
            state[0] = joint1
        observation = Observation(canary.frames, state, "reach the cube", START_NS + round(stamp_s * 1e9))
        return Request(observation, time.monotonic_ns(), f"request-{next(_numbers)}", episode_id, seed=3)

    def _sampling(self, request: Request) -> Sampling:
        self.seen.append(request)
        return PLAIN if request.max_steps is None else Sampling(request.max_steps)
