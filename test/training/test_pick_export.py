# SPDX-License-Identifier: Apache-2.0
"""The shipped picking policy, read with nothing but ONNX Runtime: intact, complete, and as good as its card says."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from repository import ROOT
from tokenizers import Tokenizer

from reflex_ros.demo.pick_scene import FINGER_NAME, FINGER_OPEN_M, PICK_JOINT_NAMES, PICK_TEMPLATES
from reflex_ros.demo.scene import COLOURS

EXPORT = ROOT / "models" / "pick_panda"
EPISODES, LEAST_SHARE = 200, 0.95
MOST_BYTES = 6_000_000


def read_json(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((EXPORT / name).read_text(encoding="utf-8"))
    return value


def read_text(name: str) -> str:
    return (EXPORT / name).read_text(encoding="utf-8")


def open_session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def wilson(successes: int, count: int) -> tuple[float, float]:
    z, share = 1.96, successes / count
    middle, scale = share + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return 100 * (middle - half) / scale, 100 * (middle + half) / scale


def test_verification_lists_every_served_file_with_its_hash() -> None:
    listed = dict(re.findall(r"\| `([^`]+)` \| \d+ \| `([0-9a-f]{64})` \|", read_text("VERIFICATION.md")))
    files = [path for path in EXPORT.rglob("*") if path.is_file() and path.suffix != ".md"]
    assert listed == {
        path.relative_to(EXPORT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    assert sum(path.stat().st_size for path in files) < MOST_BYTES


def test_the_card_states_what_was_verified_and_that_is_good_enough() -> None:
    rows = re.findall(
        r"^\| [^|]* \| (\d+)/(\d+) = [\d.]+ % \| ([\d.]+)-([\d.]+) % \|",
        read_text("VERIFICATION.md"),
        re.MULTILINE,
    )
    assert rows, "VERIFICATION.md has no table of episodes"
    for picked_up, count, low, high in rows:
        assert (float(low), float(high)) == pytest.approx(wilson(int(picked_up), int(count)), abs=0.051)
    picked_up, count, low, high = rows[0]
    assert int(count) == EPISODES
    assert int(picked_up) >= LEAST_SHARE * EPISODES
    assert f"{picked_up} of {count}" in read_text("README.md")
    assert f"{low}-{high} %" in read_text("README.md")


def test_every_name_in_the_config_is_in_the_graphs() -> None:
    config = read_json("reflex_config.json")
    sessions = [open_session(EXPORT / file) for file in config["graphs"].values()]
    inputs = {value.name: value for session in sessions for value in session.get_inputs()}
    outputs = {value.name for session in sessions for value in session.get_outputs()}
    image = config["images"][0]
    assert inputs[image["input"]].shape == [1, 3, image["height"], image["width"]]
    assert inputs[config["language"]["tokens"]].shape == [1, config["language"]["length"]]
    assert inputs[config["state"]["input"]].shape == [1, len(PICK_JOINT_NAMES)]
    named = {value for value in config["flow"].values() if isinstance(value, str)}
    assert named <= set(inputs) | outputs


def test_the_same_inputs_give_the_same_finite_velocity() -> None:
    prefix, expert = (open_session(EXPORT / name) for name in ("vlm_prefix.onnx", "expert_denoise.onnx"))
    generator = np.random.default_rng(1)
    cache = prefix.run(
        None,
        {
            "image": generator.uniform(-1, 1, (1, 3, 112, 112)).astype(np.float32),
            "lang_tokens": generator.integers(2, 40, (1, 24)),
            "lang_masks": np.arange(24)[None] < 5,
        },
    )
    names = [output.name for output in prefix.get_outputs()]
    feed = dict(zip(names, cache, strict=True)) | {
        "x_t": generator.standard_normal((1, 50, 8)).astype(np.float32),
        "timestep": np.ones(1, np.float32),
        "state": generator.standard_normal((1, 8)).astype(np.float32),
    }
    first, second = (expert.run(None, feed)[0] for _ in range(2))
    assert first.shape == (1, 50, len(PICK_JOINT_NAMES))
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)


def test_the_tokenizer_knows_every_word_of_every_instruction() -> None:
    tokenizer = Tokenizer.from_file(str(EXPORT / "tokenizer.json"))
    for template in PICK_TEMPLATES:
        for colour in COLOURS:
            sentence = template.format(colour=colour)
            ids = tokenizer.encode(sentence).ids
            assert len(ids) == len(sentence.split()) <= read_json("reflex_config.json")["language"]["length"]
            assert min(ids) > 1


def test_the_robot_is_an_arm_and_a_hand_with_the_statistics_of_the_config() -> None:
    robot, config = read_json("embodiment.json"), read_json("reflex_config.json")
    assert robot["joint_names"] == config["action_names"] == list(PICK_JOINT_NAMES)
    assert [group["output"]["kind"] for group in robot["groups"]] == ["joint_trajectory", "gripper_topic"]
    assert robot["action_space"]["ranges"][-1] == [0.0, FINGER_OPEN_M]
    assert config["action_space"] == [
        {"columns": [FINGER_NAME], "gripper": {"open": FINGER_OPEN_M, "closed": 0.0}}
    ]
    for kind in ("state", "action"):
        mean, std = (np.array(config["normalization"][kind][part]) for part in ("mean", "std"))
        assert np.isfinite(mean).all()
        assert (std > 0.01).all()
        assert robot["normalization"][f"mean_{kind}"] == mean.tolist()
        assert robot["normalization"][f"std_{kind}"] == std.tolist()
