# SPDX-License-Identifier: Apache-2.0
"""A person takes the commands of the real node at random moments, on each interface: no step, and every record says who commanded."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from delivered import at_their_stamps, fastest, latest_s
from following_arm import FollowingArm
from heads import constant
from numpy.typing import NDArray
from pyarrow import parquet
from reflex_ros.msg import ActionChunk
from ros_world import JOINTS, REACH_HOME, World, wait_for, world
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from reflex_core.chunks.takeover import LATE_S
from reflex_core.files.share import embedded_policy
from reflex_core.records.trace.executed import EXECUTED, executed_of
from reflex_core.records.trace.reader import TraceReader
from reflex_core.robot.presets import load_embodiment
from reflex_ros.bag.source import BagSource
from reflex_ros.cli.main import main
from reflex_ros.graph.qos import SENSOR
from reflex_ros.node.holds import HANDED_BACK

Doubles = NDArray[np.float64]

FEW, MANY = 4, 100
RATE_HZ = 100.0
FOLLOWS = {("policy", "teleop"), ("teleop", "hand-back"), ("hand-back", "policy"), ("hand-back", "teleop")}
FASTER = 1.1  # of a limit, a step of 1 ms or of a tick
SLOWEST = load_embodiment(embedded_policy() / "embodiment.json").velocity_max
STREAM = {"output": "forward_command", "control_rate_hz": RATE_HZ, "rtc": True, "a2c2_every_step": True}
CASES: dict[str, dict[str, Any]] = {
    "joint_trajectory": {"output": "joint_trajectory", "rtc": True, "blend": 1.0},
    "joint_trajectory, half": {"output": "joint_trajectory", "rtc": True, "blend": 0.5},
    "forward_command": STREAM | {"blend": 1.0},
    "forward_command, half": STREAM | {"blend": 0.5},
}


class FollowedTrajectories:
    """An arm of a controller at 1 kHz; `fastest` is what that commands. late_s: how late a message was sent at most."""

    def __init__(self, scene: World) -> None:
        self._arm, self.late_s = FollowingArm(scene, REACH_HOME), 0.0

    def fastest(self) -> float:
        """Return the largest step of 1 ms, as a share of the limits of speed.

        Messages are followed from their stamps on, and from when they were sent, unless this machine let one wait for too long.
        """
        assert SLOWEST is not None
        at_once = fastest(at_their_stamps(self._arm.sent), REACH_HOME, SLOWEST)
        self.late_s = latest_s(self._arm.sent)
        return at_once if self.late_s > LATE_S else max(at_once, fastest(self._arm.sent, REACH_HOME, SLOWEST))


class FollowedSetpoints:
    """An arm that is where it is commanded to be; `fastest` is the largest step between two setpoints."""

    def __init__(self, scene: World) -> None:
        self._robot, self._sent, self.late_s = scene.robot, list[Doubles](), 0.0
        scene.robot.positions = list(REACH_HOME)
        scene.robot.node.create_subscription(Float64MultiArray, "reflex/commands", self._take, 100)

    def _take(self, message: Float64MultiArray) -> None:
        self._sent.append(np.array(message.data))
        self._robot.positions = list(message.data)

    def fastest(self) -> float:
        """Return the largest step between two setpoints, as a share of what the limits of speed allow in a tick."""
        assert SLOWEST is not None
        steps = np.abs(np.diff(self._sent, axis=0))
        return float((steps / (SLOWEST / RATE_HZ)).max())


class Person:
    """Publishes where they want the joints, a hundred times a second, while `wanted` says so."""

    def __init__(self, scene: World) -> None:
        self.wanted: list[float] | None = None
        self._publisher = scene.robot.node.create_publisher(JointState, "reflex/takeover", SENSOR)
        scene.robot.node.create_timer(0.01, self._tick)
        wait_for(self._publisher.get_subscription_count, "the node listens")

    def _tick(self) -> None:
        if (wanted := self.wanted) is not None:
            self._publisher.publish(JointState(name=JOINTS, position=wanted))


def take_and_hand_back(scene: World, times: int) -> None:
    """Have a person command at random moments, for random times."""
    draw, person = np.random.default_rng(3), Person(scene)
    chunks = scene.robot.chunks
    for number in range(times):
        person.wanted = (np.array(REACH_HOME) + draw.uniform(-0.4, 0.4, 7)).tolist()
        wait_for(lambda: chunks[-1].control == "teleop", "the person commands")
        threading.Event().wait(draw.uniform(0.0, 0.5))
        person.wanted = None
        wait_for(lambda: chunks[-1].control == "policy", "the policy commands again")
        wait_for(lambda counted=number + 1: scene.robot.status.takeovers_total >= counted, "it was counted")
        threading.Event().wait(draw.uniform(0.0, 0.6))


def takeovers_of(chunks: list[ActionChunk]) -> int:
    """Return how often a person took the commands, by the labels; fails where one label cannot follow another.

    On a busy machine a person seems to pause at times, and a stream is late: they then take the robot again.
    """
    times = 0
    for before, after in itertools.pairwise(chunks):
        if before.control == after.control:
            continue
        assert (before.control, after.control) in FOLLOWS, f"{after.control} after {before.control}"
        held_for_person = before.control == "hand-back" and before.hold_reason != HANDED_BACK
        times += after.control == "teleop" and not held_for_person
    return times


def executed_in(source: Callable[[], Any]) -> list[tuple[str, str, int]]:
    """Return who commanded, for which request, from when on, of each executed command of a record."""
    with source() as record:
        found = [executed_of(document, where) for where, document in record.notes(EXECUTED)]
    return [(command.control, command.request_id, command.began_ns) for command in found]


def labels_of_frames(record: Path, output: Path) -> list[tuple[int, str]]:
    """Return (seq of the request, who commanded) of each frame of a record's LeRobot dataset."""
    assert (
        main(
            ["trace", "export", str(record), "--format", "lerobot", "--per-request", "--output", str(output)]
        )
        == 0
    )
    frames = [
        row
        for file in sorted((output / "data").glob("*/*.parquet"))
        for row in parquet.read_table(file, columns=["record.seq", "record.control"]).to_pylist()
    ]
    return [(_one(row["record.seq"]), _one(row["record.control"])) for row in frames]


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


@pytest.mark.parametrize("times", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_a_person_takes_and_hands_back_at_random_moments_without_a_step_and_with_exact_labels(
    case: str, times: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, traces, bags = dict(CASES[case]), tmp_path / "traces", tmp_path / "bags"
    if settings.get("a2c2_every_step"):
        head = constant(tmp_path / "head.npz", 0.2, chunk_size=50)
        settings["a2c2_checkpoint"] = str(head)
    traces.mkdir()
    with world(takeover_release_s=0.3, path_tolerance_rad=0.0, blend_s=0.5, record=str(traces), record_images="full",
               record_bag=str(bags), **settings) as scene:  # fmt: skip
        arm = FollowedTrajectories(scene) if case.startswith("joint") else FollowedSetpoints(scene)
        scene.activate()
        scene.robot.next_chunk()
        seen = len(scene.robot.chunks)
        take_and_hand_back(scene, times)
        chunks = list(scene.robot.chunks)
        taken = scene.robot.status.takeovers_total
        scene.spinner.do(scene.server._deactivate)
        scene.spinner.do(scene.server._clean_up)
        fast = arm.fastest()
    (trace,), (bag,) = traces.glob("*.jsonl*"), bags.iterdir()
    executed = executed_in(lambda: TraceReader(trace))
    with TraceReader(trace) as records:
        seqs = {record.seq: record.request_id for record in records}
    frames = labels_of_frames(trace, tmp_path / "from_trace")
    with capsys.disabled():
        print(
            f"\n{case}: {times} times, fastest {fast:.3f} of the limit, sent {1e3 * arm.late_s:.0f} ms late at most"
        )
        print(f"{len(executed)} commands, {len(frames)} frames")
    assert fast <= FASTER
    assert takeovers_of(chunks[seen - 1 :]) == taken >= times
    labels = [chunk.control for chunk in chunks]
    recorded = [label for label, _, _ in executed]  # the first messages may come before the listener is there
    assert any(recorded[missed : missed + len(labels)] == labels for missed in range(3))
    assert executed_in(lambda: BagSource(bag)) == executed
    of_policy = {request for label, request, _ in executed if label == "policy"}
    assert [(seqs[seq] in of_policy) for seq, _ in frames] == [label == "policy" for _, label in frames]
    assert labels_of_frames(bag, tmp_path / "from_bag") == frames
