# SPDX-License-Identifier: Apache-2.0
"""Sessions on the CPU run on arrays; the answers are those of onnxruntime's own calls, and no run disturbs another's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from servers import ExportDir

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError
from reflex_core.policy.host_tensor import HostTensor
from reflex_core.policy.providers import CPU, Placement, session_options
from reflex_core.policy.session import EagerSession
from reflex_core.values import Floats


def session_of(folder: Path, graph: str) -> tuple[EagerSession, Any]:
    """A session, and onnxruntime's own of the same graph."""
    path = next(folder.glob(graph))
    own = ort.InferenceSession(str(path), session_options(1), providers=[CPU])
    return EagerSession(path, Placement((CPU,), 1)), own


def random_inputs(session: EagerSession, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal([size or 4 for size in info.shape]) * 2).astype(info.dtype)
        for name, info in session.inputs.items()
    }


def tensors(session: EagerSession, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: session.tensor(name, array) for name, array in arrays.items()}


def loop(session: EagerSession, own: Any, arrays: dict[str, Any]) -> tuple[Callable[..., Floats], Any]:
    """One step of the denoise graph: the session's, and onnxruntime's with arrays of its own in every call."""
    names = {"x": "x_t", "time": "t", "velocity": "v_t"}
    fixed = {name: value for name, value in arrays.items() if name not in (names["x"], names["time"])}
    shape = arrays[names["x"]].shape
    step = session.repeated(tensors(session, fixed), names["x"], names["time"], names["velocity"], shape)

    def slow(x: Floats, at: float) -> Floats:
        now = np.full(arrays[names["time"]].shape, at, arrays[names["time"]].dtype)
        made = own.run([names["velocity"]], {**fixed, names["x"]: x.copy(), names["time"]: now})[0]
        return np.array(made, np.float32)

    return step, slow


@pytest.mark.parametrize("seed", range(4))
def test_a_run_gives_the_bytes_of_onnxruntime_and_keeps_them(export_dir: ExportDir, seed: int) -> None:
    session, own = session_of(export_dir("mono_pi0"), "*.onnx")
    first, second = random_inputs(session, seed), random_inputs(session, seed + 100)
    made = session.run(tensors(session, first))
    session.run(tensors(session, second))
    for name, value in zip(session.outputs, own.run(list(session.outputs), first), strict=True):
        np.testing.assert_array_equal(made[name].numpy(), value)


@pytest.mark.parametrize("seed", range(4))
def test_a_loop_gives_the_bytes_of_onnxruntime_and_keeps_them(export_dir: ExportDir, seed: int) -> None:
    session, own = session_of(export_dir("decomposed_per_step"), "*denoise*.onnx")
    arrays = random_inputs(session, seed)
    step, slow = loop(session, own, arrays)
    x = next(iter(array for array in arrays.values() if array.ndim == 3 and array.dtype == np.float32))
    answers = []
    for at in (1.0, 0.7, 0.1):
        answers.append((step(x, at), slow(x, at)))
        x = x - np.float32(0.1) * answers[-1][0]
    for ours, expected in answers:
        np.testing.assert_array_equal(ours, expected)


def test_two_loops_of_one_session_do_not_share_their_arrays(export_dir: ExportDir) -> None:
    session, own = session_of(export_dir("decomposed_per_step"), "*denoise*.onnx")
    one, one_slow = loop(session, own, random_inputs(session, 1))
    other, other_slow = loop(session, own, random_inputs(session, 2))
    x = np.ones(
        [size or 4 for size in next(i for i in session.inputs.values() if len(i.shape) == 3).shape],
        np.float32,
    )
    for step, slow in ((one, one_slow), (other, other_slow), (one, one_slow)):
        np.testing.assert_array_equal(step(x, 0.5), slow(x, 0.5))


def test_a_loop_that_was_cancelled_stays_cancelled(export_dir: ExportDir) -> None:
    session, _ = session_of(export_dir("mono_pi0"), "*.onnx")
    cancellation = Cancellation()
    fed = tensors(session, random_inputs(session, 0))
    session.run(fed, cancellation)
    cancellation.cancel()
    with pytest.raises(CancelledError):
        session.run(fed, cancellation)


def test_a_host_tensor_answers_like_an_ort_value() -> None:
    strided = np.arange(24, dtype=np.int64).reshape(4, 6)[:, ::2]
    tensor, own = (
        HostTensor(strided),
        ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(strided), "cpu", 0),
    )
    np.testing.assert_array_equal(tensor.numpy(), own.numpy())
    assert (tensor.shape(), tensor.data_type(), tensor.device_name()) == (
        list(own.shape()),
        own.data_type(),
        own.device_name(),
    )
    assert tensor.data_ptr() == tensor.view().data_ptr() == tensor.numpy().ctypes.data
