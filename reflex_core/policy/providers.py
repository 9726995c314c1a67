# SPDX-License-Identifier: Apache-2.0
"""Choose onnxruntime's providers for a policy, their options, and the public name of the choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import onnxruntime as ort

from reflex_core.errors import ConfigurationError
from reflex_core.policy.engine_cache import FOUND, PLAIN_TENSORRT, Engines, TensorRT, find_engines
from reflex_core.text.suggestions import nearest

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
SHORT = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
GPU = (TENSORRT, CUDA)
ALMOST = 0.8  # of difflib's ratio: CUDAs is almost CUDA, and nope is no SNPE
MODES = {TENSORRT: "onnx_trt_fp16", CUDA: "onnx_gpu"}

_CHAINS = {CPU: (CPU,), CUDA: (CUDA, CPU), TENSORRT: (TENSORRT, CUDA, CPU)}
_WORKSPACE_BYTES = 4 << 30


class GraphMetrics(Protocol):
    """Where CUDA graphs report. `session` is a graph's role: prefix, denoise, vision, text, prefill or monolithic."""

    def captured(self, session: str, seconds: float) -> None: ...

    def replayed(self, session: str, seconds: float) -> None: ...

    def eager_fallback(self, reason: str) -> None: ...

    def capture_failed(self, session: str, reason: str) -> None: ...


class BatchMetrics(Protocol):
    """Where micro-batching reports (policy/micro_batch.py)."""

    def ran(self, requests: int) -> None:
        """Count a run of the network for so many requests."""

    def alone(self, reason: str) -> None:
        """Count why a request, or the rest of a batch, ran alone; `over_tolerance`: why a whole load does."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How an export is loaded, beyond device and threads; the defaults are the export's own values.

    providers: onnxruntime's names, best first, or cpu, cuda, tensorrt; they win over the device.
    variant: a key of `variants` in reflex_config.json. denoise_steps, chunk_size: 0 as configured.
    pass_constant_state: take states off what was constant in training, instead of refusing them.
    max_batch: requests in one run of the graphs at most.
    """

    providers: tuple[str, ...] = ()
    allow_cpu_fallback: bool = False
    cuda_graphs: bool = False
    graph_metrics: GraphMetrics | None = None
    variant: str = ""
    denoise_steps: int = 0
    chunk_size: int = 0
    pass_constant_state: bool = False
    tensorrt: TensorRT = PLAIN_TENSORRT
    max_batch: int = 1
    batch_metrics: BatchMetrics | None = None


PLAIN_LOAD = LoadOptions()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the graphs of one export run. `static`: their tensors keep their addresses, as CUDA graphs need.

    notes: for the log. engines: TensorRT's, None without it. lacking: a GPU was
    requested that this onnxruntime has no provider for.
    """

    providers: tuple[str, ...]
    intra_op_threads: int = 0
    allow_cpu_fallback: bool = False
    static: bool = False
    engines: Engines | None = None
    lacking: bool = False
    notes: tuple[str, ...] = ()

    @property
    def captures(self) -> bool:
        """True when onnxruntime is to capture CUDA graphs."""
        return self.static and self.providers[0] == CUDA

    def fell_back(self, active: Iterable[Sequence[str]]) -> bool:
        """Return True when a GPU was requested and some graph runs on the CPU; `active`: each graph's providers."""
        return self.lacking or (self.providers[0] in GPU and any(names[0] not in GPU for names in active))

    def with_options(self) -> list[tuple[str, dict[str, str]]]:
        """Return the argument `providers` of onnxruntime.InferenceSession."""
        return [(name, _options(name, self)) for name in self.providers]


def providers_for(device: str) -> list[str]:
    """Return the providers to request, best first. Raises ConfigurationError when the device is not in this onnxruntime."""
    available = ort.get_available_providers()
    if device == "auto":
        device = "cuda" if CUDA in available else "cpu"
    wanted = SHORT[device]
    if wanted not in available:
        raise ConfigurationError(
            f"device '{device}' needs {wanted}, which this onnxruntime {ort.__version__} lacks"
            f" (it has {', '.join(available)}); install onnxruntime-gpu or take --device cpu"
        )
    return [name for name in _CHAINS[wanted] if name in available]


def require_provider(device: str, providers: Sequence[str]) -> None:
    """Raise ConfigurationError where this onnxruntime lacks what the settings request."""
    _ = _named(providers) if providers else providers_for(device)


def wants_gpu(device: str, providers: Sequence[str]) -> bool:
    """Return True when a policy with these settings would be put on a GPU."""
    try:
        chosen = _named(providers) if providers else providers_for(device)
    except ConfigurationError:
        return False  # loading says it better
    return chosen[0] in GPU


def place(
    device: str, intra_op_threads: int, options: LoadOptions, export_path: Path, graphs: str = ""
) -> Placement:
    """Choose the providers. Raises ConfigurationError for what this onnxruntime cannot do.

    A GPU that is lacking is an error, unless `allow_cpu_fallback`: then it is a note. graphs: identify the engines.
    """
    notes: list[str] = []
    lacking = False
    try:
        chosen = _named(options.providers) if options.providers else providers_for(device)
    except ConfigurationError as error:
        if not options.allow_cpu_fallback:
            raise
        chosen, lacking = [CPU], True
        notes.append(f"served on the CPU, as --allow-cpu-fallback says: {error}")
    if options.cuda_graphs:
        _say_without_cuda(chosen, options.graph_metrics, notes)
    engines = find_engines(export_path, graphs, options.tensorrt) if TENSORRT in chosen else None
    if engines is not None and engines.state != FOUND:
        notes.append(
            f"{engines.sentence}: TensorRT builds them now, in {engines.directory}, which takes minutes"
        )
    if engines is None and options.tensorrt != replace(PLAIN_TENSORRT, count=options.tensorrt.count):
        notes.append(f"the settings of TensorRT have no effect: the policy runs on {chosen[0]}")
    return Placement(
        providers=tuple(chosen),
        intra_op_threads=intra_op_threads,
        allow_cpu_fallback=options.allow_cpu_fallback,
        static=options.cuda_graphs and chosen[0] == CUDA,
        engines=engines,
        lacking=lacking,
        notes=tuple(notes),
    )


def _named(names: Sequence[str]) -> list[str]:
    available = ort.get_available_providers()
    chosen = list(dict.fromkeys(SHORT.get(name, name) for name in names))
    missing = [name for name in chosen if name not in available]
    if missing:
        raise ConfigurationError(
            f"providers: this onnxruntime {ort.__version__} has no {', '.join(missing)}"
            f" (it has {', '.join(available)}){_meant(missing)}"
        )
    return chosen if CPU in chosen else [*chosen, CPU]


def _meant(names: Sequence[str]) -> str:
    """Return which providers were probably meant by names that are none, as the end of a sentence; '' where unclear."""
    known = {_short(name): name for name in ort.get_all_providers()}
    meant = [
        known.get(nearest(_short(name), known, ALMOST), "") for name in names if name not in known.values()
    ]
    return f"; did you mean {', '.join(meant)}?" if meant and all(meant) else ""


def _short(name: str) -> str:
    return name.lower().removesuffix("executionprovider")


def _say_without_cuda(chosen: Sequence[str], metrics: GraphMetrics | None, notes: list[str]) -> None:
    """Note, but do not refuse, an option that only speeds up a GPU: the same command line serves without one."""
    if chosen[0] == CUDA:
        return
    notes.append(
        f"cuda_graphs has no effect: it needs {CUDA} first, and the policy runs on {chosen[0]} (this onnxruntime has"
        f" {', '.join(ort.get_available_providers())})"
    )
    if metrics is not None:
        metrics.eager_fallback("no_cuda")


def started(placement: Placement, active: Sequence[str], path: Path) -> str:
    """Return '' when the graph runs where it should, else a note. Raises ConfigurationError for a silent CPU fallback."""
    wanted = placement.providers[0]
    if wanted in active:
        return ""
    message = f"{path}: {wanted} was requested, but onnxruntime could only start {', '.join(active)}"
    if not placement.allow_cpu_fallback:
        raise ConfigurationError(
            f"{message}; check the CUDA and cuDNN libraries or take --device cpu", "silent-cpu-fallback"
        )
    return f"{message}; it is served there, as --allow-cpu-fallback says"


def inference_mode(sessions: Sequence[Sequence[str]], *, fp16: bool = True) -> str:
    """Return the name of where the slowest graph runs, by the active providers of every graph: onnx_cpu, onnx_gpu or TensorRT's.

    fp16: TensorRT computes in half precision: onnx_trt_fp16, else onnx_trt_fp32.
    """
    modes = [MODES.get(active[0], "onnx_cpu") for active in sessions]
    slowest = max(modes, key=("onnx_trt_fp16", "onnx_gpu", "onnx_cpu").index)
    return slowest if fp16 or slowest != MODES[TENSORRT] else "onnx_trt_fp32"


def _options(name: str, placement: Placement) -> dict[str, str]:
    if name == CUDA:
        options = {
            "device_id": "0",
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",  # exhaustive search differs from start to start
            "use_tf32": "0",  # the same numbers as on the CPU; a float16 export is the way to be faster
        }
        return options | ({"enable_cuda_graph": "1"} if placement.captures else {})
    if name == TENSORRT and placement.engines is not None:
        return {
            "device_id": "0",
            "trt_fp16_enable": "1" if placement.engines.fp16 else "0",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(placement.engines.directory),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(placement.engines.directory),
            "trt_max_workspace_size": str(_WORKSPACE_BYTES),
        }
    return {}


def session_options(intra_op_threads: int) -> Any:
    """Return the onnxruntime.SessionOptions of every graph. threads 0: one per physical core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors come back as exceptions, which are logged once
    options.use_deterministic_compute = True
    # spinning threads take the cores that the robot's other processes need
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
