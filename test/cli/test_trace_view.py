# SPDX-License-Identifier: Apache-2.0
"""`reflex trace view`: what is written for the Rerun viewer, read by Rerun's own reader."""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bags import bags, inference, recorder
from episodes_recorded import EVIL, FAST, documents, write
from rerun_files import chunks, numbers, opens_in_rerun, texts
from servers import Server

from reflex_ros.cli.main import main

JOINT = "/joints/panda_joint2"


def view(*words: object) -> int:
    try:
        return main(["trace", "view", *map(str, words)])
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return write(tmp_path / "a.jsonl.gz", documents())


def test_the_file_opens_and_holds_images_joints_limits_guard_latency_and_instruction(
    records: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.rrd"
    assert view(records, "--headless", "--out", out) == 0
    assert opens_in_rerun(out)
    found = chunks(out)
    rows = {
        path: sum(chunk.num_rows for chunk in there if not chunk.is_static) for path, there in found.items()
    }
    assert rows["/cameras/wrist"] == 9
    assert rows[f"{JOINT}/measured"] == 9
    assert rows["/latency/total_ms"] == 9
    assert rows["/guard"] == 6
    assert texts(found["/instruction"]) == ["reach the red block", "pick the green cube", EVIL]
    assert set(numbers(found[f"{JOINT}/limit_max"])) == {2.9}
    assert {timeline for there in found.values() for chunk in there for timeline in chunk.timeline_names} >= {
        "time",
        "record",
    }
    assert any(FAST in text for text in texts(found["/guard"]))
    assert any("outcome failed: stopped short" in text for text in texts(found["/episode"]))
    assert chunks(out, recording=False), "a blueprint arranges the windows"


def test_whole_chunks_are_fans_and_raw_is_drawn_where_the_guard_changed_it(
    records: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.rrd"
    assert view(records, "--headless", "--out", out, "--episode", "grasp-17") == 0
    found = chunks(out)
    served = {path: numbers(there) for path, there in found.items() if path.startswith(f"{JOINT}/served/")}
    assert sum(map(len, served.values())) == 3 * 10, "every row of every chunk"
    assert len(served) == 2, (
        "half a second apart, chunks of half a second and their gap take turns on two lines"
    )
    raw = [
        value for path, there in found.items() if path.startswith(f"{JOINT}/raw/") for value in numbers(there)
    ]
    assert len(raw) == 3 * 10
    differences = np.sort(np.concatenate([*served.values()])) != np.sort(raw)
    assert differences.any()
    commanded = numbers(found[f"{JOINT}/commanded"])
    assert len(commanded) < 3 * 10, "until the next chunk begins"


def test_a_selection_and_bounds_leave_the_rest_out_with_a_sentence(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.rrd"
    assert view(records, "--headless", "--out", out, "--max-episodes", "2", "--max-records", "4") == 0
    shown = capsys.readouterr()
    assert "4 records of 2 episodes" in shown.out
    assert "1 older episodes are left out" in shown.err
    assert "2 of 6 records are left out: --max-records 4" in shown.err
    assert view(records, "--headless", "--out", out, "--outcome", "failed", "--image-size", "8") == 0
    assert "3 records of 1 episodes" in capsys.readouterr().out


def test_a_trace_that_is_cut_off_is_viewed_as_far_as_it_goes(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, out = tmp_path / "cut.jsonl.gz", tmp_path / "cut.rrd"
    whole = records.read_bytes()
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    assert view(cut, "--headless", "--out", out) == 0
    assert "the gzip stream has no end" in capsys.readouterr().err
    assert opens_in_rerun(out)


def test_a_bag_is_viewed(tmp_path: Path) -> None:
    writer = recorder(tmp_path, "mcap")
    for number in range(3):
        inference(writer, number)
    writer.close()
    [bag] = bags(tmp_path)
    out = tmp_path / "bag.rrd"
    assert view(bag, "--headless", "--out", out) == 0
    assert sum(chunk.num_rows for chunk in chunks(out)["/cameras/base"]) == 3


def test_recorded_names_are_no_paths(tmp_path: Path) -> None:
    found = documents(["good-1"])
    for document in found:
        if "response" in document:
            document["response"]["names"] = [f"../{number}/x y\x1b" for number in range(7)]
    out = tmp_path / "a.rrd"
    assert view(write(tmp_path / "a.jsonl", found), "--headless", "--out", out) == 0
    assert opens_in_rerun(out)
    drawn = [path for path in chunks(out) if path.endswith("/commanded") and "x\\ y" in path]
    assert len(drawn) == 7
    assert all(path.startswith("/joints/") and "\x1b" not in path for path in drawn)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--headless"], "name the file with --out FILE.rrd"),
        (["--headless", "--out", "x.html"], "must end with .rrd"),
        (["--headless", "--out", "/nowhere/x.rrd"], "/nowhere/x.rrd"),
        (["--headless", "--out", "x.rrd", "--episode", "none"], "no episode with --episode none among the 3"),
    ],
)
def test_what_cannot_be_written_is_a_sentence(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: Sequence[str], sentence: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert view(records, *words) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_without_rerun_a_sentence_names_the_command_and_the_other_way(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "rerun":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.delitem(sys.modules, "rerun", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    assert view(records, "--headless", "--out", "x.rrd") == 1
    error = capsys.readouterr().err
    assert "pip install 'reflex_ros[view]'" in error
    assert "reflex trace report" in error


def test_a_live_server_is_viewed_from_now_on(serve: Callable[..., Server], tmp_path: Path) -> None:
    server, out, status = serve("mono_pi0_7"), tmp_path / "live.rrd", list[int]()
    words = (f"http://127.0.0.1:{server.sidecar.port}", "--headless", "--out", out, "--max-records", "3")
    viewer = threading.Thread(target=lambda: status.append(view(*words)))
    viewer.start()
    while viewer.is_alive():  # what is answered before the first poll is not kept
        assert server.client.act().status == 200
    assert status == [0]
    assert opens_in_rerun(out)
    found = chunks(out)
    assert sum(chunk.num_rows for chunk in found["/latency/total_ms"]) == 3
    assert "/cameras/camera" in found
    assert numbers(found[f"{JOINT}/limit_max"]), "the limits in force are those of the server"


def test_a_server_that_is_not_there_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert view("http://127.0.0.1:9", "--headless", "--out", tmp_path / "x.rrd") == 1
    assert "cannot be reached" in capsys.readouterr().err
