# SPDX-License-Identifier: Apache-2.0
"""Shapes of Isaac-GR00T: time steps, groups of the state, and which action columns belong to which group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from groot_client import LANGUAGE, flat, nested

from reflex_core.errors import ObservationError
from reflex_core.export.binding import Binding
from reflex_core.robot.groups import Group, whole_robot
from reflex_ros.sidecar.wires.groot_shapes import actions_of, declared_groups, groups_of, shaped

NAMES = ("j1", "j2", "j3")
BARE = Binding(
    cameras={}, state_names=(), state_dim=None, state_statistics=None, action_names=NAMES, action_statistics=None,
    columns=np.arange(3), hold_columns=None, horizon=4, dt_s=0.1,
)  # fmt: skip
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def measured(*places: int, groups: tuple[Group, ...] = ()) -> Binding:
    return replace(BARE, hold_columns=np.array(places), groups=groups)


@pytest.mark.parametrize(("observation", "is_nested"), [(nested(), True), (flat(), False)])
def test_both_shapes_become_flat_maps_of_one_time_step(observation: Any, is_nested: bool) -> None:
    found = shaped(observation, 1)
    [step] = found.steps
    assert (found.nested, found.batched) == (is_nested, is_nested)
    assert {key: np.shape(value) for key, value in step.items()} == {
        "video.ego_view" if is_nested else "video.webcam": (32, 32, 3),
        "state.left_arm" if is_nested else "state.single_arm": (7,),
        LANGUAGE: (),
    }
    assert step[LANGUAGE] == "reach the red cube"


def test_a_state_without_an_axis_of_time_is_one_step() -> None:
    found = shaped({"state.arm": np.zeros(7), "state.hand": np.array(3.0), "video.a": np.zeros((4, 4, 3))}, 1)
    assert {key: value.shape for key, value in found.steps[0].items()} == {
        "state.arm": (7,), "state.hand": (1,), "video.a": (4, 4, 3),
    }  # fmt: skip
    assert not found.batched


def test_time_steps_are_separated_and_the_newest_has_all_keys() -> None:
    observation = {
        "video": {"a": np.arange(2, dtype=np.uint8).reshape(1, 2, 1, 1, 1)},
        "state": {"arm": np.arange(6.0).reshape(1, 3, 2)},
        "language": {LANGUAGE: [["old", "new"]]},
    }
    oldest, older, newest = shaped(observation, 3).steps
    assert set(oldest) == {"state.arm"}
    assert set(older) == {"video.a", "state.arm"}
    assert (int(older["video.a"].item()), int(newest["video.a"].item())) == (0, 1)
    np.testing.assert_array_equal(newest["state.arm"], [4, 5])
    assert newest[LANGUAGE] == "new"


@pytest.mark.parametrize(
    "observation",
    [
        {"state": {"arm": np.zeros((2, 1, 7))}},
        {"video": {"a": np.zeros((2, 1, 4, 4, 3), np.uint8)}},
        {"state": {"arm": np.zeros((1, 1, 1, 7))}},
        {"language": {LANGUAGE: [["reach"], ["reach"]]}},
    ],
)
def test_more_than_one_robot_in_a_request_is_refused(observation: Any) -> None:
    with pytest.raises(ObservationError, match="of one robot") as refused:
        shaped(observation, 1)
    assert refused.value.slug == "bad-batch"


@pytest.mark.parametrize("steps", [0, 2, 10_000_000])
def test_more_time_steps_than_the_policy_sees_are_refused_before_they_cost_anything(steps: int) -> None:
    """An axis may be as long as it likes where another one is 0."""
    for shape in ((1, steps, 0), (1, steps, 1)):
        with pytest.raises(ObservationError, match="must have 1 to 1 time steps") as refused:
            shaped({"state": {"arm": np.broadcast_to(np.uint8(0), shape)}}, 1)
        assert refused.value.slug == "bad-history"


def test_what_is_no_video_is_no_image() -> None:
    [step] = shaped(nested() | {"depth": {"ego_view": np.zeros((1, 1, 4, 4, 1), np.uint8)}}, 1).steps
    assert not [key for key in step if "depth" in key]


def test_too_many_keys_are_refused() -> None:
    with pytest.raises(ObservationError, match="at most 256 values"):
        shaped({"state": {f"k{number}": 0.0 for number in range(300)}}, 1)


def test_columns_go_to_the_group_that_measures_them_in_the_clients_order() -> None:
    binding = measured(2, 0, 1)
    groups = groups_of([("state.arm", 2), ("state.hand", 1)], binding)
    assert groups == {"arm": [1, 2], "hand": [0]}
    actions = actions_of(ROWS, groups, prefix="", batched=True)
    assert {name: part.shape for name, part in actions.items()} == {"arm": (1, 4, 2), "hand": (1, 4, 1)}
    np.testing.assert_array_equal(actions["arm"][0], ROWS[:, [1, 2]])
    assert all(part.dtype == np.float32 for part in actions.values())


def test_groups_that_are_measured_and_not_commanded_have_no_actions() -> None:
    assert groups_of([("state.arm", 3), ("state.leg", 6)], measured(0, 1, 2)) == {"arm": [0, 1, 2]}


def test_columns_that_nothing_measures_go_to_the_group_of_the_description() -> None:
    base = Group("base", (2,), ("x",), space="base", commands="velocity")
    state = [("state.arm", 2)]
    assert groups_of(state, measured(0, 1, -1, groups=(base,))) == {"arm": [0, 1], "base": [2]}
    assert groups_of(state, measured(0, 1, -1)) == {"arm": [0, 1], "rest": [2]}


def test_without_names_columns_are_in_the_order_of_the_state_where_both_have_as_many() -> None:
    assert groups_of([("state.arm", 2), ("state.hand", 1)], BARE) == {"arm": [0, 1], "hand": [2]}
    assert groups_of([("state.pose", 9)], BARE) == {"rest": [0, 1, 2]}
    assert groups_of([], BARE) == {"single_arm": [0, 1, 2]}


def test_groups_are_declared_by_wire_keys_by_the_description_or_as_one_arm() -> None:
    arm, hand = Group("arm", (0, 1), NAMES[:2]), Group("hand", (2,), NAMES[2:])
    assert declared_groups(BARE, ("state.left_arm", "state.left_hand")) == ("left_arm", "left_hand")
    assert declared_groups(measured(0, 1, 2, groups=(arm, hand)), ()) == ("arm", "hand")
    assert declared_groups(measured(2, 0, 1, groups=(arm, hand)), ()) == ("single_arm",)
    assert declared_groups(measured(0, 1, 2, groups=whole_robot(NAMES)), ()) == ("single_arm",)
    assert declared_groups(BARE, ()) == ("single_arm",)
