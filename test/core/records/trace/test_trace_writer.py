# SPDX-License-Identifier: Apache-2.0
"""The trace as it is written: names, order, exactness, redaction, and records that are odd."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import jpeg, lines_of, make_request, picture, served
from servers import ExportDir
from traces import traces, writer

from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.policy.load import load_policy
from reflex_core.records.trace.hashing import encoded, file_hash, frame_from
from reflex_core.records.trace.header import session_of
from reflex_core.records.trace.reader import TraceReader
from reflex_core.records.trace.schema import FULL, HASH_ONLY, NONE
from reflex_core.records.trace.writer import TraceWriter
from reflex_core.reports import Fallback, GuardReport
from reflex_core.robot.presets import load_preset
from reflex_core.values import Frame

# 4.2 and 4.3 of the schema: what readers of version 1 know, in the order of emission
HEADER_FIELDS = [
    "kind", "schema_version", "session_id", "started_at", "model_hash", "config_hash", "export_dir", "model_type",
    "export_kind", "embodiment", "hardware", "providers", "sample_rate", "redaction", "notes", "reflex_version",
]  # fmt: skip
REQUEST_FIELDS = [
    "kind", "schema_version", "seq", "chunk_id", "timestamp", "request", "response", "latency", "denoise", "mode",
    "vlm_conditioning",
]  # fmt: skip
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def recorded(directory: Path, request: Any, answer: Any, **options: Any) -> list[dict[str, Any]]:
    """The records of one file with one request."""
    trace = writer(directory, **options)
    trace(request, answer)
    trace.close()
    (path,) = traces(directory)
    return lines_of(path)


def wait_for(condition: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, "waited 20 s in vain"
        time.sleep(0.005)


def test_the_file_is_named_and_framed_as_version_1_says(tmp_path: Path) -> None:
    header, request, footer = recorded(tmp_path, make_request(), served(make_request()))
    (path,) = traces(tmp_path)
    pattern = rf"\d{{8}}-\d{{6}}-0123456789abcdef-({header['session_id']})\.jsonl"
    assert re.fullmatch(pattern, path.name)
    assert list(header)[: len(HEADER_FIELDS)] == HEADER_FIELDS
    assert header["hardware"] == {"gpu": "", "cuda": "", "ort": "1.2.3"}
    assert header["redaction"] == {"image": "hash_only", "instruction": "full"}
    assert re.fullmatch(STAMP, header["started_at"])
    assert list(request)[: len(REQUEST_FIELDS)] == REQUEST_FIELDS
    assert list(footer)[:4] == ["kind", "schema_version", "ended_at", "total_requests"]
    assert [record["kind"] for record in (header, request, footer)] == ["header", "request", "footer"]
    assert {record["schema_version"] for record in (header, request, footer)} == {1}
    assert footer["total_requests"] == 1


def test_a_request_carries_all_that_a_replay_needs(tmp_path: Path) -> None:
    asking = make_request()
    answer = replace(
        served(asking),
        guard=GuardReport(True, 1, ("panda_joint1 above max: 3 > 2.9",)),
        fallback=Fallback(deadline_exceeded=True),
        injected_latency_ms=5.0,
    )
    asking = replace(asking, deadline_ns=33_000_000)
    _, record, _ = recorded(tmp_path, asking, answer)
    assert record["request"] | {"cameras": {}} == {
        "instruction": "pick up the red cup",
        "state": [float(str(value)) for value in asking.observation.state],
        "image_sha256": hashlib.sha256(base64.b64encode(jpeg(seed=1))).hexdigest()[:16],
        "camera": "base",
        "cameras": {},
        "episode_id": "ep-1",
        "request_id": "r-1",
        "stamp_ns": 1_000_000_001,
        "age_ms": 4.25,
        "caller": "ros",
        "wire": "ros",
    }
    assert (
        record["request"]["cameras"]["base"]["bytes_sha256"] == hashlib.sha256(jpeg(seed=1)).hexdigest()[:16]
    )
    assert (record["response"]["num_actions"], record["response"]["action_dim"]) == (10, 7)
    assert record["latency"] == {
        "total_ms": 12.346,
        "stages": {"preprocess_ms": 0.5, "vlm_prefix_ms": 4.0, "expert_denoise_ms": 7.75},
    }
    assert record["denoise"] == {"steps_used": 8, "steps_configured": 10, "adaptive": False}
    assert record["guard"]["violations"] == ["panda_joint1 above max: 3 > 2.9"]
    assert record["deadline"] == {"exceeded": True, "budget_ms": 33.0, "fallback_age_ms": 0.0}
    assert (record["noise"], record["slot"], record["injected_latency_ms"]) == ({"seed": 7}, "prod", 5.0)


def test_actions_are_exact_and_short(tmp_path: Path) -> None:
    bits = np.random.default_rng(3).integers(0, 2**32, (50, 7), dtype=np.uint32).view(np.float32)
    actions = np.where(np.isfinite(bits), bits, np.float32(0.1))
    answer = served(make_request())
    answer = replace(answer, chunk=replace(answer.chunk, actions=actions), raw_actions=actions)
    recorded(tmp_path, make_request(), answer)
    (path,) = traces(tmp_path)
    with TraceReader(path) as trace:
        (record,) = trace
    assert record.actions.dtype == np.float32
    assert record.actions.tobytes() == actions.tobytes()
    text = path.read_text()
    assert "0.1," in text
    assert "0.10000000149" not in text


def test_raw_actions_are_written_only_where_the_guard_changed_something(tmp_path: Path) -> None:
    answer = served(make_request())
    _, plain, _ = recorded(tmp_path / "plain", make_request(), answer)
    assert "raw_actions" not in plain["response"]
    raw = answer.raw_actions.copy()
    raw[3, 2] = np.nan
    recorded(tmp_path / "held", make_request(), replace(answer, raw_actions=raw))
    (path,) = traces(tmp_path / "held")
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # a bare NaN is not JSON
    with TraceReader(path) as trace:
        (record,) = trace
    np.testing.assert_array_equal(record.raw_actions, raw)
    np.testing.assert_array_equal(record.actions, answer.chunk.actions)


RAW = Frame(picture().tobytes(), "bgr8", 32, 32, 96)
TWO_CAMERAS = {"base": Frame(jpeg(), "jpeg"), "wrist": RAW}


def test_full_keeps_every_camera_once(tmp_path: Path) -> None:
    recorded(tmp_path, make_request(frames=TWO_CAMERAS), served(make_request()), images=FULL)
    (path,) = traces(tmp_path)
    with TraceReader(path) as trace:
        (record,) = trace
    assert list(record.images) == ["base", "wrist"]
    assert record.images["base"].data() == jpeg()
    assert record.document["request"]["image_b64"] == base64.b64encode(jpeg()).decode()
    wrist = record.images["wrist"].frame()
    assert wrist is not None
    rows = np.frombuffer(wrist.data, np.uint8).reshape(32, 32, 3)
    np.testing.assert_array_equal(rows, picture()[:, :, ::-1])  # RGB, as the policy saw it
    for image in record.images.values():
        data = image.data()
        assert data is not None
        assert image.sha256 == file_hash(data)
    assert path.read_text().count(base64.b64encode(jpeg()).decode()) == 1


@pytest.mark.parametrize("images", [HASH_ONLY, NONE])
@pytest.mark.parametrize("packed", [True, False])
def test_no_picture_is_in_a_redacted_file(tmp_path: Path, images: str, packed: bool) -> None:
    asking = make_request(frames=TWO_CAMERAS)
    trace = writer(tmp_path, images=images, gzip=packed)
    trace(asking, served(asking))
    trace.error(asking, "inference-error", "the model raised")
    trace.close()
    (path,) = traces(tmp_path)
    text = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).decode()
    assert "image_b64" not in text
    for frame in TWO_CAMERAS.values():
        kept = base64.b64encode(encoded(frame)).decode()
        assert not any(kept[at : at + 24] in text for at in range(0, len(kept) - 24, 8))
    assert ("image_sha256" in text) == (images == HASH_ONLY)
    assert ("cameras" in text) == (images == HASH_ONLY)


def test_a_raw_frame_that_cannot_be_read_is_kept_as_its_bytes() -> None:
    assert encoded(Frame(b"12345", "rgb8", 32, 32, 96)) == b"12345"
    assert encoded(frame_from(encoded(RAW))) == encoded(RAW)


def test_failed_requests_are_recorded_too(tmp_path: Path) -> None:
    trace = writer(tmp_path)
    trace.error(make_request(), "inference-error", "x" * 900)
    trace.close()
    _, record, footer = lines_of(traces(tmp_path)[0])
    assert record["error"] == {"slug": "inference-error", "message": "x" * 500}
    assert record["response"] == {"actions": [], "num_actions": 0, "action_dim": 0}
    assert (record["latency"], record["mode"]) == ({"total_ms": 0.0}, "")
    assert footer["total_errors"] == 1


def test_words_of_any_kind_become_ascii_and_come_back(tmp_path: Path) -> None:
    asking = make_request(instruction="greife die rote Tasse: 杯 🤖\u2028\n")
    recorded(tmp_path, asking, served(asking))
    (path,) = traces(tmp_path)
    assert path.read_bytes().isascii()
    with TraceReader(path) as trace:
        (record,) = trace
    assert record.instruction == asking.observation.instruction


def test_the_number_given_before_is_the_record_number(tmp_path: Path) -> None:
    trace = writer(tmp_path)
    trace(make_request(1), replace(served(make_request(1)), trace_seq=trace.next_seq()))
    trace(make_request(2), served(make_request(2)))
    trace.close()
    assert [record.get("seq") for record in lines_of(traces(tmp_path)[0])[1:-1]] == [0, 1]


def test_what_cannot_be_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        writer(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="full, hash_only, none"):
        writer(tmp_path, images="some")


def test_one_odd_request_does_not_take_the_others_along(tmp_path: Path) -> None:
    trace = writer(tmp_path)
    trace(make_request(1), served(make_request(1)))
    trace(make_request(2), replace(served(make_request(2)), raw_actions=None))  # type: ignore[arg-type]
    trace(make_request(3), served(make_request(3)))
    trace.close()
    assert [record.get("seq") for record in lines_of(traces(tmp_path)[0])[1:-1]] == [0, 2]
    assert (trace.written, trace.dropped) == (2, 1)


def test_a_frame_given_as_an_array_is_written_like_any_other(tmp_path: Path) -> None:
    array_frame = Frame(np.frombuffer(picture().tobytes(), np.uint8), "rgb8", 32, 32, 96)
    recorded(tmp_path, make_request(frames={"base": array_frame}), served(make_request()), images=FULL)
    with TraceReader(traces(tmp_path)[0]) as trace:
        (record,) = trace
    frame = record.images["base"].frame()
    assert frame is not None
    np.testing.assert_array_equal(np.frombuffer(frame.data, np.uint8).reshape(32, 32, 3), picture())


def test_the_header_of_a_real_policy_says_how_its_noise_is_made(
    tmp_path: Path, export_dir: ExportDir
) -> None:
    policy = load_policy(open_export(export_dir("mono_pi0_7")), load_preset("franka"), "cpu", 1)
    session = session_of(policy, load_preset("franka"), "arm7", settings={"adaptive_steps": False})
    trace = TraceWriter(tmp_path, session, gzip=False)
    trace(make_request(), served(make_request()))
    trace.close()
    header = lines_of(traces(tmp_path)[0])[0]
    assert header["model_hash"] == policy.export.model_hash
    assert header["config_hash"] == policy.export.config_hash
    assert (header["export_kind"], header["model_type"], header["embodiment"]) == (
        "monolithic",
        "pi0",
        "franka",
    )
    assert header["providers"] == ["CPUExecutionProvider"]
    assert header["noise"]["generator"] == "numpy.Philox"
    assert header["noise"]["shape"] == [1, policy.contract.horizon, policy.contract.width]
    assert header["settings"] == {"adaptive_steps": False}
