# SPDX-License-Identifier: Apache-2.0
"""What calibration chooses, on policies of known speed, and that a real export is measured, kept and found again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from servers import ExportDir

from reflex_core.calibration import auto
from reflex_core.calibration.auto import PolicyUnderTest, auto_calibrate
from reflex_core.calibration.cache import Calibration, read
from reflex_core.calibration.choice import Candidate, Measurable, calibrate, thread_counts
from reflex_core.calibration.measure import Effort, Run
from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.policy.engine_cache import BUILD, REFUSE, TensorRT
from reflex_core.policy.load import load_policy
from reflex_core.policy.providers import CPU, CUDA, TENSORRT, LoadOptions
from reflex_core.robot.presets import load_preset

QUICK = Effort(1, 3, 0.0)
ALL = (CPU, CUDA, TENSORRT)
NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


@dataclass
class Timed:
    """A policy that says how long it took: `rest_ms` and `step_ms` per step."""

    rest_ms: float
    step_ms: float
    denoise_steps: int = 10
    chunk_size: int = 50
    chunk_s: float = 1.0
    stepped: bool = True
    free_chunk: bool = False

    def run(self) -> Run:
        return Run(self.rest_ms + self.step_ms * self.denoise_steps, self.step_ms * self.denoise_steps)


def chosen(
    policies: Mapping[Candidate, Timed], *, base: Timed | None = None, cores: int = 1, **where: object
) -> tuple[Calibration, tuple[str, ...]]:
    """Calibration over policies of these speeds; a candidate that is not among them does not load."""

    def load(candidate: Candidate) -> Measurable:
        plain = replace(candidate, denoise_steps=0, chunk_size=0)
        if plain not in policies:
            raise ConfigurationError(f"{candidate.provider} does not start")
        policy = replace(policies[plain])
        policy.denoise_steps = candidate.denoise_steps or policy.denoise_steps
        if candidate.chunk_size:
            policy.chunk_s *= candidate.chunk_size / policy.chunk_size
            policy.step_ms *= (candidate.chunk_size / policy.chunk_size) ** 2
            policy.chunk_size = candidate.chunk_size
        return policy

    return calibrate(load, cores=cores, effort=QUICK, now=lambda: NOW, **where)  # type: ignore[arg-type]


def test_the_fastest_provider_is_chosen() -> None:
    speeds = {Candidate(TENSORRT): Timed(5, 1), Candidate(CUDA): Timed(9, 1), Candidate(CPU): Timed(50, 10)}
    assert chosen(speeds, providers=ALL)[0].provider == TENSORRT
    assert chosen(speeds | {Candidate(CUDA): Timed(1, 1)}, providers=ALL)[0].provider == CUDA


def test_of_two_that_are_as_fast_the_earlier_one_is_chosen() -> None:
    speeds = {
        Candidate(TENSORRT): Timed(10.0, 0),
        Candidate(CUDA): Timed(9.7, 0),
        Candidate(CPU): Timed(9.6, 0),
    }
    assert chosen(speeds, providers=ALL)[0].provider == TENSORRT


def test_a_provider_that_does_not_start_is_left_out() -> None:
    speeds = {Candidate(CPU): Timed(10, 1), Candidate(CPU, intra_op_threads=1): Timed(10, 1)}
    assert chosen(speeds, providers=ALL)[0].provider == CPU


def test_where_nothing_runs_the_reason_is_said() -> None:
    with pytest.raises(
        ConfigurationError, match="no way to run the policy: CPUExecutionProvider does not start"
    ):
        chosen({}, providers=ALL)


def test_a_variant_is_chosen_where_it_is_faster() -> None:
    speeds = {
        Candidate(CUDA): Timed(9, 1),
        Candidate(CUDA, "fp16"): Timed(4, 1),
        Candidate(CUDA, "int8"): Timed(8, 1),
    }
    found, _ = chosen(speeds, providers=(CUDA, CPU), variants=("fp16", "int8"))
    assert (found.variant, found.provider) == ("fp16", CUDA)


def test_threads_are_tried_on_the_cpu_and_the_fewest_win_a_tie() -> None:
    speeds = {Candidate(CPU): Timed(20, 1)}
    speeds |= {Candidate(CPU, intra_op_threads=n): Timed(ms, 1) for n, ms in ((1, 20), (2, 10), (4, 9.8))}
    assert chosen(speeds, cores=4)[0].intra_op_threads == 2


def test_thread_counts_end_at_the_physical_cores() -> None:
    assert thread_counts(1) == (1,)
    assert thread_counts(6) == (1, 2, 4, 6)
    assert thread_counts(8) == (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("step_ms", "steps"), [(60, 10), (69, 8), (80, 8), (100, 4), (200, 2), (500, 1), (900, 1)]
)
def test_as_many_steps_as_fit_into_seven_tenths_of_the_chunk(step_ms: float, steps: int) -> None:
    speeds = {Candidate(CUDA): Timed(20, step_ms)}
    found, message = chosen(speeds, providers=(CUDA,))
    assert found.denoise_steps == steps
    assert any("the robot may pause between chunks" in text for text in message) == (step_ms == 900)


def test_a_loop_inside_the_graph_keeps_its_steps() -> None:
    found, message = chosen({Candidate(CUDA): Timed(20, 100, stepped=False)}, providers=(CUDA,))
    assert found.denoise_steps == 10
    assert "70% of the 1000 ms" in message[0]


def test_where_the_length_of_a_chunk_is_unknown_the_steps_stay() -> None:
    found, message = chosen({Candidate(CUDA): Timed(20, 900, chunk_s=0.0)}, providers=(CUDA,))
    assert (found.denoise_steps, message) == (10, ())


def test_half_a_chunk_is_taken_only_where_it_helps() -> None:
    assert chosen({Candidate(CUDA): Timed(0, 800)}, providers=(CUDA,))[0].chunk_size == 50
    free = Timed(0, 800, free_chunk=True)
    assert chosen({Candidate(CUDA): free}, providers=(CUDA,))[0].chunk_size == 25
    assert chosen({Candidate(CUDA): replace(free, step_ms=9000)}, providers=(CUDA,))[0].chunk_size == 50


def test_the_first_guess_of_the_latency_is_never_below_what_was_measured() -> None:
    speeds = {Candidate(CUDA): Timed(100, 0)}
    assert chosen(speeds, providers=(CUDA,), compensation_ms=40.0)[0].latency_compensation_ms == 100
    assert chosen(speeds, providers=(CUDA,), compensation_ms=400.0)[0].latency_compensation_ms == 400


def test_a_real_export_is_measured_once_and_then_found(export_dir: ExportDir, tmp_path: Path) -> None:
    export, path = open_export(export_dir("mono_pi0_7")), tmp_path / "calibration.json"
    robot = load_preset("franka")
    found, message = auto_calibrate(export, robot, path=path, effort=QUICK, now=NOW)
    assert found.provider == CPU
    assert found.intra_op_threads >= 1
    assert (found.denoise_steps, found.chunk_size) == (10, 50)
    assert found.context["ort_version"]
    assert "measured 3 runs" in message[0]
    assert list(read(path).entries) == [f"franka::{export.model_hash}"]
    again, message = auto_calibrate(export, robot, path=path, effort=QUICK, now=NOW + timedelta(days=2))
    assert (again.timestamp, again.quality) == (found.timestamp, found.quality)
    assert "taken from" in message[0]
    forced, _ = auto_calibrate(
        export, robot, path=path, effort=QUICK, now=NOW + timedelta(days=2), force=True
    )
    assert forced.timestamp != found.timestamp


def test_why_it_is_measured_again_is_logged(
    export_dir: ExportDir, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calibration.json"
    path.write_text("{")
    auto_calibrate(open_export(export_dir("gr00t")), None, path=path, effort=QUICK)
    assert f"{path} cannot be read" in caplog.text
    assert next(iter(read(path).entries)).startswith("custom::")


def test_the_choice_can_be_loaded(export_dir: ExportDir) -> None:
    export = open_export(export_dir("decomposed_per_step"))
    options = LoadOptions(providers=("cpu",), denoise_steps=4, chunk_size=6)
    policy = load_policy(export, None, "auto", 1, (), options)
    prediction = policy.predict(policy.canary(), 0)
    assert prediction.denoise_steps == 4
    assert prediction.actions.shape == (6, 7)


def test_other_steps_are_refused_where_the_loop_is_in_the_graph(export_dir: ExportDir) -> None:
    export = open_export(export_dir("decomposed"))
    with pytest.raises(ConfigurationError, match="the loop is inside its graph"):
        load_policy(export, None, "cpu", 1, (), LoadOptions(denoise_steps=4))
    assert load_policy(export, None, "cpu", 1, (), LoadOptions(denoise_steps=10)).contract.flow.steps == 10


@pytest.fixture
def two_variants(export_copy: ExportDir) -> Path:
    path = export_copy("decomposed_per_step")
    shutil.copy(path / "vlm_prefix.onnx", path / "quick.onnx")
    config = json.loads((path / "reflex_config.json").read_text())
    config["variants"] = {"quick": {"graphs": {"prefix": "quick.onnx"}}}
    (path / "reflex_config.json").write_text(json.dumps(config))
    return path


def test_a_variant_has_graphs_of_its_own(two_variants: Path) -> None:
    policy = load_policy(open_export(two_variants), None, "cpu", 1, (), LoadOptions(variant="quick"))
    assert [session.path.name for session in policy._layout.sessions] == ["quick.onnx", "expert_denoise.onnx"]
    with pytest.raises(ConfigurationError, match=r"no variant 'fp8' \(it lists quick\)"):
        load_policy(open_export(two_variants), None, "cpu", 1, (), LoadOptions(variant="fp8"))


def test_the_policy_under_test_times_the_whole_inference(export_dir: ExportDir) -> None:
    policy = PolicyUnderTest(load_policy(open_export(export_dir("gr00t")), None, "cpu", 1))
    run = policy.run()
    assert 0 < run.denoise_ms <= run.total_ms
    assert (policy.denoise_steps, policy.chunk_size, policy.stepped, policy.free_chunk) == (
        4,
        10,
        True,
        False,
    )


def test_every_candidate_may_build_engines_where_the_settings_have_them(
    export_dir: ExportDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serving may refuse to build them: then this is the one place that does."""
    seen: list[TensorRT] = []

    def load(*arguments: object) -> object:
        options = arguments[-1]
        assert isinstance(options, LoadOptions)
        seen.append(options.tensorrt)
        return load_policy(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(auto, "load_policy", load)
    wanted = TensorRT(fp16=False, engine_dir=str(tmp_path / "engines"), when_missing=REFUSE)
    auto_calibrate(
        open_export(export_dir("gr00t")), None, path=tmp_path / "kept.json", effort=QUICK, tensorrt=wanted
    )
    assert seen
    assert set(seen) == {TensorRT(fp16=False, engine_dir=str(tmp_path / "engines"), when_missing=BUILD)}
