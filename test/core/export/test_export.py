# SPDX-License-Identifier: Apache-2.0
"""An export directory: hashes, statistics, and that nothing outside it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from reflex_core.errors import ExportError
from reflex_core.export.export import Affine, config_hash, model_hash, open_export


def written(path: Path, config: Any = None, text: str | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "reflex_config.json").write_text(json.dumps(config or {}) if text is None else text)
    return path


def test_the_model_hash_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(b"BB")
    (tmp_path / "a.onnx").write_bytes(b"AAA")
    assert model_hash(tmp_path) == "bbb8ad2f5dfe05b1"


def test_the_config_hash_is_the_published_one() -> None:
    assert config_hash({"b": 1, "a": {"y": 2.0, "x": "é"}}) == "7d87010c00ef8c33"


def test_a_tether_config_alone_is_read(tmp_path: Path) -> None:
    (tmp_path / "tether_config.json").write_text('{"model_id": "successor"}')
    found = open_export(tmp_path)
    assert (found.model_id, found.config_path) == ("successor", tmp_path / "tether_config.json")
    assert found.ignored_config == ""


def test_of_two_descriptions_the_own_one_is_read_and_the_other_is_named(tmp_path: Path) -> None:
    (tmp_path / "tether_config.json").write_text('{"model_id": "successor"}')
    (tmp_path / "reflex_config.json").write_text('{"model_id": "own"}')
    found = open_export(tmp_path)
    assert (found.model_id, found.config_path) == ("own", tmp_path / "reflex_config.json")
    message = "it has a reflex_config.json and a tether_config.json: the first is read, the other is not"
    assert found.ignored_config == message


def test_what_is_wrong_with_a_tether_config_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "tether_config.json").write_text("{")
    with pytest.raises(ExportError, match=r"tether_config\.json: "):
        open_export(tmp_path)
    (tmp_path / "tether_config.json").write_text('{"normalization": 3}')
    with pytest.raises(ExportError, match=r"tether_config\.json: normalization must be an object"):
        open_export(tmp_path)


def test_external_weights_count_in_the_model_hash(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"AAA")
    before = model_hash(tmp_path)
    (tmp_path / "model.onnx.data").write_bytes(b"weights")
    with_weights = model_hash(tmp_path)
    (tmp_path / "model.onnx.data").write_bytes(b"Weights")
    assert len({before, with_weights, model_hash(tmp_path)}) == 3


def test_other_files_do_not_count_in_the_model_hash(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"AAA")
    before = model_hash(tmp_path)
    (tmp_path / "VERIFICATION.md").write_text("fine")
    assert model_hash(tmp_path) == before


def test_graphs_in_a_folder_of_their_own_count_in_the_model_hash(tmp_path: Path) -> None:
    hashes = set()
    for weights in (b"one", b"two"):
        folder = tmp_path / "monolithic"
        folder.mkdir(exist_ok=True)
        (folder / "model.onnx").write_bytes(weights)
        hashes.add(model_hash(tmp_path))
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("lerobot/pi0_base", "pi0_base"),
        ("reach_panda", "reach_panda"),
        ("a/b/", "b"),
        ("rm -rf\r\nX-Evil: 1", "rm_-rf__X-Evil__1"),
        ("é" * 3, "___"),
        ("x" * 200, "x" * 80),
        ("", "export"),
        (None, "export"),
    ],
)
def test_the_model_id_is_short_and_plain(tmp_path: Path, message: str | None, shown: str) -> None:
    export = open_export(written(tmp_path / "export", {"model_id": message}))
    assert export.model_id == shown
    assert export.model_version == f"{shown}@{export.model_hash}"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"{tmp_path}/nowhere: no such export directory") as caught:
        open_export(tmp_path / "nowhere")
    assert caught.value.slug == "export-missing"


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"AAA")
    with pytest.raises(ExportError, match="model.onnx: is one ONNX graph: name the folder"):
        open_export(tmp_path / "model.onnx")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"reflex_config\.json: missing: every export needs one") as caught:
        open_export(tmp_path)
    assert caught.value.slug == "export-file-missing"


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "\x00\x01", '{"a": 1,}'])
def test_a_configuration_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ExportError, match=r"reflex_config\.json: not readable as JSON: ") as caught:
        open_export(written(tmp_path, text=text))
    assert "\n" not in str(caught.value)


def test_a_configuration_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reflex_config.json").write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(ExportError, match=r"reflex_config\.json: not readable as JSON"):
        open_export(tmp_path)


@pytest.mark.parametrize(
    ("text", "kind"), [("[]", "list"), ("3", "int"), ("null", "NoneType"), ('"a"', "str")]
)
def test_a_configuration_that_is_no_object_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    with pytest.raises(ExportError, match=rf"reflex_config\.json: must hold a JSON object, got {kind}"):
        open_export(written(tmp_path, text=text))


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/passwd", "sub/../../secret.onnx"])
def test_a_path_outside_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.onnx").write_bytes(b"AAA")
    export = open_export(written(tmp_path / "export"))
    with pytest.raises(ExportError, match="lies outside the export directory"):
        export.file(name, "its graph")


def test_a_missing_file_is_named_with_what_it_is_for(tmp_path: Path) -> None:
    export = open_export(written(tmp_path))
    with pytest.raises(ExportError, match=r"expert\.onnx: missing: the export needs it as its denoise graph"):
        export.file("expert.onnx", "its denoise graph")


def test_a_file_below_the_directory_is_found(tmp_path: Path) -> None:
    export = open_export(written(tmp_path))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "model.onnx").write_bytes(b"AAA")
    assert export.file("sub/../sub/model.onnx", "its graph").read_bytes() == b"AAA"


def normalised(tmp_path: Path, **block: Any) -> Affine:
    export = open_export(written(tmp_path, {"normalization": {"action": block, "state": block}}))
    assert export.action_statistics is not None
    assert export.state_statistics is not None
    return export.action_statistics


def test_mean_and_deviation_map_one_deviation_to_one(tmp_path: Path) -> None:
    statistics = normalised(tmp_path, mode="mean_std", mean=[1.0, -2.0], std=[0.5, 4.0])
    np.testing.assert_allclose(statistics.normalise(np.array([1.5, -6.0])), [1, -1])
    np.testing.assert_allclose(statistics.denormalise(np.array([[0, 0], [2, -0.5]])), [[1, -2], [2, -4]])


@pytest.mark.parametrize(("mode", "low", "high"), [("min_max", "min", "max"), ("quantiles", "q01", "q99")])
def test_a_range_maps_its_ends_to_minus_one_and_one(tmp_path: Path, mode: str, low: str, high: str) -> None:
    statistics = normalised(tmp_path, mode=mode, **{low: [-1.0, 10.0], high: [3.0, 20.0]})
    np.testing.assert_allclose(
        statistics.normalise(np.array([[-1, 10], [3, 20], [1, 15]])), [[-1, -1], [1, 1], [0, 0]]
    )
    np.testing.assert_allclose(statistics.denormalise(np.array([[-1, -1], [1, 1]])), [[-1, 10], [3, 20]])


def test_normalising_and_back_is_the_identity(tmp_path: Path) -> None:
    statistics = normalised(tmp_path, mean=[0.3, -1.5], std=[0.7, 2.0])
    physical = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    back = statistics.denormalise(statistics.normalise(physical))
    np.testing.assert_allclose(back, physical, atol=1e-6)
    assert back.dtype == np.float32


def test_a_dimension_that_never_moved_stays_where_it_was(tmp_path: Path) -> None:
    statistics = normalised(tmp_path, mean=[0.3], std=[0.0])
    np.testing.assert_allclose(statistics.denormalise(np.array([[5.0]])), [[0.3]], atol=1e-6)
    assert np.isfinite(statistics.normalise(np.array([0.3]))).all()


BAD_STATISTICS: dict[str, tuple[Any, str]] = {
    "NaN": ({"mean": [0.0, float("nan")], "std": [1.0, 1.0]}, "NaN or Inf"),
    "Inf": ({"mean": [0.0, 1.0], "std": [1.0, float("inf")]}, "NaN or Inf"),
    "one short": ({"mean": [0.0, 1.0], "std": [1.0]}, "same length"),
    "empty": ({"mean": [], "std": []}, "same length"),
    "half missing": ({"mean": [0.0, 1.0]}, "same length"),
    "words": ({"mean": ["a"], "std": ["b"]}, "lists of numbers"),
    "a table": ({"mean": [[0.0]], "std": [[1.0]]}, "same length"),
    "ragged": ({"mean": [[0.0], [1.0, 2.0]], "std": [1.0]}, "lists of numbers"),
    "negative": ({"mean": [0.0], "std": [-1.0]}, "must not be negative"),
    "upside down": ({"mode": "min_max", "min": [1.0], "max": [0.0]}, "must not be below"),
    "unknown mode": ({"mode": "zscore", "mean": [0.0], "std": [1.0]}, "must be one of mean_std"),
    "unhashable mode": ({"mode": ["mean_std"], "mean": [0.0], "std": [1.0]}, "must be one of mean_std"),
    "no object": ([1, 2], "must be an object"),
}


@pytest.mark.parametrize("name", list(BAD_STATISTICS))
def test_bad_statistics_are_refused_with_file_and_key(tmp_path: Path, name: str) -> None:
    block, says = BAD_STATISTICS[name]
    with pytest.raises(ExportError) as caught:
        open_export(written(tmp_path, {"normalization": {"action": block}}))
    sentence = str(caught.value)
    assert sentence.startswith(f"{tmp_path}/reflex_config.json: normalization.action")
    assert says in sentence
    assert "\n" not in sentence


def test_a_normalization_that_is_no_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"reflex_config\.json: normalization must be an object"):
        open_export(written(tmp_path, {"normalization": [1]}))


def test_identity_is_no_statistics_and_says_so(tmp_path: Path) -> None:
    export = open_export(written(tmp_path, {"normalization": {"action": {"mode": "identity"}}}))
    assert export.action_statistics is None
    assert export.says_how_it_normalises


def test_identity_wins_over_statistics_that_lie_around(tmp_path: Path) -> None:
    save_statistics(tmp_path)
    export = open_export(written(tmp_path, {"normalization": {"action": {"mode": "identity"}}}))
    assert (export.state_statistics, export.action_statistics) == (None, None)


def test_an_export_without_statistics_says_nothing(tmp_path: Path) -> None:
    assert not open_export(written(tmp_path)).says_how_it_normalises


def save_statistics(path: Path, prefix: str = "", bad: float = 0.5) -> None:
    state = {f"{prefix}observation.state.mean": np.zeros(2), f"{prefix}observation.state.std": np.ones(2)}
    action = {f"{prefix}action.mean": np.full(2, 0.25), f"{prefix}action.std": np.array([bad, 2.0])}
    save_file(
        {key: value.astype(np.float32) for key, value in state.items()},
        path / "policy_preprocessor_n.safetensors",
    )
    save_file(
        {key: value.astype(np.float32) for key, value in action.items()},
        path / "policy_postprocessor_u.safetensors",
    )


@pytest.mark.parametrize("prefix", ["", "buffers."])
def test_statistics_are_read_from_the_policy_processors(tmp_path: Path, prefix: str) -> None:
    save_statistics(tmp_path, prefix)
    export = open_export(written(tmp_path))
    assert export.action_statistics is not None
    assert export.state_statistics is not None
    assert export.action_statistics.shift.tolist() == [0.25, 0.25]
    assert export.action_statistics.back.tolist() == [0.5, 2.0]
    assert export.state_statistics.back.tolist() == [1, 1]


def test_nan_in_the_policy_processors_is_refused_and_the_file_is_named(tmp_path: Path) -> None:
    save_statistics(tmp_path, bad=float("nan"))
    with pytest.raises(
        ExportError, match=r"policy_postprocessor_u\.safetensors: action: the statistics hold NaN"
    ) as caught:
        open_export(written(tmp_path))
    assert caught.value.slug == "bad-statistics"


def test_a_damaged_policy_processor_is_refused_and_the_file_is_named(tmp_path: Path) -> None:
    save_statistics(tmp_path)
    file = tmp_path / "policy_postprocessor_u.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(
        ExportError, match=r"policy_postprocessor_u\.safetensors: not readable as safetensors"
    ):
        open_export(written(tmp_path))


@pytest.mark.parametrize(("kind", "size"), [("BOOL", 1), ("C64", 8), ("F8_E4M3", 1)])
def test_statistics_of_other_things_than_numbers_are_refused(tmp_path: Path, kind: str, size: int) -> None:
    """The imaginary part would be dropped, and truth values would pass for 0 and 1."""
    save_statistics(tmp_path)
    header = json.dumps(
        {"action.mean": {"dtype": kind, "shape": [7], "data_offsets": [0, 7 * size]}}
    ).encode()
    file = tmp_path / "policy_postprocessor_u.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(7 * size))
    with pytest.raises(
        ExportError, match=r"policy_postprocessor_u\.safetensors: not readable as safetensors"
    ) as caught:
        open_export(written(tmp_path))
    assert str(caught.value).isprintable()


def test_files_that_are_links_out_of_the_directory_are_read_as_model_caches_make_them(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"a graph")
    home = tmp_path / "export"
    home.mkdir()
    (home / "model.onnx").symlink_to("../blob")
    export = open_export(written(home))
    assert export.file("model.onnx", "the graph").read_bytes() == b"a graph"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"relative_action": True}, "there is no key 'relative_action'; did you mean relative_actions?"),
        ({"normalisation": {"state": {}}}, "there is no key 'normalisation'; did you mean normalization?"),
        ({"unit": "degrees"}, "did you mean units?"),
        ({"normalization": {"actions": {"mode": "mean_std", "mean": [0], "std": [2]}}}, "normalization has no key 'actions'; did you mean action?"),
        ({"normalization": {"State": {"mode": "identity"}}}, "did you mean state?"),
    ],
)  # fmt: skip
def test_a_misspelt_key_that_would_change_the_actions_is_refused(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    (tmp_path / "reflex_config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError) as refused:
        open_export(tmp_path)
    assert says in str(refused.value)


def test_notes_of_an_exporter_are_left_alone(tmp_path: Path) -> None:
    notes = {"image_size": 224, "action_chunk_size": 50, "target": "cpu", "normalization": {"notes": "none"}}
    (tmp_path / "reflex_config.json").write_text(json.dumps(notes))
    assert open_export(tmp_path).config == notes
