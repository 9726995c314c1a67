# SPDX-License-Identifier: Apache-2.0
"""`reflex replay` as a command line: what has no use is refused, and a full disk under the output is a sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recordings import tiny_disk
from replays import command, record
from servers import ExportDir, MakeEngine

from reflex_core.export.flow import Adaptive
from reflex_core.records.trace.fields import image_mode, timestamp_ns
from reflex_core.records.trace.parse import TraceError, recorded
from reflex_core.replay.carry_over import CarryOver
from reflex_core.replay.diff_report import Report, writing
from reflex_core.replay.target import PolicyTarget, Wanted

Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize("flag", ["--max-abs", "--joint-share"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "0"])
def test_a_tolerance_that_everything_or_nothing_passes_is_refused(
    tmp_path: Path, flag: str, value: str, capsys: Output
) -> None:
    done = command(capsys, tmp_path / "t.jsonl", "--model", "x", f"{flag}={value}")
    assert done.status == 1
    assert f"{flag} must be more than 0, got {float(value):g}" in done.err


@pytest.mark.parametrize("value", ["nan", "inf", "1.5"])
def test_a_cosine_that_no_chunks_have_is_refused(tmp_path: Path, value: str, capsys: Output) -> None:
    done = command(capsys, tmp_path / "t.jsonl", "--model", "x", "--min-cos", value)
    assert (done.status, "--min-cos must be from -1 to 1" in done.err) == (1, True)


@pytest.mark.parametrize(
    "words",
    [
        ["--diff", "actions"], ["--min-cos", "0.999"], ["--max-abs", "0.1"], ["--joint-share", "0.1"],
        ["--device", "auto"],
    ],
)  # fmt: skip
def test_what_compares_has_no_use_while_publishing(tmp_path: Path, words: list[str], capsys: Output) -> None:
    done = command(capsys, tmp_path / "t.jsonl", "--publish", *words)
    assert (done.status, f"{words[0]} does not go with --publish" in done.err) == (1, True)


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "1"], ["--clock"], ["--wait-s", "30"], ["--with-controller"], ["--ros-args", "-r", "__ns:=/arm"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("without", [["--model", "x"], ["--no-replay"]])
def test_what_publishes_has_no_use_without_publish(
    tmp_path: Path, words: list[str], without: list[str], capsys: Output
) -> None:
    done = command(capsys, tmp_path / "t.jsonl", *without, *words)
    assert (done.status, f"{words[0]} goes with --publish alone" in done.err) == (1, True)


@pytest.mark.parametrize("mode", ["--no-replay", "--model"])
@pytest.mark.parametrize("buffered", [True, False])
def test_an_output_on_a_full_disk_is_a_sentence(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, mode: str, buffered: bool
) -> None:
    trace = record(make_engine, tmp_path / "traces", "decomposed", count=1)
    words = [mode] if mode == "--no-replay" else [mode, str(export_dir("decomposed"))]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, *([] if buffered else ["-u"]), "-m", "reflex_ros.cli.main", "replay", str(trace), *words],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"cannot be written: {os.strerror(errno.ENOSPC)}")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_report_on_a_full_disk_names_the_report(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path / "traces", "decomposed", count=1)
    with tiny_disk(tmp_path / "tiny", 1 << 20) as disk:
        disk.fill()
        report = disk.path / "report.json"
        done = command(capsys, trace, "--model", export_dir("decomposed"), "--output", report)
        disk.free()
    assert done.status == 1
    assert f"--output {report}: cannot be written" in done.err


def test_a_report_says_which_one_cannot_be_written() -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(TraceError, match="--output r.json"),
    ):
        Report(full, {}, "r.json")
    with pytest.raises(BrokenPipeError), writing("-"):
        raise BrokenPipeError


@pytest.mark.parametrize(
    ("threshold", "expected"), [(2, 2.0), (0.25, 0.25), (0, 0.5), (True, 0.5), ("2", 0.5), (None, 0.5)]
)
def test_a_threshold_that_was_recorded_as_a_whole_number_holds(
    make_engine: MakeEngine, threshold: object, expected: float
) -> None:
    loaded = make_engine("decomposed_per_step", embodiment="franka").loaded
    assert loaded is not None
    policy = loaded.policy
    target = PolicyTarget(policy, Wanted(Path("x")), True, Adaptive(0.5, 2), CarryOver(policy, {}, True))
    document: dict[str, Any] = {
        "seq": 0, "request": {"instruction": "pick"}, "response": {"actions": []}, "latency": {"total_ms": 1.0},
        "denoise": {"adaptive": True, "threshold": threshold},
    }  # fmt: skip
    sampling = target.sampling(recorded(document, "trace:1"))
    assert sampling.adaptive is not None
    assert sampling.adaptive.threshold == expected


def test_times_and_modes_of_a_trace_are_read_in_one_way() -> None:
    assert timestamp_ns("2026-04-24T17:13:05.250Z") == 1_777_050_785_250_000_000
    assert timestamp_ns("2026-04-24T19:13:05.250001+02:00") == 1_777_050_785_250_001_000
    assert timestamp_ns("yesterday") is None
    assert image_mode({"redaction": {"image": "full"}}) == "full"
    assert image_mode({"redaction": "none"}) is None
    assert image_mode({}) is None
