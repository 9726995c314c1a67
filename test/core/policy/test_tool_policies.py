# SPDX-License-Identifier: Apache-2.0
"""Policies that command a tool's pose: the state they see, the joints they lead to, and what is refused or held."""

from __future__ import annotations

import math
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tool_robots as robots
from tool_robots import HOME, JOINTS, ROWS, apart, pose

from reflex_core.chunks.rtc import base_of, executed_rows, guided_columns, rebased
from reflex_core.doctor.finding import OK
from reflex_core.doctor.parity import parity, record
from reflex_core.engine.describe import action_modes
from reflex_core.errors import ConfigurationError, ExportError, ObservationError
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy, reads_state
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import PLAIN
from reflex_core.reports import EnsembleReport
from reflex_core.robot.rotations import KINDS, matrix_of_axis_angle
from reflex_core.values import Floats, Frame, Observation, Request, Served
from reflex_core.wedges.predict import Predict

HERE = np.array(HOME, np.float32)
MOVED = HERE + np.float32(0.1)
GOAL = np.array([0.55, -0.05, 0.40])
SCALES = {"velocity": 20.0}  # rows as long as steps of 20 Hz


def policy_of(path: Path, export: Path, **changes: Any) -> Policy:
    return load_policy(open_export(export), robots.loaded(path / "robot", **changes), "cpu", 1)


def seen(state: Floats = HERE) -> Observation:
    return Observation({"camera": Frame(np.zeros((24, 32, 3), np.uint8), "rgb8", 24, 32)}, state, "reach")


def libero(path: Path, **config: Any) -> Policy:
    return policy_of(path, robots.libero(path / "export", GOAL.tolist(), 0.3, **config))


def turned_home(*turn: float, moved: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Any:
    goal = pose(HERE)
    goal[:3, 3] += moved
    goal[:3, :3] = matrix_of_axis_angle(np.array(turn)) @ goal[:3, :3]
    return goal


# what the policy sees


def test_liberos_eight_numbers_are_made_of_the_measured_joints(tmp_path: Path) -> None:
    arrays, _ = libero(tmp_path).arrays(seen())
    at = pose(HERE)
    np.testing.assert_allclose(arrays["state"][0, :3], at[:3, 3], atol=1e-6)
    np.testing.assert_allclose(
        matrix_of_axis_angle(arrays["state"][0, 3:6].astype(np.float64)), at[:3, :3], atol=1e-6
    )
    np.testing.assert_allclose(arrays["state"][0, 6:], [0.03, -0.03], atol=1e-7)


@pytest.mark.parametrize("rotation", KINDS)
def test_a_state_has_its_rotation_as_it_is_declared(tmp_path: Path, rotation: str) -> None:
    width = KINDS[rotation].width
    state = {
        "input": "state",
        "names": ["x", "y", "z", *(f"r{at}" for at in range(width)), "joint1"],
        "tool": {"columns": list(range(3 + width)), "rotation": rotation},
    }
    tool = robots.LIBERO_TOOL | {"columns": list(range(6))}
    made = robots.policy(
        tmp_path / "export", robots.LIBERO_NAMES, state, [tool, robots.LIBERO_HAND],
        np.zeros((ROWS, 7, 4 + width)), np.zeros((ROWS, 7)),
    )  # fmt: skip
    arrays, _ = policy_of(tmp_path, made).arrays(seen(MOVED))
    numbers = arrays["state"][0].astype(np.float64)
    np.testing.assert_allclose(
        KINDS[rotation].to_matrix(numbers[3 : 3 + width]), pose(MOVED)[:3, :3], atol=1e-6
    )
    assert numbers[-1] == pytest.approx(0.1)
    if rotation.startswith("quaternion"):
        assert numbers[3 + (3 if rotation.endswith("w") else 0)] >= 0


def test_statistics_of_a_tool_normalise_what_the_policy_sees_and_gives(tmp_path: Path) -> None:
    numbers = {"mode": "mean_std", "mean": [0.5, 0.0, 0.4, 3.0, 0.0, 0.0, 0.02, -0.02], "std": [0.1] * 8}
    actions = {"mode": "mean_std", "mean": [0.1] * 7, "std": [0.5] * 7}
    policy = libero(tmp_path, normalization={"state": numbers, "action": actions})
    arrays, _ = policy.arrays(seen())
    assert arrays["state"][0, 2] == pytest.approx((pose(HERE)[2, 3] - 0.4) / 0.1, abs=1e-4)
    chunk = np.zeros((1, ROWS, 7), np.float32)
    chunk[0, :, :6] = -0.2  # times 0.5 plus 0.1: no motion
    chunk[0, 0, 0] = 1.8  # 1 of the policy: 5 cm
    moved = pose(policy.positions(chunk, HERE)[0])
    np.testing.assert_allclose(moved[:3, 3], pose(HERE)[:3, 3] + [0.05, 0, 0], atol=1e-6)


def test_a_number_of_the_state_that_never_moved_in_training_is_checked_by_its_own_name(
    tmp_path: Path,
) -> None:
    at = pose(HERE)
    mean = [*at[:3, 3], *KINDS["axis_angle"].of_matrix(at[:3, :3]), 0.03, -0.03]
    numbers = {"mode": "mean_std", "mean": mean, "std": [0.1] * 7 + [0.0]}
    actions = {"mode": "identity"}
    policy = libero(tmp_path, normalization={"state": numbers, "action": actions})
    policy.predict(seen(), 1)
    closing = HERE.copy()
    closing[7] = 0.02
    with pytest.raises(
        ObservationError, match=r"number 7 \(right\) is -0\.02, and all through training it was -0\.03"
    ):
        policy.predict(seen(closing), 1)


# where it leads


@pytest.mark.parametrize("frame", ["base", "tool"])
def test_a_step_of_libero_moves_the_tool_by_its_scale_in_the_declared_frame(
    tmp_path: Path, frame: str
) -> None:
    made = robots.libero(tmp_path / "export", GOAL.tolist(), 0.3, action_space=[
        robots.LIBERO_TOOL | {"frame": frame}, robots.LIBERO_HAND])  # fmt: skip
    policy = policy_of(tmp_path, made)
    chunk = np.zeros((1, ROWS, 7), np.float32)
    chunk[0, :2, 2], chunk[0, :2, 5], chunk[0, :, 6] = 0.4, 0.5, -1.0
    rows = policy.positions(chunk, HERE)
    up = 1.0 if frame == "base" else -1.0  # the tool points down, and so does its z
    wanted = turned_home(0.0, 0.0, 0.5 * up, moved=(0.0, 0.0, 0.04 * up))
    off_m, off_deg = apart(pose(rows[1]), wanted)
    assert (off_m < 1e-6, off_deg < 1e-4) == (True, True)
    np.testing.assert_allclose(rows[:, 7], 0.04, atol=1e-7)  # -1 is open
    assert np.abs(np.diff(rows[:, :7], axis=0)).max() < 0.5


@pytest.mark.parametrize("frame", ["base", "tool"])
def test_velocities_move_the_tool_by_metres_and_radians_a_second(tmp_path: Path, frame: str) -> None:
    speeds = robots.LIBERO_TOOL | {"mode": "velocity", "frame": frame, "scale": [0.2] * 3 + [1.0] * 3}
    made = robots.libero(tmp_path / "export", GOAL.tolist(), 0.3, action_space=[speeds, robots.LIBERO_HAND])
    policy = policy_of(tmp_path, made)
    chunk = np.zeros((1, ROWS, 7), np.float32)
    chunk[0, :10, 2], chunk[0, :10, 5], chunk[0, :, 6] = (
        0.5,
        0.8,
        -1.0,
    )  # 0.1 m/s and 0.8 rad/s for half a second
    up = 1.0 if frame == "base" else -1.0  # the tool points down, and so does its z
    wanted = turned_home(0.0, 0.0, 0.4 * up, moved=(0.0, 0.0, 0.05 * up))
    off_m, off_deg = apart(pose(policy.positions(chunk, HERE)[-1]), wanted)
    assert (off_m < 1e-5, off_deg < 1e-3) == (True, True)


def test_an_absolute_pose_is_where_the_chunk_ends(tmp_path: Path) -> None:
    goal = turned_home(0.1, 0.2, -0.3, moved=(0.06, 0.05, -0.04))
    policy = policy_of(tmp_path, robots.absolute(tmp_path / "export", goal))
    made = policy.predict(seen(), 1)
    assert made.unreached == ""
    off_m, off_deg = apart(pose(made.actions[-1]), goal)
    assert (off_m < 1e-6, off_deg < 1e-4) == (True, True)
    assert made.actions.dtype == np.float32
    low, high = np.array(robots.LOW, np.float32), np.array(robots.HIGH, np.float32)
    assert (made.actions >= low).all()
    assert (made.actions <= high).all()


def test_poses_of_a_policy_that_sees_no_state_are_reached_from_the_measured_joints(tmp_path: Path) -> None:
    goal = turned_home(0.1, 0.0, 0.0, moved=(0.03, 0.0, 0.0))
    made = robots.blind(tmp_path / "export", goal)
    policy = policy_of(tmp_path, made)
    assert (policy.contract.state, reads_state(policy)) == (None, True)
    off_m, off_deg = apart(pose(policy.predict(seen(), 1).actions[0]), goal)
    assert (off_m < 1e-6, off_deg < 1e-4) == (True, True)
    bare = load_policy(open_export(made), None, "cpu", 1)
    frames = {"front": seen().frames["camera"]}
    np.testing.assert_allclose(
        bare.predict(Observation(frames, None, "reach"), 1).actions[0, :3], goal[:3, 3], atol=1e-6
    )


def test_statistics_of_a_padded_chunk_are_those_of_its_own_columns(tmp_path: Path) -> None:
    gains, offsets = np.zeros((ROWS, 9, 8)), np.zeros((ROWS, 9))
    offsets[0, 0] = 1.0
    made = robots.policy(
        tmp_path / "export", [*robots.LIBERO_NAMES, "a", "b"], robots.LIBERO_STATE, [robots.LIBERO_TOOL, robots.LIBERO_HAND],
        gains, offsets, action_dim=7, action_names=robots.LIBERO_NAMES,
        normalization={"state": {"mode": "identity"}, "action": {"mode": "mean_std", "mean": [0.0] * 9, "std": [0.5] * 9}},
    )  # fmt: skip
    rows = policy_of(tmp_path, made).predict(seen(), 1).actions
    np.testing.assert_allclose(pose(rows[0])[:3, 3], pose(HERE)[:3, 3] + [0.025, 0.0, 0.0], atol=1e-6)


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    policy = libero(tmp_path)
    assert policy.predict(seen(), 1).actions.tobytes() == policy.predict(seen(), 2).actions.tobytes()


def test_nan_of_the_network_stays_nan_for_the_guard(tmp_path: Path) -> None:
    policy = libero(tmp_path)
    chunk = np.zeros((1, ROWS, 7), np.float32)
    chunk[0, 3, 2] = np.nan
    assert np.isnan(policy.positions(chunk, HERE)).all()


def test_a_pose_out_of_reach_ends_the_way_there_and_says_at_which_row(tmp_path: Path) -> None:
    goal = turned_home(0.0, 0.0, 0.0, moved=(2.0, 0.0, 0.0))
    policy = policy_of(tmp_path, robots.absolute(tmp_path / "export", goal))
    made = policy.predict(seen(), 1)
    found = re.match(r"row (\d+): the (tool stays|arm comes near)", made.unreached)
    assert found is not None
    row = int(found[1])
    assert row > 0
    np.testing.assert_array_equal(made.actions[row:], np.tile(made.actions[row - 1], (ROWS - row, 1)))
    wanted = pose(HERE)[:3, 3] + [2.0 / robots.SPREAD * row, 0.0, 0.0]
    np.testing.assert_allclose(pose(made.actions[-1])[:3, 3], wanted, atol=1e-3)


def test_what_is_no_rotation_is_no_pose(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, robots.absolute(tmp_path / "export", pose(HERE)))
    rows, why = policy._rows(np.zeros((1, ROWS, 10), np.float32), HERE)  # type: ignore[attr-defined]
    assert why == "a row is no pose: a first half of a 6D rotation must have a direction, got length 0"
    np.testing.assert_array_equal(rows[0], HERE)


def test_a_chunk_that_is_not_reached_is_averaged_with_none(tmp_path: Path) -> None:
    class Refusing:
        def combine(self, request: Request, positions: Floats) -> tuple[Floats, EnsembleReport]:
            raise AssertionError("it was averaged")

    goal = turned_home(0.0, 0.0, 0.0, moved=(2.0, 0.0, 0.0))
    policy = policy_of(tmp_path, robots.absolute(tmp_path / "export", goal))
    predict = Predict(policy, "prod", lambda: 1, lambda _: PLAIN, ensemble=Refusing())
    served = predict(Request(seen(), time.monotonic_ns(), "one", "pick"), never)
    assert served.unreached.startswith("row ")
    assert served.raw_actions is served.chunk.actions


# what guides the next chunk


@pytest.mark.parametrize("mode", ["delta", "relative", "absolute", "velocity"])
@pytest.mark.parametrize("frame", ["base", "tool"])
def test_a_left_over_leads_the_tool_to_the_same_poses_from_elsewhere(
    tmp_path: Path, mode: str, frame: str
) -> None:
    space = robots.LIBERO_TOOL | {
        "mode": mode,
        "frame": "base" if mode == "absolute" else frame,
        "scale": SCALES.get(mode, 1),
    }
    made = robots.libero(tmp_path / "export", GOAL.tolist(), 0.3, action_space=[space, robots.LIBERO_HAND])
    policy = policy_of(tmp_path, made)
    numbers = np.random.default_rng(2).uniform(-0.01, 0.01, (ROWS, 7)).astype(np.float32)
    if mode == "absolute":
        at = pose(HERE)
        numbers[:, :3] += at[:3, 3]
        numbers[:, 3:6] += KINDS["axis_angle"].of_matrix(at[:3, :3])
    now = HERE + np.float32(0.01)
    before, here = base_of(HERE, policy.binding), base_of(now, policy.binding)
    tail = rebased(numbers[8:], numbers, 8.0, before, here, policy.binding)
    led = policy.positions(numbers[None], HERE)[8:]
    whole = np.zeros((1, ROWS, 7), np.float32)
    whole[0, : len(tail)] = tail
    whole[0, len(tail) :] = tail[-1] if mode in ("relative", "absolute") else 0.0
    again = policy.positions(whole, now)[: len(tail)]
    for one, other in zip(led, again, strict=True):
        off_m, off_deg = apart(pose(one), pose(other))
        assert (off_m < 1e-5, off_deg < 1e-3) == (True, True)


def test_what_the_guard_changed_guides_as_it_was_executed(tmp_path: Path) -> None:
    policy = libero(tmp_path)
    made = policy.predict(seen(), 1)
    own, raw = made.normalised[0], made.actions
    assert executed_rows(own, raw, raw.copy(), policy.binding, HERE) is own
    executed = raw.copy()
    executed[5:, 1] += 0.02
    changed = executed_rows(own, executed, raw, policy.binding, HERE)
    np.testing.assert_array_equal(changed[:5], own[:5])
    led = policy.positions(changed[None], HERE)
    for row in (6, ROWS - 1):
        off_m, off_deg = apart(pose(led[row]), pose(executed[row]))
        assert (off_m < 1e-4, off_deg < 0.02) == (True, True)


def test_a_gripper_of_two_states_is_not_guided(tmp_path: Path) -> None:
    hand = {"name": "hand", "space": "gripper", "joints": [robots.FINGER], "output": {"kind": "gripper_topic", "topic": "/hand"},
        "gripper": {"open": 0.04, "closed": 0.0, "close_threshold": 0.5}}  # fmt: skip
    arm = {
        "name": "arm",
        "space": "joints",
        "joints": robots.ARM,
        "output": {"kind": "joint_trajectory", "topic": "/arm"},
    }
    policy = policy_of(tmp_path, robots.libero(tmp_path / "export", GOAL.tolist(), 0.3), groups=[arm, hand])
    assert guided_columns(policy.binding, 7).tolist() == [1, 1, 1, 1, 1, 1, 0]


# the rest of the package


def test_it_is_bound_to_the_joints_of_the_robot(tmp_path: Path) -> None:
    policy = libero(tmp_path)
    binding = policy.binding
    assert binding.action_names == binding.state_names == tuple(JOINTS)
    assert (binding.state_dim, binding.hold_columns.tolist()) == (8, list(range(8)))  # type: ignore[union-attr]
    assert action_modes(policy) == {}
    assert any("its 'gripper' is taken as the gripper 'finger_joint1'" in note for note in policy.notes)
    np.testing.assert_allclose(policy.canary().state, HERE, atol=1e-6)  # type: ignore[arg-type]


def test_a_parity_fixture_is_of_the_numbers_of_training(tmp_path: Path) -> None:
    policy = libero(tmp_path)
    file = tmp_path / "export" / "parity.npz"
    record(file, policy, seen(), 1)
    stored = np.load(file)
    assert (stored["state"].shape, stored["actions"].shape) == ((8,), (ROWS, 7))
    np.testing.assert_allclose(stored["state"][:3], pose(HERE)[:3, 3], atol=1e-6)
    assert parity(policy).level == OK, parity(policy)


def never(_: Request) -> Served:
    raise AssertionError("the innermost wedge proceeds to nothing")


def without(block: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in block.items() if name != key}


STATE = robots.LIBERO_STATE
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a robot without a tool": ({}, {"kinematics": None}, "are a tool's pose, and embodiment 'arm7' has no 'kinematics'"),
    "unknown numbers": ({"normalization": None}, {}, "does not say how its actions of a tool's pose are normalised"),
    "degrees": ({"units": "degrees"}, {}, "'units' has 'degrees', and 'action_space' a tool's pose"),
    "no columns for the gripper": (
        {"action_dim": 6, "action_names": robots.LIBERO_NAMES[:6], "action_space": [robots.LIBERO_TOOL], "chunk_size": ROWS},
        {}, "beside the tool it has nothing, and embodiment 'arm7' has finger_joint1",
    ),
    "a gripper that is not explained": (
        {"action_space": [robots.LIBERO_TOOL]}, {}, r"does not say what its numbers of the gripper 'gripper' mean",
    ),
    "a gripper of steps": (
        {"action_space": [robots.LIBERO_TOOL, robots.LIBERO_HAND | {"mode": "delta"}]}, {}, "'gripper' is delta, and beside a tool's pose",
    ),
    "a gripper of another space": (
        {"action_space": [robots.LIBERO_TOOL, {"columns": ["gripper"], "space": "joints"}]}, {},
        "'gripper' is of space joints, the embodiment's group 'hand' is of space gripper",
    ),
    "a state of unknown numbers": ({"state": without(STATE, "joints")}, {}, "8 numbers, of which left, right is neither of the tool's pose nor"),
    "a state of nothing": ({"state": {"input": "state"}}, {}, "does not say what the numbers of its state are"),
    "a joint that is not there": (
        {"state": STATE | {"joints": [{"column": 6, "joint": "thumb"}, STATE["joints"][1]]}}, {},
        "'state.joints' has 'thumb', and the robot has joint1",
    ),
    "a state without its rotation": (
        {"state": STATE | {"tool": {"columns": [0, 1, 2, 3, 4, 5]}}}, {}, r"state\.tool\.rotation' must be one of rpy, .*, got null",
    ),
    "a rotation of another length": (
        {"state": STATE | {"tool": STATE["tool"] | {"rotation": "rot6d_rows"}}}, {},
        r"state\.tool\.columns' must be 9 numbers of the state, .* got \[\"x\"",
    ),
    "a number with two meanings": (
        {"state": STATE | {"joints": [{"column": "x", "joint": robots.FINGER}]}}, {}, r"one meaning, number 0 has more",
    ),
    "a tool's state of joint actions": (
        {"action_space": [{"columns": robots.LIBERO_NAMES, "mode": "absolute"}]}, {}, "and no action of it is of space tool",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_missing_or_contradicts_itself_is_refused_with_both(tmp_path: Path, name: str) -> None:
    config, changes, sentence = REFUSED[name]
    made = robots.libero(tmp_path / "export", GOAL.tolist(), 0.3, **config)
    with pytest.raises((ConfigurationError, ExportError)) as caught:
        policy_of(tmp_path, made, **changes)
    assert re.search(sentence, str(caught.value)), str(caught.value)


def test_poses_are_served_as_they_are_without_a_robot_and_steps_are_not(tmp_path: Path) -> None:
    goal = turned_home(0.0, 0.0, math.pi / 4)
    policy = load_policy(open_export(robots.absolute(tmp_path / "pose", goal)), None, "cpu", 1)
    state = np.array([*goal[:3, 3], *KINDS["rot6d_columns"].of_matrix(goal[:3, :3]), 1.0], np.float32)
    made = policy.predict(Observation({"front": seen().frames["camera"]}, state, "reach"), 1).actions
    np.testing.assert_allclose(made[-1, :3], goal[:3, 3], atol=1e-6)
    with pytest.raises(
        ConfigurationError, match="delta to a tool's pose, which needs the robot's kinematics"
    ):
        load_policy(open_export(robots.libero(tmp_path / "steps", GOAL.tolist(), 0.3)), None, "cpu", 1)


def test_without_pinocchio_it_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pinocchio", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'reflex_ros\[kinematics\]'") as caught:
        libero(tmp_path)
    assert caught.value.slug == "kinematics-missing"
