# SPDX-License-Identifier: Apache-2.0
"""A2C2 at every control step through the real node: what a forward controller is sent, and how a hold ends it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import constant
from ros_world import REACH_HOME, World, rows, wait_for, world
from std_msgs.msg import Float64MultiArray

from reflex_core.export.export import open_export
from reflex_core.files.share import embedded_policy
from reflex_core.robot.presets import load_embodiment
from reflex_ros.messages.stamps import stamp_ns
from reflex_ros.outputs.forward_command import RATE_HZ

Z = 0.2
EMBEDDED = embedded_policy()
STATISTICS = open_export(EMBEDDED).action_statistics
ROBOT = load_embodiment(EMBEDDED / "embodiment.json")


def head(folder: Path) -> str:
    """A head that says the same of every row."""
    return str(constant(folder / "head.npz", Z, chunk_size=50))


def settings(folder: Path, **other: Any) -> dict[str, Any]:
    """A robot that does not follow, so that every chunk begins alike."""
    values = {
        "output": "forward_command", "a2c2_checkpoint": head(folder), "a2c2_every_step": True, "path_tolerance_rad": 0.0,
        "rtc": False,
    }  # fmt: skip
    return values | other


class Heard:
    """What the controller is sent, and when it came."""

    def __init__(self, scene: World) -> None:
        self.sent: list[tuple[int, list[float]]] = []
        scene.robot.positions = list(REACH_HOME)
        scene.robot.node.create_subscription(Float64MultiArray, "reflex/commands", self._note, 10)

    def _note(self, message: Float64MultiArray) -> None:
        self.sent.append((time.time_ns(), message.data.tolist()))


def added(scene: World, heard: Heard) -> Any:
    """(n, 7) by how much what was sent differs from the rows that were served, between due rows."""
    differences = []
    for chunk in list(scene.robot.chunks):
        zero_ns, served = stamp_ns(chunk.header.stamp), rows(chunk)
        due_ns = zero_ns + np.arange(1, len(served) + 1) * 50_000_000
        newer = [one for one in scene.robot.chunks if one.chunk_id > chunk.chunk_id]
        until_ns = stamp_ns(newer[0].header.stamp) if newer else time.time_ns()
        for now_ns, sent in list(heard.sent):
            if due_ns[chunk.start_index] + 100_000_000 < now_ns < until_ns:
                served_now = [np.interp(now_ns, due_ns, column) for column in served.T]
                differences.append(np.array(sent) - served_now)
    return np.array(differences)


def test_rows_that_are_streamed_are_corrected_by_what_is_seen_now(tmp_path: Path) -> None:
    with world(**settings(tmp_path)) as scene:
        heard = Heard(scene)
        scene.activate()
        wait_for(lambda: len(scene.robot.chunks) > 4, "some chunks")
        wait_for(lambda: len(added(scene, heard)) > 30, "it streams")
        assert STATISTICS is not None
        residual = math.tanh(Z / 3) * 3 * STATISTICS.back
        np.testing.assert_allclose(np.median(added(scene, heard), axis=0), residual, atol=0.012)
        counted = scene.server.engine.metrics.exposition().decode()
        assert 'reflex_a2c2_steps_total{reason="applied"}' in counted
        assert (
            'reflex_a2c2_skipped_total{reason="every_step"}' in counted
        )  # the chunks themselves are left alone
        assert "reflex_a2c2_applied_total{" not in counted


def test_no_step_is_faster_than_the_limit_and_a_hold_stays_where_the_corrections_led(tmp_path: Path) -> None:
    with world(**settings(tmp_path)) as scene:
        heard = Heard(scene)
        scene.activate()
        wait_for(lambda: len(added(scene, heard)) > 30, "it streams")
        at_stop = np.array(heard.sent[-1][1])
        assert scene.robot.call("stop").success
        wait_for(lambda: time.time_ns() - heard.sent[-1][0] > 500_000_000, "it is held")
        sent = np.array([values for _, values in heard.sent])
        assert ROBOT.velocity_max is not None
        assert (np.abs(np.diff(sent, axis=0)) <= ROBOT.velocity_max / RATE_HZ * 1.01).all()
        assert np.abs(sent[-1] - at_stop).max() < 0.12
        assert scene.loop.every_step.added(scene.server.now_ns()) is None


def test_without_rows_that_are_streamed_it_is_refused(tmp_path: Path) -> None:
    with world(**settings(tmp_path, output="joint_trajectory")) as scene:
        scene.robot.positions = list(REACH_HOME)
        with pytest.raises(
            AssertionError, match="a2c2-every-step needs a robot interface that sends one row per tick"
        ):
            scene.activate()


def test_without_a_head_it_is_refused(tmp_path: Path) -> None:
    with (
        world(**settings(tmp_path, a2c2_checkpoint="")) as scene,
        pytest.raises(AssertionError, match="'a2c2_every_step': needs a head that corrects"),
    ):
        scene.activate()


def test_a_dry_run_corrects_nothing(tmp_path: Path) -> None:
    with world(**settings(tmp_path, dry_run=True)) as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.activate()
        wait_for(lambda: scene.robot.chunks, "a chunk")
        assert "reflex_a2c2_steps_total{" not in scene.server.engine.metrics.exposition().decode()


def test_what_is_let_through_in_part_is_not_corrected(tmp_path: Path) -> None:
    """Its rows are not the policy's own; once all of it is let through, they are corrected again."""
    with world(**settings(tmp_path, blend=0.5, blend_s=0.0)) as scene:
        heard = Heard(scene)
        scene.activate()
        wait_for(lambda: len(scene.robot.chunks) > 2 and len(heard.sent) > 30, "it streams")
        assert scene.loop.every_step.added(scene.server.now_ns()) is None
        assert scene.robot.set("blend", 1.0).successful
        wait_for(lambda: scene.loop.every_step.added(scene.server.now_ns()) is not None, "it is corrected")
