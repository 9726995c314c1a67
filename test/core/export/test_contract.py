# SPDX-License-Identifier: Apache-2.0
"""What reflex_config.json may say about its graphs, and how each thing that cannot be is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_exports import FLOAT16, HORIZON, UINT8, probe

from reflex_core.errors import ExportError
from reflex_core.export.contract import Contract
from reflex_core.export.export import open_export
from reflex_core.policy import flow_matching
from reflex_core.policy.layouts import load_layout


def contract(path: Path) -> Contract:
    return load_layout(flow_matching.network, open_export(path), "cpu", 1).contract


def changed(path: Path, *keys: str | int, value: Any) -> Path:
    """reflex_config.json with one key replaced, or removed where value is `...`."""
    file = path / "reflex_config.json"
    config = json.loads(file.read_text())
    holder = config
    for key in keys[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[keys[-1]]
    else:
        holder[keys[-1]] = value
    file.write_text(json.dumps(config))
    return path


def test_a_description_with_names_of_its_own_is_read(tmp_path: Path) -> None:
    found = contract(probe(tmp_path, wrist=True, time=(0.0, 1.0, -1), steps=7))
    assert [(slot.camera, slot.input, slot.mask, slot.required) for slot in found.images] == [
        ("front", "eye", None, True),
        ("wrist", "eye_wrist", "has_wrist", False),
    ]
    assert found.language is not None
    assert (found.language.tokens, found.language.mask, found.language.length) == ("spoken", "heard", 8)
    assert found.state is not None
    assert (found.state.input, found.state.width, found.state.names) == ("body", 2, ("axis_0", "axis_1"))
    assert (found.flow.start, found.flow.end, found.flow.sign, found.flow.steps) == (0.0, 1.0, -1, 7)
    assert (found.horizon, found.width, found.action_dim, found.fused) == (HORIZON, 9, 9, False)


def test_a_fused_loop_is_known_by_its_noise(tmp_path: Path) -> None:
    assert contract(probe(tmp_path, fused=True)).fused


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_size_of_images_comes_from_the_graph(tmp_path: Path, layout: str) -> None:
    (slot,) = contract(probe(tmp_path, size=(24, 40), layout=layout)).images
    assert (slot.height, slot.width, slot.channels_last) == (24, 40, layout == "nhwc")


def test_the_size_of_images_may_be_written_where_the_graph_takes_any(tmp_path: Path) -> None:
    (slot,) = contract(probe(tmp_path, size=("h", "w"))).images
    assert (slot.height, slot.width) == (32, 32)


def test_a_graph_that_takes_any_size_needs_none(tmp_path: Path) -> None:
    images = [{"camera": "front", "input": "eye"}]
    (slot,) = contract(probe(tmp_path, size=("h", "w"), config={"images": images})).images
    assert (slot.height, slot.width) == (None, None)


def test_an_image_without_a_mask_is_required_whatever_is_written(tmp_path: Path) -> None:
    images = [{"camera": "front", "input": "eye", "required": False}]
    (slot,) = contract(probe(tmp_path, config={"images": images})).images
    assert slot.required


def test_pixels_have_a_range_or_a_mean_and_deviation(tmp_path: Path) -> None:
    base = {"camera": "front", "input": "eye"}
    imagenet = base | {"mean": [0.5, 0.25, 0.0], "std": [0.5, 0.5, 2.0]}
    (slot,) = contract(probe(tmp_path / "a", config={"images": [imagenet]})).images
    np.testing.assert_allclose(255 * slot.scale + slot.offset, [1.0, 1.5, 0.5], atol=1e-6)
    (slot,) = contract(probe(tmp_path / "b", config={"images": [base | {"range": [-2, 6]}]})).images
    np.testing.assert_allclose(255 * slot.scale + slot.offset, [6, 6, 6], atol=1e-6)
    np.testing.assert_allclose(slot.offset, [-2, -2, -2])


def test_a_graph_that_takes_bytes_is_fed_bytes(tmp_path: Path) -> None:
    images = [{"camera": "front", "input": "eye", "range": [0, 255]}]
    (slot,) = contract(probe(tmp_path, pixel=UINT8, config={"images": images})).images
    np.testing.assert_allclose(slot.scale, 1)


def test_half_precision_graphs_are_read(tmp_path: Path) -> None:
    assert contract(probe(tmp_path, kind=FLOAT16)).horizon == HORIZON


def test_a_policy_without_state_or_language_is_read(tmp_path: Path) -> None:
    assert contract(probe(tmp_path, state=0)).state is None


def test_null_says_that_a_policy_reads_no_state(tmp_path: Path) -> None:
    assert contract(changed(probe(tmp_path, state=0), "state", value=None)).state is None


def test_the_tokenizer_is_found_where_known_exporters_put_it(tmp_path: Path) -> None:
    path = changed(probe(tmp_path), "language", "tokenizer", value=...)
    (path / "tokenizer").mkdir()
    (path / "words.json").rename(path / "tokenizer" / "tokenizer.json")
    found = contract(path).language
    assert found is not None
    assert found.tokenizer == "tokenizer/tokenizer.json"


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    path = changed(probe(tmp_path), "language", "tokenizer", value=...)
    with pytest.raises(
        ExportError, match=rf"{tmp_path}/tokenizer\.json: missing: the export needs it as the tokenizer"
    ):
        contract(path)


def test_a_tokenizer_outside_the_directory_is_refused(tmp_path: Path) -> None:
    path = probe(tmp_path / "export")
    (path / "words.json").rename(tmp_path / "words.json")
    with pytest.raises(ExportError, match=r"'\.\./words\.json' \(the tokenizer\) lies outside the export"):
        contract(changed(path, "language", "tokenizer", value="../words.json"))


def test_a_tokenizer_folder_outside_the_directory_is_refused(tmp_path: Path) -> None:
    path = changed(probe(tmp_path / "export"), "language", "tokenizer", value=...)
    (path / "words.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(ExportError, match="lies outside the export directory"):
        contract(changed(path, "tokenizer_path", value=".."))


NOT_POSSIBLE: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "export_kind": (("export_kind",), "sideways", "'export_kind' must be decomposed, monolithic or expert_stack"),
    "export_kind missing": (("export_kind",), ..., "names no 'export_kind'"),
    "export_kind unhashable": (("export_kind",), ["decomposed"], "'export_kind' must be"),
    "graphs a list": (("graphs",), ["eyes.onnx"], "'graphs' must name a denoise graph"),
    "graphs of an unknown role": (("graphs", "prefx"), "eyes.onnx", "'graphs' has no role 'prefx': nothing would run it"),
    "graphs half a stack": (("graphs", "vision"), "eyes.onnx", "'graphs' must name a denoise graph"),
    "images no list": (("images",), {"camera": "front"}, "'images' must be a list"),
    "images words": (("images",), ["front"], "'images' must be objects with 'camera' and 'input'"),
    "images.input": (("images", 0, "input"), "ear", "'images' must be naming inputs of the graphs (body, eye"),
    "images.layout": (("images", 0, "layout"), "nhwc", "three channels in layout nhwc"),
    "images.layout unknown": (("images", 0, "layout"), "chwn", "a nchw or nhwc input"),
    "images.resize": (("images", 0, "resize"), "crop", "(eye).resize' must be letterbox or letterbox_top_left or stretch"),
    "images.resize a list": (("images", 0, "resize"), ["stretch"], "(eye).resize' must be letterbox or"),
    "images.camera": (("images", 0, "camera"), 3, "(eye).camera' must be a name, or null where the slot has a mask"),
    "images.camera empty": (("images", 0, "camera"), "", "(eye).camera' must be a name, or null"),
    "images.camera null": (("images", 0, "camera"), None, "(eye).camera' must be a name, or null where the slot has a mask"),
    "images.filter": (("images", 0, "filter"), "lanczos", "(eye).filter' must be bilinear or bilinear_antialias or area"),
    "images.filter a list": (("images", 0, "filter"), ["area"], "(eye).filter' must be bilinear or"),
    "images.bars": (("images", 0, "bars"), "black", "(eye).bars' must be a number or three, 0 for black and 1 for white"),
    "images.bars two": (("images", 0, "bars"), [0, 0], "(eye).bars' must be a number or three"),
    "source": (("source",), "opnepi", "'source' must be lerobot or openpi, got 'opnepi'"),
    "source of another family": (("source",), "openpi", "'source' openpi goes with 'model_type' pi0 or pi05, got 'probe'"),
    "flow.time_scale": (("flow", "time_scale"), 0, "'flow.time_scale' must be a number above 0"),
    "flow.time_scale that no float holds": (("flow", "time_scale"), 10**400, "'flow.time_scale' must be a number above 0"),
    "images.fill that no float holds": (("images", 0, "fill"), 10**400, "(eye).fill' must be a number"),
    "flow.time_scale a word": (("flow", "time_scale"), "ms", "'flow.time_scale' must be a number above 0"),
    "images.height": (("images", 0, "height"), 224, "(eye).height' must be 32, as the graph has"),
    "images.mask": (("images", 0, "mask"), "hidden", "(eye).mask' must be an input of the graphs"),
    "images.mask a list": (("images", 0, "mask"), ["heard"], "(eye).mask' must be an input of the graphs"),
    "images.range": (("images", 0, "range"), [1, 2, 3], "'range' [low, high], or 'mean' and 'std' of 3"),
    "images.range words": (("images", 0, "range"), "0..1", "'range' [low, high]"),
    "images.range of texts": (("images", 0, "range"), ["0", "255"], "'range' [low, high]"),
    "images.range empty": (("images", 0, "range"), [0, 0], "'range' [low, high]"),
    "images.range NaN": (("images", 0, "range"), [0, float("nan")], "range[1] must be a finite number, got NaN"),
    "images.mean alone": (("images", 0, "mean"), [0, 0, 0], "'mean' and 'std' of 3"),
    "images.fill": (("images", 0, "fill"), "black", "(eye).fill' must be a number"),
    "language.tokens": (("language", "tokens"), "sung", "'language.tokens' must be an input of the graphs"),
    "language.tokens a list": (("language", "tokens"), ["spoken"], "'language.tokens' must be an input"),
    "language.mask": (("language", "mask"), "quiet", "'language.mask' must be an input of the graphs"),
    "language.length": (("language", "length"), 48, "'language.length' must be 8, as the graph's input"),
    "language.template": (("language", "template"), "do it", "'language.template' must be a text with {instruction}"),
    "language.tokenizer": (("language", "tokenizer"), "gone.json", "gone.json: missing: the export needs it"),
    "language a list": (("language",), [1], "'language' must be an object"),
    "state.input": (("state", "input"), "soul", "'state.input' must be an input of the graphs"),
    "state.input a list": (("state", "input"), ["body"], "'state.input' must be an input of the graphs"),
    "state.names twice": (("state", "names"), ["a", "a"], "'state.names' must be different names"),
    "state.names numbers": (("state", "names"), [1, 2], "'state.names' must be a list of names"),
    "state in a prompt without a place": (("state", "enters"), "prompt", "'state.enters' must be"),
    "a place without a state": (("language", "template"), "{state} {instruction}", "'state.enters' must be"),
    "flow.x": (("flow", "x"), "nowhere", "naming an input of the graphs"),
    "flow.time": (("flow", "time"), "clock", "nothing provides its input 'tau'"),
    "flow.time missing": (("flow", "time"), 3, "nothing provides its input 'tau'"),
    "flow.velocity": (("flow", "velocity"), "speed", "'flow.velocity' must be an output of hand.onnx (answer)"),
    "flow.start": (("flow", "start"), 0.0, "'start' and 'end' that differ"),
    "flow.start NaN": (("flow", "start"), float("nan"), "flow.start must be a finite number, got NaN"),
    "flow.start a word": (("flow", "start"), "noise", "'start' and 'end' that differ"),
    "flow.end a truth": (("flow", "end"), True, "'start' and 'end' that differ"),
    "flow.sign": (("flow", "sign"), 2, "'sign' 1 or -1"),
    "flow a word": (("flow",), "euler", "'flow' must be an object"),
    "num_denoising_steps": (("num_denoising_steps",), 0, "'num_denoising_steps' must be a positive integer"),
    "num_denoising_steps half": (("num_denoising_steps",), 2.5, "'num_denoising_steps' must be a positive integer"),
    "chunk_size": (("chunk_size",), 50, "'chunk_size' must be 12, as the graph's input 'sample' has"),
    "action_dim": (("action_dim",), 8, "'action_dim' must be at most 7"),
    "action_dim a word": (("action_dim",), "seven", "'action_dim' must be a positive integer"),
    "action_names": (("action_names",), ["a", "b"], "'action_names' must be 7 names, one per action dimension"),
    "frequency_hz": (("frequency_hz",), 0, "'frequency_hz' must be a number from 1e-06 to 1000"),
    "frequency_hz tiny": (("frequency_hz",), 1e-320, "'frequency_hz' must be a number from 1e-06 to 1000"),
    "frequency_hz NaN": (("frequency_hz",), float("nan"), "frequency_hz must be a finite number, got NaN"),
    "links missing": (("links",), {}, "nothing provides its input 'past.0'"),
    "links elsewhere": (("links", "past.0"), "memory.9.value", "nothing provides its input 'past.0'"),
    "links a list": (("links",), ["past.0"], "'links' must be an object"),
    "statistics short": (
        ("normalization",), {"action": {"mean": [0.0] * 3, "std": [1.0] * 3}}, "'normalization.action' must be 7 numbers"
    ),
    "one statistic for all": (
        ("normalization",), {"action": {"mean": [0.0], "std": [1.0]}}, "'normalization.action' must be 7 numbers"
    ),
    "statistics of a longer state": (
        ("normalization",), {"state": {"mean": [0.0] * 3, "std": [1.0] * 3}}, "'normalization.state' must be at most 2"
    ),
    "decomposed a word": (("decomposed",), "yes", "'decomposed' must be an object"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(NOT_POSSIBLE))
def test_what_cannot_be_is_refused_in_one_sentence_that_names_the_file(tmp_path: Path, name: str) -> None:
    keys, value, says = NOT_POSSIBLE[name]
    path = changed(probe(tmp_path), *keys, value=value)
    with pytest.raises(ExportError) as caught:
        contract(path)
    sentence = str(caught.value)
    assert says in sentence
    assert sentence.startswith(str(tmp_path))
    assert "\n" not in sentence


def test_a_link_to_a_prefix_that_has_no_such_output_names_the_graph(tmp_path: Path) -> None:
    path = changed(probe(tmp_path), "links", value={})
    with pytest.raises(ExportError, match=r"hand\.onnx: nothing provides its input 'past\.0'") as caught:
        contract(path)
    assert caught.value.slug == "undescribed-input"


def test_an_undescribed_prefix_input_is_named(tmp_path: Path) -> None:
    path = changed(probe(tmp_path), "language", "mask", value=None)
    with pytest.raises(ExportError, match=r"eyes\.onnx: nothing provides its input 'heard'"):
        contract(path)


def test_bytes_that_are_not_the_whole_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"images \(eye\)\.range' must be \[0, 255\], as the graph takes whole numbers"
    ):
        contract(probe(tmp_path, pixel=UINT8))
