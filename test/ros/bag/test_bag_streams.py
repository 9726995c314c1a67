# SPDX-License-Identifier: Apache-2.0
"""Bags that hold whole streams: what is in them, what a replay finds, and the LeRobot dataset at the policy's rate."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bags import messages
from pyarrow import parquet
from recordings import tiny_disk
from ros_world import wait_for
from rosbags.rosbag2 import Reader
from std_msgs.msg import String
from stream_bags import (
    BASE,
    CAMERA_MS,
    DT_S,
    FPS,
    JOINTS,
    LAG_NS,
    SIZE,
    START_NS,
    TELEOP_OFFSET,
    WRIST,
    StreamBag,
    two_episodes,
)

from reflex_core.images.raw_encodings import rgb
from reflex_core.records.trace.hashing import frame_from
from reflex_ros.bag.reindex import reindex
from reflex_ros.bag.source import BagSource
from reflex_ros.bag.topic_types import STRING, definitions, serialised
from reflex_ros.cli.main import main
from reflex_ros.messages.raw import RawMessage

Output = pytest.CaptureFixture[str]
FIRST_MS = 100  # the first command
MARGIN_S = 1e-4  # float32 of seconds
STORAGES = pytest.mark.parametrize("storage", ["mcap", "sqlite3"])


def exported(bag: Path, output: Path, *options: str) -> list[dict[str, Any]]:
    """The frames of the dataset that the real command makes of a bag."""
    assert main(["trace", "export", str(bag), "--format", "lerobot", "--output", str(output), *options]) == 0
    return [
        row
        for file in sorted(output.glob("data/*/*.parquet"))
        for row in parquet.read_table(file).to_pylist()
    ]


def info(dataset: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((dataset / "meta/info.json").read_text())
    return found


@STORAGES
def test_every_message_is_in_the_bag_once_and_a_replay_finds_the_images_it_consumed(
    tmp_path: Path, storage: str
) -> None:
    made = StreamBag(tmp_path, storage)
    made.run(3000)
    path = made.close()
    counts = Counter(topic for topic, _, _ in messages(path))
    assert {topic: counts[topic] for topic in made.sent} == made.sent
    assert (made.sent[BASE], made.sent[WRIST], made.sent[JOINTS]) == (91, 46, 300)
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for t, _, m in messages(path) if t == BASE]
    assert set(np.diff(stamps)) == {CAMERA_MS * 1_000_000}
    assert made.recorder.dropped == 0
    with BagSource(path) as source:
        records = list(source)
        assert source.damage == []
    assert [set(record.images) for record in records] == [{"base", "wrist"}] * 7
    for record in records:  # the newest image that had come when the answer was made, and no other
        inferred_ms = (record.stamp_ns + LAG_NS - START_NS) // 1_000_000
        pixels = np.asarray(rgb(record.images["base"].frame()))
        assert pixels.max() == pixels.min() == inferred_ms // CAMERA_MS


def test_a_record_long_after_its_image_still_finds_it(tmp_path: Path) -> None:
    made = StreamBag(tmp_path)
    made.run(150)
    base, wrist = made._newest[BASE], made._newest[WRIST]
    joints = made._newest[JOINTS]
    made.person = (0, 0)
    for ms in range(150, 2000):
        made.now_ns += 1_000_000
        made.sense(ms)
    made._newest |= {BASE: base, WRIST: wrist, JOINTS: joints}  # an inference that took two seconds
    made.ask(2000, "ep-1", "pick the cup", executed=False)
    path = made.close()
    with BagSource(path) as source:
        assert [record.images["base"].data() is not None for record in source] == [True, True]
        assert source.damage == []


def test_with_consumed_streams_a_bag_is_what_it_was(tmp_path: Path) -> None:
    made = StreamBag(tmp_path)
    made.recorder.full_rate = False
    made.run(2000)
    counts = Counter(topic for topic, _, _ in messages(made.close()))
    assert (counts[BASE], counts[JOINTS]) == (4, 4)  # one for each inference


def test_a_dataset_at_the_rate_of_the_policy_has_the_newest_of_each_stream_and_what_was_sent(
    tmp_path: Path, capsys: Output
) -> None:
    frames = exported(two_episodes(tmp_path / "bags"), tmp_path / "set")
    assert info(tmp_path / "set")["fps"] == FPS
    assert f"frames per second: {FPS}" in capsys.readouterr().out
    first = [frame for frame in frames if frame["episode_index"] == 0]
    assert len(first) == 58  # from 0.1 s until the hold at 3.0 s, every 50 ms
    for number, frame in enumerate(first):
        now_s = FIRST_MS * 1e-3 + number * DT_S
        assert frame["record.time_s"] == pytest.approx(number * DT_S)
        assert frame["timestamp"] == pytest.approx(number / FPS)
        # the newest joints and the newest image that were stamped by then
        assert now_s - 0.01 - MARGIN_S < frame["observation.state"][0] <= now_s + MARGIN_S
        image = np.asarray(rgb(frame_from(frame["observation.images.base"]["bytes"])))
        assert image.max() == image.min() == int(now_s * 1e3 + 0.5 + LAG_NS * 1e-6) // CAMERA_MS
        assert image.shape == (SIZE, SIZE, 3)
        # where the robot was led to within the next period
        of_person = 1.0 <= now_s < 2.0 - MARGIN_S
        due_s = frame["action"][0] - TELEOP_OFFSET * of_person
        assert due_s == pytest.approx(now_s + DT_S, abs=MARGIN_S)
        assert frame["record.takeover"] is of_person
        assert frame["record.control"] == ("teleop" if of_person else "policy")


def test_episodes_have_their_instruction_and_outcome(tmp_path: Path) -> None:
    frames = exported(two_episodes(tmp_path / "bags"), tmp_path / "set")
    tasks = parquet.read_table(tmp_path / "set/meta/tasks.parquet").to_pylist()
    names = {row["task_index"]: row["__index_level_0__"] for row in tasks}
    found = {
        (row["episode_index"], names[row["task_index"]], row["record.outcome"], row["record.takeover"]) for row in frames
    }  # fmt: skip
    assert found == {
        (0, "pick the cup", "success", False),
        (0, "pick the cup", "success", True),
        (1, "put it back", "unknown", False),
    }


def test_another_rate_and_single_requests_can_be_had(tmp_path: Path, capsys: Output) -> None:
    bag = two_episodes(tmp_path / "bags")
    frames = exported(bag, tmp_path / "fast", "--fps", "50")
    assert info(tmp_path / "fast")["fps"] == 50
    assert len([frame for frame in frames if frame["episode_index"] == 0]) == 145
    requests = exported(bag, tmp_path / "requests", "--per-request")
    assert "chunk.raw" in requests[0]
    capsys.readouterr()
    for option, why in (("0", "whole number"), ("x", "whole number"), ("1001", "whole number")):
        with pytest.raises(SystemExit):
            main(
                [
                    "trace",
                    "export",
                    str(bag),
                    "--format",
                    "lerobot",
                    "--output",
                    str(tmp_path / "n"),
                    "--fps",
                    option,
                ]
            )
        assert why in capsys.readouterr().err
    assert (
        main(["trace", "export", str(bag), "--format", "npz", "--output", str(tmp_path / "n"), "--fps", "10"])
        == 1
    )
    assert "--fps" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()


def test_a_camera_that_falls_silent_ends_the_stretch_and_nothing_is_made_up(
    tmp_path: Path, capsys: Output
) -> None:
    made = StreamBag(tmp_path / "bags", silent_camera=(1500, 2300), person=(0, 0))
    made.run(3000)
    frames = exported(made.close(), tmp_path / "set")
    assert "no fresh image" in capsys.readouterr().out
    stretches = {frame["episode_index"] for frame in frames}
    assert stretches == {0, 1}
    starts = [
        next(row["observation.state"][0] for row in frames if row["episode_index"] == number)
        for number in stretches
    ]
    ends = [
        [row["observation.state"][0] for row in frames if row["episode_index"] == number][-1]
        for number in stretches
    ]
    assert ends[0] < 1.5 + 0.3 + 0.01
    assert starts[1] >= 2.29


def test_after_a_kill_the_reindexed_bag_gives_the_same_frames(tmp_path: Path) -> None:
    made = StreamBag(tmp_path / "bags")
    made.run(3000)
    wait_for(lambda: made.recorder.written > sum(made.sent.values()), "it is on the disk")
    (copy := tmp_path / "killed").mkdir()
    (live,) = (each for each in (tmp_path / "bags").iterdir())
    for file in live.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    whole = made.close()
    reindex(copy)
    assert exported(copy, tmp_path / "from_killed") == exported(whole, tmp_path / "from_whole")


def test_a_split_bag_gives_one_dataset(tmp_path: Path) -> None:
    bag = two_episodes(tmp_path / "bags", options={"split_bytes": 150_000})
    assert len(list(bag.glob("*.mcap"))) > 2
    whole = two_episodes(tmp_path / "whole")
    assert exported(bag, tmp_path / "one") == exported(whole, tmp_path / "other")


def test_what_the_queue_has_no_room_for_is_counted_and_logged_and_commands_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = StreamBag(tmp_path, options={"max_queue_bytes": 50_000})
    may_write, put = threading.Event(), made.recorder._put

    def slow(*arguments: Any) -> None:
        may_write.wait()
        put(*arguments)

    monkeypatch.setattr(made.recorder, "_put", slow)
    with caplog.at_level(logging.WARNING):
        made.run(1000)  # a megabyte of images, while the disk does not take any
        may_write.set()
        path = made.close()
    assert made.recorder.dropped > 10
    lines = [record.message for record in caplog.records if "the bag lacks" in record.message]
    assert len(lines) == 1
    counts = Counter(topic for topic, _, _ in messages(path))
    assert counts["/reflex/action_chunk"] == made.sent["/reflex/action_chunk"]
    assert sum(made.sent[topic] - counts[topic] for topic in (BASE, WRIST, JOINTS)) >= 10


def test_after_a_full_disk_the_next_bag_has_the_images_of_its_answers(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 2 << 20) as disk:
        made = StreamBag(disk.path / "bags", person=(0, 0), options={"retry_s": 0.0})
        made.run(600)
        wait_for(lambda: made.recorder.written > sum(made.sent.values()), "the first messages are written")
        disk.fill()
        ms = iter(range(700, 1 << 20, 100))
        wait_for(lambda: made.run(next(ms)) or made.recorder.problem, "the disk is full")
        disk.free()
        base = made._newest[BASE]
        made.recorder.noted(lambda timestamp: {"kind": "note", "schema_version": 1, "timestamp": timestamp})
        wait_for(lambda: not made.recorder.problem, "it records again")
        made.ask(0, "ep-1", "pick the cup", executed=True)
        made.recorder.close(60.0)
        second = sorted(path for path in (disk.path / "bags").iterdir() if path.is_dir())[-1]
        with BagSource(second) as source:
            last = list(source)[-1]
            assert source.damage == []
        assert set(last.images) == {"base", "wrist"}
        with Reader(second) as reader:
            times = [time_ns for c, time_ns, _ in reader.messages() if c.topic == BASE]
        assert base.received_ns in times


@STORAGES
def test_a_simulators_restart_begins_another_bag_so_that_two_runs_are_never_mixed_by_time(
    tmp_path: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = StreamBag(tmp_path / "bags", storage)
    made.run(2000)
    text = serialised(String(data="pick the cup"), STRING, definitions())
    made.recorder.received(RawMessage("/instruction", STRING, text, made.now_ns, made.now_ns))
    made.run(3000)
    made.now_ns = START_NS  # an answer that was under way, to what was sensed before
    made.ask(0, "ep-1", "pick the cup", executed=False)
    made.run(1500, "ep-2", "put it back")
    made.recorder.close(60.0)
    bags = sorted(each for each in made.folder.iterdir() if each.is_dir())
    assert len(bags) == 2
    assert "the clock jumped back" in caplog.text
    episodes = []
    for bag in bags:
        with BagSource(bag) as source:
            episodes.append([record.episode_id for record in source])
        times = [time for topic, time, _ in messages(bag) if topic in (JOINTS, BASE, "/instruction")]
        assert max(times) < START_NS + 3 * 10**9
    assert episodes == [["ep-1"] * 7, ["ep-1", *["ep-2"] * 3]]
    assert max(time for _, time, _ in messages(bags[1])) <= START_NS + 1500 * 10**6
    counts = Counter(topic for bag in bags for topic, _, _ in messages(bag))
    assert {topic: counts[topic] for topic in made.sent} == made.sent
