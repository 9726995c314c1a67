# SPDX-License-Identifier: Apache-2.0
"""The robot interfaces of some groups on a node, and an outsider that listens to what they send over DDS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any

import numpy as np
from domains import free_domain
from rclpy.node import Node
from ros_world import Spinner, wait_for

from reflex_core.chunks.interpolation import Bounds, Spline, through
from reflex_core.robot.groups import Group
from reflex_core.robot.limits.hold import MEASURED, Hold
from reflex_core.values import ActionChunk, Floats, Inference, Served
from reflex_ros.node.lifecycle import ManagedNode
from reflex_ros.outputs.interfaces import output_maker
from reflex_ros.outputs.outputs import Outputs

SETTLED_S = 0.3  # thirty ticks at the usual rate


def silent(heard: Sequence[Any]) -> bool:
    """Whether nothing comes for a while."""
    seen, end_s = len(heard), time.monotonic() + SETTLED_S
    while time.monotonic() < end_s and len(heard) == seen:
        threading.Event().wait(0.005)
    return len(heard) == seen


def _motion(rows: Floats, dt_s: float, stamp_ns: int, start: int, now_ns: int) -> Spline:
    """The motion through the rows, from the first one on."""
    dues_ns = stamp_ns + np.arange(start + 1, len(rows) + 1) * int(dt_s * 1e9)
    points = rows[start:].astype(np.float64)
    times_ns = np.concatenate([[now_ns], np.maximum(dues_ns, now_ns + np.arange(1, len(points) + 1))])
    knots = np.concatenate([points[:1], points])
    return through(times_ns, knots, np.zeros(rows.shape[1]), Bounds.unlimited(rows.shape[1]))


class Named:
    """What `Outputs.hold` wants to know of a binding."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.action_names = names


class OutputScene:
    """Made by `output_scene`. `measured`: where each joint is, by name; a joint that is not in it is not measured."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.domain = free_domain()
        self.names = tuple(name for group in groups for name in group.names)
        self.measured: dict[str, float] = {}
        self._spinner, self._outside = Spinner(self.domain), Spinner(self.domain)
        self.node = ManagedNode("reflex", context=self._spinner.context)
        self.outsider = Node("controllers", context=self._outside.context)
        self.outputs = Outputs(self.node, "r1", groups, lambda group: output_maker(group.output))
        self.outputs.measured = self._measured
        self._chunks = 0
        self._spinner.start(self.node)
        self._outside.start(self.outsider)

    def _measured(self, names: Sequence[str]) -> Floats | None:
        known = [self.measured[name] for name in names if name in self.measured]
        return np.array(known, np.float32) if len(known) == len(names) else None

    def hear(self, kind: type, topic: str) -> list[tuple[float, Any]]:
        """A list that fills with (monotonic s, message) from a topic; the publisher knows of it when this returns."""
        heard: list[tuple[float, Any]] = []
        (publisher,) = [each for each in self.node.publishers if each.topic_name == topic]
        before = publisher.get_subscription_count()
        subscription = self.outsider.create_subscription(
            kind, topic, lambda m: heard.append((time.monotonic(), m)), 1000
        )
        wait_for(
            lambda: publisher.get_subscription_count() > before and subscription.get_publisher_count(),
            f"{topic} is subscribed to",
        )
        return heard

    def chunk(self, rows: Any, dt_s: float = 0.05, age_s: float = 0.0, start: int = 0) -> None:
        """Send rows whose observation is `age_s` old."""
        self._chunks += 1
        actions = np.array(rows, np.float32)
        served = Served(
            chunk=ActionChunk(actions, self.names, dt_s), raw_actions=actions, request_id=str(self._chunks), episode_id="e",
            seed=1, slot="prod", model_version="m", inference=Inference("onnx_cpu", 1, 1),
        )  # fmt: skip
        now_ns = self.node.get_clock().now().nanoseconds
        stamp_ns = now_ns - int(age_s * 1e9)
        motion = _motion(actions, dt_s, stamp_ns, start, now_ns)
        self.outputs.chunk(served, stamp_ns, age_s * 1e3, self._chunks, start, motion)

    def hold(self, *rows: list[float], dt_s: float = 0.05) -> None:
        """Hold along the rows."""
        path = np.array(rows, np.float32)
        held = Hold(path, dt_s, 0, MEASURED, path[0].astype(np.float64))
        now_ns = self.node.get_clock().now().nanoseconds
        like: Any = Named(self.names)
        self.outputs.hold(held, like, now_ns, "e", 0, "stopped", _motion(path, dt_s, now_ns, 0, now_ns))

    def on_executor(self, call: Any) -> Any:
        """Call on the executor's thread, as the node does; a coroutine is awaited there."""

        async def called() -> Any:
            result = call()
            return await result if isawaitable(result) else result

        return self._spinner.do(called)

    def close(self) -> None:
        self.on_executor(self.outputs.disable)
        self.on_executor(self.outputs.destroy)
        self._spinner.close()
        self._outside.close()
        self.node.destroy_node()
        self.outsider.destroy_node()


@contextmanager
def output_scene(*groups: Group) -> Iterator[OutputScene]:
    """The groups' robot interfaces, enabled."""
    scene = OutputScene(groups)
    try:
        scene.on_executor(scene.outputs.enable)
        yield scene
    finally:
        scene.close()
