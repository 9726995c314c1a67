# SPDX-License-Identifier: Apache-2.0
"""A gripper that is commanded continuously by a topic, over DDS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from output_scene import output_scene, silent
from ros_world import wait_for
from std_msgs.msg import Float64MultiArray

from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import GRIPPER, POSITION, GripperEnds, Group

TOPIC = "/gripper_position_controller/commands"


def hand(**options: Any) -> Group:
    options = {"topic": TOPIC} | options
    return Group(
        "hand", (0,), ("finger",), GRIPPER, POSITION, "gripper_topic", options, GripperEnds(0.04, 0.0)
    )


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [({}, 0.04, 0.01), ({"open_value": 1.0, "closed_value": 0.0}, 1.0, 0.25), ({"open_value": 0, "closed_value": 100}, 0.0, 75.0)],
)  # fmt: skip
def test_it_is_led_from_where_it_is_in_what_the_topic_counts(
    options: dict[str, float], first: float, last: float
) -> None:
    with output_scene(hand(**options)) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"finger": 0.04}
        scene.chunk([[0.01]] * 8)
        wait_for(lambda: heard and silent(heard), "it has gone there")
        values = [message.data.tolist() for _, message in heard]
        assert values[0] == pytest.approx([first], abs=1e-4)
        assert values[-1] == pytest.approx([last], abs=1e-4)
        assert len(values) < 30  # in 0.4 s, at 30 Hz


@pytest.mark.parametrize(
    "wrong",
    [
        {"options": {"topic": TOPIC, "open_value": 1.0}},
        {"options": {"open_value": 1.0, "closed_value": 0.0}, "gripper": None},
        {"columns": (0, 1)},
    ],
)
def test_half_a_scale_no_ends_and_two_joints_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="group 'hand'"), output_scene(replace(hand(), **wrong)):
        pass
