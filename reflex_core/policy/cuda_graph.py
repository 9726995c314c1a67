# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs: a session whose tensors never move, captured at warm-up, compared with eager runs, then replayed.

A captured graph reads and writes the addresses of its capture. So every input is copied into tensors of the session's
own, and the outputs of a run are overwritten by the next one.
"""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import ExportError, InferenceError
from reflex_core.policy.host_tensor import ort_value
from reflex_core.policy.providers import GraphMetrics, Placement
from reflex_core.policy.session import EagerSession, Session, Tensor
from reflex_core.values import Floats

EAGER, CAPTURING, REPLAYING = "eager", "capturing", "replaying"
RUNS = 3  # the first warms, the second captures, the third replays
TOLERANCE = 1e-3  # of the largest value; eager and captured kernels are the same ones

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Unmeasured:
    """GraphMetrics that counts nothing."""

    def captured(self, session: str, seconds: float) -> None:
        """Do nothing."""

    def replayed(self, session: str, seconds: float) -> None:
        """Do nothing."""

    def eager_fallback(self, reason: str) -> None:
        """Do nothing."""

    def capture_failed(self, session: str, reason: str) -> None:
        """Do nothing."""


class Stage:
    """What the sessions of one export share: their thread, and which tensors are static outputs.

    onnxruntime keeps a captured graph per thread and allows no other thread near it.
    """

    def __init__(self, metrics: GraphMetrics | None) -> None:
        self.metrics: GraphMetrics = metrics or Unmeasured()
        self.outputs: dict[int, Tensor] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reflex-cuda-graphs")

    def invoke(self, call: Callable[[], Result]) -> Result:
        """Make the call on the stage's thread and wait for it."""
        return self._thread.submit(call).result()


@dataclass(slots=True)
class _Bound:
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    binding: Any
    runs: int = 0


class StaticSession:
    """A Session that runs eagerly until `mode` changes. Works on the CPU too, where nothing is captured."""

    def __init__(self, eager: EagerSession, role: str, stage: Stage) -> None:
        self.role, self.stage = role, stage
        self.mode = EAGER
        self._eager = eager
        self._bound: _Bound | None = None

    @property
    def path(self) -> Path:
        """See Session."""
        return self._eager.path

    @property
    def providers(self) -> tuple[str, ...]:
        """See Session."""
        return self._eager.providers

    @property
    def inputs(self) -> Mapping[str, Any]:
        """See Session."""
        return self._eager.inputs

    @property
    def outputs(self) -> Mapping[str, Any]:
        """See Session."""
        return self._eager.outputs

    @property
    def notes(self) -> tuple[str, ...]:
        """See Session."""
        return self._eager.notes

    def tensor(self, name: str, array: NDArray[Any]) -> Tensor:
        """See Session."""
        return self._eager.tensor(name, array)

    def run(self, feeds: Mapping[str, Tensor], cancellation: Cancellation | None = None) -> dict[str, Tensor]:
        """See Session. The outputs are overwritten by the next run."""
        bound = self._ready(feeds, cancellation)
        if bound is None:
            return self._eager.run(feeds, cancellation)
        for name in self.inputs:
            self._write(bound, name, feeds[name])
        if not self._replayed(bound, cancellation):
            return self._eager.run(feeds, cancellation)
        return dict(bound.outputs)

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

        def eagerly() -> Callable[[Floats, float], Floats]:
            return self._eager.repeated(fixed, state, time, output, shape, cancellation)

        if self.mode == EAGER:
            return eagerly()
        dtype, clock_info = self.inputs[state].dtype, self.inputs[time]
        start = self.tensor(state, np.zeros(shape, dtype))
        zero = self.tensor(time, np.zeros(clock_info.sized(), clock_info.dtype))
        bound = self._ready({**fixed, state: start, time: zero}, cancellation)
        if bound is None:
            return eagerly()
        for name in fixed:
            self._write(bound, name, fixed[name])

        def call(x: Floats, t: float) -> Floats:
            bound.inputs[state].update_inplace(np.ascontiguousarray(x, dtype=dtype))
            bound.inputs[time].update_inplace(np.full(clock_info.sized(), t, dtype=clock_info.dtype))
            if self.mode == EAGER or not self._replayed(bound, cancellation):
                return eagerly()(x, t)
            return np.array(bound.outputs[output].numpy(), dtype=np.float32)

        return call

    def forget(self) -> None:
        """Run eagerly from now on."""
        self.mode = EAGER

    def _ready(self, feeds: Mapping[str, Tensor], cancellation: Cancellation | None) -> _Bound | None:
        """Return the static tensors, made at the first call; None where this call must run eagerly."""
        if self.mode == EAGER:
            return None
        if self._bound is None:
            self._bound = self._bind(feeds, cancellation)
        shapes = {name: tuple(tensor.shape()) for name, tensor in self._bound.inputs.items()}
        if all(tuple(feeds[name].shape()) == shape for name, shape in shapes.items()):
            return self._bound
        self.stage.metrics.eager_fallback("shape_changed")
        return None

    def _bind(self, feeds: Mapping[str, Tensor], cancellation: Cancellation | None) -> _Bound:
        # one eager run tells the shapes of outputs whose dimensions the graph leaves free
        shown = self._eager.run(feeds, cancellation)
        # the output of another captured graph is where it is for ever: no copy is needed
        shared = self.stage.outputs
        inputs = {
            name: feeds[name]
            if feeds[name].data_ptr() in shared
            else self._eager.empty(info.dtype, tuple(feeds[name].shape()))
            for name, info in self.inputs.items()
        }
        outputs = {
            name: self._eager.empty(info.dtype, tuple(shown[name].shape()))
            for name, info in self.outputs.items()
        }
        shared.update({tensor.data_ptr(): tensor for tensor in outputs.values()})
        return _Bound(inputs, outputs, self._eager.bound(inputs, outputs))

    def _write(self, bound: _Bound, name: str, feed: Tensor) -> None:
        own = bound.inputs[name]
        if own.data_ptr() == feed.data_ptr():
            return
        try:
            own.update_inplace(ort_value(feed))
        except (TypeError, AttributeError):  # older versions of onnxruntime copy only from the host
            own.update_inplace(feed.numpy())

    def _replayed(self, bound: _Bound, cancellation: Cancellation | None) -> bool:
        """Run on the static tensors. False when a replay failed: from then on the session is eager."""
        if cancellation is not None:
            cancellation.check()
        began = clock.perf_counter()
        try:
            self._eager.replay(bound.binding)
        except InferenceError as error:
            if self.mode == CAPTURING:
                self.stage.metrics.capture_failed(self.role, type(error.__cause__ or error).__name__)
                raise
            log.warning(
                "%s: replaying its CUDA graph failed, it runs eagerly from now on: %s", self.path, error
            )
            self.stage.metrics.eager_fallback("replay_failed")
            self.forget()
            return False
        seconds = clock.perf_counter() - began
        bound.runs += 1
        if self.mode == REPLAYING:
            self.stage.metrics.replayed(self.role, seconds)
        elif bound.runs == 1:
            self.stage.metrics.captured(self.role, seconds)
        return True


def open_static(path: Path, placement: Placement, role: str, stage: Stage) -> Session:
    """Open a session that can be captured; where onnxruntime refuses that for the graph, a plain one with a note."""
    try:
        return StaticSession(EagerSession(path, placement, stage.invoke), role, stage)
    except ExportError as error:
        if not placement.captures:
            raise
        # loads it without: an export that is broken as such is still refused here
        plain = EagerSession(path, replace(placement, static=False))
        plain.notes += (f"{path.name} runs without a CUDA graph: {error}",)
        stage.metrics.capture_failed(role, type(error.__cause__ or error).__name__)
        stage.metrics.eager_fallback("capture_failed")
        return plain


def capture(
    sessions: Sequence[Session], trial: Callable[[int], Floats], tolerance: float = TOLERANCE
) -> tuple[str, ...]:
    """Capture what can be captured, and prove it. Returns notes for the log; () when all is well.

    trial: runs the whole policy on its input 0 or 1, which differ in everything, and gives the chunk. The replayed
    chunks of BOTH must be those of eager runs: a graph with stale inputs always answers the first one correctly.
    """
    captured = [session for session in sessions if isinstance(session, StaticSession)]
    if not captured:
        return ()
    metrics = captured[0].stage.metrics
    eager = [np.array(trial(number)) for number in (0, 1)]
    problem, reason = "", "capture_failed"
    try:
        _enter(captured, CAPTURING)
        for _ in range(RUNS):
            trial(0)
        _enter(captured, REPLAYING)
        replayed = [np.array(trial(number)) for number in (1, 0)][::-1]
    except InferenceError as error:
        problem = f"capturing failed: {error}"
    else:
        problem, reason = _difference(eager, replayed, tolerance), "mismatch"
    if not problem:
        return ()
    _enter(captured, EAGER)
    metrics.eager_fallback(reason)
    return (f"CUDA graphs are off, the policy runs eagerly: {problem}",)


def _enter(sessions: Sequence[StaticSession], mode: str) -> None:
    for session in sessions:
        session.mode = mode


def _difference(eager: Sequence[Floats], replayed: Sequence[Floats], tolerance: float) -> str:
    """Return '' when both chunks agree and can reveal a stale input, else why not."""
    allowed = tolerance * max(1.0, *(float(np.abs(chunk).max()) for chunk in eager))
    if float(np.abs(eager[0] - eager[1]).max()) <= 2 * allowed:
        return "two different observations give the same actions, so replays cannot be checked"
    for number, (ours, theirs) in enumerate(zip(eager, replayed, strict=True)):
        difference = float(np.abs(ours - theirs).max())
        if not difference <= allowed:
            return f"on input {number} the replay is {difference:.3g} away from the eager run, allowed is {allowed:.3g}"
    return ""
