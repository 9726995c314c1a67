# SPDX-License-Identifier: Apache-2.0
"""`reflex replay` on traces of others, damaged ones and long ones, its exit statuses and its report."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from replays import command, record
from repository import FIXTURES
from servers import ExportDir, MakeEngine

from reflex_core.files.json_lines import exact, json_line
from reflex_core.records.trace.parse import Recorded, TraceError
from reflex_core.records.trace.reader import TraceReader
from reflex_core.replay.comparison import MODES, Replayed, Source
from reflex_core.replay.diff_report import Report, summary_document
from reflex_core.replay.runner import Plan, replay
from reflex_core.replay.sources import open_source
from reflex_core.replay.summary import Totals
from reflex_ros.console.terminal import Bar

Output = pytest.CaptureFixture[str]
FOREIGN = FIXTURES / "traces"
HEADER = b'{"kind":"header","schema_version":1,"redaction":{"image":"none"}}\n'


def request(seq: int, **changes: object) -> bytes:
    document = {
        "kind": "request",
        "schema_version": 1,
        "seq": seq,
        "request": {"instruction": "pick", "state": [0.1] * 7},
        "response": {"actions": [[0.1] * 7] * 10, "num_actions": 10, "action_dim": 7},
        "latency": {"total_ms": 5.0},
    }
    return json.dumps(document | changes).encode() + b"\n"


@pytest.fixture
def blind(export_dir: ExportDir) -> Path:
    """A policy that needs no picture."""
    return export_dir("expert_stack")


@pytest.mark.parametrize("pattern", ["*-54ee29c9*.gz", "*-bca0808c*.gz"])
def test_traces_of_another_writer_are_inspected(pattern: str, capsys: Output) -> None:
    (trace,) = FOREIGN.glob(pattern)
    done = command(capsys, trace, "--no-replay")
    assert done.status == 0
    assert "  reflex_version: 0.11.2" in done.out
    assert "records: 12 (with footer)" in done.out
    assert "answered by: error 1, policy 11" in done.out
    assert "with a recorded seed: 0" in done.out


def test_a_trace_of_another_writer_is_replayed_with_a_fixed_seed_and_says_so(
    export_dir: ExportDir, capsys: Output
) -> None:
    """Its one picture is the first camera's; a request without one, and one of 40 states, cannot be answered."""
    (trace,) = FOREIGN.glob("*-bca0808c*.gz")
    model = export_dir("mono_pi0_7")
    done = command(capsys, trace, "--model", model, "--output", "-")
    assert done.status == 0
    summary = done.report["summary"]
    assert (summary["n_diffed"], summary["n_left_out"]) == (11, {"error": 1})
    assert 0 < summary["n_raised"] < 5
    assert "the noise of 11 requests was not recorded: they were replayed with seed 0" in done.err
    again = command(capsys, trace, "--model", model, "--output", "-")
    assert again.report["per_request_diffs"][0]["actions"] == done.report["per_request_diffs"][0]["actions"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\x1f\x8bnot gzip at all", "damaged", id="not a gzip"),
        pytest.param(b"hello\n", "not JSON", id="no JSON"),
        pytest.param(b"[]\n", "must be a JSON object", id="list"),
        pytest.param(request(0), "begins with a record of kind 'header'", id="no header"),
        pytest.param(HEADER.replace(b":1", b":9"), "schema_version 9 is not known", id="version"),
        pytest.param(HEADER + b'{"kind":"mark"}\n' + request(0), "records of kind 'mark' are not known", id="kind"),
        pytest.param(HEADER + request(0) + b"{half\n" + request(1), "not JSON", id="middle"),
        pytest.param(HEADER + request(0) + request(1)[:-30], "cut off by a hard stop", id="torn"),
        pytest.param(gzip.compress(HEADER + request(0) + request(1))[:-20], "stopped hard", id="cut gzip"),
        pytest.param(HEADER + request("x"), "seq must be a whole number", id="seq"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
@pytest.mark.parametrize("run", [True, False], ids=["replayed", "inspected"])
def test_what_is_damaged_is_a_sentence_and_status_1(
    data: bytes, message: str, run: bool, blind: Path, tmp_path: Path, capsys: Output
) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(data)
    how = ("--model", blind, "--output", tmp_path / "report.json") if run else ("--no-replay",)
    done = command(capsys, trace, *how)
    assert done.status == 1
    assert message in done.out + done.err
    assert str(trace) in done.out + done.err


def test_what_is_left_of_a_cut_trace_is_replayed(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    whole = record(make_engine, tmp_path, "decomposed", record_no_gzip=False)
    whole.write_bytes(whole.read_bytes()[:-10])
    model = export_dir("decomposed")
    done = command(capsys, whole, "--model", model, "--fail-on", "actions")
    assert done.status == 1
    assert "  actions: 3/3 pass" in done.out
    assert "--allow-damage" in done.err
    done = command(capsys, whole, "--model", model, "--fail-on", "actions", "--allow-damage")
    assert done.status == 0
    assert "WARN" in done.out
    assert command(capsys, whole, "--no-replay", "--allow-damage").status == 0


def test_the_report_of_a_trace_that_breaks_off_holds_what_was_replayed(
    blind: Path, tmp_path: Path, capsys: Output
) -> None:
    trace, report = tmp_path / "trace.jsonl", tmp_path / "report.json"
    trace.write_bytes(HEADER + request(0) + b"{half\n" + request(1))
    assert command(capsys, trace, "--model", blind, "--output", report).status == 1
    document = json.loads(report.read_text())
    assert [entry["seq"] for entry in document["per_request_diffs"]] == [0]
    assert document["summary"]["exit_code"] == 1
    assert "trace.jsonl:3: the line is not JSON" in document["summary"]["error"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(HEADER, id="no request"),
        pytest.param(HEADER + request(0, error={"slug": "x", "message": "y"}), id="errors only"),
    ],
)
def test_nothing_compared_is_no_success(data: bytes, blind: Path, tmp_path: Path, capsys: Output) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(data)
    done = command(capsys, trace, "--model", blind)
    assert done.status == 1
    assert "nothing could be compared" in done.err
    assert command(capsys, trace, "--model", blind, "--fail-on", "actions").status == 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 1, "--model names the export to run"),
        (["--model", "nowhere"], 2, "nowhere: no such export directory"),
        (["--model", "x", "--fail-on", "cache"], 1, "--diff actions does not compare it"),
        (["--model", "x", "--fail-on", "latency-median"], 1, "--diff actions does not compare it"),
        (
            ["--model", "x", "--fail-on", "everything"],
            1,
            "--fail-on takes one of actions, latency, cache, all",
        ),
        (["--model", "x", "--diff", "none"], 1, "--diff takes one of actions, latency, cache, all"),
        (["--model", "x", "--n", "-1"], 1, "--n must not be negative"),
        (["--model", "x", "--n", "many"], 1, "invalid int value"),
        (["--model", "x", "--seed", "-1"], 1, "--seed must not be negative"),
        (["--no-replay", "--fail-on", "actions"], 1, "--no-replay makes none"),
        (["--no-replay", "--output", "nowhere/report.json"], 1, "nowhere/report.json: cannot be written"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    arguments: list[str], status: int, message: str, capsys: Output
) -> None:
    (trace,) = FOREIGN.glob("*-bca0808c*.gz")
    done = command(capsys, trace, *arguments)
    assert done.status == status
    assert message in done.err


def test_help_is_status_0_and_no_trace_status_1(capsys: Output) -> None:
    assert command(capsys, "--help").status == 0
    assert command(capsys).status == 1


def test_no_trace_where_one_was_named(tmp_path: Path, capsys: Output) -> None:
    assert "No such file" in command(capsys, tmp_path / "no.jsonl", "--no-replay").err
    (tmp_path / "a.jsonl").write_bytes(HEADER)
    done = command(capsys, tmp_path, "--no-replay")
    assert done.status == 1
    assert "name one of its traces, such as a.jsonl" in done.err


@pytest.mark.parametrize("name", ["run.mcap", "run.db3", "bag"])
def test_bags_go_to_the_reader_of_bags(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "bag":
        path.mkdir()
        (path / "metadata.yaml").write_text("")
    else:
        path.write_bytes(b"")
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(HEADER)
    paths: list[Path] = []

    def opened(bag: Path) -> Source:
        paths.append(bag)
        return TraceReader(trace)

    with open_source(path, opened) as source:
        assert list(source) == []
    assert paths == [path]
    with pytest.raises(TraceError, match="is a bag"):
        open_source(path)


def test_the_report_is_a_file_or_standard_output_and_strict_json(
    blind: Path, tmp_path: Path, capsys: Output
) -> None:
    trace, report = tmp_path / "trace.jsonl", tmp_path / "report.json"
    trace.write_bytes(HEADER + request(0, response={"actions": [["NaN"] * 7] * 10}))
    command(capsys, trace, "--model", blind, "--diff", "all", "--output", report)
    done = command(capsys, trace, "--model", blind, "--diff", "all", "--output", "-")

    def strict(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    for text in (report.read_text(), done.out):
        document = json.loads(text, parse_constant=strict)
        assert list(document) == ["header", "per_request_diffs", "summary"]
        assert document["header"]["kind"] == "header"
        assert document["per_request_diffs"][0]["actions"]["max_abs_diff"] == "inf"
    assert "Summary:" in done.err
    assert not list(tmp_path.glob("*.part"))
    command(capsys, trace, "--no-replay", "--output", report)
    assert json.loads(report.read_text())["summary"]["n_records"] == 1


class Echo:
    """A target that knows the answers, so that only the reading and the counting are measured."""

    def replay(self, record: Recorded) -> Replayed:
        return Replayed(record.raw_actions, record.names, record.denoise_steps, 5.0)


def test_a_long_trace_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    actions = exact(np.random.default_rng(0).normal(size=(10, 7)).astype(np.float32))
    response = {"actions": actions, "num_actions": 10, "action_dim": 7}

    def peak_of(count: int) -> int:
        trace = tmp_path / f"{count}.jsonl.gz"
        with gzip.open(trace, "wb", 1) as stream:
            stream.write(HEADER)
            for seq in range(count):
                document = json.loads(request(seq)) | {"response": response, "notes": "x" * 3000}
                stream.write(json_line(document) + b"\n")
        totals, plan = Totals(), Plan(MODES)
        with open_source(trace) as source, (tmp_path / "report.json").open("wb") as stream:
            report = Report(stream, source.header)
            tracemalloc.start()
            for made in replay(source, {"": Echo()}, plan, totals):
                report.add(made, plan.tolerances)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            report.finish(summary_document(totals, plan))
        assert totals.everything.passed["actions"] == count
        return peak

    short, long = peak_of(1000), peak_of(3000)
    assert long < short + (1 << 20)


def test_only_as_many_records_are_read_as_asked_for(blind: Path, tmp_path: Path, capsys: Output) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(HEADER + request(0) + request(1) + b"{half\n" + request(2))
    done = command(capsys, trace, "--model", blind, "--n", "2")
    assert done.status == 0
    assert len(done.lines) == 2


def test_a_bar_is_drawn_on_a_terminal_only(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, (tmp_path / "file").open("w") as file:
        Bar(terminal).draw(0.5, 10)
        Bar(file).draw(0.5, 10)
        assert b"[############............]  50%  10 requests" in os.read(ours, 1000)
    os.close(ours)
    assert (tmp_path / "file").read_text() == ""


def test_a_reader_that_goes_away_is_no_traceback(blind: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(HEADER + b"".join(request(seq) for seq in range(3000)))
    arguments = [sys.executable, "-m", "reflex_ros.cli.replay", str(trace), "--model", str(blind)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    output = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert b"Traceback" not in output
