# SPDX-License-Identifier: Apache-2.0
"""Bags that hold whole streams, made without a node: every value tells the moment to which it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bags import STORE, TRACE, offered
from builtin_interfaces.msg import Time
from recordings import jpeg
from reflex_ros.msg import ActionChunk
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header

from reflex_core.records.trace.notes import outcome_record
from reflex_core.records.trace.schema import Session
from reflex_core.slots.outcomes import Outcome
from reflex_core.values import ActionChunk as Chunk
from reflex_core.values import Inference, Observation, Request, Served
from reflex_ros.bag.topic_types import serialised
from reflex_ros.bag.writer import BagRecorder
from reflex_ros.messages.raw import Consumed, RawMessage, image_frame, kind_of

NAMES = ("a", "b", "c")
FPS, DT_S, HORIZON = 20, 0.05, 30
BASE, WRIST, JOINTS = "/base/image_raw", "/wrist/image_raw/compressed", "/joint_states"
SIZE = 32
LAG_NS = 4_000_000  # from a sensor's stamp to its arrival
START_NS = 1_700_000_000_000_000_000
TELEOP_OFFSET = 100.0  # what a person commands is so far from what the policy does
CAMERA_MS, WRIST_MS, JOINTS_MS, ASK_MS, PERSON_MS = 33, 66, 10, 500, 20


def header(stamp_ns: int) -> Header:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds))


def seconds(stamp_ns: int) -> float:
    return (stamp_ns - START_NS) * 1e-9


@dataclass
class StreamBag:
    """What goes into a bag, a millisecond at a time. sent: number of messages by topic."""

    folder: Path
    storage: str = "mcap"
    silent_camera: tuple[int, int] = (0, 0)  # ms from, until
    person: tuple[int, int] = (1000, 2000)  # ms in which a person commands
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now_ns = START_NS
        self.sent: dict[str, int] = {}
        self._newest: dict[str, RawMessage] = {}
        settings = {"record_bag_streams": "full", "max_age_ms": 300.0}
        self.recorder = BagRecorder(
            self.folder,
            Session(
                "0123456789abcdef", "", "", embodiment="arm", action_names=NAMES, state_names=NAMES, settings=settings
            ),
            TRACE,
            lambda: self.now_ns,
            offered,
            storage=self.storage,
            flush_interval_s=0.01,
            full_rate=True,
            **self.options,
        )  # fmt: skip

    def arrive(self, topic: str, message: Any) -> None:
        kind = kind_of(type(message))
        raw = serialised(message, kind, STORE)
        self._newest[topic] = RawMessage(topic, kind, raw, self.now_ns - LAG_NS, self.now_ns)
        self.recorder.heard(self._newest[topic])
        self.sent[topic] = self.sent.get(topic, 0) + 1

    def sense(self, ms: int) -> None:
        head = header(self.now_ns - LAG_NS)
        if ms % JOINTS_MS == 0:
            position = [seconds(self.now_ns - LAG_NS) + number / 10 for number in range(len(NAMES))]
            self.arrive(JOINTS, JointState(header=head, name=list(NAMES), position=position))
        if ms % CAMERA_MS == 0 and not self.silent_camera[0] <= ms < self.silent_camera[1]:
            image = Image(header=head, height=SIZE, width=SIZE, encoding="rgb8", step=3 * SIZE)
            image.data.frombytes(bytes([ms // CAMERA_MS % 256]) * (3 * SIZE * SIZE))
            self.arrive(BASE, image)
        if ms % WRIST_MS == 0:
            picture = CompressedImage(header=head, format="jpeg")
            picture.data.frombytes(jpeg(SIZE, ms % 7))
            self.arrive(WRIST, picture)

    def ask(self, ms: int, episode_id: str, instruction: str, *, executed: bool) -> None:
        """Infer, and send the answer where it is executed: its row i is the moment at which it is due."""
        base, wrist, joints = (self._newest[topic] for topic in (BASE, WRIST, JOINTS))
        observation = Observation(
            {"base": image_frame(base), "wrist": image_frame(wrist)}, np.zeros(3, np.float32), instruction, self.now_ns - LAG_NS
        )  # fmt: skip
        request = Request(observation, 0, f"r-{ms}", episode_id)
        stamp_ns = self.now_ns - LAG_NS
        rows = rows_from(stamp_ns)
        served = Served(
            Chunk(rows, NAMES, DT_S), rows, request.request_id, episode_id, seed=1, slot="prod", model_version="m@0",
            inference=Inference("onnx_cpu", 1, 1), latency_ms=2.0,
        )  # fmt: skip
        self.recorder.answered(request, served, Consumed({"base": base, "wrist": wrist}, (joints,)))
        if executed:
            self.command(stamp_ns, rows, episode_id, "policy", request.request_id)

    def command(
        self, stamp_ns: int, rows: Any, episode_id: str, control: str, request_id: str = "", source: int = 0
    ) -> None:
        message = ActionChunk(
            header=header(stamp_ns), episode_id=episode_id, request_id=request_id, names=list(NAMES), dt_s=DT_S,
            horizon=len(rows), action_dim=len(NAMES), data=rows.ravel().tolist(), source=source, control=control,
        )  # fmt: skip
        self.recorder.sent("/reflex/action_chunk", message)
        self.sent["/reflex/action_chunk"] = self.sent.get("/reflex/action_chunk", 0) + 1

    def run(self, until_ms: int, episode_id: str = "ep-1", instruction: str = "pick the cup") -> None:
        for ms in self._milliseconds(until_ms):
            self.sense(ms)
            of_person = self.person[0] <= ms < self.person[1]
            if ms % ASK_MS == 100:
                self.ask(ms, episode_id, instruction, executed=not of_person)
            if of_person and (ms - self.person[0]) % PERSON_MS == 0:
                rows = rows_from(self.now_ns) + np.float32(TELEOP_OFFSET)
                self.command(self.now_ns, rows, episode_id, "teleop")
            if ms == self.person[1]:
                self.ask(ms, episode_id, instruction, executed=True)

    def _milliseconds(self, until_ms: int) -> Iterator[int]:
        first = (self.now_ns - START_NS) // 1_000_000
        for ms in range(first, until_ms):
            self.now_ns = START_NS + ms * 1_000_000
            yield ms
        self.now_ns = START_NS + until_ms * 1_000_000

    def hold(self, episode_id: str = "ep-1") -> None:
        self.command(self.now_ns, np.full((2, 3), -1.0, np.float32), episode_id, "policy", source=3)

    def end(self, episode_id: str, *, success: bool) -> None:
        outcome = Outcome(episode_id, success)
        self.recorder.noted(lambda timestamp: outcome_record(outcome, timestamp))

    def close(self) -> Path:
        self.recorder.close(60.0)
        (path,) = (each for each in self.folder.iterdir() if each.is_dir())
        return path


def rows_from(stamp_ns: int) -> Any:
    """(HORIZON, 3) float32: row i is the moment at which it is due, in seconds since the start, plus a tenth per joint."""
    due = seconds(stamp_ns) + (np.arange(HORIZON) + 1) * DT_S
    return (due[:, None] + np.arange(3) / 10).astype(np.float32)


def two_episodes(folder: Path, **options: Any) -> Path:
    """Two episodes of 3 s; in the first a person commands for a second. It succeeds, and of the other nothing was reported."""
    made = StreamBag(folder, **options)
    made.run(3000)
    made.hold()
    made.run(3099)
    made.end("ep-1", success=True)
    made.person = (0, 0)
    made.run(6100, "ep-2", "put it back")
    return made.close()
