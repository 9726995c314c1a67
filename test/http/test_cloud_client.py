# SPDX-License-Identifier: Apache-2.0
"""The HTTP client of another server by itself: connections, what liars say, URLs, keys and certificates."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_edge import Edge, request
from http_client import PATIENCE_S, Background, wait_for
from lying_server import LyingServer

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.engine.engine import Engine
from reflex_core.errors import CancelledError, InferenceError, SettingError
from reflex_core.policy.cloud_server import (
    INVALID,
    REFUSED,
    STATUS,
    TIMEOUT,
    CloudError,
)
from reflex_ros.sidecar.cloud_client import HttpCloud, checked_url, read_cloud_key


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingServer]:
    server = LyingServer().start()
    yield server
    server.stop()


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
