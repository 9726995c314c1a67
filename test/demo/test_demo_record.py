# SPDX-License-Identifier: Apache-2.0
"""The demo recorded as a trace and as a bag: both replay to the same bits, and another policy is recognised."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from demos import Demo
from domains import free_domain
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from onnx import numpy_helper
from reflex_ros.msg import ActionChunk
from replays import command
from repository import ROOT

from reflex_core.files.share import embedded_policy
from reflex_core.records.trace.reader import TraceReader
from reflex_ros.bag.source import BagSource
from reflex_ros.demo.run import policy_command

EPISODES = 2
FADE_S = 0.3  # the default of fade_s
PATIENCE_S = 120.0  # a bound for machines under load, never a measure


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The trace and the bag of two episodes whose node was ended in order."""
    folder = tmp_path_factory.mktemp("recorded")
    arguments = [
        "--policy",
        "reach",
        "--episodes",
        str(EPISODES),
        "--port",
        "0",
        "--record",
        str(folder / "records"),
    ]
    running = Demo(folder / "out", *arguments)
    try:
        assert running.end() == 0, running.printed
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.end()
    (trace,) = (folder / "records" / "trace").iterdir()
    (bag,) = (folder / "records" / "bag").iterdir()
    listed = running.printed.partition("recorded\n")[2]
    assert trace.name in listed
    assert bag.name in listed
    return {"trace": trace, "bag": bag}


@pytest.fixture(scope="module")
def perturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded export with one weight of its denoise graph changed."""
    path = tmp_path_factory.mktemp("perturbed") / "export"
    shutil.copytree(embedded_policy(), path)
    graph = onnx.load(path / "expert_denoise.onnx")
    weights = max(graph.graph.initializer, key=lambda each: np.prod(each.dims))
    changed = numpy_helper.to_array(weights).copy()
    changed.flat[int(np.abs(changed).argmax())] *= -3.0
    weights.CopyFrom(numpy_helper.from_array(changed, weights.name))
    onnx.save(graph, path / "expert_denoise.onnx")
    return path


SOURCES = pytest.mark.parametrize("source", ["trace", "bag"])


@SOURCES
def test_the_recorded_demo_replays_to_the_same_bits(
    recorded: dict[str, Path], source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [recorded[source], "--model", embedded_policy(), "--device", "cpu", "--fail-on", "actions"]
    found = command(capsys, *arguments, "--output", "-")
    assert found.status == 0, found.err
    diffs = found.report["per_request_diffs"]
    assert len(diffs) >= EPISODES
    assert {diff["actions"]["max_abs_diff"] for diff in diffs} == {0.0}
    assert all(diff["actions"]["passed"] for diff in diffs)


@SOURCES
def test_a_policy_with_one_other_weight_fails_the_replay(
    recorded: dict[str, Path], perturbed: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [recorded[source], "--model", perturbed, "--device", "cpu", "--fail-on", "actions"]
    found = command(capsys, *arguments)
    assert found.status == 3, found.out
    assert any("FAIL" in line for line in found.lines)


def test_trace_and_bag_hold_the_same_requests_with_the_same_pictures(recorded: dict[str, Path]) -> None:
    with TraceReader(recorded["trace"]) as trace, BagSource(recorded["bag"]) as bag:
        pairs = list(zip(trace, bag, strict=True))
        assert trace.footer is not None, "it ended in order"
        assert (trace.damage, bag.damage) == ([], [])
    for by_trace, by_bag in pairs:
        assert (by_trace.seq, by_trace.request_id, by_trace.seed) == (
            by_bag.seq, by_bag.request_id, by_bag.seed,
        )  # fmt: skip
        assert by_trace.images == by_bag.images
        assert by_trace.actions.tobytes() == by_bag.actions.tobytes()
    episodes = {record.episode_id for record, _ in pairs}
    assert len(episodes) >= EPISODES


def test_the_chunks_of_the_bag_are_those_of_the_trace_by_their_embedded_definition(
    recorded: dict[str, Path],
) -> None:
    with TraceReader(recorded["trace"]) as trace:
        answers = {record.seq: record for record in trace}
    (file,) = recorded["bag"].glob("*.mcap")
    with file.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
        found = [
            (schema, message)
            for schema, channel, _, message in reader.iter_decoded_messages()
            if channel.topic == "/reflex/action_chunk"
        ]
    assert {schema.name for schema, _ in found if schema} == {"reflex_ros/msg/ActionChunk"}
    chunks = [message for _, message in found if message.source == ActionChunk.SOURCE_POLICY]
    assert {chunk.trace_seq for chunk in chunks} <= set(answers)
    assert len(chunks) >= EPISODES
    for chunk in chunks:
        answer = answers[chunk.trace_seq]
        # the first rows are faded into the motion before
        led = chunk.start_index + round(FADE_S / chunk.dt_s) + 1
        executed = np.array(chunk.data, np.float32).reshape(answer.actions.shape)
        np.testing.assert_array_equal(executed[led:], answer.actions[led:])
        assert (chunk.request_id, chunk.episode_id, chunk.seed) == (
            answer.request_id, answer.episode_id, answer.seed,
        )  # fmt: skip


def test_nothing_is_recorded_unless_it_is_asked_for() -> None:
    assert not [word for word in policy_command(8000) if word.startswith("--record")]


def walk_through() -> list[str]:
    """The code of the page's walk-through, block after block."""
    page = (ROOT / "docs" / "how-to" / "replay.md").read_text(encoding="utf-8")
    return re.findall(r"^```[\w ]*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def test_the_walk_through_from_a_bad_grasp_leads_to_a_failing_test(
    recorded: dict[str, Path], tmp_path: Path
) -> None:
    demo, alone, node, play, again, cut, rule, pytest_call = walk_through()
    make, copy = demo.splitlines()
    assert make == f'make demo DEMO_ARGS="--policy reach --episodes {EPISODES} --record records"'
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "records").symlink_to(recorded["trace"].parents[1])
    environment = dict(os.environ, PYTHON=sys.executable, PYTHONPATH=str(ROOT))
    environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    domain = str(free_domain())

    def begin(block: str) -> subprocess.Popen[str]:
        commands = (
            'reflex() { "$PYTHON" -m reflex_ros.cli.main "$@"; }\n'
            'python3() { "$PYTHON" "$@" -p no:cacheprovider; }\n'
        ) + block.replace("ROS_DOMAIN_ID=42", f"ROS_DOMAIN_ID={domain}")
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(block: str) -> tuple[int, str]:
        process = begin(block)
        output, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, output

    assert run(copy) == (0, "")
    status, output = run(alone)
    assert status == 0, output
    serving = begin(node)
    try:
        status, output = run(play)
        assert status == 0, output
        assert re.search(r"published \d+ observations .* at worst [\d.]+ ms late", output)
    finally:
        os.killpg(serving.pid, signal.SIGINT)
        output, _ = serving.communicate(timeout=PATIENCE_S)
    assert "holding: deactivated" in output, "it ended in order"
    status, output = run(again)
    assert status == 0, output
    assert run(cut) == (0, "")
    (tmp_path / "test_bad_grasp.py").write_text(rule)
    status, output = run(pytest_call)
    assert status == 1, output
    assert re.search(r"^E +assert .* < 0.1$", output, re.MULTILINE), output
    (tmp_path / "test_bad_grasp.py").write_text(rule.replace("< 0.1", "< 3.0"))
    status, output = run(pytest_call)
    assert status == 0, output
