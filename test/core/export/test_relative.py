# SPDX-License-Identifier: Apache-2.0
"""Relative actions become positions in one place, and everything that outlives an observation knows what they started from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echoes import GIVEN, STATE, echo
from lerobot_files import (
    ABSOLUTE,
    NOT_ABSOLUTE,
    NOT_RELATIVE,
    normalizer,
    pipelines,
    relative,
    statistics,
    unnormalizer,
)
from servers import ExportDir

from reflex_core.chunks.rtc import Rtc
from reflex_core.errors import ConfigurationError, ExportError, ObservationError
from reflex_core.export.export import open_export
from reflex_core.export.relative import read_mask, relative_of
from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.recorded_guidance import RecordedGuidance
from reflex_core.policy.sampler import PLAIN, start_noise
from reflex_core.robot.presets import load_preset
from reflex_core.values import Floats, Observation, Request, Served
from reflex_core.wedges.predict import Predict

HERE = np.array([0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7], np.float32)
SCALE = {"mean": [0.01] * 7, "std": [0.05] * 7}
STATES = {"mean": [1.0] * 7, "std": [2.0] * 7}


def policy_of(path: Path, embodiment: str = "") -> Policy:
    return load_policy(open_export(path), load_preset(embodiment) if embodiment else None, "cpu", 1)


def lerobots(path: Path, **step: Any) -> Path:
    """An echo with LeRobot's processors; its chunk is the noise, un-normalised, in the column GIVEN."""
    echo(path, "somebodys", felt=7, image=False, normalization=None)
    pipelines(path, [relative(**step), normalizer()], [unnormalizer(), ABSOLUTE])
    statistics(path / "before.safetensors", observation__state=STATES)
    statistics(path / "after.safetensors", action=SCALE)
    return path


def chunk(policy: Policy, state: Floats = HERE) -> Floats:
    return policy.predict(Observation({}, state, "pick"), 1).actions


def test_the_raw_state_is_added_after_unnormalising_to_every_row(tmp_path: Path) -> None:
    policy = policy_of(lerobots(tmp_path))
    actions = chunk(policy)
    noise = start_noise(1, (1, policy.contract.horizon, 7))[0, :, GIVEN]
    np.testing.assert_allclose(actions[:, GIVEN], noise * 0.05 + 0.01 + HERE[GIVEN], atol=1e-6)
    # the network saw the state normalised, and the offset starts from it as it was measured
    seen = (HERE - 1) / 2
    np.testing.assert_allclose(actions[:7, STATE], seen * 0.05 + 0.01 + HERE[STATE], atol=1e-6)


def test_excluded_joints_stay_positions(tmp_path: Path) -> None:
    names = [f"joint_{index}.pos" for index in range(6)] + ["gripper.pos"]
    policy = policy_of(lerobots(tmp_path, exclude_joints=["gripper"], action_names=names))
    moved = HERE + np.float32(1.0)
    np.testing.assert_allclose(chunk(policy)[:, GIVEN], chunk(policy, moved)[:, GIVEN], atol=1e-6)
    np.testing.assert_allclose(chunk(policy)[20:, 0] + 1.0, chunk(policy, moved)[20:, 0], atol=1e-6)


@pytest.mark.parametrize("names", [None, [f"joint_{index}.pos" for index in range(7)]])
def test_joints_to_exclude_that_no_action_has_are_warned_of(tmp_path: Path, names: list[str] | None) -> None:
    excluded = ["griper"] if names is None else ["joint_1", "griper"]
    policy = policy_of(lerobots(tmp_path, exclude_joints=excluded, action_names=names))
    [note] = [note for note in policy.statistics_notes if "exclude_joints" in note]
    assert note.startswith("exclude_joints names griper, which no action_names")


@pytest.mark.parametrize(("token", "warned"), [("wrist", True), ("GRIP", False)])
def test_the_configuration_is_looked_at_in_the_same_way(tmp_path: Path, token: str, warned: bool) -> None:
    names = [f"joint_{index}" for index in range(6)] + ["gripper"]
    block = {"exclude_joints": [token], "action_names": names}
    path = echo(tmp_path, "somebodys", felt=7, image=False, relative_actions=block)
    assert any("exclude_joints" in note for note in policy_of(path).statistics_notes) is warned


@pytest.mark.parametrize("block", [True, {}, {"mask": [True] * 7}, {"exclude_joints": []}])
def test_any_exporter_can_say_it_in_the_configuration(tmp_path: Path, block: Any) -> None:
    policy = policy_of(echo(tmp_path, "somebodys", felt=7, image=False, relative_actions=block))
    np.testing.assert_allclose(chunk(policy)[20:, 0], np.full(12, HERE[0]), atol=1e-6)


@pytest.mark.parametrize("block", [False, {"enabled": False, "exclude_joints": ["a"]}, {"mask": [False] * 7}])
def test_what_says_that_actions_are_positions_changes_nothing(tmp_path: Path, block: Any) -> None:
    policy = policy_of(echo(tmp_path, "somebodys", felt=7, image=False, relative_actions=block))
    assert policy.binding.relative is None
    np.testing.assert_allclose(chunk(policy)[20:, 0], np.zeros(12), atol=1e-6)


def test_names_of_the_actions_serve_the_configuration_where_it_gives_none(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e", "f", "my_gripper"]
    block = {"exclude_joints": ["gripper"]}
    path = echo(tmp_path, "somebodys", felt=7, image=False, relative_actions=block, action_names=names)
    assert policy_of(path).contract.relative == (True,) * 6 + (False,)


BAD: dict[str, tuple[Any, str]] = {
    "a word": ("yes", "'relative_actions' must be true, false, or an object"),
    "unknown key": ({"exclude": ["a"]}, "'relative_actions' must be true, false, or an object"),
    "enabled": ({"enabled": 1}, "'relative_actions.enabled' must be true or false"),
    "names": ({"exclude_joints": "gripper"}, "'relative_actions.exclude_joints' must be a list of names"),
    "short mask": ({"mask": [True]}, "'relative_actions.mask' must be 7 times true or false"),
    "numbers": ({"mask": [1] * 7}, "'relative_actions.mask' must be 7 times true or false"),
    "both": ({"mask": [True] * 7, "exclude_joints": ["a"]}, "either mask or exclude_joints"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_block_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    block, says = BAD[name]
    with pytest.raises(ExportError) as caught:
        policy_of(echo(tmp_path, "somebodys", felt=7, image=False, relative_actions=block))
    assert says in str(caught.value)


@pytest.mark.parametrize("block", [False, {"mask": [True] * 6 + [False]}])
def test_a_configuration_that_contradicts_the_processors_is_refused(tmp_path: Path, block: Any) -> None:
    file = lerobots(tmp_path) / "reflex_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"relative_actions": block}))
    with pytest.raises(
        ExportError, match=r"'relative_actions' must be as policy_preprocessor\.json says \(offsets at"
    ):
        policy_of(tmp_path)


def test_processors_without_relative_actions_are_not_overruled(tmp_path: Path) -> None:
    path = echo(tmp_path, "somebodys", felt=7, image=False, normalization=None, relative_actions=True)
    pipelines(path, [NOT_RELATIVE, normalizer()], [unnormalizer(), NOT_ABSOLUTE])
    statistics(path / "before.safetensors", observation__state=STATES)
    statistics(path / "after.safetensors", action=SCALE)
    with pytest.raises(ExportError, match="says \\(no offsets\\)"):
        policy_of(path)


def test_a_network_that_does_not_see_the_state_still_starts_from_it(tmp_path: Path) -> None:
    policy = policy_of(echo(tmp_path, "somebodys", felt=0, image=False, relative_actions=True))
    np.testing.assert_allclose(chunk(policy)[20:, 0], np.full(12, HERE[0]), atol=1e-6)
    with pytest.raises(ObservationError, match="no robot state"):
        policy.predict(Observation({}, None, "pick"), 1)


def test_a_state_that_is_too_short_to_start_from_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="action 6 is an offset from number 6 of the state, and the state has 6"
    ):
        relative_of(open_export(embedded_policy()), (True,) * 7, np.arange(7), (), (), 6)


def test_state_and_actions_in_another_order_are_refused() -> None:
    names, swapped = ("a", "b"), ("b", "a")
    with pytest.raises(
        ConfigurationError, match="action 0, 'a', is an offset from number 0 of the state, and that is 'b'"
    ):
        relative_of(open_export(embedded_policy()), (True, True), np.arange(2), names, swapped, 2)


def test_a_robot_with_its_joints_in_another_order_starts_from_the_right_ones() -> None:
    found = relative_of(open_export(embedded_policy()), (True, False, True), np.array([2, 0, 1]), (), (), 3)
    assert found is not None
    assert found.state_columns.tolist() == [2, 0, -1]
    assert found.base(np.array([1.0, 2.0, 3.0], np.float32)).tolist() == [3.0, 1.0, 0.0]


def test_nothing_is_relative_by_default(tmp_path: Path) -> None:
    export = open_export(echo(tmp_path))
    assert read_mask(export, export.config, 7, (), lambda *_: ExportError("")) == ()
    assert policy_of(tmp_path).binding.relative is None


def test_offsets_around_zero_are_no_other_units(tmp_path: Path) -> None:
    """Joint 4 of a Panda never comes near zero; an offset of it does nothing else."""
    names = [f"panda_joint{number}" for number in range(1, 8)]
    block = {
        "action": {"mode": "mean_std", "mean": [0.0] * 7, "std": [0.01] * 7},
        "state": {"mode": "identity"},
    }
    config = {"action_names": names, "normalization": block}
    policy = policy_of(
        echo(tmp_path / "a", "x", felt=7, image=False, relative_actions=True, **config), "franka"
    )
    assert policy.binding.relative is not None
    with pytest.raises(ConfigurationError, match="other units, or steps instead of positions"):
        policy_of(echo(tmp_path / "b", "x", felt=7, image=False, **config), "franka")


# what outlives an observation: the embedded policy as if it had been trained on offsets


@pytest.fixture(scope="module")
def reach(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    path = tmp_path_factory.mktemp("relative") / "reach"
    shutil.copytree(embedded_policy(), path)
    file = path / "reflex_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"relative_actions": True}))
    return load_policy(open_export(path), None, "cpu", 1)


DT_NS, DELAY = 50_000_000, 4


def make_request(policy: Policy, number: int, rows: float, shift: float) -> Request:
    plain = policy.canary()
    assert plain.state is not None
    state = (plain.state + np.float32(shift)).astype(np.float32)
    seen = replace(plain, state=state, stamp_ns=10**18 + int(rows * DT_NS))
    return Request(seen, 1, f"request-{number}", "episode", number)


def answered(policy: Policy, rtc: Rtc, request: Request) -> Served:
    served = Predict(policy, "prod", lambda: 0, lambda _: PLAIN, None, rtc)(request, _unreachable)
    rtc.delivered(request, served)
    rtc.consumed("episode", DELAY)
    return served


def _unreachable(request: Request) -> Served:
    raise AssertionError(request.request_id)


def test_the_old_chunk_guides_to_the_same_positions_although_the_robot_has_moved(reach: Policy) -> None:
    assert reach.binding.relative is not None
    rtc, shift = Rtc(reach.contract, reach.binding), 0.4
    old = answered(reach, rtc, make_request(reach, 1, 0, 0.0))
    new = answered(reach, rtc, make_request(reach, 2, 10, shift))
    assert new.rtc.mode
    tail = old.chunk.actions[10:]
    assert np.abs(new.chunk.actions[:DELAY] - tail[:DELAY]).max() < 0.05
    alone = reach.predict(make_request(reach, 2, 10, shift).observation, 2).actions
    assert np.abs(alone[:DELAY] - tail[:DELAY]).max() > 0.2  # the robot stands elsewhere


def test_what_guided_a_relative_answer_is_found_again_from_physical_chunks(reach: Policy) -> None:
    rtc, guides = Rtc(reach.contract, reach.binding), RecordedGuidance(reach)
    first, second = make_request(reach, 1, 0, 0.0), make_request(reach, 2, 10, 0.4)
    old = answered(reach, rtc, first)
    carried = rtc.guidance_for(second)
    assert carried.guidance is not None
    guides.keep(("episode", first.request_id), old.raw_actions, old.chunk.actions, first.observation.state)
    again = guides.guidance(
        ("episode", first.request_id), carried.elapsed_rows, carried.guidance.delay, second.observation.state
    )
    assert again is not None
    theirs = reach.physical(carried.guidance.target, second.observation.state)
    ours = reach.physical(again.target, second.observation.state)
    np.testing.assert_allclose(ours[:30], theirs[:30], atol=1e-4)


def test_with_a_kept_prefix_offsets_start_from_the_newest_state(export_copy: ExportDir) -> None:
    path = export_copy("decomposed_state_per_step")
    file = path / "reflex_config.json"
    block = {"relative_actions": True, "prefix_cache": {"image_threshold": 0.5, "max_age_ms": 1000.0}}
    file.write_text(json.dumps(json.loads(file.read_text()) | block))
    policy = policy_of(path)
    cache = policy.prefix_cache()
    for shift, status in ((0.0, "miss"), (0.4, "hit")):
        plain = policy.canary()
        assert plain.state is not None
        seen = replace(plain, state=(plain.state + np.float32(shift)).astype(np.float32))
        made = policy.predict(seen, 1, episode_id="pick", cache=cache)
        assert made.cache.status == status
        np.testing.assert_array_equal(made.actions, policy.predict(seen, 1).actions)
