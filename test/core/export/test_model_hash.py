# SPDX-License-Identifier: Apache-2.0
"""The hash of a model covers every byte that can change an action, whatever its file is called."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from reflex_core.errors import ExportError
from reflex_core.export.export import model_hash, open_export
from reflex_core.export.onnx_data import external_data


def outside(name: str, location: str, **entries: str) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location, "offset": "0", "length": "16"} | entries).items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph(path: Path, *locations: str, nodes: Any = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = helper.make_graph(
        list(nodes), "g", [], [], [outside(f"w{index}", place) for index, place in enumerate(locations)]
    )
    path.write_bytes(helper.make_model(made).SerializeToString())
    return path


def configured(path: Path, **config: Any) -> Path:
    (path / "reflex_config.json").write_text(json.dumps(config))
    return path


def test_external_data_is_found_wherever_a_graph_can_name_it(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=outside("c", "constant.bin"))
    branch = helper.make_graph([], "b", [], [], [outside("deep", "branch/deep")])
    choice = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    path = graph(
        tmp_path / "g.onnx", "model.onnx_data", "weights", "model.onnx_data", nodes=[constant, choice]
    )
    assert set(external_data(path)) == {"model.onnx_data", "weights", "constant.bin", "branch/deep"}


def test_external_data_of_functions_is_found(tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["c"], value=outside("c", "in_function"))
    function = helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 19)])
    model = helper.make_model(helper.make_graph([], "g", [], []), functions=[function])
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    assert external_data(tmp_path / "g.onnx") == ("in_function",)


@pytest.mark.parametrize("content", [b"", b"AAA", b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", os.urandom(400)])
def test_what_is_no_graph_names_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.onnx").write_bytes(content)
    assert external_data(tmp_path / "g.onnx") == ()


def test_a_graph_that_is_cut_off_anywhere_ends_the_search(tmp_path: Path) -> None:
    whole = graph(tmp_path / "g.onnx", "model.onnx_data").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        assert set(external_data(tmp_path / "cut.onnx")) <= {"model.onnx_data"}


def _weights(path: Path, content: bytes, name: str = "model.onnx_data") -> None:
    graph(path / "model.onnx", name)
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(content)


def _per_tensor(path: Path, content: bytes) -> None:
    graph(path / "model.onnx", "first.weight", "layers.0.mlp")
    (path / "first.weight").write_bytes(b"same")
    (path / "layers.0.mlp").write_bytes(content)


def _below(path: Path, content: bytes) -> None:
    graph(path / "model.onnx")
    graph(path / "parts" / "expert.onnx", "expert.weights")
    (path / "parts" / "expert.weights").write_bytes(content)


def _named(name: str) -> Callable[[Path, bytes], None]:
    def make(path: Path, content: bytes) -> None:
        graph(path / "model.onnx")
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)

    return make


CHANGES: dict[str, tuple[Callable[[Path, bytes], None], dict[str, Any]]] = {
    "model.onnx_data": (_weights, {}),
    "weights": (lambda path, content: _weights(path, content, "weights"), {}),
    "weights in a folder": (lambda path, content: _weights(path, content, "data/w.0"), {}),
    "one file per tensor": (_per_tensor, {}),
    "a graph in a folder": (_below, {"graphs": {"prefix": "model.onnx", "denoise": "parts/expert.onnx"}}),
    "a graph by another name": (_named("network.pb"), {"graphs": {"monolithic": "network.pb"}}),
    "a variant's graph": (
        _named("fp16/network"),
        {"variants": {"fp16": {"graphs": {"denoise": "fp16/network"}}}},
    ),
    "statistics": (_named("policy_preprocessor_step_3_normalizer_processor.safetensors"), {}),
    "other statistics": (_named("policy_postprocessor_x.safetensors"), {}),
    "processors": (_named("policy_preprocessor.json"), {}),
    "tokenizer": (_named("tokenizer.json"), {}),
    "tokenizer in its folder": (_named("tokenizer/tokenizer.json"), {}),
    "tokenizer elsewhere": (_named("words/tokenizer.json"), {"tokenizer_path": "words"}),
    "tokenizer by name": (_named("words.json"), {"language": {"tokenizer": "words.json"}}),
    "state projection": (_named("state_proj_weight.npy"), {}),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_every_byte_that_can_change_an_action_changes_the_hash(tmp_path: Path, name: str) -> None:
    make, config = CHANGES[name]
    hashes = set()
    for content in (b"one, of sixteen.", b"two, of sixteen."):
        make(tmp_path, content)
        hashes.add(model_hash(tmp_path, config))
    assert len(hashes) == 2


def test_the_settings_of_a_tokenizer_beside_it_count(tmp_path: Path) -> None:
    graph(tmp_path / "model.onnx")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    before = model_hash(tmp_path)
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text('{"pad_token": "<pad>"}')
    assert model_hash(tmp_path) != before


@pytest.mark.parametrize(
    "name", ["parity.npz", "VERIFICATION.md", "README.md", "embodiment.json", "picture.png"]
)
def test_what_changes_no_action_does_not_change_the_hash(tmp_path: Path, name: str) -> None:
    graph(tmp_path / "model.onnx")
    before = model_hash(tmp_path)
    (tmp_path / name).write_bytes(b"something")
    assert model_hash(tmp_path) == before


def test_external_data_that_always_counted_counts_once_and_as_before(tmp_path: Path) -> None:
    content = graph(tmp_path / "model.onnx", "model.onnx.data").read_bytes()
    (tmp_path / "model.onnx.data").write_bytes(b"sixteen  numbers")
    digest = hashlib.sha256(b"model.onnx" + content + b"model.onnx.data" + b"sixteen  numbers")
    assert model_hash(tmp_path) == digest.hexdigest()[:16]


@pytest.mark.parametrize("place", ["../weights", "/etc/hostname", "a/../../weights", ""])
def test_weights_outside_the_export_are_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "weights").write_bytes(bytes(16))
    export = tmp_path / "export"
    graph(export / "model.onnx", place)
    configured(export)
    with pytest.raises(
        ExportError, match=r"model\.onnx: keeps weights in '.*', outside the export directory"
    ):
        open_export(export)


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    graph(configured(tmp_path) / "model.onnx", "model.onnx_data")
    with pytest.raises(ExportError, match=r"model\.onnx_data: not there: model\.onnx keeps weights in it"):
        open_export(tmp_path)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    os.chdir(path.parent)  # the address of a socket has room for 108 characters
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = {"a FIFO": _fifo, "a socket": _socket, "a device": _device, "a directory": Path.mkdir}
FILES = [
    "model.onnx", "other.bin", "model.onnx_data", "tokenizer.json", "policy_preprocessor_1.safetensors",
    "reflex_config.json", "policy_preprocessor.json",
]  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_regular_file_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    graph(configured(tmp_path) / "model.onnx", "model.onnx_data")
    (tmp_path / "model.onnx_data").write_bytes(bytes(16))
    (tmp_path / name).unlink(missing_ok=True)
    KINDS[kind](tmp_path / name)
    with pytest.raises(ExportError) as caught:
        open_export(tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456789\n"


@pytest.mark.parametrize("name", FILES)
def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path, name: str) -> None:
    graph(configured(tmp_path) / "model.onnx", "model.onnx_data")
    (tmp_path / "model.onnx_data").write_bytes(bytes(16))
    (tmp_path / name).write_bytes(POINTER)
    if name == "policy_preprocessor.json":  # the two of them go together
        (tmp_path / "policy_postprocessor.json").write_bytes(POINTER)
    with pytest.raises(ExportError) as caught:
        open_export(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "a Git LFS pointer" in str(caught.value)
    assert "`git lfs pull`" in str(caught.value)
