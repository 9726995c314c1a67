# SPDX-License-Identifier: Apache-2.0
"""How evenly a forward controller gets its rows: lateness of the ticks, gaps between messages, processor time.

`forward_command` follows chunks of 7 joints at 20 Hz that are replaced five times a second; one subscriber in another process.
With --busy another thread of the process runs Python code all the time, as decoding and JSON do.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import rclpy
from rclpy.lifecycle import LifecycleNode

from benchmarks.measure import finish, motion_of, parser, percentiles, table
from reflex_core.robot.groups import Group
from reflex_core.values import ActionChunk
from reflex_ros.outputs.base import Command
from reflex_ros.outputs.forward_command import forward_command

TOPIC = "/stream_rate/commands"
NAMES = tuple(f"joint{number}" for number in range(7))
ROWS, DT_S, REPLAN_S = 40, 0.05, 0.2
ENDING_S = 5.0
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


def follow(node: LifecycleNode, rate_hz: float, seconds: float) -> dict[str, object]:
    """Follow chunks for so long, and return a row of the table."""
    sent_s: list[float] = []

    def publish(publisher: Any, message: Any) -> None:
        publisher.publish(message)
        sent_s.append(time.monotonic())

    group = Group("arm", tuple(range(7)), NAMES, options={"topic": TOPIC, "rate_hz": rate_hz})
    output = forward_command(node, publish, group)
    output.lateness_s = type(output.lateness_s)(maxlen=None)
    output.enable()
    while not node.count_subscribers(TOPIC):
        time.sleep(0.05)
    began_s, cpu_s = time.monotonic(), time.process_time()
    while (now_s := time.monotonic() - began_s) < seconds:
        output.send(command(node, now_s))
        time.sleep(REPLAN_S)
    cpu_s, took_s = time.process_time() - cpu_s, time.monotonic() - began_s
    report, late_ms = output.report(), np.array(output.lateness_s) * 1e3
    gaps = np.diff(sent_s) * rate_hz
    output.disable()
    output.destroy()
    p50, p99 = percentiles(late_ms.tolist())
    return {
        "rate_hz": rate_hz, "ticks_per_s": len(late_ms) / took_s, "late_p50_ms": p50, "late_p99_ms": p99,
        "late_max_ms": float(late_ms.max()), "left_out": report["late ticks"], "least_gap_periods": float(gaps.min()),
        "cpu_percent": 100.0 * cpu_s / took_s,
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
    read.add_argument("--seconds", type=float, default=20.0, help="of each row of the table")
    read.add_argument("--rates", type=float, nargs="+", default=[100.0, 250.0], help="ticks per second")
    read.add_argument(
        "--busy",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="only with, or without, the other thread",
    )
    options = read.parse_args(arguments)
    rclpy.init()
    node = LifecycleNode("stream_rate")
    lines: list[dict[str, object]] = []
    with listener():
        for loaded in (False, True) if options.busy is None else (options.busy,):
            for rate_hz in options.rates:
                with busy() if loaded else nullcontext():
                    lines.append({"busy": loaded, **follow(node, rate_hz, options.seconds)})
    node.destroy_node()
    rclpy.shutdown()
    print(table(lines))
    finish("stream_rate", {"rows": lines}, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
