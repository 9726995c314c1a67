# SPDX-License-Identifier: Apache-2.0
"""What it costs to make and publish the messages of a chunk of 50 x 7, and the motion through it: processor time, in turns.

The publishers have one subscription in this process, which is never read. Each stage twice, the second time as a null run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import numpy as np
import rclpy
from rclpy.node import Node
from reflex_ros.msg import ActionChunk as ActionChunkMsg
from trajectory_msgs.msg import JointTrajectory

from benchmarks.measure import finish, motion_of, parser, table
from reflex_core.values import ActionChunk, Inference, Served
from reflex_ros.messages.chunks import chunk_message, sent_points
from reflex_ros.messages.trajectory_bytes import TrajectoryBytes

HORIZON, JOINTS, DT_S = 50, 7, 0.05
STAMP_NS = 1_700_000_000_000_000_000
CALLS = 100  # per measurement: one call alone is near the resolution of the clock

Stages = dict[str, Callable[[], object]]


def answer() -> Served:
    """An answer with a smooth chunk."""
    rows = 0.3 * (1 - np.cos(np.arange(1, HORIZON + 1)[:, None] / 25)) + np.zeros((1, JOINTS))
    actions = rows.astype(np.float32)
    chunk = ActionChunk(actions, tuple(f"joint{number}" for number in range(JOINTS)), DT_S)
    return Served(
        chunk, actions, "request", "episode", 0, "prod", "model", Inference("onnx_cpu", 10, 10)
    )  # fmt: skip


@contextmanager
def node() -> Iterator[Node]:
    """A node of a context of its own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    made = Node("message_cost", context=context)
    try:
        yield made
    finally:
        made.destroy_node()
        rclpy.shutdown(context=context)


def stages_of(made: Node) -> Stages:
    """The messages as the node makes and publishes them, and the motion that it makes first."""
    served = answer()
    motion = motion_of(served.chunk, STAMP_NS)
    since_ns, positions, velocities = sent_points(motion, anchor=True, velocities=True)
    writer = TrajectoryBytes(served.chunk.names, len(since_ns), velocities=True)
    chunks = made.create_publisher(ActionChunkMsg, "~/action_chunk", 1)
    trajectories = made.create_publisher(JointTrajectory, "~/joint_trajectory", 1)
    made.create_subscription(ActionChunkMsg, "~/action_chunk", lambda _: None, 1)
    made.create_subscription(JointTrajectory, "~/joint_trajectory", lambda _: None, 1)
    return {
        "ActionChunk, made and published": lambda: chunks.publish(chunk_message(served, STAMP_NS, 5.0, 1, 0)),
        "JointTrajectory, made and published": lambda: trajectories.publish(
            writer(STAMP_NS, *sent_points(motion, anchor=True, velocities=True))
        ),
        "motion through the chunk": lambda: motion_of(served.chunk, STAMP_NS),
    }


def cpu_us(call: Callable[[], object]) -> float:
    """Processor time of this thread for one call, the mean of CALLS."""
    began = time.thread_time_ns()
    for _ in range(CALLS):
        call()
    return (time.thread_time_ns() - began) / CALLS / 1e3


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row per stage."""
    options = parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=15, help="measurements of each (default %(default)s)")
    arguments = options.parse_args(argv)
    with node() as made:
        stages = stages_of(made)
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in stages}
        for number in range(arguments.rounds + 1):
            for column in (0, 1):
                for name, call in stages.items():
                    took_us = cpu_us(call)
                    if number:  # the first round fills caches
                        found[name][column].append(took_us)
    rows = [
        {"stage": name, "CPU us": median(measured), "null": median(null)}
        for name, (measured, null) in found.items()
    ]
    print(table(rows))
    finish("message_cost", {"stages": rows}, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
