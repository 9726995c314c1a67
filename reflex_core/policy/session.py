# SPDX-License-Identifier: Apache-2.0
"""One ONNX Runtime session: calls whose tensors stay on the session's device and can be cancelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import ExportError, InferenceError
from reflex_core.export.tensor import TensorInfo
from reflex_core.policy.host_tensor import HostTensor, ort_value
from reflex_core.policy.op_threads import op_threads
from reflex_core.policy.providers import GPU, Placement, providers_for, session_options, started
from reflex_core.values import Floats

__all__ = ["EagerSession", "Session", "Tensor", "TensorInfo", "providers_for", "session_options"]

Tensor = Any  # HostTensor on the CPU, else onnxruntime.OrtValue, which has no type stubs
Invoke = Callable[[Callable[[], None]], None]

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
}


class Session(Protocol):
    """A loaded graph. Not for two threads at once: the policy that owns it has the lock."""

    @property
    def path(self) -> Path: ...

    @property
    def providers(self) -> tuple[str, ...]:
        """What onnxruntime really started, best first."""

    @property
    def inputs(self) -> Mapping[str, TensorInfo]: ...

    @property
    def outputs(self) -> Mapping[str, TensorInfo]: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the log about how it runs."""

    def tensor(self, name: str, array: NDArray[Any]) -> Tensor:
        """Return the array as this graph's input `name`: its dtype, on its device."""

    def run(self, feeds: Mapping[str, Tensor], cancellation: Cancellation | None = None) -> dict[str, Tensor]:
        """Return all outputs by name, left on the device. `feeds` holds a tensor for every input."""

    def repeated(
        self,
        fixed: Mapping[str, Tensor],
        state: str,
        time: str,
        output: str,
        shape: tuple[int, ...],
        cancellation: Cancellation | None = None,
    ) -> Callable[[Floats, float], Floats]:
        """Return a call for the denoise loop: everything is bound once, `state` and `time` are overwritten on each call.

        The returned function takes float32 of `shape` and the flow time, and gives the float32 output, also `shape`.
        """


def _here(call: Callable[[], None]) -> None:
    call()


class EagerSession:
    """A Session that onnxruntime runs node by node. `invoke` decides on which thread."""

    def __init__(self, path: Path, placement: Placement, invoke: Invoke = _here) -> None:
        self.path = path
        self._placement, self._invoke = placement, invoke
        try:
            self._ort = ort.InferenceSession(
                str(path),
                session_options(placement.intra_op_threads or op_threads(path)),
                providers=placement.with_options(),
            )
        except Exception as error:
            raise ExportError(
                f"{path}: onnxruntime cannot load it: {_first_line(error)}", "bad-onnx"
            ) from error
        self.providers: tuple[str, ...] = tuple(self._ort.get_providers())
        self.notes = tuple(filter(None, [started(placement, self.providers, path)]))
        self.inputs = {info.name: info for info in map(self._info, self._ort.get_inputs())}
        self.outputs = {info.name: info for info in map(self._info, self._ort.get_outputs())}
        self.device = "cuda" if self.providers[0] in GPU else "cpu"

    def _info(self, node: Any) -> TensorInfo:
        if node.type not in _DTYPES:
            raise ExportError(
                f"{self.path}: '{node.name}' is a {node.type}, which is not supported", "bad-onnx"
            )
        shape = tuple(size if isinstance(size, int) else None for size in node.shape)
        return TensorInfo(node.name, _DTYPES[node.type], shape)

    def tensor(self, name: str, array: NDArray[Any]) -> Tensor:
        """See Session."""
        typed = np.ascontiguousarray(array, dtype=self.inputs[name].dtype)
        if self.device == "cpu":
            return HostTensor(typed)
        return ort.OrtValue.ortvalue_from_numpy(typed, self.device, 0)

    def run(self, feeds: Mapping[str, Tensor], cancellation: Cancellation | None = None) -> dict[str, Tensor]:
        """See Session."""
        if self.device == "cpu":
            return self._run_arrays({name: feeds[name].numpy() for name in self.inputs}, cancellation)
        binding = self._ort.io_binding()
        for name in self.inputs:
            binding.bind_ortvalue_input(name, ort_value(feeds[name]))
        for name in self.outputs:
            binding.bind_output(name, self.device)
        self._call(binding, cancellation)
        return dict(zip(self.outputs, binding.get_outputs(), strict=True))

    def _run_arrays(
        self, arrays: Mapping[str, NDArray[Any]], cancellation: Cancellation | None
    ) -> dict[str, Tensor]:
        """Run on arrays; the outputs are arrays of their own, not copied."""
        made: list[NDArray[Any]] = []
        names, options = list(self.outputs), _run_options()
        self._guarded(lambda: made.extend(self._ort.run(names, arrays, options)), options, cancellation)
        return {name: HostTensor(array) for name, array in zip(names, made, strict=True)}

    def repeated(
        self,
        fixed: Mapping[str, Tensor],
        state: str,
        time: str,
        output: str,
        shape: tuple[int, ...],
        cancellation: Cancellation | None = None,
    ) -> Callable[[Floats, float], Floats]:
        """See Session."""
        if self.device == "cpu":
            return self._repeated_on_host(fixed, state, time, output, shape, cancellation)
        clock_shape = self.inputs[time].sized(shape[0])
        # older versions of onnxruntime do not hold on to what is bound
        bound = {
            **fixed,
            state: self.empty(self.inputs[state].dtype, shape),
            time: self.empty(self.inputs[time].dtype, clock_shape),
        }
        result = self.empty(self.outputs[output].dtype, shape)
        binding = self.bound(bound, {output: result})

        def call(x: Floats, t: float) -> Floats:
            bound[state].update_inplace(np.ascontiguousarray(x, dtype=self.inputs[state].dtype))
            bound[time].update_inplace(np.full(clock_shape, t, dtype=self.inputs[time].dtype))
            self._call(binding, cancellation)
            return np.array(result.numpy(), dtype=np.float32)  # a copy: the next call overwrites the result

        return call

    def _repeated_on_host(
        self,
        fixed: Mapping[str, Tensor],
        state: str,
        time: str,
        output: str,
        shape: tuple[int, ...],
        cancellation: Cancellation | None,
    ) -> Callable[[Floats, float], Floats]:
        """Do what `repeated` does where the tensors are arrays of this process, written in place without a copy."""
        clock = self.inputs[time]
        bound = {
            **fixed,
            state: HostTensor(np.empty(shape, self.inputs[state].dtype)),
            time: HostTensor(np.empty(clock.sized(shape[0]), clock.dtype)),
        }
        made = {output: HostTensor(np.empty(shape, self.outputs[output].dtype))}
        binding, options = self.bound(bound, made), _run_options()

        def step() -> None:
            self._ort.run_with_iobinding(binding, options)

        def call(x: Floats, t: float) -> Floats:
            bound[state].numpy()[...] = (
                x  # onnxruntime only borrows the arrays: this call keeps `bound` and `made`
            )
            bound[time].numpy()[...] = t
            self._guarded(step, options, cancellation)
            return np.array(made[output].numpy(), dtype=np.float32)  # a copy: the next call overwrites it

        return call

    def empty(self, dtype: type[np.generic], shape: tuple[int, ...]) -> Tensor:
        """Return an uninitialised tensor on the session's device."""
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self.device, 0)

    def bound(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Any:
        """Return an onnxruntime.IOBinding of exactly these tensors; the caller keeps them alive."""
        binding = self._ort.io_binding()
        for name in self.inputs:
            binding.bind_ortvalue_input(name, ort_value(inputs[name]))
        for name, tensor in outputs.items():
            binding.bind_ortvalue_output(name, ort_value(tensor))
        return binding

    def replay(self, binding: Any) -> None:
        """Run with the binding's own tensors, captured where requested. Cannot be cancelled half way.

        No run options: a graph that is terminated during capture leaves the CUDA stream unusable.
        """
        try:
            self._invoke(lambda: self._ort.run_with_iobinding(binding))
        except Exception as error:
            raise InferenceError(f"{self.path.name}: {_first_line(error)}") from error

    def _call(self, binding: Any, cancellation: Cancellation | None) -> None:
        options = _run_options()
        self._guarded(lambda: self._ort.run_with_iobinding(binding, options), options, cancellation)

    def _guarded(self, call: Callable[[], None], options: Any, cancellation: Cancellation | None) -> None:
        """Make a call that runs with `options`, which a cancellation terminates. Raises InferenceError, CancelledError."""
        try:
            if cancellation is None:
                self._invoke(call)
                return
            cancellation.check()
            with cancellation.calling(lambda: setattr(options, "terminate", True)):
                self._invoke(call)
        except InferenceError:
            raise
        except Exception as error:
            if cancellation is not None:
                cancellation.check()
            raise InferenceError(f"{self.path.name}: {_first_line(error)}") from error


def _run_options() -> Any:
    """Return the onnxruntime.RunOptions of one request: `terminate` stays set once it is set."""
    options = ort.RunOptions()
    # neither capture nor replay. Always: onnxruntime looks for the entry in every run of a binding, and pays an exception
    # of C++ where there is none
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
