# SPDX-License-Identifier: Apache-2.0
"""How an export and a robot go together, or the sentence that says why they do not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import odd_exports
import pytest
from robots import v1
from servers import ExportDir

from reflex_core.errors import ConfigurationError
from reflex_core.export.binding import Binding, bind
from reflex_core.export.export import open_export
from reflex_core.policy import flow_matching
from reflex_core.policy.layouts import load_layout
from reflex_core.policy.load import load_policy
from reflex_core.robot.embodiment import Camera, Embodiment, Statistics

FRANKA = v1("franka").without_gripper()
SEVEN = Statistics(np.zeros(7), np.ones(7))
NAMES = tuple(f"joint_{number}" for number in range(7))


def robot(
    dim: int = 7, names: tuple[str, ...] = (), cameras: tuple[str, ...] = ("front",), **changes: Any
) -> Embodiment:
    """A robot without names of its own unless they are given."""
    plain = Statistics(np.full(dim, 0.25), np.full(dim, 2.0))
    base = dataclasses.replace(
        FRANKA, joint_names=names, action_min=np.full(dim, -9.0), action_max=np.full(dim, 9.0), velocity_max=None,
        action_statistics=plain, state_statistics=plain,
        cameras=tuple(Camera(name, (64, 64), 30, "rgb8") for name in cameras),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def probe(path: Path, config: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A probe that needs no statistics, unless `config` says otherwise."""
    identity = {"normalization": {"state": {"mode": "identity"}, "action": {"mode": "identity"}}}
    return odd_exports.probe(path, config=identity | (config or {}), **changes)


def fitted(path: Path, embodiment: Embodiment | None, joint_names: tuple[str, ...] = ()) -> Binding:
    export = open_export(path)
    return bind(
        export, load_layout(flow_matching.network, export, "cpu", 1).contract, embodiment, joint_names
    )


def test_without_a_robot_everything_is_served_as_the_export_has_it(tmp_path: Path) -> None:
    found = fitted(probe(tmp_path), None)
    assert found.columns.tolist() == list(range(7))
    assert found.action_names == tuple(f"action_{number}" for number in range(7))
    assert (found.state_names, found.state_dim) == (("axis_0", "axis_1"), 2)
    assert found.cameras == {"front": "front"}
    assert (found.action_statistics, found.state_statistics) == (None, None)
    assert (found.horizon, found.dt_s) == (12, 0.0)


def test_cameras_that_the_robot_lacks_are_named(tmp_path: Path) -> None:
    path = probe(tmp_path, wrist=True)
    found = fitted(path, robot(9, cameras=("front",)))
    assert found.unfed_cameras == ("wrist",)
    rate_hz = "no camera of the robot feeds 'wrist': it is masked in every chunk, as if it were covered"
    assert rate_hz in found.notes
    assert fitted(path, robot(9, cameras=("wrist", "front"))).unfed_cameras == ()
    assert fitted(path, None).unfed_cameras == ()


def test_a_slot_that_never_had_a_camera_is_always_masked_and_not_missed(tmp_path: Path) -> None:
    images = [
        {"camera": "front", "input": "eye"},
        {"camera": None, "input": "eye_wrist", "mask": "has_wrist", "fill": 0.25, "range": [0.0, 1.0]},
    ]
    path = probe(tmp_path, {"images": images}, wrist=True)
    policy = load_policy(open_export(path), robot(9), "cpu", 1)
    assert policy.binding.unfed_cameras == ()
    made = policy.predict(policy.canary(), 1)
    assert made.masked_cameras == ()
    np.testing.assert_allclose(made.actions[:, 5:7], np.tile([0.25, 0.0], (12, 1)), atol=1e-5)


def test_actions_are_reordered_by_name(tmp_path: Path) -> None:
    shuffled = (*NAMES[3:], *NAMES[:3])
    block = {"action": {"mean": list(range(7)), "std": [1.0] * 7}}
    found = fitted(
        probe(tmp_path, config={"action_names": list(NAMES), "normalization": block}), robot(names=shuffled)
    )
    assert found.columns.tolist() == [3, 4, 5, 6, 0, 1, 2]
    assert found.action_names == shuffled
    assert found.action_statistics is not None
    assert found.action_statistics.shift.tolist() == [3, 4, 5, 6, 0, 1, 2]


def test_joint_names_that_do_not_match_are_named(tmp_path: Path) -> None:
    path = probe(tmp_path, config={"action_names": list(NAMES)})
    with pytest.raises(
        ConfigurationError, match=rf"{path}: embodiment 'franka' has joints wrist_roll that"
    ) as caught:
        fitted(path, robot(names=(*NAMES[:6], "wrist_roll")))
    assert caught.value.slug == "joint-names-mismatch"


@pytest.mark.parametrize("dim", [6, 8])
@pytest.mark.parametrize("named", [True, False])
def test_an_action_dim_that_does_not_fit_the_robot_is_refused(tmp_path: Path, dim: int, named: bool) -> None:
    path = probe(tmp_path, config={"action_names": list(NAMES)} if named else {})
    names = tuple(f"joint_{number}" for number in range(dim)) if named else ()
    with pytest.raises(
        ConfigurationError, match=f"its actions have 7 dimensions, embodiment 'franka' has {dim}"
    ) as caught:
        fitted(path, robot(dim, names))
    assert caught.value.slug == "action-dim-mismatch"


def test_a_padded_family_gives_the_robot_its_first_dimensions(export_dir: ExportDir) -> None:
    found = fitted(export_dir("mono_pi0"), robot(names=NAMES))
    assert found.columns.tolist() == list(range(7))
    assert found.action_names == NAMES


def test_the_statistics_of_a_padded_family_know_the_robots_dimensions(export_dir: ExportDir) -> None:
    assert fitted(export_dir("decomposed"), None).columns.tolist() == list(range(7))
    with pytest.raises(ConfigurationError, match="its actions have 7 dimensions, embodiment 'franka' has 6"):
        fitted(export_dir("decomposed"), robot(6))


def test_two_arms_are_not_cut_down_to_one(tmp_path: Path) -> None:
    """Fourteen dimensions are not padding, whatever the family calls itself."""
    path = probe(tmp_path, state=9, config={"model_type": "pi0"})
    with pytest.raises(ConfigurationError, match="its actions have 14 dimensions, embodiment 'franka' has 7"):
        fitted(path, robot())


def test_the_robots_own_joint_names_replace_those_of_the_export(tmp_path: Path) -> None:
    own = tuple(f"left_{name}" for name in NAMES)
    path = probe(tmp_path, config={"action_names": list(NAMES)})
    assert fitted(path, robot(names=NAMES), own).action_names == own
    assert fitted(path, None, own).action_names == own
    assert fitted(path, None, own).state_names == ("axis_0", "axis_1")  # those are no joints of the robot


def test_renamed_joints_keep_their_columns_and_are_measured_by_their_new_names(export_dir: ExportDir) -> None:
    own = tuple(f"left_{name}" for name in FRANKA.joint_names)
    plain, renamed = fitted(export_dir("mono_pi0_7"), FRANKA), fitted(export_dir("mono_pi0_7"), FRANKA, own)
    assert (renamed.action_names, renamed.state_names) == (own, own)
    assert renamed.columns.tolist() == plain.columns.tolist()
    assert renamed.hold_columns is not None
    assert renamed.hold_columns.tolist() == list(range(7))


@pytest.mark.parametrize("names", [NAMES[:6], (*NAMES[:6], NAMES[0])])
def test_joint_names_that_are_too_few_or_twice_are_refused(
    export_dir: ExportDir, names: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigurationError, match="setting 'joint_names' must be 7 different names") as caught:
        fitted(export_dir("mono_pi0_7"), FRANKA, names)
    assert caught.value.slug == "joint-names-mismatch"


def test_names_of_the_state_must_be_as_many_as_its_statistics(tmp_path: Path) -> None:
    block = {"state": {"mean": [0.0], "std": [1.0]}}
    with pytest.raises(
        ConfigurationError, match=r"the state has 2 names \(axis_0, axis_1\), its statistics have 1"
    ) as caught:
        fitted(probe(tmp_path, config={"normalization": block}), None)
    assert caught.value.slug == "state-dim-mismatch"


def test_statistics_of_the_robot_are_used_only_where_the_export_brings_none_and_that_is_reported(
    tmp_path: Path,
) -> None:
    found = fitted(
        odd_exports.probe(tmp_path, state=7, config={"state": {"input": "body"}}),
        robot(12, state_statistics=SEVEN),
    )
    assert found.action_statistics is not None
    assert found.action_statistics.shift.tolist() == [0.25] * 12
    assert any("brings no statistics" in note and "franka" in note for note in found.notes)


def test_statistics_of_the_robot_that_do_not_fit_the_state_are_not_used(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError,
        match="the state has 2 names .*, those of the embodiment, used as fallback, have 7",
    ):
        fitted(odd_exports.probe(tmp_path), robot())


def test_an_export_that_needs_no_statistics_is_not_given_the_robots(tmp_path: Path) -> None:
    identity = {"state": {"mode": "identity"}, "action": {"mode": "identity"}}
    found = fitted(probe(tmp_path, config={"normalization": identity}), robot())
    assert (found.action_statistics, found.state_statistics) == (None, None)
    assert found.notes == ()


def test_half_of_the_statistics_is_not_filled_up_from_the_robot(tmp_path: Path) -> None:
    block = {"action": {"mean": [0.0] * 7, "std": [1.0] * 7}}
    found = fitted(probe(tmp_path, config={"normalization": block}), robot())
    assert found.state_statistics is None


def test_cameras_are_matched_by_name(tmp_path: Path) -> None:
    found = fitted(probe(tmp_path, wrist=True), robot(9, cameras=("wrist", "front")))
    assert found.cameras == {"front": "front", "wrist": "wrist"}
    assert not any("camera" in note for note in found.notes)


def test_cameras_without_a_common_name_are_matched_in_order_and_that_is_reported(tmp_path: Path) -> None:
    found = fitted(probe(tmp_path, wrist=True), robot(9, cameras=("top", "hand")))
    assert found.cameras == {"front": "top", "wrist": "hand"}
    assert "no camera of the robot is called 'front': it is served by 'top'" in found.notes


def test_a_camera_that_may_be_missing_may_be_missing(tmp_path: Path) -> None:
    assert fitted(probe(tmp_path, wrist=True), robot(9, cameras=("front",))).cameras == {"front": "front"}


def test_a_required_camera_that_the_robot_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="the policy needs camera 'front', embodiment 'franka' has wrist, top"
    ) as caught:
        fitted(probe(tmp_path, wrist=True), robot(9, cameras=("wrist", "top")))
    assert caught.value.slug == "camera-mismatch"


def test_a_rate_that_contradicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="trained at 50 Hz, the embodiment says 20 Hz") as caught:
        fitted(probe(tmp_path, config={"frequency_hz": 50.0}), robot())
    assert caught.value.slug == "frequency-mismatch"


@pytest.mark.parametrize(
    ("rate_hz", "embodiment", "dt_s"),
    [(None, robot(), 0.05), (20, robot(), 0.05), (10, None, 0.1), (None, None, 0.0)],
)
def test_the_rate_comes_from_the_export_else_from_the_robot(
    tmp_path: Path, rate_hz: float | None, embodiment: Embodiment | None, dt_s: float
) -> None:
    found = fitted(probe(tmp_path, config={"frequency_hz": rate_hz}), embodiment)
    assert found.dt_s == pytest.approx(dt_s)


def test_a_chunk_longer_than_the_robot_wants_is_cut_and_that_is_reported(tmp_path: Path) -> None:
    found = fitted(probe(tmp_path), robot(chunk_size=5))
    assert found.horizon == 5
    assert any("cut to the 5" in note for note in found.notes)


def test_the_hold_position_is_measured_by_name(tmp_path: Path) -> None:
    names = (*reversed(NAMES), "gripper")
    config = {"state": {"input": "body", "names": list(names)}, "action_dim": 7, "action_names": list(NAMES)}
    found = fitted(probe(tmp_path, state=8, config=config), robot(names=NAMES))
    assert found.hold_columns is not None
    assert found.hold_columns.tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_a_state_that_is_something_else_is_no_position_to_hold(tmp_path: Path) -> None:
    assert (
        fitted(probe(tmp_path, config={"action_names": list(NAMES)}), robot(names=NAMES)).hold_columns is None
    )


def test_a_policy_that_does_not_read_the_state_still_knows_where_to_hold(tmp_path: Path) -> None:
    found = fitted(probe(tmp_path, state=0), robot(5, NAMES[:5]))
    assert (found.state_dim, found.state_names) == (None, NAMES[:5])
    assert found.hold_columns is not None
    assert found.hold_columns.tolist() == [0, 1, 2, 3, 4]
