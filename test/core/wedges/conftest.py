# SPDX-License-Identifier: Apache-2.0
"""Fixtures that tests of the wedges share: the cloud wedge and the server that it asks, guards, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cloud_double import EXPECTED, Elsewhere
from guarded import FRANKA, FREE, guard_of
from http_client import PATIENCE_S

from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.cloud_server import CloudBreaker
from reflex_core.wedges.cloud import Cloud
from reflex_core.wedges.guard import Guard


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def make_cloud(elsewhere: Elsewhere, metrics: Metrics) -> Iterator[Callable[..., Cloud]]:
    """`make_cloud(hedge_ms=10.0)`: a cloud wedge that asks `elsewhere`, with a long time limit and no hedge by default."""
    made: list[Cloud] = []

    def build(every_s: float = PATIENCE_S, **more: Any) -> Cloud:
        settings = {"timeout_ms": 60_000.0, "hedge_ms": 0.0} | more
        breaker = CloudBreaker(elsewhere.ready, every_s=every_s)
        made.append(
            Cloud(elsewhere, EXPECTED, metrics=metrics, embodiment="arm", breaker=breaker, **settings)
        )
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture
def guard(metrics: Metrics) -> Guard:
    """Of a robot with position limits only."""
    return guard_of(FREE, metrics)


@pytest.fixture
def fast(metrics: Metrics) -> Guard:
    """Of a robot with position and velocity limits."""
    return guard_of(FRANKA, metrics)
