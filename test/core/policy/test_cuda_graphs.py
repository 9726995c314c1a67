# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs without a GPU: the same static tensors on the CPU, where real graphs run on them uncaptured.

What only a GPU can show is in benchmarks/gpu_check.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import ExportDir

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError, InferenceError
from reflex_core.export.binding import bind
from reflex_core.export.export import open_export
from reflex_core.metrics.metrics import CudaGraphMetrics, Metrics
from reflex_core.policy import deterministic, diffusion, flow_matching
from reflex_core.policy.base import Policy
from reflex_core.policy.cuda_graph import EAGER, REPLAYING, StaticSession
from reflex_core.policy.layouts import load_placed
from reflex_core.policy.load import load_policy
from reflex_core.policy.onnx_policy import OnnxPolicy
from reflex_core.policy.providers import CPU, LoadOptions, Placement
from reflex_core.policy.session import EagerSession
from reflex_core.values import Frame, Observation

LAYOUTS = ["mono_pi0", "decomposed", "decomposed_state_per_step", "expert_stack", "vlm_stack", "gr00t"]
KINDS = {"act": deterministic, "diffusion_ddpm": diffusion}  # those that are not flow_matching


class Counted:
    """GraphMetrics that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []
        self.replays: list[str] = []

    def captured(self, session: str, seconds: float) -> None:
        self.seen.append(("captured", session))

    def replayed(self, session: str, seconds: float) -> None:
        self.replays.append(session)

    def eager_fallback(self, reason: str) -> None:
        self.seen.append(("eager", reason))

    def capture_failed(self, session: str, reason: str) -> None:
        self.seen.append(("failed", session, reason))


def static_policy(path: Path) -> tuple[OnnxPolicy, Counted]:
    export, counted = open_export(path), Counted()
    layout = load_placed(
        KINDS.get(path.name, flow_matching).network,
        export,
        Placement((CPU,), 1, static=True),
        LoadOptions(graph_metrics=counted),
    )
    return OnnxPolicy(export, layout, bind(export, layout.contract, None)), counted


def sessions_of(policy: Policy) -> list[StaticSession]:
    return [session for session in policy._layout.sessions if isinstance(session, StaticSession)]


def seen(policy: Policy, level: int) -> Observation:
    plain = policy.canary()
    frames = {
        name: Frame(
            np.full((frame.height, frame.width, 3), level, np.uint8), "rgb8", frame.height, frame.width
        )
        for name, frame in plain.frames.items()
    }
    state = None if plain.state is None else plain.state + np.float32(level / 500)
    return Observation(frames, state, "push the blue ball" if level % 2 else "reach")


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_without_a_gpu_it_says_so_at_configure(export_dir: ExportDir, device: str) -> None:
    metrics = Metrics()
    options = LoadOptions(cuda_graphs=True, graph_metrics=CudaGraphMetrics(metrics, "none", "gr00t"))
    policy = load_policy(open_export(export_dir("gr00t")), None, device, 1, (), options)
    assert any("cuda_graphs has no effect: it needs CUDAExecutionProvider" in note for note in policy.notes)
    labels = {"embodiment": "none", "model_id": "gr00t", "reason": "no_cuda"}
    assert metrics.registry.get_sample_value("reflex_cuda_graph_eager_fallback_total", labels) == 1
    assert policy.capture_graphs() == ()
    assert np.isfinite(policy.predict(policy.canary(), 0).actions).all()


def test_a_policy_without_cuda_graphs_has_nothing_to_capture(export_dir: ExportDir) -> None:
    policy = load_policy(open_export(export_dir("gr00t")), None, "cpu", 1)
    assert policy.capture_graphs() == ()


@pytest.mark.parametrize("name", [*LAYOUTS, *KINDS])
def test_static_tensors_give_the_same_bytes_as_fresh_ones_for_changing_inputs(
    export_dir: ExportDir, name: str
) -> None:
    plain = load_policy(open_export(export_dir(name)), None, "cpu", 1)
    static, _ = static_policy(export_dir(name))
    assert static.capture_graphs() == ()
    answers = []
    for seed, level in enumerate((10, 201, 90, 10)):
        one, other = (policy.predict(seen(policy, level), seed).actions for policy in (plain, static))
        np.testing.assert_array_equal(one, other)
        answers.append(other)
    np.testing.assert_array_equal(
        answers[1], plain.predict(seen(plain, 201), 1).actions, "an answer was overwritten by the next"
    )


def test_prefix_and_step_are_captured_apart_and_every_replay_is_counted(export_dir: ExportDir) -> None:
    policy, counted = static_policy(export_dir("decomposed_per_step"))
    policy.capture_graphs()
    assert sorted(counted.seen) == [("captured", "denoise"), ("captured", "prefix")]
    counted.replays.clear()
    steps = policy.predict(policy.canary(), 0).denoise_steps
    assert counted.replays == ["prefix", *["denoise"] * steps]


def test_the_prefix_hands_its_memory_to_the_step_without_a_copy(export_dir: ExportDir) -> None:
    policy, _ = static_policy(export_dir("decomposed_per_step"))
    policy.capture_graphs()
    prefix, step = (session._bound for session in sessions_of(policy))
    assert prefix is not None
    assert step is not None
    for name, tensor in prefix.outputs.items():
        assert step.inputs[name].data_ptr() == tensor.data_ptr()


def test_a_graph_with_stale_inputs_is_caught_at_warm_up(
    export_dir: ExportDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, counted = static_policy(export_dir("decomposed_per_step"))
    write = StaticSession._write

    def first_only(self: StaticSession, bound: Any, name: str, feed: Any) -> None:
        if bound.runs == 0:
            write(self, bound, name, feed)

    monkeypatch.setattr(StaticSession, "_write", first_only)
    (note,) = policy.capture_graphs()
    assert counted.seen[-1] == ("eager", "mismatch")
    assert "CUDA graphs are off" in note
    assert "on input 1 the replay is" in note
    assert {session.mode for session in sessions_of(policy)} == {EAGER}


def test_a_capture_that_fails_leaves_an_eager_policy_that_answers(
    export_dir: ExportDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, counted = static_policy(export_dir("decomposed_per_step"))
    fail_replays_of(sessions_of(policy)[1], monkeypatch)
    (note,) = policy.capture_graphs()
    assert "capturing failed" in note
    assert counted.seen == [
        ("captured", "prefix"), ("failed", "denoise", "RuntimeError"), ("eager", "capture_failed"),
    ]  # fmt: skip
    assert np.isfinite(policy.predict(policy.canary(), 0).actions).all()


def fail_replays_of(session: StaticSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its static tensors are refused, as onnxruntime does after a CUDA error; fresh ones still work."""

    def refused(binding: Any) -> None:
        raise InferenceError("CUDA failure 900") from RuntimeError("CUDA failure 900")

    monkeypatch.setattr(session._eager, "replay", refused)


def test_a_replay_that_fails_goes_on_eagerly(export_dir: ExportDir, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, counted = static_policy(export_dir("decomposed_per_step"))
    expected = policy.predict(seen(policy, 60), 4).actions
    policy.capture_graphs()
    step = sessions_of(policy)[1]
    fail_replays_of(step, monkeypatch)
    np.testing.assert_array_equal(policy.predict(seen(policy, 60), 4).actions, expected)
    assert counted.seen[-1] == ("eager", "replay_failed")
    assert [session.mode for session in sessions_of(policy)] == [REPLAYING, EAGER]


def test_a_cancelled_request_stops_between_calls_and_leaves_the_graph_whole(export_dir: ExportDir) -> None:
    policy, _ = static_policy(export_dir("decomposed_per_step"))
    policy.capture_graphs()
    expected = policy.predict(policy.canary(), 0).actions
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        policy.predict(policy.canary(), 0, cancellation=cancellation)
    np.testing.assert_array_equal(policy.predict(policy.canary(), 0).actions, expected)
    assert {session.mode for session in sessions_of(policy)} == {REPLAYING}


def test_inputs_of_another_shape_run_eagerly_and_are_counted(export_dir: ExportDir) -> None:
    policy, counted = static_policy(export_dir("vlm_stack"))
    policy.capture_graphs()
    text = next(session for session in sessions_of(policy) if session.role == "text")
    (name,) = text.inputs
    words = text.run({name: text.tensor(name, np.ones((1, 3), np.int64))})
    assert next(iter(words.values())).shape()[1] == 3
    assert counted.seen[-1] == ("eager", "shape_changed")


def test_a_session_of_a_policy_without_cuda_graphs_is_a_plain_one(export_dir: ExportDir) -> None:
    policy = load_policy(open_export(export_dir("gr00t")), None, "cpu", 1)
    assert all(isinstance(session, EagerSession) for session in policy._layout.sessions)
