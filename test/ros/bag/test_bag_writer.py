# SPDX-License-Identifier: Apache-2.0
"""Bags as they are written: what is in them, what a kill -9 leaves, and what a full disk does."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from bags import (
    CAMERA,
    COMPRESSED,
    JOINTS,
    START_NS,
    TRACE,
    arrival,
    arrivals,
    bags,
    compressed,
    image,
    inference,
    messages,
)
from bags import recorder as recorder_of
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from recordings import jpeg, make_request, served, tiny_disk
from reflex_ros.msg import ActionChunk
from repository import ROOT, SUPPORT
from ros_world import wait_for
from rosbags.interfaces import QosReliability
from rosbags.rosbag2 import Reader
from std_msgs.msg import String

from reflex_core.errors import ConfigurationError
from reflex_core.records.trace.hashing import encoded
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.schema import Failure
from reflex_ros.bag.reindex import BagError, reindex
from reflex_ros.bag.source import BagSource
from reflex_ros.cli.main import main
from reflex_ros.messages.raw import Consumed

STORAGES = pytest.mark.parametrize("storage", ["mcap", "sqlite3"])


@STORAGES
def test_what_was_consumed_is_in_the_bag_byte_for_byte(tmp_path: Path, storage: str) -> None:
    recorder = recorder_of(tmp_path, storage)
    for number in range(5):
        inference(recorder, number)
    chunk = ActionChunk(names=["a"], data=[0.1, 0.2], trace_seq=3)
    recorder.sent("/reflex/action_chunk", chunk)
    recorder.close()
    (path,) = bags(tmp_path)
    assert path.name.endswith("-0123456789abcdef")
    with Reader(path) as reader:
        raw = [(c.topic, time, data) for c, time, data in reader.messages()]
    cameras = [(time, data) for topic, time, data in raw if topic == CAMERA]
    assert cameras == [(START_NS + n * 20_000_000, arrivals(n, 32)[0].raw) for n in range(5)]
    decoded = {topic: message for topic, _, message in messages(path)}
    assert decoded["/reflex/action_chunk"].trace_seq == 3
    assert np.array_equal(decoded["/reflex/action_chunk"].data, np.array([0.1, 0.2], np.float32))
    assert recorder.written == len(raw) == 5 * 3 + 1 + 1  # image, joints and record; the chunk; the header
    assert recorder.dropped == 0


def test_mcap_ros2_support_decodes_it_by_the_embedded_definitions(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path, "mcap")
    inference(recorder, 1)
    recorder.sent("/reflex/action_chunk", ActionChunk(names=["a"], seed=2**63, trace_seq=3))
    recorder.close()
    (file,) = bags(tmp_path)[0].glob("*.mcap")
    with file.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
        found = {channel.topic: message for _, channel, _, message in reader.iter_decoded_messages()}
        summary = reader.get_summary()
    assert found["/reflex/action_chunk"].seed == 2**63
    assert found[CAMERA].data == image(1).data.tobytes()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == 5


@STORAGES
def test_the_metadata_say_what_ros2_bag_play_has_to_offer(tmp_path: Path, storage: str) -> None:
    recorder = recorder_of(tmp_path, storage)
    inference(recorder, 1)
    recorder.close()
    (path,) = bags(tmp_path)
    known = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    topics = {entry["topic_metadata"]["name"]: entry for entry in known["topics_with_message_count"]}
    assert known["storage_identifier"] == storage
    assert topics[CAMERA]["topic_metadata"]["offered_qos_profiles"][0]["reliability"] == "best_effort"
    assert topics[CAMERA]["topic_metadata"]["type_description_hash"].startswith("RIHS01_")
    assert topics[JOINTS]["topic_metadata"]["offered_qos_profiles"][0]["reliability"] == "reliable"
    with Reader(path) as reader:
        profiles = {c.topic: c.ext.offered_qos_profiles[0].reliability for c in reader.connections}
    assert profiles[CAMERA] is QosReliability.BEST_EFFORT


@STORAGES
def test_a_message_that_is_consumed_again_is_written_once(tmp_path: Path, storage: str) -> None:
    recorder = recorder_of(tmp_path, storage)
    camera = arrival(CAMERA, image(0), 0)
    for _ in range(3):
        recorder.answered(make_request(), served(make_request()), Consumed({"base": camera}, []))
    recorder.close()
    assert Counter(topic for topic, _, _ in messages(bags(tmp_path)[0])) == {CAMERA: 1, TRACE: 4}
    with BagSource(bags(tmp_path)[0]) as source:
        assert [record.images["base"].data() is not None for record in source] == [True] * 3


@STORAGES
def test_a_full_file_is_followed_by_another_and_all_are_read_as_one(tmp_path: Path, storage: str) -> None:
    recorder = recorder_of(tmp_path, storage, split_bytes=300_000)
    for number in range(20):
        inference(recorder, number, 128)
        wait_for(lambda done=number: recorder.written >= 3 * (done + 1), "it is written")
    recorder.close()
    (path,) = bags(tmp_path)
    assert len(list(path.glob("*_*.*"))) > 2
    assert [message.height for topic, _, message in messages(path) if topic == CAMERA] == [128] * 20
    with BagSource(path) as source:
        assert [record.seq for record in source] == list(range(20))


WRITER = """
import sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from bags import inference, recorder
found = recorder(Path(sys.argv[1]), sys.argv[2], split_bytes=4_000_000)
for number in range(1 << 30):
    inference(found, number, 96)
    while found.written < 3 * number - 100:
        pass
    print(found.written, flush=True)
"""


@STORAGES
def test_after_a_kill_minus_nine_a_reindex_finds_everything_that_was_flushed(
    tmp_path: Path, storage: str
) -> None:
    paths = [str(SUPPORT), str(ROOT)]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), storage, *paths], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    flushed = 0
    while flushed < 1000:
        flushed = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    (path,) = bags(tmp_path)
    with pytest.raises(TraceError, match="reflex bag reindex"):
        BagSource(path)
    assert main(["bag", "reindex", str(path)]) == 0
    found = messages(path)
    assert len(found) >= flushed
    times = [time for topic, time, _ in found if topic == CAMERA]
    assert times == [START_NS + n * 20_000_000 for n in range(len(times))], "not one is missing in between"
    with BagSource(path) as source:
        seqs = [record.seq for record in source]
        assert source.damage == []
    assert seqs == list(range(len(seqs)))
    assert reindex(path).repaired == (), "a second time there is nothing to repair"


def test_an_mcap_file_that_is_cut_off_anywhere_keeps_what_came_before(tmp_path: Path, whole: Path) -> None:
    (file,) = whole.glob("*.mcap")
    data, total = file.read_bytes(), len(messages(whole))
    kept = []
    for number, size in enumerate(range(1, len(data), len(data) // 50)):
        path = tmp_path / str(number)
        path.mkdir()
        (path / file.name).write_bytes(data[:size])
        kept.append(0)
        with suppress(BagError):
            kept[-1] = reindex(path).messages
            assert len(messages(path)) == kept[-1]
    assert kept == sorted(kept)
    assert len(set(kept)) > 5
    assert (kept[0], kept[-1]) == (0, total)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag of many small chunks."""
    directory = tmp_path_factory.mktemp("whole")
    recorder = recorder_of(directory, "mcap")
    for number in range(12):
        inference(recorder, number, 16)
        wait_for(lambda done=number: recorder.written >= 3 * (done + 1), "it is written")
    recorder.close()
    return bags(directory)[0]


def test_a_reindexed_bag_equals_the_one_that_was_closed(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / whole.name
    shutil.copytree(whole, path)
    (path / "metadata.yaml").unlink()
    (file,) = path.glob("*.mcap")
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 1)
    assert reindex(path).repaired == (file.name,)
    with Reader(path) as again, Reader(whole) as first:
        assert [(c.topic, c.digest, c.ext, t, d) for c, t, d in again.messages()] == [
            (c.topic, c.digest, c.ext, t, d) for c, t, d in first.messages()
        ]
    assert (path / "metadata.yaml").read_text() == (whole / "metadata.yaml").read_text()


@STORAGES
def test_a_full_disk_stops_the_recording_until_space_returns(
    tmp_path: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with tiny_disk(tmp_path / "disk", 2 << 20) as disk, caplog.at_level(logging.WARNING):
        recorder = recorder_of(disk.path / "bags", storage, retry_s=0.0)
        recorder.received(arrival("/instruction", String(data="pick up the red cup"), 0))
        inference(recorder, 0)
        wait_for(lambda: recorder.written >= 4, "the first messages are written")
        numbers = iter(range(1, 1 << 20))
        disk.fill()
        wait_for(lambda: inference(recorder, next(numbers)) and recorder.problem, "the disk is full")
        assert recorder.problem.startswith("record-disk-full")
        wait_for(lambda: inference(recorder, next(numbers)) and recorder.dropped > 9, "messages are lost")
        disk.free()
        wait_for(lambda: inference(recorder, next(numbers)) and not recorder.problem, "it records again")
        recorder.close()
        first, second = bags(disk.path / "bags")  # nothing empty is left by the attempts in between
        for path in (first, second):
            assert {topic for topic, _, _ in messages(path)} >= {CAMERA, JOINTS, "/instruction"}
        assert recorder.written == len(messages(first)) + len(messages(second))
    assert len([record for record in caplog.records if "slug=record-disk-full" in record.message]) == 1


@STORAGES
def test_a_bag_is_read_back_as_the_requests_it_was_made_of(tmp_path: Path, storage: str) -> None:
    recorder = recorder_of(tmp_path, storage)
    requests = [inference(recorder, number) for number in range(4)]
    picture = jpeg(seed=9)
    wrist = arrival(COMPRESSED, compressed(4, picture), 4)
    recorder.answered(
        make_request(9), Failure("internal-error", "the model raised"), Consumed({"wrist": wrist}, [])
    )
    recorder.close()
    with BagSource(bags(tmp_path)[0]) as source:
        assert source.header["model_hash"] == "0123456789abcdef"
        records = list(source)
        assert source.fraction == 1.0
    for request, record in zip(requests, records[:4], strict=True):
        answer = served(request)
        assert record.actions.tobytes() == answer.chunk.actions.tobytes()
        assert request.observation.state is not None
        assert record.state is not None
        assert record.state.tobytes() == request.observation.state.tobytes()
        assert record.images["base"].data() == encoded(request.observation.frames["base"])
        assert (record.seed, record.instruction, record.stamp_ns) == (
            7,
            request.observation.instruction,
            request.observation.stamp_ns,
        )
    assert records[4].images["wrist"].data() == picture
    assert records[4].error == Failure("internal-error", "the model raised")


def test_an_image_that_the_bag_lacks_is_said(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path, "mcap")
    gone = arrival(CAMERA, image(1), 1)
    recorder._previous = [gone]
    recorder.answered(make_request(), served(make_request()), Consumed({"base": gone}, []))
    recorder.close()
    with BagSource(bags(tmp_path)[0]) as source:
        (record,) = source
        assert record.images == {}
        assert "camera 'base' is not in the bag" in source.damage[0]


def test_what_is_no_bag_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "x.mcap").write_bytes(b"no magic, and longer than any header " * 9)
    with pytest.raises(ConfigurationError, match="bags cannot be kept here"):
        recorder_of(tmp_path / "file" / "bags", "mcap")
    for name, words in (("file", "no directory"), ("empty", "has neither"), ("wrong", "x.mcap: File magic")):
        assert main(["bag", "reindex", str(tmp_path / name)]) == 1
        assert words in capsys.readouterr().err
    foreign = recorder_of(tmp_path / "foreign", "mcap")
    foreign._beginning = lambda _: iter(())  # type: ignore[method-assign]
    foreign.sent("/chatter", String(data="hello"))
    foreign.close()
    with pytest.raises(TraceError, match="only bags that --record-bag wrote"):
        BagSource(bags(tmp_path / "foreign")[0])


def test_the_trace_record_in_the_bag_is_that_of_the_trace(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path, "mcap")
    inference(recorder, 1)
    recorder.close()
    texts = [json.loads(m.data) for topic, _, m in messages(bags(tmp_path)[0]) if topic == TRACE]
    assert [text["kind"] for text in texts] == ["header", "request"]
    assert "image_b64" not in json.dumps(texts), "pixels are in the bag once, as messages"
    assert texts[1]["consumed"]["base"]["topic"] == CAMERA
