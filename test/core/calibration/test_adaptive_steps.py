# SPDX-License-Identifier: Apache-2.0
"""Adaptive steps: when the Euler loop stops, where it lands, which exports allow it, and what the search chooses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers import ExportDir

from benchmarks import adaptive_success
from reflex_core.calibration.adaptive_steps import Candidate, Course, candidates, choose, course
from reflex_core.errors import ConfigurationError, ExportError
from reflex_core.export.export import open_export
from reflex_core.export.flow import Adaptive, Flow
from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import Sampling, euler, start_noise
from reflex_core.values import Floats, Observation
from reflex_ros.demo.ambiguity import CLEAR, TASKS
from reflex_ros.demo.observations import scene_observations

SHAPE = (1, 50, 7)
NOISE = start_noise(3, SHAPE)
ANY_CHANGE = Adaptive(10.0, min_steps=2)


def policy_of(path: Path) -> Policy:
    return load_policy(open_export(path), None, "cpu", 1)


def with_config(path: Path, **changes: object) -> Path:
    """The export with other keys in its reflex_config.json; None removes one."""
    file = path / "reflex_config.json"
    document = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return path


def speeds(*values: float) -> Iterator[Floats]:
    """A velocity per step, the same in every action."""
    return (np.full(SHAPE, value, np.float32) for value in values)


def steps_taken(values: list[float], adaptive: Adaptive) -> int:
    scripted = speeds(*values)
    flow = Flow(steps=len(values))
    return euler(lambda _x, _t: next(scripted), NOISE, flow, Sampling(adaptive=adaptive))[1]


@pytest.fixture(scope="module")
def reach() -> Policy:
    return policy_of(embedded_policy())


@pytest.fixture(scope="module")
def seen(reach: Policy) -> list[Observation]:
    """Two scenes, each with a clear and two ambiguous instructions, at three moments."""
    return list(scene_observations(reach, 2))


@pytest.mark.parametrize("flow", [Flow(), Flow(0.0, 1.0, -1, 10), Flow(1000.0, 0.0, 1, 7)])
@pytest.mark.parametrize("least", [2, 3, 6])
def test_a_constant_velocity_stops_at_once_and_still_covers_the_whole_time(flow: Flow, least: int) -> None:
    full, _ = euler(lambda x, _: np.full_like(x, 2.0), NOISE, flow)
    early, taken = euler(
        lambda x, _: np.full_like(x, 2.0), NOISE, flow, Sampling(adaptive=Adaptive(0.01, least))
    )
    assert taken == least
    np.testing.assert_allclose(early, full, atol=1e-5 * abs(flow.end - flow.start))


@pytest.mark.parametrize("noise", [start_noise(seed, SHAPE) for seed in (1, 2)])
def test_the_straight_flow_lands_on_its_target_in_two_steps(noise: Floats) -> None:
    target = np.linspace(-3, 3, 50 * 7, dtype=np.float32).reshape(SHAPE)
    actions, taken = euler(
        lambda x, t: (x - target) / np.float32(t), noise, Flow(), Sampling(adaptive=ANY_CHANGE)
    )
    assert taken == 2
    np.testing.assert_allclose(actions, target, atol=1e-5)


def test_the_last_stride_goes_with_the_last_velocity() -> None:
    actions, taken = euler(lambda x, _: x, NOISE, Flow(steps=10), Sampling(adaptive=Adaptive(10.0, 4)))
    assert taken == 4
    np.testing.assert_allclose(actions, NOISE * 0.9**3 * (1 - 0.7), rtol=1e-5)


def test_a_threshold_of_zero_never_stops_and_changes_no_bit() -> None:
    full, _ = euler(lambda x, t: x * np.float32(t), NOISE, Flow())
    actions, taken = euler(lambda x, t: x * np.float32(t), NOISE, Flow(), Sampling(adaptive=Adaptive(0.0, 2)))
    assert taken == 10
    assert actions.tobytes() == full.tobytes()


@pytest.mark.parametrize(
    ("values", "adaptive", "steps"),
    [
        ([1, 2, 2, 2, 2], Adaptive(0.1, 2), 3),  # the change from step 1 to 2 is 1
        ([1, 1, 2, 2, 2, 2], Adaptive(0.1, 2, patience=2), 5),  # a change in between starts the count anew
        ([1, 1, 1, 1, 1], Adaptive(0.1, 2, patience=3), 4),
        ([1, 1, 1, 2, 3], Adaptive(0.1, 4), 5),  # quiet, but too early to count
        ([1, 1.09, 1.2, 1.2], Adaptive(0.1, 2), 2),
        ([1, 1.11, 1.3, 1.3], Adaptive(0.1, 2), 4),  # the change is compared with the velocity before
        ([0, 1, 1, 1], Adaptive(0.1, 2), 3),  # from a standstill
        ([0, 0, 0, 0], Adaptive(0.1, 2), 2),
        ([1, 1], Adaptive(0.1, 2), 2),
        ([1], Adaptive(0.1, 1), 1),
        ([1, np.nan, np.nan, np.nan], Adaptive(0.1, 2), 4),  # NaN never counts as quiet
    ],
)
def test_it_stops_after_enough_quiet_steps(values: list[float], adaptive: Adaptive, steps: int) -> None:
    assert steps_taken(values, adaptive) == steps


def test_padding_does_not_decide_when_to_stop() -> None:
    def velocity(_: Floats, t: float) -> Floats:
        slope = np.ones((1, 50, 32), np.float32)
        slope[..., 7:] = 100 * t
        return slope

    noise, sampling = start_noise(1, (1, 50, 32)), Sampling(adaptive=Adaptive(0.01, 2))
    assert euler(velocity, noise, Flow(), sampling, width=7)[1] == 2
    assert euler(velocity, noise, Flow(), sampling)[1] == 10


def test_a_coarser_grid_can_stop_early_too() -> None:
    sampling = Sampling(steps=5, adaptive=Adaptive(0.01, 3))
    actions, taken = euler(lambda x, _: np.ones_like(x), NOISE, Flow(steps=10), sampling)
    assert taken == 3
    np.testing.assert_allclose(actions, NOISE - 1, atol=1e-5)


def test_the_embedded_policy_takes_fewer_steps_where_the_instruction_is_clear(
    reach: Policy, seen: list[Observation]
) -> None:
    sampling = Sampling(adaptive=reach.adaptive())
    steps = np.array([reach.predict(one, 1, sampling).denoise_steps for one in seen]).reshape(-1, 3)
    clear, any_block, two_blocks = steps.reshape(2, 3, 3).mean(axis=(0, 2))
    assert clear < 7
    assert clear < min(any_block, two_blocks)


def test_the_embedded_policy_answers_nearly_the_same(reach: Policy, seen: list[Observation]) -> None:
    sampling = Sampling(adaptive=reach.adaptive())
    for one in seen[:3]:
        full, early = reach.predict(one, 1), reach.predict(one, 1, sampling)
        assert early.denoise_steps < full.denoise_steps == 10
        assert 0 < np.abs(full.actions - early.actions).max() < 0.1


@pytest.mark.parametrize(
    "adaptive", [Adaptive(0.03, 3), Adaptive(0.05, 2, 2), Adaptive(10.0, 5), Adaptive(1e-9, 2)]
)
def test_a_course_tells_what_the_sampler_would_have_done(
    reach: Policy, seen: list[Observation], adaptive: Adaptive
) -> None:
    for one in seen[::4]:
        followed = course(reach, one, seed=8)
        done = reach.predict(one, 8, Sampling(adaptive=adaptive))
        assert followed.stops_after(adaptive) == done.denoise_steps
        np.testing.assert_allclose(followed.stopped[done.denoise_steps - 1], done.actions, atol=1e-5)


def test_the_shipped_threshold_is_what_was_measured_on_these_weights(reach: Policy) -> None:
    block = reach.export.config["adaptive"]
    assert reach.adaptive() == Adaptive(block["threshold"], block["min_steps"], block["patience"])
    assert block["measured"]["model_hash"] == reach.export.model_hash
    assert block["measured"]["denoise_steps"] == reach.contract.flow.steps
    assert block["measured"]["difference"] <= block["measured"]["max_difference"]


def test_a_fused_loop_refuses_by_the_name_of_its_graph(export_dir: ExportDir) -> None:
    for name, graph in {"mono_pi0_7": "model.onnx", "decomposed": "expert_denoise.onnx"}.items():
        with pytest.raises(ConfigurationError, match=f"fused into {graph}") as refused:
            policy_of(export_dir(name)).adaptive()
        assert refused.value.slug == "adaptive-baked"
        with pytest.raises(ConfigurationError, match="fused into"):
            policy_of(export_dir(name)).adaptive(threshold=0.1)


@pytest.mark.parametrize("name", ["decomposed_per_step", "expert_stack", "gr00t"])
def test_single_steps_without_a_threshold_say_how_to_measure_one(export_dir: ExportDir, name: str) -> None:
    policy = policy_of(export_dir(name))
    with pytest.raises(ConfigurationError, match="no adaptive threshold: run `reflex calibrate-adaptive"):
        policy.adaptive()
    assert policy.adaptive(threshold=0.2) == Adaptive(0.2, min_steps=3)


def test_a_loop_of_two_steps_has_nothing_to_save(export_copy: ExportDir) -> None:
    path = with_config(export_copy("gr00t"), num_denoising_steps=2)
    with pytest.raises(ConfigurationError, match="denoises in 2 step"):
        policy_of(path).adaptive(threshold=0.1)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"model_hash": "0123456789abcdef"}, "measured on weights '0123456789abcdef'"),
        ({"denoise_steps": 5}, "measured at 5 denoise steps, which does not hold for 10"),
    ],
)
def test_a_threshold_of_other_weights_or_coarser_steps_is_refused(
    export_copy: ExportDir, measured: dict[str, object], message: str
) -> None:
    block = {"threshold": 0.04, "min_steps": 4, "measured": measured}
    policy = policy_of(with_config(export_copy("decomposed_per_step"), adaptive=block))
    with pytest.raises(ConfigurationError, match=message):
        policy.adaptive()
    assert policy.adaptive(threshold=0.3) == Adaptive(0.3, min_steps=4)


def test_a_threshold_of_finer_steps_is_taken(export_copy: ExportDir) -> None:
    """So that fewer steps, which auto-calibration may choose, do not forbid the flag."""
    block = {"threshold": 0.04, "min_steps": 4, "measured": {"denoise_steps": 20}}
    policy = policy_of(with_config(export_copy("decomposed_per_step"), adaptive=block))
    assert policy.adaptive() == Adaptive(0.04, 4)


def test_a_threshold_written_by_hand_is_taken(export_copy: ExportDir) -> None:
    block = {"threshold": 0.04, "min_steps": 4, "patience": 2}
    path = with_config(export_copy("decomposed_per_step"), adaptive=block)
    assert policy_of(path).adaptive() == Adaptive(0.04, 4, 2)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"threshold": 0, "min_steps": 3}, "adaptive.threshold"),
        ({"threshold": "0.1", "min_steps": 3}, "adaptive.threshold"),
        ({"threshold": 0.1}, "min_steps"),
        ({"threshold": 0.1, "min_steps": 0}, "min_steps"),
        ({"threshold": 0.1, "min_steps": 3, "patience": 0.5}, "patience"),
        ({"threshold": 0.1, "min_steps": 3, "measured": "yes"}, "adaptive.measured"),
        ([0.1], "adaptive"),
    ],
)
def test_a_damaged_block_is_refused_by_its_key(export_copy: ExportDir, block: object, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        policy_of(with_config(export_copy("decomposed_per_step"), adaptive=block))


def made_course(changes: list[float], differences: list[float]) -> Course:
    stopped = np.array([*differences, 0.0], np.float32).reshape(-1, 1, 1)
    return Course(stopped, tuple(changes))


def test_differences_are_shares_of_the_joints_ranges() -> None:
    stopped = np.zeros((4, 2, 2), np.float32)
    stopped[2, 1] = (0.3, -0.4)
    one = Course(stopped, (0.0, 0.0, 0.0))
    found = candidates([one], np.array([3.0, 2.0]))
    assert [one.difference for one in found] == pytest.approx([0.2] * len(found))
    assert {one.steps for one in found} == {3.0}


def test_the_search_takes_the_largest_saving_within_the_bound() -> None:
    calm = made_course([0.09, 0.02, 0.02, 0.02, 0.02], [0.5, 0.3, 0.004, 0.003, 0.001])
    wild = made_course([0.09, 0.09, 0.09, 0.02, 0.02], [0.9, 0.9, 0.9, 0.9, 0.001])
    chosen = choose(candidates([calm, wild], np.ones(1)), 0.01, 6)
    assert chosen is not None
    assert chosen.adaptive.threshold == 0.025
    assert chosen.steps == (3 + 5) / 2
    assert chosen.difference <= 0.01


def test_the_search_gives_up_where_every_early_stop_changes_too_much() -> None:
    wild = made_course([0.01, 0.01, 0.01, 0.01], [0.9, 0.9, 0.9, 0.9])
    assert choose(candidates([wild], np.ones(1)), 0.01, 5) is None


def test_among_equals_the_search_takes_the_lowest_threshold() -> None:
    equal = [Candidate(Adaptive(value, 3), 4.0, 0.001) for value in (0.3, 0.05, 0.1)]
    bolder = Candidate(Adaptive(0.2, 3), 3.8, 0.009)
    chosen = choose([*equal, bolder], 0.01, 10)
    assert chosen is not None
    assert chosen.adaptive.threshold == 0.05


def test_the_closed_loop_benchmark_compares_every_task_with_all_steps(tmp_path: Path) -> None:
    output = tmp_path / "adaptive.json"
    assert (
        adaptive_success.main(["--episodes", "1", "--ambiguous-episodes", "1", "--output", str(output)]) == 0
    )
    rows = json.loads(output.read_text())["rows"]
    assert len(rows) == 3 * len(TASKS)
    clear = [row for row in rows if row["task"] == CLEAR]
    assert [row["reached"] for row in clear[:2]] == [1, 1]
    assert clear[1]["steps"] < clear[0]["steps"] == 10
    assert clear[0]["lost"] == clear[0]["won"] == 0
