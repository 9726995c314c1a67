# SPDX-License-Identifier: Apache-2.0
"""The whole node recording a bag: what people and a replay find in it."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bags import bags, messages
from rclpy.parameter import Parameter
from reflex_ros.msg import ActionChunk
from ros_world import BEYOND, JOINTS, World, wait_for, world
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from servers import ExportDir

from reflex_core.records.trace.reader import TraceReader
from reflex_ros.bag.source import BagSource
from reflex_ros.cli.main import main

Found = dict[str, list[tuple[int, Any]]]


def recorded(directory: Path, act: Callable[[World], Any], **settings: Any) -> tuple[Path, Found]:
    """The bag of one activation during which `act` happened, and its messages by topic."""
    with world(record_bag=str(directory), seed=3, **settings) as scene:
        scene.activate()
        act(scene)
    (path,) = bags(directory)
    found: Found = {}
    for topic, time_ns, message in messages(path):
        found.setdefault(topic, []).append((time_ns, message))
    return path, found


def chunks_of(scene: World, count: int) -> None:
    for _ in range(count):
        scene.robot.next_chunk()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_the_bag_holds_what_the_robot_saw_and_a_replay_of_it_is_exact(
    export_dir: ExportDir, tmp_path: Path, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[ActionChunk] = []
    statuses: list[Any] = []

    def act(scene: World) -> None:
        scene.robot.begin("ep-7")
        wait_for(lambda: scene.server._assignment.episode_id == "ep-7", "the episode begins")
        chunks_of(scene, 4)
        wait_for(
            lambda: any(found.values for found in [scene.robot.diagnostics.get("recorders")] if found),
            "the recorders are in the diagnostics",
        )
        heard.extend(scene.robot.chunks)
        statuses.extend(scene.robot.statuses)

    export = str(export_dir("mono_pi0_7"))
    path, found = recorded(
        tmp_path / "bags", act, export_dir=export, embodiment="franka", execution_horizon=2,
        record=str(tmp_path / "traces"), record_images="full", record_bag_storage=storage,
    )  # fmt: skip
    assert set(found) == {
        "/camera/image_raw", "/joint_states", "/instruction", "/episode", "/reflex/action_chunk",
        "/reflex/joint_trajectory", "/reflex/status", "/diagnostics", "/reflex/trace",
    }  # fmt: skip
    assert found["/instruction"][0][1].data == "reach the red cube"
    assert found["/episode"][0][1].data == "ep-7"
    in_bag = [message for _, message in found["/reflex/action_chunk"]]
    assert len(heard) > 3
    for chunk in heard:
        (same,) = [other for other in in_bag if same_chunk(other, chunk)]
        assert np.array_equal(same.data, np.array(chunk.data, np.float32))
        assert (same.trace_seq, same.seed, list(same.names)) == (
            chunk.trace_seq,
            chunk.seed,
            list(chunk.names),
        )
    published = [chunk for chunk in in_bag if chunk.source != ActionChunk.SOURCE_HOLD]
    assert len(published) == len([t for _, t in found["/reflex/joint_trajectory"]]) - (
        len(in_bag) - len(published)
    )
    # every chunk answers an image that is in the bag under its original stamp
    stamps = {stamp_of(image) for _, image in found["/camera/image_raw"]}
    joints = {stamp_of(state) for _, state in found["/joint_states"]}
    assert all(stamp_of(chunk) in stamps | joints for chunk in published)
    assert all(list(state.name) == JOINTS for _, state in found["/joint_states"])
    (trace,) = (tmp_path / "traces").glob("*.jsonl.gz")
    with TraceReader(trace) as by_trace, BagSource(path) as by_bag:
        pairs = list(zip(by_trace, by_bag, strict=True))
        assert by_bag.damage == []
    for one, other in pairs:
        assert (one.seq, one.seed, one.instruction, one.episode_id) == (
            other.seq, other.seed, other.instruction, other.episode_id,
        )  # fmt: skip
        assert one.actions.tobytes() == other.actions.tobytes()
        assert one.state is not None
        assert other.state is not None
        assert one.state.tobytes() == other.state.tobytes()
        assert one.images == other.images
    assert {chunk.trace_seq for chunk in published} <= {one.seq for one, _ in pairs}
    capsys.readouterr()
    assert main(["replay", str(path), "--model", export, "--output", "-", "--fail-on", "actions"]) == 0
    report = json.loads(capsys.readouterr().out)
    diffs = report["per_request_diffs"]
    assert len(diffs) == len(pairs)
    assert {diff["actions"]["max_abs_diff"] for diff in diffs} == {0.0}


def same_chunk(one: Any, other: Any) -> bool:
    return (one.request_id, one.chunk_id, stamp_of(one)) == (
        other.request_id,
        other.chunk_id,
        stamp_of(other),
    )


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def test_compressed_images_are_in_the_bag_as_they_were_sent(export_dir: ExportDir, tmp_path: Path) -> None:
    def act(scene: World) -> None:
        wait_for(lambda: scene.robot.status.chunks_total > 1, "the status knows of chunks")

    path, found = recorded(
        tmp_path, act, export_dir=str(export_dir("mono_pi0_7")), embodiment="franka",
        image_transport="compressed", execution_horizon=2,
    )  # fmt: skip
    sent = {bytes(image.data) for _, image in found["/camera/image_raw/compressed"]}
    with BagSource(path) as source:
        assert {record.images["camera"].data() for record in source} == sent
    with Reader(path) as reader:
        offered = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}
    assert QosReliability.BEST_EFFORT in {p.reliability for p in offered["/camera/image_raw/compressed"]}
    for topic in ("/instruction", "/reflex/status"):
        assert QosDurability.TRANSIENT_LOCAL in {profile.durability for profile in offered[topic]}
    assert QosReliability.RELIABLE in {profile.reliability for profile in offered["/reflex/action_chunk"]}
    assert not offered["/reflex/trace"], "has never been a topic outside of the bag"


def test_every_activation_has_a_bag_of_its_own_and_health_knows_of_it(
    export_dir: ExportDir, tmp_path: Path
) -> None:
    values = [Parameter("record_bag", value=str(tmp_path))]
    with world(
        values, export_dir=str(export_dir("mono_pi0_7")), embodiment="franka", http=True, port=0
    ) as scene:
        scene.activate()
        scene.robot.next_chunk()
        sidecar = scene.server.sidecar
        assert sidecar is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{sidecar.port}/health", timeout=20) as reply:
            assert json.load(reply)["recorders"] == {"bag": "ok"}
        with urllib.request.urlopen(f"http://127.0.0.1:{sidecar.port}/metrics", timeout=20) as reply:
            assert 'reflex_recorder_degraded{kind="bag"} 0.0' in reply.read().decode()
        assert scene.robot.transition(4), "deactivate"
        (first,) = bags(tmp_path)
        held = messages(first)
        assert [m for topic, _, m in held if topic == "/reflex/action_chunk"][
            -1
        ].source == ActionChunk.SOURCE_HOLD
        assert scene.robot.transition(3), "activate"
        scene.robot.next_chunk()
    assert len(bags(tmp_path)) == 2
    for path in bags(tmp_path):
        counts = Counter(topic for topic, _, _ in messages(path))
        assert counts["/instruction"] == 1, "latched: each bag has it"


def test_a_failed_inference_is_recorded_with_what_it_was_given(export_dir: ExportDir, tmp_path: Path) -> None:
    def act(scene: World) -> None:
        scene.robot.positions = BEYOND
        wait_for(lambda: scene.server._progress.errors > 1, "inference fails")

    path, _ = recorded(tmp_path, act, export_dir=str(export_dir("calm_raise")), embodiment="franka")
    with BagSource(path) as source:
        record = next(record for record in source if record.error is not None)
    assert record.state is not None
    assert record.state[0] == np.float32(BEYOND[0])
    assert record.images["camera"].data() is not None


def test_without_ros_a_bag_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--no-ros", "--record-bag", str(tmp_path)]) == 78
    assert "--record-bag records what goes over ROS" in capsys.readouterr().err
