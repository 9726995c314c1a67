# SPDX-License-Identifier: Apache-2.0
"""A base gets velocities tick by tick over DDS, and zeros when the rows are over, it is held, or the node ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from controller_bench import Bench
from geometry_msgs.msg import Twist, TwistStamped
from output_scene import output_scene, silent
from ros_world import wait_for

from reflex_core.chunks.setpoints import REPEATS
from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import BASE, POSITION, VELOCITY, Group


def base(**options: Any) -> Group:
    return Group(
        "base", (0, 1), ("linear.x", "angular.z"), BASE, VELOCITY, "twist", {"topic": "/cmd_vel", **options}
    )


def test_it_drives_along_the_rows_and_stands_still_after_them_at_a_hold_and_at_the_end() -> None:
    with output_scene(base()) as scene, Bench(scene.domain, {}) as bench:
        driven = bench.base()
        scene.hear(Twist, "/cmd_vel")
        wait_for(lambda: scene.node.count_subscribers("/cmd_vel") == 2, "the base is there")

        def stands() -> bool:
            return silent(driven.received) and all(
                not any(speeds) for _, *speeds in driven.received[-REPEATS:]
            )

        scene.chunk([[0.3, -0.5]] * 4)
        wait_for(lambda: driven.received and stands(), "the rows are over")
        fastest = max(driven.received, key=lambda each: each[1])
        assert fastest[1:] == pytest.approx((0.3, 0.0, -0.5), abs=1e-6)
        for end in (lambda: scene.hold([0.0, 0.0]), lambda: scene.on_executor(scene.outputs.disable)):
            scene.chunk([[0.3, -0.5]] * 50)
            wait_for(lambda: driven.received[-1][1] > 0.29, "it drives")
            end()
            wait_for(stands, "it stands")


def test_a_stamped_twist_has_the_time_and_the_frame() -> None:
    with output_scene(base(stamped=True, frame="base_footprint")) as scene:
        heard = scene.hear(TwistStamped, "/cmd_vel")
        scene.chunk([[0.1, 0.0]] * 3)
        wait_for(lambda: heard and silent(heard), "it drives")
        stamps = [message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for _, message in heard]
        assert stamps == sorted(stamps)
        assert abs(scene.node.get_clock().now().nanoseconds * 1e-9 - stamps[-1]) < 10.0
        assert {message.header.frame_id for _, message in heard} == {"base_footprint"}


@pytest.mark.parametrize(
    ("wrong", "got"),
    [({"names": ("linear.x", "steering")}, "axes steering"), ({"commands": POSITION}, "commands position")],
)
def test_what_a_twist_cannot_say_is_refused(wrong: dict[str, Any], got: str) -> None:
    with (
        pytest.raises(ConfigurationError, match=f"group 'base' .*got {got}"),
        output_scene(replace(base(), **wrong)),
    ):
        pass
