# SPDX-License-Identifier: Apache-2.0
"""The reader: traces of other writers, files cut off or damaged in every way, memory that stays small."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_client import wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import make_request, served
from repository import FIXTURES
from traces import traces, writer

from reflex_core.files.json_lines import exact, floats, json_line
from reflex_core.records.trace.parse import Recorded, TraceError
from reflex_core.records.trace.reader import TraceReader

FOREIGN = FIXTURES / "traces"
HEADER = b'{"kind":"header","schema_version":1}\n'


def request(seq: int = 0, **changes: Any) -> bytes:
    document = {
        "kind": "request",
        "schema_version": 1,
        "seq": seq,
        "request": {"instruction": "pick", "state": [0.5]},
        "response": {"actions": [[0.1, 0.2]], "num_actions": 1, "action_dim": 2},
        "latency": {"total_ms": 5.0},
    }
    return json.dumps(document | changes).encode() + b"\n"


def read(path: Path, data: bytes | None = None) -> tuple[list[Recorded], TraceReader]:
    if data is not None:
        path.write_bytes(data)
    with TraceReader(path) as trace:
        return list(trace), trace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.bin"  # the content shows what a file is


@pytest.mark.parametrize(
    ("pattern", "kind", "pictures"),
    [("*-54ee29c9*.gz", "monolithic", False), ("*-bca0808c*.gz", "decomposed", True)],
)
def test_traces_of_another_writer_are_read(pattern: str, kind: str, pictures: bool) -> None:
    (path,) = FOREIGN.glob(pattern)
    records, trace = read(path)
    assert trace.header["export_kind"] == kind
    assert trace.warnings == []
    assert trace.footer is not None
    assert trace.footer["total_requests"] == len(records) == 12
    assert [record.seq for record in records] == list(range(12))
    for record in records:
        assert record.actions.shape == ((0, 0) if record.error else (50, 7))
        assert record.raw_actions is record.actions
        assert (record.seed, record.episode_id, record.slot, record.cache_status) == (
            None,
            None,
            "prod",
            "n/a",
        )
        if record.error is None:  # one request was made with something that is no picture
            assert all((image.frame() is not None) == pictures for image in record.images.values())
    assert any(record.images for record in records)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    trace = writer(tmp_path)
    answers = [served(make_request(number)) for number in range(5)]
    for number, answer in enumerate(answers):
        trace(make_request(number), answer)
    trace.close()
    records, reader = read(traces(tmp_path)[0])
    for number, (record, answer) in enumerate(zip(records, answers, strict=True)):
        assert record.actions.tobytes() == answer.chunk.actions.tobytes()
        state = make_request(number).observation.state
        assert state is not None
        assert record.state is not None
        assert record.state.tobytes() == state.tobytes()
        assert (record.seed, record.slot, record.request_id) == (7, "prod", f"r-{number}")
        assert (record.denoise_steps, record.total_ms, record.dt_s) == (8, 12.346, 0.05)
        assert record.names == answer.chunk.names
    assert reader.fraction == 1.0
    assert reader.footer is not None


def test_plain_and_gzip_are_distinguished_by_content(path: Path) -> None:
    for data in (HEADER + request(), gzip.compress(HEADER + request())):
        assert len(read(path, data)[0]) == 1


def test_gzip_members_one_after_the_other_and_padding_are_read(path: Path) -> None:
    data = gzip.compress(HEADER + request(0)) + gzip.compress(request(1)) + b"\0" * 512
    records, trace = read(path, data)
    assert ([record.seq for record in records], trace.warnings) == ([0, 1], [])
    records, trace = read(path, data + b"rubbish")
    assert (len(records), len(trace.warnings)) == (2, 1)


def test_a_cut_gzip_is_read_as_far_as_it_goes(tmp_path: Path, path: Path) -> None:
    trace = writer(tmp_path, gzip=True, flush_interval_s=0.0)
    for number in range(20):
        trace(make_request(number), served(make_request(number)))
    trace.close()
    whole = traces(tmp_path)[0].read_bytes()
    records, cut = read(path, whole[: len(whole) * 3 // 4])
    assert 0 < len(records) < 20
    assert any("stopped hard" in warning for warning in cut.warnings)


@pytest.mark.parametrize("kind", ["gzip", "plain"])
def test_a_trace_that_is_being_written_is_distinguished_from_one_whose_writer_was_stopped(
    tmp_path: Path, kind: str
) -> None:
    """By a lock that the kernel takes away with the process: no pid can be another's, and no reboot leaves one behind."""
    trace = writer(tmp_path, gzip=kind == "gzip", flush_interval_s=0.0)
    for number in range(20):
        trace(make_request(number), served(make_request(number)))
    wait_for(lambda: trace.written == 20)
    (path,) = traces(tmp_path)
    for _ in range(2):  # looking takes nothing from the writer
        with TraceReader(path) as live:
            assert len(list(live)) == 20
        assert (live.footer, live.damage) == (None, [])
        assert live.live == (kind == "gzip")  # a plain file ends with a whole line
        assert all("is being written just now" in warning for warning in live.warnings)
    copy = tmp_path / "copy.jsonl"  # what is left of it after a hard stop
    copy.write_bytes(path.read_bytes())
    trace.close()
    with TraceReader(copy) as stopped:
        assert len(list(stopped)) == 20
    assert not stopped.live
    assert any("stopped hard" in warning for warning in stopped.damage) == (kind == "gzip")
    with TraceReader(path) as ended:
        assert len(list(ended)) == 20
    assert (ended.live, ended.warnings) == (False, [])


def test_a_torn_last_line_is_a_warning(path: Path) -> None:
    records, trace = read(path, HEADER + request(0) + request(1)[:-30])
    assert len(records) == 1
    assert len(trace.warnings) == 1
    assert f"{path}:3" in trace.warnings[0]


def test_a_last_line_without_its_newline_is_whole(path: Path) -> None:
    records, trace = read(path, HEADER + request(0)[:-1])
    assert (len(records), trace.warnings) == (1, [])


def test_blank_lines_and_windows_line_ends_are_skipped(path: Path) -> None:
    records, trace = read(path, b"\r\n" + HEADER + b"\n  \n" + request(0)[:-1] + b"\r\n")
    assert (len(records), trace.warnings) == (1, [])


def test_unknown_kinds_are_left_out_with_one_warning_each(path: Path) -> None:
    other = b'{"kind":"marker","schema_version":9}\n'
    records, trace = read(path, HEADER + other + request(0) + other + request(1))
    assert len(records) == 2
    assert len(trace.warnings) == 1
    assert "marker" in trace.warnings[0]


def test_gaps_are_reported(path: Path) -> None:
    _, trace = read(path, HEADER + request(3) + request(7))
    assert ["3 requests between 3 and 7" in warning for warning in trace.warnings] == [True]


def test_a_bare_nan_of_another_writer_is_read(path: Path) -> None:
    data = request(0).replace(b"0.2", b"NaN").replace(b"0.1", b"-Infinity")
    (record,), _ = read(path, HEADER + data)
    np.testing.assert_array_equal(record.actions, [[-np.inf, np.nan]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n\n", "is empty", id="blank"),
        pytest.param(gzip.compress(b""), "is empty", id="empty gzip"),
        pytest.param(b"\x1f\x8b\x08", "is empty", id="gzip without a byte of content"),
        pytest.param(b"\x1f\x8bnot gzip at all", "damaged", id="not a gzip"),
        pytest.param(b"hello\n", ":1: the line is not JSON", id="no JSON"),
        pytest.param(b"[1,2]\n", ":1: must be a JSON object, got list", id="list"),
        pytest.param(b"{}\n", "begins with a record of kind 'header', got 'None'", id="no kind"),
        pytest.param(request(0), "begins with a record of kind 'header', got 'request'", id="no header"),
        pytest.param(HEADER.replace(b":1", b":2"), "schema_version 2 is not known; this reader knows 1", id="version 2"),
        pytest.param(HEADER.replace(b":1", b":true"), "schema_version True", id="version true"),
        pytest.param(b'{"kind":"header"}\n', "schema_version None", id="no version"),
        pytest.param(HEADER + request(0, schema_version=2), ":2: schema_version 2", id="record of version 2"),
        pytest.param(HEADER + b"{half\n" + request(0), ":2: the line is not JSON", id="damaged middle"),
        pytest.param(HEADER + b"[]\n", ":2: must be a JSON object", id="record is a list"),
        pytest.param(HEADER + request("0"), "seq must be a whole number from 0 on, got '0'", id="seq text"),  # type: ignore[arg-type]
        pytest.param(HEADER + request(-1), "seq must be", id="seq negative"),
        pytest.param(HEADER + request(True), "seq must be", id="seq true"),
        pytest.param(HEADER + request(0, request=None), "request must be an object, got None", id="no request"),
        pytest.param(HEADER + request(0, response=[]), "response must be an object, got []", id="response list"),
        pytest.param(HEADER + request(0, response={}), "actions must be a list, got None", id="no actions"),
        pytest.param(HEADER + request(0, response={"actions": [1, 2]}), "rows of equal length", id="flat actions"),
        pytest.param(HEADER + request(0, response={"actions": [[1], [2, 3]]}), "equal length", id="ragged"),
        pytest.param(HEADER + request(0, response={"actions": [["a"]]}), "must hold numbers", id="words"),
        pytest.param(HEADER + request(0, request={"state": "0"}), "request.state must be a list", id="state text"),
        pytest.param(HEADER + request(0, request={"image_b64": 5}), "must be text", id="image a number"),
        pytest.param(HEADER + request(0, request={"cameras": [1]}), "object of objects", id="cameras a list"),
        pytest.param(HEADER + request(0, latency={"total_ms": "5"}), "total_ms must be a number", id="latency text"),
        pytest.param(HEADER + request(0, noise={"seed": 1.5}), "seed must be a whole number", id="seed a half"),
        pytest.param(HEADER + b"[" * 100_000 + b"\n" + request(0), "not JSON", id="nested without end"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(path: Path, data: bytes, message: str) -> None:
    with pytest.raises(TraceError) as refused:
        read(path, data)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read: No such file"):
        TraceReader(tmp_path / "nowhere.jsonl")
    with pytest.raises(TraceError, match="cannot be read: Is a directory"):
        TraceReader(tmp_path)


def test_an_image_that_is_none_is_one_sentence(path: Path) -> None:
    for text, message in (("%%%%", "not base64"), ("aGVsbG8=", "neither JPEG, PNG nor binary PPM")):
        block = {"instruction": "", "image_sha256": "0" * 16, "image_b64": text}
        (record,), _ = read(path, HEADER + request(0, request=block))
        with pytest.raises(TraceError, match=message):
            record.images["image"].frame()


SOUND = HEADER + b"".join(request(seq) for seq in range(4)) + b'{"kind":"footer","schema_version":1}\n'


LINES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(SOUND.split(b"\n")),
    st.sampled_from([b"{}", b"null", b'"text"', b'{"kind":[]}', b'{"kind":"footer"}', b"\0" * 9, b"\xff\xfe", b"{" * 99]),
    st.dictionaries(st.sampled_from(["kind", "schema_version", "seq", "request", "response", "latency"]), st.one_of(
        st.sampled_from(["request", "footer", "header", 1, -1, None]), st.lists(st.floats(), max_size=2)
    )).map(lambda document: json.dumps(document).encode()),
)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), packed=st.booleans(), packed_first=st.booleans())
def test_damage_never_raises_anything_but_a_trace_error(
    path: Path, data: st.DataObject, packed: bool, packed_first: bool
) -> None:
    lines = SOUND.split(b"\n")
    for line in data.draw(st.lists(LINES, max_size=3)):
        lines.insert(data.draw(st.integers(0, len(lines))), line)
    text = b"\n".join(lines)
    sound = gzip.compress(text) if packed and packed_first else text
    damaged = bytearray(sound[: data.draw(st.integers(0, len(sound)) | st.just(len(sound)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    if packed and not packed_first:
        damaged = bytearray(gzip.compress(damaged))
    try:
        records, trace = read(path, bytes(damaged))
    except TraceError as error:
        message = str(error)
        assert (str(path) in message, "\n" in message) == (True, False)
        return
    assert all(isinstance(record, Recorded) for record in records)
    assert set(trace.damage) <= set(trace.warnings)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_every_float32_survives_bit_for_bit(bits: list[int]) -> None:
    array = np.array(bits, np.uint32).view(np.float32).reshape(1, -1)
    back = floats(json.loads(json_line({"actions": exact(array)}))["actions"])
    numbers = ~np.isnan(array)
    assert back[numbers].tobytes() == array[numbers].tobytes()
    np.testing.assert_array_equal(np.isnan(back), ~numbers)


def test_a_long_trace_takes_no_more_memory_than_a_short_one(path: Path) -> None:
    block = b"".join(request(seq, notes="x" * 2000) for seq in range(1000))
    with gzip.open(path, "wb", 1) as stream:
        stream.write(HEADER)
        for _ in range(15):
            stream.write(block)
    tracemalloc.start()
    with TraceReader(path) as trace:
        count = sum(1 for _ in trace)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 15_000
    assert peak < 8 << 20 < count * 2000
