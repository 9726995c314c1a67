# SPDX-License-Identifier: Apache-2.0
"""`reflex ab report`: real trace files, whole and cut off."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from recordings import make_request, served

from reflex_core.files.json_lines import json_line
from reflex_core.records.trace.notes import outcome_record
from reflex_core.records.trace.schema import Session, header_record, request_record
from reflex_core.slots.outcomes import Outcome
from reflex_ros.cli.main import main

SESSION = Session("0123456789abcdef", "fedcba9876543210", "exports/v1", settings={"split": 50})


def write_trace(path: Path, episodes: int, started_at: str = "2026-01-02T03:04:05.678Z") -> Path:
    """Slot a succeeds every other time and b always; every request is two lines, the answer and the outcome."""
    header = header_record(SESSION, session_id="s", started_at=started_at, images="none", part=0, dropped=0)
    records = [header]
    for number in range(episodes):
        slot = "ab"[number % 2]
        request = replace(make_request(number), episode_id=f"{started_at}-{number}")
        made = replace(served(request), slot=slot, model_version=f"v{slot}@0")
        record = request_record(
            request, made, seq=number, timestamp=started_at, images="none", vlm_conditioning="real"
        )
        routing = {"slot": slot, "routing_key": request.episode_id, "degraded": False, "cached": False}
        success = slot == "b" or number % 4 == 0
        outcome = Outcome(str(request.episode_id), success, slot)
        records += [record | {"routing": routing}, outcome_record(outcome, started_at)]
    data = b"\n".join(map(json_line, records)) + b"\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_two_traces_are_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_trace(tmp_path / "1.jsonl", 60)
    write_trace(tmp_path / "2.jsonl.gz", 40, "2026-01-02T04:04:05.678Z")
    assert main(["ab", "report", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "25/50 = 50.0%" in output
    assert "50/50 = 100.0%" in output
    assert "b is better" in output
    assert "a: va@0" in output
    assert "WARNING" not in output


def test_names_in_a_trace_forge_no_line_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = write_trace(tmp_path / "1.jsonl", 4)
    evil = r"x\n[ERROR] fake\u001b[2J\u202e"  # as JSON escapes it
    text = trace.read_text().replace('"slot":"b"', f'"slot":"{evil}"').replace("va@0", evil)
    assert evil in text
    trace.write_text(text)
    assert main(["ab", "report", str(trace)]) == 0
    output = capsys.readouterr().out
    assert r"x\n[ERROR] fake\x1b[2J\u202e" in output
    assert all(line.isprintable() and not line.startswith("[ERROR]") for line in output.split("\n"))


def test_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = write_trace(tmp_path / "1.jsonl", 8)
    assert main(["ab", "report", str(trace), "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["slots"]["b"]["success_rate"] == 1.0
    assert report["sample_ratio"]["episodes"] == 8
    file = tmp_path / "report.json"
    assert main(["ab", "report", str(trace), str(trace), "--json", str(file)]) == 0
    assert json.loads(file.read_text()) == report  # the same file twice is one trace


def test_a_picture_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = write_trace(tmp_path / "1.jsonl", 60)
    file = tmp_path / "report.svg"
    assert main(["ab", "report", str(trace), "--picture", str(file)]) == 0
    drawn = ElementTree.fromstring(file.read_text())
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a: 15/30", "b: 30/30", "60 episodes"} <= set(words)
    assert main(["ab", "report", str(write_trace(tmp_path / "none.jsonl", 0)), "--picture", str(file)]) == 0
    ElementTree.fromstring(file.read_text())


def test_a_trace_that_was_cut_off_counts_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = write_trace(tmp_path / "1.jsonl", 10)
    trace.write_bytes(trace.read_bytes()[:-40])
    assert main(["ab", "report", str(trace)]) == 0
    output = capsys.readouterr().out
    assert "cut off by a hard stop" in output
    assert "4/4 = 100.0%" in output


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "the file is empty"), (b"{}\n", "begins with a record of kind 'header'"), (b"\x1f\x8bxx", "")],
)
def test_what_is_no_trace_is_1_and_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, why: str
) -> None:
    (tmp_path / "1.jsonl").write_bytes(content)
    assert main(["ab", "report", str(tmp_path / "1.jsonl")]) == 1
    output = capsys.readouterr().err
    assert output.startswith(f"reflex ab: {tmp_path}/1.jsonl")
    assert why in output
    assert output.count("\n") == 1


def test_no_trace_and_no_room_for_the_report_are_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", "report", str(tmp_path)]) == 1
    assert main(["ab", "report", str(tmp_path / "missing.jsonl")]) == 1
    trace = write_trace(tmp_path / "1.jsonl", 2)
    assert main(["ab", "report", str(trace), "--json", str(tmp_path / "no" / "where")]) == 1
    assert capsys.readouterr().err.count("reflex ab: ") == 3


@pytest.mark.parametrize(
    "options", [["--split", "101"], ["--split", "x"], ["--alpha", "0"], ["--alpha", "x"], []]
)
def test_a_bad_command_line_is_2(tmp_path: Path, options: list[str]) -> None:
    traces = [str(tmp_path)] if options else []
    with pytest.raises(SystemExit) as stopped:
        main(["ab", "report", *traces, *options])
    assert stopped.value.code == 2
