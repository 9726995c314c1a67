# SPDX-License-Identifier: Apache-2.0
"""A LEAPP bundle with one graph, as leapp 0.7.2 wrote it, becomes one of our exports, or is refused in a sentence."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from graphs import FLOAT, Graph
from repository import FIXTURES
from safetensors.numpy import save_file

from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.export.lookalikes import lookalike
from reflex_core.policy.load import load_policy
from reflex_core.values import Frame, Observation
from reflex_export.importing.description_of import ImportOptions
from reflex_export.importing.import_folder import run

JOINTS = tuple(f"panda_joint{number}" for number in range(1, 8))
UNIT_PIXELS = ImportOptions(image_range=(0.0, 1.0))
HEIGHT, WIDTH = 24, 32
Document = dict[str, Any]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURES / "leapp" / "reach", tmp_path / "bundle")


def refused(folder: Path, options: ImportOptions = UNIT_PIXELS) -> str:
    before = sorted(folder.parent.iterdir())
    with pytest.raises(ConfigurationError) as error:
        run(folder, folder.with_name("out"), options, lambda _: None)
    message = str(error.value)
    assert sorted(folder.parent.iterdir()) == before, "something was left behind"
    assert message.isprintable()
    return message


def changed(folder: Path, change: Callable[[Document], object]) -> Path:
    file = folder / "reach.yaml"
    document = yaml.safe_load(file.read_text())
    change(document)
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def policy_of(document: Document) -> Any:
    return document["models"]["policy"]


def test_a_bundle_answers_as_its_graph(bundle: Path) -> None:
    lines: list[str] = []
    run(bundle, bundle.with_name("out"), UNIT_PIXELS, lines.append)
    policy = load_policy(open_export(bundle.with_name("out")), None, "cpu", 1)
    pixels = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    state = np.linspace(-0.6, 0.6, 7, dtype=np.float32)
    seen = Observation({"top": Frame(pixels, "rgb8", HEIGHT, WIDTH)}, state, "")
    session = onnxruntime.InferenceSession(bundle / "policy.onnx", providers=["CPUExecutionProvider"])
    feeds = {"joint_pos": state[None], "top": (pixels / 255).astype(np.float32)[None]}
    np.testing.assert_allclose(policy.predict(seen, 0).actions, session.run(None, feeds)[0][0], atol=1e-6)
    assert policy.contract.action_names == JOINTS
    assert policy.contract.state is not None
    assert policy.contract.state.names == JOINTS
    assert policy.contract.frequency_hz == 20.0
    assert "read: joint_targets: target/joint/position" in lines


def test_serving_a_bundle_names_the_command_that_imports_it(bundle: Path) -> None:
    assert "is a LEAPP bundle (Isaac Lab) and has no reflex_config.json" in lookalike(bundle)
    assert "`reflex import FOLDER OUT`" in lookalike(bundle)


def test_the_range_of_pixels_is_asked_for(bundle: Path) -> None:
    assert "name it with --image-range 0,1 or 0,255" in refused(bundle, ImportOptions())


def test_a_rate_that_contradicts_the_bundle_is_refused(bundle: Path) -> None:
    options = ImportOptions(image_range=(0.0, 1.0), fps=30.0)
    assert "its rows are due at 20 Hz, and --fps says 30" in refused(bundle, options)


def test_names_are_asked_for_where_the_bundle_has_none(bundle: Path) -> None:
    changed(bundle, lambda d: policy_of(d)["outputs"][0].pop("element_names"))
    assert "says no order of its 7 actions" in refused(bundle)
    options = ImportOptions(names=JOINTS, image_range=(0.0, 1.0))
    run(bundle, bundle.with_name("out"), options, lambda _: None)
    assert open_export(bundle.with_name("out")).config["action_names"] == list(JOINTS)


def test_an_initial_value_that_nothing_changes_is_a_constant(bundle: Path) -> None:
    graph = Graph(seed=5)
    state = graph.input("joint_pos", FLOAT, [1, 7])
    offset = graph.input("offset", FLOAT, [1, 7])
    graph.output(graph.shaped(graph.op("Add", state, offset), 1, 1, 7), "joint_targets", FLOAT, [1, 1, 7])
    graph.save(bundle / "policy.onnx")
    save_file({"policy/offset": np.full((1, 7), 0.25, np.float32)}, bundle / "start.safetensors")

    def change(document: Document) -> None:
        model = policy_of(document)
        digest = hashlib.sha256((bundle / "policy.onnx").read_bytes()).hexdigest()
        model["parameters"]["sha256sum"] = digest
        model["inputs"][1] = {"name": "offset", "dtype": "float32", "shape": [1, 7], "type": "tensor"}
        model["outputs"][0] |= {"shape": [1, 1, 7]}
        document["pipeline"] |= {"initial_values": "start.safetensors", "inputs": {"policy": ["joint_pos"]}}

    changed(bundle, change)
    run(bundle, bundle.with_name("out"), ImportOptions(), lambda _: None)
    policy = load_policy(open_export(bundle.with_name("out")), None, "cpu", 1)
    state_now = np.linspace(0, 0.6, 7, dtype=np.float32)
    made = policy.predict(Observation({}, state_now, ""), 0).actions
    np.testing.assert_allclose(made, state_now[None] + 0.25, atol=1e-6)
    save_file({"policy/joint_pos": np.zeros((1, 7), np.float32)}, bundle / "start.safetensors")
    shutil.rmtree(bundle.with_name("out"))
    assert "'policy/joint_pos' is no input that nothing else gives" in refused(bundle)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["pipeline"].update(feedback_flow={"policy/hidden": ["policy/h"]}), "feeds back 'policy/hidden' to ['policy/h']"),
        (lambda d: d["pipeline"].update(data_flow={"a/x": ["b/y"]}), "passes on 'a/x' to ['b/y']"),
        (lambda d: d["models"].update(second={}), "one model, as bundles of several graphs"),
        (lambda d: d.update(models={}), "one model, as bundles of several graphs"),
        (lambda d: d.update(models=[1]), "'models' must be an object"),
        (lambda d: policy_of(d)["inputs"][0].update(kind="command/body/velocity"), "is of kind 'command/body/velocity', which has no equivalent"),
        (lambda d: policy_of(d)["inputs"][0].update(kind="state/joint/velocity"), "is of kind 'state/joint/velocity', which has no"),
        (lambda d: policy_of(d)["inputs"][0].pop("kind"), "input 'joint_pos' has no kind"),
        (lambda d: policy_of(d)["outputs"][0].update(kind="target/joint/effort"), "is of kind 'target/joint/effort', which cannot be commanded"),
        (lambda d: policy_of(d)["inputs"][0].update(temporal_period_ms=20.0), "holds several observations over time"),
        (lambda d: policy_of(d)["inputs"][0].update(shape=[1, 10**18]), "must be [1, 7], as the graph has"),
        (lambda d: policy_of(d)["inputs"][0].update(name="other"), "must be a tensor of the graph"),
        (lambda d: policy_of(d)["inputs"].pop(0), "joint_pos"),
        (lambda d: policy_of(d)["outputs"][0].update(element_names=[None, None, ["a", 7]]), "names of the last axis alone"),
        (lambda d: policy_of(d)["outputs"][0].update(element_names=["a"] * 900), "an entry for each axis"),
        (lambda d: policy_of(d)["parameters"].update(backend="jit"), "'models.policy.parameters.backend' must be onnx"),
        (lambda d: policy_of(d)["parameters"].update(warp_segments=2), "no operator of Warp is run here"),
        (lambda d: policy_of(d)["parameters"].update(sha256sum="0" * 64), "is another file than the bundle was written with"),
        (lambda d: policy_of(d)["parameters"].update(model_path="../policy.onnx"), "lies outside the folder"),
        (lambda d: policy_of(d)["parameters"].update(model_path="/etc/passwd.onnx"), "lies outside the folder"),
        (lambda d: policy_of(d)["parameters"].update(model_path="policy.pt"), "is a torch model"),
        (lambda d: d["pipeline"].update(initial_values="reach.yaml", inputs={"policy": 5}), "must be a list of names, got 5"),
        (lambda d: d["pipeline"].update(initial_values="reach.yaml"), "not usable as initial values"),
        (lambda d: d["pipeline"].update(initial_values="../start.safetensors"), "lies outside the folder"),
    ],
)  # fmt: skip
def test_a_bundle_that_cannot_be_served_as_it_was_meant_is_refused_in_one_sentence(
    bundle: Path, change: Callable[[Document], object], says: str
) -> None:
    assert says in refused(changed(bundle, change))


BOMB = "\n".join(
    [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" if n else "b0: &b0 [x]" for n in range(12)]
)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (BOMB, "YAML aliases are not read"),
        ("x: !!python/object/apply:os.system ['touch /tmp/x']", "not readable as YAML"),
        ("x: " + "[" * 500 + "]" * 500, "nested deeper than 32 levels"),
        ("pipeline: {}", "the name 'pipeline' is there twice"),
        ("x: [", "not readable as YAML"),
        ("1: 2", "the name 1 is no text"),
        ("{a: 1}: 2", "the name {'a': 1} is no text"),
        ("x: 2026-13-45", "not readable as YAML"),
    ],
    ids=["bomb", "object", "nested", "twice", "open", "number", "a mapping for a name", "no date"],
)
def test_yaml_that_is_hostile_is_refused_before_anything_is_built(
    bundle: Path, before: str, says: str
) -> None:
    file = bundle / "reach.yaml"
    file.write_text(f"{before}\n{file.read_text()}")
    assert says in refused(bundle)
