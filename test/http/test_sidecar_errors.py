# SPDX-License-Identifier: Apache-2.0
"""A client's mistake is a 4xx in one sentence; a failing model is a 500 that tells nothing about this machine."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from http_client import STATE, Answer, Background, busy, jpeg, picture, png_bomb, raw, text, wait_for

from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar import act, app, fair_queue
from reflex_ros.sidecar.wires import fields

Serve = Callable[..., Any]


@pytest.fixture(autouse=True)
def logged_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier test made the server say is not held against the next: the same trouble is logged once a minute."""
    for module in (act, app):
        monkeypatch.setattr(module, "_failures", RateLimitedLog(module.log))


@pytest.fixture
def server(serve: Serve) -> Any:
    return serve("mono_pi0_7")


def problem(answer: Answer, status: int, slug: str) -> str:
    """Check the shape that every error has; returns its sentence."""
    assert (answer.status, answer.json["error"]) == (status, slug), answer.body
    assert answer.json["request_id"]
    assert answer.headers["content-type"] == "application/json"
    assert "Traceback" not in answer.json["message"]
    assert "/" not in answer.json["message"].replace("image/", "")
    return str(answer.json["message"])


@pytest.mark.parametrize("body", [b"", b"{", b"not json", b"\xff\xfe", b'{"state": [1,]}', b'{"a": NaN'])
def test_a_body_that_is_not_json_is_400(server: Any, body: bytes) -> None:
    problem(server.client.ask("POST", "/act", body), 400, "malformed-json")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (gzip.compress(b"{}"), "looks gzip-compressed; compress it once and send Content-Encoding: gzip"),
        ("{}".encode("utf-16"), "looks like UTF-16; send UTF-8"),
        ("{}".encode("utf-16-le"), "looks like UTF-16; send UTF-8"),
        ("{}".encode("utf-16-be"), "looks like UTF-16; send UTF-8"),
        ("{}".encode("utf-8-sig"), "begins with a byte order mark"),
    ],
    ids=["gzip", "UTF-16", "UTF-16-LE", "UTF-16-BE", "byte order mark"],
)
def test_a_body_in_another_form_is_named(server: Any, body: bytes, says: str) -> None:
    assert says in problem(server.client.ask("POST", "/act", body), 400, "malformed-json")


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"7"])
def test_json_that_is_no_object_is_422(server: Any, body: bytes) -> None:
    problem(server.client.ask("POST", "/act", body), 422, "bad-body")


@pytest.mark.parametrize(
    ("fields", "slug", "says"),
    [
        ({"instruction": None}, "bad-instruction", "'instruction' must be a string, got None"),
        ({"instruction": 7}, "bad-instruction", "got 7"),
        ({"instruction": "x" * 10_001}, "bad-instruction", "at most 10000 characters, got 10001"),
        ({"state": "abc"}, "bad-state", "'state' must be a list of numbers, got 'abc'"),
        ({"state": [*STATE[:6], None]}, "bad-state", "only numbers"),
        ({"state": [STATE]}, "bad-state", "only numbers"),
        ({"state": [*STATE[:6], "fast"]}, "bad-state", "only numbers"),
        ({"state": [0.0] * 5000}, "bad-state", "list of numbers"),
        ({"state": [*STATE[:6], float("nan")]}, "state-not-finite", "'state' must be finite, got nan at index 6"),
        ({"state": [float("-inf"), *STATE[1:]]}, "state-not-finite", "got -inf at index 0"),
        ({"state": [1e39, *STATE[1:]]}, "state-not-finite", "got 1e+39 at index 0"),
        ({"state": ["nan", *STATE[1:]]}, "state-not-finite", "at index 0"),
        ({"state": STATE[:5]}, "state-length", "7 numbers (panda_joint1, panda_joint2"),
        ({"state": None}, "missing-state", "no robot state"),
        ({"image": None}, "missing-image", "no image from camera 'camera'"),
        ({"image": 7}, "bad-base64", "'image' must be a base64 string, got 7"),
        ({"image": {}}, "bad-image", "'image' has no image: 'data' is missing"),
        ({"images": {"camera": {}}, "image": None}, "bad-image", "'images.camera' has no image: 'data' is missing"),
        ({"image": {**raw(), "data": None}}, "bad-image", "'image' has no image: 'data' is missing"),
        ({"image": "!!!!"}, "bad-base64", "'image' is not base64"),
        ({"image": "Zä=="}, "bad-base64", "'image' is not base64"),
        ({"image": "QUJDR"}, "bad-base64", "'image' is not base64"),
        ({"image": text(b"GIF89a and so on")}, "bad-image", "'image': the image is neither JPEG nor PNG"),
        ({"image": text(b"\xff\xd8broken")}, "bad-image", "damaged JPEG"),
        ({"image": jpeg()[:400]}, "bad-image", "damaged JPEG"),
        ({"image": text(b"\x89PNG\r\n\x1a\n" + bytes(40))}, "bad-image", "image of 0x0 pixels"),
        ({"image_wrist": jpeg()}, "unknown-camera", "'image_wrist' is camera number 2; there are 1: camera"),
        ({"images": {"camera": jpeg()}}, "bad-image", "two images"),
        ({"images": {"left\n": jpeg()}}, "unknown-camera", "there is no camera 'left\\n'; the cameras are camera"),
        ({"images": ["left"]}, "bad-image", "object by camera name"),
        ({"image": {"encoding": "rgb8"}}, "bad-image", "'image.height' must be a whole number, got None"),
        ({"image": {**raw(), "encoding": "rgb99"}}, "bad-image", "'image.encoding' must be one of jpeg, png, rgb8"),
        ({"image": {**raw(), "width": -3}}, "bad-image", "'image.width' must be a whole number, got -3"),
        ({"image": {**raw(), "height": 33}}, "bad-image", "needs 3168 bytes or more, got 3072"),
        ({"image": {**raw(), "encoding": "mono8"}}, "bad-image", "'image': a mono8 image of 32x32 with step 32 has 1024 bytes, got 3072"),
        ({"image": {**raw(), "data": text(bytes(4 * 3072))}}, "bad-image", "has 3072 bytes, got 12288"),
        ({"image": {**raw(), "data": text(bytes(3 * 3072))}}, "bad-image", "has 3072 bytes, got 9216"),
        ({"image": {**raw(), "step": 5}}, "bad-image", "rows of 5 bytes"),
        ({"image": {**raw(), "data": 5}}, "bad-base64", "got 5"),
        ({"image": {**raw(width=33), "encoding": "yuyv"}}, "bad-image", "yuyv"),
        ({"episode_id": 7}, "bad-episode-id", "'episode_id' must be a string"),
        ({"episode_id": "a\r\nX-Evil: 1"}, "bad-episode-id", "printable"),
        ({"episode_id": "x" * 257}, "bad-episode-id", "at most 256"),
        ({"episode_id": " "}, "bad-episode-id", "not blanks alone, got ' '"),
        ({"request_id": "   "}, "bad-request-id", "not blanks alone"),
        ({"robot_id": " "}, "bad-robot-id", "not blanks alone"),
        ({"request_id": "\u202e"}, "bad-request-id", "printable"),
        ({"seed": -1}, "bad-seed", "got -1"),
        ({"seed": 2**63}, "bad-seed", "2^63 - 1"),
        ({"seed": True}, "bad-seed", "got True"),
        ({"seed": 1.0}, "bad-seed", "got 1.0"),
        ({"elapsed_rows": -1}, "bad-elapsed-rows", "a number from 0 to 100000, got -1"),
        # a whole number that has no float; a NaN beside it makes Python's json read it
        ({"elapsed_rows": 10**400, "x": float("nan")}, "bad-elapsed-rows", "got 1000"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named(server: Any, fields: dict[str, Any], slug: str, says: str) -> None:
    assert says in problem(server.client.act(**fields), 422, slug)
    assert server.client.act().status == 200


def test_the_clients_request_id_is_in_its_error(server: Any) -> None:
    assert server.client.act(request_id="mine", seed="x").json["request_id"] == "mine"


def test_a_pixel_bomb_is_refused_before_it_is_decoded(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decoded.append(arguments))
    message = problem(server.client.act(image=png_bomb(9000)), 422, "image-too-large")
    assert "9000x9000" in message
    assert not decoded


def test_max_pixels_counts_raw_images_too(serve: Serve) -> None:
    client = serve("mono_pi0_7", max_pixels=1024).client
    assert client.act(image=raw()).status == 200
    problem(client.act(image=raw(height=33)), 422, "image-too-large")
    problem(client.act(image=jpeg(width=33)), 422, "image-too-large")


def test_an_announced_oversize_body_is_refused_unread(serve: Serve) -> None:
    server = serve("mono_pi0_7", max_pixels=1024)
    with socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60) as connection:
        connection.sendall(b"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99000000\r\n\r\n")
        answer = connection.recv(65536)
    assert b" 413 " in answer.splitlines()[0]
    assert b'"body-too-large"' in answer


def test_an_oversize_body_in_chunks_is_refused(serve: Serve) -> None:
    server = serve("mono_pi0_7", max_pixels=1024)
    block = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60) as connection:
        connection.sendall(
            b"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" + block * 17
        )
        answer = connection.recv(65536)
    assert b" 413 " in answer.splitlines()[0]


def test_a_model_that_raises_is_500_and_tells_no_path(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve("failing_raise")
    answer = server.client.act(state=[1.5, *STATE[1:]], request_id="r-9")
    assert (
        problem(answer, 500, "inference-error")
        == "the model failed on this request; the server's log says why"
    )
    assert answer.json["request_id"] == "r-9"
    assert "Gather" not in answer.body.decode()
    assert "Gather" in caplog.text
    assert server.client.act().status == 200


def test_the_unforeseen_is_500_and_discloses_nothing(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("secret /home/somebody")

    monkeypatch.setattr(fields, "decode_fields", explode)
    answer = server.client.act()
    problem(answer, 500, "internal-error")
    assert "secret" not in answer.body.decode()
    assert "secret" in caplog.text


def test_before_the_policy_is_loaded_act_says_try_again(serve: Serve) -> None:
    server = serve("mono_pi0_7", ready=False)
    answer = server.client.act()
    problem(answer, 503, "not-ready")
    assert answer.headers["retry-after"] == "1"
    assert answer.json["state"] == "initializing"
    server.engine.load()
    assert server.client.act().json["state"] == "inactive"
    server.engine.warm_up()
    assert server.client.act().status == 200


def test_a_full_queue_says_try_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "WAITING_REQUESTS", 3)
    server = serve("mono_pi0_7")
    with busy(server.engine):
        waiting = [Background(server.client.act) for _ in range(3)]
        wait_for(lambda: server.sidecar.waiting == 3)
        refused = server.client.act()
        problem(refused, 503, "queue_full")
        assert refused.headers["retry-after"] == "1"
        assert server.client.get("/health").status == 200
    assert [request.result().status for request in waiting] == [200] * 3
    assert server.client.act().status == 200


def test_waiting_bodies_are_bounded_in_bytes(serve: Serve) -> None:
    server = serve("mono_pi0_7", body_bytes=1000)
    with busy(server.engine):
        first = Background(server.client.act)  # larger than the bound, but there is none before it
        wait_for(lambda: server.sidecar.waiting == 1)
        problem(server.client.act(), 503, "queue_full")
    assert first.result().status == 200


@pytest.mark.parametrize("path", ["/nope", "/page", "/act/", "/docs", "/../etc/passwd"])
def test_an_unknown_path_is_404(server: Any, path: str) -> None:
    problem(server.client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/act"), ("PUT", "/act"), ("POST", "/health"), ("DELETE", "/config")]
)
def test_a_wrong_method_is_405_and_says_which_is_right(server: Any, method: str, path: str) -> None:
    answer = server.client.ask(method, path)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] in ("POST", "GET,HEAD")


def test_errors_are_counted_by_slug(server: Any) -> None:
    server.client.act(seed=-1)
    server.client.act(state=STATE[:5])
    server.client.ask("POST", "/act", b"{")
    text_ = server.client.get("/metrics").body.decode()
    for slug in ("bad-seed", "state-length", "malformed-json"):
        assert f'reflex_act_errors_total{{slug="{slug}"}} 1.0' in text_


def test_hostile_text_never_reaches_the_log_as_it_is(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = serve("failing_raise").client
    client.act(instruction="a\nERROR forged", state=[1.5, *STATE[1:]])
    client.act(episode_id="a\nERROR forged", images={"b\nERROR forged": "x"})
    client.get("/a%0AERROR%20forged")
    assert not any(line.startswith("ERROR forged") for line in caplog.text.splitlines())


def test_a_grey_image_of_sixteen_bits_is_read_like_any_other(server: Any) -> None:
    grey = cv2.imencode(".png", np.full((32, 32), 40_000, np.uint16))[1].tobytes()
    assert server.client.act(image=text(grey)).status == 200
    assert (
        server.client.act(
            image={**raw(), "data": text(picture()[:, :, :1].tobytes()), "encoding": "mono8"}
        ).status
        == 200
    )
