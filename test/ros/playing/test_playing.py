# SPDX-License-Identifier: Apache-2.0
"""What is played: which messages a recording becomes, when, and with which stamps. Nothing goes over ROS here."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bags import STORE, bags, compressed, image, inference, joints
from bags import recorder as bag_recorder
from hypothesis import given
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message
from recordings import jpeg, picture
from replays import record
from repository import FIXTURES
from sensor_msgs.msg import Image, Imu, JointState
from servers import MakeEngine

from reflex_core.images.raw_encodings import rgb
from reflex_core.records.trace.fields import timestamp_ns
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.reader import TraceReader
from reflex_core.replay.recorded_images import ImageFiles
from reflex_core.values import Frame
from reflex_ros.bag.source import BagSource
from reflex_ros.bag.topic_types import serialised
from reflex_ros.messages.raw import RawMessage, header_stamp_ns, image_frame, kind_of
from reflex_ros.messages.stamps import stamp_ns
from reflex_ros.messages.state import imu_state, odometry_state
from reflex_ros.playing.bags import BagRecording
from reflex_ros.playing.pace import Pace
from reflex_ros.playing.player import shifted
from reflex_ros.playing.recording import Moment
from reflex_ros.playing.traces import TraceRecording, compressed_image, raw_image

FOREIGN = FIXTURES / "traces"
PANDA = tuple(f"panda_joint{number}" for number in range(1, 8))
SECOND_NS = 1_000_000_000


def sent(moments: list[Moment]) -> list[tuple[str, Any]]:
    return [(each.offer.topic, each.make()) for moment in moments for each in moment.messages]


def written(path: Path, header: dict[str, Any], *requests: dict[str, Any]) -> Path:
    """A trace of requests that differ in what is given here only."""
    documents = [{"kind": "header", "schema_version": 1, "redaction": {"image": "full"}} | header]
    for seq, changes in enumerate(requests):
        document = {"kind": "request", "schema_version": 1, "seq": seq, "response": {"actions": []}}
        documents.append(document | {"request": {"instruction": "pick", "state": [0.5, 1.0]} | changes})
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def played(path: Path, **options: Any) -> tuple[list[Moment], list[str]]:
    with TraceReader(path) as source:
        recording = TraceRecording(source, path, **options)
        return list(recording.moments()), recording.left_out


@given(st.lists(st.integers(-5 * SECOND_NS, 5 * SECOND_NS), max_size=30), st.sampled_from([0.25, 1.0, 8.0]))
def test_what_came_later_is_never_played_earlier(steps_ns: list[int], rate: float) -> None:
    pace, now_ns, before_s = Pace(rate), 1_700_000_000 * SECOND_NS, 0.0
    for step_ns in steps_ns:
        now_ns += step_ns
        due_s = pace.due_s(now_ns)
        assert due_s >= before_s
        before_s = due_s


def test_the_recorded_pace_is_kept_and_a_jump_back_of_the_clock_costs_no_time() -> None:
    pace = Pace(2.0)
    times_s = [100.0, 101.0, 100.5, 102.0, 10.0, 11.0]
    assert [pace.due_s(int(each * SECOND_NS)) for each in times_s] == [0.0, 0.5, 0.5, 1.0, 1.0, 1.5]
    assert pace.elapsed_s == 3.0
    assert pace.clock_ns(0.25) == int(10.5 * SECOND_NS), "a quarter of a second is half a recorded one"
    assert pace.clock_ns(-0.1) == 11 * SECOND_NS


@pytest.mark.parametrize("message", [image(3), compressed(3, jpeg()), joints(3)])
def test_only_the_stamp_of_the_recorded_bytes_changes(message: Any) -> None:
    raw = serialised(message, kind_of(type(message)), STORE)
    moved = shifted(raw, 1_500_000_000)
    assert header_stamp_ns(moved) == header_stamp_ns(raw) + 1_500_000_000
    assert (moved[:4], moved[12:]) == (raw[:4], raw[12:])
    assert shifted(moved, -1_500_000_000) == raw
    same = shifted(deserialize_message(raw, type(message)), 1_500_000_000)
    assert stamp_ns(same.header.stamp) == header_stamp_ns(moved)


def test_a_sensor_that_gave_no_stamp_gets_none() -> None:
    empty = JointState()
    raw = serialised(empty, kind_of(JointState), STORE)
    assert shifted(raw, SECOND_NS) == raw
    assert stamp_ns(shifted(empty, SECOND_NS).header.stamp) == 0


def test_bytes_of_the_other_order_are_stamped_in_their_order() -> None:
    raw = b"\x00\x00\x00\x00" + struct.pack(">iI", 7, 5) + b"rest"
    assert shifted(raw, 2 * SECOND_NS) == b"\x00\x00\x00\x00" + struct.pack(">iI", 9, 5) + b"rest"


def arrived(message: Any) -> Frame:
    kind = kind_of(type(message))
    return image_frame(RawMessage("/camera", kind, serialised(message, kind, STORE), 0, 0))


@pytest.mark.parametrize("kind", ["jpeg", "png", "raw"])
def test_both_forms_of_a_picture_have_the_pixels_that_the_policy_saw(kind: str) -> None:
    pixels = picture(24)
    files = {"jpeg": jpeg(24), "png": cv2.imencode(".png", pixels)[1].tobytes()}
    frame = (
        Frame(pixels[:, :, ::-1].tobytes(), "bgr8", 24, 24, 72) if kind == "raw" else Frame(files[kind], kind)
    )
    raw, packed = raw_image(frame, "wrist", 5), compressed_image(frame, "wrist", 5)
    assert np.array_equal(rgb(arrived(raw)), rgb(frame))
    assert np.array_equal(rgb(arrived(packed)), rgb(frame))
    assert (raw.header.frame_id, stamp_ns(packed.header.stamp)) == ("wrist", 5)
    if kind != "raw":
        assert bytes(packed.data) == files[kind], "not encoded again"


def test_a_request_becomes_state_pictures_and_words_in_the_order_a_node_needs(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    trace = record(make_engine, tmp_path, "mono_pi0_7", embodiment="franka")
    with TraceReader(trace) as source:
        before = list(source)
    moments, left_out = played(trace)
    assert left_out == []
    assert [moment.observations for moment in moments] == [0, 1, 1, 1]
    words, first = sent(moments[:1]), sent(moments[1:2])
    assert [(topic, text.data) for topic, text in words] == [
        ("episode", "episode-1"), ("instruction", "pick the red cube"),
    ]  # fmt: skip
    assert moments[0].time_ns < moments[1].time_ns == before[0].stamp_ns
    camera = next(iter(before[0].images))
    assert [topic for topic, _ in first] == [
        "joint_states", f"{camera}/image_raw", f"{camera}/image_raw/compressed",
    ]  # fmt: skip
    state = first[0][1]
    assert tuple(state.name) == PANDA
    assert before[0].state is not None
    assert np.array(state.position, np.float32).tobytes() == before[0].state.tobytes()
    assert len(played(trace, limit=2)[0]) == 3


def test_words_that_change_come_right_after_the_picture_that_was_taken_under_them(tmp_path: Path) -> None:
    requests = [{"stamp_ns": number * SECOND_NS, "episode_id": "one"} for number in (1, 2, 3)]
    requests[1]["instruction"] = "place"
    moments, _ = played(written(tmp_path / "t.jsonl", {"state_names": ["a", "b"]}, *requests))
    sent_at = [(moment.time_ns // 1_000_000, topic, getattr(message, "data", None)) for moment in moments
            for topic, message in sent([moment])]  # fmt: skip
    assert sent_at == [
        (900, "episode", "one"), (900, "instruction", "pick"), (1000, "joint_states", None),
        (2000, "joint_states", None), (2010, "instruction", "place"),
        (3000, "joint_states", None), (3010, "instruction", "pick"),
    ]  # fmt: skip


def test_states_of_imu_and_odometry_go_back_to_what_they_came_from(tmp_path: Path) -> None:
    numbers = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    for source, count, topic, convert in (
        ("imu", 4, "imu/data", imu_state), ("odometry", 10, "odom", odometry_state),
    ):  # fmt: skip
        header = {"settings": {"state_source": source}}
        path = written(tmp_path / f"{source}.jsonl", header, {"state": numbers[:count]}, {"state": [1.0]})
        moments, left_out = played(path)
        found = dict(sent(moments))[topic]
        assert isinstance(found, (Imu, Odometry))
        assert convert(found).tolist() == np.array(numbers[:count], np.float32).tolist()
        assert len(left_out) == 1
        assert "its state has 1 numbers" in left_out[0]


def test_unnamed_joints_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", {}, {})
    with pytest.raises(TraceError, match="which joints its 2 states are of.*--embodiment"):
        played(path)
    moments, _ = played(path, joint_names=("hip", "knee"))
    assert list(dict(sent(moments))["joint_states"].name) == ["hip", "knee"]
    moments, _ = played(written(tmp_path / "u.jsonl", {"action_names": ["x", "y"]}, {}))
    assert list(dict(sent(moments))["joint_states"].name) == ["x", "y"]


def test_a_trace_of_another_writer_is_played_by_its_timestamps() -> None:
    (path,) = FOREIGN.glob("*-bca0808c*.gz")
    with TraceReader(path) as source:
        before = list(source)
    moments, left_out = played(path, joint_names=PANDA)
    observed = [moment for moment in moments if moment.observations]
    assert len(observed) + len(left_out) == len(before)
    assert any("its state has 40 numbers" in each for each in left_out)
    assert observed[0].time_ns == timestamp_ns(before[0].timestamp)
    assert "image/image_raw" in {topic for topic, _ in sent(observed)}


def test_requests_that_hold_no_observation_are_left_out(tmp_path: Path) -> None:
    nothing = {"state": None}
    path = written(tmp_path / "t.jsonl", {"state_names": ["a", "b"]}, nothing, {"stamp_ns": 7}, nothing)
    moments, left_out = played(path)
    assert [moment.time_ns for moment in moments if moment.observations] == [7]
    assert left_out == [f"seq {seq}: has neither a picture nor a state" for seq in (0, 2)]
    with pytest.raises(TraceError, match="no request with a picture or a state"):
        played(written(tmp_path / "u.jsonl", {}, nothing))


def test_a_missing_picture_is_named(make_engine: MakeEngine, tmp_path: Path) -> None:
    trace = record(make_engine, tmp_path / "t", "mono_pi0_7", embodiment="franka", record_images="hash_only")
    with pytest.raises(TraceError, match="--images"):
        played(trace)
    (tmp_path / "pictures").mkdir()
    moments, left_out = played(trace, images=ImageFiles(tmp_path / "pictures"))
    assert moments == []
    assert [line.split(":")[0] for line in left_out] == ["seq 0", "seq 1", "seq 2"]


def test_a_bag_gives_its_inputs_byte_for_byte_and_says_what_was_no_message(tmp_path: Path) -> None:
    recorder = bag_recorder(tmp_path, "mcap")
    recorder.sent("/reflex/other", joints(9))
    for number in range(3):
        inference(recorder, number)
    recorder.close()
    (path,) = bags(tmp_path)
    with BagSource(path) as source:
        every = {(topic, raw) for topic, _, raw in source.messages({kind_of(Image), kind_of(JointState)})}
        kept = {(topic, raw) for topic, raw in every if topic != "/reflex/other"}
        assert len(kept) == len(every) - 1, "what the node itself published stays in the bag"
        recording = BagRecording(source)
        assert recording.first.request_id == "r-0"
        moments = list(recording.moments())
        assert recording.fraction == 1.0
    assert sum(moment.observations for moment in moments) == 3
    messages = sent(moments)
    assert [(topic, text.data) for topic, text in messages[:2]] == [
        ("episode", "ep-1"), ("instruction", "pick up the red cup"),
    ]  # fmt: skip
    assert {(topic, raw) for topic, raw in messages[2:]} == kept
    assert [moment.time_ns for moment in moments] == sorted(moment.time_ns for moment in moments)
    with BagSource(path) as source:
        assert sum(moment.observations for moment in BagRecording(source, 2).moments()) == 2
