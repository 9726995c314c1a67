# SPDX-License-Identifier: Apache-2.0
"""A number of the state that never moved in training: elsewhere the observation is refused, by name, unless it may pass."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from echoes import STATE, echo

from reflex_core.errors import ObservationError
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.providers import LoadOptions
from reflex_core.values import Floats, Observation

NAMES = [f"joint_{index}" for index in range(7)]
AT = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5], np.float32)


def policy_of(path: Path, mode: str = "min_max", *, passes: bool = False) -> Policy:
    low, high = ("min", "max") if mode == "min_max" else ("q01", "q99")
    block = {"mode": mode, low: [-1.0] * 6 + [0.5], high: [1.0] * 6 + [0.5]}
    if mode == "mean_std":
        block = {"mode": mode, "mean": [0.0] * 6 + [0.5], "std": [1.0] * 6 + [1e-320]}
    normalization = {"state": block, "action": {"mode": "identity"}}
    path = echo(path, "somebodys", felt=7, image=False, normalization=normalization, action_names=NAMES)
    return load_policy(open_export(path), None, "cpu", 1, (), LoadOptions(pass_constant_state=passes))


def seen(policy: Policy, state: Floats) -> Floats:
    return policy.predict(Observation({}, state, "pick"), 1).actions[:7, STATE]


@pytest.mark.parametrize(("mode", "value"), [("min_max", -1.0), ("quantiles", -1.0), ("mean_std", 0.0)])
def test_at_its_constant_a_state_has_the_formulas_value(tmp_path: Path, mode: str, value: float) -> None:
    found = seen(policy_of(tmp_path, mode), AT)
    np.testing.assert_allclose(found[6], value, atol=1e-6)
    np.testing.assert_allclose(found[1], 0.1, atol=1e-6)


@pytest.mark.parametrize("mode", ["min_max", "quantiles", "mean_std"])
@pytest.mark.parametrize("off", [1e-3, -1e-3, 1e-5, 10.0])
def test_off_its_constant_the_observation_is_refused_and_the_number_is_named(
    tmp_path: Path, mode: str, off: float
) -> None:
    policy = policy_of(tmp_path, mode)
    with pytest.raises(
        ObservationError, match=r"number 6 is .*, and all through training it was 0\.5"
    ) as caught:
        seen(policy, AT + np.array([0, 0, 0, 0, 0, 0, off], np.float32))
    assert caught.value.slug == "state-off-constant"


def test_the_others_may_be_anywhere(tmp_path: Path) -> None:
    assert np.isfinite(seen(policy_of(tmp_path), AT + np.array([9, 0, 0, 0, 0, 0, 0], np.float32))).all()


def test_where_it_may_pass_the_formula_is_not_clipped_and_a_warning_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of(tmp_path, passes=True)
    with caplog.at_level(logging.WARNING):
        found = [seen(policy, AT + np.array([0, 0, 0, 0, 0, 0, 1e-3], np.float32))[6] for _ in range(5)]
    assert found[0] == pytest.approx(2e-3 / 1e-8, rel=1e-3)
    logged = [record.getMessage() for record in caplog.records if "number 6" in record.getMessage()]
    assert len(logged) == 1


def test_it_is_reported_at_start(tmp_path: Path) -> None:
    (note,) = policy_of(tmp_path).notes
    assert note.startswith(
        "number 6 of its state never moved in training: a state that is elsewhere is refused"
    )
