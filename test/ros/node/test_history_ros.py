# SPDX-License-Identifier: Apache-2.0
"""A policy of two observations on a robot: it looks back one control period, however long its chunks are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bags import bags
from exports import PANDA_MEAN
from ros_world import World, wait_for, world
from servers import ExportDir

from reflex_core.images.raw_encodings import rgb
from reflex_core.records.trace.reader import TraceReader
from reflex_core.values import Observation, Request, Served
from reflex_ros.bag.source import BagSource
from reflex_ros.cli.main import main

PERIOD_NS = 50_000_000
ROWS = 8  # of a chunk before the next inference: 400 ms


def grey(observation: Observation) -> int:
    return int(rgb(observation.frames["camera"])[0, 0, 0])


@contextmanager
def flickering(export: Path, **settings: object) -> Iterator[tuple[World, list[tuple[Request, Served]]]]:
    """A robot whose camera shows another grey in every picture, and what its policy was sent and answered."""
    heard: list[tuple[Request, Served]] = []
    with world(export_dir=str(export), embodiment="franka", execution_horizon=ROWS, **settings) as scene:
        scene.server.engine.listen(lambda request, served: heard.append((request, served)))
        shades = itertools.cycle(range(20, 220))

        def flicker() -> None:
            scene.robot.rgb = (shade := next(shades), shade, shade)

        scene.robot.node.create_timer(0.02, flicker)
        scene.activate()
        yield scene, heard


def test_the_policy_sees_the_frames_of_one_control_period_before(export_dir: ExportDir) -> None:
    with flickering(export_dir("remembering")) as (scene, heard):
        # a machine under load may leave a picture out
        def complete() -> list[tuple[Request, Served]]:
            return [one for one in heard if one[0].history.filled == 0]

        wait_for(lambda: len(complete()) >= 3, "three inferences that look back")
        later = complete()
        for (before, _), (after, _) in itertools.pairwise(later):
            between_ns = after.observation.stamp_ns - before.observation.stamp_ns
            assert between_ns > 2 * PERIOD_NS, "inferences are further apart than what it looks back at"
        for request, served in later:
            observation = request.observation
            (earlier,) = observation.history
            back_ns = observation.stamp_ns - earlier.stamp_ns
            assert 0 < back_ns <= 2 * PERIOD_NS
            seen = (served.raw_actions[0, :2] - np.array(PANDA_MEAN[:2])) * 1e5
            np.testing.assert_allclose(seen, [grey(earlier), grey(observation)], atol=0.1)
            assert grey(earlier) != grey(observation)
            assert request.history.given == 1
            assert request.history.ages_ms == (pytest.approx(back_ns * 1e-6),)
        # a new episode looks back at nothing of the one before
        sent = len(heard)
        scene.robot.begin("another")
        wait_for(lambda: scene.server._assignment.episode_id == "another", "the episode begins")
        began_ns = scene.server.now_ns() - 2 * PERIOD_NS
        first = wait_for(
            lambda: next((r for r, _ in heard[sent:] if r.episode_id == "another"), None), "its inference"
        )
        (earlier,) = first.observation.history
        assert first.history.filled == 1 or earlier.stamp_ns > began_ns


def test_a_bag_and_a_trace_replay_to_the_same_bits(
    export_dir: ExportDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = export_dir("remembering")
    places = {"record_bag": str(tmp_path / "bags"), "record": str(tmp_path / "traces")}
    with flickering(export, **places, record_images="full") as (_, heard):
        wait_for(lambda: len(heard) >= 4, "four inferences")
    (bag,) = bags(tmp_path / "bags")
    (trace,) = (tmp_path / "traces").glob("*.jsonl.gz")
    with TraceReader(trace) as by_trace, BagSource(bag) as by_bag:
        ours = {record.seq: record for record in by_trace}
        theirs = {record.seq: record for record in by_bag}
        assert by_bag.damage == []
    assert len(theirs) >= 4
    for seq, record in theirs.items():
        for one, other in zip(ours[seq].history[::-1], record.history[::-1], strict=False):
            assert one.images == other.images
            assert one.stamp_ns == other.stamp_ns
    for path in (bag, trace):
        capsys.readouterr()
        assert (
            main(["replay", str(path), "--model", str(export), "--output", "-", "--fail-on", "actions"]) == 0
        )
        report = json.loads(capsys.readouterr().out)
        assert report["summary"]["n_diffed"] >= 4
        assert {diff["actions"]["max_abs_diff"] for diff in report["per_request_diffs"]} == {0.0}
