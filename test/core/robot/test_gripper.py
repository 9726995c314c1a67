# SPDX-License-Identifier: Apache-2.0
"""What a gripper does to the actions of a real export: inverted, moved to its ends, or left as it is.

The last action of the probe is the last number of the state, so that a test says what the network answers.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grouped_robots import ARM, HAND, grouped
from layout_policies import picture
from odd_exports import HORIZON, probe
from robots import ranges, robot

from reflex_core.chunks.temporal_ensemble import served_rows
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.gripper import End, at_the_ends, ends_of
from reflex_core.values import Floats

PLAIN = {"normalization": {"state": {"mode": "identity"}, "action": {"mode": "identity"}}}
JOINTS = [f"joint_{number}" for number in range(6)]


def with_gripper(path: Path, bounds: tuple[float, float] = (0.0, 1.0), **block: Any) -> Embodiment:
    action_space = ranges(7, gripper=list(bounds))
    return robot(path, [*JOINTS, "gripper"], action_space=action_space, gripper={"component_idx": 6, **block})


def served(path: Path, embodiment: Embodiment, config: dict[str, Any] | None = None) -> Policy:
    return load_policy(open_export(probe(path, config=PLAIN | (config or {}))), embodiment, "cpu", 1)


def answer(policy: Policy, value: float) -> Floats:
    """(horizon, 7) actions, the last of which the network says is `value`."""
    seen = dataclasses.replace(policy.canary(), state=np.array([0.5, value], np.float32))
    return policy.predict(seen, 1).actions


@pytest.mark.parametrize("value", [0.0, 0.3, 0.75, 1.2])
def test_a_gripper_without_a_threshold_is_continuous(tmp_path: Path, value: float) -> None:
    actions = answer(served(tmp_path, with_gripper(tmp_path)), value)
    np.testing.assert_allclose(actions[:, 6], value, atol=1e-5)
    np.testing.assert_allclose(actions[:, 5], 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "end"), [(-0.2, 0.0), (0.0, 0.0), (0.59, 0.0), (0.61, 1.0), (1.0, 1.0), (3.0, 1.0)]
)
def test_a_threshold_closes_or_opens_the_gripper_all_the_way(
    tmp_path: Path, value: float, end: float
) -> None:
    actions = answer(served(tmp_path, with_gripper(tmp_path, close_threshold=0.6)), value)
    assert actions[:, 6].tolist() == [end] * HORIZON
    np.testing.assert_allclose(actions[:, 5], 0.5, atol=1e-5)


def test_a_threshold_counts_in_parts_of_the_range(tmp_path: Path) -> None:
    policy = served(tmp_path, with_gripper(tmp_path, (-2.0, 6.0), close_threshold=0.25))
    assert answer(policy, -0.1)[:, 6].tolist() == [-2.0] * HORIZON
    assert answer(policy, 0.1)[:, 6].tolist() == [6.0] * HORIZON


def test_an_inverted_gripper_counts_from_the_other_end_of_its_range(tmp_path: Path) -> None:
    policy = served(tmp_path, with_gripper(tmp_path, (-2.0, 6.0), inverted=True))
    np.testing.assert_allclose(answer(policy, -1.0)[:, 6], 5.0, atol=1e-5)
    np.testing.assert_allclose(answer(policy, 6.0)[:, 6], -2.0, atol=1e-5)


def test_inversion_comes_before_the_threshold(tmp_path: Path) -> None:
    policy = served(tmp_path, with_gripper(tmp_path, close_threshold=0.8, inverted=True))
    assert answer(policy, 0.1)[0, 6] == 1.0
    assert answer(policy, 0.3)[0, 6] == 0.0


def test_both_act_on_physical_units(tmp_path: Path) -> None:
    """The network says 0.5 for what the statistics call 0.5 * 0.2 + 0.7 = 0.8 of the range."""
    block = {"state": {"mode": "identity"}, "action": {"mean": [0.0] * 6 + [0.7], "std": [1.0] * 6 + [0.2]}}
    policy = served(tmp_path, with_gripper(tmp_path, close_threshold=0.75), {"normalization": block})
    assert answer(policy, 0.5)[0, 6] == 1.0
    assert answer(policy, 0.2)[0, 6] == 0.0


def test_the_gripper_is_found_by_name_wherever_the_export_has_it(tmp_path: Path) -> None:
    names = ["gripper", *JOINTS]  # the export's first action is the mean red of the picture
    policy = served(tmp_path, with_gripper(tmp_path, close_threshold=0.5), {"action_names": names})
    actions = answer(policy, 7.0)
    assert set(actions[:, 6].tolist()) <= {0.0, 1.0}
    np.testing.assert_allclose(actions[:, 5], 7.0, atol=1e-5)


def test_a_payload_is_released_from_its_threshold_on(tmp_path: Path) -> None:
    release = {"component_idx": 6, "trigger_threshold": 0.5}
    drone = robot(
        tmp_path, [*JOINTS, "payload"], action_space=ranges(7, payload=[0.0, 1.0]), payload_release=release
    )
    policy = served(tmp_path, drone)
    assert (answer(policy, 0.4)[0, 6], answer(policy, 0.5)[0, 6]) == (0.0, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so_for_the_guard_to_see(tmp_path: Path, value: float) -> None:
    ends = ends_of(with_gripper(tmp_path, close_threshold=0.5, inverted=True))
    actions = np.full((3, 7), 0.25, np.float32)
    actions[1, 6] = value
    found = at_the_ends(actions, ends)
    assert np.isfinite(found).tolist() == np.isfinite(actions).tolist()
    assert found[[0, 2], 6].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bounds", [(0.0, 0.044), (0.1, 0.7), (-0.2, 2.0), (-0.7, -0.1)])
def test_the_ends_lie_inside_the_range(tmp_path: Path, bounds: tuple[float, float]) -> None:
    """Else the guard would clamp, and count, every chunk in which the gripper is shut."""
    (end,) = ends_of(with_gripper(tmp_path, bounds, close_threshold=0.5))
    assert bounds[0] <= float(end.low) <= bounds[0] + 1e-6
    assert bounds[1] - 1e-6 <= float(end.high) <= bounds[1]


def test_a_robot_that_asks_for_nothing_costs_nothing(tmp_path: Path) -> None:
    actions = np.zeros((3, 7), np.float32)
    assert ends_of(None) == ends_of(with_gripper(tmp_path)) == ()
    assert at_the_ends(actions, ()) is actions


def test_the_networks_own_answer_is_not_written_over(tmp_path: Path) -> None:
    actions = np.full((3, 7), 0.25, np.float32)
    at_the_ends(actions, ends_of(with_gripper(tmp_path, close_threshold=0.5)))
    assert (actions == 0.25).all()


FAR = 0.04  # m, where the finger of `fingers` is open; closed is 0


def fingers(path: Path, threshold: float = 0.5) -> Embodiment:
    """A robot of schema v2. threshold: of the way from open to closed."""
    return grouped(path, groups=[ARM, HAND | {"gripper": HAND["gripper"] | {"close_threshold": threshold}}])


def finger(path: Path, threshold: float = 0.5) -> End:
    """Its state is measured in the order of its joints."""
    (end,) = ends_of(fingers(path, threshold), np.arange(3))
    return end


def opened(shares: list[float], end: End, measured: float | None) -> list[bool]:
    """Whether each row opens the finger. shares: of its range. measured: m."""
    actions = np.full((len(shares), 3), 0.5, np.float32)
    actions[:, 2] = np.array(shares) * FAR
    state = None if measured is None else np.array([0.5, 0.5, measured], np.float32)
    found = at_the_ends(actions, (end,), state)
    assert set(found[:, 2].tolist()) <= {float(end.low), float(end.high)}
    assert (found[:, :2] == 0.5).all()
    return (found[:, 2] == end.high).tolist()


def test_near_its_threshold_a_gripper_takes_the_end_of_the_row_before(tmp_path: Path) -> None:
    shares = [0.2, 0.52, 0.48, 0.549, 0.56, 0.46, 0.51, 0.44, 0.54]
    opens = [False, False, False, False, True, True, True, False, False]
    for measured in (None, 0.0, FAR):
        assert opened(shares, finger(tmp_path), measured) == opens


@pytest.mark.parametrize(
    ("measured", "opens"),
    [(0.0, False), (0.015, False), (0.025, False), (0.031, False), (0.033, True), (FAR, True)],
)
def test_the_first_rows_open_a_gripper_that_is_measured_nearly_open_and_let_go_of_nothing_wide(
    tmp_path: Path, measured: float, opens: bool
) -> None:
    """Between its ends a gripper holds something, or is on its way."""
    end = finger(tmp_path)
    assert opened([0.48, 0.52, 0.5], end, measured) == [opens] * 3
    assert opened([0.52, 0.48, 0.8, 0.48], end, measured) == [opens, opens, True, True]
    assert opened([0.52, 0.3], end, measured) == [opens, False]


@pytest.mark.parametrize(("measured", "closed"), [(0.0, False), (0.1, False), (0.3, True), (0.8, True)])
def test_a_gripper_whose_joint_grows_as_it_closes_counts_from_its_open_end(
    tmp_path: Path, measured: float, closed: bool
) -> None:
    ranges = {"type": "continuous", "dim": 3, "ranges": [[-1, 1], [-2, 2], [0, 0.8]]}
    hand = HAND | {"gripper": {"open": 0.0, "closed": 0.8, "close_threshold": 0.5}}
    (end,) = ends_of(grouped(tmp_path, groups=[ARM, hand], action_space=ranges), np.arange(3))
    rows = at_the_ends(np.full((2, 3), 0.4, np.float32), (end,), np.array([0, 0, measured], np.float32))
    assert (rows[:, 2] == (end.high if closed else end.low)).all()


@pytest.mark.parametrize("measured", [None, np.nan])
def test_the_first_row_of_a_gripper_that_is_not_measured_decides_alone(
    tmp_path: Path, measured: float | None
) -> None:
    assert opened([0.52, 0.48, 0.46], finger(tmp_path), measured) == [True] * 3
    assert opened([0.48, 0.52], finger(tmp_path), measured) == [False] * 2
    (unmeasured,) = ends_of(fingers(tmp_path), np.array([0, 1, -1]))
    (unknown,) = ends_of(fingers(tmp_path))
    assert opened([0.48, 0.52], unmeasured, FAR) == opened([0.48, 0.52], unknown, FAR) == [False, False]
    short = at_the_ends(np.full((2, 3), 0.48 * FAR, np.float32), (finger(tmp_path),), np.zeros(2, np.float32))
    assert (short[:, 2] == 0.0).all()


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.5, 0.98])
def test_both_ends_can_be_reached_wherever_the_threshold_is(tmp_path: Path, threshold: float) -> None:
    end = finger(tmp_path, threshold)
    for measured in (None, 0.0, FAR):
        assert opened([0.0, 1.0, 0.0], end, measured) == [False, True, False]


def test_rows_that_are_not_finite_decide_nothing_and_stay(tmp_path: Path) -> None:
    actions = np.full((5, 3), 0.5 * FAR, np.float32)
    actions[:, 2] = [np.nan, 0.01, np.inf, 0.5 * FAR, np.nan]
    found = at_the_ends(actions, (finger(tmp_path),), np.array([0.0, 0.0, FAR], np.float32))[:, 2]
    assert np.isfinite(found).tolist() == [False, True, False, True, False]
    assert found[[1, 3]].tolist() == [0.0, 0.0]


def test_grippers_of_schema_v1_and_payloads_decide_row_by_row(tmp_path: Path) -> None:
    (end,) = ends_of(with_gripper(tmp_path, close_threshold=0.5), np.arange(7))
    noise = np.random.default_rng(2).uniform(0.45, 0.55, (200, 7)).astype(np.float32)
    found = at_the_ends(noise, (end,), np.ones(7, np.float32))
    assert found[:, 6].tolist() == np.where(noise[:, 6] >= 0.5, 1.0, 0.0).tolist()
    release = {"component_idx": 6, "trigger_threshold": 0.5}
    drone = robot(
        tmp_path, [*JOINTS, "payload"], action_space=ranges(7, payload=[0.0, 1.0]), payload_release=release
    )
    assert [end.margin for end in ends_of(drone, np.arange(7))] == [0.0]


@pytest.mark.parametrize("averaged", [False, True])
def test_a_policy_leaves_its_gripper_where_it_is_measured_while_its_answer_is_near_the_threshold(
    tmp_path: Path, averaged: bool
) -> None:
    """The network answers how blue the picture is, from closed to open."""
    names = ["shoulder", "elbow", "finger"]
    config = PLAIN | {
        "action_dim": 3,
        "action_names": names,
        "state": {"input": "body", "names": names},
        "action_space": [{"columns": ["finger"], "gripper": {"open": 1.0, "closed": 0.0}}],
        "frequency_hz": 20,
    }
    policy = load_policy(
        open_export(probe(tmp_path, state=3, config=config)), fingers(tmp_path, 0.3), "cpu", 1
    )
    for share in (0.6, 0.68, 0.72, 0.8):
        for measured, stays in ((0.0, 0.0), (0.03, 0.0), (FAR, FAR)):  # the second one holds something wide
            state = np.array([0.0, 0.0, measured], np.float32)
            frames = {name: picture((0, 0, round(share * 255))) for name in policy.canary().frames}
            prediction = policy.predict(dataclasses.replace(policy.canary(), frames=frames, state=state), 1)
            rows = prediction.actions
            if averaged:
                rows = served_rows(policy.positions(prediction.normalised, state), policy.binding, state)
            end = stays if 0.65 < share < 0.75 else FAR * round(share - 0.2)
            assert rows[:, 2] == pytest.approx(end, abs=1e-6)
