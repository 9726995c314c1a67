# SPDX-License-Identifier: Apache-2.0
"""What recording whole streams costs the chunk loop and the callbacks: blocks with and without it in turns, and their ratio.

Two cameras of 640x480 at 30 Hz and joints at 100 Hz call back as subscriptions do, while the embedded policy infers at 2 Hz. CPU is
that of the inferring thread; p10 of the wall clock shows what waits for the interpreter, and is not what else the machine does.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from benchmarks.bag_cost import answered_request, image, joints
from benchmarks.exports import embedded, policy_of
from benchmarks.measure import finish, parser, percentiles, table
from benchmarks.server import picture
from reflex_core.policy.base import Policy
from reflex_core.records.trace.schema import Session
from reflex_ros.bag.recorder_hook import OFF, RecorderHook
from reflex_ros.bag.topic_types import definitions, serialised
from reflex_ros.bag.writer import BagRecorder
from reflex_ros.messages.chunks import chunk_message
from reflex_ros.messages.raw import Consumed, RawMessage, kind_of

SIZE = (480, 640)
CAMERAS = ("/base/image_raw", "/wrist/image_raw")
JOINTS = "/joint_states"
CAMERA_HZ, JOINTS_HZ, REPLAN_HZ = 30, 100, 2
WAYS = ("off", "consumed", "full")


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row for each kind of image and way to record."""
    options = parser(__doc__ or "")
    options.add_argument("--blocks", type=int, default=10, help="of each way, in turns [10]")
    options.add_argument("--seconds", type=float, default=2.0, help="of a block [2]")
    chosen = options.parse_args(argv)
    policy = policy_of(embedded())
    rows = [row for form in ("jpeg", "rgb8") for row in compared(policy, form, chosen.blocks, chosen.seconds)]
    print(table(rows))
    finish("stream_cost", {"streams": rows}, chosen.output)
    return 0


def compared(policy: Policy, form: str, blocks: int, seconds: float) -> list[dict[str, object]]:
    """Run blocks of every way in turns; each way's figures, and its ratio to no recording."""
    inferred: dict[str, list[float]] = {way: [] for way in WAYS}
    waited: dict[str, list[float]] = {way: [] for way in WAYS}
    called: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: dict[str, float] = dict.fromkeys(WAYS, 0.0)
    recorded: dict[str, tuple[float, int]] = dict.fromkeys(WAYS, (0.0, 0))
    raws = raw_messages(form)
    for _ in range(blocks):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                began_s = time.process_time()
                run = block(policy, raws, way, seconds, Path(folder))
                cpu[way] += time.process_time() - began_s
            inferred[way] += [cpu_ms for cpu_ms, _ in run[0]]
            waited[way] += [wall_ms for _, wall_ms in run[0]]
            called[way] += run[1]
            recorded[way] = (run[2], recorded[way][1] + run[3])
    return [row(form, way, inferred, waited, called, cpu, recorded, blocks * seconds) for way in WAYS]


def row(
    form: str,
    way: str,
    inferred: dict[str, list[float]],
    waited: dict[str, list[float]],
    called: dict[str, list[float]],
    cpu: dict[str, float],
    recorded: dict[str, tuple[float, int]],
    seconds: float,
) -> dict[str, object]:
    """The figures of one way to record."""
    p50, p99 = percentiles(called[way])
    mb_per_s, dropped = recorded[way]
    return {
        "images": form, "recorded": way,
        "inference CPU p50 ms": statistics.median(inferred[way]), "ratio": ratio(inferred, way, 50),
        "wall p10 ms": float(np.percentile(waited[way], 10)), "wall ratio": ratio(waited, way, 10),
        "callback p50 us": p50, "p99 us": p99, "CPU of a core": cpu[way] / seconds,
        "MB per s": mb_per_s, "dropped": dropped,
    }  # fmt: skip


def ratio(measured: dict[str, list[float]], way: str, percentile: int) -> float:
    """A percentile of one way over that of no recording."""
    return float(np.percentile(measured[way], percentile) / np.percentile(measured["off"], percentile))


def raw_messages(form: str) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of a message of each topic."""
    types = definitions()
    if form == "jpeg":
        data = cv2.imencode(".jpg", picture(*SIZE))[1].tobytes()
        seen: Any = CompressedImage(format="jpeg")
        seen.data.frombytes(data)
    else:
        seen = image(SIZE)
    messages = dict.fromkeys(CAMERAS, seen) | {JOINTS: joints()}
    return {
        topic: (kind_of(type(message)), serialised(message, kind_of(type(message)), types))
        for topic, message in messages.items()
    }


def block(
    policy: Policy, raws: dict[str, tuple[str, bytes]], way: str, seconds: float, folder: Path
) -> tuple[list[tuple[float, float]], list[float], float, int]:
    """One block: (ms of CPU and of wall clock per inference, us per callback, MB per second that were written, messages that were dropped)."""
    hook: RecorderHook = OFF
    if way != "off":
        hook = BagRecorder(
            folder, Session("0123456789abcdef", "", ""), "/reflex/trace", time.time_ns, lambda _: [],
            full_rate=way == "full",
        )  # fmt: skip
    newest: dict[str, RawMessage] = {}
    called: list[float] = []
    closing = threading.Event()

    def call_back(topic: str) -> None:
        kind, raw = raws[topic]
        began = time.perf_counter()
        now_ns = time.time_ns()
        arrival = RawMessage(topic, kind, bytes(memoryview(raw)), now_ns, now_ns)
        hook.heard(arrival)
        newest[topic] = arrival
        called.append((time.perf_counter() - began) * 1e6)

    feeder = threading.Thread(target=feed, args=(call_back, closing))
    feeder.start()
    inferred = replan(policy, hook, newest, seconds)
    closing.set()
    feeder.join()
    hook.close()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    dropped = hook.dropped if isinstance(hook, BagRecorder) else 0
    return inferred, called, size / 1e6 / seconds, dropped


def feed(call_back: Callable[[str], None], closing: threading.Event) -> None:
    """Call back at the rates of the sensors until the block is over."""
    began = time.monotonic()
    due = dict.fromkeys((*CAMERAS, JOINTS), 0.0)
    while not closing.is_set():
        topic = min(due, key=lambda each: due[each])
        time.sleep(max(0.0, began + due[topic] - time.monotonic()))
        call_back(topic)
        due[topic] += 1.0 / (JOINTS_HZ if topic == JOINTS else CAMERA_HZ)


def replan(
    policy: Policy, hook: RecorderHook, newest: dict[str, RawMessage], seconds: float
) -> list[tuple[float, float]]:
    """Infer at 2 Hz from the newest messages and record the answers; ms of CPU of this thread, and of the wall clock, of each."""
    observation = policy.canary()
    spent: list[tuple[float, float]] = []
    began = time.monotonic()
    for number in range(round(seconds * REPLAN_HZ)):
        time.sleep(max(0.0, began + (number + 0.5) / REPLAN_HZ - time.monotonic()))
        cameras = [newest[topic] for topic in CAMERAS]
        started, started_cpu = time.perf_counter(), time.thread_time()
        policy.predict(observation, seed=number)
        request, served = answered_request(number, cameras[0])
        consumed = Consumed(dict(zip(("base", "wrist"), cameras, strict=True)), (newest[JOINTS],))
        hook.answered(request, served, consumed)
        hook.sent("/reflex/action_chunk", chunk_message(served, number, 5.0, number, 0))
        spent.append(((time.thread_time() - started_cpu) * 1e3, (time.perf_counter() - started) * 1e3))
    return spent


if __name__ == "__main__":
    sys.exit(main())
