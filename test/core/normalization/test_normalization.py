# SPDX-License-Identifier: Apache-2.0
"""Formulas of normalisation, dimensions that never moved, and statistics that lie in files without LeRobot's JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_files import EVERYTHING, HIGH, LOW, MEAN, STD
from safetensors.numpy import save_file

from reflex_core.errors import ExportError
from reflex_core.export.export import Affine, Export, affine, open_export

STATE_FILE, ACTION_FILE = "policy_preprocessor_step_5.safetensors", "policy_postprocessor_step_0.safetensors"


def save(path: Path, **tensors: Any) -> None:
    """Tensors by key, `__` for a dot."""
    save_file({key.replace("__", "."): np.asarray(value, np.float32) for key, value in tensors.items()}, path)


def opened(path: Path, **config: Any) -> Export:
    (path / "reflex_config.json").write_text(json.dumps(config))
    return open_export(path)


def refused(path: Path, **config: Any) -> str:
    with pytest.raises(ExportError) as caught:
        opened(path, **config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def both(path: Path, prefix: str = "") -> None:
    save(
        path / STATE_FILE, **{f"{prefix}observation__state__{name}": EVERYTHING[name] for name in EVERYTHING}
    )
    save(path / ACTION_FILE, **{f"{prefix}action__{name}": EVERYTHING[name] for name in EVERYTHING})


def test_openpi_adds_its_eps_in_both_directions_and_to_every_range() -> None:
    found = affine("mean_std", [1.0], [0.5], "x", source="openpi")
    np.testing.assert_allclose(found.normalise(np.array([1.5])), [0.5 / (0.5 + 1e-6)])
    np.testing.assert_allclose(found.back, [0.5 + 1e-6])
    found = affine("quantiles", [0.0], [2.0], "x", source="openpi")
    np.testing.assert_allclose(found.back, [(2 + 1e-6) / 2])


CONSTANTS = {
    "low == high": ("min_max", [0.5], [0.5]),
    "q01 == q99": ("quantiles", [0.5], [0.5]),
    "q10 == q90": ("quantile10", [0.5], [0.5]),
    "tenths": ("min_max", [0.1], [0.1]),
    "far": ("min_max", [1234.567], [1234.567]),
}


@pytest.mark.parametrize("source", ["lerobot", "openpi"])
@pytest.mark.parametrize("name", list(CONSTANTS))
def test_a_range_that_never_moved_gives_minus_one_at_its_constant(name: str, source: str) -> None:
    mode, low, high = CONSTANTS[name]
    found = affine(mode, low, high, "x", source=source)
    at = np.array(low, np.float32)  # as a robot's state comes
    np.testing.assert_allclose(found.normalise(at), [-1], atol=2e-2)
    assert found.moved(at) is None
    np.testing.assert_allclose(found.denormalise(np.array([[3.0]])), [low], atol=1e-5)


def test_beside_its_constant_the_formula_is_not_clipped() -> None:
    found = affine("min_max", [0.5], [0.5], "x")
    np.testing.assert_allclose(found.normalise(np.array([0.501])), [2e-3 / 1e-8 - 1], rtol=1e-3)


@pytest.mark.parametrize("std", [0.0, 1e-320, 1e-30, 1e-9, 5e-7])
def test_a_deviation_of_nothing_is_a_dimension_that_never_moved(std: float) -> None:
    found = affine("mean_std", [0.3], [std], "x")
    assert found.moved(np.array([0.3], np.float32)) is None
    assert found.moved(np.array([0.301], np.float32)) == 0
    np.testing.assert_allclose(found.denormalise(np.array([[5.0]])), [[0.3]], atol=1e-5)
    assert np.isfinite(found.normalise(np.array([0.3]))).all()
    assert np.isfinite(found.difference(np.array([0.1]))).all()


def test_a_dimension_that_moved_may_be_anywhere() -> None:
    found = affine("min_max", [0.0, 0.5], [1.0, 0.5], "x")
    assert found.moved(np.array([1e6, 0.5])) is None
    assert found.moved(np.array([0.0, 0.5 + 1e-3])) == 1
    assert found.moved(np.array([0.0, np.nan])) == 1


def test_what_was_denormalised_is_recovered_and_differences_have_no_shift() -> None:
    found = affine("mean_std", MEAN, STD, "x")
    rows = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    np.testing.assert_allclose(found.recovered(found.denormalise(rows)), rows, atol=1e-5)
    np.testing.assert_allclose(found.difference(np.array(STD)), [1, 1])


def test_some_dimensions_are_chosen_with_everything_that_belongs_to_them() -> None:
    found = affine("mean_std", [1.0, 2.0, 3.0], [0.5, 0.0, 2.0], "x").chosen(np.array([2, 1]))
    assert (found.shift.tolist(), found.back.tolist()) == ([3.0, 2.0], [2.0, 0.0])
    assert found.moved(np.array([9.0, 2.1])) == 1
    assert Affine(np.zeros(2), np.ones(2)).chosen(np.array([0])).dim == 1


@pytest.mark.parametrize("big", [1e39, 1e300])
def test_statistics_beyond_a_float32_are_refused(big: float) -> None:
    with pytest.raises(ExportError, match="that a float32 cannot"):
        affine("mean_std", [0.0], [big], "x")


def test_quantile10_and_eps_can_be_written_without_lerobots_files(tmp_path: Path) -> None:
    state = {"mode": "quantile10", "q10": [0.0], "q90": [2.0]}
    action = {"mode": "mean_std", "mean": [1.0], "std": [0.5], "eps": 0.5}
    export = opened(tmp_path, normalization={"state": state, "action": action})
    assert export.state_statistics is not None
    np.testing.assert_allclose(export.state_statistics.normalise(np.array([2.0])), [1.0])
    assert export.action_statistics is not None
    np.testing.assert_allclose(export.action_statistics.scale, [1.0])


def test_the_modes_of_files_may_be_said_for_state_and_action_each(tmp_path: Path) -> None:
    both(tmp_path)
    export = opened(tmp_path, normalization={"mode": {"state": "min_max", "action": "quantiles"}})
    assert (export.normalization.state_mode, export.normalization.action_mode) == ("min_max", "quantiles")
    assert export.state_statistics is not None
    np.testing.assert_allclose(export.state_statistics.normalise(np.array(HIGH)), [1, 1])


def test_a_block_that_names_a_mode_alone_takes_its_numbers_from_the_file(tmp_path: Path) -> None:
    both(tmp_path)
    export = opened(tmp_path, normalization={"state": {"mode": "identity"}, "action": {"mode": "min_max"}})
    assert export.state_statistics is None
    assert export.action_statistics is not None
    np.testing.assert_allclose(export.action_statistics.denormalise(np.full(2, -1.0)), LOW)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"mode": "robust"}, "normalization.mode must be one of mean_std"),
        ({"mode": {"state": 3}}, "normalization.mode must be one of mean_std"),
        ({"eps": 0}, "normalization.eps must be a number from 1e-12 to 1"),
        ({"eps": 1e-320}, "normalization.eps must be a number from 1e-12 to 1"),
        ({"eps": "small"}, "normalization.eps must be a number from 1e-12 to 1"),
        ({"dataset": 3}, "normalization.dataset must be the name of a data set"),
    ],
)
def test_a_block_that_cannot_be_is_refused(tmp_path: Path, block: Any, says: str) -> None:
    both(tmp_path)
    assert says in refused(tmp_path, normalization=block)


def test_an_unknown_source_is_refused(tmp_path: Path) -> None:
    assert "'source' must be lerobot or openpi, got 'gr00t'" in refused(tmp_path, source="gr00t")


def test_the_exact_key_wins_over_those_of_datasets(tmp_path: Path) -> None:
    both(tmp_path)
    save(
        tmp_path / ACTION_FILE, action__mean=MEAN, action__std=STD, a__action__mean=[9.0, 9.0],
        a__action__std=[9.0, 9.0],
    )  # fmt: skip
    found = opened(tmp_path).action_statistics
    assert found is not None
    assert found.shift.tolist() == MEAN


def several(path: Path) -> None:
    both(path)
    tensors = {}
    for number, name in enumerate(("so100", "so100-red", "so100.v2")):
        tensors[f"{name}.buffer.action.mean"] = np.full(2, number, np.float32)
        tensors[f"{name}.buffer.action.std"] = np.ones(2, np.float32)
    save_file(tensors, path / ACTION_FILE)


def test_several_datasets_are_refused_with_their_names(tmp_path: Path) -> None:
    several(tmp_path)
    sentence = refused(tmp_path)
    assert "several datasets for action (so100, so100-red, so100.v2)" in sentence
    assert '"normalization": {"dataset": NAME}' in sentence


def test_the_dataset_that_is_named_is_taken(tmp_path: Path) -> None:
    several(tmp_path)
    found = opened(tmp_path, normalization={"dataset": "so100.v2"}).action_statistics
    assert found is not None
    assert found.shift.tolist() == [2, 2]
    assert "no statistics of dataset 'so101'" in refused(tmp_path, normalization={"dataset": "so101"})


def test_half_of_one_dataset_is_not_completed_from_another(tmp_path: Path) -> None:
    both(tmp_path)
    save(tmp_path / ACTION_FILE, a__action__mean=MEAN, a__action__std=STD, b__action__mean=MEAN)
    assert "several datasets for action (a, b)" in refused(tmp_path)
    assert "needs std; the file has mean" in refused(tmp_path, normalization={"dataset": "b"})


def test_the_only_dataset_is_taken_and_reported(tmp_path: Path) -> None:
    both(tmp_path, "so100__buffer__")
    assert opened(tmp_path).normalization.notes == ("its statistics are those of dataset 'so100'",)


def test_state_and_action_of_different_datasets_are_refused(tmp_path: Path) -> None:
    both(tmp_path, "so100__")
    save(tmp_path / ACTION_FILE, red__action__mean=MEAN, red__action__std=STD)
    assert "the state's statistics are of dataset 'so100', the action's of 'red'" in refused(tmp_path)


@pytest.mark.parametrize(
    ("gone", "what"), [(STATE_FILE, "the state would go as it is"), (ACTION_FILE, "the action would")]
)
def test_one_file_without_the_other_is_refused_unless_the_rest_is_said(
    tmp_path: Path, gone: str, what: str
) -> None:
    both(tmp_path)
    (tmp_path / gone).unlink()
    assert what in refused(tmp_path)
    name, other = ("state", "action") if gone == STATE_FILE else ("action", "state")
    export = opened(tmp_path, normalization={name: {"mode": "identity"}, other: {"mode": "mean_std"}})
    assert getattr(export, f"{name}_statistics") is None
    assert getattr(export, f"{other}_statistics") is not None


def test_two_files_with_the_same_statistics_are_refused(tmp_path: Path) -> None:
    both(tmp_path)
    save(tmp_path / "policy_postprocessor_step_9.safetensors", action__mean=MEAN, action__std=STD)
    assert "each holds statistics of action" in refused(tmp_path)


def test_a_file_of_actions_without_any_is_refused(tmp_path: Path) -> None:
    both(tmp_path)
    save(tmp_path / ACTION_FILE, observation__state__mean=MEAN)
    assert "holds no statistics of 'action'" in refused(tmp_path)


def test_names_with_dots_are_split_at_the_last(tmp_path: Path) -> None:
    both(tmp_path)
    save(
        tmp_path / STATE_FILE,
        observation__state__mean=MEAN,
        observation__state__std=STD,
        mean=MEAN,
        state__mean=MEAN,
    )
    found = opened(tmp_path).state_statistics
    assert found is not None
    assert found.shift.tolist() == MEAN


def buffers(path: Path, std: float = 0.5) -> None:
    save_file(
        {
            "normalize_inputs.buffer_observation_state.mean": np.zeros(2, np.float32),
            "normalize_inputs.buffer_observation_state.std": np.ones(2, np.float32),
            "unnormalize_outputs.buffer_action.min": np.array(LOW, np.float32),
            "unnormalize_outputs.buffer_action.max": np.array([HIGH[0], HIGH[1] + std - 0.5], np.float32),
            "model.layer.weight": np.zeros((4, 4), np.float32),
        },
        path / "model.safetensors",
    )


def test_statistics_among_the_weights_of_lerobot_03_are_read(tmp_path: Path) -> None:
    buffers(tmp_path)
    export = opened(tmp_path)
    assert (export.normalization.state_mode, export.normalization.action_mode) == ("mean_std", "min_max")
    assert export.action_statistics is not None
    np.testing.assert_allclose(export.action_statistics.denormalise(np.ones(2)), HIGH)


def test_statistics_that_were_never_filled_are_refused(tmp_path: Path) -> None:
    buffers(tmp_path, std=np.inf)
    assert "buffer_action.max is infinite: LeRobot never filled in the statistics" in refused(tmp_path)


def test_weights_without_statistics_say_nothing(tmp_path: Path) -> None:
    save_file({"model.layer.weight": np.zeros((4, 4), np.float32)}, tmp_path / "model.safetensors")
    assert not opened(tmp_path).says_how_it_normalises


def test_numbers_that_are_written_stay_beside_those_of_a_file(tmp_path: Path) -> None:
    both(tmp_path)
    state = {"mode": "mean_std", "mean": [7.0, 7.0], "std": [1.0, 1.0]}
    for gone in (False, True):
        if gone:
            (tmp_path / STATE_FILE).unlink()
        export = opened(tmp_path, normalization={"state": state, "action": {"mode": "quantiles"}})
        assert export.state_statistics is not None
        assert export.state_statistics.shift.tolist() == [7, 7]
        assert (export.normalization.state_mode, export.normalization.action_mode) == (
            "mean_std",
            "quantiles",
        )


def test_identity_may_be_said_once_for_both(tmp_path: Path) -> None:
    export = opened(tmp_path, normalization={"mode": "identity"})
    assert export.says_how_it_normalises
    both(tmp_path)
    export = opened(tmp_path, normalization={"mode": "identity"})
    assert (export.state_statistics, export.action_statistics) == (None, None)
