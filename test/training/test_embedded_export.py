# SPDX-License-Identifier: Apache-2.0
"""The shipped policy, read with nothing but ONNX Runtime: intact, complete, and the same in both layouts."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from repository import ROOT
from tokenizers import Tokenizer

from reflex_ros.demo.scene import COLOURS, INSTRUCTION_TEMPLATES, JOINT_NAMES

EXPORT = ROOT / "models" / "reach_panda"
LAYOUTS = {"decomposed": EXPORT, "monolithic": EXPORT / "monolithic"}


def read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def open_session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def random_inputs(seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    mask = np.arange(24)[None] < generator.integers(1, 25)
    return {
        "image": generator.uniform(-1, 1, (1, 3, 96, 96)).astype(np.float32),
        "lang_tokens": np.where(mask, generator.integers(1, 90, (1, 24)), 0),
        "lang_masks": mask,
        "state": generator.standard_normal((1, 7)).astype(np.float32),
        "noise": generator.standard_normal((1, 50, 7)).astype(np.float32),
    }


def denoise(inputs: dict[str, Any], steps: int) -> Any:
    prefix, expert = open_session(EXPORT / "vlm_prefix.onnx"), open_session(EXPORT / "expert_denoise.onnx")
    names = [output.name for output in prefix.get_outputs()]
    observed = {name: inputs[name] for name in ("image", "lang_tokens", "lang_masks")}
    cache = dict(zip(names, prefix.run(None, observed), strict=True))
    x = inputs["noise"]
    for step in range(steps):
        time = np.array([1 - step / steps], dtype=np.float32)
        velocity = expert.run(None, {"x_t": x, "timestep": time, "state": inputs["state"], **cache})[0]
        x = x - velocity / np.float32(steps)
    return x


def test_verification_lists_every_served_file_with_its_hash() -> None:
    text = (EXPORT / "VERIFICATION.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"\| `([^`]+)` \| \d+ \| `([0-9a-f]{64})` \|", text))
    present = {
        path.relative_to(EXPORT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in EXPORT.rglob("*")
        if path.is_file() and path.suffix != ".md"
    }
    assert listed == present


@pytest.mark.parametrize("seed", range(4))
def test_both_layouts_give_the_same_chunk_for_the_same_noise(seed: int) -> None:
    inputs = random_inputs(seed)
    steps = read_json(EXPORT / "reflex_config.json")["num_denoising_steps"]
    whole = open_session(EXPORT / "monolithic" / "model.onnx").run(["actions"], inputs)[0]
    np.testing.assert_allclose(denoise(inputs, steps), whole, atol=1e-4)


def test_same_inputs_give_the_same_bits() -> None:
    np.testing.assert_array_equal(denoise(random_inputs(9), 10), denoise(random_inputs(9), 10))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_name_in_the_config_is_in_the_graphs(layout: str) -> None:
    folder = LAYOUTS[layout]
    config = read_json(folder / "reflex_config.json")
    assert config["export_kind"] == layout
    sessions = [open_session(folder / file) for file in config["graphs"].values()]
    inputs = {value.name: value for session in sessions for value in session.get_inputs()}
    outputs = {value.name for session in sessions for value in session.get_outputs()}
    image = config["images"][0]
    assert inputs[image["input"]].shape == [1, 3, image["height"], image["width"]]
    assert inputs[config["language"]["tokens"]].shape == [1, config["language"]["length"]]
    assert inputs[config["language"]["mask"]].shape == [1, config["language"]["length"]]
    assert inputs[config["state"]["input"]].shape == [1, len(JOINT_NAMES)]
    named = {value for value in config["flow"].values() if isinstance(value, str)}
    assert named <= set(inputs) | outputs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_are_finite_and_the_same_in_config_and_embodiment(layout: str) -> None:
    normalization = read_json(LAYOUTS[layout] / "reflex_config.json")["normalization"]
    robot = read_json(LAYOUTS[layout] / "embodiment.json")["normalization"]
    for kind in ("state", "action"):
        mean, std = np.array(normalization[kind]["mean"]), np.array(normalization[kind]["std"])
        assert mean.shape == std.shape == (7,)
        assert np.isfinite(mean).all()
        assert (std > 0.01).all()
        assert robot[f"mean_{kind}"] == mean.tolist()
        assert robot[f"std_{kind}"] == std.tolist()


def test_monolithic_directory_stands_alone_with_the_same_robot_and_tokenizer() -> None:
    for name in ("embodiment.json", "tokenizer.json"):
        assert (EXPORT / name).read_bytes() == (EXPORT / "monolithic" / name).read_bytes()


def test_tokenizer_knows_every_word_of_every_instruction() -> None:
    tokenizer = Tokenizer.from_file(str(EXPORT / "tokenizer.json"))
    length = read_json(EXPORT / "reflex_config.json")["language"]["length"]
    for template in INSTRUCTION_TEMPLATES:
        for colour in COLOURS:
            sentence = template.format(colour=colour)
            ids = tokenizer.encode(sentence).ids
            assert len(ids) == len(sentence.split()) <= length
            assert min(ids) > 1


def test_tokenizer_splits_on_non_letters_and_neither_cuts_nor_pads() -> None:
    tokenizer = Tokenizer.from_file(str(EXPORT / "tokenizer.json"))
    assert tokenizer.token_to_id("<pad>") == 0
    assert tokenizer.token_to_id("<unk>") == 1
    assert tokenizer.encode("Reach, the RED-block!").ids == tokenizer.encode("reach the red block").ids
    assert tokenizer.encode("reach the zebra").ids[-1] == 1
    assert len(tokenizer.encode("red " * 100).ids) == 100
    assert tokenizer.truncation is None
    assert tokenizer.padding is None


def test_embodiment_names_the_arm_s_joints_in_order() -> None:
    robot = read_json(EXPORT / "embodiment.json")
    assert robot["schema_version"] == 1
    assert robot["joint_names"] == list(JOINT_NAMES)
    assert (
        len(robot["action_space"]["ranges"])
        == len(robot["velocity_max"])
        == robot["action_space"]["dim"]
        == 7
    )
    assert read_json(EXPORT / "reflex_config.json")["action_names"] == list(JOINT_NAMES)
