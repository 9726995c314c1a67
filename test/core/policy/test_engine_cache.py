# SPDX-License-Identifier: Apache-2.0
"""Where TensorRT's engines are, for which machine, and what is done where they are not. No engine is built: none can be here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
from servers import ExportDir

from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.policy import engine_cache, flow_matching
from reflex_core.policy.engine_cache import (
    FOUND,
    MANIFEST,
    MISSING,
    OTHER,
    PLAIN_TENSORRT,
    REFUSE,
    Engines,
    TensorRT,
    engine_base,
    engine_key,
    find_engines,
    keep_manifest,
    key_name,
)
from reflex_core.policy.layouts import load_layout, load_placed
from reflex_core.policy.providers import CPU, CUDA, TENSORRT, LoadOptions, Placement

OnGpu = Callable[[str], None]


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> OnGpu:
    """Answer as nvidia-smi would on a machine with this GPU."""

    def answer(name: str) -> None:
        monkeypatch.setattr(engine_cache, "first_gpu", lambda: {"name": name})

    answer("NVIDIA L4")
    return answer


def built(export: Path, wanted: TensorRT = PLAIN_TENSORRT, graphs: str = "weights") -> Engines:
    """Leave what TensorRT leaves, and the manifest."""
    engines = find_engines(export, graphs, wanted)
    (engines.directory / "denoise_sm89.engine").write_bytes(b"an engine")
    assert keep_manifest(engines) == ""
    return engines


def test_engines_that_were_built_are_found_by_the_next_start(on_gpu: OnGpu, tmp_path: Path) -> None:
    first = built(tmp_path)
    assert first.state == MISSING
    assert first.sentence == "there are no TensorRT engines of this export"
    again = find_engines(tmp_path, "weights", TensorRT())
    assert (again.state, again.sentence, again.directory) == (FOUND, "", first.directory)


def test_the_key_holds_all_that_an_engine_depends_on(on_gpu: OnGpu) -> None:
    key = engine_key("weights", True)
    assert set(key) == {"graphs", "gpu", "tensorrt", "onnxruntime", "precision"}
    assert (key["gpu"], key["onnxruntime"], key["precision"]) == (
        "NVIDIA L4",
        onnxruntime.__version__,
        "fp16",
    )
    assert key_name(key).startswith("nvidia-l4-fp16-")
    names = {key_name(key | {name: "another"}) for name in key}
    assert len(names | {key_name(key)}) == len(key) + 1


def test_engines_of_another_gpu_are_named_and_not_used(on_gpu: OnGpu, tmp_path: Path) -> None:
    theirs = built(tmp_path)
    on_gpu("NVIDIA H200")
    found = find_engines(tmp_path, "weights", TensorRT())
    assert found.state == OTHER
    assert found.directory != theirs.directory
    assert found.sentence.endswith("do not fit here: the GPU was NVIDIA L4 and is NVIDIA H200")


@pytest.mark.parametrize(("graphs", "fp16", "state"), [("others", True, MISSING), ("weights", False, OTHER)])
def test_other_weights_or_another_precision_have_other_engines(
    on_gpu: OnGpu, tmp_path: Path, graphs: str, fp16: bool, state: str
) -> None:
    built(tmp_path)
    assert find_engines(tmp_path, graphs, TensorRT(fp16=fp16)).state == state


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"files": []}', '{"files": "denoise_sm89.engine"}'])
def test_a_build_that_was_interrupted_is_no_build(
    on_gpu: OnGpu, tmp_path: Path, manifest: str | None
) -> None:
    engines = built(tmp_path)
    if manifest is None:
        (engines.directory / MANIFEST).unlink()
    else:
        (engines.directory / MANIFEST).write_text(manifest)
    assert find_engines(tmp_path, "weights", TensorRT()).state == MISSING


def test_an_engine_that_was_deleted_is_named(on_gpu: OnGpu, tmp_path: Path) -> None:
    engines = built(tmp_path)
    (engines.directory / "denoise_sm89.engine").unlink()
    found = find_engines(tmp_path, "weights", TensorRT())
    assert (found.state, found.sentence) == (
        MISSING,
        "the engine denoise_sm89.engine that engines.json lists is not there",
    )


def test_missing_engines_are_refused_where_the_settings_say_so(on_gpu: OnGpu, tmp_path: Path) -> None:
    wanted = TensorRT(when_missing=REFUSE)
    with pytest.raises(
        ConfigurationError, match="there are no TensorRT engines of this export; build them with"
    ):
        find_engines(tmp_path, "weights", wanted)
    built(tmp_path)
    assert find_engines(tmp_path, "weights", wanted).state == FOUND


def test_each_load_tells_the_state(on_gpu: OnGpu, tmp_path: Path) -> None:
    counted: list[str] = []
    wanted = TensorRT(count=counted.append)
    built(tmp_path, wanted)
    find_engines(tmp_path, "weights", wanted)
    on_gpu("NVIDIA H200")
    with pytest.raises(ConfigurationError):
        find_engines(tmp_path, "weights", TensorRT(when_missing=REFUSE, count=counted.append))
    assert counted == [MISSING, FOUND, OTHER]


def test_engines_go_to_the_directory_that_is_named(tmp_path: Path) -> None:
    assert engine_base(tmp_path / "arm", str(tmp_path / "engines")) == tmp_path / "engines"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--tensorrt-engine-dir"):
        engine_base(tmp_path / "arm", str(tmp_path / "file" / "engines"))


def test_engines_go_to_the_users_cache_where_the_export_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "models" / "arm").mkdir(parents=True)
    (tmp_path / "models" / "arm" / ".ort_trt").write_text("a file where the directory would be")
    assert (
        engine_base(tmp_path / "models" / "arm") == tmp_path / "cache" / "reflex" / "tensorrt" / "models_arm"
    )


def test_a_load_that_ran_elsewhere_leaves_no_manifest(
    on_gpu: OnGpu, tmp_path: Path, export_dir: ExportDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT is listed but does not start, so that the real session is one of the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    export, kept = open_export(export_dir("decomposed")), TensorRT(engine_dir=str(tmp_path))
    interrupted = find_engines(export.path, export.weights_hash, kept).directory
    (interrupted / "prefix_sm89.engine").write_bytes(b"half an engine")
    wanted = LoadOptions(allow_cpu_fallback=True, tensorrt=kept)
    layout = load_layout(flow_matching.network, export, "tensorrt", 1, wanted)
    assert any(
        "there are no TensorRT engines of this export: TensorRT builds" in note for note in layout.notes
    )
    assert list(tmp_path.rglob(MANIFEST)) == []


def test_a_load_that_ran_there_keeps_what_the_engines_were_built_for(
    on_gpu: OnGpu, tmp_path: Path, export_dir: ExportDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real load on the CPU that is taken for TensorRT's, with the file that TensorRT would have left."""
    monkeypatch.setattr("reflex_core.policy.layouts.TENSORRT", CPU)
    engines = find_engines(tmp_path, "weights", TensorRT())
    export = open_export(export_dir("decomposed"))
    layout = load_placed(flow_matching.network, export, Placement((CPU,), 1, engines=engines))
    assert any("TensorRT has left no engine" in note for note in layout.notes)
    (engines.directory / "prefix_sm89.engine").write_bytes(b"an engine")
    load_placed(flow_matching.network, export, Placement((CPU,), 1, engines=engines))
    kept = json.loads((engines.directory / MANIFEST).read_text())
    assert kept == {**engines.key, "files": ["prefix_sm89.engine"]}
