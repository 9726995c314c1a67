# SPDX-License-Identifier: Apache-2.0
"""What a policy saw of the past is recorded with each request, its images once, and replayed bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replays import command, edited
from servers import ExportDir, MakeEngine

from reflex_core.engine.engine import Engine
from reflex_core.records.trace.reader import TraceReader
from reflex_core.values import Frame, Observation

Output = pytest.CaptureFixture[str]
PERIOD_NS = 10**10  # of the export


def seen(number: int, periods: float) -> Observation:
    frame = Frame(np.full((8, 8, 3), number, np.uint8), "rgb8", 8, 8)
    state = np.array([number, -number], np.float32)
    return Observation({"front": frame}, state, "", 10**18 + round(periods * PERIOD_NS))


def ask(engine: Engine, number: int, periods: float, episode: str) -> list[float]:
    served = engine.act(engine.request(seen(number, periods), episode_id=episode))
    return [float(value) for value in served.chunk.actions[0]]


def recorded(make_engine: MakeEngine, directory: Path, images: str = "full") -> Path:
    """Two interleaved episodes; the third request of `one` looks back on what was never in a request."""
    engine = make_engine("two_observations", record=str(directory), record_images=images, record_no_gzip=True)
    for number in range(2):
        ask(engine, 10 + number, number, "one")
        ask(engine, 20 + number, number, "other")
    engine.observe(engine.request(seen(99, 7), episode_id="one"))
    assert ask(engine, 12, 8, "one")[:2] == [99, 12]
    engine.unload()
    return next(iter(directory.glob("*.jsonl")))


def requests(trace: Path) -> list[dict[str, Any]]:
    documents = [json.loads(line) for line in trace.read_text().splitlines()]
    return [document for document in documents if document["kind"] == "request"]


def test_a_replay_sees_the_same_past(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = recorded(make_engine, tmp_path)
    done = command(
        capsys, trace, "--model", export_dir("two_observations"), "--device", "cpu", "--fail-on", "actions", "--output", "-"
    )  # fmt: skip
    assert done.status == 0
    summary = done.report["summary"]
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (5, 0.0)


def test_an_image_of_the_past_is_written_once(make_engine: MakeEngine, tmp_path: Path) -> None:
    trace = recorded(make_engine, tmp_path)
    texts = [
        [camera.get("image_b64") is not None for entry in document["request"]["history"] for camera in entry["cameras"].values()]
        for document in requests(trace)
    ]  # fmt: skip
    # the first of an episode are their own past, the second look back on a record, the last on no record at all
    assert texts == [[False], [False], [False], [False], [True]]
    with TraceReader(trace) as reader:
        entries = [record.history[0] for record in reader]
        pasts = [(float(np.ravel(one.state)[0]), one.images["front"].text is not None) for one in entries]
        assert reader.header["observation_steps"] == 2
    assert pasts == [(10, True), (20, True), (10, True), (20, True), (99, True)]
    last = requests(trace)[-1]
    assert last["history"] == {"steps": 2, "given": 0, "kept": 1, "filled": 0, "ages_ms": [10_000.0]}


def test_hashes_alone_are_found_among_files(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = recorded(make_engine, tmp_path / "trace", images="hash_only")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in (10, 11, 12, 20, 21, 99):
        (pictures / f"{number}.ppm").write_bytes(b"P6\n8 8\n255\n" + bytes([number]) * 192)
    arguments = (trace, "--model", export_dir("two_observations"), "--device", "cpu", "--output", "-")
    done = command(capsys, *arguments, "--images", pictures)
    assert done.report["summary"]["max_abs_diff"] == 0.0
    (pictures / "99.ppm").unlink()
    broken = command(capsys, *arguments, "--images", pictures)
    assert "only the hash" in json.dumps(broken.report)


def test_a_trace_without_a_past_is_replayed_with_copies_and_says_so(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = edited(recorded(make_engine, tmp_path), lambda document: document["request"].pop("history"))
    trace = edited(trace, lambda header: header.pop("observation_steps"), kind="header")
    done = command(capsys, trace, "--model", export_dir("two_observations"), "--device", "cpu")
    assert "recorded with 1 observations a request, this policy sees 2" in done.out + done.err
    assert "actions: 2/5 pass" in done.out, "the first of each episode"


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("yesterday", "request.history must be a list of objects, got 'yesterday'"),
        ([{"state": "x"}], "request.history[0].state must be a list"),
        ([{"state": None, "stamp_ns": 0.5}], "request.history[0].stamp_ns must be a whole number, got 0.5"),
        ([{"cameras": {"front": 3}}], "request.history[0].cameras must be an object of objects"),
    ],
)
def test_a_damaged_past_is_named(
    make_engine: MakeEngine, tmp_path: Path, history: object, message: str
) -> None:
    trace = edited(
        recorded(make_engine, tmp_path), lambda document: document["request"].update(history=history)
    )
    with TraceReader(trace) as reader, pytest.raises(Exception, match=".") as caught:
        list(reader)
    assert message in str(caught.value)
