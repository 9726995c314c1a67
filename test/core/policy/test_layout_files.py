# SPDX-License-Identifier: Apache-2.0
"""What is missing or wrong in the files of an export is refused by its name, whatever the layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import FLOAT, Graph
from layout_policies import observation, policy_of
from servers import ExportDir

from reflex_core.errors import ExportError
from reflex_core.values import Floats


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mono_pi0", "model.onnx"),
        ("decomposed", "expert_denoise.onnx"),
        ("decomposed", "vlm_prefix.onnx"),
        ("gr00t", "model.onnx"),
    ],
)
def test_a_missing_graph_is_named(export_copy: ExportDir, name: str, file: str) -> None:
    path = export_copy(name)
    (path / file).unlink()
    with pytest.raises(ExportError, match=rf"{path}/{file}: missing: the export needs it as its") as caught:
        policy_of(path)
    assert caught.value.slug == "export-file-missing"


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_graph_is_named(export_copy: ExportDir, keep: float) -> None:
    path = export_copy("mono_pi0")
    content = (path / "model.onnx").read_bytes()
    (path / "model.onnx").write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(ExportError, match=rf"{path}/model\.onnx: onnxruntime cannot load it: ") as caught:
        policy_of(path)
    assert "\n" not in str(caught.value)


def test_missing_external_weights_are_named(export_copy: ExportDir) -> None:
    path = export_copy("mono_pi0")
    model = onnx.load(path / "model.onnx")
    onnx.save(
        model, path / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=128
    )
    assert policy_of(path).contract.fused
    (path / "model.onnx.data").unlink()
    with pytest.raises(ExportError, match=rf"{path}/model\.onnx\.data: not there: model\.onnx keeps weights"):
        policy_of(path)


@pytest.mark.parametrize(
    "file", ["vision_encoder.onnx", "text_embedder.onnx", "decoder_prefill.onnx", "state_proj_weight.npy"]
)
def test_every_piece_of_the_vlm_stack_is_needed(export_copy: ExportDir, file: str) -> None:
    path = export_copy("vlm_stack")
    (path / file).unlink()
    with pytest.raises(ExportError, match=rf"{path}/{file}: missing: the export needs it as"):
        policy_of(path)


def test_a_state_projection_without_a_bias_is_reported(export_copy: ExportDir) -> None:
    path = export_copy("vlm_stack")
    (path / "state_proj_bias.npy").unlink()
    assert policy_of(path).notes == ("it brings no state_proj_bias.npy, so its state projection has no bias",)


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("state_proj_weight.npy", np.zeros((12, 31))),
        ("state_proj_weight.npy", np.zeros(12)),
        ("state_proj_bias.npy", np.zeros(5)),
    ],
)
def test_a_state_projection_of_the_wrong_shape_is_refused(
    export_copy: ExportDir, file: str, array: Floats
) -> None:
    path = export_copy("vlm_stack")
    np.save(path / file, array.astype(np.float32))
    with pytest.raises(ExportError, match=rf"{path}/{file}: must be \(.*got shape"):
        policy_of(path)


def test_a_state_projection_with_nan_is_refused(export_copy: ExportDir) -> None:
    path = export_copy("vlm_stack")
    np.save(path / "state_proj_weight.npy", np.full((12, 32), np.nan, np.float32))
    with pytest.raises(ExportError, match=rf"{path}/state_proj_weight\.npy: holds NaN or Inf"):
        policy_of(path)


def test_a_pickled_state_projection_is_not_opened(export_copy: ExportDir) -> None:
    path = export_copy("vlm_stack")
    np.save(path / "state_proj_weight.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ExportError, match="not readable as a numpy array"):
        policy_of(path)


@pytest.mark.parametrize(
    "values", [np.full((12, 32), 1j), np.full((12, 32), "reach"), np.zeros((12, 0), "M8[D]")]
)
def test_a_state_projection_of_other_things_than_numbers_is_refused(
    export_copy: ExportDir, values: Any
) -> None:
    path = export_copy("vlm_stack")
    np.save(path / "state_proj_weight.npy", values)
    with pytest.raises(ExportError, match=rf"{path}/state_proj_weight\.npy: .*plain numbers"):
        policy_of(path)


def test_an_archive_or_nothing_in_place_of_a_state_projection_is_refused(export_copy: ExportDir) -> None:
    path = export_copy("vlm_stack")
    for make in (lambda file: np.savez(file, a=np.zeros(3)), lambda file: file.truncate(0)):
        with (path / "state_proj_weight.npy").open("wb") as file:
            make(file)
        with pytest.raises(ExportError, match="not readable as a numpy array"):
            policy_of(path)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    config = json.loads((path / "reflex_config.json").read_text())
    change(config)
    (path / "reflex_config.json").write_text(json.dumps(config))
    return path


def test_the_state_of_the_vlm_stack_may_be_named(export_copy: ExportDir) -> None:
    names = [f"joint_{number}" for number in range(7)]
    path = rewritten(export_copy("vlm_stack"), lambda config: config.update(state={"names": names}))
    assert policy_of(path).binding.state_names == tuple(names)


def test_a_vision_graph_with_an_input_of_its_own_name_must_be_described(export_copy: ExportDir) -> None:
    path = export_copy("vlm_stack")
    vision = Graph()
    image = vision.input("frames", FLOAT, [1, 3, 32, 32])
    colour = vision.shaped(vision.mean(image, 2, 3), 1, 1, 3)
    vision.output(vision.op("MatMul", colour, vision.weights(3, 12)), "image_embeds", FLOAT, [1, 1, 12])
    vision.save(path / "vision_encoder.onnx")
    with pytest.raises(
        ExportError, match=r"reflex_config\.json: 'images' must describe the vision graph's input 'frames'"
    ):
        policy_of(path)
    images = [{"camera": "camera", "input": "frames"}]
    policy = policy_of(rewritten(path, lambda config: config.update(images=images)))
    assert np.isfinite(policy.predict(observation(policy), 1).actions).all()


def test_an_undescribed_graph_input_is_named(export_copy: ExportDir) -> None:
    path = export_copy("mono_pi0")
    model = onnx.load(path / "model.onnx")
    model.graph.input.append(onnx.helper.make_tensor_value_info("gripper_force", FLOAT, [1, 3]))
    onnx.save(model, path / "model.onnx")
    with pytest.raises(
        ExportError, match=rf"{path}/model\.onnx: nothing provides its input 'gripper_force'"
    ) as caught:
        policy_of(path)
    assert caught.value.slug == "undescribed-input"


def test_an_output_of_another_shape_is_refused_at_load(export_copy: ExportDir) -> None:
    path = export_copy("mono_pi0")
    graph = Graph()
    noise = graph.input("noise", FLOAT, [1, 10, 32])
    bounds = [graph.constant([value], np.int64) for value in (0, 31, 2)]
    graph.output(graph.op("Slice", noise, *bounds), "actions", FLOAT, [1, 10, 31])
    graph.save(path / "model.onnx")
    with pytest.raises(
        ExportError,
        match=rf"{path}/model\.onnx: its output 'actions' has shape \(1, 10, 31\), expected \(1, 10, 32\)",
    ):
        policy_of(path)


def test_a_wrong_chunk_size_is_refused(export_copy: ExportDir) -> None:
    path = rewritten(export_copy("mono_pi0"), lambda config: config.update(chunk_size=50))
    with pytest.raises(
        ExportError,
        match=rf"{path}/reflex_config\.json: 'chunk_size' must be 10, as the graph's input 'noise'",
    ):
        policy_of(path)
