# SPDX-License-Identifier: Apache-2.0
"""What a bag costs: on the request path, on the background thread, and in receiving messages as bytes.

The request path is one inference (an image, a JointState, the trace record) with the ActionChunk (50x7) and the
JointTrajectory that it led to. A subscription is paid per message by the executor's thread, whether or not inference
looks at it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image, JointState

from benchmarks.measure import finish, motion_of, parser, percentiles, table
from benchmarks.server import picture
from reflex_core.records.trace.schema import Session
from reflex_core.values import ActionChunk, Inference, Observation, Request, Served
from reflex_ros.bag.reindex import reindex
from reflex_ros.bag.topic_types import definitions, serialised
from reflex_ros.bag.writer import BagRecorder
from reflex_ros.messages.chunks import chunk_message, trajectory_message
from reflex_ros.messages.raw import Consumed, RawMessage, header_stamp_ns, image_frame, kind_of

SIZES = ((96, 96), (224, 224), (480, 640))
JOINTS = tuple(f"panda_joint{number}" for number in range(1, 8))
PACE_S = 0.01
SETTLE_S = 0.002


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table per question."""
    options = parser(__doc__ or "")
    options.add_argument("--requests", type=int, default=300)
    chosen = options.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        recording = [
            recorded(Path(folder), storage, size, chosen.requests)
            for storage in ("mcap", "sqlite3")
            for size in SIZES
        ]
    receiving = received(chosen.requests)
    print(table(recording), table(receiving), sep="\n\n")
    finish("bag_cost", {"recording": recording, "receiving": receiving}, chosen.output)
    return 0


def image(size: tuple[int, int]) -> Image:
    """An rgb8 picture, height x width."""
    height, width = size
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.data.frombytes(picture(height, width).tobytes())
    return message


def joints() -> JointState:
    """Seven joints with velocities and efforts."""
    return JointState(name=list(JOINTS), position=[0.1] * 7, velocity=[0.0] * 7, effort=[0.0] * 7)


def recorded(folder: Path, storage: str, size: tuple[int, int], count: int) -> dict[str, object]:
    """One recorder, fed at a pace that its thread keeps up with."""
    types = definitions()
    directory = folder / f"{storage}-{size[0]}"
    recorder = BagRecorder(
        directory,
        Session("0123456789abcdef", "", ""),
        "/reflex/trace",
        time.time_ns,
        lambda _: [],
        storage=storage,
    )
    raw = [serialised(message, kind_of(type(message)), types) for message in (image(size), joints())]
    put_us = []
    busy_s = time.process_time()
    for number in range(count):
        camera = RawMessage(
            "/camera/image_raw", "sensor_msgs/msg/Image", bytes(raw[0]), number, time.time_ns()
        )
        state = RawMessage("/joint_states", "sensor_msgs/msg/JointState", raw[1], number, time.time_ns())
        request, served = answered_request(number, camera)
        chunk = chunk_message(served, number, 5.0, number, 0)
        trajectory = trajectory_message(
            served.chunk.names, motion_of(served.chunk, number), number, anchor=False
        )
        made = time.perf_counter()
        recorder.answered(request, served, Consumed({"base": camera}, (state,)))
        recorder.sent("/reflex/action_chunk", chunk)
        recorder.sent("/reflex/joint_trajectory", trajectory)
        put_us.append((time.perf_counter() - made) * 1e6)
        time.sleep(PACE_S)
    recorder.close(60)
    busy_s = time.process_time() - busy_s
    (path,) = directory.iterdir()
    size_mb = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    assert recorder.dropped == 0
    (path / "metadata.yaml").unlink()
    for file in path.glob("*.mcap"):  # as after a kill -9; a sqlite3 file has no end to lose
        with file.open("r+b") as stream:
            stream.truncate(file.stat().st_size - 1)
    began = time.perf_counter()
    reindex(path)
    p50, p99 = percentiles(put_us)
    return {
        "storage": storage, "image": f"{size[1]}x{size[0]} rgb8", "request path p50 us": p50, "p99 us": p99,
        "CPU per request ms": busy_s / count * 1e3, "MB per 1000": size_mb / count * 1000,
        "reindex ms": (time.perf_counter() - began) * 1e3,
    }  # fmt: skip


def answered_request(number: int, camera: RawMessage) -> tuple[Request, Served]:
    """A request with this image, and a chunk of 50x7 for it."""
    state = np.full(7, 0.1, np.float32)
    request = Request(
        Observation({"base": image_frame(camera)}, state, "pick up the red cup"), 0, f"r-{number}", "ep"
    )
    actions = np.random.default_rng(number).normal(size=(50, 7)).astype(np.float32)
    served = Served(
        chunk=ActionChunk(actions, JOINTS, 0.05), raw_actions=actions, request_id=request.request_id, episode_id="ep",
        seed=number, slot="prod", model_version="m@0", inference=Inference("onnx_cpu", 10, 10), latency_ms=50.0,
    )  # fmt: skip
    return request, served


def received(count: int) -> list[dict[str, object]]:
    """CPU per message of a subscription that gets messages, bytes, or bytes that it makes a message of."""
    rclpy.init()
    sender, receiver = rclpy.create_node("sender"), rclpy.create_node("receiver")
    executor = SingleThreadedExecutor()
    executor.add_node(receiver)
    rows: list[dict[str, object]] = []
    cases = [(f"{size[1]}x{size[0]} rgb8", Image, image(size)) for size in SIZES] + [
        ("JointState of 7", JointState, joints())
    ]
    for name, kind, message in cases:

        def decoded(raw: bytes, kind: type = kind) -> None:
            deserialize_message(raw, kind)

        def cpu_us(raw: bool, work: Callable[[Any], Any], kind: type = kind, message: Any = message) -> float:
            return spun_us(sender, receiver, executor, (kind, message, raw, work), count)

        rows.append({
            "message": name,
            "as a message us": cpu_us(False, lambda _: None),
            "as bytes us": cpu_us(True, header_stamp_ns),
            "bytes, then a message us": cpu_us(True, decoded),
        })  # fmt: skip
    sender.destroy_node()
    receiver.destroy_node()
    rclpy.shutdown()
    return rows


def spun_us(sender: Any, receiver: Any, executor: Any, case: tuple[Any, ...], count: int) -> float:
    """Median CPU of the spinning thread per message."""
    kind, message, raw, work = case
    got = array("q", [0])

    def callback(arrived: Any) -> None:
        work(arrived)
        got[0] += 1

    subscription = receiver.create_subscription(kind, "measured", callback, QoSProfile(depth=1), raw=raw)
    publisher = sender.create_publisher(kind, "measured", QoSProfile(depth=1))
    while not publisher.get_subscription_count():
        time.sleep(SETTLE_S)
    spent = []
    for _ in range(count):
        publisher.publish(message)
        time.sleep(SETTLE_S)
        before, began = got[0], time.thread_time()
        while got[0] == before:
            executor.spin_once(timeout_sec=1)
        spent.append((time.thread_time() - began) * 1e6)
    receiver.destroy_subscription(subscription)
    sender.destroy_publisher(publisher)
    while receiver.count_publishers("measured"):
        time.sleep(SETTLE_S)
    return statistics.median(spent)


if __name__ == "__main__":
    sys.exit(main())
