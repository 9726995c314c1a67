# SPDX-License-Identifier: Apache-2.0
"""Kinds of networks beside flow matching: what each computes, how often it runs, and what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds import CHUNK, DIM, act, answer, diffusion
from numpy.typing import NDArray
from schedules import EPSILON, SAMPLE, ddim, ddim_table, ddpm, ddpm_table
from servers import ExportDir

from reflex_core.calibration.adaptive_steps import course
from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.doctor import parity
from reflex_core.doctor.finding import FAIL, OK
from reflex_core.errors import CancelledError, ConfigurationError, ExportError
from reflex_core.export.export import open_export
from reflex_core.export.flow import Adaptive
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.providers import PLAIN_LOAD, LoadOptions
from reflex_core.policy.sampler import Sampling, start_noise


def policy_of(path: Path, options: LoadOptions = PLAIN_LOAD) -> Policy:
    return load_policy(open_export(path), None, "cpu", 1, (), options)


def made(path: Path, make: Callable[[Path], None]) -> Path:
    make(path)
    return path


def conditioning(policy: Policy) -> NDArray[Any]:
    arrays, _ = policy.arrays(policy.canary())
    return np.asarray(policy._layout.prefix(arrays, None)["conditioning"].numpy(), np.float64)


# --- deterministic ------------------------------------------------------------------------------------------------


def test_a_deterministic_policy_answers_the_same_for_every_seed_in_one_run(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("act"))
    first, second = (policy.predict(policy.canary(), seed) for seed in (1, 2))
    assert first.actions.tobytes() == second.actions.tobytes()
    assert (policy.kind, first.actions.shape, first.normalised.shape) == (
        "deterministic",
        (40, 7),
        (1, 40, 7),
    )
    assert (first.denoise_steps, policy.noise_shape) == (1, (0, 40, 7))
    assert list(first.stages_ms) == ["preprocess_ms", "queue_ms", "vlm_prefix_ms", "expert_denoise_ms"]


def test_a_deterministic_policy_is_what_its_graph_gives_in_physical_units(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("act"))
    arrays, _ = policy.arrays(policy.canary())
    session = policy._layout.sessions[0]
    raw = session.run({name: session.tensor(name, arrays[name]) for name in session.inputs})[
        "actions"
    ].numpy()
    expected = raw[0] * 0.002 + np.array([0.0, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0], np.float32)
    np.testing.assert_allclose(policy.predict(policy.canary(), 0).actions, expected, atol=1e-6)


def test_an_export_without_a_row_is_served_by_the_kind_that_it_writes(tmp_path: Path) -> None:
    policy = policy_of(made(tmp_path, act(model_type="mine", images=[
        {"camera": "front", "input": "img_front", "mask": None, "resize": "stretch", "range": [0.0, 1.0]}
    ])))  # fmt: skip
    assert policy.kind == "deterministic"
    assert np.isfinite(policy.predict(policy.canary(), 0).actions).all()


# --- diffusion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", [EPSILON, SAMPLE])
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_a_table_of_ddim_samples_as_ddim_does(tmp_path: Path, steps: int, prediction: str) -> None:
    policy = policy_of(made(tmp_path, diffusion(ddim_table(steps, prediction), prediction=prediction)))
    known, noise = conditioning(policy), start_noise(3, policy.noise_shape)
    assert noise.shape == (1, CHUNK, DIM)
    expected = ddim(lambda x, t: answer(x, known, t, prediction), noise.astype(np.float64), steps, prediction)
    found = policy.predict(policy.canary(), 3)
    np.testing.assert_allclose(found.normalised, expected, atol=1e-5)
    assert found.denoise_steps == steps
    assert float(np.abs(expected).max()) > 0.05


@pytest.mark.parametrize("steps", [2, 10, 100])
def test_a_table_of_ddpm_adds_the_noise_of_the_seed_in_the_order_of_its_steps(
    tmp_path: Path, steps: int
) -> None:
    policy = policy_of(made(tmp_path, diffusion(ddpm_table(steps))))
    known, noise = conditioning(policy), start_noise(5, (steps, CHUNK, DIM))  # no noise in the last step
    assert policy.noise_shape == noise.shape
    expected = ddpm(lambda x, t: answer(x, known, t), noise.astype(np.float64), steps)
    found = policy.predict(policy.canary(), 5)
    np.testing.assert_allclose(found.normalised, expected, atol=1e-5)
    again = policy.predict(policy.canary(), 99, noise=noise)
    assert again.actions.tobytes() == found.actions.tobytes()
    assert policy.predict(policy.canary(), 6).actions.tobytes() != found.actions.tobytes()


def test_an_estimate_is_clipped_only_where_the_table_says_so(tmp_path: Path) -> None:
    clipped = policy_of(made(tmp_path / "clipped", diffusion(ddim_table(10))))
    free = policy_of(made(tmp_path / "free", diffusion(ddim_table(10, clip=None))))
    here, there = (policy.predict(policy.canary(), 1).normalised for policy in (clipped, free))
    assert float(np.abs(here).max()) <= 1.0
    assert float(np.abs(there).max()) > 1.0


def test_a_part_of_the_start_noise_may_remain_in_every_step(tmp_path: Path) -> None:
    """X-VLA: the network answers with actions, and t' of the start noise is mixed in again."""
    times = [1.0, 0.75, 0.5, 0.25, 0.0]
    columns = [*ddim_table(1)["columns"], "next_from_start"]
    rows = [[at, 0, 1, 1 - after, 0, 0, 0, after] for at, after in pairwise(times)]
    table = {"columns": columns, "rows": rows, "clip": None}
    path = made(tmp_path, diffusion(table, prediction=SAMPLE, time=1, policy="flow_matching"))
    policy = policy_of(path)
    known, noise = conditioning(policy), start_noise(2, policy.noise_shape)
    x = noise.astype(np.float64)
    for at, after in pairwise(times):
        x = after * noise + (1 - after) * answer(x, known, at, SAMPLE)
    np.testing.assert_allclose(policy.predict(policy.canary(), 2).normalised, x, atol=1e-5)
    assert policy.kind == "flow_matching"
    assert "sampler table" in policy.rtc().note


def test_a_cancelled_inference_ends_between_two_steps(export_dir: ExportDir) -> None:
    policy, cancellation, steps = policy_of(export_dir("diffusion_ddpm")), Cancellation(), []

    def watch(*_: object) -> None:
        steps.append(1)
        if len(steps) == 3:
            cancellation.cancel()

    with pytest.raises(CancelledError):
        policy.predict(policy.canary(), 1, Sampling(watch=watch), cancellation)
    assert len(steps) == 3


def test_a_parity_fixture_holds_the_noise_of_every_step(export_copy: ExportDir) -> None:
    path = export_copy("diffusion_ddpm")
    policy = policy_of(path)
    noise = start_noise(4, policy.noise_shape)
    parity.record(path / parity.FIXTURE, policy, policy.canary(), 4)
    with np.load(path / parity.FIXTURE) as written:
        arrays = {name: written[name] for name in written.files if name != "seed"}
    for shown, level in ((noise, OK), (noise[:1], FAIL)):
        np.savez(path / parity.FIXTURE, noise=shown, **arrays)
        found = parity.parity(policy)
        assert found.level == level, found
    assert "'noise' must be (20, 16, 7) finite numbers, got (1, 16, 7)" in found.said


# --- leaving the loop early ---------------------------------------------------------------------------------------


def test_ddim_may_stop_at_the_estimate_of_the_step_where_estimates_stand_still(tmp_path: Path) -> None:
    policy = policy_of(made(tmp_path, diffusion(ddim_table(20, SAMPLE), prediction=SAMPLE)))
    seen: list[NDArray[np.float32]] = []
    whole = policy.predict(policy.canary(), 1, Sampling(watch=lambda left, _: seen.append(left)))
    adaptive = policy.adaptive(threshold=0.05)
    early = policy.predict(policy.canary(), 1, Sampling(adaptive=adaptive))
    assert 3 <= early.denoise_steps < whole.denoise_steps == 20
    np.testing.assert_array_equal(early.normalised, seen[early.denoise_steps - 1])
    assert float(np.abs(early.normalised - whole.normalised).max()) < 0.05
    assert adaptive == Adaptive(0.05, min_steps=3)


def test_a_threshold_is_measured_on_a_table_as_on_a_flow(tmp_path: Path) -> None:
    policy = policy_of(made(tmp_path, diffusion(ddim_table(20, SAMPLE), prediction=SAMPLE)))
    followed = course(policy, policy.canary(), seed=8)
    assert followed.stopped.shape == (20, CHUNK, DIM)
    for threshold in (0.02, 0.1, 0.5):
        adaptive = Adaptive(threshold, min_steps=3)
        done = policy.predict(policy.canary(), 8, Sampling(adaptive=adaptive))
        assert followed.stops_after(adaptive) == done.denoise_steps
        np.testing.assert_array_equal(followed.stopped[done.denoise_steps - 1], done.actions)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (act(), "a deterministic policy has no denoise loop that could stop early"),
        (diffusion(ddpm_table(10)), "a diffusion policy with a sampler table that adds noise in its steps"),
        (diffusion(ddim_table(2)), "has nothing to save"),
    ],
)
def test_what_cannot_stop_early_says_so_by_its_kind(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"--adaptive-steps: .*{says}.*; leave the flag out"):
        policy_of(made(tmp_path, make)).adaptive(threshold=0.1)


# --- what a kind cannot do, and what it refuses -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("act", {"guidance", "early_stop", "fewer_steps", "prefix_cache"}),
        ("diffusion_ddim", {"guidance", "fewer_steps", "prefix_cache"}),
        ("diffusion_ddpm", {"guidance", "early_stop", "fewer_steps", "prefix_cache"}),
        ("decomposed_per_step", set()),
        ("mono_pi0", {"guidance", "early_stop", "fewer_steps", "prefix_cache"}),
    ],
)
def test_what_a_policy_cannot_do_is_data_with_a_reason(
    export_dir: ExportDir, name: str, lacking: set[str]
) -> None:
    policy = policy_of(export_dir(name))
    assert set(policy.capabilities.lacking()) == lacking
    if reason := policy.capabilities.guidance:
        assert policy.rtc().note == f"real-time chunking has no effect: {reason}"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("act", "denoise_steps cannot be set to 4: a deterministic policy has none"),
        ("diffusion_ddim", "denoise_steps cannot be set to 4: they are the rows of its sampler table"),
    ],
)
def test_steps_that_cannot_be_set_are_refused(export_dir: ExportDir, name: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        policy_of(export_dir(name), LoadOptions(denoise_steps=4))
    own = 1 if name == "act" else 10  # as a calibration writes it
    assert policy_of(export_dir(name), LoadOptions(denoise_steps=own)).contract.flow.steps == own


def test_fewer_steps_of_a_degraded_service_leave_a_table_whole(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("diffusion_ddim"))
    assert policy.predict(policy.canary(), 1, Sampling(steps=3)).denoise_steps == 10


TABLE = ddim_table(3)
FIRST, *OTHERS = TABLE["rows"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"sampler": None},
            "'sampler' must be an object with 'columns' and 'rows', as a diffusion policy has",
        ),
        (
            {"sampler": TABLE | {"columns": TABLE["columns"][:-1]}},
            "'sampler.columns' must be time, x0_from_x",
        ),
        ({"sampler": TABLE | {"columns": [*TABLE["columns"], "time"]}}, "'sampler.columns' must be"),
        ({"sampler": TABLE | {"columns": [*TABLE["columns"], "sigma"]}}, "'sampler.columns' must be"),
        (
            {"sampler": TABLE | {"rows": []}},
            "'sampler.rows' must be a list of 1 to 1000 rows, got \"0 rows\"",
        ),
        ({"sampler": TABLE | {"rows": [FIRST] * 1001}}, '1 to 1000 rows, got "1001 rows"'),
        ({"sampler": TABLE | {"rows": [FIRST[:-1], *OTHERS]}}, r"'sampler.rows\[0\]' must be 7 numbers"),
        (
            {"sampler": TABLE | {"rows": [*OTHERS, [*FIRST[:-1], 1e9]]}},
            r"'sampler.rows\[2\]' must be 7 numbers",
        ),
        (
            {"sampler": TABLE | {"rows": [FIRST, [*FIRST[:-1], "0"]]}},
            r"'sampler.rows\[1\]' must be 7 numbers",
        ),
        ({"sampler": TABLE | {"rows": [[0, 1, 0, 0, 1, 0, 0]]}}, "a step in which the network has a part"),
        (
            {"sampler": TABLE | {"rows": [[0.5, *FIRST[1:]]]}, "num_denoising_steps": 1},
            "which takes int64, got 0.5",
        ),
        ({"sampler": TABLE | {"clip": 0}}, "'sampler.clip' must be a number from 1e-06"),
        (
            {"num_denoising_steps": 10},
            "'num_denoising_steps' must be 3, the number of rows of 'sampler', got 10",
        ),
        ({"flow": {"noise": "x_t", "actions": "v_t"}}, "'sampler' must be left out where 'flow.noise' names"),
        ({"policy": "autoregressive"}, "'policy' must be flow_matching or diffusion or deterministic"),
        ({"first_row": CHUNK}, f"'first_row' must be a whole number from 0 to {CHUNK - 1}, got {CHUNK}"),
        ({"n_action_steps": 0}, f"'n_action_steps' must be a whole number from 1 to {CHUNK}, got 0"),
        ({"first_row": 2, "n_action_steps": 15}, "'n_action_steps' must be a whole number from 1 to 14"),
        ({"num_action_steps": 8}, "did you mean n_action_steps"),
    ],
)
def test_a_table_that_is_no_schedule_is_refused_by_key(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    path = made(tmp_path, diffusion(TABLE, **changes))
    with pytest.raises(ExportError, match=says):
        policy_of(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"actions_output": "chunk"},
            r"'actions_output' must be an output of the graph \(actions\), got \"chunk\"",
        ),
        ({"sampler": TABLE}, "'sampler' must be left out, as a deterministic policy has no noise"),
        ({"flow": {"noise": "state"}}, "'flow' must be left out, as a deterministic policy has no noise"),
        ({"num_denoising_steps": 10}, "'num_denoising_steps' must be left out"),
        ({"chunk_size": 10}, "'chunk_size' must be 40, as the graph's output 'actions' has, got 10"),
    ],
)
def test_a_deterministic_export_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ExportError, match=says):
        policy_of(made(tmp_path, act(**changes)))


# --- which rows are served ----------------------------------------------------------------------------------------


def test_rows_of_the_past_are_not_served(tmp_path: Path) -> None:
    whole = policy_of(made(tmp_path / "whole", act()))
    later = policy_of(made(tmp_path / "later", act(first_row=3, n_action_steps=8)))
    every, served = (policy.predict(policy.canary(), 0) for policy in (whole, later))
    np.testing.assert_array_equal(served.actions, every.actions[3:])
    np.testing.assert_array_equal(served.normalised, every.normalised)
    assert (later.binding.horizon, later.contract.n_action_steps) == (37, 8)


def test_a_chunk_size_counts_the_rows_that_are_served(tmp_path: Path) -> None:
    path = made(tmp_path, act(first_row=3))
    policy = policy_of(path, LoadOptions(chunk_size=5))
    whole = policy_of(path).predict(policy.canary(), 0).actions
    np.testing.assert_array_equal(policy.predict(policy.canary(), 0).actions, whole[:5])


def test_pictures_of_another_size_are_taken_only_where_the_export_says_how(
    tmp_path: Path, export_dir: ExportDir
) -> None:
    exact = policy_of(export_dir("act")).contract.images[0]
    assert (exact.exact, exact.filter) == (True, "bilinear")
    path = made(
        tmp_path, act(images=[{"camera": "front", "input": "img_front", "mask": None, "resize": "stretch"}])
    )
    assert not policy_of(path).contract.images[0].exact
    np.testing.assert_array_equal(exact.offset, [0.0, 0.0, 0.0])  # black


def test_a_table_needs_no_number_of_steps_beside_it(tmp_path: Path) -> None:
    path = made(tmp_path, diffusion(TABLE, num_denoising_steps=None))
    assert "num_denoising_steps" not in json.loads((path / "reflex_config.json").read_text())
    assert policy_of(path).contract.flow.steps == 3
