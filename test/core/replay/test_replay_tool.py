# SPDX-License-Identifier: Apache-2.0
"""A policy that commands a tool's pose: what guided its chunks, and those that were held, replay to the same bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tool_robots as robots
from replays import command, edited
from servers import MakeEngine

from reflex_core.files.share import embedded_policy
from reflex_core.values import Frame, Observation

TOPIC = {"kind": "joint_trajectory", "topic": "/arm_controller/joint_trajectory"}
HAND = {"kind": "gripper_topic", "topic": "/hand"}
STATE = {
    "names": ["x", "y", "z", "rx", "ry", "rz", robots.FINGER],
    "tool": {"columns": ["x", "y", "z", "rx", "ry", "rz"], "rotation": "axis_angle"},
}


def seen(number: int) -> Observation:
    """The arm a little farther with every request, ten rows apart."""
    frame = Frame(np.full((24, 32, 3), 90 + 20 * number, np.uint8), "rgb8", 24, 32)
    q = (np.array(robots.HOME) + 0.004 * number).astype(np.float32)
    return Observation({"camera": frame}, q, "reach the red cube", 10**18 + number * 500_000_000, 4.0)


def tool_export(path: Path, mode: str) -> Path:
    """The embedded policy, as if its seven numbers were a tool's pose and a gripper."""
    shutil.copytree(embedded_policy(), path)
    file = path / "reflex_config.json"
    config = json.loads(file.read_text())
    numbers = {"mode": "mean_std", "mean": [0.0] * 7, "std": [0.5] * 7}
    scale = 0.002 if mode == "delta" else 0.02
    config |= {
        "action_names": robots.LIBERO_NAMES, "state": config["state"] | STATE,
        "action_space": [robots.LIBERO_TOOL | {"mode": mode, "scale": scale}, robots.LIBERO_HAND],
        "normalization": {"state": numbers, "action": numbers},
    }  # fmt: skip
    file.write_text(json.dumps(config))
    return path


class Recording:
    """The trace of four guided chunks of a policy of one mode, and its replay. tool: of a safety file."""

    def __init__(self, make_engine: MakeEngine, path: Path, mode: str, **tool: Any) -> None:
        self.export, self.robot = (
            tool_export(path / "export", mode),
            robots.robot(path / "robot", TOPIC, HAND),
        )
        if tool:
            (path / "safety.json").write_text(json.dumps({"tool": tool}))
        engine = make_engine(
            "decomposed", export_dir=str(self.export), custom_embodiment_config=str(self.robot), record=str(path / "traces"),
            record_images="full", record_no_gzip=True, seed=5, safety_config=str(path / "safety.json") if tool else "",
        )  # fmt: skip
        assert engine.loaded is not None
        self.answers = []
        for number in range(4):
            self.answers.append(engine.act(engine.request(seen(number), episode_id="pick")))
            engine.loaded.executed("pick", 3)
        engine.unload()
        self.trace = next(iter((path / "traces").glob("*.jsonl")))

    def replayed(self, capsys: Any, trace: Path) -> dict[str, Any]:
        done = command(
            capsys, trace, "--model", self.export, "--custom-embodiment-config", self.robot, "--device", "cpu",
            "--diff", "all", "--fail-on", "actions", "--output", "-",
        )  # fmt: skip
        found: dict[str, Any] = done.report
        return found


@pytest.mark.parametrize("mode", ["delta", "relative"])
def test_guided_steps_of_a_tool_replay_to_the_same_bits(
    make_engine: MakeEngine, tmp_path: Path, capsys: Any, mode: str
) -> None:
    made = Recording(make_engine, tmp_path, mode)
    assert [answer.hold_reason for answer in made.answers] == [""] * 4
    assert [answer.rtc.mode for answer in made.answers] == ["", *["guided_identity"] * 3]
    # what was executed guides, not what was made
    assert any(answer.guard.clamped for answer in made.answers)
    summary = made.replayed(capsys, made.trace)["summary"]
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (4, 0.0)


@pytest.mark.parametrize("on_speed", ["clamp", "hold"])
def test_what_the_limits_of_the_tool_changed_replays_to_the_same_bits(
    make_engine: MakeEngine, tmp_path: Path, capsys: Any, on_speed: str
) -> None:
    made = Recording(make_engine, tmp_path, "relative", speed_max=0.02, on_speed=on_speed)
    assert any(" speed: " in line for answer in made.answers for line in answer.guard.violations)
    held = [answer.hold_reason == "tool_limit" for answer in made.answers]
    assert any(held) if on_speed == "hold" else not any(held)
    summary = made.replayed(capsys, made.trace)["summary"]
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (4, 0.0)


def test_recorded_joints_guide_as_the_poses_that_they_are(
    make_engine: MakeEngine, tmp_path: Path, capsys: Any
) -> None:
    """One chunk was made from another seed than its record says: the next ones are still those that were recorded."""
    made = Recording(make_engine, tmp_path, "relative")

    def forged(document: dict[str, Any]) -> None:
        if document["seq"] == 0:
            document["noise"]["seed"] += 1

    diffs = made.replayed(capsys, edited(made.trace, forged))["per_request_diffs"]
    worst = [diff["actions"]["max_abs_diff"] for diff in diffs]
    assert worst[0] > 1e-4
    assert max(worst[1:]) < 1e-5


def test_a_hold_for_a_pose_that_is_not_reached_replays_to_the_same_bits(
    make_engine: MakeEngine, tmp_path: Path, capsys: Any
) -> None:
    goal = robots.pose(robots.HOME)
    goal[0, 3] += 2.0
    path = robots.absolute(tmp_path / "export", goal)
    embodiment = robots.robot(tmp_path / "robot", TOPIC, HAND)
    engine = make_engine(
        "act", export_dir=str(path), custom_embodiment_config=str(embodiment), record=str(tmp_path / "traces"),
        record_images="full", record_no_gzip=True,
    )  # fmt: skip
    answer = engine.act(engine.request(seen(0)))
    engine.unload()
    assert answer.hold_reason == "pose_unreached"
    trace = next(iter((tmp_path / "traces").glob("*.jsonl")))
    done = command(
        capsys, trace, "--model", path, "--custom-embodiment-config", embodiment, "--device", "cpu", "--diff", "all",
        "--output", "-",
    )  # fmt: skip
    assert (done.report["summary"]["n_diffed"], done.report["summary"]["max_abs_diff"]) == (1, 0.0)
