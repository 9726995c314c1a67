# SPDX-License-Identifier: Apache-2.0
"""One ONNX Runtime session: providers, threads, and calls whose tensors stay on the session's device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from reflex_core.cancellation import Cancellation
from reflex_core.errors import ConfigurationError, ExportError, InferenceError
from reflex_core.values import Floats

Tensor = Any  # onnxruntime.OrtValue, which has no type stubs

_PROVIDER = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, numpy type and shape of one graph input or output; a dimension that may vary is None."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int | None, ...]

    def sized(self) -> tuple[int, ...]:
        """The shape with every free dimension as 1: one robot, one request."""
        return tuple(1 if size is None else size for size in self.shape)


def providers_for(device: str) -> list[str]:
    """The providers to ask for, best first. Raises ConfigurationError when the device is not in this onnxruntime."""
    available = ort.get_available_providers()
    if device == "auto":
        device = "cuda" if _PROVIDER["cuda"] in available else "cpu"
    if _PROVIDER[device] not in available:
        raise ConfigurationError(
            f"device '{device}' needs {_PROVIDER[device]}, which this onnxruntime {ort.__version__} lacks"
            f" (it has {', '.join(available)}); install onnxruntime-gpu or take --device cpu"
        )
    chain = {"cpu": ["cpu"], "cuda": ["cuda", "cpu"], "tensorrt": ["tensorrt", "cuda", "cpu"]}[device]
    return [_PROVIDER[name] for name in chain if _PROVIDER[name] in available]


def session_options(intra_op_threads: int) -> Any:
    """The onnxruntime.SessionOptions of every graph. threads 0: one per physical core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors come back as exceptions, which are logged once
    options.use_deterministic_compute = True
    # spinning threads take the cores that the robot's other processes need
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class Session:
    """A loaded graph. Not for two threads at once: the policy that owns it takes turns."""

    def __init__(self, path: Path, device: str = "cpu", intra_op_threads: int = 0) -> None:
        self.path = path
        wanted = providers_for(device)
        try:
            self._ort = ort.InferenceSession(str(path), session_options(intra_op_threads), providers=wanted)
        except Exception as error:
            first_line = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            raise ExportError(f"{path}: onnxruntime cannot load it: {first_line}", "bad-onnx") from error
        self.providers: tuple[str, ...] = tuple(self._ort.get_providers())
        if wanted[0] not in self.providers:
            raise ConfigurationError(
                f"{path}: asked for {wanted[0]} but onnxruntime could only start {', '.join(self.providers)};"
                " check the CUDA and cuDNN libraries or take --device cpu",
                "silent-cpu-fallback",
            )
        self.inputs = {info.name: info for info in map(self._info, self._ort.get_inputs())}
        self.outputs = {info.name: info for info in map(self._info, self._ort.get_outputs())}
        self._device = "cpu" if self.providers[0] == _PROVIDER["cpu"] else "cuda"

    def _info(self, node: Any) -> TensorInfo:
        if node.type not in _DTYPES:
            raise ExportError(
                f"{self.path}: '{node.name}' is a {node.type}, which is not supported", "bad-onnx"
            )
        shape = tuple(size if isinstance(size, int) else None for size in node.shape)
        return TensorInfo(node.name, _DTYPES[node.type], shape)

    def tensor(self, name: str, array: NDArray[Any]) -> Tensor:
        """The array as this graph's input `name`: its dtype, on its device."""
        typed = np.ascontiguousarray(array, dtype=self.inputs[name].dtype)
        return ort.OrtValue.ortvalue_from_numpy(typed, self._device, 0)

    def run(self, feeds: Mapping[str, Tensor], cancellation: Cancellation | None = None) -> dict[str, Tensor]:
        """All outputs by name, left on the device. `feeds` holds a tensor for every input."""
        binding = self._ort.io_binding()
        for name in self.inputs:
            binding.bind_ortvalue_input(name, feeds[name])
        for name in self.outputs:
            binding.bind_output(name, self._device)
        self._call(binding, cancellation)
        return dict(zip(self.outputs, binding.get_outputs(), strict=True))

    def repeated(
        self,
        fixed: Mapping[str, Tensor],
        state: str,
        time: str,
        output: str,
        shape: tuple[int, ...],
        cancellation: Cancellation | None = None,
    ) -> Callable[[Floats, float], Floats]:
        """A call for the denoise loop: everything is bound once, `state` and `time` are overwritten on each call.

        The returned function takes float32 of `shape` and the flow time, and gives the float32 output, also `shape`.
        """
        clock_shape = self.inputs[time].sized()
        # a CPU tensor only borrows its array, and older versions of onnxruntime do not hold on to what is bound
        bound = {
            **fixed,
            state: self._empty(self.inputs[state].dtype, shape),
            time: self._empty(self.inputs[time].dtype, clock_shape),
        }
        binding = self._ort.io_binding()
        for name in self.inputs:
            binding.bind_ortvalue_input(name, bound[name])
        result = self._empty(self.outputs[output].dtype, shape)
        binding.bind_ortvalue_output(output, result)

        def call(x: Floats, t: float) -> Floats:
            bound[state].update_inplace(np.ascontiguousarray(x, dtype=self.inputs[state].dtype))
            bound[time].update_inplace(np.full(clock_shape, t, dtype=self.inputs[time].dtype))
            self._call(binding, cancellation)
            return np.array(result.numpy(), dtype=np.float32)  # a copy: the next call overwrites the result

        return call

    def _empty(self, dtype: type[np.generic], shape: tuple[int, ...]) -> Tensor:
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self._device, 0)

    def _call(self, binding: Any, cancellation: Cancellation | None) -> None:
        try:
            if cancellation is None:
                self._ort.run_with_iobinding(binding)
                return
            cancellation.check()
            options = ort.RunOptions()  # of this run alone: `terminate` stays set once it is set
            with cancellation.calling(lambda: setattr(options, "terminate", True)):
                self._ort.run_with_iobinding(binding, options)
        except InferenceError:
            raise
        except Exception as error:
            first_line = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            if cancellation is not None:
                cancellation.check()
            raise InferenceError(f"{self.path.name}: {first_line}") from error
