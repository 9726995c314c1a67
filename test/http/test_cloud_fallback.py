# SPDX-License-Identifier: Apache-2.0
"""--cloud-fallback against a second real server on loopback, and against servers that lie."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cloud_edge import Edge, observation, request
from figures import value_of
from http_client import PATIENCE_S, STATE, busy, in_flight, picture, wait_for
from lying_server import LyingServer
from servers import MakeEngine, Server

from reflex_core.errors import InferenceError, NotReadyError, ObservationError
from reflex_core.policy.cloud_server import (
    REFUSED,
    STATUS,
    TIMEOUT,
)
from reflex_core.values import CLOUD, HOLD, POLICY, Frame, Request
from reflex_core.wedges.order import middleware_chain
from reflex_ros.sidecar.cloud_client import HttpCloud

Serve = Callable[..., Server]


@pytest.fixture
def edge(make_engine: MakeEngine) -> Iterator[Callable[..., Edge]]:
    made: list[Edge] = []

    def make(url: str, export: str = "failing_raise", deadline_ms: float = 0.0, **more: Any) -> Edge:
        engine = make_engine(export, embodiment="franka", deadline_ms=deadline_ms)
        made.append(Edge(engine, url, **more))
        return made[-1]

    yield make
    for one in made:
        one.cloud.close()


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingServer]:
    server = LyingServer().start()
    yield server
    server.stop()


def answered(server: Server) -> float:
    assert server.engine.loaded is not None
    histogram = server.engine.metrics.act_latency_s
    return sum(
        sample.value
        for family in histogram.collect()
        for sample in family.samples
        if sample.name.endswith("_count")
    )


def test_what_raises_here_is_answered_there_with_the_same_pixels_state_and_seed(
    serve: Serve, edge: Any
) -> None:
    there = serve("mono_pi0_7")
    here = edge(there.sidecar.url)
    served = here.act(request(seed=5, episode_id="ep_1"))
    alone = there.engine.act(request(seed=5))
    assert served.chunk.source == CLOUD
    np.testing.assert_array_equal(served.chunk.actions, alone.chunk.actions[:10])
    assert (served.chunk.names, served.chunk.dt_s) == (alone.chunk.names, alone.chunk.dt_s)
    assert served.model_version == f"cloud:{alone.model_version}"
    assert (served.model_hash, served.config_hash) == (alone.model_hash, alone.config_hash)
    assert (served.seed, served.inference.denoise_steps, served.episode_id) == (5, 10, "ep_1")
    used = value_of(here.engine.metrics.fallback_invocations.labels("franka", CLOUD))
    assert used == 1


def test_a_policy_that_works_sends_nothing(serve: Serve, edge: Any) -> None:
    there = serve("mono_pi0_7")
    here = edge(there.sidecar.url)
    assert here.act(request(observation=observation(state=STATE))).chunk.source == POLICY
    assert answered(there) == 0


def test_a_raw_frame_travels_as_a_jpeg(serve: Serve, edge: Any) -> None:
    there = serve("mono_pi0_7")
    pixels = picture()
    raw = Frame(pixels[:, :, ::-1].tobytes(), "bgr8", 32, 32, 96)
    served = edge(there.sidecar.url).act(request(observation=observation(raw), seed=5))
    alone = there.engine.act(request(seed=5))
    np.testing.assert_array_equal(served.chunk.actions, alone.chunk.actions[:10])


def test_a_damaged_raw_frame_is_the_clients_mistake(liar: LyingServer) -> None:
    http = HttpCloud(liar.url("good"))
    with pytest.raises(ObservationError, match="needs 3072 bytes"):
        http.ask(request(observation=observation(Frame(b"x", "rgb8", 32, 32))), 1.0)
    http.close()


def test_out_of_memory_here_is_answered_there(serve: Serve, edge: Any) -> None:
    def out_of_memory(request: Request) -> Any:
        raise MemoryError

    here = edge(serve("mono_pi0_7").sidecar.url)
    assert here.cloud(request(), out_of_memory).chunk.source == CLOUD


def test_an_open_breaker_here_is_answered_for_there(serve: Serve, edge: Any) -> None:
    here = edge(serve("mono_pi0_7").sidecar.url)
    for _ in range(5):
        with pytest.raises(InferenceError):
            here.engine.act(request())
    with pytest.raises(NotReadyError):
        here.engine.act(request())
    assert here.act(request()).chunk.source == CLOUD


def test_nan_here_is_answered_there(serve: Serve, edge: Any) -> None:
    here = edge(serve("mono_pi0_7").sidecar.url)
    bad = replace(here.engine.act(request(observation=observation(state=STATE))), request_id="r-1")
    bad = replace(bad, chunk=replace(bad.chunk, actions=np.full_like(bad.chunk.actions, np.nan)))

    def answer(request: Request) -> Any:
        return bad

    assert here.cloud(request(), answer).chunk.source == CLOUD


def hurried() -> Request:
    """Half of its budget is over: the cloud is asked at once, with more than enough time."""
    now, half = time.monotonic_ns(), int(PATIENCE_S * 1e9)
    return request(received_ns=now - half - 1_000_000, deadline_ns=now + half)


def test_a_policy_that_hangs_is_answered_for_and_taken_out_of_the_queue(serve: Serve, edge: Any) -> None:
    here = edge(serve("mono_pi0_7").sidecar.url)
    with busy(here.engine):
        assert here.act(hurried()).chunk.source == CLOUD
        wait_for(lambda: in_flight(here.engine) == 0)


def test_a_graph_that_burns_is_stopped_once_the_cloud_has_answered(serve: Serve, edge: Any) -> None:
    here = edge(serve("mono_pi0_7").sidecar.url, export="slow")
    served = here.act(hurried())
    assert served.chunk.source == CLOUD
    wait_for(lambda: in_flight(here.engine) == 0)
    assert answered(Server(here.engine, None, None)) == 0  # type: ignore[arg-type]


def test_the_guard_clamps_what_the_cloud_says(edge: Any, liar: LyingServer) -> None:
    here = edge(liar.url("out-of-range"))
    loaded = here.engine.loaded

    def policy(request: Request, proceed: Any) -> Any:
        return here.engine.act(request)

    act = middleware_chain({"guard": loaded.guard, "cloud": here.cloud, "policy": policy})
    served = act(request())
    assert served.chunk.source == CLOUD
    assert (served.raw_actions == 9.0).all()
    assert served.guard.clamped
    embodiment = loaded.embodiment
    assert (served.chunk.actions >= embodiment.action_min).all()
    assert (served.chunk.actions <= embodiment.action_max).all()


@pytest.fixture
def never() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_the_cloud_answers_before_the_deadline_wedge_has_to(
    serve: Serve, edge: Any, never: threading.Event
) -> None:
    def policy(request: Request, proceed: Any) -> Any:
        never.wait()  # nothing can cancel this one
        raise InferenceError("let go")

    there = serve("mono_pi0_7")
    here = edge(there.sidecar.url, deadline_ms=2000.0)
    act = middleware_chain({"deadline": here.engine.loaded.deadline, "cloud": here.cloud, "policy": policy})
    assert act(request()).chunk.source == CLOUD
    there.sidecar.stop()
    assert act(request()).chunk.source == HOLD
    wait_for(lambda: here.engine.loaded.deadline.busy == 0)  # its own thread is not lost with the policy's


def test_a_cloud_that_is_too_slow_is_not_waited_for(serve: Serve, edge: Any) -> None:
    there = serve("mono_pi0_7")
    here = edge(there.sidecar.url, timeout_ms=30.0)
    with busy(there.engine), pytest.raises(InferenceError, match="Gather"):
        here.act(request())
    assert here.failures(TIMEOUT) == 1


def test_a_dead_cloud_is_soon_left_alone_and_found_again_when_it_is_back(
    serve: Serve, edge: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        here = edge(f"http://127.0.0.1:{port}", every_s=0.02)
        for _ in range(5):
            with pytest.raises(InferenceError, match="Gather"):
                here.act(request())
        assert (here.failures(REFUSED), here.failures("breaker_open")) == (3, 2)
        assert not here.cloud.reachable
    there = serve("mono_pi0_7", port=port, ready=False)
    assert not here.http.ready()  # /health is 503 until the policy is warm
    there.engine.load()
    there.engine.warm_up()
    wait_for(lambda: here.cloud.reachable)
    assert here.act(request()).chunk.source == CLOUD
    assert "3 consecutive failures" in caplog.text


def test_a_key_is_sent_and_a_wrong_one_is_no_answer(serve: Serve, edge: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame\n")
    there = serve("mono_pi0_7", api_key_file=str(tmp_path / "key"))
    assert edge(there.sidecar.url, key="sesame").act(request()).chunk.source == CLOUD
    here = edge(there.sidecar.url, key="wrong")
    with pytest.raises(InferenceError):
        here.act(request())
    assert here.failures(STATUS) == 1


def test_two_servers_that_fail_do_not_ask_each_other_for_ever(edge: Any, liar: LyingServer) -> None:
    edge(liar.url("good")).act(request())
    assert liar.headers_by_lie["good"][-1]["X-Reflex-Hop"] == "1"
    with pytest.raises(InferenceError):
        edge(liar.url("good")).act(request(forwarded=True))
