# SPDX-License-Identifier: Apache-2.0
"""--cloud-fallback against a second real server on loopback, and against servers that lie."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from figures import value_of
from http_client import PATIENCE_S, STATE, Background, busy, in_flight, picture, wait_for
from lying_server import LyingServer
from servers import MakeEngine, Server

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.engine.engine import Engine
from reflex_core.errors import CancelledError, InferenceError, NotReadyError, ObservationError, SettingError
from reflex_core.policy.cloud_server import (
    INVALID,
    REFUSED,
    STATUS,
    TIMEOUT,
    CloudBreaker,
    CloudError,
    Expected,
)
from reflex_core.values import CLOUD, HOLD, POLICY, Frame, Observation, Request
from reflex_core.wedges.cloud import Cloud
from reflex_core.wedges.order import middleware_chain
from reflex_ros.sidecar.cloud_client import HttpCloud, checked_url, read_cloud_key

Serve = Callable[..., Server]
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


EXPECTED_REASON = {
    "broken": STATUS, "busy": STATUS, "unprocessable": STATUS, "redirect": STATUS, "hang-up": REFUSED,
    "garbage": INVALID, "silent": TIMEOUT,
}  # fmt: skip
OTHER_LIES = (
    "endless", "huge", "html", "cut", "list", "deep", "nan-literal", "gzip", "null", "words", "true",
    "beyond-float32", "narrow", "ragged", "deeper", "empty", "rows-of-nothing", "no-actions", "another-rate",
    "no-rate", "another-robot", "no-names", "another-request", "a-hold",
)  # fmt: skip


@pytest.fixture(scope="module")
def failing_engine(export_dir: Any) -> Engine:
    """An engine whose policy fails; only its fit, its metrics and its error are needed here."""
    from reflex_core.settings.table import settings_from

    settings = {"export_dir": str(export_dir("failing_raise")), "device": "cpu", "embodiment": "franka"}
    settings["max_consecutive_crashes"] = 0  # each lie follows a failure of the model
    engine = Engine(settings_from(settings))
    engine.load()
    engine.warm_up()
    return engine


@pytest.mark.parametrize("lie", [*EXPECTED_REASON, *OTHER_LIES])
def test_a_lie_is_as_if_there_were_no_cloud(liar: LyingServer, failing_engine: Engine, lie: str) -> None:
    reason = EXPECTED_REASON.get(lie, INVALID)
    here = Edge(failing_engine, liar.url(lie), timeout_ms=50.0 if lie == "silent" else PATIENCE_S * 1e3)
    before, visits = here.failures(reason), len(liar.headers_by_lie.get("good", ()))
    with pytest.raises(InferenceError, match="Gather"):
        here.act(request())
    assert here.failures(reason) == before + 1
    assert len(liar.headers_by_lie.get("good", ())) == visits  # no redirect was followed
    here.cloud.close()


def test_what_a_liar_says_is_quoted_in_the_log(
    liar: LyingServer, failing_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    here = Edge(failing_engine, liar.url("html"))
    with pytest.raises(InferenceError):
        here.act(request(request_id="a\nERROR forged"))
    assert "b'<html>welcome</html>'" in caplog.text
    assert not any(line.startswith("ERROR forged") for line in caplog.text.splitlines())
    here.cloud.close()


def test_connections_are_kept() -> None:
    server = LyingServer().start()
    http = HttpCloud(server.url("good"))
    for _ in range(5):
        http.ask(request(), PATIENCE_S)
    assert http.ready()
    assert len(server.connections) == 1
    http.close()
    server.stop()


def test_a_connection_that_the_other_side_gave_up_is_tried_once_more(liar: LyingServer) -> None:
    http = HttpCloud(liar.url("hang-up"))
    visits = len(liar.headers_by_lie.get("hang-up", ()))
    with pytest.raises(CloudError, match="ServerDisconnectedError"):
        http.ask(request(), PATIENCE_S)
    assert len(liar.headers_by_lie["hang-up"]) == visits + 2
    http.close()


def test_no_reply_is_read_on_once_the_answer_came_from_elsewhere(liar: LyingServer) -> None:
    http = HttpCloud(liar.url("silent"))
    cancellation = Cancellation()
    outcome: list[BaseException] = []

    def ask() -> None:
        try:
            http.ask(request(cancellation=cancellation), PATIENCE_S)
        except CancelledError as error:
            outcome.append(error)

    visits = len(liar.headers_by_lie.get("silent", ()))
    asking = Background(ask)
    wait_for(lambda: len(liar.headers_by_lie.get("silent", ())) > visits)
    cancellation.cancel()
    wait_for(lambda: asking.done)
    assert outcome
    http.close()


def test_closing_lets_everybody_go(liar: LyingServer) -> None:
    http = HttpCloud(liar.url("silent"))
    outcome: list[CloudError] = []

    def ask() -> None:
        try:
            http.ask(request(), PATIENCE_S)
        except CloudError as error:
            outcome.append(error)

    visits = len(liar.headers_by_lie.get("silent", ()))
    asking = Background(ask)
    wait_for(lambda: len(liar.headers_by_lie.get("silent", ())) > visits)
    http.close()
    http.close()
    wait_for(lambda: asking.done)
    assert outcome[0].reason == REFUSED
    with pytest.raises(CloudError, match="closed"):
        http.ask(request(), PATIENCE_S)
    assert not http.ready()


def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = LyingServer(context).start()
    http = HttpCloud(server.url("good"))
    with pytest.raises(CloudError, match="CertificateError") as caught:
        http.ask(request(), PATIENCE_S)
    assert caught.value.reason == REFUSED
    assert not server.headers_by_lie
    http.close()
    server.stop()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must begin with http"),
        ("cloud:8000", "must begin with http"),
        ("ftp://cloud", "must begin with http"),
        ("http://", "must begin with http"),
        ("http://cloud:99999", "out of range"),
        ("http://[::1", "Invalid IPv6"),
        ("http://user:secret@cloud", "no password in the URL"),
        ("http://cloud/?a=b", "only a path prefix"),
        ("http://cloud/#a", "only a path prefix"),
        ("http://cloud/a b", "without blanks"),
        ("http://cloud/a\r\nX: y", "printable ASCII"),
        ("http://clöud", "printable ASCII"),
        ("http://cloud/act", "without /act"),
        ("http://cloud/../x;y", "only a path prefix"),
    ],
)
def test_a_url_that_is_no_servers_is_refused_in_a_sentence(url: str, says: str) -> None:
    with pytest.raises(SettingError, match="setting 'cloud_fallback'") as caught:
        checked_url(url)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://cloud:8000", "https://cloud.example.com/", "http://[::1]:80/robots/arm7"]
)
def test_a_servers_url_may_have_a_port_and_a_prefix(url: str) -> None:
    assert checked_url(url).hostname


def test_the_key_comes_from_the_file_else_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(" from-file \n")
    environment = {"REFLEX_CLOUD_API_KEY": "from-environment"}
    assert read_cloud_key(str(path), environment) == "from-file"
    assert read_cloud_key("", environment) == "from-environment"
    assert read_cloud_key("", {}) is None


@pytest.mark.parametrize(("content", "says"), [(b"", "is empty"), (b"a\nb", "one line"), (b"\xff", "decode")])
def test_a_key_that_cannot_be_sent_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(SettingError, match=says):
        read_cloud_key(str(tmp_path / "key"), {})
    with pytest.raises(SettingError, match="No such file"):
        read_cloud_key(str(tmp_path / "nothing"), {})


def test_a_key_on_an_open_road_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    for url in ("http://127.0.0.1:1", "https://cloud.example.com"):
        HttpCloud(url, "k").close()
    assert "unencrypted" not in caplog.text
    HttpCloud("http://cloud.example.com", "k").close()
    assert "unencrypted" in caplog.text
