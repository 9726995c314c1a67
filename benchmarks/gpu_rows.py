# SPDX-License-Identifier: Apache-2.0
"""The ways that gpu_check.py runs one export: which provider, which precision, what is copied, what is captured."""

from __future__ import annotations

import ctypes
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from benchmarks.exports import Measured, policy_of
from reflex_core.errors import ConfigurationError
from reflex_core.policy.base import Policy
from reflex_core.policy.engine_cache import BUILD, REFUSE, TensorRT
from reflex_core.policy.providers import CPU, CUDA, TENSORRT, LoadOptions

REFERENCE = "cpu fp32"
FP32_TOLERANCE, FP16_TOLERANCE = 1e-3, 2e-2  # of normalised actions, against REFERENCE
HALF, SINGLE = "fp16", "fp32"


class CannotRunError(Exception):
    """A row has no figures here; the message is one sentence that says why."""


class ReplayDiffersError(Exception):
    """A captured graph answers otherwise than the eager run: a failure, not a row that cannot run."""


class Counted:
    """GraphMetrics that counts."""

    def __init__(self) -> None:
        self.captures: list[str] = []
        self.failures: list[str] = []
        self.replays = 0

    def captured(self, session: str, seconds: float) -> None:
        self.captures.append(f"{session} in {seconds * 1e3:.0f} ms")

    def replayed(self, session: str, seconds: float) -> None:
        del session, seconds
        self.replays += 1

    def eager_fallback(self, reason: str) -> None:
        self.failures.append(reason)

    def capture_failed(self, session: str, reason: str) -> None:
        self.failures.append(f"{session}: {reason}")


@dataclass(frozen=True, slots=True)
class Way:
    """One row. provider: what every graph must run on. tolerance: largest difference from REFERENCE, normalised actions.

    open: load the policy; raises CannotRunError, ConfigurationError or InferenceError where that is not possible here.
    """

    name: str
    provider: str
    tolerance: float
    open: Callable[[], Policy]


def ways(
    measured: Measured,
    scratch: Path,
    tolerance: float = FP32_TOLERANCE,
    half_tolerance: float = FP16_TOLERANCE,
) -> tuple[Way, ...]:
    """Return all rows, REFERENCE first. scratch: an empty directory, for the float16 copy and TensorRT's engines."""

    def half(device: str) -> Callable[[], Policy]:
        return lambda: policy_of(half_copy(measured, scratch / HALF), device)

    def engines(precision: str, when_missing: str) -> Callable[[], Policy]:
        kept = TensorRT(precision == HALF, str(scratch / "engines"), when_missing)
        return lambda: policy_of(measured, "tensorrt", 1, LoadOptions(tensorrt=kept))

    return (
        Way(REFERENCE, CPU, 0.0, lambda: policy_of(measured, "cpu")),
        Way("cpu fp16", CPU, half_tolerance, half("cpu")),
        Way("cuda fp32, copied", CUDA, tolerance, lambda: copying(policy_of(measured, "cuda"))),
        Way("cuda fp32, bound", CUDA, tolerance, lambda: policy_of(measured, "cuda")),
        Way("cuda fp32, graphs", CUDA, tolerance, lambda: captured(measured)),
        Way("cuda fp16, bound", CUDA, half_tolerance, half("cuda")),
        Way("tensorrt fp32, built", TENSORRT, tolerance, engines(SINGLE, BUILD)),
        Way("tensorrt fp32, kept", TENSORRT, tolerance, engines(SINGLE, REFUSE)),
        Way("tensorrt fp16, built", TENSORRT, half_tolerance, engines(HALF, BUILD)),
        Way("tensorrt fp16, kept", TENSORRT, half_tolerance, engines(HALF, REFUSE)),
    )


def copying(policy: Policy) -> Policy:
    """Return the policy with its tensors in host memory: onnxruntime copies each one to the GPU and back, in every run."""
    for session in policy._layout.sessions:
        session.device = "cpu"
    return policy


def captured(measured: Measured, device: str = "cuda") -> Policy:
    """Return the policy with all its CUDA graphs captured.

    Raises CannotRunError where one is not captured, ReplayDiffersError where it does not answer as the eager run.
    """
    counted = Counted()
    policy = policy_of(measured, device, 1, LoadOptions(cuda_graphs=True, graph_metrics=counted))
    notes = policy.capture_graphs()
    if "mismatch" in counted.failures:
        raise ReplayDiffersError("; ".join(notes))
    if counted.failures or not counted.replays:
        reason = "; ".join((*notes, *counted.failures)) or "nothing was captured"
        raise CannotRunError(f"its CUDA graphs are not replayed: {reason}")
    return policy


def half_copy(measured: Measured, folder: Path) -> Measured:
    """Return a copy of the export whose graphs compute in float16, with float32 inputs and outputs. Raises CannotRunError."""
    try:
        import onnx

        from reflex_export.families.half_precision import to_half
    except ImportError as error:
        raise CannotRunError(
            f"the float16 copy needs the package '{error.name}': pip install onnx sympy"
        ) from error
    made = Measured(f"{measured.name} fp16", folder, measured.embodiment)
    if folder.is_dir():
        return made
    beginning = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(beginning, ignore_errors=True)
    shutil.copytree(measured.path, beginning, ignore=shutil.ignore_patterns(".ort_trt"))
    try:
        for path in beginning.rglob("*.onnx"):
            onnx.save(to_half(onnx.shape_inference.infer_shapes(onnx.load(path))), path)
    except Exception as error:  # the converter raises what it likes
        raise CannotRunError(f"it cannot be converted to float16: {type(error).__name__}: {error}") from error
    beginning.rename(folder)
    return made


def require_provider_of(policy: Policy, provider: str) -> None:
    """Raise CannotRunError where a graph of the policy runs elsewhere."""
    for session in policy._layout.sessions:
        if session.providers[0] != provider:
            raise CannotRunError(f"{session.path.name} runs on {session.providers[0]}, not on {provider}")


def prefix_devices(policy: Policy) -> str:
    """Return where the tensors of the prefix are while the denoise loop reads them: cpu, cuda, or - without a prefix."""
    arrays, _ = policy.arrays(policy.canary())
    tensors = policy._layout.prefix(arrays, None).values()
    return " ".join(sorted({tensor.device_name().lower() for tensor in tensors})) or "-"


def preload() -> None:
    """Load the libraries of CUDA, cuDNN and TensorRT from their wheels, where they are; others are found as usual."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    folder = Path(sysconfig.get_path("purelib")) / "tensorrt_libs"
    for pattern in ("libnvinfer.so.*", "libnvonnxparser.so.*"):
        for path in sorted(folder.glob(pattern)):
            try:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                print(f"{path} does not load: {error}")


def chosen(known: Sequence[Way], only: Sequence[str]) -> tuple[Way, ...]:
    """Return REFERENCE and the rows whose name begins with one of `only`; all without one. Raises ConfigurationError."""
    for start in only:
        if not any(way.name.startswith(start) for way in known):
            raise ConfigurationError(
                f"--only {start}: no row begins so (they are {', '.join(way.name for way in known)})"
            )
    return tuple(
        way for way in known if not only or way.name == REFERENCE or way.name.startswith(tuple(only))
    )
