# SPDX-License-Identifier: Apache-2.0
"""A chunk that another program recorded is compared where it counts: in the robot's units."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echoes import DIM, ROWS, echo
from lerobot_files import ABSOLUTE, normalizer, pipelines, relative, statistics, unnormalizer
from repository import ROOT
from seen_exports import SIDE, seeing

from reflex_core.doctor.finding import FAIL, OK
from reflex_core.doctor.parity import FIXTURE, parity, record
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import start_noise
from reflex_core.robot.presets import load_preset
from reflex_core.values import Frame, Observation

HERE = np.linspace(-0.5, 0.5, DIM).astype(np.float32)
SEED = 11


def policy_of(path: Path, embodiment: str = "") -> Policy:
    return load_policy(open_export(path), load_preset(embodiment) if embodiment else None, "cpu", 1)


@pytest.fixture
def trained(tmp_path: Path) -> Policy:
    """An export with LeRobot's relative actions: its network's chunk is a fifth of a radian at most from where it stands."""
    echo(tmp_path, "somebodys", felt=DIM, image=False, normalization=None)
    pipelines(tmp_path, [relative(), normalizer()], [unnormalizer(), ABSOLUTE])
    statistics(tmp_path / "before.safetensors", observation__state={"mean": [0.0] * DIM, "std": [1.0] * DIM})
    statistics(tmp_path / "after.safetensors", action={"mean": [0.0] * DIM, "std": [0.05] * DIM})
    return policy_of(tmp_path)


def recorded(policy: Policy, **more: Any) -> dict[str, Any]:
    """What a training library would write: noise of its own, and its chunk in the robot's units."""
    noise = np.random.default_rng(3).normal(size=(1, ROWS, DIM)).astype(np.float32)
    made = policy.predict(Observation({}, HERE, "reach"), 0, noise=noise)
    actions = made.normalised[0] * np.float32(0.05) + HERE
    kept = {"instruction": "reach", "state": HERE, "noise": noise, "tolerance": 1e-4, "actions": actions}
    return {key: value for key, value in (kept | more).items() if value is not None}


def written(policy: Policy, **fields: Any) -> None:
    np.savez(policy.export.path / FIXTURE, **fields)


def test_actions_of_the_training_library_are_compared_without_the_networks_numbers(trained: Policy) -> None:
    written(trained, **recorded(trained))
    found = parity(trained)
    assert found.level == OK, found
    assert "largest difference from the recorded actions in the robot's units" in found.said


def test_offsets_that_were_not_made_absolute_are_no_parity(trained: Policy) -> None:
    fields = recorded(trained)
    made = trained.predict(Observation({}, HERE, "reach"), 0, noise=fields["noise"]).normalised
    written(trained, **fields, normalised=made)
    assert parity(trained).level == OK
    for file in ("policy_preprocessor.json", "policy_postprocessor.json"):
        document = json.loads((trained.export.path / file).read_text())
        for step in document["steps"]:
            if "actions_processor" in step["registry_name"]:
                step["config"] = {"enabled": False}
        (trained.export.path / file).write_text(json.dumps(document))
    found = parity(policy_of(trained.export.path))
    assert found.level == FAIL
    assert "in the robot's units 5.0e-01, 0.0001 is allowed" in found.said


def test_fewer_rows_than_a_chunk_are_compared_as_far_as_they_go(trained: Policy) -> None:
    fields = recorded(trained)
    written(trained, **fields | {"actions": fields["actions"][:5]})
    assert parity(trained).level == OK
    written(trained, **fields | {"actions": fields["actions"][:5] + np.float32(1e-3)})
    assert parity(trained).level == FAIL


def test_the_units_of_the_robot_may_have_a_tolerance_of_their_own(trained: Policy) -> None:
    fields = recorded(trained)
    fields["actions"] = fields["actions"] + np.float32(1e-3)
    written(trained, **fields, actions_tolerance=2e-3)
    assert parity(trained).level == OK


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to compare": ({"actions": None}, "neither normalised nor actions"),
    "a tolerance that everything is within": (
        {"tolerance": np.inf},
        "not readable: ValueError: a tolerance of inf compares nothing",
    ),
    "a tolerance that nothing is within": (
        {"tolerance": np.nan},
        "not readable: ValueError: a tolerance of nan compares nothing",
    ),
    "no noise and no seed": ({"noise": None}, "not readable"),
    "short noise": (
        {"noise": np.zeros((1, 2, DIM), np.float32)},
        "'noise' must be (1, 32, 7) finite numbers",
    ),
    "noise without end": ({"noise": np.full((1, ROWS, DIM), np.inf, np.float32)}, "'noise' must be"),
    "one column": ({"actions": np.zeros((ROWS, 1), np.float32)}, "'actions' of (32, 1) were recorded"),
    "three dimensions": (
        {"actions": np.zeros((1, ROWS, DIM), np.float32)},
        "were recorded, the export has 7",
    ),
    "no rows": ({"actions": np.zeros((0, DIM), np.float32)}, "'actions' of (0, 7) were recorded"),
    "all open": (
        {"actions": np.full((ROWS, DIM), np.nan, np.float32)},
        "hold nothing of what this robot does",
    ),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_fixture_that_cannot_be_compared_says_why(trained: Policy, name: str) -> None:
    changes, says = BAD[name]
    written(trained, **recorded(trained, **changes))
    found = parity(trained)
    assert (found.level, says in found.said) == (FAIL, True), found.said


def test_a_fixture_that_is_written_here_has_both(trained: Policy) -> None:
    record(trained.export.path / FIXTURE, trained, Observation({}, HERE, "reach"), SEED)
    with np.load(trained.export.path / FIXTURE) as stored:
        assert stored["actions"].shape == (ROWS, DIM)
        np.testing.assert_allclose(stored["actions"], stored["normalised"][0] * 0.05 + HERE, atol=1e-6)
    found = parity(trained)
    assert found.level == OK
    assert found.said.count("largest difference") == 2


def several(policy: Policy, **of_second: Any) -> dict[str, Any]:
    """Two cases with a noise of their own each, and what both share."""
    first = recorded(policy)
    tolerance = first.pop("tolerance")
    cases = {"0": first, "10": first | of_second}
    given = {f"{number}/{key}": value for number, case in cases.items() for key, value in case.items()}
    return given | {"tolerance": tolerance}


def test_every_case_of_a_fixture_is_compared(trained: Policy) -> None:
    written(trained, **several(trained))
    found = parity(trained)
    assert found.level == OK, found
    assert "in the robot's units of 2 observations" in found.said
    other = recorded(trained)["actions"] + np.float32(0.3)
    written(trained, **several(trained, actions=other))
    found = parity(trained)
    assert found.level == FAIL
    assert "of 2 observations 3.0e-01, 0.0001 is allowed" in found.said


def test_the_largest_difference_of_all_cases_is_reported(trained: Policy) -> None:
    fields = several(trained)
    written(trained, **fields | {"0/actions": fields["0/actions"] + np.float32(0.5)})
    found = parity(trained)
    assert found.level == FAIL
    assert "2 observations 5.0e-01," in found.said


def test_a_fixture_that_is_written_here_has_what_was_seen_before(tmp_path: Path) -> None:
    folder = seeing(
        tmp_path, eye=(1, 2, 3, SIDE, SIDE), body=(1, 2, 2), observation_steps=2, frequency_hz=10.0
    )
    policy = policy_of(folder)
    pictures = [np.full((SIDE, SIDE, 3), value, np.uint8) for value in (10, 200)]
    frames = [{"front": Frame(picture, "rgb8", SIDE, SIDE)} for picture in pictures]
    states = [np.full(2, value, np.float32) for value in (0.1, 0.3)]
    earlier, newest = (
        Observation(frame, state, "reach") for frame, state in zip(frames, states, strict=True)
    )
    record(folder / FIXTURE, policy, replace(newest, history=(earlier,)), SEED)
    with np.load(folder / FIXTURE) as stored:
        fields = dict(stored)
    assert fields["image.front"].shape == (2, SIDE, SIDE, 3)
    np.testing.assert_array_equal(fields["state"], states)
    assert parity(policy).level == OK
    np.savez(folder / FIXTURE, **fields | {"image.front": fields["image.front"][[1, 1]]})
    assert parity(policy).level == FAIL
    np.savez(folder / FIXTURE, **fields | {"state": fields["state"][:1]})
    found = parity(policy)
    assert found.level == FAIL
    assert "'state' must be of 2 observations, oldest first, got (1, 2)" in found.said


def test_columns_that_a_robot_lacks_stay_open(tmp_path: Path) -> None:
    """An export with a gripper for a robot whose manifest is written without it; and the columns are those of the export."""
    names = [f"panda_joint{number}" for number in range(7, 0, -1)]
    block = {
        "action": {"mode": "mean_std", "mean": [0.0, 1.8, 0.0, -1.5, 0.0, 0.0, 0.0], "std": [0.1] * 7},
        "state": {"mode": "identity"},
    }
    path = echo(
        tmp_path, "x", felt=7, image=False, normalization=block, action_names=names, frequency_hz=20.0
    )
    policy = policy_of(path, "franka")
    record(path / FIXTURE, policy, Observation({}, HERE, "reach"), SEED)
    with np.load(path / FIXTURE) as stored:
        expected = stored["normalised"][0] * 0.1 + block["action"]["mean"]
        np.testing.assert_allclose(stored["actions"], expected[: len(stored["actions"])], atol=1e-6)
    assert parity(policy).level == OK


def test_the_start_noise_is_what_the_documentation_says() -> None:
    documented = np.random.Generator(np.random.Philox(SEED)).standard_normal((1, ROWS, DIM), dtype=np.float32)
    np.testing.assert_array_equal(start_noise(SEED, (1, ROWS, DIM)), documented)
    page = (ROOT / "docs" / "reference" / "exports.md").read_text(encoding="utf-8")
    assert (
        "np.random.Generator(np.random.Philox(seed)).standard_normal((1, chunk_size, width), dtype=np.float32)"
        in page
    )
