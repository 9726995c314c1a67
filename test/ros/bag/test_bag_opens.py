# SPDX-License-Identifier: Apache-2.0
"""Bags opened by the tools of others: every count, type, time and field is that of what was published."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bags import CAMERA, JOINTS, START_NS, TRACE, arrivals, bags, image, inference, joints
from bags import recorder as recorder_of
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.serialization import deserialize_message
from reflex_ros.msg import ActionChunk
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from reflex_ros.messages.raw import kind_of

CHUNK, TRAJECTORY = "/reflex/action_chunk", "/reflex/joint_trajectory"
KINDS = {
    CAMERA: "sensor_msgs/msg/Image",
    JOINTS: "sensor_msgs/msg/JointState",
    CHUNK: "reflex_ros/msg/ActionChunk",
    TRAJECTORY: "trajectory_msgs/msg/JointTrajectory",
    TRACE: "std_msgs/msg/String",
}
ROUNDS = 6

Found = tuple[str, str, int, Any]


def chunk(number: int) -> ActionChunk:
    """A chunk with another value in every field."""
    message = ActionChunk()
    for place, (name, kind) in enumerate(ActionChunk.get_fields_and_field_types().items(), start=number):
        if kind in ("float", "double"):
            setattr(message, name, place / 8)
        elif kind == "string":
            setattr(message, name, f"{name} {place}")
        elif kind == "boolean":
            setattr(message, name, place % 2 == 0)
        elif "int" in kind:
            setattr(message, name, place)
    message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000 + number, 123_456_789
    message.names, message.horizon, message.action_dim = ["a", "b"], 2, 2
    message.data = [0.1, -0.2, 3.4e38, number / 3]
    return message


def trajectory(number: int) -> JointTrajectory:
    points = [JointTrajectoryPoint(positions=[number * 0.1, 0.2], velocities=[0.3, 0.4]) for _ in range(3)]
    return JointTrajectory(joint_names=["a", "b"], points=points)


def recorded(directory: Path, storage: str) -> tuple[Path, dict[str, list[Any]]]:
    """A bag, and what was published by topic."""
    recorder = recorder_of(directory, storage)
    published: dict[str, list[Any]] = {topic: [] for topic in (CAMERA, JOINTS, CHUNK, TRAJECTORY)}
    for number in range(ROUNDS):
        inference(recorder, number)
        camera, state = arrivals(number)
        published[CAMERA].append(deserialize_message(camera.raw, Image))
        published[JOINTS].append(deserialize_message(state.raw, JointState))
        for topic, message in ((CHUNK, chunk(number)), (TRAJECTORY, trajectory(number))):
            recorder.sent(topic, message)
            published[topic].append(message)
    recorder.close()
    (path,) = bags(directory)
    return path, published


def by_rosbags(path: Path) -> list[Found]:
    with AnyReader([path], default_typestore=None) as reader:
        return [
            (c.topic, c.msgtype, time_ns, reader.deserialize(raw, c.msgtype))
            for c, time_ns, raw in reader.messages()
        ]


def by_mcap_ros2_support(path: Path) -> list[Found]:
    (file,) = path.glob("*.mcap")
    with file.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
        return [
            (channel.topic, schema.name, message.log_time, decoded)
            for schema, channel, message, decoded in reader.iter_decoded_messages()
            if schema is not None
        ]


def plain(value: Any, like: Any) -> Any:
    """Any reader's message as dicts, lists and numbers, by the fields of the one that was published."""
    if hasattr(like, "get_fields_and_field_types"):
        return {
            name: plain(getattr(value, name), getattr(like, name))
            for name in like.get_fields_and_field_types()
        }
    if isinstance(like, str):
        return value
    if hasattr(like, "__len__"):
        assert len(value) == len(like)
        return [plain(each, one) for each, one in zip(value, like, strict=True)]
    return value.item() if hasattr(value, "item") else value


@pytest.mark.parametrize(
    ("storage", "opened"),
    [("mcap", by_rosbags), ("sqlite3", by_rosbags), ("mcap", by_mcap_ros2_support)],
)
def test_counts_types_times_and_fields_are_those_of_what_was_published(
    tmp_path: Path, storage: str, opened: Any
) -> None:
    path, published = recorded(tmp_path, storage)
    found = opened(path)
    assert {topic: kind for topic, kind, _, _ in found} == KINDS
    assert Counter(topic for topic, *_ in found) == {topic: ROUNDS + (topic == TRACE) for topic in KINDS}
    for topic, sent in published.items():
        assert kind_of(type(sent[0])) == KINDS[topic]
        read = [message for name, _, _, message in found if name == topic]
        assert [plain(message, one) for message, one in zip(read, sent, strict=True)] == [
            plain(one, one) for one in sent
        ]
    # the recorder's clock goes 20 ms per reading: an inference, its chunk and its trajectory take one each, and seldom its writer
    times = {topic: [time_ns for name, _, time_ns, _ in found if name == topic] for topic in KINDS}
    ticks = [
        time_ns
        for each in zip(times[TRACE][1:], times[CHUNK], times[TRAJECTORY], strict=True)
        for time_ns in each
    ]
    assert ticks == sorted(set(ticks))
    assert {(time_ns - START_NS) % 20_000_000 for time_ns in ticks} == {10_000_000}
    assert ticks[-1] - ticks[0] < 2 * len(ticks) * 20_000_000
    assert times[CAMERA] == times[JOINTS] == [START_NS + number * 20_000_000 for number in range(ROUNDS)]


def test_the_original_stamps_are_in_the_messages(tmp_path: Path) -> None:
    path, _ = recorded(tmp_path, "mcap")
    stamps: dict[str, list[int]] = {}
    for topic, _, _, message in by_mcap_ros2_support(path):
        if topic in (CAMERA, JOINTS):
            stamp = message.header.stamp
            stamps.setdefault(topic, []).append(stamp.sec * 10**9 + stamp.nanosec)
    for topic, made in ((CAMERA, image), (JOINTS, joints)):
        wanted = [made(number).header.stamp for number in range(ROUNDS)]
        assert stamps[topic] == [stamp.sec * 10**9 + stamp.nanosec for stamp in wanted]
