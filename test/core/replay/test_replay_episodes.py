# SPDX-License-Identifier: Apache-2.0
"""`reflex replay --episode`, `--outcome`, `--clamped`, `--held`: only some episodes are run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from replays import command, record, written
from servers import ExportDir, MakeEngine

Output = pytest.CaptureFixture[str]


@pytest.fixture
def trace(make_engine: MakeEngine, tmp_path: Path) -> Path:
    """Three requests of as many episodes: the second failed, and the third was clamped."""
    path = record(make_engine, tmp_path, "mono_pi0_7")
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    requests = [document for document in documents if document["kind"] == "request"]
    for name, document in zip(("one", "two", "three"), requests, strict=True):
        document["request"]["episode_id"] = name
    requests[2]["guard"] = {
        "clamped": True,
        "clamp_count": 1,
        "violations": ["panda_joint2 velocity: 3 > 2 rad/s"],
    }
    outcome = {"kind": "outcome", "schema_version": 1, "episode_id": "two", "success": False}
    return written(path, [*documents[:-1], outcome, documents[-1]])


@pytest.mark.parametrize(
    ("words", "seqs"),
    [
        (["--episode", "two"], [1]),
        (["--episode", "t..."], [1, 2]),
        (["--outcome", "failed"], [1]),
        (["--clamped"], [2]),
        (["--outcome", "unknown"], [0, 2]),
    ],
)
def test_only_the_episodes_that_match_are_replayed(
    trace: Path, export_dir: ExportDir, capsys: Output, words: list[str], seqs: list[int]
) -> None:
    done = command(capsys, trace, "--model", export_dir("mono_pi0_7"), *words)
    assert done.status == 0
    assert [int(line.split("seq=")[1].split()[0]) for line in done.lines] == seqs


def test_a_filter_that_matches_nothing_is_an_error_that_names_where_to_look(
    trace: Path, export_dir: ExportDir, capsys: Output
) -> None:
    done = command(capsys, trace, "--model", export_dir("mono_pi0_7"), "--held")
    assert done.status == 1
    assert "none of its 3 episodes matches --held: `reflex trace ls` lists them" in done.err


def test_the_whole_recording_is_played_onto_topics(trace: Path, capsys: Output) -> None:
    done = command(capsys, trace, "--publish", "--episode", "two")
    assert done.status == 1
    assert "--publish plays the whole recording" in done.err
