# SPDX-License-Identifier: Apache-2.0
"""A policy_package of another program becomes one of our exports, or is refused in a sentence; no code of it is run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import (
    COLOUR_MEAN,
    COLOUR_SPREAD,
    DIM,
    HEIGHT,
    JOINTS,
    MEANS,
    ROWS,
    SPREADS,
    WIDTH,
    by_hand,
    manifest_of,
    package,
    package_graph,
    write,
)
from checkpoint_folders import WORDS
from graphs import FLOAT, INT64, Graph
from safetensors.numpy import save_file

from reflex_core.doctor.finding import OK
from reflex_core.doctor.parity import parity
from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.values import Frame, Observation
from reflex_export.importing.description_of import ImportOptions
from reflex_export.importing.import_folder import run

STATE = np.linspace(-0.4, 0.6, DIM, dtype=np.float32)
RESIZE = {"type": "resize", "image_resolution": [HEIGHT, WIDTH], "mode": "stretch"}

NO_OPTIONS = ImportOptions()


def imported(folder: Path, options: ImportOptions = NO_OPTIONS) -> tuple[Policy, list[str]]:
    """The policy that is served, and what the import printed."""
    lines: list[str] = []
    out = folder.with_name("out")
    run(folder, out, options, lines.append)
    return load_policy(open_export(out), None, "cpu", 1), lines


def refused(folder: Path, options: ImportOptions = NO_OPTIONS) -> str:
    before = sorted(folder.parent.iterdir())
    with pytest.raises(ConfigurationError) as error:
        run(folder, folder.with_name("out"), options, lambda _: None)
    message = str(error.value)
    assert sorted(folder.parent.iterdir()) == before, "something was left behind"
    assert message.isprintable()
    assert "\n" not in message
    return message


def observed(height: int = HEIGHT, width: int = WIDTH) -> Observation:
    pixels = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Observation({"top": Frame(pixels, "rgb8", height, width)}, STATE, "")


def arrays(policy: Policy, observation: Observation) -> Any:
    return policy.arrays(observation)[0]


def test_a_package_answers_as_its_graph_between_its_own_formulas(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    policy, lines = imported(folder)
    seen = observed()
    expected = by_hand(folder, seen.frames["top"].data, STATE)
    np.testing.assert_allclose(policy.predict(seen, 0).actions, expected, atol=1e-5)
    assert policy.kind == "deterministic"
    assert (policy.contract.horizon, policy.contract.n_action_steps) == (ROWS, 8)
    assert policy.contract.action_names == policy.contract.state.names == tuple(JOINTS)  # type: ignore[union-attr]
    assert parity(policy).level == OK
    assert "read: policy_package 1.0" in lines
    assert any(line.startswith("taken for granted: no control rate") for line in lines)


def test_a_package_is_left_as_it_was_and_its_copy_does_not_need_it(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    package_graph(folder / "model.onnx", outside="weights.data")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    imported(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    shutil.rmtree(folder)
    load_policy(open_export(tmp_path / "out"), None, "cpu", 1)


@pytest.mark.parametrize("mode", ["min_max", "quantiles"])
def test_ranges_and_masks_are_scaled_as_their_formulas_say(tmp_path: Path, mode: str) -> None:
    folder = package(tmp_path / "package")
    low, high = ("min", "max") if mode == "min_max" else ("q01", "q99")
    free = np.array([1, 1, 1, 1, 1, 1, 0], dtype=bool)
    numbers = {low: MEANS - SPREADS, high: MEANS + SPREADS}
    table = {
        f"{name}/{key}": value for name in ("observation.state", "action") for key, value in numbers.items()
    }
    save_file({**table, "action/mask": free}, folder / "stats.safetensors")
    manifest = manifest_of(folder)
    manifest["model"]["preprocessors"][1] |= {"mode": mode, "features": ["observation.state"]}
    manifest["model"]["postprocessors"][0] |= {"mode": mode}
    write(folder, manifest)
    policy, _ = imported(folder)
    made = policy.predict(observed(), 0)
    expected = np.where(
        free, (made.normalised[0] + 1) / 2 * (2 * SPREADS) + MEANS - SPREADS, made.normalised[0]
    )
    np.testing.assert_allclose(made.actions, expected, atol=1e-6)
    np.testing.assert_allclose(
        arrays(policy, observed())["observation.state"][0], (STATE - MEANS) / SPREADS, atol=1e-6
    )


def test_images_are_resized_where_a_step_says_so_and_refused_where_none_does(tmp_path: Path) -> None:
    folder = package(tmp_path / "plain")
    policy, lines = imported(folder)
    with pytest.raises(Exception, match="32x24"):
        policy.predict(observed(48, 64), 0)
    assert any("cameras have to give exactly the graph's size" in line for line in lines)
    steps = [RESIZE, manifest_of(folder)["model"]["preprocessors"][1]]
    other = package(tmp_path / "other" / "resized", preprocessors=steps)
    manifest = manifest_of(other)
    manifest["hardware"]["cameras"] = [{"name": "top", "shape": [3, 48, 64]}]
    write(other, manifest)
    policy, _ = imported(other)
    picture = np.full((48, 64, 3), 200, dtype=np.uint8)
    seen = Observation({"top": Frame(picture, "rgb8", 48, 64)}, STATE, "")
    made = arrays(policy, seen)["observation.images.top"]
    assert made.shape == (1, 3, HEIGHT, WIDTH)
    np.testing.assert_allclose(made[0, :, 3, 5], (200 / 255 - COLOUR_MEAN) / COLOUR_SPREAD, atol=1e-5)


def test_a_graph_that_takes_noise_is_served_as_a_loop_inside_the_graph(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    package_graph(folder / "model.onnx", noise=True)
    policy, lines = imported(folder)
    assert policy.kind == "flow_matching"
    first, again, other = (policy.predict(observed(), seed).actions for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert any("counts as 10 denoise steps" in line for line in lines)


def test_what_a_package_does_not_say_is_asked_for(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    manifest = manifest_of(folder)
    del manifest["hardware"]["robots"]
    write(folder, manifest)
    assert "says no order of its 7 actions: name the joints with --names A,B,..." in refused(folder)
    policy, _ = imported(folder, ImportOptions(names=tuple(JOINTS), fps=25.0))
    assert policy.contract.action_names == tuple(JOINTS)
    assert policy.contract.frequency_hz == 25.0


def test_an_option_that_contradicts_the_package_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    assert "leave --names out" in refused(folder, ImportOptions(names=tuple(reversed(JOINTS))))
    assert "--units must be one unit, or 7 of them" in refused(
        folder, ImportOptions(units=("degrees", "percent"))
    )
    assert "--units must be of radians, " in refused(folder, ImportOptions(units=("miles",)))


def test_units_are_written_by_name_and_pos_is_left_out(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    manifest = manifest_of(folder)
    for what in ("state", "action"):
        manifest["hardware"]["robots"][0][what]["order"] = [f"{name}.pos" for name in JOINTS]
    write(folder, manifest)
    units = ("degrees",) * 6 + ("percent",)
    run(folder, tmp_path / "out", ImportOptions(units=units), lambda _: None)
    config = json.loads((tmp_path / "out" / "reflex_config.json").read_text())
    assert config["units"] == dict(zip(JOINTS, units, strict=True))
    assert config["action_names"] == JOINTS


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(version="2.0"), "'version' must be 1.x"),
        (lambda m: m["model"].update(extra={}), "with only the keys n_obs_steps"),
        (lambda m: m.update(model=[]), "'model' must be an object"),
        (lambda m: m["model"].update(runner={"type": "iterative"}), "the runner of type 'iterative' is not known here"),
        (lambda m: m["model"].update(runner={"class_path": "os.system"}), "names the class 'os.system', which is code"),
        (lambda m: m["model"]["preprocessors"].append({"class_path": "evil.Step"}), "preprocessor 2 names the class 'evil.Step', which is code"),
        (lambda m: m["model"]["preprocessors"].append({"type": "normalize", "class_path": "evil.Step"}), "which is code"),
        (lambda m: m["model"]["callbacks"].append({"class_path": "evil.Watch"}), "callback 1 names the class 'evil.Watch'"),
        (lambda m: m["model"].update(input_features=[{"class_path": "evil.Feature"}]), "input_features 0 names the class"),
        (lambda m: m["model"]["callbacks"].append({"type": "rldx1_vtc"}), "the callback of type 'rldx1_vtc' is not known"),
        (lambda m: m["model"]["preprocessors"].append({"type": "joint_frame_preprocess"}), "of type 'joint_frame_preprocess' is not"),
        (lambda m: m["model"]["postprocessors"].append({"type": "xr0_denormalize"}), "the postprocessor of type 'xr0_denormalize' is not known"),
        (lambda m: m["model"]["preprocessors"].append({"type": 7}), "'model.preprocessors[2].type' must be the short name of a step, got 7"),
        (lambda m: m["model"].update(preprocessors="normalize"), "must be a list of objects"),
        (lambda m: m["model"]["preprocessors"][1].update(clip=1), "with only the keys type, mode"),
        (lambda m: m["model"]["preprocessors"][1].update(mode="log"), "must be one of mean_std"),
        (lambda m: m["model"]["preprocessors"][1].update(artifact="../stats.safetensors"), "lies outside the folder"),
        (lambda m: m["model"]["preprocessors"][1].update(artifact="/etc/passwd"), "lies outside the folder"),
        (lambda m: m["model"]["preprocessors"][1].update(artifact="gone.safetensors"), "'gone.safetensors' is missing"),
        (lambda m: m["model"]["preprocessors"][1].update(artifact="manifest.json"), "not readable as safetensors"),
        (lambda m: m["model"]["preprocessors"][1].pop("artifact"), "names no statistics"),
        (lambda m: m["model"]["preprocessors"][1].update(stats={"a": {"mean": [[1], [2, "x"]]}}), "a.mean' must be numbers"),
        (lambda m: m["model"]["preprocessors"][1].update(stats={"a": 5}), "a' must be an object"),
        (lambda m: m["model"].update(artifacts=["model.onnx"]), "'model.artifacts' must be an object"),
        (lambda m: m["hardware"].update(robots=[7]), "must be an object, got 7"),
        (lambda m: m["model"]["preprocessors"][1].update(features=["observation.velocity"]), "has no 'observation.velocity' that could be scaled"),
        (lambda m: m["model"]["preprocessors"].append(dict(m["model"]["preprocessors"][1])), "which another step scales too"),
        (lambda m: m["model"]["preprocessors"].append(dict(RESIZE)), "scales images before they are resized"),
        (lambda m: m["model"]["preprocessors"].insert(0, RESIZE | {"image_resolution": [48, 48]}), "is 24 in the graph, and its steps resize"),
        (lambda m: m["model"]["preprocessors"].insert(0, RESIZE | {"image_resolution": [1e9, 2]}), "height and width, from 1 to 8192"),
        (lambda m: m["model"].update(artifacts={"model": "../model.onnx"}), "lies outside the folder"),
        (lambda m: m["model"].update(artifacts={"openvino": "model.xml"}), "is an OpenVINO model, and ONNX is what is served"),
        (lambda m: m["model"].update(artifacts={"torch": "model.pt"}), "is a torch model"),
        (lambda m: m["model"].update(artifacts={"a": "a.onnx", "b": "b.onnx"}), "policies of several graphs are not imported"),
        (lambda m: m["model"].update(artifacts={}), "'model.artifacts' must be an object that names the model"),
        (lambda m: m["model"].update(artifacts={"onnx": {"a": 1}}), "'model.artifacts.onnx' must be the name of a file"),
        (lambda m: m["model"].update(artifacts={"onnx": "stats.safetensors"}), "must be an .onnx file"),
        (lambda m: m["model"]["runner"].update(chunk_size=50), "chunk_size of 50, the graph makes 16 rows"),
        (lambda m: m["model"]["runner"].update(chunk_size=10**12), "a whole number from 1 to 1000"),
        (lambda m: m["hardware"]["cameras"].append({"name": "wrist", "shape": [3, 24, 32]}), "no input for its camera 'wrist'"),
        (lambda m: m["hardware"]["cameras"][0].update(shape=[3, 480, 640]), "is 24 in the graph, and its camera has 480"),
        (lambda m: m["hardware"]["cameras"][0].update(shape=[1, 24, 32]), "[3, height, width]"),
        (lambda m: m["hardware"]["robots"].append({"name": "second"}), "a list of one robot"),
        (lambda m: m["hardware"]["robots"][0]["action"].update(order=["a", "b"]), "need as many different names"),
        (lambda m: m["hardware"]["robots"][0]["action"].update(order=["a"] * 7), "need as many different names"),
        (lambda m: m["model"].update(n_obs_steps=2), "no input of the graphs has an axis of observations"),
    ],
)  # fmt: skip
def test_a_package_that_cannot_be_served_as_it_was_meant_is_refused_in_one_sentence(
    tmp_path: Path, change: Change, says: str
) -> None:
    folder = package(tmp_path / "package")
    manifest = manifest_of(folder)
    change(manifest)
    write(folder, manifest)
    assert says in refused(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"format": "policy_package", "model": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested deeper than 64 levels"),
        ('{"format": "policy_package", "format": "policy_package"}', "key 'format' is there twice"),
        ('{"format": "policy_package", "version": "1.0"}', "'model' must be an object"),
        ('{"format": "something else"}', "is nothing that can be imported"),
        ("", "not readable as JSON"),
    ],
    ids=["nested", "twice", "empty", "other", "nothing"],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str, says: str) -> None:
    folder = package(tmp_path / "package")
    (folder / "manifest.json").write_text(text)
    assert says in refused(folder)


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    package_graph(folder / "model.onnx", outside="weights.data")
    graph = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(graph.replace(b"weights.data", b"../x/pw.data"))
    assert "its external data '../x/pw.data' lies outside the folder" in refused(folder)


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    (folder / "stats.safetensors").unlink()
    os.mkfifo(folder / "stats.safetensors")
    assert "is a FIFO" in refused(folder)


def graph_with(make: Callable[[Graph, str], str], **inputs: int) -> Graph:
    graph = Graph(seed=5)
    state = graph.input("observation.state", FLOAT, [1, DIM])
    for name, kind in inputs.items():
        graph.input(name, kind, [1, DIM])
    graph.output(make(graph, graph.shaped(state, 1, 1, DIM)), "action", FLOAT, [1, 1, DIM])
    return graph


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (lambda: graph_with(lambda g, s: g.op("Log", g.op("Sub", s, s))), "makes NaN or Inf of a plain grey image"),
        (lambda: graph_with(lambda g, s: g.op("Add", s, g.op("RandomNormalLike", s))), "draws random numbers itself"),
        (lambda: graph_with(lambda _, s: s, task_index=INT64), "nothing says what the graph's input 'task_index' (1, 7) is"),
    ],
    ids=["not finite", "random", "unknown input"],
)  # fmt: skip
def test_a_graph_that_cannot_be_served_is_refused(
    tmp_path: Path, graph: Callable[[], Graph], says: str
) -> None:
    folder = package(tmp_path / "package", preprocessors=None, postprocessors=None, runner=None)
    manifest = manifest_of(folder)
    del manifest["hardware"]["cameras"]
    write(folder, manifest)
    graph().save(folder / "model.onnx")
    assert says in refused(folder)


def reading_package(folder: Path) -> Path:
    """A package whose graph reads an instruction: the mean of its tokens is in the chunk."""
    package(folder)
    manifest = manifest_of(folder)
    manifest["model"] |= {
        "preprocessors": [{"type": "new_line"}, {"type": "hf_tokenizer", "tokenizer_name": "hub/name", "max_token_len": 8}],
        "postprocessors": [],
        "runner": {"type": "single_pass"},
    }  # fmt: skip
    del manifest["hardware"]["cameras"]
    write(folder, manifest)
    graph = Graph(seed=5)
    state = graph.shaped(graph.input("observation.state", FLOAT, [1, DIM]), 1, 1, DIM)
    words = graph.mean(graph.to(graph.input("tokenized_prompt", INT64, [1, 8]), FLOAT), 1)
    graph.output(graph.op("Add", state, graph.shaped(words, 1, 1, 1)), "action", FLOAT, [1, 1, DIM])
    graph.save(folder / "model.onnx")
    return folder


def test_the_tokenizer_is_a_file_that_is_named_or_in_the_folder_and_never_fetched(tmp_path: Path) -> None:
    folder = reading_package(tmp_path / "package")
    assert "reads an instruction, and the folder holds no tokenizer.json" in refused(folder)
    assert "holds no tokenizer.json, which --tokenizer names" in refused(
        folder, ImportOptions(tokenizer=tmp_path)
    )
    policy, lines = imported(folder, ImportOptions(tokenizer=WORDS))
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (WORDS / "tokenizer.json").read_bytes()
    assert "read: steps: new_line, hf_tokenizer, single_pass" in lines
    language = policy.contract.language
    assert language is not None
    assert (language.length, language.window, language.padding_side) == (8, 8, "right")
    assert language.prompt.text("pick it") == "pick it\n"


def test_tokens_that_no_step_makes_are_refused(tmp_path: Path) -> None:
    folder = reading_package(tmp_path / "package")
    manifest = manifest_of(folder)
    manifest["model"]["preprocessors"] = []
    write(folder, manifest)
    assert "no step of type hf_tokenizer makes them" in refused(folder)


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    (folder / "model.onnx").write_bytes(b"\x08\x09\x12\x07nothing")
    assert "onnxruntime cannot load it" in refused(folder)


def test_nothing_is_replaced_unless_forced(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    run(folder, tmp_path / "out", ImportOptions(), lambda _: None)
    assert "replace it with --force" in refused(folder)
    run(folder, tmp_path / "out", ImportOptions(force=True), lambda _: None)
    with pytest.raises(ConfigurationError, match="is inside what is imported"):
        run(folder, folder / "out", ImportOptions(), lambda _: None)
