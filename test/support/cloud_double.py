# SPDX-License-Identifier: Apache-2.0
"""Another server, played, and requests for the cloud wedge that asks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from figures import value_of
from http_client import PATIENCE_S

from reflex_core.errors import InferenceError
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.cloud_server import (
    CloudAnswer,
    CloudError,
    Expected,
)
from reflex_core.values import CLOUD, POLICY, ActionChunk, Inference, Observation, Request, Served

NAMES = ("shoulder", "elbow")
EXPECTED = Expected(NAMES, 0.05, 4)
GOOD = CloudAnswer(np.full((4, 2), 0.5, np.float32), NAMES, 0.05, POLICY, "arm@0011", seed=7)
LOCAL_FAILURE = InferenceError("the graph raised")

Ask = Callable[[Request, float], CloudAnswer]


@dataclass
class Elsewhere:
    """The other server, played: `says` answers, `requests` keeps what it got."""

    says: Ask = field(default_factory=lambda: answering(GOOD))
    healthy: bool = False
    requests: list[tuple[Request, float]] = field(default_factory=list)
    probes: int = 0
    closed: bool = False

    def ask(self, request: Request, left_s: float) -> CloudAnswer:
        self.requests.append((request, left_s))
        return self.says(request, left_s)

    def ready(self) -> bool:
        self.probes += 1
        return self.healthy

    def close(self) -> None:
        self.closed = True


def answering(answer: CloudAnswer) -> Ask:
    def say(request: Request, left_s: float) -> CloudAnswer:
        return answer

    return say


def refusing(reason: str) -> Ask:
    def say(request: Request, left_s: float) -> CloudAnswer:
        raise CloudError(reason, "no")

    return say


def request(**more: Any) -> Request:
    return Request(Observation({}, None, "wave"), time.monotonic_ns(), "r-1", **more)


def hurried() -> Request:
    """Half of its budget is over, so that the cloud is asked at once, and there is more than enough left."""
    now = time.monotonic_ns()
    half = int(PATIENCE_S * 1e9)
    return replace(request(), received_ns=now - half - 1_000_000, deadline_ns=now + half)


def unhurried() -> Request:
    """With so much time left that the cloud is asked only when the policy has failed."""
    return replace(request(), deadline_ns=time.monotonic_ns() + int(2 * PATIENCE_S * 1e9))


def local(request: Request) -> Served:
    actions = np.zeros((4, 2), np.float32)
    return Served(
        ActionChunk(actions, NAMES, 0.05), actions, request.request_id, None, 0, "prod", "arm@1", Inference("onnx_cpu", 10, 10)
    )  # fmt: skip


def failing(error: BaseException = LOCAL_FAILURE) -> Callable[[Request], Served]:
    def proceed(request: Request) -> Served:
        raise error

    return proceed


def count(metrics: Metrics, reason: str) -> float:
    return value_of(metrics.cloud_failures.labels(reason))


def used(metrics: Metrics) -> float:
    """How often the cloud's answer was taken."""
    return value_of(metrics.fallback_invocations.labels("arm", CLOUD))
