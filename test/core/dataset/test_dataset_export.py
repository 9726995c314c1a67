# SPDX-License-Identifier: Apache-2.0
"""`reflex trace export --format npz`: which requests become frames, what is in a frame, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bags import bags, inference
from bags import recorder as bag_recorder
from dataset_traces import DT_NS, HORIZON, START_NS, exported, index_of, question, recorder, reply, trace_of
from recordings import jpeg, picture, tiny_disk
from replays import Document, edited, record
from repository import FIXTURES, ROOT
from servers import MakeEngine
from traces import SESSION

from reflex_core.images.raw_encodings import rgb
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, Frame

Output = pytest.CaptureFixture[str]
FOREIGN = FIXTURES / "traces"
PAGE = ROOT / "docs" / "how-to" / "export-a-dataset.md"


def test_every_request_is_a_frame_of_its_episode(tmp_path: Path, capsys: Output) -> None:
    trace = trace_of(tmp_path / "traces", ["one", "two", "one", "two", "one"])  # two robots at once
    done = exported(capsys, trace, "--format", "npz", "--output", tmp_path / "set")
    assert done.status == 0, done.err
    assert "5 frames of 2 episodes, 2 instructions" in done.out
    assert "cameras: base 32x32, wrist 24x24" in done.out
    with np.load(tmp_path / "set" / "episode_000000.npz", allow_pickle=False) as made:
        assert made["episode_id"] == "one"
        assert made["seqs"].tolist() == [0, 2, 4]
        assert made["instructions"].tolist() == ["pick the plate"] * 3
        assert made["times_ns"].tolist() == [START_NS + number * 10 * DT_NS for number in (0, 2, 4)]
        np.testing.assert_allclose(made["times_s"], [0.0, 1.0, 2.0])
        np.testing.assert_array_equal(made["states"][1], np.arange(7) + 2)
        np.testing.assert_array_equal(made["chunks_raw"], 2 * made["chunks_served"])
        assert made["chunks_served"].shape == (3, HORIZON, 7)
        assert made["dt_s"] == 0.05
        assert made["action_names"].tolist() == [f"panda_joint{number}" for number in range(1, 8)]
        np.testing.assert_array_equal(made["images_base"][2], rgb(Frame(jpeg(32, seed=4), "jpeg")))
        np.testing.assert_array_equal(made["images_wrist"][2], picture(24, seed=4))
    episodes = index_of(tmp_path / "set")["episodes"]
    assert [(episode["frames"], episode["clock"]) for episode in episodes] == [(3, "sensor"), (2, "sensor")]


def test_the_executed_action_is_the_row_at_which_the_robot_was(tmp_path: Path, capsys: Output) -> None:
    """The observation was 60 ms old and the answer took 70 ms: two rows of 50 ms are over."""
    trace = trace_of(tmp_path / "traces", ["one"] * 3)
    assert exported(capsys, trace, "--format", "npz", "--output", tmp_path / "set").status == 0
    with np.load(tmp_path / "set" / "episode_000000.npz") as made:
        assert made["executed_rows"].tolist() == [2, 2, 2]
        np.testing.assert_array_equal(made["actions"], made["chunks_served"][:, 2])


def test_what_the_policy_did_not_say_is_left_out_and_counted(tmp_path: Path, capsys: Output) -> None:
    trace = recorder(tmp_path / "traces")
    request = question(0)
    answer = reply(request, 0)
    trace(request, answer)
    for source in (HOLD, LAST_KNOWN_GOOD, LAST_KNOWN_GOOD, CLOUD):
        trace(request, replace(answer, chunk=replace(answer.chunk, source=source)))
    trace.error(request, "inference-failed", "no")
    trace(replace(request, observation=replace(request.observation, state=None)), answer)
    wild = answer.raw_actions.copy()
    wild[0, 0] = np.nan
    trace(request, replace(answer, raw_actions=wild))
    trace(request, replace(answer, latency_ms=600.0))  # the chunk is 500 ms long
    early = replace(request.observation, stamp_ns=START_NS - 1)
    trace(replace(request, observation=early), answer)
    trace(replace(request, observation=replace(request.observation, frames={})), answer)
    trace(replace(request, observation=replace(request.observation, stamp_ns=0)), answer)
    one_camera = {"base": request.observation.frames["base"]}
    trace(replace(request, observation=replace(request.observation, frames=one_camera)), answer)
    trace(replace(request, observation=replace(request.observation, state=np.zeros(8, np.float32))), answer)
    trace.close()
    (path,) = (tmp_path / "traces").glob("*.jsonl")
    done = exported(capsys, path, "--format", "npz", "--output", tmp_path / "set")
    assert done.status == 0, done.err
    assert index_of(tmp_path / "set")["left_out"] == {
        "hold": 1, "last_known_good": 2, "cloud": 1, "error": 1, "no state": 1, "not finite": 1, "expired": 1,
        "out of order": 1, "no stamp": 1, "no picture": 1, "other cameras": 1, "other state": 1,
    }  # fmt: skip
    assert "left out: cloud 1, error 1, expired 1, hold 1, last_known_good 2" in done.out
    assert "1 frames of 1 episodes" in done.out


def test_requests_without_an_episode_are_one_episode_per_trace_and_said(
    tmp_path: Path, capsys: Output
) -> None:
    paths = [trace_of(tmp_path / name, [None, None]) for name in "ab"]
    done = exported(capsys, *paths, "--format", "npz", "--output", tmp_path / "set")
    assert done.status == 0
    assert "WARN: 4 requests belong to no episode" in done.out
    assert [episode["frames"] for episode in index_of(tmp_path / "set")["episodes"]] == [2, 2]


def test_an_episode_may_reach_into_the_next_file_of_its_session(tmp_path: Path, capsys: Output) -> None:
    trace = recorder(tmp_path / "traces")
    for number in range(3):
        request = question(number)
        trace(request, reply(request, number))
    trace.describe(replace(SESSION, notes="reloaded"))
    for number in range(3, 5):
        request = question(number)
        trace(request, reply(request, number))
    trace.close()
    parts = sorted((tmp_path / "traces").glob("*.jsonl"))
    assert len(parts) == 2
    done = exported(capsys, *reversed(parts), "--format", "npz", "--output", tmp_path / "set")
    assert "5 frames of 1 episodes" in done.out
    with np.load(tmp_path / "set" / "episode_000000.npz") as made:
        assert made["seqs"].tolist() == [0, 1, 2, 3, 4]


def test_without_a_terminal_progress_is_plain_lines(tmp_path: Path, capsys: Output) -> None:
    trace = trace_of(tmp_path / "traces", ["one"] * 4)
    done = exported(capsys, trace, "--format", "npz", "--output", tmp_path / "set")
    lines = done.err.splitlines()
    assert re.fullmatch(r" *\d+%  \d+ requests  \d+/s", lines[0])
    assert lines[-1].startswith("100%")
    assert len(lines) <= 11
    assert "\r" not in done.err


def test_pictures_of_a_hash_only_trace_are_found_by_their_hash(tmp_path: Path, capsys: Output) -> None:
    trace = trace_of(tmp_path / "traces", ["one"] * 2, images="hash_only")
    arguments = (trace, "--format", "npz", "--output", tmp_path / "set")
    refused = exported(capsys, *arguments)
    assert refused.status == 1
    assert "only hashes of the pictures were recorded: name the directory" in refused.err
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        (pictures / f"{number}.jpg").write_bytes(jpeg(32, seed=number))
        (pictures / f"{number}.ppm").write_bytes(b"P6\n24 24\n255\n" + picture(24, seed=number).tobytes())
    assert exported(capsys, *arguments, "--images", pictures).status == 0
    with np.load(tmp_path / "set" / "episode_000000.npz") as made:
        np.testing.assert_array_equal(made["images_wrist"][1], picture(24, seed=1))
    (pictures / "1.ppm").unlink()
    missing = exported(capsys, trace, "--format", "npz", "--output", tmp_path / "set2", "--images", pictures)
    assert missing.status == 1
    assert "seq 1: camera 'wrist': only the hash" in missing.err
    assert not (tmp_path / "set2").exists()


def test_a_trace_without_pictures_is_refused_by_name(tmp_path: Path, capsys: Output) -> None:
    trace = trace_of(tmp_path / "traces", ["one"], images="none")
    done = exported(capsys, trace, "--format", "npz", "--output", tmp_path / "set")
    assert done.status == 1
    assert f"{trace}: was recorded with --record-images none" in done.err


def test_a_trace_that_was_cut_off_is_exported_only_when_that_is_allowed(
    tmp_path: Path, capsys: Output
) -> None:
    trace = trace_of(tmp_path / "traces", ["one"] * 3)
    data = trace.read_bytes()
    trace.write_bytes(data[: data.rindex(b'{"kind":"request"') + 500])
    arguments = (trace, "--format", "npz", "--output", tmp_path / "set")
    done = exported(capsys, *arguments)
    assert done.status == 1
    assert "cut off by a hard stop" in done.err
    assert "--allow-damage exports the rest" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["traces"]
    allowed = exported(capsys, *arguments, "--allow-damage")
    assert allowed.status == 0
    assert "2 frames of 1 episodes" in allowed.out
    assert "WARN: " in allowed.out


def _damaged_picture(document: Document) -> None:
    if document["seq"] == 1:
        document["request"]["image_b64"] = document["request"]["image_b64"][:300]


def _other_joints(document: Document) -> None:
    if document["seq"] == 1:
        document["response"]["names"] = [f"ur_{name}" for name in document["response"]["names"]]


def _no_time(document: Document) -> None:
    document["request"]["stamp_ns"] = 0
    document["timestamp"] = "yesterday"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_damaged_picture, "seq 1, camera 'base': the image is a damaged JPEG"),
        (_other_joints, "seq 1: a dataset has one action_names for all frames"),
        (_no_time, "seq 0: has no stamp, and its timestamp 'yesterday' is no time"),
        (lambda document: document["response"].update(source="hold"), "got: hold 3"),
        (lambda document: document.update(seq=-1), "seq must be a whole number"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence_and_leaves_nothing(
    change: object, message: str, tmp_path: Path, capsys: Output
) -> None:
    trace = edited(trace_of(tmp_path / "traces", ["one"] * 3), change)  # type: ignore[arg-type]
    done = exported(capsys, trace, "--format", "npz", "--output", tmp_path / "set")
    assert done.status == 1
    assert message in done.err
    assert [line for line in done.err.splitlines() if "requests" not in line or ": " in line] == [
        done.err.splitlines()[-1]
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["traces"]


def test_a_dataset_never_overwrites_anything(tmp_path: Path, capsys: Output) -> None:
    trace = trace_of(tmp_path / "traces", ["one"])
    (tmp_path / "set").mkdir()
    arguments = (trace, "--format", "npz", "--output", tmp_path / "set")
    assert exported(capsys, *arguments).status == 0  # an empty directory is no dataset
    again = exported(capsys, *arguments)
    assert again.status == 1
    assert "is there already" in again.err
    (tmp_path / "new.part").mkdir()
    half = exported(capsys, trace, "--format", "npz", "--output", tmp_path / "new")
    assert half.status == 1
    assert "cut off: remove it" in half.err
    assert (tmp_path / "new.part").is_dir()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, capsys: Output) -> None:
    trace = trace_of(tmp_path / "traces", ["one"] * 3)
    with tiny_disk(tmp_path / "tiny", 1 << 20) as disk:
        disk.fill()
        done = exported(capsys, trace, "--format", "npz", "--output", disk.path / "set")
        disk.free()
        assert done.status == 1
        assert "set: cannot be written: " in done.err
        assert not list(disk.path.glob("set*"))


def test_traces_of_another_writer_are_exported_by_the_time_of_their_records(
    tmp_path: Path, capsys: Output
) -> None:
    (trace,) = FOREIGN.glob("*-bca0808c*.gz")
    done = exported(capsys, trace, "--format", "npz", "--output", tmp_path / "set")
    assert done.status == 0, done.err
    (episode,) = index_of(tmp_path / "set")["episodes"]
    assert (episode["frames"], episode["clock"]) == (8, "record")
    assert index_of(tmp_path / "set")["left_out"] == {
        "error": 1,
        "no picture": 1,
        "no state": 1,
        "other state": 1,
    }
    with np.load(tmp_path / "set" / episode["file"]) as made:
        assert made["executed_rows"].tolist() == [0] * 8
        assert np.isnan(made["dt_s"])
        assert (np.diff(made["times_s"]) >= 0).all()


def test_a_bag_is_exported_with_the_pictures_that_inference_consumed(tmp_path: Path, capsys: Output) -> None:
    recording = bag_recorder(tmp_path / "bags", "mcap")
    for number in range(3):
        inference(recording, number)
    recording.close()
    (bag,) = bags(tmp_path / "bags")
    done = exported(capsys, bag, "--format", "npz", "--output", tmp_path / "set")
    assert done.status == 0, done.err
    with np.load(tmp_path / "set" / "episode_000000.npz") as made:
        assert made["episode_id"] == "ep-1"
        np.testing.assert_array_equal(made["images_base"][2], picture(32, 2)[..., ::-1])  # it was bgr8


def test_half_characters_do_not_end_an_export(tmp_path: Path, capsys: Output) -> None:
    def spoil(document: Document) -> None:
        document["request"]["instruction"] = "pick \ud800"

    trace = edited(trace_of(tmp_path / "traces", ["one"]), spoil)
    for kind in ("npz", "lerobot"):
        assert exported(capsys, trace, "--format", kind, "--output", tmp_path / kind).status == 0
    with np.load(tmp_path / "npz" / "episode_000000.npz") as made:
        assert made["instructions"].tolist() == ["pick ?"]


def test_the_commands_of_the_page_work(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = record(make_engine, tmp_path / "recorded", "decomposed", record_no_gzip=False)
    (tmp_path / "traces").mkdir()
    shutil.copy(trace, tmp_path / "traces" / "one.jsonl.gz")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^reflex trace export (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 2
    for line in commands:
        arguments = shlex.split(line.replace("traces/*.jsonl.gz", "traces/one.jsonl.gz"))
        assert exported(capsys, *arguments).status == 0
    assert (
        json.loads((tmp_path / "datasets" / "reach" / "meta" / "info.json").read_text())["total_frames"] == 3
    )
