# SPDX-License-Identifier: Apache-2.0
"""JointTrajectory messages of a motion: what joint_trajectory_controller accepts, and follows without a jerk."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from trajectory_msgs.msg import JointTrajectory

from reflex_core.chunks.interpolation import Bounds, Spline, through
from reflex_core.errors import SettingError
from reflex_core.robot.groups import Group
from reflex_core.settings.table import settings_from
from reflex_ros.messages.chunks import trajectory_message
from reflex_ros.messages.stamps import stamp_ns
from reflex_ros.outputs.base import Command
from reflex_ros.outputs.interfaces import with_defaults
from reflex_ros.outputs.joint_trajectory import JointTrajectoryOutput

NOW_NS, STEP_NS = 1_700_000_000 * 10**9 + 123_456_789, 50_000_000
NAMES = ("a", "b")


def motion(count: int = 5, *, anchored: bool = True) -> Spline:
    rows = np.array([[0.1 * i, -0.05 * i] for i in range(count)])
    times = NOW_NS + np.array([0, *(20_000_000 + STEP_NS * i for i in range(count - 1))])
    return through(
        times,
        rows,
        np.array([0.5, -0.25]),
        Bounds.unlimited(2),
        anchored=anchored,
    )


def seconds(message: Any) -> list[float]:
    return [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points]


def whole(message: Any) -> Any:
    """What a subscriber gets."""
    return deserialize_message(message, JointTrajectory) if isinstance(message, bytes) else message


class Sender:
    """The output without a graph: what it published."""

    def __init__(self, **options: Any) -> None:
        self.sent: list[Any] = []
        publisher = SimpleNamespace(topic_name="/reflex/joint_trajectory")
        node: Any = SimpleNamespace(create_lifecycle_publisher=lambda *_, **__: publisher)
        group = Group("arm", (0, 1), NAMES, options=options)
        self.output = JointTrajectoryOutput(node, lambda _, message: self.sent.append(whole(message)), group)

    def send(self, what: Spline) -> Any:
        self.output.send(self.command(what))
        return self.sent[-1]

    def hold(self, what: Spline) -> Any:
        self.output.hold(self.command(what))
        return self.sent[-1]

    def command(self, what: Spline) -> Command:
        chunk: Any = None
        return Command(chunk, NOW_NS - 3 * STEP_NS, 3, what)


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_a_trajectory_counts_from_the_moment_of_publishing_and_begins_with_the_running_command(
    era: str,
) -> None:
    given = motion()
    message = Sender(trajectory_era=era).send(given)
    assert stamp_ns(message.header.stamp) == NOW_NS
    assert message.joint_names == list(NAMES)
    assert seconds(message) == pytest.approx([0.0, 0.02, 0.07, 0.12, 0.17], abs=1e-12)
    assert [list(point.positions) for point in message.points] == given.positions.tolist()
    assert [list(point.velocities) for point in message.points] == given.velocities.tolist()
    assert list(message.points[-1].velocities) == [0.0, 0.0], "else the controller refuses it"


def test_a_controller_that_bridges_by_itself_gets_no_anchor() -> None:
    message = Sender(trajectory_era="blend").send(motion())
    assert seconds(message) == pytest.approx([0.02, 0.07, 0.12, 0.17], abs=1e-12)
    assert stamp_ns(message.header.stamp) == NOW_NS


@pytest.mark.parametrize(
    ("chosen", "found", "anchored"),
    [
        ("auto", "blend", False),
        ("auto", "legacy", True),
        ("legacy", "blend", True),
        ("blend", "legacy", False),
    ],
)
def test_what_the_controller_says_counts_where_no_era_was_chosen(
    chosen: str, found: str, anchored: bool
) -> None:
    sender = Sender(trajectory_era=chosen)
    sender.output.found_era(found)
    assert (seconds(sender.send(motion()))[0] == 0.0) is anchored


@pytest.mark.parametrize("era", ["auto", "legacy", "blend"])
def test_a_motion_that_begins_where_the_command_is_not_known_has_no_anchor(era: str) -> None:
    given = motion(anchored=False)
    assert seconds(Sender(trajectory_era=era).send(given)) == pytest.approx(
        [0.02, 0.07, 0.12, 0.17], abs=1e-12
    )


def test_a_hold_has_stamp_0_and_ends_at_rest() -> None:
    message = Sender().hold(motion())
    assert stamp_ns(message.header.stamp) == 0
    assert seconds(message)[0] == 0.0
    assert list(message.points[-1].velocities) == [0.0, 0.0]


def test_a_hold_that_is_punctual_begins_when_it_was_made() -> None:
    sender = Sender()
    sender.output.hold(replace(sender.command(motion()), punctual=True))
    assert stamp_ns(sender.sent[-1].header.stamp) == NOW_NS
    assert seconds(sender.sent[-1])[0] == 0.0
    *_, end, later = sender.sent[-1].points
    assert later.positions == end.positions
    assert seconds(sender.sent[-1])[-1] - seconds(sender.sent[-1])[-2] == pytest.approx(2.0), (
        "else it expires on its way"
    )


@pytest.mark.parametrize(
    ("due_ms", "given_ms"),
    [
        ([0, 1, 51, 101], [51, 101]),
        ([0, 15, 51, 101], [51, 101]),
        ([0, 20, 70], [20, 70]),
        ([0, 3, 6, 16, 26, 36], [6, 16, 26, 36]),
        ([0, 3], [3]),
        ([0], [0]),
    ],
)
def test_a_point_that_is_due_soon_is_left_out_for_a_controller_that_counts_from_the_arrival(
    due_ms: list[int], given_ms: list[int]
) -> None:
    places = np.arange(len(due_ms), dtype=np.float64)[:, None]
    given = Spline(NOW_NS + np.array(due_ms) * 1_000_000, places, np.zeros_like(places), anchored=True)
    message = trajectory_message(("a",), given, NOW_NS, anchor=False)
    assert seconds(message) == pytest.approx(np.array(given_ms) * 1e-3)
    assert seconds(trajectory_message(("a",), given, NOW_NS, anchor=True)) == pytest.approx(
        np.array(due_ms) * 1e-3
    )


def test_a_controller_that_computes_velocities_gets_none() -> None:
    message = Sender(velocities=False).send(motion())
    assert all(len(point.velocities) == 0 for point in message.points)
    assert len(message.points) == 5


def test_points_of_a_motion_of_some_columns() -> None:
    message = trajectory_message(("b",), motion().of(np.array([1])), 0, anchor=True)
    assert [list(point.positions) for point in message.points] == [
        [value] for value in motion().positions[:, 1].tolist()
    ]


def test_a_joint_that_stands_twice_is_refused() -> None:
    """What a controller does with it is not defined."""
    twice = Group("arm", (0, 1), ("a", "a"))
    node: Any = None
    with pytest.raises(SettingError, match=r"group 'arm': joint 'a' stands twice in it"):
        JointTrajectoryOutput(node, lambda *_: None, twice)


def test_the_era_is_a_setting_unless_the_group_says_it() -> None:
    settings = settings_from({"trajectory_era": "blend"})
    group = Group("arm", (0, 1), NAMES)
    assert with_defaults(group, settings).options == {"trajectory_era": "blend"}
    assert with_defaults(group, settings).output == "joint_trajectory"
    own = Group("arm", (0, 1), NAMES, options={"trajectory_era": "legacy"})
    assert with_defaults(own, settings).options == {"trajectory_era": "legacy"}
    other = Group("hand", (0,), ("a",), output="gripper_command", options={"action": "/hand"})
    assert with_defaults(other, settings) == other
