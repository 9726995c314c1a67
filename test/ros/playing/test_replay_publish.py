# SPDX-License-Identifier: Apache-2.0
"""`reflex replay --publish`: a recorded run goes over real topics into a fresh node process, and comes out the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bags import bags
from children import end
from domains import free_domain
from first_version import MADE
from rclpy.node import Node
from reflex_ros.msg import ActionChunk
from replays import Outcome, command, edited
from ros_world import Spinner, rows, wait_for, world
from sensor_msgs.msg import Image, JointState
from servers import ExportDir

from reflex_core.records.trace.parse import Recorded
from reflex_core.records.trace.reader import TraceReader
from reflex_ros.messages.stamps import stamp_ns
from reflex_ros.node.subscriptions import SENSOR
from reflex_ros.playing import player

Output = pytest.CaptureFixture[str]
REQUESTS = 8
RUN = ["--embodiment", "franka", "--execution-horizon", "8", "--device", "cpu", "--intra-op-threads", "1"]
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]
WORDS = {2: "reach the blue cube", 3: "second-episode"}
# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from reflex_ros.cli.main import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Run:
    """What a node recorded of itself."""

    trace: Path
    bag: Path

    @property
    def records(self) -> list[Recorded]:
        with TraceReader(self.trace) as trace:
            return list(trace)


@pytest.fixture(scope="module")
def recorded(export_dir: ExportDir, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A robot whose pictures change from chunk to chunk, and a change of episode and instruction on the way."""
    folder = tmp_path_factory.mktemp("recorded")
    values: dict[str, Any] = {
        "export_dir": str(export_dir("mono_pi0_7")), "embodiment": "franka", "seed": 5, "execution_horizon": 8,
        "record": str(folder / "traces"), "record_images": "full", "record_bag": str(folder / "bags"),
    }  # fmt: skip
    with world(**values) as scene:
        scene.activate("reach the red cube")
        for number in range(REQUESTS):
            scene.robot.rgb = COLOURS[number % len(COLOURS)]
            chunk = scene.robot.next_chunk()
            changes = {2: scene.robot.say, 3: scene.robot.begin}
            if number in changes:
                half_ns = stamp_ns(chunk.header.stamp) + 200_000_000
                wait_for(lambda until=half_ns: time.time_ns() > until, "half of the chunk")
                changes[number](WORDS[number])
    (trace,) = (folder / "traces").iterdir()
    (bag,) = bags(folder / "bags")
    return Run(trace, bag)


class Scene:
    """A domain of its own with a listener and, once started, `reflex serve` in a process. No robot is in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        domain = free_domain()
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.chunks: list[ActionChunk] = []
        self.spinner = Spinner(domain)
        self.node = Node(
            "_ros2cli_listener", context=self.spinner.context
        )  # as `ros2 topic echo`: it only looks
        self.node.create_subscription(
            ActionChunk, "reflex/action_chunk", lambda chunk: self.chunks.append(chunk), 10
        )
        self.spinner.start(self.node)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
        with (self.folder / f"said-{len(self.processes)}.txt").open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *words],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def serve(self, export: Path, *words: str) -> subprocess.Popen[bytes]:
        again = str(self.folder / "again")
        return self.start(
            "serve",
            str(export),
            "--port",
            "0",
            "--record",
            again,
            "--record-images",
            "full",
            "--controller-wait-s",
            "0",
            *RUN,
            *words,
        )

    def stop(self, process: subprocess.Popen[bytes]) -> list[Recorded]:
        """End the node in order. Returns what it inferred."""
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        (trace,) = (self.folder / "again").iterdir()
        with TraceReader(trace) as found:
            return list(found)

    def close(self) -> None:
        for process in self.processes:
            end(process)
        self.spinner.close()
        self.node.destroy_node()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    found = Scene(tmp_path, monkeypatch)
    yield found
    found.close()


def seen(record: Recorded) -> tuple[Any, ...]:
    """The observation, to tell which recorded one came again."""
    assert record.state is not None
    pictures = tuple((camera, image.sha256) for camera, image in record.images.items())
    return pictures, record.state.tobytes(), record.instruction


def require_the_same_run(before: list[Recorded], after: list[Recorded], heard: list[ActionChunk]) -> None:
    known = {(seen(record), record.seed): record for record in before}
    assert {seen(record)[0] for record in after} <= {seen(record)[0] for record in before}
    same = [(known[key], record) for record in after if (key := (seen(record), record.seed)) in known]
    assert same
    for one, other in same:
        # the guard comes after, and looks at when the commands before were given
        assert one.raw_actions.tobytes() == other.raw_actions.tobytes()
    by_number = {record.seq: record for record in after}
    served = [chunk for chunk in heard if chunk.source == ActionChunk.SOURCE_POLICY]
    # the first rows are led over from the running motion, which no recording of the answer knows
    unchanged = [
        rows(chunk)[-1].tobytes() == by_number[chunk.trace_seq].actions[-1].tobytes() for chunk in served
    ]
    assert any(unchanged)
    # one that waited after it was answered is joined anew to what is commanded by then, and says so
    assert all(same or chunk.guard_clamped for same, chunk in zip(unchanged, served, strict=True))


@pytest.mark.parametrize(("source", "clock"), [("trace", True), ("bag", False)])
def test_a_fresh_node_sees_every_recorded_observation_and_answers_as_recorded(
    recorded: Run, export_dir: ExportDir, scene: Scene, source: str, clock: bool, capsys: Output
) -> None:
    before = recorded.records
    simulated = ("--ros-args", "-p", "use_sim_time:=true") if clock else ()
    process = scene.serve(export_dir("mono_pi0_7"), "--seed", str(before[0].seed), *simulated)
    done = command(capsys, getattr(recorded, source), "--publish", *(["--clock"] if clock else []))
    assert done.status == 0, done.err
    assert f"published {len(before)} observations" in done.out
    assert f"noise seed of the first request: {before[0].seed}" in done.out
    last = before[-1].episode_id
    wait_for(lambda: any(chunk.episode_id == last for chunk in scene.chunks), "a chunk of the last episode")
    after = scene.stop(process)
    require_the_same_run(before, after, scene.chunks)
    assert {record.episode_id for record in before} <= {record.episode_id for record in after}
    if clock:
        assert {record.stamp_ns for record in after} <= {record.stamp_ns for record in before}


@pytest.mark.parametrize(
    ("recording", "observations"), [("bags/mcap.bag", 2), ("traces/carried.jsonl.gz", 5)]
)
def test_a_recording_of_the_first_version_is_played(
    recording: str, observations: int, scene: Scene, capsys: Output
) -> None:
    listener = Listener(scene)
    done = command(capsys, MADE / recording, "--publish")
    assert done.status == 0, done.err
    assert f"published {observations} observations" in done.out
    wait_for(lambda: listener.images and listener.states, "a picture and a state are heard")
    assert list(listener.states[0].name) == [f"panda_joint{number}" for number in range(1, 8)]


class Listener:
    """Receives the raw camera and the joints in the scene, as a node does, and keeps everything."""

    def __init__(self, scene: Scene, node: Node | None = None) -> None:
        self.node = node or scene.node
        self.images: list[Image] = []
        self.states: list[JointState] = []
        self.node.create_subscription(Image, "camera/image_raw", lambda m: self.images.append(m), SENSOR)
        self.node.create_subscription(JointState, "joint_states", lambda m: self.states.append(m), SENSOR)


def test_messages_carry_the_recorded_values_and_a_stamp_of_now(
    recorded: Run, scene: Scene, capsys: Output
) -> None:
    heard, began_ns = Listener(scene), time.time_ns()
    before = recorded.records
    done = command(capsys, recorded.trace, "--publish", "--n", 2, "--rate", 4)
    assert done.status == 0, done.err
    assert "published 2 observations (6 messages)" in done.out
    assert "at 4 times their pace" in done.out
    wait_for(lambda: len(heard.images) == 2 and len(heard.states) == 2, "both observations")
    for record, image, state in zip(before, heard.images, heard.states, strict=False):
        assert (image.encoding, image.height, image.width, image.step) == ("rgb8", 48, 64, 192)
        data = record.images["camera"].data()
        assert data is not None
        assert data.endswith(bytes(image.data)), "the pixels that the policy saw"
        assert record.state is not None
        assert np.array(state.position, np.float32).tobytes() == record.state.tobytes()
        assert tuple(state.name) == record.names
        assert image.header.stamp == state.header.stamp, "one observation has no skew"
        assert stamp_ns(image.header.stamp) > began_ns


@pytest.mark.parametrize("source", ["trace", "bag"])
def test_no_command_is_ever_published(
    recorded: Run, scene: Scene, source: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    Listener(scene)
    published: set[tuple[str, str]] = set()
    create = Node.create_publisher

    def noted(self: Node, kind: type, topic: str, *rest: Any, **more: Any) -> Any:
        made = create(self, kind, topic, *rest, **more)
        published.add((made.topic_name, kind.__name__))
        return made

    monkeypatch.setattr(player.Node, "create_publisher", noted)
    assert command(capsys, getattr(recorded, source), "--publish", "--rate", 20).status == 0
    compressed = {("/camera/image_raw/compressed", "CompressedImage")} if source == "trace" else set()
    assert published - {("/parameter_events", "ParameterEvent")} == compressed | {
        ("/camera/image_raw", "Image"), ("/joint_states", "JointState"), ("/instruction", "String"),
        ("/episode", "String"),
    }  # fmt: skip
    assert scene.chunks == []


def test_a_namespace_and_other_topic_names_are_those_of_rclpy(
    recorded: Run, scene: Scene, capsys: Output
) -> None:
    heard: list[Image] = []
    scene.node.create_subscription(Image, "/arm/eye", lambda m: heard.append(m), SENSOR)
    arguments = ["--publish", "--n", 1, "--wait-s", 0, "--ros-args", "-r", "__ns:=/arm"]
    done = command(capsys, recorded.trace, *arguments, "-r", "camera/image_raw:=eye")
    assert done.status == 0
    assert "WARN: no node subscribes to the joints" in done.err
    wait_for(lambda: heard, "the picture on its other topic")


def test_pictures_of_a_hash_only_trace_are_found_among_files(
    recorded: Run, scene: Scene, tmp_path: Path, capsys: Output
) -> None:
    heard = Listener(scene)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for record in recorded.records[:2]:
        data = record.images["camera"].data()
        assert data is not None
        (pictures / f"{record.seq}.ppm").write_bytes(data)
    trace = redacted(recorded, tmp_path, "hash_only")
    done = command(capsys, trace, "--publish", "--wait-s", 0)
    assert done.status == 1
    assert "--images" in done.err
    done = command(capsys, trace, "--publish", "--rate", 20, "--images", pictures)
    assert done.status == 1, "some could not be published"
    missing = len({seen(record)[0] for record in recorded.records}) - 2
    assert missing > 0
    assert "observations could not be published, the first: seq" in done.err
    assert "none of the 2 files has that hash" in done.err
    wait_for(lambda: len(heard.images) >= 2, "the pictures")
    arguments = ["--rate", 20, "--images", pictures, "--allow-damage"]
    assert command(capsys, trace, "--publish", *arguments).status == 0


def redacted(recorded: Run, folder: Path, mode: str) -> Path:
    with TraceReader(recorded.trace) as trace:
        documents = [dict(trace.header), *(dict(record.document) for record in trace)]
    documents[0]["redaction"] = {"image": mode, "instruction": "full"}
    for document in documents[1:]:
        document["request"].pop("image_b64")
        if mode == "none":
            document["request"].pop("image_sha256")
            document["request"].pop("cameras", None)
    path = folder / f"{mode}.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def test_a_trace_without_pictures_is_refused(
    recorded: Run, scene: Scene, tmp_path: Path, capsys: Output
) -> None:
    done = command(capsys, redacted(recorded, tmp_path, "none"), "--publish", "--images", tmp_path)
    assert done.status == 1
    assert "--record-images none, so its pictures cannot be found again" in done.err


def refused(done: Outcome, status: int, *words: str) -> None:
    assert done.status == status
    last = done.err.splitlines()[-1]
    assert last.startswith("reflex replay: ")
    assert [word for word in words if word not in last] == []


def test_without_a_listener_it_gives_up_in_one_sentence(recorded: Run, scene: Scene, capsys: Output) -> None:
    done = command(capsys, recorded.trace, "--publish", "--wait-s", 0.1)
    refused(done, 2, "no node subscribed to /camera/image_raw", "/joint_states within 0.1 s", "ROS_DOMAIN_ID")
    assert "waiting up to 0.1 s" in done.out


def test_unwanted_simulated_time_is_refused(recorded: Run, scene: Scene, capsys: Output) -> None:
    Listener(scene)
    done = command(capsys, recorded.trace, "--publish", "--clock", "--wait-s", 0)
    refused(done, 2, "no node subscribed to /clock", "use_sim_time")


def test_a_live_robot_and_a_recording_are_not_mixed(recorded: Run, scene: Scene, capsys: Output) -> None:
    Listener(scene)
    scene.node.create_publisher(JointState, "joint_states", SENSOR)
    done = command(capsys, recorded.bag, "--publish")
    refused(done, 2, "/joint_states is published by /_ros2cli_listener too")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "export"], "--model does not go with --publish"),
        (["--seed", 0], "--seed does not go with --publish"),
        (["--no-replay"], "--no-replay does not go with --publish"),
        (["--rate", 0], "--rate must be more than 0, got 0"),
        (["--rate", "nan"], "--rate must be more than 0, got nan"),
        (["--wait-s", -1], "--wait-s must be 0 or more, got -1"),
    ],
)
def test_options_that_do_not_go_together_are_a_sentence(
    recorded: Run, options: list[object], message: str, capsys: Output
) -> None:
    refused(command(capsys, recorded.trace, "--publish", *options), 1, message)


def test_a_path_that_is_no_recording_is_a_sentence(tmp_path: Path, capsys: Output) -> None:
    refused(command(capsys, tmp_path / "none.jsonl", "--publish"), 1, "none.jsonl", "No such file")
    refused(command(capsys, tmp_path, "--publish"), 1, "it is no bag and holds no trace")


def test_a_trace_without_requests_is_a_sentence(recorded: Run, tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "empty.jsonl"
    with TraceReader(recorded.trace) as trace:
        path.write_text(json.dumps(dict(trace.header)) + "\n")
    refused(command(capsys, path, "--publish"), 1, "holds no request with")


def test_a_camera_that_cannot_be_a_topic_is_a_sentence(
    recorded: Run, scene: Scene, tmp_path: Path, capsys: Output
) -> None:
    def rename(document: dict[str, Any]) -> None:
        document["request"]["camera"] = "two words"
        document["request"].pop("cameras", None)

    trace = tmp_path / "plain.jsonl"
    with TraceReader(recorded.trace) as found:
        documents = [dict(found.header), *(dict(record.document) for record in found)]
    trace.write_text("".join(json.dumps(document) + "\n" for document in documents))
    refused(command(capsys, edited(trace, rename), "--publish"), 1, "camera 'two words'")


def test_without_ros_it_says_so(recorded: Run, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setitem(sys.modules, "reflex_ros.playing.player", None)
    refused(command(capsys, recorded.trace, "--publish"), 2, "--publish needs ROS 2")


def test_ctrl_c_ends_it_with_what_was_published(recorded: Run, scene: Scene) -> None:
    heard = Listener(scene)
    process = scene.start("replay", str(recorded.trace), "--publish", "--rate", "0.2")
    wait_for(lambda: heard.images, "the first picture")
    process.send_signal(signal.SIGINT)
    status = process.wait(60)
    printed = (scene.folder / "said-0.txt").read_text()
    assert status == 130, printed
    assert re.search(r"published \d observations", printed)
    assert "reflex replay: stopped" in printed
    assert "Traceback" not in printed


def test_what_a_bag_holds_is_reported_without_a_word_about_footers(recorded: Run, capsys: Output) -> None:
    assert f"records: {len(recorded.records)}\n" in command(capsys, recorded.bag, "--no-replay").out
    assert "(with footer)" in command(capsys, recorded.trace, "--no-replay").out
