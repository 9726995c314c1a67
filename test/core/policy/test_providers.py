# SPDX-License-Identifier: Apache-2.0
"""Which providers are asked for, what happens where they do not start, and what the result is called."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from servers import ExportDir

from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.engine_cache import TensorRT
from reflex_core.policy.load import load_policy
from reflex_core.policy.providers import (
    CPU,
    CUDA,
    TENSORRT,
    LoadOptions,
    inference_mode,
    place,
    require_provider,
)

HERE = Path("export")


def load(path: Path, device: str = "cpu", **options: object) -> Policy:
    return load_policy(open_export(path), None, device, 1, (), LoadOptions(**options))  # type: ignore[arg-type]


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that says it has GPU providers, none of which can start: CUDA is installed, its driver is not."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])


def test_cpu_runs_on_the_cpu_and_says_so(export_dir: ExportDir) -> None:
    policy = load(export_dir("decomposed"))
    assert (policy.providers[0], policy.inference_mode, policy.fell_back) == (CPU, "onnx_cpu", False)


def test_a_device_that_this_onnxruntime_lacks_is_one_sentence(export_dir: ExportDir) -> None:
    with pytest.raises(
        ConfigurationError, match="device 'cuda' needs CUDAExecutionProvider, which this onnx"
    ):
        load(export_dir("decomposed"), "cuda")


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("CUDA", "; did you mean CUDAExecutionProvider?"),
        ("Tensorrt", "; did you mean TensorrtExecutionProvider?"),
        ("CudaExecutionProvider", "; did you mean CUDAExecutionProvider?"),
        (CUDA, ")"),
        ("Nope", ")"),
    ],
)
def test_a_provider_of_nearly_that_name_is_suggested(name: str, end: str) -> None:
    with pytest.raises(ConfigurationError, match=f"has no {name} ") as refused:
        require_provider("auto", [name])
    assert str(refused.value).endswith(end)


@pytest.mark.parametrize("options", [{}, {"cuda_graphs": True}])
def test_a_lacking_device_may_fall_back_where_that_is_allowed(
    export_dir: ExportDir, options: dict[str, bool]
) -> None:
    policy = load(export_dir("decomposed"), "cuda", allow_cpu_fallback=True, **options)
    assert (policy.providers[0], policy.inference_mode, policy.fell_back) == (CPU, "onnx_cpu", True)
    assert "served on the CPU, as --allow-cpu-fallback says" in policy.notes[0]
    assert any("cuda_graphs has no effect" in note for note in policy.notes) == bool(options)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_gpu_that_does_not_start_is_an_error(export_dir: ExportDir, claimed: None, device: str) -> None:
    with pytest.raises(ConfigurationError, match="could only start CPUExecutionProvider") as caught:
        load(export_dir("decomposed"), device)
    assert caught.value.slug == "silent-cpu-fallback"


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_does_not_start_may_fall_back_where_that_is_allowed(
    export_dir: ExportDir, claimed: None
) -> None:
    policy = load(export_dir("decomposed"), "cuda", allow_cpu_fallback=True)
    assert (policy.inference_mode, policy.fell_back) == ("onnx_cpu", True)
    assert any("CUDAExecutionProvider was requested" in note for note in policy.notes)


def test_named_providers_win_over_the_device(export_dir: ExportDir) -> None:
    assert load(export_dir("decomposed"), "cuda", providers=("cpu",)).providers == (CPU,)


@pytest.mark.parametrize("name", ["cuda", CUDA, "Nonsense"])
def test_a_named_provider_that_is_not_there_is_named(export_dir: ExportDir, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"providers: this onnxruntime .* has no (CUDA|Nons)"):
        load(export_dir("decomposed"), providers=(name,))


def test_cuda_gets_fixed_numerics_and_graphs_only_where_asked(claimed: None) -> None:
    plain = dict(place("cuda", 1, LoadOptions(), HERE).with_options())
    assert list(plain) == [CUDA, CPU]
    assert plain[CUDA]["use_tf32"] == "0"
    assert "enable_cuda_graph" not in plain[CUDA]
    graphs = dict(place("cuda", 1, LoadOptions(cuda_graphs=True), HERE).with_options())
    assert graphs[CUDA]["enable_cuda_graph"] == "1"


def test_tensorrt_runs_in_half_precision_unless_set_otherwise(claimed: None, tmp_path: Path) -> None:
    options = dict(place("tensorrt", 1, LoadOptions(), tmp_path).with_options())
    assert list(options) == [TENSORRT, CUDA, CPU]
    assert options[TENSORRT]["trt_fp16_enable"] == "1"
    whole = place("tensorrt", 1, LoadOptions(tensorrt=TensorRT(fp16=False)), tmp_path)
    assert dict(whole.with_options())[TENSORRT]["trt_fp16_enable"] == "0"
    assert inference_mode([whole.providers], fp16=False) == "onnx_trt_fp32"


def test_tensorrt_reads_and_keeps_its_engines_in_one_directory(claimed: None, tmp_path: Path) -> None:
    placement = place("tensorrt", 1, LoadOptions(), tmp_path, "weights")
    assert placement.engines is not None
    directory = str(placement.engines.directory)
    options = dict(placement.with_options())[TENSORRT]
    assert (options["trt_engine_cache_path"], options["trt_timing_cache_path"]) == (directory, directory)
    assert Path(directory).parent == tmp_path / ".ort_trt"
    assert f"TensorRT builds them now, in {directory}" in placement.notes[0]


def test_settings_of_tensorrt_are_noted_where_another_provider_runs(tmp_path: Path) -> None:
    wanted = LoadOptions(tensorrt=TensorRT(engine_dir=str(tmp_path / "engines")))
    assert place("cpu", 1, wanted, HERE).notes == (
        f"the settings of TensorRT have no effect: the policy runs on {CPU}",
    )
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(
    ("active", "mode"),
    [
        ([(TENSORRT, CUDA, CPU)], "onnx_trt_fp16"),
        ([(CUDA, CPU)], "onnx_gpu"),
        ([(CPU,)], "onnx_cpu"),
        ([(TENSORRT, CUDA, CPU), (CUDA, CPU)], "onnx_gpu"),
        ([(CUDA, CPU), (CPU,)], "onnx_cpu"),
    ],
)
def test_the_inference_mode_is_that_of_the_slowest_graph(active: list[tuple[str, ...]], mode: str) -> None:
    assert inference_mode(active) == mode
