# SPDX-License-Identifier: Apache-2.0
"""What an episode carries from chunk to chunk is repeated by a replay: guidance, kept prefixes, thresholds, corrections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replays import command, edited, written
from ros_world import REACH_HOME
from servers import MakeEngine

from reflex_core.files.share import embedded_policy
from reflex_core.values import Frame, Observation

DT_S = 0.05
Output = pytest.CaptureFixture[str]


def seen(level: int, rows: float) -> Observation:
    """A grey scene `rows` control steps after the beginning, the arm at home: calm chunks that no guard touches."""
    frame = Frame(np.full((224, 224, 3), level, np.uint8), "rgb8", 224, 224)
    stamp_ns = 10**18 + round(rows * DT_S * 1e9)
    return Observation(
        {"camera": frame}, np.array(REACH_HOME, np.float32), "reach the red cube", stamp_ns, 4.0
    )


def recorded(
    make_engine: MakeEngine, directory: Path, ids: Sequence[str | None] = (None,) * 4, **settings: Any
) -> Path:
    """Two interleaved episodes of the embedded policy; of one the scene stands still between chunks."""
    engine = make_engine(
        "decomposed", export_dir=str(embedded_policy()), record=str(directory), record_images="full",
        record_no_gzip=True, seed=5, **settings,
    )  # fmt: skip
    for number in range(4):
        if number == 2 and settings.get("adaptive_steps"):
            engine.adjust(replace(engine.settings, adaptive_threshold=0.5))
        for episode in ("left", "right"):
            level = 127 + 30 * (number // 2 if episode == "left" else number)
            engine.act(engine.request(seen(level, 20 * number), episode_id=episode, request_id=ids[number]))
            assert engine.loaded is not None
            engine.loaded.executed(episode, 3)
    engine.unload()
    return next(iter(directory.glob("*.jsonl")))


def documents(trace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.read_text().splitlines()]


def replayed(capsys: Output, trace: Path, *more: str) -> dict[str, Any]:
    done = command(
        capsys, trace, "--model", embedded_policy(), "--device", "cpu", "--diff", "all", "--fail-on", "actions",
        "--output", "-", *more,
    )  # fmt: skip
    found: dict[str, Any] = done.report
    return found


def test_guided_chunks_of_interleaved_episodes_replay_to_the_same_bits(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    trace = recorded(make_engine, tmp_path)
    guided = [document for document in documents(trace) if document.get("rtc")]
    assert len(guided) == 6  # all but the first chunk of each episode
    summary = replayed(capsys, trace)["summary"]
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (8, 0.0)


def test_clients_that_use_the_same_request_ids_are_not_mixed_up(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    trace = recorded(make_engine, tmp_path, ids=["0", "1", "2", "3"])
    assert replayed(capsys, trace)["summary"]["max_abs_diff"] == 0.0


def test_a_chunk_whose_guide_is_missing_is_reported(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    trace = recorded(make_engine, tmp_path)
    torn = [document for document in documents(trace) if document.get("seq") not in (0, 1)]
    found = replayed(capsys, written(tmp_path / "torn.jsonl", torn))
    assert any(
        "2 chunks were guided by one, or averaged with one, that is not in the trace" in note
        for note in found["summary"]["warnings"]
    )


def test_the_recorded_chunk_guides_where_the_replay_came_to_another(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    """One chunk was made from another seed than its record says: the next ones are still those that were recorded."""
    trace = recorded(make_engine, tmp_path)

    def forged(document: dict[str, Any]) -> None:
        if document["seq"] == 0:
            document["noise"]["seed"] += 1

    diffs = replayed(capsys, edited(trace, forged))["per_request_diffs"]
    worst = [diff["actions"]["max_abs_diff"] for diff in diffs]
    assert worst[0] > 1e-3
    assert max(worst[1:]) < 1e-5


def test_kept_prefixes_are_hit_and_missed_as_recorded(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    trace = recorded(make_engine, tmp_path, prefix_cache=True, prefix_cache_max_age_ms=60_000.0)
    statuses = [document["cache"]["status"] for document in documents(trace) if document["kind"] == "request"]
    assert (statuses.count("hit"), statuses.count("miss")) == (2, 6)
    summary = replayed(capsys, trace)["summary"]
    assert summary["max_abs_diff"] == 0.0
    assert summary["n_pass_cache"] == 8


def test_a_hit_that_the_replay_misses_fails_the_cache_diff(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    trace = recorded(make_engine, tmp_path, prefix_cache=True, prefix_cache_max_age_ms=60_000.0)

    def lied(document: dict[str, Any]) -> None:
        document["cache"]["status"] = "hit"

    assert replayed(capsys, edited(trace, lied))["summary"]["n_pass_cache"] == 2


def test_a_threshold_that_was_changed_while_serving_holds_from_then_on(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    trace = recorded(make_engine, tmp_path, adaptive_steps=True)
    thresholds = {
        document["denoise"]["threshold"] for document in documents(trace) if document["kind"] == "request"
    }
    assert len(thresholds) == 2
    assert replayed(capsys, trace)["summary"]["max_abs_diff"] == 0.0


def test_corrected_chunks_guide_as_they_were_executed(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    trace = recorded(
        make_engine,
        tmp_path,
        a2c2_checkpoint=str(embedded_policy() / "a2c2.npz"),
        a2c2_latency_threshold_ms=0.001,
    )
    corrected = [document for document in documents(trace) if (document.get("a2c2") or {}).get("applied")]
    assert corrected
    assert replayed(capsys, trace)["summary"]["max_abs_diff"] == 0.0


def test_rows_that_were_corrected_on_their_way_guide_in_a_replay_as_they_did(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    """`a2c2_every_step`: the answer on record is not what the robot executed, so the next record holds that."""
    engine = make_engine(
        "decomposed", export_dir=str(embedded_policy()), record=str(tmp_path), record_images="full",
        record_no_gzip=True, seed=5,
    )  # fmt: skip
    loaded = engine.loaded
    assert loaded is not None
    for number in range(3):
        served = engine.act(engine.request(seen(127, 20 * number), episode_id="left", request_id=str(number)))
        loaded.executed("left", 3)
        loaded.corrected("left", "another", served.chunk.actions + np.float32(1.0))
        if number == 1:
            loaded.corrected("left", str(number), served.chunk.actions + np.float32(0.05))
    engine.unload()
    trace = next(iter(tmp_path.glob("*.jsonl")))
    blocks = [document["rtc"] for document in documents(trace) if document.get("rtc")]
    assert ["executed" in block for block in blocks] == [False, True]
    assert np.array(blocks[1]["executed"]).shape == served.chunk.actions.shape
    assert replayed(capsys, trace)["summary"]["max_abs_diff"] == 0.0
