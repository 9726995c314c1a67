# SPDX-License-Identifier: Apache-2.0
"""Only this program writes lines of its log, and every error is one printable sentence."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from bags import CAMERA, JOINTS, START_NS, arrival, image, joints
from http_client import good, raw

from reflex_core.errors import InferenceError, NotReadyError, ObservationError
from reflex_core.images.raw_encodings import rgb
from reflex_core.text.log_lines import OneLine
from reflex_ros.node.logging_bridge import RosHandler
from reflex_ros.node.observation_buffer import NAMES_KEPT, Gates, ObservationBuffer
from reflex_ros.sidecar.replies import problem

EVIL = "x\n[ERROR] fake\r\x1b[2J\u202e\u2028\x85\x00\ud800"
SHOWN = "x\\n[ERROR] fake\\r\\x1b[2J\\u202e\\u2028\\x85\\x00\\ud800"

# one without a parent: pytest-xdist cannot carry half a character in what it reports of a test
LOG = logging.Logger("reflex_core.test_log_lines")


@pytest.fixture
def lines() -> Iterator[Callable[[], list[str]]]:
    """The lines of a log that is written as `reflex serve` writes it."""
    stream, log = io.StringIO(), LOG
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine("%(levelname)s %(name)s: %(message)s"))
    log.addHandler(handler)
    yield lambda: stream.getvalue().splitlines()
    log.removeHandler(handler)


def test_a_record_is_one_line_whatever_its_arguments_hold(lines: Callable[[], list[str]]) -> None:
    LOG.warning("camera '%s' of %d", EVIL, 3)
    LOG.warning("%s", "y" * 10**6)
    first, second = lines()
    assert first == f"WARNING reflex_core.test_log_lines: camera '{SHOWN}' of 3"
    assert len(second) < 5000


def test_a_traceback_writes_no_record_of_its_own(lines: Callable[[], list[str]]) -> None:
    try:
        raise RuntimeError(EVIL)
    except RuntimeError:
        LOG.exception("failed")
    found = lines()
    assert found[0] == "ERROR reflex_core.test_log_lines: failed"
    assert all(line.startswith("  | ") and line.isprintable() for line in found[1:])
    assert any("RuntimeError" in line for line in found)


def test_what_goes_to_the_ros_logger_is_one_line_too() -> None:
    logged: list[str] = []

    class Logger:
        def warning(self, text: str) -> None:
            logged.append(text)

    RosHandler(Logger()).emit(logging.LogRecord("reflex_core", logging.WARNING, "", 0, "%s", (EVIL,), None))
    assert logged == [SHOWN]


@pytest.mark.parametrize(
    "error", [ObservationError(EVIL, "slug"), InferenceError(EVIL), NotReadyError("loading", EVIL)]
)
def test_every_error_is_one_printable_sentence(error: Exception) -> None:
    assert str(error) == SHOWN
    assert len(str(ObservationError("y" * 10**6))) == 4000


def test_every_problem_over_http_is_one_printable_sentence() -> None:
    assert SHOWN.replace("\\", "\\\\").encode() in problem(422, "slug", EVIL, "id").body


GATES = Gates(max_age_ms=1e9, max_skew_ms=1e9)


def test_texts_from_topics_forge_nothing() -> None:
    message = joints(1)
    message.name = [EVIL.replace("\ud800", ""), "b"]
    buffer = ObservationBuffer((), ("arm",), needs_state=True)
    buffer.put_joints(arrival(JOINTS, joints(1), 1), message.name, message.position)
    with pytest.raises(ObservationError, match="joints seen: b, x") as caught:
        buffer.take(START_NS, GATES)
    assert str(caught.value).isprintable()
    picture = image(1)
    picture.encoding = "x\n[ERROR] fake\u202e"
    cameras = ObservationBuffer(("base",), (), needs_state=False)
    cameras.put_image("base", arrival(CAMERA, picture, 1))
    frames = cameras.take(START_NS, GATES).frames  # cv_bridge may know it
    with pytest.raises(ObservationError, match=r"'x.n\[ERROR\] fake.u202e' is not supported") as caught:
        rgb(frames["base"])
    assert str(caught.value).isprintable()


def test_unknown_names_of_joints_fill_no_memory() -> None:
    buffer = ObservationBuffer((), ("arm",), needs_state=True)
    for number in range(2000):
        buffer.put_joints(arrival(JOINTS, joints(1), 1), [f"{number}", f"{number}b"], [0.0, 0.0])
    with pytest.raises(ObservationError) as caught:
        buffer.take(START_NS, GATES)
    assert len(str(caught.value)) < 1000
    assert len(buffer._joints) == NAMES_KEPT
    buffer.put_joints(arrival(JOINTS, joints(1), 1), ["arm"], [0.5])
    np.testing.assert_allclose(buffer.take(START_NS, GATES).state, [0.5])


def test_texts_of_requests_forge_nothing(serve: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever field they stand in: reply, headers, metrics and log hold them escaped and cut."""
    client = serve("mono_pi0_7").client
    evil = EVIL.replace("\ud800", "") * 50
    documents: list[tuple[str, Any]] = [
        ("/act", good(image={**raw(), "encoding": evil})),
        ("/act", good(image={**raw(), evil: 1, "encoding": "rgb9"})),
        ("/act", good(images={evil: "x"})),
        ("/act", good(episode_id=evil)), ("/act", good(request_id=evil)), ("/act", good(robot_id=evil)),
        ("/act", good(seed=evil)), ("/act", good(state=[evil])), ("/act", good(elapsed_rows=evil)),
        ("/act", good(image=evil)), ("/act", {evil: 1}),
        ("/policies", {evil: 1}), ("/policies", {"split": evil}), ("/policies", {"promote": evil}),
        ("/episodes/a/outcome", {evil: True}), ("/episodes/a/outcome", {"success": evil}),
        ("/episodes/a/outcome", {"success": True, "note": evil}), ("/guard/reset", {evil: 1}),
        ("/guard/reset", {"caller": evil}), ("/episodes/x%0A%5BERROR%5D%20fake/outcome", {"success": True}),
    ]  # fmt: skip
    for path, document in documents:
        answer = client.ask("POST", path, json_bytes(document), X_Reflex_Hop="x", traceparent="x" * 500)
        assert 400 <= answer.status < 500, (path, answer.body)
        assert answer.json["message"].isprintable(), answer.body
        assert len(answer.json["message"]) < 2000
        assert all(text.isprintable() for text in answer.headers.values())
    assert client.act({**good(), evil: 1, "instruction": f"reach {evil}"[:900]}).status == 200
    assert "[ERROR] fake" not in "".join(
        line[:20] for line in client.get("/metrics").body.decode().splitlines()
    )
    for record in caplog.records:
        assert OneLine("%(message)s").format(record).partition("\n")[0].isprintable()


def json_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()
