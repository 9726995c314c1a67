# SPDX-License-Identifier: Apache-2.0
"""HTTPS through real sockets, with certificates that are made here: what is refused, what is served, and replacement."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import grpc
import numpy as np
import pytest
from certificates import Pair, pair
from http_client import STATE, Background, good, picture, wait_for
from lerobot_client import SERVICE

from reflex_client import Policy
from reflex_core.doctor.finding import FAIL, OK, WARN
from reflex_core.errors import ReflexError
from reflex_core.settings.table import settings_from
from reflex_ros.doctor.certificate import certificate
from reflex_ros.sidecar.key_file import add_key, fresh_key
from reflex_ros.sidecar.server import Sidecar
from reflex_ros.sidecar.tls import context_of, read_certificate, use
from reflex_ros.viewing.live import _history

Serve = Callable[..., Any]


@pytest.fixture
def tls(tmp_path: Path) -> Pair:
    return pair(tmp_path / "tls")


def ask(server: Any, path: str, trusted: Path, body: bytes | None = None) -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=str(trusted))
    request = Request(f"{server.sidecar.url}{path}", body)
    with urlopen(request, context=context, timeout=60) as answer:
        return answer.status, json.loads(answer.read())


def served_serial(server: Any) -> str:
    """The certificate that the server shows now."""
    return ssl.get_server_certificate(("127.0.0.1", server.sidecar.port), timeout=60)


def test_requests_are_answered_over_tls_alone(serve: Serve, tls: Pair) -> None:
    server = serve("mono_pi0_7", **tls.settings)
    assert server.sidecar.url == f"https://127.0.0.1:{server.sidecar.port}"
    status, answer = ask(server, "/act", tls.cert, json.dumps(good()).encode())
    assert (status, answer["source"]) == (200, "policy")
    with socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"ready" not in plain.recv(65536)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        urlopen(f"{server.sidecar.url}/health", timeout=60)
    assert ask(server, "/health", tls.cert)[0] == 200


def test_old_versions_of_tls_are_refused(serve: Serve, tls: Pair) -> None:
    server = serve("mono_pi0_7", **tls.settings)
    for version, allowed in (
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ):
        context = ssl.create_default_context(cafile=str(tls.cert))
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60) as plain:
            if allowed:
                context.wrap_socket(plain, server_hostname="127.0.0.1").close()
            else:
                with pytest.raises(ssl.SSLError):
                    context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_certificate_is_replaced_without_a_restart(
    serve: Serve, tls: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("mono_pi0_7", **tls.settings)
    first = served_serial(server)
    context = ssl.create_default_context(cafile=str(tls.cert))
    kept = context.wrap_socket(
        socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60), server_hostname="127.0.0.1"
    )
    good_cert = tls.cert.read_bytes()
    tls.cert.write_text("broken")
    wait_for(lambda: b'file="certificate",outcome="failed"} 1.0' in server.engine.metrics.exposition())
    assert "tls_cert" in caplog.text
    assert served_serial(server) == first
    tls.cert.write_bytes(good_cert)
    pair(tls.cert.parent)
    wait_for(lambda: served_serial(server) != first)
    assert ask(server, "/health", tls.cert)[0] == 200
    kept.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert b" 200 " in kept.recv(65536)
    kept.close()


def test_files_that_change_after_the_check_do_not_spoil_what_is_served(tls: Pair) -> None:
    settings = settings_from(tls.settings)
    context = context_of(read_certificate(settings))
    pair(tls.cert.parent)
    checked = read_certificate(settings)
    tls.cert.write_bytes(pair(tls.cert.parent.parent / "other").cert.read_bytes())
    use(context, checked)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = ssl.create_default_context()
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        ends = socket.create_connection(listening.getsockname()), listening.accept()[0]
        answering = Background(lambda: context.wrap_socket(ends[1], server_side=True))
        with client.wrap_socket(ends[0]) as shown:
            assert shown.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(checked.cert.decode())
        answering.result().close()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _: {"tls_key": ""}, "'tls_cert': needs 'tls_key'"),
        (lambda _: {"tls_cert": ""}, "'tls_key': needs 'tls_cert'"),
        (lambda tls: {"tls_cert": str(tls.cert) + "x"}, "'tls_cert'.*No such file"),
        (lambda tls: {"tls_key": str(tls.cert)}, "'tls_key'.*cannot be read as PEM"),
        (lambda tls: {"tls_cert": str(tls.key)}, "'tls_cert'.*cannot be read as PEM"),
        (lambda tls: {"tls_key": str(pair(tls.cert.parent.parent / "other").key)}, "is not the key of the certificate"),
        (lambda tls: pair(tls.cert.parent.parent / "old", end="20200201000000Z").settings, "has expired"),
        (lambda tls: pair(tls.cert.parent.parent / "new", start="20890101000000Z").settings, "is not valid yet"),
    ],
)  # fmt: skip
def test_what_clients_would_refuse_is_refused_at_the_start(
    make_engine: Any, tls: Pair, spoil: Callable[[Pair], dict[str, str]], says: str
) -> None:
    engine = make_engine("mono_pi0_7", ready=False, port=0, **(tls.settings | spoil(tls)))
    with pytest.raises(ReflexError, match=says):
        Sidecar(engine, engine.settings).start()


def test_tls_alone_opens_no_address_to_the_network(make_engine: Any, tls: Pair) -> None:
    engine = make_engine("mono_pi0_7", ready=False, port=0, host="0.0.0.0", **tls.settings)
    with pytest.raises(ReflexError, match="REFLEX_API_KEY or --api-key-file or --keys-file"):
        Sidecar(engine, engine.settings).start()


def test_a_key_that_comes_as_plain_text_is_warned_of(
    serve: Serve, tls: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REFLEX_API_KEY", "a key")
    serve("mono_pi0_7", ready=False, host="0.0.0.0", **tls.settings)
    assert "unencrypted" not in caplog.text
    serve("mono_pi0_7", ready=False, host="0.0.0.0")
    assert "keys are sent to --host 0.0.0.0 unencrypted" in caplog.text


def test_the_client_of_programs_and_those_of_this_package_trust_a_file(
    serve: Serve, tls: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("mono_pi0_7", **tls.settings)
    observation = {
        "images": {"camera": picture()},
        "state": np.array(STATE, np.float32),
        "instruction": "reach",
    }
    with Policy(server.sidecar.url, ssl_context=ssl.create_default_context(cafile=str(tls.cert))) as policy:
        assert policy.act(**observation).source == "policy"
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.cert))
    with Policy(server.sidecar.url) as policy:
        assert policy.act(**observation).source == "policy"
    assert "header" in _history(server.sidecar.url, "")
    program = (
        "import sys; from reflex_core.settings.table import settings_from;"
        "from reflex_ros.sidecar.server_connections import connect_remote;"
        "server = connect_remote(sys.argv[1], settings_from({})); print(server.about(60.0).model_version); server.close()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, server.sidecar.url], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == server.engine.loaded.policy.export.model_version


def test_lerobots_port_is_encrypted_where_its_calls_bring_keys(
    serve: Serve, tls: Pair, tmp_path: Path
) -> None:
    token, key = fresh_key(("act",), "arm-1", 1.0, None, "")
    add_key(tmp_path / "keys.jsonl", key)
    server = serve("mono_pi0_7", keys_file=str(tmp_path / "keys.jsonl"), lerobot_port=0, **tls.settings)
    credentials = grpc.ssl_channel_credentials(tls.cert.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{server.sidecar.lerobot_port}", credentials) as channel:
        ready = channel.unary_unary(f"{SERVICE}Ready")
        assert ready(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=60) == b""
        with pytest.raises(grpc.RpcError):
            ready(b"", timeout=60)


def test_doctor_says_when_it_expires(tls: Pair) -> None:
    settings = settings_from(tls.settings)
    found = read_certificate(settings)
    assert found is not None
    assert certificate(settings).level == OK
    soon = certificate(settings, found.not_after_s - 10 * 86_400)
    assert (soon.level, soon.said) == (WARN, "expires 2090-01-01T00:00:00Z, in 10 days")
    tls.cert.unlink()
    assert certificate(settings).level == FAIL
