# SPDX-License-Identifier: Apache-2.0
"""Columns that saturate by design: a gripper at the ends of its range says nothing against the policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from guarded import request

from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.embodiment import SATURATION_TOLERANCE, Embodiment, TwoEnded
from reflex_core.robot.gripper import at_the_ends, ends_of
from reflex_core.robot.limits.limits import effective_limits
from reflex_core.robot.limits.safety_config import CLIP, MODES, REJECT, SafetyConfig
from reflex_core.robot.presets import load_preset
from reflex_core.values import HOLD, POLICY, ActionChunk, Floats, Inference, Served
from reflex_core.wedges.guard import Guard, guard_for
from reflex_core.wedges.wedge import Proceed

TROSSEN = load_preset("trossen")
GRIPPER = TROSSEN.action_dim - 1
LOW, HIGH = float(TROSSEN.action_min[GRIPPER]), float(TROSSEN.action_max[GRIPPER])
WIDTH = HIGH - LOW
MIDDLE: Floats = ((TROSSEN.action_min + TROSSEN.action_max) / 2).astype(np.float32)
DT_S = 0.05


def robot(end: TwoEnded | None = None, **changes: object) -> Embodiment:
    """A WidowX whose gripper moves as fast as it likes."""
    velocity = TROSSEN.velocity_max.copy() if TROSSEN.velocity_max is not None else None
    assert velocity is not None
    velocity[GRIPPER] = np.inf
    changes = {"velocity_max": velocity, "gripper": end or TwoEnded(GRIPPER, None)} | changes
    return dataclasses.replace(TROSSEN, **changes)  # type: ignore[arg-type]


def guard_of(embodiment: Embodiment, safety: SafetyConfig | None = None) -> Guard:
    columns = np.arange(embodiment.action_dim)
    return guard_for(embodiment, columns, Metrics(), safety, embodiment.joint_names, DT_S)


def chunk(gripper: float, column: int = GRIPPER) -> Floats:
    rows: Floats = np.tile(MIDDLE, (10, 1))
    rows[:, column] = gripper
    return rows


def answering(actions: Floats) -> Proceed:
    def proceed(request: object) -> Served:
        return Served(
            chunk=ActionChunk(actions, TROSSEN.joint_names, DT_S), raw_actions=actions, request_id="r",
            episode_id="pick", seed=1, slot="prod", model_version="test@0", inference=Inference("onnx_cpu", 10, 10),
        )  # fmt: skip

    return proceed


def ask(guard: Guard, actions: Floats) -> Served:
    return guard(request("pick", state=MIDDLE), answering(actions))


def tighter(mode: str = CLIP) -> SafetyConfig:
    """Half of the gripper's range."""
    name = TROSSEN.joint_names[GRIPPER]
    return SafetyConfig(Path("limits.json"), (name,), np.array([LOW]), np.array([LOW + WIDTH / 2]), mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("predicted", "commanded"), [(HIGH + 0.04 * WIDTH, HIGH), (LOW - 0.04 * WIDTH, LOW)])
def test_a_gripper_that_overshoots_its_ends_a_little_is_clipped_without_a_word(
    predicted: float, commanded: float, mode: str
) -> None:
    name = TROSSEN.joint_names[0]
    safety = SafetyConfig(Path("limits.json"), (name,), np.array([-3.0]), np.array([3.0]), mode=mode)
    guard = guard_of(robot(), safety)
    served = ask(guard, chunk(predicted))
    assert served.chunk.source == POLICY
    assert (served.guard.clamped, served.guard.clamp_count, served.guard.violations) == (False, 0, ())
    np.testing.assert_allclose(served.chunk.actions, chunk(commanded), atol=1e-6)
    assert (served.chunk.actions[:, GRIPPER].astype(np.float64) <= HIGH).all()
    assert (served.chunk.actions[:, GRIPPER].astype(np.float64) >= LOW).all()
    assert guard.status().consecutive_clamps == 0


@pytest.mark.parametrize("predicted", [HIGH + 0.06 * WIDTH, LOW - 0.06 * WIDTH])
def test_a_gripper_further_beyond_its_ends_counts_as_any_joint(predicted: float) -> None:
    guard = guard_of(robot())
    served = ask(guard, chunk(predicted))
    assert (served.guard.clamped, served.guard.clamp_count) == (True, 10)
    assert served.guard.violations[0].startswith(TROSSEN.joint_names[GRIPPER])
    assert guard.status().consecutive_clamps == 1


def test_the_tolerance_is_what_the_embodiment_states() -> None:
    for tolerance, clamped in ((0.0, True), (0.02, True), (0.1, False), (1.0, False)):
        end = TwoEnded(GRIPPER, None, saturation_tolerance=tolerance)
        assert ask(guard_of(robot(end)), chunk(HIGH + 0.05 * WIDTH)).guard.clamped is clamped
    assert TwoEnded(GRIPPER, None).saturation_tolerance == SATURATION_TOLERANCE == 0.05


def test_a_gripper_policy_that_saturates_never_trips() -> None:
    """Rows such as 0.0403 m with a limit of 0.04, and -0.0005: a hundred chunks."""
    low, high = TROSSEN.action_min.copy(), TROSSEN.action_max.copy()
    low[GRIPPER], high[GRIPPER] = 0.0, 0.04
    guard = guard_of(robot(action_min=low, action_max=high))
    for number in range(100):
        served = ask(guard, chunk(-0.0005 if number % 2 else 0.0403))
        assert served.chunk.source == POLICY
    assert (guard.status().tripped, guard.status().violations_total) == (False, 0)


def test_another_joint_beside_it_counts_as_ever() -> None:
    rows = chunk(HIGH + 0.04 * WIDTH)
    rows[:, 0] = 9.0
    served = ask(guard_of(robot()), rows)
    assert served.guard.clamp_count == 10, "the gripper's numbers are not among them"
    assert all(line.startswith(TROSSEN.joint_names[0]) for line in served.guard.violations)
    assert (served.chunk.actions[:, GRIPPER] <= HIGH).all()
    guard = guard_of(robot())
    for _ in range(10):
        held = ask(guard, rows)
    assert (held.chunk.source, held.hold_reason) == (HOLD, "guard_tripped")


def test_a_payload_release_saturates_too() -> None:
    release = robot(payload_release=TwoEnded(0, None), gripper=None, velocity_max=None)
    beyond = float(release.action_max[0] + 0.04 * (release.action_max[0] - release.action_min[0]))
    assert not ask(guard_of(release), chunk(beyond, column=0)).guard.clamped
    assert ask(guard_of(robot(velocity_max=None)), chunk(beyond, column=0)).guard.clamped


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("raw", [HIGH + 0.04 * WIDTH, LOW - 0.04 * WIDTH])
def test_flipped_and_thresholded_grippers_are_the_same(
    inverted: bool, threshold: float | None, raw: float
) -> None:
    arm = robot(TwoEnded(GRIPPER, threshold, inverted))
    rows = at_the_ends(chunk(raw), ends_of(arm))
    served = ask(guard_of(arm), rows)
    assert not served.guard.clamped
    upper = (raw > HIGH) is not inverted
    np.testing.assert_allclose(served.chunk.actions[:, GRIPPER], HIGH if upper else LOW, atol=1e-6)


def test_an_end_that_the_safety_file_moved_is_clamped_and_said_but_not_held_against_the_policy() -> None:
    guard = guard_of(robot(), tighter())
    for _ in range(20):
        served = ask(guard, chunk(HIGH + 0.04 * WIDTH))
        assert served.chunk.source == POLICY
        assert served.guard.clamped
        np.testing.assert_allclose(served.chunk.actions[:, GRIPPER], LOW + WIDTH / 2, atol=1e-6)
    assert (guard.status().consecutive_clamps, guard.status().violations_total) == (0, 20)
    assert not ask(guard, chunk(LOW + WIDTH / 2 + 0.04 * WIDTH)).guard.clamped
    ask(guard, chunk(HIGH + 0.06 * WIDTH))
    assert guard.status().consecutive_clamps == 1


def test_a_thresholded_end_that_the_safety_file_moved_is_no_violation() -> None:
    guard = guard_of(robot(TwoEnded(GRIPPER, 0.5)), tighter())
    served = ask(guard, chunk(HIGH))
    assert not served.guard.clamped
    np.testing.assert_allclose(served.chunk.actions[:, GRIPPER], LOW + WIDTH / 2, atol=1e-6)


def test_in_reject_mode_an_end_that_the_safety_file_moved_is_rejected() -> None:
    served = ask(guard_of(robot(), tighter(REJECT)), chunk(HIGH))
    assert (served.chunk.source, served.hold_reason) == (HOLD, "rejected")


def test_what_is_not_finite_is_held_whatever_the_tolerance() -> None:
    for value in (np.nan, np.inf):
        end = TwoEnded(GRIPPER, None, saturation_tolerance=1.0)
        assert ask(guard_of(robot(end)), chunk(value)).hold_reason == "non_finite"


def test_a_robot_without_such_a_column_has_no_tolerance() -> None:
    arm = load_preset("franka").without_gripper()
    limits = effective_limits(arm.joint_names, arm, None)
    assert limits is not None
    assert limits.saturating is None
