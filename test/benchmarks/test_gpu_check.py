# SPDX-License-Identifier: Apache-2.0
"""benchmarks/gpu_check.py on the CPU: the same loading, binding, comparing and printing as on a GPU, which none here is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from benchmarks import gpu_check
from benchmarks.exports import embedded, made_export, policy_of
from benchmarks.gpu_rows import CannotRunError, ReplayDiffersError, Way, captured, copying, half_copy
from reflex_core.errors import InferenceError
from reflex_core.policy import layouts
from reflex_core.policy.base import Policy
from reflex_core.policy.providers import CPU, CUDA, LoadOptions, Placement
from reflex_core.policy.session import EagerSession

ROWS = 10


def plain() -> Policy:
    return policy_of(embedded())


def way(name: str, load: Callable[[], Policy] = plain, provider: str = CPU, tolerance: float = 0.0) -> Way:
    return Way(name, provider, tolerance, load)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])


@pytest.fixture
def static_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load as for CUDA graphs, on the CPU: static tensors and bindings made once are real, only nothing is captured."""

    def place(device: str, threads: int, options: LoadOptions, *_: object) -> Placement:
        return Placement((CPU,), threads, static=options.cuda_graphs)

    monkeypatch.setattr(layouts, "place", place)


def test_without_a_gpu_every_row_of_one_says_why_and_the_status_is_3(
    without_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "gpu.json"
    assert gpu_check.main(["--rounds", "1", "--output", str(output)]) == 3
    printed = capsys.readouterr().out
    assert printed.count("not run: ") == ROWS - 2
    assert "not run: cuda fp32, bound: device 'cuda' needs CUDAExecutionProvider" in printed
    assert "not run: tensorrt fp16, kept: device 'tensorrt' needs TensorrtExecutionProvider" in printed
    assert gpu_check.NEVER_RUN in printed
    written = json.loads(output.read_text())
    assert (written["exit_status"], written["problems"], written["ran_on_a_gpu"]) == (3, [], [])
    rows = {row["way"]: row for row in written["rows"]}
    assert len(rows) == ROWS
    assert [name for name, row in rows.items() if row["ran"]] == ["cpu fp32", "cpu fp16"]
    for row in rows.values():
        assert bool(row["why_not"]) != row["ran"]
        assert set(gpu_check.FIGURES) <= set(row) or not row["ran"]


def test_every_millisecond_has_the_difference_beside_it(
    without_gpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_check.main(["--rounds", "1", "--only", "cpu"])
    head, first, second = capsys.readouterr().out.splitlines()[:3]
    assert head.split()[:8] == ["way", "differs", "by", "allowed", "p50", "ms", "p99", "ms"]
    assert first.split()[2] == "0.0e+00"
    assert 0 < float(second.split()[2]) <= 2e-2


def test_all_rows_that_are_asked_for_ran(without_gpu: None) -> None:
    assert gpu_check.main(["--rounds", "1", "--only", "cpu"]) == 0


def test_a_row_that_differs_is_1_even_where_others_could_not_run(
    without_gpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_check.main(["--rounds", "1", "--half-tolerance", "1e-9"]) == 1
    assert "cpu fp16 is " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--only", "rocm"], ["--export-dir", "nowhere"]])
def test_where_nothing_can_be_compared_the_status_is_2(arguments: list[str]) -> None:
    assert gpu_check.main(["--rounds", "1", *arguments]) == 2


def test_tensors_that_are_copied_and_tensors_that_are_bound_give_the_same(tmp_path: Path) -> None:
    rows = gpu_check.examine([way("one"), way("copied", lambda: copying(plain()))], rounds=2)
    assert gpu_check.exit_status(rows) == 0
    assert rows[1].figures["differs by"] == 0
    assert rows[1].figures["prefix on"] == "cpu"


def test_captured_sessions_are_bound_once_and_answer_as_eager_ones(static_on_cpu: None) -> None:
    rows = gpu_check.examine([way("one"), way("static", lambda: captured(embedded()))], rounds=2)
    assert [row.why_not for row in rows] == ["", ""]
    assert gpu_check.exit_status(rows) == 0


def test_the_prefix_is_bound_once_for_all_denoise_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    bound = EagerSession.bound

    def counting(self: EagerSession, *tensors: object) -> object:
        made.append(self.path.name)
        return bound(self, *tensors)  # type: ignore[arg-type]

    policy = plain()
    monkeypatch.setattr(EagerSession, "bound", counting)
    assert policy.contract.flow.steps > 1
    policy.trial(0)
    assert made == ["expert_denoise.onnx"]


def test_a_graph_that_is_not_captured_is_no_row_of_graphs(without_gpu: None) -> None:
    with pytest.raises(CannotRunError, match="its CUDA graphs are not replayed: .*no_cuda"):
        captured(embedded(), "cpu")


def test_a_replay_that_differs_is_a_failure(static_on_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflex_core.policy.cuda_graph._difference", lambda *_: "the replay is 1 away")

    with pytest.raises(ReplayDiffersError):
        captured(embedded())
    rows = gpu_check.examine([way("one"), way("static", lambda: captured(embedded()))], rounds=1)
    assert gpu_check.exit_status(rows) == 1
    assert "the replay is 1 away" in rows[1].problems[0]


def test_a_graph_on_another_provider_is_no_row_of_the_gpu() -> None:
    row = gpu_check.run_row(way("cuda", provider=CUDA), (), 1)
    assert row.why_not == "vlm_prefix.onnx runs on CPUExecutionProvider, not on CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InferenceError("no memory"), "no memory"),
        (RuntimeError("CUDA failure 2:\n out of memory"), "RuntimeError: CUDA failure 2: out of memory"),
    ],
)
def test_a_row_that_breaks_costs_no_other(error: Exception, message: str) -> None:
    def broken() -> Policy:
        raise error

    rows = gpu_check.examine([way("one"), way("broken", broken), way("two")], rounds=1)
    assert [row.why_not for row in rows] == ["", message, ""]
    assert gpu_check.exit_status(rows) == 3


def test_stale_inputs_and_another_policy_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = plain()
    chunk = stale.trial(0)
    monkeypatch.setattr(stale, "trial", lambda _: chunk)
    rows = gpu_check.examine([way("one"), way("stale", lambda: stale)], rounds=1)
    assert "its inputs are stale" in rows[1].problems[0]
    assert "away from the CPU, allowed is 0" in rows[1].problems[1]


def test_the_float16_copy_leaves_the_export_as_it_was_and_is_made_once(tmp_path: Path) -> None:
    source = made_export(tmp_path, size=32)
    before = {path: path.read_bytes() for path in source.path.iterdir() if path.is_file()}
    made = half_copy(source, tmp_path / "half")
    assert {path: path.read_bytes() for path in before} == before
    [graph] = made.path.glob("*.onnx")
    assert graph.read_bytes() != (source.path / graph.name).read_bytes()
    changed = graph.stat().st_mtime_ns
    assert half_copy(source, tmp_path / "half").path == made.path
    assert graph.stat().st_mtime_ns == changed


def test_without_onnx_the_float16_rows_name_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CannotRunError, match="needs the package 'onnx': pip install onnx"):
        half_copy(embedded(), tmp_path / "half")


def test_a_graph_that_cannot_be_converted_leaves_no_half_copy(tmp_path: Path) -> None:
    source = made_export(tmp_path, size=32)
    (source.path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(CannotRunError, match="it cannot be converted to float16"):
        half_copy(source, tmp_path / "half")
    assert not (tmp_path / "half").exists()
