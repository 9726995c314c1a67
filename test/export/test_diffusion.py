# SPDX-License-Identifier: Apache-2.0
"""Diffusion Policy from LeRobot's checkpoint to an answer over HTTP: DDIM and DDPM, two observations, resize and crop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import LEAST, LIMIT, replayed
from exported import actions_of, sent, served
from lerobot_answers import LeRobot
from raw_observations import RawObservation, noise, observation

from reflex_core.doctor.finding import OK
from reflex_core.doctor.parity import parity
from reflex_core.export.export import open_export
from reflex_core.policy.load import load_policy
from reflex_core.values import Frame, Observation
from reflex_ros.cli.main import main

Exported = Callable[..., Path]
Policies = Callable[[str], LeRobot]
SCHEDULES = {"diffusion": (10, 0), "diffusion_ddpm": (50, 49)}  # steps, and those that draw noise
COMPARED = {"diffusion": 6, "diffusion_ddpm": 4}  # observations, fewer where an answer takes many steps


def seen(number: int) -> list[RawObservation]:
    """Two moments of one task, oldest first."""
    newest = observation(number)
    return [observation(number + 100, task=newest.task), newest]


def wanted(policy: LeRobot, moments: list[RawObservation], seed: int) -> np.ndarray:
    shape = policy.noise_shape
    assert shape is not None
    return policy.chunk(moments, noise(seed, shape)).physical


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_server_gives_lerobots_own_actions(name: str, exported: Exported, lerobot: Policies) -> None:
    policy = lerobot(name)
    with served(exported(name)) as server:
        for number in range(3):
            earlier, newest = moments = seen(number)
            answer = actions_of(server, newest, number, history=[sent(earlier)])
            theirs = wanted(policy, moments, number)
            assert answer.shape == theirs.shape
            assert np.ptp(theirs, axis=0).max() > LEAST
            assert np.abs(answer - theirs).max() <= LIMIT


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_episode_begins_as_lerobots_does(name: str, exported: Exported, lerobot: Policies) -> None:
    with served(exported(name)) as server:
        answer = actions_of(server, observation(7), 7, episode_id="an episode")
    assert np.abs(answer - wanted(lerobot(name), [observation(7)], 7)).max() <= LIMIT


def test_lerobots_control_loop_executes_the_rows_that_are_served(
    exported: Exported, lerobot: Policies
) -> None:
    """One inference every `n_action_steps` periods, which looks back on the period before it."""
    policy = lerobot("diffusion")
    executed = policy.config.n_action_steps
    periods = [observation(number, task="reach") for number in range(executed + 3)]
    shape = policy.noise_shape
    assert shape is not None
    theirs = policy.episode(periods, [noise(seed, shape) for seed in (0, 1)])
    with served(exported("diffusion")) as server:
        first = actions_of(server, periods[0], 0, episode_id="e")
        second = actions_of(server, periods[executed], 1, history=[sent(periods[executed - 1])])
    assert np.abs(first[:executed] - theirs[:executed]).max() <= LIMIT
    assert np.abs(second[:3] - theirs[executed:]).max() <= LIMIT


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_was_served_is_replayed_bit_for_bit(name: str, exported: Exported, tmp_path: Path) -> None:
    summary = replayed(exported(name), tmp_path)
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (3, 0.0)


def test_the_middle_of_an_episode_is_replayed_bit_for_bit(exported: Exported, tmp_path: Path) -> None:
    folder = exported("diffusion")
    with served(folder, record=str(tmp_path), record_images="full", record_no_gzip=True) as server:
        for number in range(2):
            earlier, newest = seen(number)
            actions_of(server, newest, number, episode_id="e", history=[sent(earlier)])
    (trace,) = tmp_path.glob("*.jsonl*")
    report = tmp_path / "report.json"
    assert (
        main(["replay", str(trace), "--model", str(folder), "--device", "cpu", "--output", str(report)]) == 0
    )
    summary: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))["summary"]
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (2, 0.0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_is_a_table_and_rows_of_a_batch_are_their_own(name: str, exported: Exported) -> None:
    document = json.loads((exported(name) / "reflex_config.json").read_text(encoding="utf-8"))
    table, (steps, drawn) = document["sampler"], SCHEDULES[name]
    share = table["columns"].index("next_from_noise")
    assert len(table["rows"]) == document["num_denoising_steps"] == steps
    assert sum(row[share] != 0 for row in table["rows"]) == drawn
    assert document["batch"] == {"verified": [1, 2, 4]}
    assert document["observation_steps"] == 2
    found = parity(load_policy(open_export(exported(name)), None, "cpu", 1))
    assert (found.level, f"of {COMPARED[name]} observations" in found.said) == (OK, True), found
    page = (exported(name) / "VERIFICATION.md").read_text(encoding="utf-8")
    assert ("as each answer takes 50 runs of the network" in page) == (COMPARED[name] < 6)


def served_otherwise(folder: Path, out: Path, change: Callable[[dict[str, Any]], object]) -> np.ndarray:
    """The chunk of a copy of the export whose reflex_config.json is changed."""
    shutil.copytree(folder, out)
    document = json.loads((out / "reflex_config.json").read_text(encoding="utf-8"))
    change(document)
    (out / "reflex_config.json").write_text(json.dumps(document), encoding="utf-8")
    moments = [
        Observation(
            {name: Frame(p, "rgb8", *p.shape[:2]) for name, p in one.pictures.items()}, one.state, one.task
        )
        for one in seen(0)
    ]
    policy = load_policy(open_export(out), None, "cpu", 1)
    return policy.predict(replace(moments[1], history=(moments[0],)), seed=0).actions


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "without the clip": lambda document: document["sampler"].update(clip=None),
    "one control period late": lambda document: document.update(first_row=0),
    "the steps from the last to the first": lambda document: document["sampler"]["rows"].reverse(),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_would_be_wrong_shows(name: str, exported: Exported, lerobot: Policies, tmp_path: Path) -> None:
    theirs = wanted(lerobot("diffusion"), seen(0), 0)
    same = served_otherwise(exported("diffusion"), tmp_path / "same", lambda _: None)
    assert np.abs(same - theirs).max() <= LIMIT
    other = served_otherwise(exported("diffusion"), tmp_path / "other", WRONG[name])
    assert np.abs(other[: len(theirs)] - theirs[: len(other)]).max() > 100 * LIMIT
