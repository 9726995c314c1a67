# SPDX-License-Identifier: Apache-2.0
"""A server whose policy fails and that asks another one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import simplejpeg
from figures import value_of
from http_client import PATIENCE_S, STATE, picture

from reflex_core.engine.engine import Engine
from reflex_core.policy.cloud_server import (
    CloudBreaker,
    Expected,
)
from reflex_core.values import Frame, Observation, Request
from reflex_core.wedges.cloud import Cloud
from reflex_ros.sidecar.cloud_client import HttpCloud

FAILING_STATE = [1.5, *STATE[1:]]  # the exports that fail do so once the first joint is beyond 1 rad


def jpeg() -> Frame:
    data = simplejpeg.encode_jpeg(picture(), quality=95)
    return Frame(data, "jpeg", 32, 32)


def observation(frame: Frame | None = None, state: list[float] | None = None) -> Observation:
    numbers = np.array(state or FAILING_STATE, np.float32)
    return Observation({"camera": frame or jpeg()}, numbers, "reach the red cube")


def request(**more: Any) -> Request:
    return Request(
        **{"observation": observation(), "received_ns": time.monotonic_ns(), "request_id": "r-1"} | more
    )


class Edge:
    """An engine with a cloud behind it."""

    def __init__(
        self, engine: Engine, url: str, key: str | None = None, every_s: float = 60.0, **more: Any
    ) -> None:
        self.engine = engine
        assert engine.loaded is not None
        binding = engine.loaded.policy.binding
        self.http = HttpCloud(url, key)
        self.cloud = Cloud(
            self.http,
            Expected(binding.action_names, binding.dt_s, binding.horizon),
            **{"timeout_ms": PATIENCE_S * 1e3, "hedge_ms": 0.0} | more,
            metrics=engine.metrics,
            embodiment="franka",
            breaker=CloudBreaker(self.http.ready, every_s=every_s),
        )

    def act(self, request: Request) -> Any:
        return self.cloud(request, self.engine.act)

    def failures(self, reason: str) -> float:
        return value_of(self.engine.metrics.cloud_failures.labels(reason))
