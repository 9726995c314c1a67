# SPDX-License-Identifier: Apache-2.0
"""How evenly a forward controller gets its rows: lateness of the ticks, gaps between messages, processor time.

`forward_command` follows chunks of 7 joints at 20 Hz that are replaced five times a second; one subscriber in another process. Beside
it: nothing; a thread of Python code, as decoding and JSON are; or the embedded policy inferring all the time in a thread of this
process, with a process on every core that keeps it busy. The thread that sends has normal or real-time priority. The processor time is that
thread's, and the whole process's: with the replanning and the threads of the middleware. Each figure is the median of some runs,
in turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product
from typing import Any

import numpy as np
import onnxruntime
import rclpy
from rclpy.lifecycle import LifecycleNode

from benchmarks.measure import finish, motion_of, parser, percentiles, table
from reflex_core.concurrency.real_time import refusal
from reflex_core.files.share import embedded_policy
from reflex_core.metrics.cadence import Cadence
from reflex_core.robot.groups import JOINTS, POSITION, Group
from reflex_core.values import ActionChunk
from reflex_ros.outputs.base import Command
from reflex_ros.outputs.forward_command import forward_command

TOPIC = "/stream_rate/commands"
NAMES = tuple(f"joint{number}" for number in range(7))
ROWS, DT_S, REPLAN_S = 40, 0.05, 0.2
ENDING_S = 5.0
REAL_TIME = "real-time"
PRIORITIES = ["normal", REAL_TIME]
KINDS = {
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
LISTEN = f"""
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
rclpy.init()
node = Node("listener")
node.create_subscription(Float64MultiArray, "{TOPIC}", lambda message: None, 10)
try:
    rclpy.spin(node)
except ExternalShutdownException:
    pass
"""


@contextmanager
def listener() -> Iterator[None]:
    """A subscriber in another process."""
    process = subprocess.Popen([sys.executable, "-c", LISTEN], env=os.environ)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(ENDING_S)
        except subprocess.TimeoutExpired:  # rclpy may sleep through a signal
            process.kill()
            process.wait()


@contextmanager
def busy() -> Iterator[None]:
    """Python code that runs all the time in another thread of this process."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            sum(number * number for number in range(1000))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Lateness(Cadence):
    """Every tick's, not the newest alone."""

    def __init__(self, rate_hz: float) -> None:
        super().__init__(rate_hz)
        self.late_s: list[float] = []

    def tick(self, late_s: float, skipped: int) -> None:
        super().tick(late_s, skipped)
        self.late_s.append(late_s)


@contextmanager
def inferring() -> Iterator[None]:
    """The embedded policy's denoise graph in another thread, over and over, and a busy process on every core."""
    ended = threading.Event()
    session = onnxruntime.InferenceSession(
        str(embedded_policy() / "expert_denoise.onnx"), providers=["CPUExecutionProvider"]
    )
    fed = {each.name: zeros(each.shape, each.type) for each in session.get_inputs()}

    def run() -> None:
        while not ended.is_set():
            session.run(None, fed)

    thread = threading.Thread(target=run)
    spinning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)
    ]
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for each in spinning:
            each.kill()
            each.wait()


def zeros(shape: Sequence[int | str], kind: str) -> Any:
    """An input of a graph; what it computes with does not change how long it takes."""
    return np.zeros([each if isinstance(each, int) else 1 for each in shape], KINDS[kind])


BESIDE: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "nothing": nullcontext, "python": busy, "inference": inferring,
}  # fmt: skip


def median_of(runs: Sequence[dict[str, object]]) -> dict[str, object]:
    """The median of each figure."""
    return {name: float(np.median([run[name] for run in runs])) for name in runs[0]}  # type: ignore[arg-type]


def follow(node: LifecycleNode, rate_hz: float, priority: str, seconds: float) -> dict[str, object]:
    """Follow chunks for so long, and return a row of the table."""
    sent_s: list[float] = []

    def publish(publisher: Any, message: Any) -> None:
        publisher.publish(message)
        sent_s.append(time.monotonic())

    group = Group(
        "arm", tuple(range(7)), NAMES, JOINTS, POSITION, options={"topic": TOPIC, "rate_hz": rate_hz}
    )
    output = forward_command(node, publish, group)
    output.ticks.cadence = cadence = Lateness(rate_hz)
    output.enable()
    output.ticks.relax()
    if priority == REAL_TIME:
        output.ticks.hurry()
    while not node.count_subscribers(TOPIC):
        time.sleep(0.05)
    thread = output.ticks._thread.ident
    assert thread is not None
    clock = time.pthread_getcpuclockid(thread)
    began_s, cpu_s, thread_s = time.monotonic(), time.process_time(), time.clock_gettime(clock)
    while (now_s := time.monotonic() - began_s) < seconds:
        output.send(command(node, now_s))
        time.sleep(REPLAN_S)
    cpu_s, took_s = time.process_time() - cpu_s, time.monotonic() - began_s
    thread_s = time.clock_gettime(clock) - thread_s
    report, late_ms = output.report(), np.array(cadence.late_s) * 1e3
    gaps = np.diff(sent_s) * rate_hz
    output.disable()
    output.destroy()
    p50, p99 = percentiles(late_ms.tolist())
    return {
        "rate_hz": rate_hz, "ticks_per_s": len(late_ms) / took_s, "late_p50_ms": p50, "late_p99_ms": p99,
        "late_max_ms": float(late_ms.max()), "left_out": report["late ticks"], "least_gap_periods": float(gaps.min()),
        "thread_percent": 100.0 * thread_s / took_s, "cpu_percent": 100.0 * cpu_s / took_s,
    }  # fmt: skip


def command(node: LifecycleNode, now_s: float) -> Command:
    """The chunk that a policy makes now, from an observation of 120 ms ago."""
    due_s = now_s - 0.12 + DT_S * np.arange(1, ROWS + 1)
    rows = (0.6 * np.sin(1.6 * due_s)[:, None] * np.ones(7)).astype(np.float32)
    now_ns = int(node.get_clock().now().nanoseconds)
    chunk, stamp_ns = ActionChunk(rows, NAMES, DT_S), now_ns - 120_000_000
    return Command(chunk, stamp_ns, 2, motion_of(chunk, stamp_ns))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    read = parser(__doc__)
    read.add_argument("--seconds", type=float, default=10.0, help="of each run")
    read.add_argument("--runs", type=int, default=5, help="whose median a row of the table is")
    read.add_argument("--rates", type=float, nargs="+", default=[100.0, 250.0], help="ticks per second")
    read.add_argument("--beside", nargs="+", choices=BESIDE, default=[*BESIDE], help="what runs beside it")
    read.add_argument(
        "--priority", nargs="+", choices=PRIORITIES, default=PRIORITIES[: 1 if refusal() else 2],
        help="of the thread that sends; real-time where this system permits it, and no more than 100 Hz where it does not",
    )  # fmt: skip
    options = read.parse_args(arguments)
    rclpy.init()
    node = LifecycleNode("stream_rate")
    lines: list[dict[str, object]] = []
    with listener():
        for beside in options.beside:
            runs: dict[tuple[float, str], list[dict[str, object]]] = {}
            with BESIDE[beside]():
                for _, rate_hz, priority in product(range(options.runs), options.rates, options.priority):
                    run = follow(node, rate_hz, priority, options.seconds)
                    runs.setdefault((rate_hz, priority), []).append(run)
            lines += [
                {"beside": beside, "priority": priority, **median_of(found)}
                for (_, priority), found in runs.items()
            ]
    node.destroy_node()
    rclpy.shutdown()
    print(table(lines))
    finish("stream_rate", {"rows": lines}, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
