# SPDX-License-Identifier: Apache-2.0
"""`reflex trace ls`, `show` and `report`: finding what went wrong, in whole, damaged and hostile recordings."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from episodes_recorded import EVIL, FAST, clamped, documents, recorded, request, write
from repository import ROOT

from reflex_core.records.trace.schema import Failure
from reflex_ros.cli.main import main

OLD = ROOT / "test" / "fixtures" / "traces"


@dataclass(frozen=True)
class Output:
    status: int
    out: str
    err: str

    @property
    def episodes(self) -> list[str]:
        """The ids in the table, in order."""
        rows = [
            line.split()[0]
            for line in self.out.splitlines()
            if line and not line.startswith(("/", "EPISODE"))
        ]
        return [row for row in rows if row != "none"]


@pytest.fixture
def trace(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """`trace("ls", path)`: one command and its output."""

    def run(*words: object) -> Output:
        capsys.readouterr()
        try:
            status = main(["trace", *map(str, words)])
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Output(status, captured.out, captured.err)

    return run


@pytest.fixture
def records(tmp_path: Path) -> Path:
    (tmp_path / "records").mkdir()
    return write(tmp_path / "records" / "a.jsonl.gz", documents())


def test_episodes_are_listed_with_what_became_of_them(trace, records: Path) -> None:  # type: ignore[no-untyped-def]
    done = trace("ls", records.parent)
    assert (done.status, done.episodes) == (0, ["good-1", "grasp-17", "stuck-3"])
    good, grasp, stuck = done.out.splitlines()[2:]
    assert re.search(r"reach the red block +success +3 +1\.0 s +0 +0 +\d+\.\d ms$", good)
    assert re.search(r"pick the green cube +failed +3 +1\.0 s +3 +0 ", grasp)
    assert re.search(r"unknown +3 +1\.0 s +3 +3 ", stuck)
    assert max(map(len, done.out.splitlines()[1:])) <= 100


def test_a_long_instruction_leaves_the_table_100_columns_wide(trace, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    long = documents(["e" * 300])
    for document in long[1:-1]:
        if "request" in document:
            document["request"]["instruction"] = "pick " * 400
    done = trace("ls", write(tmp_path / "a.jsonl", long))
    assert max(map(len, done.out.splitlines()[1:])) == 100
    [name] = done.episodes
    assert trace("show", tmp_path, "--episode", name).status == 0, (
        "a name that the table has cut is understood"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--outcome", "failed"], ["grasp-17"]),
        (["--outcome", "unknown"], ["stuck-3"]),
        (["--clamped"], ["grasp-17", "stuck-3"]),
        (["--held"], ["stuck-3"]),
        (["--instruction", "GREEN"], ["grasp-17"]),
        (["--episode", "good-1", "--episode", "stuck-3"], ["good-1", "stuck-3"]),
        (["--since", "2026-11-30T10:00:01Z"], ["grasp-17", "stuck-3"]),
        (["--since", "2031-01-01"], []),
        (["--clamped", "--outcome", "success"], []),
    ],
)
def test_episodes_are_filtered(trace, records: Path, words: list[str], expected: list[str]) -> None:  # type: ignore[no-untyped-def]
    done = trace("ls", records, *words)
    assert (done.status, done.episodes) == (0, expected)
    assert expected or "none of 3 episodes matches --" in done.out


def test_json_has_one_object_per_episode(trace, records: Path) -> None:  # type: ignore[no-untyped-def]
    done = trace("ls", records, "--json", "--outcome", "failed")
    [found] = map(json.loads, done.out.splitlines())
    assert found["path"] == str(records)
    expected = {
        "episode_id": "grasp-17",
        "outcome": "failed",
        "note": "stopped short",
        "records": 3,
        "clamped": 3,
        "held": 0,
    }
    assert found | expected == found
    assert (found["length_s"], found["first_seq"], found["last_seq"]) == (1.0, 3, 5)
    assert found["reason"] == f"CLAMPED: {FAST}"


def test_recorded_text_rewrites_no_terminal(trace, records: Path) -> None:  # type: ignore[no-untyped-def]
    for words in (["ls"], ["show"], ["show", "--record", "6"]):
        done = trace(words[0], records, *words[1:])
        assert "\x1b" not in done.out
        assert "\u202e" not in done.out
        assert "</script><img" in done.out


def test_a_trace_that_is_cut_off_is_listed_with_a_sentence(trace, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = write(tmp_path / "whole.jsonl.gz", documents()).read_bytes()
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    done = trace("ls", cut)
    assert done.status == 0
    assert "good-1" in done.episodes
    assert "the gzip stream has no end" in done.err


def test_what_follows_a_damaged_line_is_named_as_left_out(trace, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = write(tmp_path / "a.jsonl", documents())
    lines = path.read_text().splitlines()
    lines[6] = lines[6][:40]
    path.write_text("\n".join(lines) + "\n")
    done = trace("ls", path)
    assert (done.status, done.episodes) == (0, ["good-1", "grasp-17"])
    assert re.search(r"a\.jsonl:7: the line is not JSON.*what follows is left out", done.err)


def test_requests_that_are_missing_are_counted(trace, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = [document for document in documents() if document.get("seq") != 4]
    done = trace("ls", write(tmp_path / "a.jsonl", found))
    assert "1 requests between 0 and 8 were not recorded" in done.err


def test_a_file_that_is_no_trace_hides_no_other(trace, records: Path) -> None:  # type: ignore[no-untyped-def]
    (records.parent / "b.jsonl").write_text('{"kind": "audit"}\n')
    done = trace("ls", records.parent)
    assert (done.status, len(done.episodes)) == (1, 3)
    assert "a trace begins with a record of kind 'header', got 'audit'" in done.err
    assert trace("ls", records.parent / "none.jsonl").status == 1
    (records.parent / "empty").mkdir()
    nothing = trace("ls", records.parent / "empty")
    assert (nothing.status, "holds no trace" in nothing.err) == (1, True)


def test_traces_of_the_first_version_are_listed_shown_and_reported(trace, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = trace("ls", OLD)
    assert (done.status, done.episodes) == (0, ["-", "-"])
    assert "ERROR" in trace("show", OLD).out
    report = tmp_path / "old.html"
    assert trace("report", OLD, "--plot", report).status == 0
    assert "the recording names no limits" in report.read_text()


def test_show_gives_a_reason_for_every_record_and_one_record_in_full(trace, records: Path) -> None:  # type: ignore[no-untyped-def]
    done = trace("show", records, "--episode", "grasp-17")
    assert "outcome: failed: stopped short" in done.out
    assert len(re.findall(rf"seq=   \d .*CLAMPED: {re.escape(FAST)}", done.out)) == 3
    one = trace("show", records, "--record", "4")
    assert re.search(r"panda_joint2 .* -2\.900 to 2\.900 +0\.1 /s +2-4$", one.out, re.MULTILINE)
    assert "camera wrist: recorded" in one.out
    assert trace("show", records, "--held", "--n", "1").out.count("seq=") == 1


def test_show_names_what_is_not_there(trace, records: Path) -> None:  # type: ignore[no-untyped-def]
    done = trace("show", records, "--episode", "grasp-18")
    assert done.status == 1
    assert "no --episode grasp-18" in done.err
    assert "`reflex trace ls` lists its 3 episodes" in done.err
    assert trace("show", records, "--record", "99").status == 1


def test_errors_are_shown_with_their_slug(trace, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = documents(["good-1"])
    found.insert(4, recorded(request(3, "good-1", "reach"), Failure("bad-image", "the image is no image"), 3))
    done = trace("show", write(tmp_path / "a.jsonl", found))
    assert "ERROR: bad-image: the image is no image" in done.out
    assert "1 errors" in done.out


def test_a_report_holds_image_instruction_chunks_limits_and_reason(
    trace, records: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "report.html"
    done = trace("report", records, "--outcome", "failed", "--plot", path)
    assert (done.status, done.err) == (0, "")
    text = path.read_text()
    assert "<title>episode grasp-17: failed (stopped short); first event: CLAMPED: panda_joint2" in text
    assert text.count('<section class="record CLAMPED"') == 3
    assert text.count("data:image/jpeg;base64,") == 3
    assert "passed" not in text
    assert text.count('class="changed"') == 3, "one span of rows in each record"
    assert text.count('<polyline class="raw"') == 3
    assert "pick the green cube" in text


def test_nothing_recorded_is_markup_in_a_report(trace, records: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "report.html"
    assert trace("report", records, "--plot", path).status == 0
    text = path.read_text()
    assert EVIL[:20] not in text
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in text
    assert "<script" not in text
    assert "\x1b" not in text


def test_a_report_of_a_long_episode_draws_what_happened_and_is_bounded(trace, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = documents(["long-1"], records=60)

    sent = request(33, "long-1", "reach")
    found[34] = recorded(sent, clamped(sent), 33)
    path = tmp_path / "report.html"
    done = trace("report", write(tmp_path / "a.jsonl", found), "--plot", path, "--max-records", "5")
    assert "5 of 60 records are drawn" in done.err
    drawn = re.findall(r'<section class="record (\w+)" id="e0-(\d+)"', path.read_text())
    assert len(drawn) == 5
    assert {("SERVED", "0"), ("SERVED", "32"), ("CLAMPED", "33"), ("SERVED", "59")} <= set(drawn)


def test_older_episodes_are_left_out_with_a_sentence(trace, records: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "report.html"
    done = trace("report", records, "--plot", path, "--max-episodes", "1")
    assert "2 older episodes are left out" in done.err
    assert "grasp-17" not in path.read_text()


def test_a_report_that_cannot_be_written_is_a_sentence(trace, records: Path) -> None:  # type: ignore[no-untyped-def]
    done = trace("report", records, "--plot", records.parent / "none" / "report.html")
    assert done.status == 1
    assert "cannot be written" in done.err


@pytest.mark.parametrize("hurt", ["image_b64", "names", "guard", "timestamp"])
def test_odd_fields_end_no_listing(trace, tmp_path: Path, hurt: str) -> None:  # type: ignore[no-untyped-def]
    found = documents()
    for document in found:
        if hurt == "image_b64" and "request" in document:
            document["request"]["image_b64"] = "@@@"
        if hurt == "names" and "response" in document:
            document["response"]["names"] = ["a"]
        if hurt == "guard" and "guard" in document:
            document["guard"] = {"violations": {"a": 1}, "clamped": "yes"}
        if hurt == "timestamp":
            document["timestamp"] = {"a": 1}
    path = write(tmp_path / "a.jsonl", found)
    assert len(trace("ls", path).episodes) == 3
    report = trace("report", path, "--plot", tmp_path / "report.html")
    assert report.status == 0
    if hurt == "image_b64":
        assert "is not base64" in (tmp_path / "report.html").read_text()


def test_an_archive_is_read_as_the_gzip_that_it_is(trace, records: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plain = tmp_path / "renamed.jsonl"  # gzip by content, whatever its name
    shutil.copy(records, plain)
    assert gzip.decompress(plain.read_bytes())
    assert len(trace("ls", plain).episodes) == 3
